"""Cost models from TOML: the ones that come along, and a user's own.

A file holds the figures of one source:

    schema = "vmirom.costs/1"
    source = "where the figures come from"
    covers = "what is in them: the hardware round trip, or the handling too"
    unit = "cycles"                     # or "ns", "us"

    [heavy]                             # optional: for models without a figure of their own
    times_light = [1, 3, 3]             # a heavy exit costs so many times a light one
    source = "where that comes from"

    [[model]]
    name = "mine"
    generation = "what processor, what hypervisor"
    light = [900, 1000, 1500]           # low, typical, high; or one number
    heavy = 4000                        # optional
    nested = false                      # optional
    clock_ghz = 3.0                     # optional, with clock_source
    clock_source = "where that comes from"

    [model.reasons.hypercall]           # optional, by exit reason
    light = 800
"""

import math
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from bench.costs.model import Factor, Model, Range, Unit
from vmm.core.errors import BadDescription
from vmm.core.event import Reason, Weight

__all__ = ["ENGINE", "SCHEMA", "load_file", "load_models", "model_named", "models_for"]

SCHEMA = "vmirom.costs/1"
ENGINE = "engine"
"""The name of the model that is measured on the user's own machine."""

_UNITS = {"cycles": (Unit.CYCLES, 1), "ns": (Unit.NANOSECONDS, 1), "us": (Unit.NANOSECONDS, 1000)}
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_MOST = 1e15


@cache
def load_models() -> tuple[Model, ...]:
    """The models that come along, those of one source together, oldest source first."""
    found: list[Model] = []
    folder = files("bench.costs")
    for name in ("agesen-2012.toml", "lkml-skylake.toml", "lkml-nested.toml", "pvm-2023.toml"):
        found += _parse(folder.joinpath(name).read_text(encoding="utf-8"), name)
    return tuple(found)


def model_named(name: str) -> Model:
    """The model that comes along under this name; raises `BadDescription` when there is none."""
    for model in load_models():
        if model.name == name:
            return model
    if name == ENGINE:
        raise BadDescription(
            "cost model 'engine': it is measured, not given; run `vmirom costs --measure -o "
            "engine.toml`, then use engine.toml"
        )
    known = ", ".join(model.name for model in load_models())
    raise BadDescription(f"cost model {name!r}: no such file, and not one of {known}")


