"""Write docs/reference from the code, and run every example of the docs anew.

python docs/generate.py          write what has changed
python docs/generate.py --check  write nothing; status 1 and the names of stale files

An example is a block of kind "console": each line that starts with "$ " is a command,
what follows is what it prints. A line "..." stands for lines that are left out; as
many lines as stand before and after it are kept. The commands of a file run one after
the other in a folder of their own.
"""

import ast
import inspect
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import click
import nbformat
from nbclient import NotebookClient

from bench.compare import compare
from bench.costs import model_named
from bench.inputs import load_guest, load_rom
from bench.remaining import REMAINING
from bench.resultschema import APPLICATION_ID, TABLES, VERSION
from bench.schema import compare_to_json
from bench.trace import LINE_KEYS, TRACE_SCHEMA
from bench.views import VIEWS
from rombuilder.guest import guest_names, guest_summary
from rombuilder.sources import guests_dir
from vmi import doorbell, queue
from vmi.calls import CALLS, Argument, Call, Place
from vmi.flags import LazyMode, PageFlag, TlbFlush, UpdateFlag
from vmi.relocation import RelocationKind
from vmirom.main import cli
from vmm.core import apicmessage
from vmm.core.event import REASON_OF, Event, Reason
from vmm.core.outcome import OutcomeKind
from vmm.core.policy import INTERCEPTS, POLICIES
from vmm.machine import MachineDescription

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
NOTEBOOK_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
NOTE = "<!-- Made by docs/generate.py (make docs); edits here are lost. -->\n\n"
WITH_EXAMPLES = [
    "README.md",
    "docs/tutorial.md",
    "docs/howto-guest.md",
    "docs/howto-rom-call.md",
    "docs/howto-costs.md",
    "docs/howto-filter.md",
    "docs/howto-traces.md",
]
EXAMPLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
SOURCE = re.compile(r"^`([\w.]+)`:\n\n```(?:asm|toml)\n(.*?)^```", re.MULTILINE | re.DOTALL)


PLAIN = {
    "CPUID": "The CPUID instruction.",
    "CLONE": "It starts as a copy of part of another.",
    "CPU": "Processor state may be put off; neither flavour does.",
    "CURRENT_AS": "The entry belongs to the current address space.",
    "DEFER": "The update may wait for the next flush.",
    "GLOBAL": "Global pages too.",
    "MMU": "Page-table updates may wait until the mode is left.",
    "NONE": "Nothing may wait.",
    "PAE": "Of 64-bit entries.",
    "PD": "A page directory.",
    "PDP": "A table of page directories.",
    "PML4": "The fourth level; 64-bit guests only.",
    "PT": "A page table, the last level.",
    "TLB": "Every translation but global ones.",
    "ZEROED": "It is said to be all zeros; not to be trusted.",
    "CR_READ": "A read of a control register; its place carries the number.",
    "CR_WRITE": "A write of a control register, CLTS and LMSW included.",
    "DESCRIPTOR_TABLE": "A load or store of GDTR, IDTR, LDTR or TR.",
    "DR_ACCESS": "An access to a debug register.",
    "HLT": "The guest halted.",
    "INVLPG": "The guest dropped one translation.",
    "MSR": "RDMSR or WRMSR; its place carries the register.",
    "RDTSC": "A read of the time-stamp counter, which gives virtual time.",
    "SOFTWARE_INTERRUPT": "INT n, INT3, INTO: the engine cannot do without the intercept.",
    "TRIPLE_FAULT": "An exception could not be delivered, and neither could the double fault.",
    "DEVICE_FAILURE": "The code of a plugged-in device went wrong; the detail names it.",
    "ENGINE_FAILURE": "The engine stopped without a reason; a defect of the monitor.",
    "ATTACHED": "The queue is taken: the doorbell is answered.",
    "MAGIC": "Marks a queue header.",
}
"""Members that go without a word in the source."""


def table(headers: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in r)} |\n" for r in lines
    )


def member_docs(enum: type[Enum]) -> dict[str, str]:
    """{member: the string below it in the source}, on one line each."""
    body = ast.parse(inspect.getsource(enum)).body[0]
    if not isinstance(body, ast.ClassDef):
        raise TypeError(f"{enum} is no class")
    docs, name = {name: PLAIN.get(name, "") for name in enum.__members__}, ""
    for node in body.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
        elif name and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docs[name] = " ".join(str(node.value.value).split())
    return docs


