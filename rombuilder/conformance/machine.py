"""The machine that runs one call: flat 32-bit ring 0, the image write-protected, step by step.

The engine executes what any program may execute, the flag instructions and the ways
out of ring 0; all else that is privileged goes to `privileged.Processor`. Nothing a
ROM does outlives the call: every run starts from the same machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import capstone
from capstone import x86 as cs
from unicorn import unicorn_const as const
from unicorn import x86_const as x86
from unicorn.unicorn_py3.unicorn import Uc, UcError

from rombuilder.conformance.layout import (
    ARENA_SIZE,
    KERNEL_CODE,
    KERNEL_DATA,
    POISON_DATA,
    POISON_EXTRA,
    SEGMENT_BASES,
    STACK_SIZE,
    Placement,
    descriptors,
)
from rombuilder.conformance.privileged import (
    Effect,
    Processor,
    Reset,
    Stopped,
    Trap,
    handler_of,
)
from rombuilder.conformance.states import IF, State

__all__ = ["MAX_STEPS", "Access", "Ending", "Machine", "Run"]

MAX_STEPS = 20_000
_PAGE = 0x1000
_NO_UNTIL = 0xFFFFFFFF
_SYSENTER_CS = 0x174

_new_cpu: Any = Uc

_REGISTERS = {
    name: getattr(x86, f"UC_X86_REG_{name.upper()}")
    for name in (
        *("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "esp", "eip", "eflags"),
        *("ax", "bx", "cx", "dx", "si", "di", "bp", "sp"),
        *("al", "bl", "cl", "dl", "ah", "bh", "ch", "dh"),
        *("cs", "ss", "ds", "es", "fs", "gs"),
    )
}
_SEEN = ("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "esp", "eip", "eflags")
_SELECTORS = ("cs", "ss", "ds", "es", "fs", "gs")
_DATA_UNMAPPED = {const.UC_MEM_READ_UNMAPPED, const.UC_MEM_WRITE_UNMAPPED}
_TURNS_ON = {cs.X86_INS_STI, cs.X86_INS_POPF, cs.X86_INS_POPFD}


class Ending(Enum):
    """How a run ended."""

    LEFT = "left"
    """Control went out of the code under test: it returned, or went to another ring."""
    RESET = "reset"
    STOPPED = "stopped"
    TRAP = "trap"
    ACCESS = "access"
    """Memory that does not exist or may not be written; see `Run.access`."""
    RUNAWAY = "runaway"
    BROKEN = "broken"
    """The engine gave up."""


@dataclass(frozen=True, slots=True)
class Access:
    """An access that could not be."""

    verb: str
    address: int
    size: int


@dataclass(slots=True)
class Run:
    """What a run left behind."""

    ending: Ending = Ending.RUNAWAY
    detail: str = ""
    access: Access | None = None
    registers: dict[str, int] = field(default_factory=dict)
    """General registers, ESP, EIP and EFLAGS, in upper case."""
    selectors: dict[str, int] = field(default_factory=dict)
    arena: bytes = b""
    stack: bytes = b""
    tables: bytes = b""
    lent: int | None = None
    """Where a page was lent to the run, see `Machine.call`."""
    page: bytes = b""
    """What is in it."""
    control: dict[str, int] = field(default_factory=dict)
    """The control registers that the run started with."""
    effects: list[Effect] = field(default_factory=list)
    turned_on: list[tuple[str, str]] = field(default_factory=list)
    """Instructions that let interrupts in, each with the one executed next."""
    entries: int = 0
    """How often the first instruction was executed."""
    lowest: int = _NO_UNTIL
    """The lowest stack pointer seen at the first instruction."""


class Machine:
    """A ROM at one place. After a run that did not end well a new machine should be made."""

    def __init__(self, image: bytes, place: Placement, natives: Mapping[str, bytes]) -> None:
        self.place = place
        self.image = range(place.load, place.load + len(image))
        self.lent: int | None = None
        self._lends = False
        self._page = b""
        self._access: Access | None = None
        self._trap = ""
        self._left = False
        self._decoded: dict[int, Any] = {}
        self._decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
        self._decoder.detail = True
        self._uc = _new_cpu(const.UC_ARCH_X86, const.UC_MODE_32)
        self._natives: dict[str, range] = {}
        self._map(image)
        self._place_natives(natives)
        self._uc.hook_add(const.UC_HOOK_MEM_INVALID, self._invalid, None, 1, 0)
        self._uc.hook_add(const.UC_HOOK_INTR, self._interrupt)
        self._uc.msr_write(_SYSENTER_CS, KERNEL_CODE)
        self._uc.reg_write(x86.UC_X86_REG_GDTR, (0, place.tables, len(descriptors()) - 1, 0))
        self._uc.reg_write(x86.UC_X86_REG_CS, KERNEL_CODE)
        self._uc.reg_write(x86.UC_X86_REG_SS, KERNEL_DATA)
        self._contexts = {
            segments: self._context(*segments)
            for segments in ((KERNEL_DATA, KERNEL_DATA), (POISON_DATA, POISON_EXTRA))
        }

    def _map(self, image: bytes) -> None:
        place, read_only = self.place, const.UC_PROT_READ | const.UC_PROT_EXEC
        first = place.load & ~(_PAGE - 1)
        end = (self.image.stop + _PAGE - 1) & ~(_PAGE - 1)
        self._uc.mem_map(first, end - first, read_only)
        self._uc.mem_write(place.load, image)
        self._uc.mem_map(place.native, _PAGE, read_only)
        self._uc.mem_map(place.returns, _PAGE, read_only)
        self._uc.mem_map(place.arena, ARENA_SIZE, const.UC_PROT_READ | const.UC_PROT_WRITE)
        self._uc.mem_map(place.stack, STACK_SIZE, const.UC_PROT_READ | const.UC_PROT_WRITE)
        self._uc.mem_map(place.tables, _PAGE, const.UC_PROT_READ | const.UC_PROT_WRITE)
        self._uc.mem_write(place.tables, descriptors())

    def _place_natives(self, natives: Mapping[str, bytes]) -> None:
        at = int(self.place.native)
        for name, code in natives.items():
            self._uc.mem_write(at, code)
            self._natives[name] = range(at, at + len(code))
            at += len(code)

    def _context(self, data: int, extra: int) -> Any:
        for name, selector in zip(
            ("ds", "es", "fs", "gs"), (data, extra, data, extra), strict=True
        ):
            self.set(name, selector)
        return self._uc.context_save()

    # What the model of the processor asks for

    def get(self, register: str) -> int:
        """A register, by its name in lower case."""
        return int(self._uc.reg_read(_REGISTERS[register]))

    def set(self, register: str, value: int) -> None:
        """Change a register."""
        self._uc.reg_write(_REGISTERS[register], value)

    def load(self, address: int, size: int) -> bytes:
        """Read memory as an instruction does."""
        try:
            return bytes(self._uc.mem_read(address, size))
        except UcError as error:
            self._access = Access("reads from", address, size)
            raise Trap(str(error)) from None

    def store(self, address: int, data: bytes) -> None:
        """Write memory as an instruction does, its protection included."""
        writable = (
            (self.place.arena, ARENA_SIZE),
            (self.place.stack, STACK_SIZE),
            (self.place.tables, _PAGE),
        )
        if not any(at <= address <= at + size - len(data) for at, size in writable):
            self._access = Access("writes to", address, len(data))
            raise Trap("a store to memory that may not be written")
        self._uc.mem_write(address, data)

    def segment_base(self, register: str) -> int:
        """Where a segment starts; code and stack are flat."""
        return SEGMENT_BASES.get(self.get(register), 0)

    # Hooks

    def _invalid(
        self, uc: Any, kind: int, address: int, size: int, _value: int, _user: object
    ) -> bool:
        if self._lends and self.lent is None and kind in _DATA_UNMAPPED:
            return self._lend(address)
        verb = {
            const.UC_MEM_WRITE_PROT: "writes to",
            const.UC_MEM_WRITE_UNMAPPED: "writes to",
            const.UC_MEM_READ_UNMAPPED: "reads from",
            const.UC_MEM_READ_PROT: "reads from",
        }.get(kind)
        if verb is None:  # the engine looks ahead to where control went; that it left is seen there
            self._left = True
            return False
        self._access = Access(verb, address, size)
        uc.emu_stop()
        return False

    def _lend(self, address: int) -> bool:
        self.lent = address & ~(_PAGE - 1)
        self._uc.mem_map(self.lent, _PAGE, const.UC_PROT_READ | const.UC_PROT_WRITE)
        self._uc.mem_write(self.lent, self._page)
        return True

    def _interrupt(self, uc: Any, number: int, _user: object) -> None:
        self._trap = f"exception {number}"
        uc.emu_stop()

    # Runs

    def call(self, offset: int, state: State, *, jump: bool = False, lends: bool = False) -> Run:
        """Run the image from an offset. `jump`: nothing but the state's words is on the stack.

        With `lends` the first page that the call reaches for comes into being: `lent`.
        """
        self._lends = lends
        return self._run(self.image.start + offset, self.image, state, jump=jump)

    def native(self, name: str, state: State, *, jump: bool = False) -> Run:
        """Run a call's native instructions on the same state."""
        self._lends = False
        code = self._natives[name]
        return self._run(code.start, code, state, jump=jump)

    def take_back(self) -> None:
        """The lent page exists no more."""
        if self.lent is not None:
            self._uc.mem_unmap(self.lent, _PAGE)
        self.lent = None

    def _prepare(self, state: State, *, jump: bool) -> None:
        data = (POISON_DATA, POISON_EXTRA) if state.poisoned else (KERNEL_DATA, KERNEL_DATA)
        self._uc.context_restore(self._contexts[data])
        place = self.place
        self._uc.mem_write(place.arena, state.memory)
        self._uc.mem_write(place.stack, state.old_stack)
        self._uc.mem_write(place.tables, descriptors())
        self._page = state.memory[:_PAGE]
        if self.lent is not None:
            self._uc.mem_write(self.lent, self._page)
        words = state.stack if jump else (place.returns, *state.stack)
        self._uc.mem_write(state.esp, b"".join(word.to_bytes(4, "little") for word in words))
        for name, value in state.registers.items():
            self.set(name.lower(), value)
        self.set("esp", state.esp)
        self.set("eflags", state.flags)
        self._access = None
        self._trap = ""

    def _run(self, entry: int, code: range, state: State, *, jump: bool) -> Run:
        run = Run()
        self._prepare(state, jump=jump)
        model = Processor(state.seed, self)
        run.control = dict(model.state)
        try:
            self._steps(run, model, entry, code, off=not state.flags & IF)
        except Stopped:
            run.ending = Ending.STOPPED
        except Reset:
            run.ending = Ending.RESET
        except Trap as trap:
            run.ending, run.detail = Ending.TRAP, str(trap)
        except UcError as error:
            run.ending, run.detail = Ending.BROKEN, str(error)
        if self._access is not None:
            run.ending, run.access = Ending.ACCESS, self._access
        return self._observe(run, model)

    def _steps(self, run: Run, model: Processor, entry: int, code: range, *, off: bool) -> None:
        """Step until control leaves the code. `off`: interrupts were off, so watch that."""
        eip = entry
        enabler = ""
        for _ in range(MAX_STEPS):
            if eip not in code:
                run.ending = Ending.LEFT
                break
            if eip == entry:
                run.entries += 1
                run.lowest = min(run.lowest, self.get("esp"))
            insn, handler = self._decode(eip)
            if enabler:
                run.turned_on.append((enabler, insn.mnemonic))
            eip = self._step(model, eip, insn, handler)
            turns_on = off and insn.id in _TURNS_ON and self.get("eflags") & IF
            enabler = insn.mnemonic if turns_on else ""
        if enabler:
            run.turned_on.append((enabler, "the caller's code"))

    def _decode(self, eip: int) -> tuple[Any, Any]:
        found = self._decoded.get(eip)
        if found is None:
            raw = bytes(self._uc.mem_read(eip, min(15, _PAGE - eip % _PAGE)))
            insn = next(self._decoder.disasm(raw, eip), None)
            if insn is None:
                raise Trap(f"undefined instruction {raw[:4].hex(' ')}")
            found = self._decoded[eip] = (insn, handler_of(insn))
        return found

    def _step(self, model: Processor, eip: int, insn: Any, handler: Any) -> int:
        if handler is not None:
            self.set("eip", eip + insn.size)
            handler(model, insn)
            return self.get("eip")
        self._left = False
        try:
            self._uc.emu_start(eip, _NO_UNTIL, count=1)
        except UcError:
            if not self._left:
                raise
        if self._trap:
            raise Trap(self._trap)
        return self.get("eip")

    def _observe(self, run: Run, model: Processor) -> Run:
        run.registers = {name.upper(): self.get(name) for name in _SEEN}
        run.selectors = {name.upper(): self.get(name) for name in _SELECTORS}
        place = self.place
        run.arena = bytes(self._uc.mem_read(place.arena, ARENA_SIZE))
        run.stack = bytes(self._uc.mem_read(place.stack, STACK_SIZE))
        run.tables = bytes(self._uc.mem_read(place.tables, len(descriptors())))
        if self.lent is not None:
            run.lent = self.lent
            run.page = bytes(self._uc.mem_read(self.lent, _PAGE))
        run.effects = model.effects
        return run
