"""What is known of a 64-bit number without running the program: its range and its bits.

A range of unsigned values beside a *tnum* (known bits: `value` where `mask` is 0), as in
Vishwanathan, Shachnai, Narayana, Nagarakatte, "Sound, Precise, and Fast Abstract
Interpretation with Tristate Numbers", CGO 2022. Each narrows the other.
"""

from dataclasses import dataclass

from vmm.filters.isa import AluOp, JumpOp

__all__ = ["U32", "U64", "UNKNOWN", "Scalar", "compute", "constant", "narrow", "refine", "unsigned"]

U32 = (1 << 32) - 1
U64 = (1 << 64) - 1
_SIGN64 = 1 << 63
_SIGN32 = 1 << 31


@dataclass(frozen=True, slots=True)
class Scalar:
    """All numbers from `low` to `high` whose bits outside `mask` are those of `value`."""

    low: int
    high: int
    value: int
    mask: int

    @property
    def is_constant(self) -> bool:
        """Is there just one such number?"""
        return self.low == self.high

    def holds(self, number: int) -> bool:
        """Is this one of them?"""
        return self.low <= number <= self.high and number & ~self.mask == self.value

    def includes(self, other: "Scalar") -> bool:
        """Is every number of `other` one of these?"""
        return (
            self.low <= other.low
            and other.high <= self.high
            and not other.mask & ~self.mask
            and other.value & ~self.mask == self.value
        )


UNKNOWN = Scalar(0, U64, 0, U64)


def constant(number: int) -> Scalar:
    """One number, given signed or unsigned."""
    number &= U64
    return Scalar(number, number, number, 0)


def unsigned(low: int, high: int) -> Scalar:
    """The numbers from `low` to `high`."""
    return _make(low, high)


def _tighten(low: int, high: int, value: int, mask: int) -> Scalar | None:
    """Let range and bits narrow each other; none if nothing satisfies both."""
    low, high = max(low, value), min(high, value | mask)
    if low > high:
        return None
    loose = (1 << (low ^ high).bit_length()) - 1
    # The bits in front of the first that differs are the same all through the range.
    if (value ^ low) & ~mask & ~loose & U64:
        return None
    value |= low & ~loose & mask
    mask &= loose
    return Scalar(max(low, value), min(high, value | mask), value, mask)


def _make(low: int, high: int, value: int = 0, mask: int = U64) -> Scalar:
    if low < 0 or high > U64:
        low, high = 0, U64
    found = _tighten(low, high, value & ~mask & U64, mask & U64)
    return UNKNOWN if found is None else found


def narrow(a: Scalar, bits: int) -> Scalar:
    """The lowest `bits` of a number, the others zero."""
    top = (1 << bits) - 1
    if a.high <= top:
        return a
    low, high = 0, top
    if a.low >> bits == a.high >> bits:
        low, high = a.low & top, a.high & top
    return _make(low, high, a.value & top, a.mask & top)


def compute(operation: AluOp, a: Scalar, b: Scalar, bits: int, *, signed: bool = False) -> Scalar:
    """The result of an operation on `bits` bits, 32 or 64; what comes out is zero-extended.

    `signed` chooses the signed division.
    """
    if bits == 32:
        a, b = narrow(a, 32), narrow(b, 32)
    if a.is_constant and b.is_constant:
        return constant(_exactly(operation, a.low, b.low, bits, signed=signed))
    found = _bounds(operation, a, b, bits, signed=signed)
    return narrow(found, bits)


def to_signed(number: int, bits: int) -> int:
    """A number's value in two's complement."""
    sign = 1 << (bits - 1)
    return (number & (sign - 1)) - (number & sign)


def _exactly(operation: AluOp, a: int, b: int, bits: int, *, signed: bool) -> int:
    top = (1 << bits) - 1
    match operation:
        case AluOp.ADD:
            result = a + b
        case AluOp.SUB:
            result = a - b
        case AluOp.MUL:
            result = a * b
        case AluOp.DIV | AluOp.MOD:
            result = _divide(operation, a, b, bits, signed=signed)
        case AluOp.OR:
            result = a | b
        case AluOp.AND:
            result = a & b
        case AluOp.XOR:
            result = a ^ b
        case AluOp.LSH:
            result = a << (b & (bits - 1))
        case AluOp.RSH:
            result = a >> (b & (bits - 1))
        case AluOp.ARSH:
            result = to_signed(a, bits) >> (b & (bits - 1))
        case _:
            raise ValueError(f"{operation.name} has not two operands")
    return result & top


