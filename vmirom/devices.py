"""`vmirom devices`: those of every machine, and those that packages add."""

import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import click

from vmi.address import PAGE_SIZE
from vmirom.options import as_json
from vmirom.output import plain_table, print_json, stderr, stdout
from vmm.core.bus import PortBus
from vmm.core.errors import BadDescription
from vmm.core.timers import Timers
from vmm.description import DEFAULT_MEMORY
from vmm.deviceentries import DeviceEntry, device_entries
from vmm.devices.ioapic import IOAPIC_ADDRESS, IoApic
from vmm.devices.pluggable import Device, Option
from vmm.pc import Pc

__all__ = ["devices"]

_BUILT_IN = "built in"


@dataclass(frozen=True, slots=True)
class _Row:
    """A device as it is listed; `error` says why it cannot be used."""

    name: str
    source: str
    summary: str = ""
    ports: Sequence[range] = ()
    memory: Sequence[range] = ()
    lines: Sequence[int] = ()
    options: Mapping[str, Option] | None = None
    error: str | None = None


@click.command(epilog="Examples: vmirom devices; vmirom devices --json")
@as_json
def devices(*, json_output: bool) -> None:
    """List devices: ports, memory, interrupt requests, options.

    Those that are built in are in every machine, the I/O APIC with --apic or --cpus. What another
    package adds is plugged in by `vmirom run --device`. The exit status is 1 if one of those
    cannot be loaded.
    """
    rows = [*_built_in(), *map(_added, device_entries())]
    if json_output:
        print_json({"schema": "vmirom.devices/1", "devices": [_json(row) for row in rows]})
    else:
        _print(rows)
    if any(row.error for row in rows):
        sys.exit(1)


def _built_in() -> list[_Row]:
    pc = Pc(
        PortBus(),
        Timers(),
        lambda: 0,
        DEFAULT_MEMORY,
        None,
        None,
        lambda _line: None,
        lambda _level: None,
        lambda: None,
    )
    rows = [
        _Row(part.name, _BUILT_IN, _summary(type(part.device)), part.ports, (), part.lines)
        for part in pc.parts
    ]
    page = range(IOAPIC_ADDRESS, IOAPIC_ADDRESS + PAGE_SIZE)
    return [*rows, _Row("ioapic", _BUILT_IN, _summary(IoApic), (), (page,))]


def _added(entry: DeviceEntry) -> _Row:
    try:
        kind: type[Device] = entry.load()
    except BadDescription as error:
        return _Row(entry.name, entry.package, error=str(error))
    return _Row(
        entry.name,
        entry.package,
        _summary(kind),
        kind.ports,
        kind.memory,
        kind.lines,
        kind.options,
    )


def _summary(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0].rstrip(".")


def _spans(ranges: Iterable[range]) -> list[str]:
    return [
        f"{one.start:#x}" if len(one) == 1 else f"{one.start:#x}-{one.stop - 1:#x}"
        for one in ranges
    ]


def _json(row: _Row) -> dict[str, object]:
    return {
        "name": row.name,
        "source": row.source,
        "summary": row.summary,
        "ports": _spans(row.ports),
        "memory": _spans(row.memory),
        "lines": list(row.lines),
        "options": dict(row.options or {}),
        "error": row.error,
    }


def _print(rows: list[_Row]) -> None:
    table = plain_table("device", "from", "ports and memory", "lines", "options")
    for column in table.columns[1:]:
        column.justify = "left"
    for row in rows:
        table.add_row(
            row.name,
            row.source,
            "cannot be loaded" if row.error else ", ".join(_spans([*row.ports, *row.memory])),
            ", ".join(map(str, row.lines)),
            ", ".join(f"{name}={value}" for name, value in (row.options or {}).items()),
        )
    stdout.print(table)
    for row in rows:
        if row.error:
            stderr.print(f"vmirom: {row.error}", markup=False)
