"""A filter's machine without the numbers: what each register and stack slot may hold."""

from dataclasses import dataclass, field, replace
from enum import Enum

from vmm.filters.context import CONTEXT_FIELDS, CONTEXT_SIZE, STACK_SIZE
from vmm.filters.isa import FRAME_POINTER
from vmm.filters.scalar import UNKNOWN, Scalar, unsigned

__all__ = ["AbstractState", "Forbidden", "Frame", "Pointer", "Region", "Value"]

_SLOT = 8
_WHOLE = 0xFF
"""All bytes of a stack slot."""


class Forbidden(Exception):
    """Something a filter must not do; the text says what."""


class Region(Enum):
    """What a pointer points into."""

    CONTEXT = "the context"
    STACK = "the stack"
    STATE = "the state"


@dataclass(frozen=True, slots=True)
class Pointer:
    """An address: a place between `low` and `high` bytes from a region's beginning.

    Of a stack, `frame` says whose; its places are negative, as r10 points to its end.
    """

    region: Region
    low: int = 0
    high: int = 0
    frame: int = 0

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.region.value}{self.low:+d}"
        return f"{self.region.value}{self.low:+d}..{self.high:+d}"


Value = Scalar | Pointer
_Slot = Value | int
"""A value that fills the slot, or which of its bytes hold some number or other."""


@dataclass(slots=True)
class Frame:
    """One function under way: its stack, where it returns to, what it must give back."""

    slots: dict[int, _Slot] = field(default_factory=dict)
    returns_to: int = 0
    saved: tuple[Value | None, ...] = ()

    def copy(self) -> "Frame":
        """A frame of its own."""
        return replace(self, slots=dict(self.slots))

    def includes(self, other: "Frame") -> bool:
        """Is every run that `other` stands for one of these?"""
        return (
            self.returns_to == other.returns_to
            and all(_includes(a, b) for a, b in zip(self.saved, other.saved, strict=True))
            and all(_slot_includes(slot, other.slots.get(i)) for i, slot in self.slots.items())
        )


def _includes(old: Value | None, new: Value | None) -> bool:
    if old is None:
        return True
    if isinstance(old, Scalar):
        return isinstance(new, Scalar) and old.includes(new)
    return old == new


def _slot_includes(old: _Slot, new: _Slot | None) -> bool:
    if new is None:
        return False
    if isinstance(old, int):
        if isinstance(new, int):
            return not old & ~new
        return isinstance(new, Scalar)
    return _includes(old, UNKNOWN if new == _WHOLE else None if isinstance(new, int) else new)


