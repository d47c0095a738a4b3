"""Random machine states, each fit for one call."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from types import MappingProxyType

from rombuilder.conformance.layout import (
    ARENA_SIZE,
    KERNEL_CODE,
    STACK_SIZE,
    USER_CODE,
    USER_DATA,
    Placement,
)
from vmi.calls import Call

__all__ = ["ARITHMETIC", "DF", "IF", "IOPL", "REGISTERS", "State", "random_state"]

REGISTERS = ("EAX", "EBX", "ECX", "EDX", "ESI", "EDI", "EBP")

ARITHMETIC = 0x8D5
"""CF, PF, AF, ZF, SF and OF: what every call may clobber."""
IF = 0x200
DF = 0x400
IOPL = 0x3000
_ALWAYS = 0x002

_MSRS = (0x10, 0x1B, 0x174, 0x175, 0x176, 0x1D9, 0xC0000080, 0xC0000081)
_LEAVES = (0, 1, 2, 4, 7, 0x80000000, 0x80000001)
_DEBUG_REGISTERS = (0, 1, 2, 3, 6, 7)
_PORTS = (0x20, 0x60, 0x71, 0x3F8, 0xCFC)
_USER_TOP = 0x40000000
_STACK_ROOM = 0x400
"""Above the stack pointer, at least; the ROM has the greater part below it."""


@dataclass(frozen=True, slots=True)
class State:
    """What a call finds. The seed that made it makes the processor's answers too."""

    seed: str
    registers: Mapping[str, int]
    flags: int
    esp: int
    stack: tuple[int, ...]
    """Words that the caller pushed, the return address not counted."""
    memory: bytes
    """The arena."""
    poisoned: bool
    """DS, ES, FS and GS lead nowhere."""

    @property
    def old_stack(self) -> bytes:
        """What the stack holds before the caller pushes anything: no zeros, at least."""
        return (self.memory * (STACK_SIZE // ARENA_SIZE))[::-1]

    def describe(self) -> dict[str, str]:
        """The state as a finding shows it."""
        shown = {name: f"{value:#010x}" for name, value in self.registers.items()}
        shown |= {"ESP": f"{self.esp:#010x}", "EFLAGS": f"{self.flags:#010x}"}
        if self.stack:
            shown["stack"] = " ".join(f"{word:#010x}" for word in self.stack)
        if self.poisoned:
            shown["DS, ES"] = "unusable"
        return shown


@dataclass(slots=True)
class _Draft:
    """A state in the making."""

    random: Random
    place: Placement
    memory: bytearray
    flags: int
    registers: dict[str, int]
    stack: tuple[int, ...] = field(default=())

    def word(self) -> int:
        return self.random.getrandbits(32)

    def pointer(self, size: int, align: int = 1) -> int:
        """Somewhere in the arena, with `size` bytes from there on."""
        steps = (ARENA_SIZE - size) // align
        return self.place.arena + self.random.randint(0, steps) * align

    def word_at(self, address: int) -> int:
        offset = address - self.place.arena
        return int.from_bytes(self.memory[offset : offset + 4], "little")

    def set(self, **registers: int) -> None:
        self.registers.update({name.upper(): value for name, value in registers.items()})

    def random_flags(self) -> int:
        mask = ARITHMETIC | IF | IOPL
        return (self.word() & mask) | _ALWAYS


_Rule = Callable[[_Draft], None]
_RULES: dict[str, _Rule] = {}


def _for(*names: str) -> Callable[[_Rule], _Rule]:
    def register(rule: _Rule) -> _Rule:
        _RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


@_for("CPUID")
def _cpuid(draft: _Draft) -> None:
    draft.set(eax=draft.random.choice(_LEAVES), ecx=draft.random.randrange(4))


@_for("WRMSR", "RDMSR")
def _msr(draft: _Draft) -> None:
    draft.set(ecx=draft.random.choice(_MSRS))


@_for("RDPMC")
def _rdpmc(draft: _Draft) -> None:
    draft.set(ecx=draft.random.randrange(2))


@_for("SetGDT", "SetIDT", "GetGDT", "GetIDT")
def _table_pointer(draft: _Draft) -> None:
    draft.set(eax=draft.pointer(6))


@_for("SetLDT", "SetTR")
def _selector(draft: _Draft) -> None:
    draft.set(eax=(draft.word() & 0xFFFF0000) | draft.random.randrange(1, 32) << 3)


@_for("WriteGDTEntry", "WriteLDTEntry", "WriteIDTEntry")
def _descriptor(draft: _Draft) -> None:
    draft.set(eax=draft.pointer(256 * 8, 8), edx=draft.random.randrange(256))
    draft.stack = (draft.word(),)


@_for("UpdateKernelStack")
def _kernel_stack(draft: _Draft) -> None:
    # The 2.6.32 client gives the selector, older ones the TSS.
    draft.set(eax=draft.random.choice((0x80, draft.pointer(104, 4))), edx=draft.pointer(4, 4))


@_for("SetCR0")
def _cr0(draft: _Draft) -> None:
    draft.set(eax=draft.word() | 1)


@_for("SetCR3")
def _cr3(draft: _Draft) -> None:
    draft.set(eax=draft.word() & 0xFFFFF018)


@_for("SetCR4")
def _cr4(draft: _Draft) -> None:
    draft.set(eax=draft.word() & 0x7FF)


@_for("SetDR", "GetDR")
def _debug_register(draft: _Draft) -> None:
    draft.set(eax=draft.random.choice(_DEBUG_REGISTERS))


@_for("SetInterruptMask")
def _mask(draft: _Draft) -> None:
    # A word as GetInterruptMask gave it, in the flags of now but for IF and the arithmetic ones.
    now = draft.flags & ~(ARITHMETIC | IF)
    draft.set(eax=now | (draft.word() & (ARITHMETIC | IF)))


@_for("IRET")
def _iret(draft: _Draft) -> None:
    flags = draft.random_flags() | draft.random.choice((0, DF))
    if draft.random.getrandbits(1):
        user = draft.random.randrange(0x1000, _USER_TOP) & ~3
        draft.stack = (draft.word() % _USER_TOP, USER_CODE, flags, user, USER_DATA)
    else:
        draft.stack = (draft.place.returns, KERNEL_CODE, flags)


@_for("SYSEXIT")
def _sysexit(draft: _Draft) -> None:
    draft.set(edx=draft.word() % _USER_TOP, ecx=draft.word() % _USER_TOP)


@_for("Reboot")
def _reboot(draft: _Draft) -> None:
    draft.set(eax=draft.random.randrange(2))


def _update_flags(draft: _Draft) -> int:
    kind = 1 << draft.random.randrange(4)
    current = draft.random.choice((0, 0x10 | draft.word() & 0xFFFFF000))
    return kind | current | draft.random.choice((0, 0x20))


@_for("SetPxE")
def _set_entry(draft: _Draft) -> None:
    draft.set(edx=draft.pointer(4, 4), ecx=_update_flags(draft))


@_for("SetPxELong")
def _set_long_entry(draft: _Draft) -> None:
    entry = draft.pointer(8, 8)
    if draft.random.getrandbits(1):  # the frame number's high half seldom changes
        draft.set(edx=draft.word_at(entry + 4))
    draft.set(ecx=entry)
    draft.stack = (_update_flags(draft),)


@_for("UpdatePxE", "UpdatePxELong")
def _update_entry(draft: _Draft) -> None:
    draft.set(eax=draft.pointer(8, 8), edx=_update_flags(draft))


@_for("MachineToPhysical", "PhysicalToMachine")
def _frame(draft: _Draft) -> None:
    draft.set(eax=draft.word() >> 12)


@_for("AllocatePage", "ReleasePage")
def _page(draft: _Draft) -> None:
    flags = 1 << draft.random.randrange(4) | draft.word() & 0x70
    draft.set(eax=draft.word() >> draft.random.choice((8, 12)), edx=flags, ecx=draft.word() >> 12)
    draft.stack = (768, 256)


@_for("FlushTLB")
def _flush(draft: _Draft) -> None:
    draft.set(eax=draft.random.randint(1, 3))


@_for("SetLinearMapping")
def _linear(draft: _Draft) -> None:
    draft.set(eax=draft.random.randrange(4), edx=draft.word() & 0xFFFFF000, ecx=draft.word() >> 12)
    draft.stack = (draft.word() >> 12,)


@_for("IN", "INB", "INW", "OUT", "OUTB", "OUTW")
def _port_access(draft: _Draft) -> None:
    draft.set(edx=draft.random.choice(_PORTS))


@_for("INS", "INSB", "INSW", "OUTS", "OUTSB", "OUTSW")
def _string_access(draft: _Draft) -> None:
    # Room for eight elements on either side: these calls go the way that DF says.
    buffer = draft.pointer(64) + 32
    draft.set(
        edx=draft.random.choice(_PORTS), ecx=draft.random.randrange(9), edi=buffer, esi=buffer
    )
    draft.flags |= draft.random.choice((0, DF))


@_for("SetIOPLMask")
def _iopl(draft: _Draft) -> None:
    draft.set(eax=draft.word() & IOPL)


@_for("SetInitialAPState")
def _ap_state(draft: _Draft) -> None:
    draft.set(eax=draft.pointer(256, 4), edx=draft.random.randrange(1, 16))


@_for("APICWrite", "APICRead")
def _apic(draft: _Draft) -> None:
    # An offset, as Linux has it. Where the guest maps the page is for the ROM to know; wherever it
    # looks, a page is put.
    draft.set(eax=draft.random.randrange(0x20, 0x400, 16))


@_for("GetCycleCounter")
def _counter(draft: _Draft) -> None:
    draft.set(eax=draft.random.randrange(3))


@_for("SetAlarm", "CancelAlarm")
def _alarm(draft: _Draft) -> None:
    kinds = [wiring | period for wiring in (0, 0x10000) for period in (0, 0x100)]
    draft.set(eax=draft.random.choice(kinds) | draft.random.randrange(3))
    draft.stack = (draft.word(), 0)


@_for("SetLazyMode")
def _lazy(draft: _Draft) -> None:
    draft.set(eax=draft.random.randrange(3))


def random_state(call: Call | None, place: Placement, seed: str) -> State:
    """The state that the seed makes for the call; for no call, a plain C function's."""
    random = Random(seed)  # noqa: S311 (repeatable, not secret)
    draft = _Draft(
        random,
        place,
        bytearray(random.randbytes(ARENA_SIZE)),
        0,
        {name: random.getrandbits(32) for name in REGISTERS},
    )
    draft.flags = draft.random_flags()
    free = call is not None and not call.data_segments
    if free and random.getrandbits(1):  # entry code calls before it has cleared DF
        draft.flags |= DF
    rule = _RULES.get(call.name) if call else None
    if rule:
        rule(draft)
    esp = place.stack + random.randrange(STACK_SIZE // 2, STACK_SIZE - _STACK_ROOM, 4)
    return State(
        seed,
        MappingProxyType(draft.registers),
        draft.flags,
        esp,
        draft.stack,
        bytes(draft.memory),
        free,
    )
