"""What one instruction does to the abstract machine."""

from dataclasses import replace

from vmm.filters.abstract import AbstractState, Forbidden, Frame, Pointer, Region, Value
from vmm.filters.context import MOST_FRAMES, Verdict
from vmm.filters.isa import (
    FRAME_POINTER,
    STATE_SOURCE,
    AluOp,
    AtomicOp,
    Instruction,
    InstructionClass,
    JumpOp,
    Mode,
)
from vmm.filters.scalar import (
    UNKNOWN,
    Scalar,
    compute,
    constant,
    narrow,
    refine,
    to_signed,
    unsigned,
)

__all__ = ["Successor", "step"]

Successor = tuple[int, AbstractState]
_FARTHEST = 1 << 29
"""No address is moved by more: far beyond every region, and no sum overflows."""
_CALLEE_SAVED = slice(6, 10)


def step(state: AbstractState, index: int, one: Instruction) -> list[Successor]:
    """Where a program may go on and how things then stand; nowhere at its end.

    Changes `state`, which must not be used again. Raises `Forbidden`.
    """
    if one.is_jump:
        return _jump(state, index, one)
    if one.is_arithmetic:
        _set(state, one.dst, _arithmetic(state, one))
    elif one.is_wide:
        value: Value = constant(one.imm)
        if one.src == STATE_SOURCE:
            place = one.imm >> 32
            value = Pointer(Region.STATE, place, place)
        _set(state, one.dst, value)
        return [(index + 2, state)]
    else:
        _memory(state, one)
    return [(index + 1, state)]


def _set(state: AbstractState, register: int, value: Value) -> None:
    if register == FRAME_POINTER:
        raise Forbidden("r10 is for reading only")
    state.registers[register] = value


# ---- arithmetic


def _arithmetic(state: AbstractState, one: Instruction) -> Value:
    operation = AluOp(one.operation)
    bits = 64 if one.kind == InstructionClass.ALU64 else 32
    if operation == AluOp.MOV:
        return _move(state, one, bits)
    if operation == AluOp.END:
        return _swapped(state.number(one.dst, "to swap bytes of"), one)
    if operation == AluOp.NEG:
        return compute(AluOp.SUB, constant(0), state.number(one.dst, "to negate"), bits)
    left = state.read(one.dst)
    right = state.read(one.src) if one.from_register else constant(one.imm)
    if isinstance(left, Pointer) or isinstance(right, Pointer):
        return _move_address(operation, left, right, bits)
    if operation in {AluOp.LSH, AluOp.RSH, AluOp.ARSH} and not one.from_register:
        _check_shift(one.imm, bits)
    if operation in {AluOp.DIV, AluOp.MOD} and not one.from_register and one.imm == 0:
        raise Forbidden("division by the number zero")
    return compute(operation, left, right, bits, signed=bool(one.offset))


def _check_shift(count: int, bits: int) -> None:
    if not 0 <= count < bits:
        raise Forbidden(f"shift by {count} bits, expected 0 to {bits - 1}")


def _move(state: AbstractState, one: Instruction, bits: int) -> Value:
    value = state.read(one.src) if one.from_register else constant(one.imm)
    if isinstance(value, Pointer):
        if bits == 32 or one.offset:
            raise Forbidden(f"part of an address in {value} would become a number")
        return value
    if not one.offset:
        return narrow(value, bits)
    low = narrow(value, one.offset)
    if low.is_constant:
        return narrow(constant(to_signed(low.low, one.offset)), bits)
    # Positive numbers stay as they are; of others nothing is said.
    return low if low.high < 1 << (one.offset - 1) else narrow(UNKNOWN, bits)


