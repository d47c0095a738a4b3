"""Directives that place data, switch sections or describe symbols."""

from collections.abc import Callable

from linker.objects import Binding, SectionFlag, SymbolKind
from rombuilder.errors import AssemblyError
from rombuilder.expression import ESCAPES, Expression, Number
from rombuilder.fragments import Align, Org, Space
from rombuilder.origin import Origin
from rombuilder.source_text import Statement, split_arguments
from rombuilder.unit import Unit

__all__ = ["assemble_directive", "check_range"]

_FLAG_LETTERS = {"a": SectionFlag.ALLOC, "w": SectionFlag.WRITE, "x": SectionFlag.EXEC}
_KINDS = {
    "function": SymbolKind.FUNCTION,
    "object": SymbolKind.OBJECT,
    "notype": SymbolKind.NOTYPE,
}


def check_range(value: int, width: int, origin: Origin) -> bytes:
    """The little-endian bytes of a value that is signed or unsigned as it likes."""
    bits = 8 * width
    if not -(1 << (bits - 1)) <= value < 1 << bits:
        raise AssemblyError(origin, f"{value:#x} does not fit in {bits} bits")
    return (value & ((1 << bits) - 1)).to_bytes(width, "little")


def _data(unit: Unit, statement: Statement, width: int) -> None:
    arguments = split_arguments(statement.rest)
    if not arguments:
        raise AssemblyError(statement.origin, f"{statement.word} without a value")
    for argument in arguments:
        expression = unit.expression(argument, statement.origin)
        value = unit.known(expression)
        if value is not None:
            unit.emit(check_range(value, width, statement.origin), statement.origin)
        else:
            unit.emit(bytes(width), statement.origin, [(0, width, expression)])


def _string(text: str, origin: Origin) -> bytes:
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        raise AssemblyError(origin, f'expected a "string", not {text}')
    body = text[1:-1]
    result = bytearray()
    position = 0
    while position < len(body):
        character = body[position]
        position += 1
        if character != "\\":
            result.append(ord(character))
            continue
        escape = body[position]
        digits = ""
        if escape in "01234567":
            while len(digits) < 3 and body[position : position + 1] in tuple("01234567"):
                digits += body[position]
                position += 1
            result.append(int(digits, 8) & 0xFF)
        elif escape in ESCAPES:
            result.append(ESCAPES[escape])
            position += 1
        elif escape == "x":
            position += 1
            while body[position : position + 1] in tuple("0123456789abcdefABCDEF"):
                digits += body[position]
                position += 1
            result.append(int(digits or "0", 16) & 0xFF)
        else:
            raise AssemblyError(origin, f"unknown escape \\{escape} in {text}")
    return bytes(result)


def _strings(unit: Unit, statement: Statement, end: bytes) -> None:
    for argument in split_arguments(statement.rest):
        unit.emit(_string(argument, statement.origin) + end, statement.origin)


def _section(unit: Unit, statement: Statement) -> None:
    arguments = split_arguments(statement.rest)
    if not arguments:
        raise AssemblyError(statement.origin, ".section without a name")
    name = arguments[0].strip('"')
    flags: SectionFlag | None = None
    if len(arguments) > 1:
        flags = SectionFlag(0)
        for letter in arguments[1].strip('"'):
            if letter not in _FLAG_LETTERS:
                raise AssemblyError(
                    statement.origin, f"unknown section flag {letter!r} in {arguments[1]}"
                )
            flags |= _FLAG_LETTERS[letter]
    kind = arguments[2].lstrip("@%") if len(arguments) > 2 else "progbits"
    if kind not in ("progbits", "nobits"):
        raise AssemblyError(statement.origin, f"unknown section type {kind!r}")
    nobits = kind == "nobits" or (len(arguments) == 2 and name.split(".")[1:2] == ["bss"])
    unit.enter(name, flags, nobits=nobits, origin=statement.origin)


def _assign(unit: Unit, statement: Statement) -> None:
    name, separator, value = statement.rest.partition(",")
    if not separator:
        raise AssemblyError(statement.origin, f"{statement.word} wants a name and a value")
    unit.assign(name.strip(), value, statement.origin)


def _align(unit: Unit, statement: Statement, *, power: bool) -> None:
    arguments = split_arguments(statement.rest)
    numbers = [unit.number(text, statement.origin) if text else None for text in arguments]
    if not numbers or numbers[0] is None:
        raise AssemblyError(statement.origin, f"{statement.word} without a boundary")
    if power and not 0 <= numbers[0] <= 31:
        raise AssemblyError(statement.origin, f"{statement.word} {numbers[0]}: expected 0 to 31")
    boundary = 1 << numbers[0] if power else numbers[0] or 1
    if boundary < 1 or boundary & (boundary - 1):
        raise AssemblyError(statement.origin, f"{boundary} is not a power of two")
    fill = numbers[1] if len(numbers) > 1 else None
    limit = numbers[2] if len(numbers) > 2 and numbers[2] is not None else boundary
    section = unit.section
    section.alignment = max(section.alignment, boundary)
    section.fragments.append(Align(boundary, fill, limit, unit.mode))


