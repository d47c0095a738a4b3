"""The engine's own costs, measured on this machine by runs, as a model like any other."""

import json
import platform
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.costs.load import ENGINE, SCHEMA
from bench.costs.model import Model, Range, Unit
from bench.exittimes import ExitTimes
from bench.inputs import Guest, RomChoice, machine_with
from vmm.core import is_compiled
from vmm.core.errors import VmmError
from vmm.core.event import Reason, Weight
from vmm.core.outcome import OutcomeKind
from vmm.machine import Machine, MachineDescription

__all__ = ["as_toml", "measure_engine"]

_COVERS = (
    "the host's time from entering the core to leaving it, two looks at the clock included; the "
    "engine's own way to the core and back is not in it. Low and high are the least and the most "
    "of the means of single repetitions, typical is their median"
)


def measure_engine(
    guests: Sequence[Guest],
    roms: Sequence[RomChoice],
    description: MachineDescription,
    repetitions: int,
    progress: Callable[[str], None] = lambda _: None,
    watch: Callable[[int], None] | None = None,
) -> Model:
    """Run every guest with every ROM `repetitions` times, and time each exit.

    A figure is the mean over all exits of a kind in one repetition. Raises KeyboardInterrupt
    when a run was interrupted, and `VmmError` when a guest fails.
    """
    means: dict[tuple[Reason, Weight], list[float]] = {}
    by_weight: dict[Weight, list[float]] = {weight: [] for weight in Weight}
    for repetition in range(repetitions):
        times = ExitTimes()
        for guest in guests:
            for rom in roms:
                progress(f"{guest.name}, ROM {rom.name}, {repetition + 1} of {repetitions}")
                _time(machine_with(description, guest, rom), times, watch)
        for key, spread in times.spreads.items():
            means.setdefault(key, []).append(spread.mean)
        for weight, found in by_weight.items():
            all_of = times.of_weight(weight)
            if all_of.count:
                found.append(all_of.mean)
    if not by_weight[Weight.LIGHT]:
        raise VmmError(f"{', '.join(guest.name for guest in guests)}: no light exit to measure")
    names = ", ".join(guest.name for guest in guests)
    core = "compiled" if is_compiled() else "interpreted"
    heavy = by_weight[Weight.HEAVY]
    return Model(
        name=ENGINE,
        generation=f"this engine (unicorn, core {core})",
        unit=Unit.NANOSECONDS,
        source=f"measured on {_processor()}: {names}, policy {description.policy.name}, "
        f"{repetitions} repetitions",
        covers=_COVERS,
        light=_range(by_weight[Weight.LIGHT]),
        heavy=_range(heavy) if heavy else None,
        by_reason={key: _range(values) for key, values in sorted(means.items())},
    )


def _time(
    description: MachineDescription, times: ExitTimes, watch: Callable[[int], None] | None
) -> None:
    machine = Machine(description)
    machine.record(times, timing=True)
    outcome = machine.run(watch).outcome
    if outcome.kind is OutcomeKind.INTERRUPTED:
        raise KeyboardInterrupt
    if not outcome.ok:
        raise VmmError(f"a guest that was to be timed ended otherwise: {outcome}")


def _range(means: list[float]) -> Range:
    low, typical, high = min(means), statistics.median(means), max(means)
    return Range(round(low, 1), round(typical, 1), round(high, 1))


def _processor() -> str:
    """The host's processor by the name it gives itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (names and names[0]) or platform.processor() or platform.machine()


def as_toml(model: Model) -> str:
    """A model in nanoseconds as a file that `load_file` reads."""
    lines = [
        f"schema = {_quoted(SCHEMA)}",
        f"source = {_quoted(model.source)}",
        f"covers = {_quoted(model.covers)}",
        f"unit = {_quoted(model.unit.value)}",
        "",
        "[[model]]",
        f"name = {_quoted(model.name)}",
        f"generation = {_quoted(model.generation)}",
        f"light = {_figure(model.light)}",
    ]
    if model.heavy is not None:
        lines.append(f"heavy = {_figure(model.heavy)}")
    for reason in dict.fromkeys(reason for reason, _ in model.by_reason):
        lines += ["", f"[model.reasons.{reason.value}]"]
        lines += [
            f"{weight.value} = {_figure(cost)}"
            for (other, weight), cost in model.by_reason.items()
            if other is reason
        ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text)


def _figure(cost: Range) -> str:
    return f"[{cost.low}, {cost.typical}, {cost.high}]"
