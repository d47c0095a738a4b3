"""Estimated costs on the terminal: --costs of the verbs that count exits."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from bench.compare import Comparison, NamedRun
from bench.costs import Model, Range, Unit, estimate, estimate_saved, models_for
from vmirom.gather import gather
from vmirom.output import number, plain_table, stdout
from vmm.core.errors import BadDescription

__all__ = ["chosen_models", "costs_options", "cycles", "one_exit", "print_estimates", "seconds"]

F = TypeVar("F", bound=Callable[..., Any])


def costs_options(function: F) -> F:
    """What exits would have cost, and at what clock: the argument `models`."""
    return gather(
        "models",
        chosen_models,
        click.option(
            "--clock",
            type=click.FloatRange(min=0, min_open=True, max=100),
            metavar="GHZ",
            help="With --costs: the processor's clock, instead of the model's.",
        ),
        click.option(
            "--costs",
            "cost_names",
            multiple=True,
            metavar="MODEL|FILE",
            help="Estimate cycles and time by a cost model (see `vmirom costs`) or by those of a "
            "file *.toml; may be repeated.",
        ),
    )(function)


def chosen_models(cost_names: Sequence[str], clock: float | None) -> tuple[Model, ...]:
    """The cost models asked for, in the order asked; raises `BadDescription`."""
    models = tuple(model for name in cost_names for model in models_for(name))
    if clock is None:
        return models
    if not models:
        raise BadDescription(f"--clock {clock:g}: means nothing without --costs")
    return tuple(model.at_clock(clock) for model in models)


def print_estimates(result: Comparison, models: Sequence[Model]) -> None:
    """For each model a table of what every run cost, and the savings in words."""
    for model in models:
        stdout.print(
            f"Estimated cost, not measured, by {model.name} ({model.generation}): {model.source}",
            markup=False,
        )
        for caveat in (model.covers, *model.caveats):
            stdout.print(f"  {caveat}", markup=False)
        table = plain_table("ROM", "light", "heavy", "cycles (from-to)", "time (from-to)")
        for named in result.runs:
            cost = estimate(model, named.run.ledger.by_reason)
            table.add_row(
                named.rom.name,
                one_exit(Range.exactly(cost.light.typical), model.unit),
                one_exit(Range.exactly(cost.heavy.typical), model.unit),
                cycles(cost.cycles),
                seconds(cost.seconds),
            )
        stdout.print(table)
        for named in result.runs[1:]:
            stdout.print(_in_words(result, named, model), markup=False)


def _in_words(result: Comparison, named: NamedRun, model: Model) -> str:
    """What a run saved by a model, or that it saved nothing."""
    before, after = result.baseline.ledger.by_reason, named.run.ledger.by_reason
    saved = estimate_saved(model, before, after)
    subject, base = f"ROM {named.rom.name}", result.runs[0].rom.name
    amount = saved.cycles or saved.seconds or Range.exactly(0)
    if amount.low > 0:
        return f"{subject} saved {_amounts(saved.cycles, saved.seconds)} against {base}."
    if amount.high > 0:
        return (
            f"{subject} saved {_amounts(saved.cycles, saved.seconds)} against {base}: by this "
            f"range it may as well have saved nothing."
        )
    text = f"{subject} saved nothing against {base}"
    if amount.low < 0:
        text += f" and cost {_amounts(_negated(saved.cycles), _negated(saved.seconds))} more"
    if not result.policy.shadow:
        text += ": with hardware-assisted paging there are no page-table exits to save"
    return f"{text}."


def _negated(amount: Range | None) -> Range | None:
    return None if amount is None else Range(-amount.high, -amount.typical, -amount.low)


def _amounts(in_cycles: Range | None, in_seconds: Range | None) -> str:
    """Cycles and time with their ranges, as far as they are known."""
    parts = []
    if in_cycles is not None:
        parts.append(f"{cycles(in_cycles)} cycles")
    if in_seconds is not None:
        parts.append(seconds(in_seconds))
    return ", ".join(parts)


def one_exit(cost: Range, unit: Unit) -> str:
    """The cost of one exit: 1,009 (1,009-3,000) in cycles, or 540 (460-1,660) ns."""
    return cycles(cost) if unit is Unit.CYCLES else seconds(cost.times(1e-9))


def cycles(amount: Range | None) -> str:
    """So many cycles with their range: 28.7 (28.4-85.3) M; nothing where they are not known."""
    return _scaled(amount, ((1e9, " G"), (1e6, " M"), (1, "")))


def seconds(amount: Range | None) -> str:
    """A time with its range: 9.79 (9.69-29.1) ms; nothing where it is not known."""
    return _scaled(amount, ((1, " s"), (1e-3, " ms"), (1e-6, " us"), (1e-9, " ns")))


def _scaled(amount: Range | None, scales: Sequence[tuple[float, str]]) -> str:
    """All three in the unit that suits the typical value."""
    if amount is None:
        return ""
    largest = abs(amount.typical) or max(abs(amount.low), abs(amount.high))
    scale, name = next((row for row in scales if largest >= row[0]), scales[-1])
    low, typical, high = (
        _digits(value / scale) for value in (amount.low, amount.typical, amount.high)
    )
    to = " to " if amount.low < 0 else "-"
    return f"{typical}{'' if low == high else f' ({low}{to}{high})'}{name}"


def _digits(value: float) -> str:
    """Three digits of a small number, all of a large one."""
    return f"{value:.3g}" if abs(value) < 1000 else number(round(value))