def load_file(path: Path) -> tuple[Model, ...]:
    """The models in a user's file, at least one; raises `BadDescription` for what is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadDescription(f"cost models {str(path)!r}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise BadDescription(f"cost models {str(path)!r}: expected UTF-8 text") from None
    return _parse(text, str(path))


def models_for(text: str) -> tuple[Model, ...]:
    """What a user asks for: the name of a model, or a file *.toml with one or several."""
    if text.endswith(".toml") or "/" in text:
        return load_file(Path(text))
    return (model_named(text),)


def _parse(text: str, where: str) -> tuple[Model, ...]:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadDescription(f"cost models {where!r}: {error}") from None
    try:
        return _models(table)
    except _Wrong as wrong:
        raise BadDescription(f"cost models {where!r}: {wrong}") from None


class _Wrong(Exception):
    """What is wrong with a file, without its name."""


def _models(table: Mapping[str, Any]) -> tuple[Model, ...]:
    _known_keys(table, "the file", {"schema", "source", "covers", "unit", "heavy", "model"})
    if table.get("schema") != SCHEMA:
        raise _Wrong(f"schema is {table.get('schema')!r}, expected {SCHEMA!r}")
    unit_name = _text(table, "unit", "the file")
    if unit_name not in _UNITS:
        raise _Wrong(f"unit is {unit_name!r}, expected one of {', '.join(_UNITS)}")
    unit, scale = _UNITS[unit_name]
    common = {
        "source": _text(table, "source", "the file"),
        "covers": _text(table, "covers", "the file"),
        "unit": unit,
        "heavy_factor": _factor(table["heavy"]) if "heavy" in table else None,
    }
    rows = table.get("model", [])
    if not isinstance(rows, list) or not rows:
        raise _Wrong("it has no [[model]]")
    models: list[Model] = []
    for row in rows:
        model = _model(row, common, scale)
        if any(model.name == other.name for other in models):
            raise _Wrong(f"two models are called {model.name!r}")
        models.append(model)
    return tuple(models)


def _model(row: Any, common: dict[str, Any], scale: int) -> Model:
    table = _table(row, "[[model]]")
    name = _text(table, "name", "[[model]]")
    where = f"model {name!r}"
    if not _NAME.fullmatch(name):
        raise _Wrong(f"{where}: expected a name of lower-case letters, digits and .-_")
    _known_keys(
        table,
        where,
        {
            *("name", "generation", "light", "heavy", "nested"),
            *("clock_ghz", "clock_source", "reasons"),
        },
    )
    if "light" not in table:
        raise _Wrong(f"{where}: light is missing")
    nested = table.get("nested", False)
    if not isinstance(nested, bool):
        raise _Wrong(f"{where}: nested is {nested!r}, expected true or false")
    clock = _number(table["clock_ghz"], f"{where}: clock_ghz") if "clock_ghz" in table else None
    return Model(
        name=name,
        generation=_text(table, "generation", where),
        light=_range(table["light"], f"{where}: light").times(scale),
        heavy=_range(table["heavy"], f"{where}: heavy").times(scale) if "heavy" in table else None,
        by_reason=_reasons(table.get("reasons", {}), where, scale),
        nested=nested,
        clock_ghz=clock,
        clock_source="" if clock is None else _text(table, "clock_source", where),
        **common,
    )


def _reasons(value: Any, where: str, scale: int) -> dict[tuple[Reason, Weight], Range]:
    found = {}
    for name, row in _table(value, f"{where}: reasons").items():
        if name not in set(Reason):
            known = ", ".join(reason.value for reason in Reason)
            raise _Wrong(f"{where}: {name!r} is no exit reason, expected one of {known}")
        inner = f"{where}: reasons.{name}"
        _known_keys(_table(row, inner), inner, set(Weight))
        for weight, figure in row.items():
            found[Reason(name), Weight(weight)] = _range(figure, f"{inner}.{weight}").times(scale)
    return found


def _factor(value: Any) -> Factor:
    table = _table(value, "[heavy]")
    _known_keys(table, "[heavy]", {"times_light", "source"})
    if "times_light" not in table:
        raise _Wrong("[heavy]: times_light is missing")
    times = _range(table["times_light"], "[heavy]: times_light")
    return Factor(times, _text(table, "source", "[heavy]"))


def _known_keys(table: Mapping[str, Any], where: str, known: set[str]) -> None:
    for key in table:
        if key not in known:
            raise _Wrong(f"{where}: {key!r} means nothing, expected {', '.join(sorted(known))}")


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Wrong(f"{where} is {value!r}, expected a table")
    return value


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value.strip():
        what = "missing" if value is None else repr(value)
        raise _Wrong(f"{where}: {key} is {what}, expected text")
    return value


def _range(value: Any, where: str) -> Range:
    """One number, or low, typical and high."""
    if not isinstance(value, list):
        return Range.exactly(_number(value, where))
    if len(value) != 3:
        raise _Wrong(f"{where} is {value!r}, expected a number or [low, typical, high]")
    low, typical, high = (_number(item, where) for item in value)
    if not low <= typical <= high:
        raise _Wrong(f"{where} is {value!r}, expected low <= typical <= high")
    return Range(low, typical, high)


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Wrong(f"{where} is {value!r}, expected a number")
    if not math.isfinite(value) or not 0 < value <= _MOST:
        raise _Wrong(f"{where} is {value!r}, expected a number above 0")
    return float(value)