def _divide(operation: AluOp, a: int, b: int, bits: int, *, signed: bool) -> int:
    """Division as RFC 9669 has it: by zero gives 0, and leaves the dividend as remainder."""
    if b == 0:
        return 0 if operation == AluOp.DIV else a
    if not signed:
        return a // b if operation == AluOp.DIV else a % b
    x, y = to_signed(a, bits), to_signed(b, bits)
    quotient = abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)
    return quotient if operation == AluOp.DIV else x - quotient * y


def _bounds(operation: AluOp, a: Scalar, b: Scalar, bits: int, *, signed: bool) -> Scalar:
    match operation:
        case AluOp.ADD:
            sum_value, sum_mask = a.value + b.value, a.mask + b.mask
            unsure = ((sum_value + sum_mask) ^ sum_value) | a.mask | b.mask
            return _make(a.low + b.low, a.high + b.high, sum_value, unsure)
        case AluOp.SUB:
            value = a.value - b.value
            unsure = ((value + a.mask) ^ (value - b.mask)) | a.mask | b.mask
            return _make(a.low - b.high, a.high - b.low, value, unsure)
        case AluOp.MUL:
            return _make(a.low * b.low, a.high * b.high)
        case AluOp.AND:
            ones = a.value & b.value
            return _make(0, min(a.high, b.high), ones, (a.value | a.mask) & (b.value | b.mask))
        case AluOp.OR:
            ones = a.value | b.value
            return _make(max(a.low, b.low), U64, ones, (a.mask | b.mask) & ~ones)
        case AluOp.XOR:
            unsure = a.mask | b.mask
            return _make(0, U64, a.value ^ b.value, unsure)
        case AluOp.DIV | AluOp.MOD:
            return _divided(operation, a, b, signed=signed)
        case _:
            return _shifted(operation, a, b, bits)