def _swapped(value: Scalar, one: Instruction) -> Scalar:
    little = one.kind == InstructionClass.ALU and not one.from_register
    low = narrow(value, one.imm)
    if little:
        return low
    if low.is_constant:
        return constant(int.from_bytes(low.low.to_bytes(one.imm // 8, "little"), "big"))
    return unsigned(0, (1 << one.imm) - 1)


def _move_address(operation: AluOp, left: Value, right: Value, bits: int) -> Pointer:
    if operation == AluOp.ADD and isinstance(right, Pointer) and isinstance(left, Scalar):
        left, right = right, left
    if bits == 32 or not isinstance(left, Pointer) or operation not in {AluOp.ADD, AluOp.SUB}:
        raise Forbidden("arithmetic on an address, expected only that a number is added to it")
    if isinstance(right, Pointer):
        raise Forbidden("arithmetic on two addresses")
    if right.is_constant:
        low = high = to_signed(right.low, 64)
    else:
        low, high = right.low, right.high
    if operation == AluOp.SUB:
        low, high = -high, -low
    if max(abs(low), abs(high), abs(left.low + low), abs(left.high + high)) > _FARTHEST:
        raise Forbidden(f"a number without bound is added to an address in {left}")
    return replace(left, low=left.low + low, high=left.high + high)


# ---- memory


def _at(pointer: Pointer, offset: int) -> Pointer:
    return replace(pointer, low=pointer.low + offset, high=pointer.high + offset)


def _memory(state: AbstractState, one: Instruction) -> None:
    width = one.width
    if one.kind == InstructionClass.LDX:
        found = state.load(_at(state.address(one.src), one.offset), width)
        if one.mode == Mode.MEMSX:
            if isinstance(found, Pointer):
                raise Forbidden("part of an address would become a number")
            found = UNKNOWN
        _set(state, one.dst, found)
        return
    place = _at(state.address(one.dst), one.offset)
    if one.kind == InstructionClass.ST:
        state.store(place, width, constant(one.imm))
    elif one.mode == Mode.MEM:
        value = state.read(one.src)
        if isinstance(value, Scalar):
            value = narrow(value, 8 * width)
        state.store(place, width, value)
    else:
        _atomic(state, one, place)


def _atomic(state: AbstractState, one: Instruction, place: Pointer) -> None:
    width = one.width
    if place.region is Region.CONTEXT:
        raise Forbidden("atomic operation on the context")
    if place.low != place.high or place.low % width:
        raise Forbidden(f"atomic operation at {place}, expected a multiple of {width} bytes")
    state.number(one.src, "for an atomic operation")
    if one.imm == AtomicOp.CMPXCHG:
        state.number(0, "to compare with")
    if isinstance(state.load(place, width), Pointer):
        raise Forbidden("atomic operation on an address")
    anything = unsigned(0, (1 << 8 * width) - 1)
    state.store(place, width, anything)
    if one.imm == AtomicOp.CMPXCHG:
        _set(state, 0, anything)
    elif one.imm & AtomicOp.FETCH:
        _set(state, one.src, anything)


# ---- jumps


def _jump(state: AbstractState, index: int, one: Instruction) -> list[Successor]:
    operation = JumpOp(one.operation)
    if operation == JumpOp.EXIT:
        return _exit(state)
    if operation == JumpOp.CALL:
        return _call(state, index, one)
    if operation == JumpOp.JA:
        return [(one.target(index), state)]
    left = state.number(one.dst, "to compare")
    right = state.number(one.src, "to compare") if one.from_register else constant(one.imm)
    bits = 64 if one.kind == InstructionClass.JMP else 32
    if bits == 32 and not one.from_register:
        right = narrow(right, 32)
    successors = []
    for target, taken in ((index + 1, False), (one.target(index), True)):
        known = refine(operation, left, right, bits, taken=taken)
        if known is None:
            continue
        after = state.copy()
        after.registers[one.dst] = known[0]
        if one.from_register:
            after.registers[one.src] = known[1]
        successors.append((target, after))
    return successors


def _call(state: AbstractState, index: int, one: Instruction) -> list[Successor]:
    if len(state.frames) == MOST_FRAMES:
        raise Forbidden(f"more than {MOST_FRAMES} functions under way at once")
    registers = state.registers
    saved = tuple(registers[_CALLEE_SAVED])
    registers[_CALLEE_SAVED] = [None] * len(saved)
    registers[0] = None
    registers[FRAME_POINTER] = Pointer(Region.STACK, frame=len(state.frames))
    state.frames.append(Frame(returns_to=index + 1, saved=saved))
    return [(one.target(index), state)]


def _exit(state: AbstractState) -> list[Successor]:
    result = state.read(0)
    if isinstance(result, Pointer):
        raise Forbidden(f"r0 is an address in {result} at the end, expected a number")
    if len(state.frames) > 1:
        frame = state.frames.pop()
        state.registers[1:6] = [None] * 5
        state.registers[_CALLEE_SAVED] = frame.saved
        state.registers[FRAME_POINTER] = Pointer(Region.STACK, frame=len(state.frames) - 1)
        return [(frame.returns_to, state)]
    if result.high > Verdict.ANSWERED:
        raise Forbidden(
            f"r0 may be {result.high:#x} at the end, expected 0 (ask the device) or 1 (answered)"
        )
    return []