@dataclass(slots=True)
class AbstractState:
    """Registers and frames; a register that is `None` was never written."""

    state_size: int
    registers: list[Value | None]
    frames: list[Frame]

    @classmethod
    def at_entry(cls, state_size: int) -> "AbstractState":
        """As the core calls a filter: the context in r1, a stack in r10."""
        registers: list[Value | None] = [None] * (FRAME_POINTER + 1)
        registers[1] = Pointer(Region.CONTEXT)
        registers[FRAME_POINTER] = Pointer(Region.STACK)
        return cls(state_size, registers, [Frame()])

    def copy(self) -> "AbstractState":
        """A state of its own."""
        return AbstractState(
            self.state_size, list(self.registers), [frame.copy() for frame in self.frames]
        )

    def includes(self, other: "AbstractState") -> bool:
        """Has every run from `other` been looked at with this?"""
        return (
            len(self.frames) == len(other.frames)
            and all(map(_includes, self.registers, other.registers))
            and all(a.includes(b) for a, b in zip(self.frames, other.frames, strict=True))
        )

    def read(self, register: int) -> Value:
        """What a register holds; `Forbidden` if nothing was ever put there."""
        value = self.registers[register]
        if value is None:
            raise Forbidden(f"r{register} is read and was never written")
        return value

    def number(self, register: int, use: str) -> Scalar:
        """What a register holds, which must be no address."""
        value = self.read(register)
        if isinstance(value, Pointer):
            raise Forbidden(f"r{register} is an address in {value}, expected a number {use}")
        return value

    def address(self, register: int) -> Pointer:
        """What a register holds, which must be an address."""
        value = self.read(register)
        if isinstance(value, Scalar):
            raise Forbidden(f"r{register} is a number, expected an address")
        return value

    # ---- memory

    def load(self, pointer: Pointer, width: int) -> Value:
        """Read `width` bytes; `Forbidden` outside the region or where nothing was written."""
        anything = unsigned(0, (1 << 8 * width) - 1)
        if pointer.region is Region.CONTEXT:
            self._check_context(pointer, width, writing=False)
            return anything
        if pointer.region is Region.STATE:
            self._check_state(pointer, width, "read")
            return anything
        at = self._stack_offset(pointer, width, "read")
        slot = self.frames[pointer.frame].slots.get(at // _SLOT)
        if at % _SLOT == 0 and width == _SLOT and isinstance(slot, Scalar | Pointer):
            return slot
        for byte in range(at, at + width):
            slot = self.frames[pointer.frame].slots.get(byte // _SLOT)
            if isinstance(slot, Pointer):
                raise Forbidden(f"read of part of an address kept at {pointer}")
            if slot is None or (isinstance(slot, int) and not slot >> byte % _SLOT & 1):
                raise Forbidden(f"read of {width} bytes at {pointer}, never written")
        return anything

    def store(self, pointer: Pointer, width: int, value: Value) -> None:
        """Write `width` bytes; `Forbidden` outside the region, or if it would keep an address."""
        if pointer.region is Region.CONTEXT:
            self._check_context(pointer, width, writing=True)
        elif pointer.region is Region.STATE:
            self._check_state(pointer, width, "write")
        else:
            self._store_on_stack(pointer, width, value)
            return
        if isinstance(value, Pointer):
            raise Forbidden(f"an address in {value} would be kept in {pointer.region.value}")

    def _store_on_stack(self, pointer: Pointer, width: int, value: Value) -> None:
        at = self._stack_offset(pointer, width, "write")
        slots = self.frames[pointer.frame].slots
        if isinstance(value, Pointer):
            if at % _SLOT or width != _SLOT:
                raise Forbidden(f"an address must be kept whole, at a multiple of {_SLOT}")
            if value.region is Region.STACK and value.frame > pointer.frame:
                raise Forbidden("an address of a frame would outlive it in its caller's frame")
        if at % _SLOT == 0 and width == _SLOT:
            slots[at // _SLOT] = value
            return
        for byte in range(at, at + width):
            slot = slots.get(byte // _SLOT, 0)
            # What is left of an address is no number to be read.
            known = slot if isinstance(slot, int) else 0 if isinstance(slot, Pointer) else _WHOLE
            slots[byte // _SLOT] = known | 1 << byte % _SLOT

    def _check_context(self, pointer: Pointer, width: int, *, writing: bool) -> None:
        what = "write" if writing else "read"
        if pointer.low != pointer.high:
            raise Forbidden(f"{what} at a place in the context that varies: {pointer}")
        if not 0 <= pointer.low <= CONTEXT_SIZE - width:
            raise Forbidden(
                f"{what} of {width} bytes at {pointer}, outside its {CONTEXT_SIZE} bytes"
            )
        wide, writable = CONTEXT_FIELDS.get(pointer.low, (0, False))
        if width != wide:
            raise Forbidden(f"{what} of {width} bytes at {pointer}, which is no field of it")
        if writing and not writable:
            raise Forbidden(f"write to {pointer}, a field that is for reading only")

    def _check_state(self, pointer: Pointer, width: int, what: str) -> None:
        if pointer.low < 0 or pointer.high + width > self.state_size:
            raise Forbidden(
                f"{what} of {width} bytes at {pointer}, outside its {self.state_size} bytes"
            )

    @staticmethod
    def _stack_offset(pointer: Pointer, width: int, what: str) -> int:
        if pointer.low != pointer.high:
            raise Forbidden(f"{what} at a place on the stack that varies: {pointer}")
        at = pointer.low + STACK_SIZE
        if not 0 <= at <= STACK_SIZE - width:
            raise Forbidden(
                f"{what} of {width} bytes at {pointer}, outside the frame's {STACK_SIZE} bytes"
            )
        return at
