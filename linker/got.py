"""Position-independent C code without a global offset table: what GNU ld calls relaxing.

GCC's -fPIC code finds its data from `_GLOBAL_OFFSET_TABLE_`, which stands for the
place of a table of addresses. Such a table would hold absolute addresses, and an image
that is not told where it will lie has no use for them; so the instructions that read it
are rewritten to compute the address instead, as GNU ld does (psABI for i386, appendix
B.2, "Optimize GOTPCRELX Relocations"). The place itself stays, as three empty words in
`.got.plt`, because distances are counted from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from linker.objects import (
    Binding,
    ObjectFile,
    RelocationKind,
    Section,
    SectionFlag,
    Symbol,
    SymbolKind,
)

__all__ = ["GOT_SYMBOL", "Relaxed", "relax", "table_object"]

GOT_SYMBOL = "_GLOBAL_OFFSET_TABLE_"
_SECTION = ".got.plt"
_SIZE = 12
"""GNU ld reserves three words for a dynamic linker."""

_MOV, _LEA, _TEST, _GROUP_5 = 0x8B, 0x8D, 0x85, 0xFF
_NO_BASE = 5
"""The ModRM byte of a plain address, its reg field left out."""
_CALL, _JMP = 2, 4
"""What group 5 does, by the reg field of its ModRM byte."""


@dataclass(frozen=True, slots=True)
class Relaxed:
    """What is left to fill in: a field at `shift` from where it was."""

    kind: RelocationKind
    addend: int = 0
    shift: int = 0


def table_object(objects: Sequence[ObjectFile]) -> tuple[int, ObjectFile] | None:
    """The table, as an object that comes after the first one that refers to it; its index."""
    for number, obj in enumerate(objects, 1):
        if any(symbol.name == GOT_SYMBOL and not symbol.defined for symbol in obj.symbols):
            section = Section(_SECTION, SectionFlag.ALLOC, bytes(_SIZE), _SIZE, 4)
            symbol = Symbol(GOT_SYMBOL, section, 0, Binding.GLOBAL, SymbolKind.OBJECT, _SIZE)
            return number, ObjectFile(obj.name, [section], [symbol])
    return None


def relax(data: bytearray, offset: int, kind: RelocationKind, *, absolute: bool) -> Relaxed | None:
    """Rewrite the instruction whose GOT field is at `offset`, or None if that is impossible.

    `absolute` allows the address itself as an immediate value.
    """
    opcode, modrm = data[offset - 2], data[offset - 1]
    register = (modrm & 0x38) >> 3
    if opcode == _GROUP_5:
        return _relax_branch(data, offset, register)
    if absolute:
        return _relax_to_immediate(data, offset, kind)
    if opcode != _MOV or modrm & 0xC7 == _NO_BASE:
        return None
    data[offset - 2] = _LEA
    return Relaxed(RelocationKind.R_386_GOTOFF)


def _relax_branch(data: bytearray, offset: int, operation: int) -> Relaxed | None:
    """An indirect call or jump into a direct one, of the same length."""
    if operation == _CALL:
        data[offset - 2 : offset] = b"\x67\xe8"  # the prefix means nothing here
        return Relaxed(RelocationKind.R_386_PC32, -4)
    if operation == _JMP:
        data[offset - 2] = 0xE9
        data[offset + 3] = 0x90
        return Relaxed(RelocationKind.R_386_PC32, -4, -1)
    return None


def _relax_to_immediate(data: bytearray, offset: int, kind: RelocationKind) -> Relaxed | None:
    """`op symbol@GOT(%base), %reg` into `op $symbol, %reg`."""
    opcode = data[offset - 2]
    register = (data[offset - 1] & 0x38) >> 3
    if opcode == _MOV:
        data[offset - 2 : offset] = bytes([0xC7, 0xC0 | register])
    elif kind is not RelocationKind.R_386_GOT32X:
        # An assembler that does not mark what may be rewritten: only mov is sure.
        return None
    elif opcode == _TEST:
        data[offset - 2 : offset] = bytes([0xF7, 0xC0 | register])
    elif opcode & 0xC7 == 0x03:  # add, or, adc, sbb, and, sub, xor, cmp
        data[offset - 2 : offset] = bytes([0x81, 0xC0 | register | (opcode & 0x38)])
    else:
        return None
    return Relaxed(RelocationKind.R_386_32)
