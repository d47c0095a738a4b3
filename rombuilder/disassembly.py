"""The code behind a ROM's calls, as text."""

import bisect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import capstone
import lief
from capstone import x86

from rombuilder.errors import BuildError

__all__ = ["Instruction", "Routine", "disassemble", "read_symbols"]

_MOST = 256
"""Instructions of one routine that are shown."""
_ENDS = frozenset(
    {
        *(x86.X86_INS_RET, x86.X86_INS_RETF, x86.X86_INS_JMP, x86.X86_INS_LJMP, x86.X86_INS_UD2),
        *(x86.X86_INS_IRET, x86.X86_INS_IRETD, x86.X86_INS_SYSEXIT),
    }
)
_FIRST_RESERVED = 0xFF00
"""Section indices from here on mean something else: plain numbers, for one."""
_SYMBOL_TYPES = ("FUNC", "OBJECT", "NOTYPE")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction at an offset into the image, in AT&T syntax, its target named."""

    offset: int
    code: bytes
    text: str


@dataclass(frozen=True, slots=True)
class Routine:
    """A piece of code and the names by which it is known."""

    offset: int
    names: tuple[str, ...]
    instructions: tuple[Instruction, ...]


class _Names:
    def __init__(self, places: Mapping[str, int]) -> None:
        pairs = sorted((offset, name) for name, offset in places.items())
        self._offsets = [offset for offset, _ in pairs]
        self._names = [name for _, name in pairs]

    def of(self, offset: int) -> str:
        index = bisect.bisect_right(self._offsets, offset) - 1
        if index < 0:
            return ""
        distance = offset - self._offsets[index]
        return self._names[index] + (f"+{distance:#x}" if distance else "")


def disassemble(
    image: bytes, routines: Mapping[str, int], symbols: Mapping[str, int]
) -> list[Routine]:
    """Each routine from its offset to where control leaves it for good, by offset.

    Routines at one offset are shown once, under all their names. `symbols` are
    further names of places in the image.
    """
    names = _Names({**routines, **symbols})
    at: dict[int, list[str]] = {}
    for name, offset in routines.items():
        at.setdefault(offset, []).append(name)
    for name, offset in symbols.items():
        if offset in at and name not in at[offset]:
            at[offset].append(name)
    return [
        Routine(offset, tuple(known), tuple(_instructions(image, offset, names)))
        for offset, known in sorted(at.items())
    ]


def _instructions(image: bytes, start: int, names: _Names) -> Iterator[Instruction]:
    """Straight on, until an end that no earlier branch jumps over.

    A jump that comes first, as in the entries at fixed offsets, is followed.
    """
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
    decoder.syntax = capstone.CS_OPT_SYNTAX_ATT
    decoder.detail = True
    farthest = start
    for raw in decoder.disasm(image[start:], start, _MOST):
        target = _target(raw)
        text = f"{raw.mnemonic} {raw.op_str}".strip()
        if target is not None:
            inside = 0 <= target < len(image)
            text = f"{raw.mnemonic} {target:#x}" + (f" <{names.of(target)}>" if inside else "")
        yield Instruction(raw.address, bytes(raw.bytes), text)
        if raw.id == x86.X86_INS_JMP and raw.address == start and target is not None:
            if start < target < len(image):
                yield from _instructions(image, target, names)
            return
        if raw.id in _ENDS:
            if raw.address + raw.size > farthest:
                return
        elif target is not None and x86.X86_GRP_CALL not in raw.groups:
            farthest = max(farthest, target)


def _target(raw: capstone.CsInsn) -> int | None:
    """Where a branch goes that says so itself."""
    if not {x86.X86_GRP_JUMP, x86.X86_GRP_CALL} & set(raw.groups):
        return None
    operand = raw.operands[0] if raw.operands else None
    if operand is None or operand.type != x86.X86_OP_IMM:
        return None
    target: int = operand.imm & 0xFFFFFFFF
    return target


def read_symbols(path: Path) -> dict[str, int]:
    """The named places of an ELF file linked at the image's start; raises `BuildError`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BuildError(f"{path}: {error.strerror}") from error
    binary = lief.ELF.parse(list(data)) if data[:4] == b"\x7fELF" else None
    if binary is None:
        raise BuildError(f"{path}: not an ELF file")
    base = min((segment.virtual_address for segment in binary.segments), default=0)
    return {
        str(symbol.name): symbol.value - base
        for symbol in binary.symtab_symbols
        if symbol.name and symbol.type.name in _SYMBOL_TYPES and symbol.shndx < _FIRST_RESERVED
    }