def _divided(operation: AluOp, a: Scalar, b: Scalar, *, signed: bool) -> Scalar:
    if signed:
        return UNKNOWN
    if operation == AluOp.DIV:
        # By zero gives zero, which is no more than any quotient.
        return _make(a.low // b.high if b.low else 0, a.high // max(b.low, 1))
    if b.low and a.high < b.low:
        return a
    return _make(0, min(a.high, b.high - 1) if b.low else a.high)


def _shifted(operation: AluOp, a: Scalar, b: Scalar, bits: int) -> Scalar:
    if not b.is_constant:
        few = b.high < bits
        if operation == AluOp.RSH:
            return _make(a.low >> b.high if few else 0, a.high >> b.low if few else a.high)
        return UNKNOWN
    count = b.low & (bits - 1)
    if operation == AluOp.LSH:
        return _make(a.low << count, a.high << count, a.value << count, a.mask << count)
    if operation == AluOp.RSH:
        return _make(a.low >> count, a.high >> count, a.value >> count, a.mask >> count)
    sign = 1 << (bits - 1)
    return _shifted(AluOp.RSH, a, b, bits) if a.high < sign else UNKNOWN


def refine(
    operation: JumpOp, a: Scalar, b: Scalar, bits: int, *, taken: bool
) -> tuple[Scalar, Scalar] | None:
    """What is known of both operands once a comparison has come out; none if it cannot."""
    if bits == 32 and (a.high > U32 or b.high > U32):
        # The upper halves do not take part: only the outcome's possibility is known.
        low_a, low_b = narrow(a, 32), narrow(b, 32)
        return None if refine(operation, low_a, low_b, 32, taken=taken) is None else (a, b)
    if not taken:
        if operation == JumpOp.JSET:
            return _without_bits(a, b)
        operation = _OPPOSITE[operation]
    match operation:
        case JumpOp.JEQ:
            low, high = max(a.low, b.low), min(a.high, b.high)
            if (a.value ^ b.value) & ~a.mask & ~b.mask:
                return None
            both = _tighten(low, high, a.value | b.value, a.mask & b.mask)
            return None if both is None else (both, both)
        case JumpOp.JNE:
            return _unequal(a, b)
        case JumpOp.JSET:
            return None if not (a.value | a.mask) & (b.value | b.mask) else (a, b)
        case JumpOp.JGT:
            return _pair(_above(a, b.low + 1), _below(b, a.high - 1))
        case JumpOp.JGE:
            return _pair(_above(a, b.low), _below(b, a.high))
        case JumpOp.JLT:
            return _pair(_below(a, b.high - 1), _above(b, a.low + 1))
        case JumpOp.JLE:
            return _pair(_below(a, b.high), _above(b, a.low))
        case _:
            return _refine_signed(operation, a, b, _SIGN64 if bits == 64 else _SIGN32)


_OPPOSITE = {
    JumpOp.JEQ: JumpOp.JNE,
    JumpOp.JNE: JumpOp.JEQ,
    JumpOp.JGT: JumpOp.JLE,
    JumpOp.JGE: JumpOp.JLT,
    JumpOp.JLT: JumpOp.JGE,
    JumpOp.JLE: JumpOp.JGT,
    JumpOp.JSGT: JumpOp.JSLE,
    JumpOp.JSGE: JumpOp.JSLT,
    JumpOp.JSLT: JumpOp.JSGE,
    JumpOp.JSLE: JumpOp.JSGT,
}
_UNSIGNED = {
    JumpOp.JSGT: JumpOp.JGT,
    JumpOp.JSGE: JumpOp.JGE,
    JumpOp.JSLT: JumpOp.JLT,
    JumpOp.JSLE: JumpOp.JLE,
}


def _pair(a: Scalar | None, b: Scalar | None) -> tuple[Scalar, Scalar] | None:
    return None if a is None or b is None else (a, b)


def _above(a: Scalar, least: int) -> Scalar | None:
    return _tighten(max(a.low, least), a.high, a.value, a.mask) if least <= U64 else None


def _below(a: Scalar, most: int) -> Scalar | None:
    return _tighten(a.low, min(a.high, most), a.value, a.mask) if most >= 0 else None


def _without_bits(a: Scalar, b: Scalar) -> tuple[Scalar, Scalar] | None:
    """JSET was not taken: of a known mask, every bit is clear."""
    if a.value & b.value:
        return None
    if not b.is_constant:
        return a, b
    return _pair(_tighten(a.low, a.high, a.value, a.mask & ~b.low), b)


def _unequal(a: Scalar, b: Scalar) -> tuple[Scalar, Scalar] | None:
    if a.is_constant and b.is_constant:
        return None if a.low == b.low else (a, b)
    if b.is_constant:
        return _pair(_trim(a, b.low), b)
    if a.is_constant:
        return _pair(a, _trim(b, a.low))
    return a, b


def _trim(a: Scalar, number: int) -> Scalar | None:
    """Without a number at one of its ends."""
    if number == a.low:
        return _above(a, number + 1)
    return _below(a, number - 1) if number == a.high else a


def _refine_signed(
    operation: JumpOp, a: Scalar, b: Scalar, sign: int
) -> tuple[Scalar, Scalar] | None:
    """Signed comparisons: exact where the signs are known, else nothing is learnt."""
    a_signs = {bool(a.low & sign), bool(a.high & sign)}
    b_signs = {bool(b.low & sign), bool(b.high & sign)}
    if a_signs == b_signs and len(a_signs) == 1:
        # Of one sign, two's complement orders as unsigned numbers do.
        return refine(_UNSIGNED[operation], a, b, 64, taken=True)
    if len(a_signs) == 1 and len(b_signs) == 1:
        greater = operation in {JumpOp.JSGT, JumpOp.JSGE}
        return (a, b) if greater == (b_signs == {True}) else None
    if b_signs == {False} and operation in {JumpOp.JSGT, JumpOp.JSGE}:
        # At least as large as a number that is not negative: not negative either.
        positive = _below(a, sign - 1)
        return (
            None if positive is None else refine(_UNSIGNED[operation], positive, b, 64, taken=True)
        )
    return a, b