def members(enum: type[Enum], how: str) -> str:
    """A table of an enum's members, values shown by the format `how`."""
    return table(
        ["name", "value", "meaning"],
        [
            [f"`{name}`", format(enum[name].value, how), doc]
            for name, doc in member_docs(enum).items()
        ],
    )


def _arguments(arguments: tuple[Argument, ...]) -> str:
    return ", ".join(f"{argument.name} in {argument.place}" for argument in arguments)


def _patch(call: Call) -> str:
    if call.extension:
        return "extension"
    if call.must_patch:
        return "must be"
    return "may be" if call.asked_by_linux else "never asked"


def calls() -> str:
    """Every call of API 3.0."""
    rows = [
        [
            str(call.number),
            f"`{call.name}`",
            call.summary,
            _arguments(call.arguments),
            _arguments(call.results) if call.returns else "does not return",
            ", ".join(place for place in Place if place in call.clobbers) or "none",
            "flat" if call.data_segments else "CS, SS only",
            _patch(call),
        ]
        for call in CALLS
    ]
    heads = ["number", "call", "what it does", "arguments", "results", "clobbers", "segments"]
    return (
        "# Calls\n\nThe calls of VMI API 3.0, as `vmi/calls.py` has them. Sources: the Linux "
        "client (`vmi_32.c`, `vmi.h`, 2.6.21 to 2.6.36) and the proposal of March 2006.\n\n"
        'Under "segments", "CS, SS only" means that the call may come with foreign data '
        'segments and must not use DS or ES. Under "patched", "must be" means that the guest '
        'has no way of its own once VMI is active; "never asked" that no Linux version asks '
        "get_reloc for it.\n\n"
        + table([*heads, "patched"], rows)
        + "\n## What get_reloc answers\n\nEAX is the address, DL the kind:\n\n"
        + members(RelocationKind, "d")
        + "\n## Flags\n\n### Page-table pages: AllocatePage, ReleasePage\n\n"
        + members(PageFlag, "#04x")
        + "\n### Updates: SetPxE, UpdatePxE\n\n"
        + members(UpdateFlag, "#04x")
        + "\nWith `CURRENT_AS`, bits 31 to 12 of the word hold the virtual address.\n"
        + "\n### SetLazyMode\n\n"
        + members(LazyMode, "d")
        + "\n### FlushTLB\n\n"
        + members(TlbFlush, "d")
    )


def reasons() -> str:
    """Exit reasons, engine events and outcomes."""
    docs, events = member_docs(Reason), member_docs(Event)
    rows = [
        [
            f"`{reason.value}`",
            docs[reason.name],
            ", ".join(f"`{event.name.lower()}`" for event in Event if REASON_OF[event] is reason),
        ]
        for reason in Reason
    ]
    never = [
        event
        for event in Event
        if not any(event in p.exits for p in POLICIES) or events[event.name]
    ]
    return (
        "# Exit reasons, events, outcomes\n\n"
        "An event is what happened; the policy says whether it was an exit. The names are "
        "stable.\n\n## Reasons\n\n"
        + table(["reason", "what it is", "events that count under it"], rows)
        + "\n## Events that need a word\n\nWhere the policy's processor would not have exited, "
        "they are listed as engine events and never counted as exits.\n\n"
        + table(
            ["event", "what it is"],
            [[f"`{event.name.lower()}`", events[event.name]] for event in never],
        )
        + "\n## Outcomes\n\nHow a run ended; `outcome` in JSON.\n\n"
        + table(
            ["outcome", "what it is"],
            [[f"`{OutcomeKind[n].value}`", doc] for n, doc in member_docs(OutcomeKind).items()],
        )
    )


def policies() -> str:
    """Policies and what they exit on."""
    rows = [
        [f"`{event.name.lower()}`", *("exit" if event in p.exits else "" for p in POLICIES)]
        for event in Event
    ]
    return (
        "# Policies\n\nA policy is the set of events on which the modelled processor exits.\n\n"
        + table(["policy", "what it is"], [[f"`{p.name}`", p.summary] for p in POLICIES])
        + "\n## What is an exit\n\n"
        + table(["event", *(f"`{p.name}`" for p in POLICIES)], rows)
        + "\n## Intercepts by name\n\n`--intercept +NAME` adds one to the policy, `-NAME` takes it "
        "away. What the engine itself needs stays intercepted and moves to the engine events.\n\n"
        + table(
            ["intercept", "events"],
            [
                [f"`{name}`", ", ".join(f"`{event.name.lower()}`" for event in sorted(events))]
                for name, events in sorted(INTERCEPTS.items())
            ],
        )
    )


