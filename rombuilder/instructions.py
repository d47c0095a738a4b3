"""Instructions: prefixes and branches are encoded here, all else by Keystone.

Branches are ours because their length depends on the layout. The rest goes to
Keystone one instruction at a time, with every expression replaced by a number,
or by a field to be filled in later: that is how references to symbols are found
and how an error gets its line. Encodings that Keystone 0.9.2 lacks or gets wrong
are in the tables; the tests compare both with the GNU assembler.
"""

import re

from rombuilder.encoder import Encoder
from rombuilder.errors import AssemblyError, EncoderError
from rombuilder.expression import Expression
from rombuilder.fragments import Branch
from rombuilder.operands import Operand, OperandKind, parse_operand
from rombuilder.source_text import Statement, split_arguments
from rombuilder.unit import Unit

__all__ = ["assemble_instruction"]

_PREFIXES = {
    "lock": 0xF0,
    "rep": 0xF3,
    "repe": 0xF3,
    "repz": 0xF3,
    "repne": 0xF2,
    "repnz": 0xF2,
    "es": 0x26,
    "cs": 0x2E,
    "ss": 0x36,
    "ds": 0x3E,
    "fs": 0x64,
    "gs": 0x65,
}

_REPEATS = (b"\xf0", b"\xf2", b"\xf3")
_OPERAND_SIZE = b"\x66"

_CONDITIONS = {
    name: code
    for code, names in enumerate(
        (
            "o", "no", "b c nae", "ae nb nc", "e z", "ne nz", "be na", "a nbe",
            "s", "ns", "p pe", "np po", "l nge", "ge nl", "le ng", "g nle",
        )
    )
    for name in names.split()
}  # fmt: skip

# Short form, near form; empty where there is none.
_BRANCHES: dict[str, tuple[bytes, bytes]] = {
    "jmp": (b"\xeb", b"\xe9"),
    "call": (b"", b"\xe8"),
    "loopne": (b"\xe0", b""),
    "loopnz": (b"\xe0", b""),
    "loope": (b"\xe1", b""),
    "loopz": (b"\xe1", b""),
    "loop": (b"\xe2", b""),
    **{
        f"j{name}": (bytes([0x70 + code]), bytes([0x0F, 0x80 + code]))
        for name, code in _CONDITIONS.items()
    },
}
# The count register's size is the address size; 67 selects the other one.
_COUNT_BRANCHES = {
    ("jecxz", 32): b"\xe3",
    ("jcxz", 32): b"\x67\xe3",
    ("jcxz", 16): b"\xe3",
    ("jecxz", 16): b"\x67\xe3",
}
_SUFFIXED = {"jmpl": ("jmp", 32), "calll": ("call", 32), "jmpw": ("jmp", 16), "callw": ("call", 16)}

_FAR = {"ljmp": 0xEA, "ljmpl": 0xEA, "ljmpw": 0xEA, "lcall": 0x9A, "lcalll": 0x9A, "lcallw": 0x9A}

_FIXED = {
    "vmrun": b"\x0f\x01\xd8",
    "retf": b"\xcb",
}

# Keystone encodes these two as a prefetch.
_REFUSED = {
    "nopl": "Keystone cannot encode nopl; .balign makes long no-operations",
    "nopw": "Keystone cannot encode nopw; .balign makes long no-operations",
}

_SEGMENT_REGISTERS = frozenset({"%es", "%cs", "%ss", "%ds", "%fs", "%gs"})
_WIDE = {f"%{name}": f"%e{name}" for name in ("ax", "bx", "cx", "dx", "si", "di", "sp", "bp")}

_REASONS = {
    "KS_ERR_ASM_MNEMONICFAIL": "unknown mnemonic, or one that does not take these operands",
    "KS_ERR_ASM_INVALIDOPERAND": "invalid operands",
}
# Keystone never returns from some texts that are no instructions, such as a lone "*".
_MNEMONIC = re.compile(r"[a-z][a-z0-9]*$")
_ADDRESS = re.compile(r"\*?(%[a-z]s:)?(\(\s*(%[a-z]+)?\s*(,\s*%[a-z]+\s*(,\s*\d)?)?\s*\))?$")
_ERROR_NAME = re.compile(r"KS_ERR_\w+")


def assemble_instruction(unit: Unit, encoder: Encoder, statement: Statement) -> None:
    """Append one instruction, prefixes included, to the unit's section.

    Raises `AssemblyError` with the statement's place.
    """
    text = statement.text
    last = b""
    while True:
        word, _, rest = text.replace("\t", " ").partition(" ")
        if word not in _PREFIXES:
            break
        last = bytes([_PREFIXES[word]])
        unit.emit(last, statement.origin)
        text = rest.strip()
        if not text:
            return
    mnemonic = word.lower()
    if not _MNEMONIC.match(mnemonic):
        raise AssemblyError(statement.origin, f"{word!r} is no instruction: {statement.text}")
    operands = [parse_operand(operand) for operand in split_arguments(rest)]
    if mnemonic in _REFUSED:
        raise AssemblyError(statement.origin, _REFUSED[mnemonic])
    tail = unit.section.tail()
    start = len(tail.data)
    if mnemonic in _FIXED and not operands:
        unit.emit(_FIXED[mnemonic], statement.origin)
    elif not _branch(unit, statement, mnemonic, operands) and not _far(
        unit, statement, mnemonic, operands
    ):
        _encode(unit, encoder, statement, mnemonic, operands)
    if last in _REPEATS and tail.data[start : start + 1] == _OPERAND_SIZE:
        # GNU as has the operand size first.
        tail.data[start - 1 : start + 1] = _OPERAND_SIZE + last


