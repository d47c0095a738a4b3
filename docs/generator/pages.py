"""The other reference pages, each from the code it describes."""

import re

import click

from bench.remaining import REMAINING
from bench.resultschema import APPLICATION_ID, TABLES, VERSION
from bench.trace import LINE_KEYS, TRACE_SCHEMA
from bench.views import VIEWS
from generator.markdown import member_docs, members, prose, table
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
        f"{prose(queue)}\n\n## Header\n\nByte offsets of 32-bit words.\n\n"
        + members(queue.HeaderField, "#04x")
        + f"\nThe magic word is {queue.MAGIC:#010x}. A queue has 1 to {queue.MAX_CAPACITY} "
        f"records, {queue.DEFAULT_CAPACITY} unless told otherwise.\n\n"
        + "## Records\n\nThe low two bits.\n\n"
        + members(queue.RecordKind, "d")
        + f"\n## Doorbell\n\n{prose(doorbell)}\n\nThe port is {doorbell.PORT:#06x}, its signature "
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
        f"{prose(apicmessage)}\n\nThis is version {apicmessage.MESSAGE_VERSION}; bytes that are "
        "no message of it are refused with an error that names them.\n\n## Kinds\n\n"
        + members(apicmessage.MessageKind, "d")
        + "\n## Delivery modes\n\n"
        + members(apicmessage.DeliveryMode, "d")
        + "\n## Flags\n\n"
        + members(apicmessage.MessageFlag, "d")
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