def _parameters(name: str) -> str:
    text = (guests_dir() / f"{name}.S").read_text(encoding="ascii")
    found = re.search(r"^# Parameters: (.*)\.$", text, re.MULTILINE)
    return found[1] if found else "none"


def guests() -> str:
    """The built-in guests."""
    return "# Guests\n\nParameters go into `--append`, as in `--append 'rounds=200'`.\n\n" + table(
        ["guest", "what it is", "parameters"],
        [[f"`{name}`", guest_summary(name), _parameters(name)] for name in guest_names()],
    )


def queue_page() -> str:
    """The batch queue and the doorbell."""
    return (
        "# The batch queue and the doorbell\n\n"
        f"{_prose(queue)}\n\n## Header\n\nByte offsets of 32-bit words.\n\n"
        + members(queue.HeaderField, "#04x")
        + f"\nThe magic word is {queue.MAGIC:#010x}. A queue has 1 to {queue.MAX_CAPACITY} "
        f"records, {queue.DEFAULT_CAPACITY} unless told otherwise.\n\n"
        + "## Records\n\nThe low two bits.\n\n"
        + members(queue.RecordKind, "d")
        + f"\n## Doorbell\n\n{_prose(doorbell)}\n\nThe port is {doorbell.PORT:#06x}, its signature "
        f"{doorbell.SIGNATURE:#010x}.\n\n### Functions\n\n"
        + " ".join((doorbell.Doorbell.__doc__ or "").split())
        + "\n\n"
        + members(doorbell.Doorbell, "d")
        + "\n### Features\n\n"
        + members(doorbell.Feature, "d")
    )


def apic_bus_page() -> str:
    """The messages of the APIC bus."""
    return (
        "# Messages of the APIC bus\n\n"
        f"{_prose(apicmessage)}\n\nThis is version {apicmessage.MESSAGE_VERSION}; bytes that are "
        "no message of it are refused with an error that names them.\n\n## Kinds\n\n"
        + members(apicmessage.MessageKind, "d")
        + "\n## Delivery modes\n\n"
        + members(apicmessage.DeliveryMode, "d")
        + "\n## Flags\n\n"
        + members(apicmessage.MessageFlag, "d")
    )


def _prose(module: Any) -> str:
    """A module's description as Markdown, without its first line."""
    text = inspect.getdoc(module) or ""
    return text.partition("\n\n")[2]


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


COLUMN = re.compile(r"^    (\w+) (\w+)(.*?),? +-- (.*)$", re.MULTILINE)


def results() -> str:
    """The tables of a result file."""
    head = (
        "# Result files\n\nA result file is one SQLite database (`vmirom bench SUITE -o FILE`). "
        f"Its application_id is {APPLICATION_ID:#x}, its schema's version, in user_version, "
        f"{VERSION}. `bench.store.Results` reads it into typed rows (`rows()`) or a pandas "
        "DataFrame (`frame()`); any other SQLite program does, too. A row is written in one "
        "synchronous transaction with all that belongs to it.\n"
    )
    parts = [head]
    for name, statement in TABLES.items():
        rows = [
            [
                f"`{column}`",
                kind.lower() + ("" if "NOT NULL" in how or "KEY" in how else " or null"),
                meaning,
            ]
            for column, kind, how, meaning in COLUMN.findall(statement)
        ]
        parts.append(f"## {name}\n\n{table(['column', 'type', 'meaning'], rows)}")
    return "\n".join(parts)


def views_page() -> str:
    """The views of the ledger, and the lines of a trace."""
    head = (
        "# Views and traces\n\nThe views of `vmirom run`. In JSON they stand in a list under "
        "`views`: each has `schema`, `left_out` (exits that are in no row) and `rows`, objects "
        "with these keys. In CSV (`--csv`) the first column is the schema, then these in this "
        "order. As long as a schema's number stays, its columns keep name, meaning and order.\n"
    )
    parts = [head]
    for schema in (*VIEWS, REMAINING):
        rows = [[f"`{name}`", meaning] for name, meaning in schema.columns.items()]
        parts.append(
            f"## {schema.name}\n\n{schema.summary}\n\n{table(['column', 'meaning'], rows)}"
        )
    parts.append(
        "`compare --remaining --json` has `vmirom.remaining` of the last run under `remaining`.\n"
    )
    parts.append(
        "`vmirom.stat` has besides: `times` (`measured` or `model`), `model` (its name; null where "
        "measured), `source`, `total_time`.\n"
    )
    parts.append(
        f"## {TRACE_SCHEMA}\n\nA trace as JSON lines. Each line is an object; `type` says "
        "which.\n\n"
        + table(
            ["type", "key", "meaning"],
            [[f"`{kind}`", f"`{key}`", meaning] for kind, key, meaning in LINE_KEYS],
        )
        + "\nAs trace events the same stand in `args` of an event, `run` and `end` in `otherData`; "
        "times are microseconds of virtual time. With `--json`, `trace` has `file`, `exits` and "
        "`left_out`.\n"
    )
    return "\n".join(parts)


