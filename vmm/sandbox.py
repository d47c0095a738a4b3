r"""A virtual CPU as a sandbox: ring 3 code whose every way out is a Python function.

    def handle(box: Sandbox, event: Event) -> bool:
        match event:
            case SystemCall(vector=0x80) if box.get("eax") == 1:
                box.stop(box.get("ebx"))
                return True
        return False

    box = Sandbox(handle)
    box.map(0x1000, 4096, writable=False, data=b"\xb8\x01\0\0\0\xbb\x2a\0\0\0\xcd\x80")
    ending = box.run(0x1000)        # Ending(STOPPED, value=42)

The code runs as a process does: in ring 3, paged, on memory that was mapped for it and no
other. There is no kernel below it: system calls, faults and port accesses go to the
function, which may change registers and memory and let the code go on.
"""

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from vmi.address import PAGE_SHIFT, PAGE_SIZE, Port
from vmi.apstate import ApState
from vmm.core.bus import PortBus
from vmm.core.cpu.apbegin import begin_in
from vmm.core.cpu.cpuid import MODEL_SPECIFIC_REGISTERS, cpuid
from vmm.core.errors import BadDescription, GuestError
from vmm.core.hooks import callbacks
from vmm.core.memory import GuestMemory
from vmm.core.policy import POLICIES
from vmm.core.run.stop import Stop
from vmm.core.run.swallowed import stopping_at_errors
from vmm.core.vm import Vm
from vmm.engine.unicorn import POOL_ADDRESS, WINDOW_ADDRESS, UnicornEngine

__all__ = [
    "Ending",
    "EndingKind",
    "Event",
    "Fault",
    "PortRead",
    "PortWrite",
    "Sandbox",
    "SystemCall",
]

DEFAULT_MEMORY = 16 << 20
DEFAULT_INSTRUCTIONS = 1_000_000_000
MOST_MEMORY = 1 << 30

_POOL_PAGES = 512
_GDT, _DIRECTORY, _TABLES = 0x1000, 0x2000, 0x3000
_USER_CODE, _USER_DATA = 0x1B, 0x23
_DESCRIPTORS = (
    0,
    0x00CF9B000000FFFF,
    0x00CF93000000FFFF,
    0x00CFFB000000FFFF,
    0x00CFF3000000FFFF,
)
_PRESENT, _WRITABLE, _USER, _USED = 0x1, 0x2, 0x4, 0x60
_FLAGS = 0x3202
"""Interrupts on and IOPL 3: a port access goes to the function, not to a check of rights."""
_ARITHMETIC = 0xCD5
_SYSENTER = b"\x0f\x34"
_PAGE_FAULT, _GENERAL_PROTECTION = 14, 13
_NO_VECTOR = -1
_TOP = 0xC0000000
"""User addresses end here, as a 32-bit kernel has it."""
_GDT_LINEAR = _TOP
_PORTS = 0x10000
_BEGINNING = ApState(
    cr0=0x80010001,
    cr3=_DIRECTORY,
    eflags=_FLAGS,
    cs=_USER_CODE,
    ss=_USER_DATA,
    ds=_USER_DATA,
    es=_USER_DATA,
    gdtr_base=_GDT_LINEAR,
    gdtr_limit=8 * len(_DESCRIPTORS) - 1,
)
"""Paged and protected; the last step, into ring 3, is not a state's to take."""
_REGISTERS = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")


