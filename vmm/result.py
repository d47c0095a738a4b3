"""What a run gives: its end, its ledger, and what went through the ROM."""

import hashlib
import mmap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from vmi.calls import call_numbered
from vmm.core.code.blocks import BlockMeter
from vmm.core.counters import Counters
from vmm.core.cpu.vcpu import Vcpu
from vmm.core.event import REASON_OF, Event
from vmm.core.ledger import Ledger, Place, describe
from vmm.core.outcome import Outcome
from vmm.core.policy import Policy
from vmm.core.saved import CUSTOM, VIRTUAL_TIME, Fields
from vmm.core.vm import Vm
from vmm.filters.attach import AttachedFilter
from vmm.ram import checksum

__all__ = [
    "CallUse",
    "Counted",
    "Paravirt",
    "Phase",
    "PhaseRecorder",
    "Run",
    "SoFar",
    "VcpuShare",
    "collect",
    "collect_foreign",
    "event_totals",
    "so_far",
]

_CALL_ROWS = {128: "vmi_init", 129: "get_reloc", 130: "other"}


@dataclass(frozen=True, slots=True)
class CallUse:
    """How often the guest entered a ROM call, and the instructions the ROM spent in it."""

    count: int
    instructions: int


@dataclass(frozen=True, slots=True)
class Reflection:
    """Instructions whose accesses go to the ROM's handler, and those replaced by calls of it."""

    sites: int
    patched: int