def commands() -> str:
    """Every verb's help."""
    parts = ["# Commands\n\nExit status: 0 done, 1 the answer is no, 2 bad input, 130 Ctrl-C.\n"]
    root = click.Context(cli, info_name="vmirom", terminal_width=80, **cli.context_settings)
    pages: list[tuple[click.Command, click.Context]] = [(cli, root)]
    for command, context in pages:
        parts.append(f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n")
        if isinstance(command, click.Group):
            pages += [
                (child, click.Context(child, info_name=name, parent=context))
                for name, child in sorted(command.commands.items())
            ]
    return "\n".join(parts)


PAGES = {
    "apic-bus.md": apic_bus_page,
    "calls.md": calls,
    "commands.md": commands,
    "guests.md": guests,
    "json.md": json_page,
    "policies.md": policies,
    "queue.md": queue_page,
    "reasons.md": reasons,
    "views.md": views_page,
    "results.md": results,
}


def trimmed(expected: list[str], real: list[str]) -> list[str]:
    """The real output, cut where the expected one has "..."."""
    if "..." not in expected:
        return real
    before = expected.index("...")
    after = len(expected) - before - 1
    return [*real[:before], "...", *(real[-after:] if after else [])]


def output_of(command: str, folder: Path) -> list[str]:
    """What a command prints, lines stripped at their ends, blank ones left out."""
    words = shlex.split(command)
    if words[0] == "vmirom":
        words[:1] = [sys.executable, "-m", "vmirom"]
    done = subprocess.run(  # noqa: S603 - our own examples
        words,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if "Traceback" in done.stdout:
        raise RuntimeError(f"{command}: {done.stdout}")
    return [line.rstrip() for line in done.stdout.splitlines() if line.strip()]


def with_real_output(text: str) -> str:
    """A document with every example's output as it is today."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def block(match: re.Match[str]) -> str:
            lines: list[str] = []
            for example in re.split(r"^(?=\$ )", match[1], flags=re.MULTILINE):
                command, *expected = example.splitlines() or [""]
                if command:
                    real = output_of(command.removeprefix("$ "), folder)
                    lines += [command, *trimmed(expected, real)]
            return "```console\n" + "\n".join(lines) + "\n```"

        for file, source in SOURCE.findall(text):
            (folder / file).write_text(source, encoding="ascii")
        return EXAMPLE.sub(block, text)


def with_real_cells(text: str) -> str:
    """A notebook with every cell's output as it is today, and nothing of this host in it."""
    notebook = nbformat.reads(text, as_version=4)
    for cell in notebook.cells:
        cell.metadata = {}
    notebook.metadata = {"kernelspec": NOTEBOOK_KERNEL}
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT)}}).execute()
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", ()):
            # The table as text says the same, and reads well anywhere.
            output.get("data", {}).pop("text/html", None)
    notebook.metadata = {"kernelspec": NOTEBOOK_KERNEL}
    return nbformat.writes(notebook) + "\n"


def generated() -> dict[Path, str]:
    """{file: its text as it should be}."""
    pages = {REFERENCE / name: NOTE + page() for name, page in PAGES.items()}
    texts = {ROOT / name: (ROOT / name).read_text(encoding="utf-8") for name in WITH_EXAMPLES}
    return {
        **pages,
        **{path: with_real_output(text) for path, text in texts.items()},
        NOTEBOOK: with_real_cells(NOTEBOOK.read_text(encoding="utf-8")),
    }


def main() -> None:
    """Write, or check, every file."""
    check = "--check" in sys.argv[1:]
    stale = False
    for path, text in generated().items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale = True
        click.echo(f"{'stale' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