@dataclass(frozen=True, slots=True)
class SystemCall:
    """INT n, INT3, INTO or SYSENTER; the code goes on behind the instruction.

    `vector` is none for SYSENTER.
    """

    vector: int | None
    address: int
    """Of the instruction behind it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """An exception; handled, the code executes the instruction again.

    `error` is the error code or none, `target` the address that a page fault is about.
    """

    vector: int
    error: int | None
    address: int
    target: int | None = None

    @property
    def is_page_fault(self) -> bool:
        """Is it about memory? Then the function may map some."""
        return self.vector == _PAGE_FAULT


@dataclass(slots=True)
class PortRead:
    """IN of `size` bytes; the function sets `value`."""

    port: int
    size: int
    value: int = 0


@dataclass(frozen=True, slots=True)
class PortWrite:
    """OUT of `size` bytes."""

    port: int
    size: int
    value: int


Event = SystemCall | Fault | PortRead | PortWrite
"""What the code did that is for the handler to decide."""


class EndingKind(StrEnum):
    """Why a run is over."""

    STOPPED = "stopped"
    """The function said so."""
    UNHANDLED = "unhandled"
    """The function did not want the event."""
    LIMIT = "limit"
    """So many instructions have passed."""
    STUCK = "stuck"
    """The code makes no progress, or asked for what the machine does not emulate."""


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a run: `value` as given to `stop`, `event` what nobody handled."""

    kind: EndingKind
    instructions: int
    value: int = 0
    event: Event | None = None
    detail: str = ""


Handler = Callable[["Sandbox", Event], bool]


class _Ports:
    """All ports lead to the function."""

    def __init__(self, box: "Sandbox") -> None:
        self._box = box

    def read(self, port: int, size: int) -> int:
        event = PortRead(port, size)
        self._box.offer(event)
        return event.value

    def write(self, port: int, size: int, value: int) -> None:
        self._box.offer(PortWrite(port, size, value))


