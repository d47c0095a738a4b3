"""A run as a trace: Chrome's trace-event format, which Perfetto reads, or JSON lines.

The format is that of "Trace Event Format" (Google, 2016): metadata events name the
tracks, complete events (ph X) are slices, counter events (ph C) are curves. The clock
is virtual time, so that two runs of the same give the same file, byte for byte. An exit
takes no virtual time unless it is charged some, as port accesses are; it is drawn
a nanosecond wide.
"""

import gzip
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from bench.symbols import SymbolMap
from vmm.core.errors import BadDescription
from vmm.core.event import REASON_OF, Event, Weight
from vmm.core.ledger import describe
from vmm.recording import ExitRecord
from vmm.result import Run

__all__ = ["DEFAULT_LIMIT", "LINE_KEYS", "TRACE_SCHEMA", "TraceWriter"]

TRACE_SCHEMA = "vmirom.trace/1"
DEFAULT_LIMIT = 100 << 20
"""Bytes of text before compression: about half a million exits, which Perfetto takes with ease."""

LINE_KEYS = (
    ("run", "schema", "name and version of this format"),
    ("run", "guest", "the guest's name"),
    ("run", "rom", "the ROM's"),
    ("run", "policy", "the policy's"),
    ("run", "clock", "what the times are"),
    ("run", "cpus", "how many virtual CPUs there are"),
    ("exit", "virtual_ns", "virtual time when it happened"),
    ("exit", "charged_ns", "what it took of that"),
    ("exit", "cpu", "the virtual CPU"),
    ("exit", "reason", "the exit reason"),
    ("exit", "weight", "`light` or `heavy`"),
    ("exit", "at", "port, CR, table or function"),
    ("exit", "eip", "the instruction's address"),
    ("exit", "symbol", "the symbol it lies in; empty where none is known"),
    ("exit", "address", "guest-virtual, of a fault or a store to a page table; null otherwise"),
    ("exit", "queued", "records in the batch queue when it happened"),
    ("exit", "drained", "records that it took from there"),
    ("phase", "name", "`until` and the mark that ended it, or `run`"),
    ("phase", "virtual_ns", "virtual time of its start"),
    ("phase", "lasted_ns", "how long it lasted"),
    ("end", "outcome", "how the run ended; `unfinished` if it broke off"),
    ("end", "exits", "exits in the trace"),
    ("end", "left_out", "exits for which there was no room"),
    ("end", "left_out_by_reason", "the same by reason"),
)
"""(type, key, meaning) of JSON lines, in their order."""

_CLOCK = "virtual time: one nanosecond an instruction, and a charge for slow operations"
_PROCESS = 1
_PHASES = 1000
"""The track of the phases; those of the CPUs count from 1."""


class _Form(Protocol):
    """One of the two formats, as text."""

    def head(self, about: dict[str, Any], cpus: int) -> str: ...

    def exit(self, cpu: int, row: ExitRecord, place: str) -> str: ...

    def place(self, names: dict[str, str]) -> str: ...

    def tail(self, phases: list[tuple[str, int, int]], end: dict[str, Any]) -> str: ...


class TraceWriter:
    """Writes exits to a file as they come; an `ExitSink`, and a context manager.

    The name says the form: `.jsonl` is JSON lines, anything else trace events; a `.gz`
    behind either compresses it. What does not fit into `limit` bytes of text is left out,
    and counted in `left_out` by reason. The file is whole after `finish`, or, without a result,
    when the context is left. Raises `BadDescription` when it cannot be opened, and from
    `finish` when something could not be written.
    """

    def __init__(
        self,
        path: Path,
        about: dict[str, Any],
        symbols: SymbolMap,
        *,
        cpus: int = 1,
        limit: int = DEFAULT_LIMIT,
    ) -> None:
        self.path = path
        self.written = 0
        self.left_out: Counter[str] = Counter()
        self._symbols = symbols
        self._room = limit
        self._places: dict[tuple[int, int, int, int], str] = {}
        self._error: OSError | None = None
        self._open = True
        name = path.name.removesuffix(".gz")
        self._form: _Form = _Lines() if name.endswith(".jsonl") else _Chrome()
        try:
            self._raw = path.open("wb")
        except OSError as error:
            raise BadDescription(f"trace {str(path)!r}: {error.strerror or error}") from None
        # Neither name nor time goes into the archive: equal runs give equal files.
        self._file = io.TextIOWrapper(
            gzip.GzipFile("", "wb", 4, self._raw, mtime=0)
            if path.name.endswith(".gz")
            else self._raw,
            encoding="utf-8",
        )
        self._write(self._form.head({"schema": TRACE_SCHEMA, **about, "clock": _CLOCK}, cpus))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _where: TracebackType | None,
    ) -> None:
        if self._open:
            self._close([], "unfinished")

    def take(self, cpu: int, exits: Sequence[ExitRecord]) -> None:
        """Write exits, as far as there is room."""
        texts = []
        for row in exits:
            if self._room <= 0:
                self.left_out[REASON_OF[Event(row[3])].value] += 1
                continue
            key = row[3:7]
            place = self._places.get(key)
            if place is None:
                place = self._places[key] = self._form.place(self._names(*key))
            text = self._form.exit(cpu, row, place)
            self._room -= len(text)
            texts.append(text)
        self.written += len(texts)
        self._write("".join(texts))

    def finish(self, run: Run) -> None:
        """The run is over: phases, the outcome, and what was left out."""
        phases, since = [], 0
        for phase in run.phases:
            phases.append((f"until {phase.mark}", since, phase.virtual_ns))
            since += phase.virtual_ns
        self._close(phases or [("run", 0, run.virtual_ns)], run.outcome.kind.value)
        if self._error is not None:
            error = self._error
            raise BadDescription(f"trace {str(self.path)!r}: {error.strerror or error}")

    def _names(self, event: int, heavy: int, qualifier: int, eip: int) -> dict[str, str]:
        return {
            "reason": REASON_OF[Event(event)].value,
            "weight": Weight.HEAVY if heavy else Weight.LIGHT,
            "at": describe(Event(event), qualifier),
            "eip": f"{eip:#010x}",
            "symbol": self._symbols.name(eip),
        }

    def _close(self, phases: list[tuple[str, int, int]], outcome: str) -> None:
        self._open = False
        end = {
            "outcome": outcome,
            "exits": self.written,
            "left_out": sum(self.left_out.values()),
            "left_out_by_reason": dict(sorted(self.left_out.items())),
        }
        self._write(self._form.tail(phases, end))
        try:
            self._file.close()
            self._raw.close()
        except OSError as error:
            self._error = self._error or error

    def _write(self, text: str) -> None:
        """Errors wait for `finish`: this runs inside the engine."""
        if self._error is None:
            try:
                self._file.write(text)
            except OSError as error:
                self._error = error