@dataclass(frozen=True, slots=True)
class Paravirt:
    """What went through the batch queue.

    `updates` are page-table entries, `notices` all records, `flushes` the drains
    that found any, `largest_batch` the most records in one of them. `hypercalls`
    counts rings of the doorbell.
    """

    updates: int
    notices: int
    flushes: int
    largest_batch: int
    hypercalls: int


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of a run that ended when the console printed `mark`, or with the run."""

    mark: str
    instructions: int
    virtual_ns: int
    ledger: Ledger


@dataclass(frozen=True, slots=True)
class VcpuShare:
    """What one virtual CPU did of a run; `virtual_ns` is how long it ran itself."""

    instructions: int
    virtual_ns: int
    ledger: Ledger


@dataclass(frozen=True, slots=True)
class Run:
    """The result of one run, of all virtual CPUs together.

    `registers` are those of the CPU that ran last; `latest` its last few events, exits or
    not, the last one last. `vcpus` has each CPU's share, the first one's first.
    Without `counts_instructions` all numbers of instructions are 0, ROM calls are not seen,
    and virtual time is the host's.
    """

    policy: Policy
    outcome: Outcome
    instructions: int
    rom_instructions: int
    virtual_ns: int
    ledger: Ledger
    paravirt: Paravirt
    calls: dict[str, CallUse]
    console: str
    complaints: tuple[str, ...]
    rom_sha256: str | None
    guest_sha256: str
    memory_crc: int
    registers: dict[str, int]
    latest: tuple[Place, ...]
    vcpus: tuple[VcpuShare, ...]
    phases: tuple[Phase, ...] = ()
    filters: tuple[AttachedFilter, ...] = ()
    reflection: Reflection | None = None
    shadow_entries_checked: int = 0
    engine: str = "unicorn"
    counts_instructions: bool = True


class _Counting(Protocol):
    @property
    def counters(self) -> Counters: ...


class Counted(Protocol):
    """Whose counts a phase is cut from."""

    @property
    def vcpus(self) -> Sequence[_Counting]:
        """The virtual CPUs."""
        ...

    @property
    def instructions(self) -> int:
        """Guest instructions so far."""
        ...

    def now(self) -> int:
        """Virtual time in nanoseconds."""
        ...


EventCounts = dict[Event, tuple[int, int]]
"""{event: (all, of which heavy)}."""


def _by_name(counts: EventCounts) -> dict[str, list[int]]:
    return {event.name: list(count) for event, count in counts.items()}


def _by_event(counts: dict[str, list[int]]) -> EventCounts:
    return {Event[name]: (int(count), int(heavy)) for name, (count, heavy) in counts.items()}


class PhaseRecorder:
    """Cuts a run into phases at texts that the console prints, each the first time only."""

    SAVED = Fields(
        {
            CUSTOM: "_marks _phases _totals",
            VIRTUAL_TIME: "_instructions _virtual_ns",
        }
    )

    def __init__(self, marks: tuple[str, ...]) -> None:
        self._marks = list(marks)
        self._phases: list[tuple[str, int, int, EventCounts]] = []
        self._totals: dict[Event, tuple[int, int]] = {}
        self._instructions = 0
        self._virtual_ns = 0

    def line(self, text: str, vm: Counted) -> None:
        """The console printed a line."""
        for mark in self._marks:
            if mark in text:
                self._marks.remove(mark)
                self._cut(mark, vm)
                return

    def finish(self, policy: Policy, vm: Counted) -> tuple[Phase, ...]:
        """All phases, with the rest of the run as the last one; none without marks."""
        phases = [*self._phases, self._since("the end", vm)] if self._phases else []
        return tuple(
            Phase(mark, instructions, virtual_ns, Ledger.from_counts(policy, counts, (), 0))
            for mark, instructions, virtual_ns, counts in phases
        )

    def _save_marks(self) -> list[str]:
        """For `vmm.core.saved`."""
        return list(self._marks)

    def _load_marks(self, value: list[str]) -> None:
        """The same."""
        self._marks = [str(mark) for mark in value]

    def _save_phases(self) -> list[Any]:
        """For `vmm.core.saved`."""
        return [[*row, _by_name(counts)] for *row, counts in self._phases]

    def _load_phases(self, value: list[Any]) -> None:
        """The same."""
        self._phases = [
            (str(mark), int(instructions), int(virtual_ns), _by_event(counts))
            for mark, instructions, virtual_ns, counts in value
        ]

    def _save_totals(self) -> dict[str, list[int]]:
        """For `vmm.core.saved`."""
        return _by_name(self._totals)

    def _load_totals(self, value: dict[str, list[int]]) -> None:
        """The same."""
        self._totals = _by_event(value)

    def _since(self, mark: str, vm: Counted) -> tuple[str, int, int, EventCounts]:
        """What happened since the last mark."""
        totals = event_totals(vm.vcpus)
        since = {
            event: (count - self._before(event)[0], heavy - self._before(event)[1])
            for event, (count, heavy) in totals.items()
            if count > self._before(event)[0]
        }
        return mark, vm.instructions - self._instructions, vm.now() - self._virtual_ns, since

    def _cut(self, mark: str, vm: Counted) -> None:
        self._phases.append(self._since(mark, vm))
        self._totals = event_totals(vm.vcpus)
        self._instructions = vm.instructions
        self._virtual_ns = vm.now()

    def _before(self, event: Event) -> tuple[int, int]:
        return self._totals.get(event, (0, 0))


@dataclass(frozen=True, slots=True)
class SoFar:
    """How far a run is: what all CPUs together have done, and the exits that it took."""

    instructions: int
    virtual_ns: int
    exits: int


def so_far(vm: Counted, policy: Policy) -> SoFar:
    """The counts as they stand; cheap enough for a few looks a second."""
    totals = event_totals(vm.vcpus)
    exits = sum(count for event, (count, _) in totals.items() if event in policy.exits)
    return SoFar(vm.instructions, vm.now(), exits)


def event_totals(vcpus: Sequence[_Counting]) -> dict[Event, tuple[int, int]]:
    """{event: (all, of which heavy)} of all CPUs."""
    sums: dict[Event, tuple[int, int]] = {}
    for vcpu in vcpus:
        for event, (count, heavy) in vcpu.counters.totals().items():
            before = sums.get(event, (0, 0))
            sums[event] = (before[0] + count, before[1] + heavy)
    return sums


def _ledger(policy: Policy, vcpus: Sequence[_Counting]) -> Ledger:
    sums: Counter[tuple[Event, int, int]] = Counter()
    elsewhere = 0
    for vcpu in vcpus:
        places, unplaced = vcpu.counters.places()
        elsewhere += unplaced
        for event, qualifier, eip, count in places:
            sums[event, qualifier, eip] += count
    rows = [(*place, count) for place, count in sums.items()]
    rows.sort(key=lambda row: (-row[3], row[0], row[1], row[2]))
    return Ledger.from_counts(policy, event_totals(vcpus), rows, elsewhere)


def _calls(vcpus: Sequence[Vcpu]) -> dict[str, CallUse]:
    uses: dict[str, CallUse] = {}
    for vcpu in vcpus:
        for row, (count, instructions) in vcpu.meter.calls().items():
            name = _call_name(vcpu.meter, row)
            before = uses.get(name, CallUse(0, 0))
            uses[name] = CallUse(before.count + count, before.instructions + instructions)
    return uses


def collect(
    vm: Vm,
    policy: Policy,
    outcome: Outcome,
    *,
    guest_sha256: str,
    rom: bytes | None,
    memory: mmap.mmap,
    console: str,
    phases: tuple[Phase, ...],
    filters: tuple[AttachedFilter, ...],
    reflection: Reflection | None,
    checked: int,
) -> Run:
    """The counts of a machine as they stand. `memory` is the guest's, as a buffer."""
    vcpus = vm.vcpus
    return Run(
        policy=policy,
        outcome=outcome,
        instructions=vm.instructions,
        rom_instructions=sum(vcpu.meter.rom_instructions for vcpu in vcpus),
        virtual_ns=vm.now(),
        ledger=_ledger(policy, vcpus),
        paravirt=Paravirt(
            updates=sum(vcpu.queue.updates for vcpu in vcpus),
            notices=sum(vcpu.queue.notices for vcpu in vcpus),
            flushes=sum(vcpu.queue.drains for vcpu in vcpus),
            largest_batch=max(vcpu.queue.largest for vcpu in vcpus),
            hypercalls=sum(vcpu.counters.total(Event.HYPERCALL) for vcpu in vcpus),
        ),
        calls=_calls(vcpus),
        console=console,
        complaints=tuple(line for vcpu in vcpus for line in vcpu.doorbell.complaints),
        rom_sha256=None if rom is None else hashlib.sha256(rom).hexdigest(),
        guest_sha256=guest_sha256,
        memory_crc=checksum(memory),
        registers=_registers(vm.current),
        latest=_latest(vm.current.counters),
        vcpus=tuple(
            VcpuShare(vcpu.meter.instructions, vcpu.meter.own(), _ledger(policy, [vcpu]))
            for vcpu in vcpus
        ),
        phases=phases,
        filters=filters,
        reflection=reflection,
        shadow_entries_checked=checked,
    )