class Sandbox:
    """Runs code; `handler` is told of every way out, and answers whether it has dealt with it.

    `memory` is the most that may be mapped, in bytes. Raises `BadDescription` for a limit
    that is none, and `EngineFailure` where the engine cannot be used. An exception of
    the handler ends the run and comes out of `run`.
    """

    def __init__(self, handler: Handler, *, memory: int = DEFAULT_MEMORY) -> None:
        if memory % PAGE_SIZE or not PAGE_SIZE <= memory <= MOST_MEMORY:
            raise BadDescription(
                f"memory of {memory} bytes: expected whole pages, up to {MOST_MEMORY}"
            )
        self._handler = handler
        pages = memory >> PAGE_SHIFT
        # At worst each page needs a table of its own; no more than there are tables.
        tables = min(pages, 1024) + 2
        self._next_table = _TABLES
        self._next_page = self._first_page = _TABLES + tables * PAGE_SIZE
        self._end = self._first_page + memory
        self._ram = mmap.mmap(-1, self._end)
        self._pool = mmap.mmap(-1, _POOL_PAGES * PAGE_SIZE)
        self._memory = GuestMemory(self._ram)
        self._engine = UnicornEngine(self._ram, self._pool)
        bus = PortBus()
        bus.register(Port(0), _PORTS, _Ports(self))
        self._vm = Vm(
            self._memory,
            [self._engine.binding()],
            self._pool,
            POOL_ADDRESS,
            WINDOW_ADDRESS,
            POLICIES[0],
            bus,
            cpuid,
            MODEL_SPECIFIC_REGISTERS,
        )
        self._vcpu = self._vm.vcpus[0]
        self._vcpu.ports.has_doorbell = False
        self._engine.connect(callbacks(self._vcpu), self._vcpu.mmio_read, self._vcpu.mmio_write)
        self._vcpu.connect(self._engine.call_before, self._engine.mark_blocks)
        self._pending: Event | None = None
        self._ended: Ending | None = None
        self._started = False
        self._memory.load(_GDT, struct.pack(f"<{len(_DESCRIPTORS)}Q", *_DESCRIPTORS))
        self._enter(_GDT_LINEAR >> PAGE_SHIFT, _GDT, _PRESENT | _USED)

    # ---- memory

    @property
    def mapped(self) -> int:
        """Bytes that are mapped."""
        return self._next_page - self._first_page

    def map(self, address: int, size: int, *, writable: bool = True, data: bytes = b"") -> None:
        """Give the code memory: zeros, with `data` at its beginning.

        Raises `BadDescription` for addresses that are no pages below 3 GiB, pages that are
        mapped already, data that do not fit, and more memory than the sandbox may have. Then
        nothing is mapped.
        """
        if address % PAGE_SIZE or size % PAGE_SIZE or not 0 < size <= _TOP - address or address < 0:
            raise BadDescription(
                f"map {size:#x} bytes at {address:#x}: expected whole pages below {_TOP:#x}"
            )
        if len(data) > size:
            raise BadDescription(f"map {size:#x} bytes with {len(data):#x} bytes of data")
        if self._next_page + size > self._end:
            raise BadDescription(
                f"map {size:#x} bytes at {address:#x}: {self._end - self._next_page:#x} of the "
                "sandbox's memory are left"
            )
        first = address >> PAGE_SHIFT
        count = size >> PAGE_SHIFT
        for page in range(first, first + count):
            if self._entry(page) & _PRESENT:
                raise BadDescription(f"map {size:#x} bytes at {address:#x}: mapped already")
        rights = _PRESENT | _USER | _USED | (_WRITABLE if writable else 0)
        for page in range(first, first + count):
            self._enter(page, self._next_page, rights)
            self._next_page += PAGE_SIZE
        self._copy(address, data)

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the code's memory; raises `BadDescription` where none is mapped."""
        return b"".join(
            bytes(self._ram[place : place + count]) for place, count in self._places(address, size)
        )

    def write(self, address: int, data: bytes) -> None:
        """Change the code's memory, whatever its own rights there are.

        Raises `BadDescription`, with nothing written, where none is mapped.
        """
        self._copy(address, data)

    def _copy(self, address: int, data: bytes) -> None:
        done = 0
        for place, count in self._places(address, len(data)):
            self._memory.load(place, data[done : done + count])
            done += count

    def _places(self, address: int, size: int) -> list[tuple[int, int]]:
        """Where in memory a range lies, page by page."""
        found = []
        at = address
        while at < address + size:
            entry = self._entry(at >> PAGE_SHIFT) if 0 <= at < _TOP else 0
            if not entry & _PRESENT:
                raise BadDescription(f"{size:#x} bytes at {address:#x}: {at:#x} is not mapped")
            inside = at % PAGE_SIZE
            count = min(PAGE_SIZE - inside, address + size - at)
            found.append(((entry & ~(PAGE_SIZE - 1)) + inside, count))
            at += count
        return found

    def _entry(self, page: int) -> int:
        """The page-table entry of a page number; 0 without a table."""
        table = self._word(_DIRECTORY + 4 * (page >> 10))
        if not table & _PRESENT:
            return 0
        return self._word((table & ~(PAGE_SIZE - 1)) + 4 * (page & 0x3FF))

    def _enter(self, page: int, frame: int, rights: int) -> None:
        """Fill in a page-table entry that was not present: no translation can be stale."""
        slot = _DIRECTORY + 4 * (page >> 10)
        if not self._word(slot) & _PRESENT:
            self._set_word(slot, self._next_table | _PRESENT | _WRITABLE | _USER | _USED)
            self._next_table += PAGE_SIZE
        table = self._word(slot) & ~(PAGE_SIZE - 1)
        self._set_word(table + 4 * (page & 0x3FF), frame | rights)

    def _word(self, place: int) -> int:
        value: int = struct.unpack_from("<I", self._ram, place)[0]
        return value

    def _set_word(self, place: int, value: int) -> None:
        struct.pack_into("<I", self._ram, place, value)

    # ---- registers

    def get(self, register: str) -> int:
        """A general register by its name, `eip` or `eflags`."""
        if register in _REGISTERS:
            value: int = self._vcpu.cpu.reg(_REGISTERS.index(register))
        elif register == "eip":
            value = self._vcpu.cpu.eip()
        elif register == "eflags":
            value = self._vcpu.cpu.eflags()
        else:
            raise self._unknown(register)
        return value

    def set(self, register: str, value: int) -> None:
        """Change a general register or `eip`; of `eflags` the arithmetic flags and DF."""
        value &= 0xFFFFFFFF
        if register in _REGISTERS:
            self._vcpu.cpu.set_reg(_REGISTERS.index(register), value)
        elif register == "eip":
            self._vcpu.cpu.set_eip(value)
        elif register == "eflags":
            self._vcpu.cpu.set_eflags((self.get("eflags") & ~_ARITHMETIC) | (value & _ARITHMETIC))
        else:
            raise self._unknown(register)

    @staticmethod
    def _unknown(register: str) -> BadDescription:
        return BadDescription(
            f"register {register!r}: expected one of {', '.join(_REGISTERS)}, eip, eflags"
        )

    # ---- running

    def stop(self, value: int = 0) -> None:
        """End the run; for the handler to call."""
        self._ended = Ending(EndingKind.STOPPED, 0, value)
        self._vcpu.request_stop(Stop.TRAP)

    def offer(self, event: Event) -> None:
        """Hand an event to the function now; unhandled, it ends the run."""
        if not self._handler(self, event) and self._ended is None:
            self._ended = Ending(EndingKind.UNHANDLED, 0, event=event)
            self._vcpu.request_stop(Stop.TRAP)

    def run(
        self, entry: int, *, stack: int = 0, instructions: int = DEFAULT_INSTRUCTIONS
    ) -> Ending:
        """Run from `entry` with ESP at `stack` until the end; at most so many instructions.

        May be called again: registers are as the last run left them, but for these two. Raises
        `BadDescription` for a limit below 1.
        """
        if instructions < 1:
            raise BadDescription(f"{instructions} instructions: expected at least 1")
        vcpu = self._vcpu
        begun = self._begin(entry, stack)
        self._ended = None
        vcpu.instruction_limit = begun + instructions
        vcpu.delivery.trap = self._trap
        try:
            with stopping_at_errors(vcpu.fail):
                while self._ended is None:
                    self._once()
        except GuestError as error:
            self._ended = Ending(EndingKind.STUCK, 0, detail=str(error))
        ended = self._ended
        passed = vcpu.meter.instructions - begun
        return Ending(ended.kind, passed, ended.value, ended.event, ended.detail)

    def _once(self) -> None:
        """From here to the next event, and what the function says to it."""
        vcpu = self._vcpu
        vcpu.stop_reason = Stop.NONE
        self._pending = None
        self._engine.run(vcpu.cpu.eip())
        if vcpu.error is not None:
            error, vcpu.error = vcpu.error, None
            raise error
        if self._over:
            return
        if Stop(vcpu.stop_reason) is Stop.LIMIT:
            vcpu.meter.leave_at(vcpu.cpu.eip())
            self._ended = Ending(EndingKind.LIMIT, 0)
            return
        if Stop(vcpu.stop_reason) is Stop.FORGET:
            vcpu.retranslate()
            return
        event = self._trapped
        if isinstance(event, SystemCall):
            self.set("eip", event.address)
        if event is not None:
            self.offer(event)

    @property
    def _trapped(self) -> Event | None:
        """What the engine stopped for."""
        return self._pending

    @property
    def _over(self) -> bool:
        """Has the run an end? The function may have given it one in the middle of a block."""
        return self._ended is not None

    def _trap(self, vector: int, error: int, software: bool, return_eip: int) -> None:  # noqa: FBT001 - the core calls it
        """An exception or INT n, in place of a kernel's handler."""
        vcpu = self._vcpu
        event: Event
        if software:
            event = SystemCall(vector, return_eip)
        elif vector == _GENERAL_PROTECTION and self._peek(return_eip, 2) == _SYSENTER:
            event = SystemCall(None, return_eip + 2)
        else:
            target = vcpu.cpu.cr2() if vector == _PAGE_FAULT else None
            event = Fault(vector, None if error == _NO_VECTOR else error, return_eip, target)
        self._pending = event
        vcpu.request_stop(Stop.TRAP)

    def _peek(self, address: int, size: int) -> bytes:
        try:
            return self.read(address, size)
        except BadDescription:
            return b""

    def _begin(self, entry: int, stack: int) -> int:
        """Put the CPU into ring 3; answers the instructions so far."""
        if not self._started:
            self._started = True
            begin_in(self._vcpu, _BEGINNING)
            self._vcpu.cpu.enter_ring(3)
        self.set("esp", stack)
        self.set("eip", entry)
        instructions: int = self._vcpu.meter.instructions
        return instructions
