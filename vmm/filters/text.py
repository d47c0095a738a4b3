"""A small assembler for port filters, in the syntax of LLVM's and the GNU assembler.

        .section "port/0x80"
    read:
        r2 = state ll
        r0 = *(u32 *)(r2 + 0)
        exit
        .bss
    state:
        .zero 4

The section names the ports whose reads the program sees; .data and .bss are its state.
What those assemblers accept gives the same bytes here; names in place of numbers are
accepted everywhere.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

from vmm.filters.isa import (
    STATE_SOURCE,
    AluOp,
    AtomicOp,
    Instruction,
    InstructionClass,
    JumpOp,
    Mode,
    Size,
)
from vmm.filters.listing import ALU_SIGNS, ATOMIC_NAMES, JUMP_SIGNS
from vmm.filters.program import BadFilter, FilterProgram, PortRange, parse_section

__all__ = ["assemble_text"]

_ALU = {sign: operation for operation, sign in ALU_SIGNS.items()}
_JUMP = {sign: operation for operation, sign in JUMP_SIGNS.items()}
_ATOMIC = {sign: operation for operation, (sign, _name) in ATOMIC_NAMES.items()}
_FETCH = {name: operation for operation, (_sign, name) in ATOMIC_NAMES.items()}
_SIZES = {8: Size.B, 16: Size.H, 32: Size.W, 64: Size.DW}
_BY_REGISTER = 8

_REG = r"([rw])(10|[0-9])"
_VALUE = r"([-+~\w]+)"
_PLACE = r"\(\s*r(10|[0-9])\s*([-+])\s*(\w+)\s*\)"
_BARE_PLACE = r"\(\s*r(10|[0-9])\s*([-+])\s*(\w+)\s*,"
_TYPE = r"\*\s*\(([us])(8|16|32|64)\s*\*\)\s*"
_I32 = (-(1 << 31), (1 << 32) - 1)
_I16 = (-(1 << 15), (1 << 15) - 1)


@dataclass(slots=True)
class _Fixup:
    """A jump, call or state reference whose symbol may come later."""

    index: int
    line: int
    symbol: str
    kind: str


class _Assembler:
    def __init__(self, name: str) -> None:
        self._name = name
        self._line = 0
        self._constants: dict[str, int] = {}
        self._labels: dict[str, tuple[str, int]] = {}
        self._ports: tuple[PortRange, ...] = ()
        self._code: list[Instruction | None] = []
        self._lines: list[int] = []
        self._data = bytearray()
        self._current = ""
        self._fixups: list[_Fixup] = []
        self._forms: list[tuple[re.Pattern[str], Callable[[re.Match[str]], None]]] = [
            (re.compile(pattern), handler)
            for pattern, handler in (
                (r"exit", self._exit),
                (r"goto(l?)\s+(\S+)", self._goto),
                (r"call\s+(\S+)", self._call),
                (rf"if\s+{_REG}\s*(\S+)\s+(\S+)\s+goto\s+(\S+)", self._branch),
                (rf"lock\s+{_TYPE}{_PLACE}\s*(\S)=\s*{_REG}", self._lock),
                (
                    rf"{_REG}\s*=\s*atomic_fetch_(\w+)\(\(u(32|64)\s*\*\)\s*{_PLACE},\s*{_REG}\)",
                    self._fetch,
                ),
                (rf"{_REG}\s*=\s*xchg(_64|32_32){_BARE_PLACE}\s*{_REG}\)", self._exchange),
                (
                    rf"{_REG}\s*=\s*cmpxchg(_64|32_32){_BARE_PLACE}\s*[rw]0,\s*{_REG}\)",
                    self._compare_exchange,
                ),
                (rf"{_REG}\s*=\s*{_TYPE}{_PLACE}", self._load),
                (rf"{_TYPE}{_PLACE}\s*=\s*(\S+)", self._store),
                (rf"{_REG}\s*=\s*(.+?)\s+ll", self._wide),
                (rf"{_REG}\s*=\s*(be|le|bswap)(16|32|64)\s+{_REG}", self._swap),
                (rf"{_REG}\s*=\s*-\s*{_REG}", self._negate),
                (rf"{_REG}\s*=\s*\(s(8|16|32)\)\s*{_REG}", self._extend),
                (rf"{_REG}\s*=\s*(\S+)", self._move),
                (rf"{_REG}\s*(s?[-+*/%|&^<>]+)=\s*(\S+)", self._compute),
            )
        ]

    def assemble(self, source: str) -> FilterProgram:
        for number, text in enumerate(source.splitlines(), 1):
            self._line = number
            self._statement(text.split("#")[0].split("//")[0].strip())
        if not self._code:
            raise BadFilter(f"{self._name}: no code in a section named after ports, as port/0x40")
        for fixup in self._fixups:
            self._fix(fixup)
        return FilterProgram(
            self._name, self._ports, tuple(self._code), bytes(self._data), tuple(self._lines)
        )

    def _fail(self, reason: str) -> BadFilter:
        return BadFilter(f"{self._name}:{self._line}: {reason}")

    def _statement(self, text: str) -> None:
        label = re.match(r"([A-Za-z_.]\w*)\s*:\s*(.*)", text)
        if label:
            if label[1] in self._labels or label[1] in self._constants:
                raise self._fail(f"{label[1]!r} is defined twice")
            self._labels[label[1]] = (self._current, self._here)
            text = label[2]
        if not text:
            return
        if text.startswith("."):
            self._directive(text)
            return
        if self._current != "code":
            raise self._fail("an instruction outside a section named after ports, as port/0x40")
        for pattern, handler in self._forms:
            match = pattern.fullmatch(text)
            if match:
                handler(match)
                return
        raise self._fail(f"{text!r} is no instruction")

    @property
    def _here(self) -> int:
        return len(self._code) if self._current == "code" else len(self._data)

    # ---- directives

    def _directive(self, text: str) -> None:
        name, _, rest = text.partition(" ") if " " in text else text.partition("\t")
        rest = rest.strip()
        if name in {".equ", ".set"}:
            symbol, _, value = rest.partition(",")
            self._constants[symbol.strip()] = self._number(value.strip())
        elif name in {".data", ".bss"}:
            self._current = "data"
        elif name == ".section":
            self._section(rest.split(",")[0] if '"' not in rest else rest.split('"')[1])
        elif name in {".zero", ".skip", ".space"}:
            self._emit(bytes(self._bounded(rest, (0, 1 << 16))))
        elif name in {".byte", ".short", ".long", ".quad"}:
            width = {".byte": 1, ".short": 2, ".long": 4, ".quad": 8}[name]
            for part in rest.split(","):
                number = self._number(part.strip()) & (1 << 8 * width) - 1
                self._emit(number.to_bytes(width, "little"))
        elif name not in {".globl", ".global", ".type", ".size", ".text"}:
            raise self._fail(f"directive {name} is not known")

    def _section(self, name: str) -> None:
        if name.startswith((".data", ".bss", ".rodata")):
            self._current = "data"
            return
        try:
            ports = parse_section(name)
        except BadFilter as error:
            raise self._fail(str(error)) from None
        if ports is None:
            raise self._fail(f"section {name!r}: expected one named after ports, as port/0x40")
        if self._ports:
            raise self._fail("a second program: one file holds one")
        self._ports = ports
        self._current = "code"

    def _emit(self, data: bytes) -> None:
        if self._current != "data":
            raise self._fail("data outside .data and .bss")
        self._data += data

    # ---- values

    def _number(self, text: str) -> int:
        sign = -1 if text.startswith("-") else 1
        bare = text.lstrip("+-")
        if bare in self._constants:
            return sign * self._constants[bare]
        try:
            return sign * int(bare, 0)
        except ValueError:
            raise self._fail(f"{text!r} is no number and no name of one") from None

    def _bounded(self, text: str, bounds: tuple[int, int]) -> int:
        value = self._number(text)
        if not bounds[0] <= value <= bounds[1]:
            raise self._fail(f"{text} is out of range, expected {bounds[0]} to {bounds[1]}")
        return value

    def _immediate(self, text: str) -> int:
        value = self._bounded(text, _I32)
        return value - (1 << 32) if value > 0x7FFFFFFF else value

    def _offset(self, sign: str, text: str) -> int:
        return self._bounded(f"-{text}" if sign == "-" else text, _I16)

    # ---- instructions

    def _add(self, opcode: int, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> None:
        self._code.append(Instruction(opcode, dst, src, offset, imm))
        self._lines.append(self._line)

    def _exit(self, _match: re.Match[str]) -> None:
        self._add(JumpOp.EXIT << 4 | InstructionClass.JMP)

    def _goto(self, match: re.Match[str]) -> None:
        self._refer(match[2], "far" if match[1] else "near")
        kind = InstructionClass.JMP32 if match[1] else InstructionClass.JMP
        self._add(JumpOp.JA << 4 | kind)

    def _call(self, match: re.Match[str]) -> None:
        if re.fullmatch(r"\d+", match[1]):
            self._add(JumpOp.CALL << 4 | InstructionClass.JMP, imm=self._immediate(match[1]))
            return
        self._refer(match[1], "far")
        self._add(JumpOp.CALL << 4 | InstructionClass.JMP, src=1)

    def _refer(self, symbol: str, kind: str) -> None:
        self._fixups.append(_Fixup(self._here, self._line, symbol, kind))

    def _branch(self, match: re.Match[str]) -> None:
        letter, dst, sign, operand, target = match.groups()
        if sign not in _JUMP:
            raise self._fail(f"{sign!r} is no comparison")
        kind = InstructionClass.JMP if letter == "r" else InstructionClass.JMP32
        self._refer(target, "near")
        self._with_operand(_JUMP[sign] << 4 | kind, int(dst), letter, operand)

    def _with_operand(
        self, opcode: int, dst: int, letter: str, operand: str, offset: int = 0
    ) -> None:
        """An instruction whose second operand is a register or a number."""
        register = re.fullmatch(_REG, operand)
        if register is None:
            self._add(opcode, dst, 0, offset, self._immediate(operand))
            return
        if register[1] != letter:
            raise self._fail(f"{letter}{dst} and {operand} differ in width")
        self._add(opcode | _BY_REGISTER, dst, int(register[2]), offset)

    def _compute(self, match: re.Match[str]) -> None:
        letter, dst, sign, operand = match.groups()
        kind = InstructionClass.ALU64 if letter == "r" else InstructionClass.ALU
        signed = sign in {"s/", "s%"}
        sign = sign[1:] if signed else sign
        if sign not in _ALU:
            raise self._fail(f"{sign}= is no operation")
        self._with_operand(_ALU[sign] << 4 | kind, int(dst), letter, operand, int(signed))

    def _move(self, match: re.Match[str]) -> None:
        letter, dst, operand = match.groups()
        kind = InstructionClass.ALU64 if letter == "r" else InstructionClass.ALU
        self._with_operand(AluOp.MOV << 4 | kind, int(dst), letter, operand)

    def _extend(self, match: re.Match[str]) -> None:
        letter, dst, bits, other, src = match.groups()
        if other != letter:
            raise self._fail(f"{letter}{dst} and {other}{src} differ in width")
        kind = InstructionClass.ALU64 if letter == "r" else InstructionClass.ALU
        self._add(AluOp.MOV << 4 | kind | _BY_REGISTER, int(dst), int(src), int(bits))

    def _negate(self, match: re.Match[str]) -> None:
        letter, dst, other, src = match.groups()
        if (letter, dst) != (other, src):
            raise self._fail(f"{letter}{dst} = -{other}{src}: only a register's own negative")
        kind = InstructionClass.ALU64 if letter == "r" else InstructionClass.ALU
        self._add(AluOp.NEG << 4 | kind, int(dst))

    def _swap(self, match: re.Match[str]) -> None:
        _, dst, order, bits, _, src = match.groups()
        if dst != src:
            raise self._fail(f"r{dst} = {order}{bits} r{src}: only a register's own bytes")
        kind = InstructionClass.ALU64 if order == "bswap" else InstructionClass.ALU
        big = _BY_REGISTER if order == "be" else 0
        self._add(AluOp.END << 4 | kind | big, int(dst), imm=int(bits))

    def _load(self, match: re.Match[str]) -> None:
        _, dst, sign, bits, base, direction, offset = match.groups()
        mode = Mode.MEM if sign == "u" else Mode.MEMSX
        self._add(
            mode << 5 | _SIZES[int(bits)] << 3 | InstructionClass.LDX,
            int(dst),
            int(base),
            self._offset(direction, offset),
        )

    def _store(self, match: re.Match[str]) -> None:
        _, bits, base, direction, offset, operand = match.groups()
        size, place = _SIZES[int(bits)] << 3, self._offset(direction, offset)
        register = re.fullmatch(_REG, operand)
        if register is None:
            imm = self._immediate(operand)
            self._add(Mode.MEM << 5 | size | InstructionClass.ST, int(base), 0, place, imm)
            return
        source = int(register[2])
        self._add(Mode.MEM << 5 | size | InstructionClass.STX, int(base), source, place)

    def _atomic(self, bits: int, base: str, place: int, src: str, operation: int) -> None:
        opcode = Mode.ATOMIC << 5 | _SIZES[bits] << 3 | InstructionClass.STX
        self._add(opcode, int(base), int(src), place, operation)

    def _lock(self, match: re.Match[str]) -> None:
        _, bits, base, direction, offset, sign, _, src = match.groups()
        if sign not in _ATOMIC:
            raise self._fail(f"lock with {sign}= is no atomic operation")
        self._atomic(int(bits), base, self._offset(direction, offset), src, _ATOMIC[sign])

    def _fetch(self, match: re.Match[str]) -> None:
        _, dst, name, bits, base, direction, offset, _, src = match.groups()
        if name not in _FETCH or dst != src:
            raise self._fail(f"{match[0]!r} is no atomic operation")
        operation = _FETCH[name] | AtomicOp.FETCH
        self._atomic(int(bits), base, self._offset(direction, offset), src, operation)

    def _exchange(self, match: re.Match[str]) -> None:
        _, dst, suffix, base, direction, offset, _, src = match.groups()
        if dst != src:
            raise self._fail(f"{match[0]!r}: xchg gives and takes one register")
        bits = 64 if suffix == "_64" else 32
        self._atomic(bits, base, self._offset(direction, offset), src, AtomicOp.XCHG)

    def _compare_exchange(self, match: re.Match[str]) -> None:
        _, dst, suffix, base, direction, offset, _, src = match.groups()
        if dst != "0":
            raise self._fail(f"{match[0]!r}: cmpxchg compares with r0")
        bits = 64 if suffix == "_64" else 32
        self._atomic(bits, base, self._offset(direction, offset), src, AtomicOp.CMPXCHG)

    def _wide(self, match: re.Match[str]) -> None:
        _, dst, operand = match.groups()
        name = re.match(r"[A-Za-z_]\w*", operand)
        if name and name[0] not in self._constants:
            self._refer(operand, "state")
            value, src = 0, STATE_SOURCE
        else:
            number = self._bounded(operand, (-(1 << 63), (1 << 64) - 1))
            value, src = struct.unpack("<q", struct.pack("<Q", number & (1 << 64) - 1))[0], 0
        opcode = Mode.IMM << 5 | Size.DW << 3 | InstructionClass.LD
        self._add(opcode, int(dst), src, 0, value & (1 << 64) - 1)
        self._code.append(None)
        self._lines.append(self._line)

    # ---- symbols

    def _fix(self, fixup: _Fixup) -> None:
        self._line = fixup.line
        if fixup.kind == "state":
            symbol, _, more = fixup.symbol.partition("+")
            place = self._label(symbol.strip(), "data")
            place += self._bounded(more.strip(), (0, len(self._data))) if more else 0
            self._amend(fixup.index, imm=place << 32)
            return
        if re.fullmatch(r"[-+]?\d+", fixup.symbol):
            distance = int(fixup.symbol)
        else:
            distance = self._label(fixup.symbol, "code") - fixup.index - 1
        if fixup.kind == "far":
            self._amend(fixup.index, imm=distance)
        elif _I16[0] <= distance <= _I16[1]:
            self._amend(fixup.index, offset=distance)
        else:
            raise self._fail(f"{fixup.symbol} is {distance} instructions away, expected 16 bits")

    def _amend(self, index: int, **fields: int) -> None:
        one = self._code[index]
        if one is not None:
            self._code[index] = replace(one, **fields)

    def _label(self, symbol: str, where: str) -> int:
        section, place = self._labels.get(symbol, ("", 0))
        if section != where:
            expected = "a label in the code" if where == "code" else "a label in .data or .bss"
            raise self._fail(f"{symbol!r} is not {expected}")
        return place


def assemble_text(source: str, name: str) -> FilterProgram:
    """The program in a source text; `name` is for messages, usually the file's.

    Raises `BadFilter` with the line for anything that is no program. What the program
    does is not looked at here: see `vmm.filters.verifier`.
    """
    return _Assembler(name).assemble(source)
