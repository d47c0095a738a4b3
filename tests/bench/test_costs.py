"""Cost models: the published figures, files of one's own, and sums done by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.costs import (
    Model,
    Range,
    Unit,
    estimate,
    estimate_saved,
    load_file,
    load_models,
    model_named,
    models_for,
)
from vmm.core.errors import BadDescription
from vmm.core.event import Reason, Weight
from vmm.core.ledger import ReasonCount

ROUND_TRIPS = {
    "prescott": 3963,
    "merom": 1579,
    "penryn": 1266,
    "nehalem": 1009,
    "westmere": 761,
    "sandybridge": 784,
}
"""Agesen et al., Table 1, cycles."""


def test_the_published_figures() -> None:
    models = {model.name: model for model in load_models()}
    for name, cycles in ROUND_TRIPS.items():
        assert models[name].light.low == models[name].light.typical == cycles
        assert "Table 1" in models[name].source
    assert models["nehalem"].light.high == 3000
    assert models["sandybridge-nested"].light == Range.exactly(9794)
    assert models["skylake"].light == Range(1529, 1559, 1559)
    nested = models["kvm-nested"]
    assert nested.cost(Reason.CPUID, Weight.LIGHT).typical == 14886
    assert nested.cost(Reason.HYPERCALL, Weight.LIGHT).typical == 14918
    assert nested.cost(Reason.IO, Weight.LIGHT).typical == 15218
    assert nested.cost(Reason.IO, Weight.HEAVY).typical == 47277
    lake = models["cascadelake"]
    assert lake.unit is Unit.NANOSECONDS
    assert lake.cost(Reason.HYPERCALL, Weight.LIGHT).typical == pytest.approx(460)
    assert lake.cost(Reason.IO, Weight.HEAVY).typical == pytest.approx(3790)
    assert {name for name, model in models.items() if model.nested} == {
        "sandybridge-nested",
        "kvm-nested",
        "cascadelake-nested",
        "cascadelake-pvm-nested",
    }


def test_every_figure_has_a_source_and_no_model_has_two() -> None:
    models = load_models()
    assert len({model.name for model in models}) == len(models)
    for model in models:
        assert len(model.source) > 20
        assert model.covers
        # What another source gave is told apart.
        assert model.heavy is not None or model.heavy_factor is not None
        if model.heavy_factor is not None:
            assert model.heavy is None
            assert model.heavy_factor.source not in model.source
            assert any(model.heavy_factor.source in caveat for caveat in model.caveats)
        assert (model.clock_ghz is None) == (model.clock_source == "")


def test_userspace_is_about_three_times_the_kernel() -> None:
    for model in load_models():
        light = model.cost(Reason.IO, Weight.LIGHT).typical
        assert 2.9 < model.cost(Reason.IO, Weight.HEAVY).typical / light < 30


MODEL = Model(
    name="even",
    generation="",
    unit=Unit.CYCLES,
    source="",
    covers="",
    light=Range(100, 200, 400),
    heavy=Range(1000, 1000, 3000),
    by_reason={(Reason.HYPERCALL, Weight.LIGHT): Range(300, 300, 300)},
    clock_ghz=2.0,
)


def test_an_estimate_by_hand() -> None:
    exits = {
        Reason.PTE_WRITE: ReasonCount(light=10),
        Reason.HYPERCALL: ReasonCount(light=2),
        Reason.IO: ReasonCount(light=1, heavy=3),
    }
    cost = estimate(MODEL, exits)
    assert cost.exits == 16
    assert cost.cycles == Range(1000 + 600 + 3100, 2000 + 600 + 3200, 4000 + 600 + 9400)
    assert cost.seconds is not None
    assert cost.seconds.typical == pytest.approx(5800 / 2e9)
    assert cost.light.typical + cost.heavy.typical == 5800
    assert cost.by_reason[Reason.IO] == Range(3100, 3200, 9400)
    assert cost.share(Reason.IO) == pytest.approx(3200 / 5800)
    assert sum(cost.share(reason) for reason in exits) == pytest.approx(1)
    assert estimate(MODEL, {}).cycles == Range.exactly(0)


def test_savings_take_both_runs_at_the_same_figures() -> None:
    before = {Reason.PTE_WRITE: ReasonCount(light=10)}
    after = {Reason.HYPERCALL: ReasonCount(light=4)}
    saved = estimate_saved(MODEL, before, after)
    assert saved.exits == 6
    # low 1000 - 1200, typical 2000 - 1200, high 4000 - 1200
    assert saved.cycles == Range(-200, 800, 2800)
    assert estimate_saved(MODEL, before, before).cycles == Range.exactly(0)


def test_bounds_hold_where_cheap_exits_are_swapped_for_dear_ones() -> None:
    before = {Reason.PTE_WRITE: ReasonCount(light=1)}
    after = {Reason.IO: ReasonCount(heavy=1)}
    saved = estimate_saved(MODEL, before, after)
    assert saved.cycles == Range(-2600, -800, -800)


def test_without_a_clock_there_is_no_time() -> None:
    cost = estimate(model_named("skylake"), {Reason.CPUID: ReasonCount(light=2)})
    assert cost.seconds is None
    assert cost.cycles is not None
    assert cost.cycles.typical == 2 * 1559
    clocked = estimate(model_named("skylake").at_clock(2.0), {Reason.CPUID: ReasonCount(light=2)})
    assert clocked.seconds is not None
    assert clocked.seconds.typical == pytest.approx(1559e-9)


def test_times_become_cycles_by_the_clock() -> None:
    cost = estimate(model_named("cascadelake"), {Reason.HYPERCALL: ReasonCount(light=1)})
    assert cost.cycles is not None
    assert cost.cycles.typical == pytest.approx(460 * 2.5)


FILE = """
schema = "vmirom.costs/1"
source = "me"
covers = "all"
unit = "us"
[heavy]
times_light = 3
source = "a guess"
[[model]]
name = "a"
generation = "one"
light = [1, 2, 3]
[model.reasons.io]
heavy = 9
[[model]]
name = "b"
generation = "two"
nested = true
light = 5
heavy = 6
clock_ghz = 1.5
clock_source = "the label"
"""


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(FILE, encoding="utf-8")
    one, two = load_file(path)
    assert models_for(str(path)) == (one, two)
    assert one.light == Range(1000, 2000, 3000)
    assert one.cost(Reason.MMIO, Weight.HEAVY) == Range(3000, 6000, 9000)
    assert one.cost(Reason.IO, Weight.HEAVY) == Range.exactly(9000)
    assert one.source == two.source == "me"
    assert two.nested
    assert two.cost(Reason.IO, Weight.HEAVY) == Range.exactly(6000)
    assert two.clock_ghz == 1.5


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("vmirom.costs/1", "vmirom.costs/9", "schema is 'vmirom.costs/9', expected"),
        ('source = "me"', 'source = ""', "the file: source is '', expected text"),
        ('covers = "all"', "", "the file: covers is missing, expected text"),
        ('"us"', '"minutes"', "unit is 'minutes', expected one of cycles, ns, us"),
        ("[1, 2, 3]", "[3, 2, 1]", "model 'a': light is [3, 2, 1], expected low <= typical <= h"),
        ("[1, 2, 3]", "[1, 2]", "expected a number or [low, typical, high]"),
        ("[1, 2, 3]", '"cheap"', "model 'a': light is 'cheap', expected a number"),
        ("[1, 2, 3]", "0", "model 'a': light is 0, expected a number above 0"),
        ("[1, 2, 3]", "-5", "expected a number above 0"),
        ("[1, 2, 3]", "inf", "light is inf, expected a number above 0"),
        ("[1, 2, 3]", "nan", "light is nan, expected a number above 0"),
        ("[1, 2, 3]", "true", "light is True, expected a number"),
        ("light = 5", "", "model 'b': light is missing"),
        ("light = 5", "lite = 5", "model 'b': 'lite' means nothing, expected clock_ghz"),
        ('name = "b"', 'name = "a"', "two models are called 'a'"),
        ('name = "b"', 'name = "B!"', "model 'B!': expected a name of lower-case letters"),
        ("nested = true", "nested = 1", "model 'b': nested is 1, expected true or false"),
        ('clock_source = "the label"', "", "model 'b': clock_source is missing"),
        ("reasons.io", "reasons.tea", "model 'a': 'tea' is no exit reason, expected one of pte"),
        ("heavy = 9", "dear = 9", "model 'a': reasons.io: 'dear' means nothing, expected heavy"),
        ("times_light = 3", "", "[heavy]: times_light is missing"),
        ('source = "a guess"', "", "[heavy]: source is missing"),
        ('unit = "us"', 'unit = "us"\ncolour = 1', "the file: 'colour' means nothing"),
        ("[[model]]", "[[models]]", "the file: 'models' means nothing"),
        ("[1, 2, 3]", "[1, 2", "Unclosed array"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = tmp_path / "mine.toml"
    assert old in FILE
    path.write_text(FILE.replace(old, new), encoding="utf-8")
    with pytest.raises(BadDescription) as wrong:
        load_file(path)
    assert says in str(wrong.value)
    assert "mine.toml" in str(wrong.value)


def test_files_that_are_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(BadDescription, match="No such file"):
        load_file(tmp_path / "none.toml")
    with pytest.raises(BadDescription, match="irectory"):
        load_file(tmp_path)
    bad = tmp_path / "bad.toml"
    bad.write_bytes(b"\xff\xfe")
    with pytest.raises(BadDescription, match="UTF-8"):
        load_file(bad)
    empty = tmp_path / "empty.toml"
    empty.touch()
    with pytest.raises(BadDescription, match="schema is None"):
        load_file(empty)


def test_names_that_do_not_exist() -> None:
    with pytest.raises(BadDescription, match="'i486': no such file, and not one of prescott"):
        models_for("i486")
    with pytest.raises(BadDescription, match="measured, not given"):
        models_for("engine")
