"""The reference of the JSON that `run` and `compare` print, checked against a run."""

from collections.abc import Iterator
from typing import Any

from bench.compare import compare
from bench.costs import model_named
from bench.inputs import load_guest, load_rom
from bench.schema import compare_to_json
from generator.markdown import table
from vmm.machine import MachineDescription


def _cost_meanings() -> dict[str, str]:
    model = {
        "name": "with `--costs`: the cost model",
        "generation": "of the processor, and what runs on it",
        "nested": "is the cost that of a nested guest's exit?",
        "unit": "of the figures below: `cycles` or `ns`",
        "source": "where the figures come from: one source for all of a model",
        "covers": "what is in them",
        "caveats": "what an estimate rests on beside the source",
        "caveats[]": "what an estimate rests on beside the source",
        "clock_ghz": "the processor's clock; null where it is not known",
        "clock_source": "where the clock comes from",
        "light": "one light exit",
        "heavy": "one heavy exit",
        "heavy_source": "where that comes from, if it is a factor",
        "by_reason.*.light": "one exit for that reason",
        "by_reason.*.heavy": "one exit for that reason",
    }
    amount = {
        "rom": "the run's ROM",
        "exits": "exits, or exits saved",
        "cycles": "estimated cycles; null where that needs an unknown clock",
        "seconds": "estimated time; null where that needs an unknown clock",
        "light": "the light exits' part, in the model's unit",
        "heavy": "the heavy exits' part, in the model's unit",
    }
    rows = {
        **{f"costs[].model.{name}": text for name, text in model.items()},
        **{f"costs[].runs[].{name}": text for name, text in amount.items()},
        **{f"costs[].saved[].{name}": text for name, text in amount.items()},
    }
    ends = {"low": "the low end of the range", "typical": "the value", "high": "the high end"}
    return rows | {
        f"{path}.{end}": f"{text}: {ends[end]}" for path, text in rows.items() for end in ends
    }


MEANINGS = {
    "schema": "name and version of this shape; additions keep the number",
    "guest": "the guest's name",
    "guest_sha256": "of the guest's image",
    "rom.flavour": "`none`, the flavour, or the file's name",
    "rom.sha256": "of the ROM's image; null without one",
    "rom.queue": "capacity in records; null where it is not known",
    "policy": "the policy, with its changes",
    "engine": "what executed the guest",
    "outcome": "how the run ended",
    "detail": "the same for people",
    "instructions": "guest instructions, the ROM's included; null where the engine counts none",
    "rom_instructions": "those of the ROM; null likewise",
    "virtual_seconds": "virtual time at the end; on engine `kvm` the host's, less what HLT skips",
    "exits.total": "all exits",
    "exits.light": "served in the core",
    "exits.heavy": "served by a device",
    "exits.by_reason.*.count": "exits for the reason; reasons without any are left out",
    "exits.by_reason.*.weight": "`light`, `heavy` or `mixed`",
    "exits.by_reason.*.light": "of these, served in the core",
    "exits.by_reason.*.heavy": "of these, served by a device",
    "engine_events.*": "traps that only this engine needs, and on `kvm` what KVM_RUN returned "
    "for; not exits",
    "paravirt.updates": "page-table entries that went through the queue",
    "paravirt.notices": "all records",
    "paravirt.flushes": "drains that found any",
    "paravirt.largest_batch": "the most records in one drain",
    "paravirt.hypercalls": "rings of the doorbell",
    "paravirt.instructions_per_update": "ROM instructions per update; null without updates",
    "complaints": "what the monitor refused, in words",
    "memory_crc32": "of all guest memory at the end",
    "console": "what the guest printed",
    "vcpus[].instructions": "with `--cpus` above 1, for each CPU: what it executed",
    "vcpus[].virtual_seconds": "how long it ran itself",
    "vcpus[].exits.total": "its exits",
    "vcpus[].exits.light": "of these, served in the core",
    "vcpus[].exits.heavy": "of these, served by a device",
    "vcpus[].exits.by_reason.*.count": "its exits for the reason",
    "vcpus[].exits.by_reason.*.weight": "`light`, `heavy` or `mixed`",
    "vcpus[].exits.by_reason.*.light": "of these, served in the core",
    "vcpus[].exits.by_reason.*.heavy": "of these, served by a device",
    "vcpus[].engine_events.*": "its traps that only this engine needs",
    "calls.*": "with `--calls`: times the guest entered the call",
    "call_instructions.*": "with `--calls`: instructions spent in it",
    "registers.*": "the processor's registers at the end, by name",
    "latest[].reason": "the last few events, the last one last: the reason each would exit for",
    "latest[].detail": "port, CR, table, function, or the event's name",
    "latest[].eip": "the instruction's address",
    "latest[].symbol": "the symbol the instruction lies in; empty where none is known",
    "places[].reason": "with `--places`: exits by place, most frequent first",
    "places[].detail": "port, CR, table or function",
    "places[].eip": "the instruction's address",
    "places[].symbol": "the symbol the instruction lies in; empty where none is known",
    "places[].count": "exits there",
    "runs[]": "the runs in the order asked, each as above",
    "saved[].rom": "the run's ROM",
    "saved[].engine": "the run's engine",
    "saved[].exits": "exits saved against the first run on the same engine; negative where added",
    "saved[].percent": "the same as a share of that run's exits",
    "saved[].by_reason.*.exits": "the same for one reason",
    "saved[].by_reason.*.percent": "the same for one reason",
    **_cost_meanings(),
}
OPEN = {"by_reason", "engine_events", "calls", "call_instructions", "registers"}
"""Objects whose keys are names of things."""


def shape(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(path, type) of everything in a JSON value; lists and open objects once."""
    if path == "runs[]":
        yield path, "object"
    elif isinstance(value, dict):
        for key, item in value.items():
            name = "*" if path.rpartition(".")[2] in OPEN else key
            yield from shape(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for item in value or [""]:
            yield from shape(item, f"{path}[]" if value else path)
    else:
        names = {bool: "boolean", int: "integer", float: "number", str: "string"}
        yield path, next((name for kind, name in names.items() if isinstance(value, kind)), "null")


def json_page() -> str:
    """The shapes of `run --json` and `compare --json`, as a run gives them."""
    about = MachineDescription(guest=b"", command_line="rounds=1", cpus=2)
    roms = [load_rom("none"), load_rom("batching")]
    whole = compare_to_json(
        compare(load_guest("pagefault"), roms, about),
        calls=True,
        places=1,
        models=[model_named("skylake"), model_named("cascadelake")],
    )
    texts = []
    for title, value in (("run", whole["runs"]), ("compare", whole)):
        found: dict[str, set[str]] = {}
        for item in value if isinstance(value, list) else [value]:
            for path, kind in shape(item):
                found.setdefault(path, set()).add(kind)
        rows = [
            [
                f"`{path}`",
                "list of strings" if path == "complaints" else " or ".join(sorted(kinds)),
                MEANINGS[path],
            ]
            for path, kinds in found.items()
        ]
        texts.append(f"## vmirom {title} --json\n\n{table(['key', 'type', 'meaning'], rows)}")
    return "# JSON\n\n`*` stands for a name, `[]` for each element of a list.\n\n" + "\n".join(
        texts
    )