def _org(unit: Unit, statement: Statement) -> None:
    target, _, fill = statement.rest.partition(",")
    expression = unit.expression(target, statement.origin)
    value = unit.number(fill, statement.origin) if fill else 0
    unit.section.fragments.append(Org(expression, value, statement.origin))


def _space(unit: Unit, statement: Statement) -> None:
    count, _, fill = statement.rest.partition(",")
    value = unit.number(fill, statement.origin) if fill else 0
    expression = unit.expression(count, statement.origin)
    unit.section.fragments.append(
        Space(expression, check_range(value, 1, statement.origin), statement.origin)
    )


def _fill(unit: Unit, statement: Statement) -> None:
    arguments = split_arguments(statement.rest)
    if not arguments:
        raise AssemblyError(statement.origin, ".fill without a count")
    count = unit.expression(arguments[0], statement.origin)
    size = unit.number(arguments[1], statement.origin) if len(arguments) > 1 else 1
    value = unit.number(arguments[2], statement.origin) if len(arguments) > 2 else 0
    if not 1 <= size <= 8:
        raise AssemblyError(statement.origin, f".fill of {size} bytes a unit: expected 1 to 8")
    unit.section.fragments.append(
        Space(count, check_range(value, size, statement.origin), statement.origin)
    )


def _bind(unit: Unit, statement: Statement, binding: Binding) -> None:
    for name in split_arguments(statement.rest):
        unit.bindings[name] = binding


def _type(unit: Unit, statement: Statement) -> None:
    name, _, kind = statement.rest.partition(",")
    kind = kind.strip().lstrip("@%")
    if kind not in _KINDS:
        raise AssemblyError(statement.origin, f"unknown symbol type {kind!r}")
    unit.kinds[name.strip()] = _KINDS[kind]


def _size(unit: Unit, statement: Statement) -> None:
    name, _, size = statement.rest.partition(",")
    expression: Expression = unit.expression(size, statement.origin) if size else Number(0)
    unit.sizes[name.strip()] = (expression, statement.origin)


def _mode(unit: Unit, mode: int) -> None:
    unit.mode = mode


def _error(_unit: Unit, statement: Statement) -> None:
    raise AssemblyError(statement.origin, statement.rest.strip('"') or ".error")


def _plain(name: str) -> Callable[[Unit, Statement], None]:
    return lambda unit, statement: unit.enter(name, None, nobits=False, origin=statement.origin)


def _sized(width: int) -> Callable[[Unit, Statement], None]:
    return lambda unit, statement: _data(unit, statement, width)


_DIRECTIVES: dict[str, Callable[[Unit, Statement], None]] = {
    **dict.fromkeys((".byte",), _sized(1)),
    **dict.fromkeys((".word", ".short", ".hword", ".value", ".2byte"), _sized(2)),
    **dict.fromkeys((".long", ".int", ".4byte"), _sized(4)),
    **dict.fromkeys((".quad", ".8byte"), _sized(8)),
    **{name: _plain(name) for name in (".text", ".data", ".bss", ".rodata")},
    **dict.fromkeys((".asciz", ".string"), lambda u, s: _strings(u, s, b"\0")),
    ".ascii": lambda u, s: _strings(u, s, b""),
    ".section": _section,
    **dict.fromkeys((".set", ".equ"), _assign),
    ".balign": lambda u, s: _align(u, s, power=False),
    ".p2align": lambda u, s: _align(u, s, power=True),
    ".org": _org,
    **dict.fromkeys((".space", ".skip", ".zero"), _space),
    ".fill": _fill,
    **dict.fromkeys((".global", ".globl"), lambda u, s: _bind(u, s, Binding.GLOBAL)),
    ".weak": lambda u, s: _bind(u, s, Binding.WEAK),
    # Undefined symbols are external without being declared.
    ".extern": lambda _u, _s: None,
    ".type": _type,
    ".size": _size,
    ".code16": lambda u, _s: _mode(u, 16),
    ".code32": lambda u, _s: _mode(u, 32),
    ".error": _error,
}


def assemble_directive(unit: Unit, statement: Statement) -> None:
    """Carry out one directive; raises `AssemblyError`."""
    handler = _DIRECTIVES.get(statement.word)
    if handler is None:
        raise AssemblyError(statement.origin, f"unknown directive {statement.word}")
    handler(unit, statement)