class _Chrome:
    """Trace events; times are in microseconds, with three decimals."""

    def __init__(self) -> None:
        self._depth: dict[int, int] = {}
        self._about: dict[str, Any] = {}

    def head(self, about: dict[str, Any], cpus: int) -> str:
        self._about = about
        title = f"{about['guest']}, ROM {about['rom']}, policy {about['policy']}"
        names = [("process_name", 0, title), ("thread_name", _PHASES, "phases")]
        names += [("thread_name", cpu + 1, f"vCPU {cpu}") for cpu in range(cpus)]
        events = [
            _compact(
                {"name": kind, "ph": "M", "pid": _PROCESS, "tid": track, "args": {"name": name}}
            )
            for kind, track, name in names
        ]
        return '{"displayTimeUnit":"ns","traceEvents":[\n' + ",\n".join(events)

    def place(self, names: dict[str, str]) -> str:
        """The middle of an event, which is the same each time an exit comes from there."""
        head = f'"name":"{names["reason"]}","cat":"exit,{names["weight"]}","args":'
        return head + _compact(names)[:-1]

    def exit(self, cpu: int, row: ExitRecord, place: str) -> str:
        when, charged, _, _, _, _, _, address, queued, drained = row
        took = charged or 1
        more = f',"address":"{address:#010x}"' if address else ""
        if queued or drained:
            more += f',"queued":{queued},"drained":{drained}'
        return (
            f"{self._curve(cpu, when, queued)},\n"
            f'{{"ph":"X","pid":{_PROCESS},"tid":{cpu + 1},"ts":{_us(when)},"dur":{_us(took)},'
            f"{place}{more}}}}}"
            f"{self._curve(cpu, when + took, max(0, queued - drained))}"
        )

    def _curve(self, cpu: int, when: int, depth: int) -> str:
        """The queue's depth, where it has changed."""
        if self._depth.get(cpu, 0) == depth:
            return ""
        self._depth[cpu] = depth
        return (
            f',\n{{"name":"queue depth, vCPU {cpu}","ph":"C","pid":{_PROCESS},"tid":{cpu + 1},'
            f'"ts":{_us(when)},"args":{{"records":{depth}}}}}'
        )

    def tail(self, phases: list[tuple[str, int, int]], end: dict[str, Any]) -> str:
        text = "".join(
            f',\n{{"name":{json.dumps(name)},"cat":"phase","ph":"X","pid":{_PROCESS},'
            f'"tid":{_PHASES},"ts":{_us(since)},"dur":{_us(took)},"args":{{}}}}'
            for name, since, took in phases
        )
        return f'{text}\n],\n"otherData":{_compact(self._about | end)}}}\n'


class _Lines:
    """JSON lines: the first says what was run, the last how it ended; one for each exit."""

    def head(self, about: dict[str, Any], cpus: int) -> str:
        return _compact({"type": "run", **about, "cpus": cpus}) + "\n"

    def place(self, names: dict[str, str]) -> str:
        return _compact(names)[1:-1]

    def exit(self, cpu: int, row: ExitRecord, place: str) -> str:
        when, charged, _, _, _, _, _, address, queued, drained = row
        return (
            f'{{"type":"exit","virtual_ns":{when},"charged_ns":{charged},"cpu":{cpu},{place},'
            f'"address":{f"{chr(34)}{address:#010x}{chr(34)}" if address else "null"},'
            f'"queued":{queued},"drained":{drained}}}\n'
        )

    def tail(self, phases: list[tuple[str, int, int]], end: dict[str, Any]) -> str:
        rows = [
            {"type": "phase", "name": name, "virtual_ns": since, "lasted_ns": took}
            for name, since, took in phases
        ]
        return "".join(_compact(row) + "\n" for row in [*rows, {"type": "end", **end}])


def _compact(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _us(nanoseconds: int) -> str:
    """Nanoseconds as microseconds, exactly."""
    return f"{nanoseconds // 1000}.{nanoseconds % 1000:03}"