def collect_foreign(
    machine: Counted,
    policy: Policy,
    outcome: Outcome,
    *,
    engine: str,
    engine_events: dict[str, int],
    complaints: tuple[str, ...],
    registers: dict[str, int],
    guest: bytes,
    rom: bytes | None,
    memory: mmap.mmap,
    console: str,
    phases: tuple[Phase, ...],
) -> Run:
    """The counts of an engine that has a processor of its own and counts no instructions.

    `engine_events` join those of the ledger; `registers` are those of the first CPU.
    """
    ledger = _ledger(policy, machine.vcpus)
    ledger.engine_events |= engine_events
    hypercalls = sum(vcpu.counters.total(Event.HYPERCALL) for vcpu in machine.vcpus)
    return Run(
        policy=policy,
        outcome=outcome,
        instructions=0,
        rom_instructions=0,
        virtual_ns=machine.now(),
        ledger=ledger,
        paravirt=Paravirt(0, 0, 0, 0, hypercalls),
        calls={},
        console=console,
        complaints=complaints,
        rom_sha256=None if rom is None else hashlib.sha256(rom).hexdigest(),
        guest_sha256=hashlib.sha256(guest).hexdigest(),
        memory_crc=checksum(memory),
        registers=registers,
        latest=_latest(machine.vcpus[0].counters),
        vcpus=tuple(VcpuShare(0, machine.now(), _ledger(policy, [vcpu])) for vcpu in machine.vcpus),
        phases=phases,
        engine=engine,
        counts_instructions=False,
    )


def _latest(counters: Counters) -> tuple[Place, ...]:
    return tuple(
        Place(REASON_OF[event], describe(event, qualifier) or event.name.lower(), eip, 1)
        for event, qualifier, eip in counters.recent()
    )


def _registers(vcpu: Vcpu) -> dict[str, int]:
    general = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
    return {
        "eip": vcpu.cpu.eip(),
        "eflags": vcpu.cpu.eflags(),
        **{name: vcpu.cpu.reg(number) for number, name in enumerate(general)},
        "cpl": vcpu.cpu.cpl(),
        "cr0": vcpu.paging.cr0,
        "cr2": vcpu.cpu.cr2(),
        "cr3": vcpu.paging.cr3,
        "cr4": vcpu.paging.cr4,
    }


def _call_name(meter: BlockMeter, row: int) -> str:
    """The call's name, or several joined by "/" where a ROM serves them by one entry."""
    if row in _CALL_ROWS:
        return _CALL_ROWS[row]
    return "/".join(_name_of(number) for number in meter.rom.shared_with(row))


def _name_of(number: int) -> str:
    try:
        return call_numbered(number).name
    except KeyError:
        return f"call {number}"