def _branch(unit: Unit, statement: Statement, mnemonic: str, operands: list[Operand]) -> bool:
    if len(operands) != 1 or operands[0].kind is not OperandKind.MEMORY:
        return False
    target = operands[0]
    if target.indirect or target.suffix or target.prefix:
        return False
    name, mode = _SUFFIXED.get(mnemonic, (mnemonic, unit.mode))
    if mode != unit.mode:
        raise AssemblyError(
            statement.origin, f"{mnemonic} is not supported in {unit.mode}-bit code"
        )
    if name in _BRANCHES:
        short, near = _BRANCHES[name]
    elif (name, unit.mode) in _COUNT_BRANCHES:
        short, near = _COUNT_BRANCHES[name, unit.mode], b""
    else:
        return False
    expression = unit.expression(target.expression, statement.origin)
    unit.emit(b"", statement.origin)
    unit.section.fragments.append(
        Branch(
            short,
            near,
            unit.mode // 8,
            expression,
            statement.origin,
            statement.text,
            is_near=not short,
        )
    )
    return True


def _far(unit: Unit, statement: Statement, mnemonic: str, operands: list[Operand]) -> bool:
    """`ljmp $selector, $offset`, which Keystone lacks in 32-bit code."""
    if mnemonic not in _FAR or len(operands) != 2:
        return False
    if any(operand.kind is not OperandKind.IMMEDIATE for operand in operands):
        raise AssemblyError(statement.origin, f"{mnemonic} takes $selector, $offset")
    size = {"l": 4, "w": 2}.get(mnemonic[5:] if mnemonic[1] == "c" else mnemonic[4:])
    width = size or unit.mode // 8
    code = bytes([_FAR[mnemonic]])
    if width != unit.mode // 8:
        code = b"\x66" + code
    selector, offset = (
        unit.expression(operand.expression, statement.origin) for operand in operands
    )
    start = len(code)
    unit.emit(
        code + bytes(width + 2),
        statement.origin,
        [(start, width, offset), (start + width, 2, selector)],
    )
    return True


def _encode(
    unit: Unit,
    encoder: Encoder,
    statement: Statement,
    mnemonic: str,
    operands: list[Operand],
) -> None:
    mnemonic, operands = _corrected(mnemonic, operands, unit.mode)
    texts: list[str] = []
    unknown: list[Expression] = []
    widths: list[tuple[int, ...]] = []
    for operand in operands:
        suffix = operand.suffix
        if operand.scale:
            suffix = suffix.format(unit.number(operand.scale, statement.origin))
        value = ""
        if operand.expression:
            expression = unit.expression(operand.expression, statement.origin)
            number = unit.known(expression)
            if number is None:
                value = f"{{{len(unknown)}}}"
                unknown.append(expression)
                widths.append(_widths(operand, unit.mode))
            else:
                value = _literal(number, operand, statement)
        _check_shape(operand, suffix, statement)
        texts.append(f"{operand.prefix}{value}{suffix}")
    template = f"{mnemonic} {', '.join(texts)}".strip()
    try:
        encoding = encoder.encode(unit.mode, template, tuple(widths))
    except EncoderError as error:
        found = _ERROR_NAME.search(str(error))
        reason = _REASONS.get(found[0] if found else "", str(error))
        raise AssemblyError(statement.origin, f"{reason}: {statement.text}") from None
    fields = [
        (offset, width, expression)
        for (offset, width), expression in zip(encoding.fields, unknown, strict=True)
    ]
    unit.emit(encoding.code, statement.origin, fields)


def _check_shape(operand: Operand, suffix: str, statement: Statement) -> None:
    """Registers are known to be well-formed; what else could be an address must be one."""
    if operand.kind is OperandKind.REGISTER:
        return
    good = bool(operand.expression)
    if operand.kind is OperandKind.MEMORY:
        good = (good or bool(suffix)) and bool(_ADDRESS.match(f"{operand.prefix}{suffix}"))
    if not good:
        wrong = f"{operand.prefix}{operand.expression}{suffix}"
        raise AssemblyError(
            statement.origin, f"malformed operand {wrong or 'nothing'}: {statement.text}"
        )


def _corrected(mnemonic: str, operands: list[Operand], mode: int) -> tuple[str, list[Operand]]:
    """What makes Keystone say what the GNU assembler says."""
    if len(operands) != 2 or operands[0].prefix not in _WIDE:
        return mnemonic, operands
    wide = Operand(OperandKind.REGISTER, prefix=_WIDE[operands[0].prefix])
    if mode == 32 and mnemonic in ("mov", "movw") and operands[1].prefix in _SEGMENT_REGISTERS:
        # A 16-bit source would cost a pointless size prefix.
        return "mov", [wide, operands[1]]
    if mnemonic in ("lar", "lsl"):
        # A 16-bit source is refused; only its low half counts anyway.
        return mnemonic, [wide, operands[1]]
    return mnemonic, operands


def _widths(operand: Operand, mode: int) -> tuple[int, ...]:
    """Widths in bytes that a field of unknown value may have, in the order to try."""
    if operand.kind is OperandKind.IMMEDIATE:
        return (4, 2, 1)
    return (4,) if mode == 32 or operand.wide_address else (2,)


def _literal(number: int, operand: Operand, statement: Statement) -> str:
    """A number as Keystone reads it in this place."""
    if not -(1 << 31) <= number < 1 << 32:
        raise AssemblyError(
            statement.origin, f"{number:#x} does not fit in 32 bits: {statement.text}"
        )
    relative = operand.kind is OperandKind.IMMEDIATE or operand.suffix
    if relative and number >= 1 << 31:
        # As a negative number it may have the short, sign-extended form.
        number -= 1 << 32
    return f"{number:#x}"
