"""The privileged part of a processor, as a model: it answers, and writes down what was done.

No privileged instruction of a ROM under test is ever executed. Each is decoded and
answered from a state that a seed makes, so that a ROM and the native instruction find
the same machine, and what they did to it can be compared.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from capstone import x86 as cs

from vmi import doorbell

__all__ = ["Cpu", "Effect", "Processor", "Reset", "Stopped", "Trap", "handler_of"]

_MASK = 0xFFFFFFFF
_IF = 0x200
_TS = 8
_SYSENTER_CS, _KERNEL_CS = 0x174, 0x60
_KEYBOARD, _PULSE_RESET = 0x64, 0xFE
_RESET_CONTROL, _FAST_A20 = 0xCF9, 0x92


class Stopped(Exception):
    """HLT with interrupts off: nothing comes after it."""


class Reset(Exception):
    """The machine was reset."""


class Trap(Exception):
    """An instruction that enters a handler, or that no VMI call may execute."""


@dataclass(frozen=True, slots=True)
class Effect:
    """Something done to the processor or to a port, and with what."""

    what: str
    operands: tuple[int, ...] = ()

    def __str__(self) -> str:
        return " ".join([self.what, *(f"{value:#x}" for value in self.operands)])


class Cpu(Protocol):
    """What the model needs of the machine around it. Registers go by their names in capstone."""

    def get(self, register: str) -> int: ...  # noqa: D102
    def set(self, register: str, value: int) -> None: ...  # noqa: D102
    def load(self, address: int, size: int) -> bytes: ...  # noqa: D102
    def store(self, address: int, data: bytes) -> None: ...  # noqa: D102
    def segment_base(self, register: str) -> int: ...  # noqa: D102


# Decoded instructions are untyped.
_Instruction = Any
_Handler = Callable[["Processor", _Instruction], None]


class Processor:
    """One processor in the state that the seed makes; `effects` in the order they came."""

    def __init__(self, seed: str, cpu: Cpu) -> None:
        self._seed = seed
        self._cpu = cpu
        self.effects: list[Effect] = []
        self._reads = 0
        self.state: dict[str, int] = {
            "cr0": self._random("cr0") | 0x80000001,
            "cr2": self._random("cr2"),
            "cr3": self._random("cr3") & 0xFFFFF000,
            "cr4": self._random("cr4") & 0x7FF,
            "ldtr": self._random("ldtr") & 0xFFF8,
            "tr": self._random("tr") & 0xFFF8,
            f"msr{_SYSENTER_CS}": _KERNEL_CS,
        }

    def _random(self, *key: object) -> int:
        digest = hashlib.blake2b(repr((self._seed, *key)).encode(), digest_size=8)
        return int.from_bytes(digest.digest(), "little") & _MASK

    def read(self, name: str) -> int:
        """A register of the model."""
        return self.state.setdefault(name, self._random(name))

    def _did(self, what: str, *operands: int) -> None:
        self.effects.append(Effect(what, operands))

    def _address(self, operand: Any, insn: _Instruction) -> int:
        """The linear address of a memory operand."""
        memory = operand.mem
        base = insn.reg_name(memory.base) if memory.base else ""
        segment = insn.reg_name(memory.segment) if memory.segment else ""
        total = memory.disp + self._cpu.segment_base(
            segment or ("ss" if base in {"esp", "ebp"} else "ds")
        )
        if base:
            total += self._cpu.get(base)
        if memory.index:
            total += self._cpu.get(insn.reg_name(memory.index)) * memory.scale
        return int(total) & _MASK

    def _source(self, insn: _Instruction) -> int:
        """The value of a 16-bit register or memory operand."""
        operand = insn.operands[0]
        if operand.type == cs.X86_OP_REG:
            return self._cpu.get(insn.reg_name(operand.reg)) & 0xFFFF
        return int.from_bytes(self._cpu.load(self._address(operand, insn), 2), "little")

    def _result(self, insn: _Instruction, value: int) -> None:
        operand = insn.operands[0]
        if operand.type == cs.X86_OP_REG:
            self._cpu.set(insn.reg_name(operand.reg), value)
        else:
            address = self._address(operand, insn)
            self._cpu.store(address, (value & 0xFFFF).to_bytes(2, "little"))

    def _special(self, name: str) -> str | None:
        """The model's name of a control or debug register; 4 and 5 are other names of 6 and 7."""
        if name.startswith("cr"):
            return name
        if name.startswith("dr"):
            return {"dr4": "dr6", "dr5": "dr7"}.get(name, name)
        return None

    def move(self, insn: _Instruction) -> None:
        """MOV to and from control and debug registers."""
        target, source = (insn.reg_name(operand.reg) for operand in insn.operands)
        written = self._special(target)
        if written:
            self._write(written, self._cpu.get(source))
        else:
            self._cpu.set(target, self.read(self._special(source) or source))

    def _write(self, name: str, value: int) -> None:
        self.state[name] = value
        self._did(name.upper(), value)

    def clts(self, _insn: _Instruction) -> None:  # noqa: D102
        self._write("cr0", self.read("cr0") & ~_TS)

    def lmsw(self, insn: _Instruction) -> None:  # noqa: D102
        self._write("cr0", (self.read("cr0") & ~0xE) | (self._source(insn) & 0xF))

    def smsw(self, insn: _Instruction) -> None:  # noqa: D102
        self._result(insn, self.read("cr0"))

    def load_table(self, insn: _Instruction) -> None:
        """LGDT, LIDT."""
        name = insn.mnemonic[1:]
        raw = self._cpu.load(self._address(insn.operands[0], insn), 6)
        limit, base = int.from_bytes(raw[:2], "little"), int.from_bytes(raw[2:], "little")
        self.state[f"{name}.limit"], self.state[f"{name}.base"] = limit, base
        self._did(f"{name.upper()}R", limit, base)

    def store_table(self, insn: _Instruction) -> None:
        """SGDT, SIDT."""
        name = insn.mnemonic[1:]
        limit, base = self.read(f"{name}.limit") & 0xFFFF, self.read(f"{name}.base")
        raw = limit.to_bytes(2, "little") + base.to_bytes(4, "little")
        self._cpu.store(self._address(insn.operands[0], insn), raw)

    def load_selector(self, insn: _Instruction) -> None:
        """LLDT, LTR."""
        self._write({"lldt": "ldtr", "ltr": "tr"}[insn.mnemonic], self._source(insn))

    def store_selector(self, insn: _Instruction) -> None:
        """SLDT, STR."""
        self._result(insn, self.read({"sldt": "ldtr", "str": "tr"}[insn.mnemonic]))

    def invlpg(self, insn: _Instruction) -> None:  # noqa: D102
        self._did("INVLPG", self._address(insn.operands[0], insn) & 0xFFFFF000)

    def write_back(self, insn: _Instruction) -> None:
        """WBINVD, INVD."""
        self._did(insn.mnemonic.upper())

    def hlt(self, _insn: _Instruction) -> None:  # noqa: D102
        if not self._cpu.get("eflags") & _IF:
            raise Stopped
        self._did("HLT")

    def cpuid(self, _insn: _Instruction) -> None:  # noqa: D102
        leaf = (self._cpu.get("eax"), self._cpu.get("ecx"))
        for name in ("eax", "ebx", "ecx", "edx"):
            self._cpu.set(name, self._random("cpuid", *leaf, name))

    def _pair(self, low: int, high: int) -> None:
        self._cpu.set("eax", low)
        self._cpu.set("edx", high)

    def rdmsr(self, _insn: _Instruction) -> None:  # noqa: D102
        number = self._cpu.get("ecx")
        self._pair(self.read(f"msr{number}"), self.read(f"msr{number}.high"))

    def wrmsr(self, _insn: _Instruction) -> None:  # noqa: D102
        number, low, high = (self._cpu.get(name) for name in ("ecx", "eax", "edx"))
        self.state[f"msr{number}"], self.state[f"msr{number}.high"] = low, high
        self._did("WRMSR", number, low, high)

    def rdtsc(self, _insn: _Instruction) -> None:  # noqa: D102
        self._reads += 1
        self._pair((self._random("tsc") + self._reads) & _MASK, self._random("tsc", "high"))

    def rdpmc(self, _insn: _Instruction) -> None:  # noqa: D102
        number = self._cpu.get("ecx")
        self._pair(self._random("pmc", number), self._random("pmc", number, "high") & 0xFF)

    def _port_read(self, port: int, size: int) -> int:
        self._reads += 1
        self._did(f"IN{8 * size}", port)
        value = _MASK if port == doorbell.PORT else self._random("port", port, self._reads)
        return value & ((1 << 8 * size) - 1)

    def _port_write(self, port: int, size: int, value: int) -> None:
        self._did(f"OUT{8 * size}", port, value)
        pulled = {_KEYBOARD: value == _PULSE_RESET, _RESET_CONTROL: value & 4, _FAST_A20: value & 1}
        if size == 1 and pulled.get(port):
            raise Reset

    def _operand(self, insn: _Instruction, index: int) -> int:
        operand = insn.operands[index]
        if operand.type == cs.X86_OP_REG:
            return self._cpu.get(insn.reg_name(operand.reg))
        return int(operand.imm)

    def port_in(self, insn: _Instruction) -> None:
        """IN."""
        size = insn.operands[0].size
        value = self._port_read(self._operand(insn, 1) & 0xFFFF, size)
        self._cpu.set(insn.reg_name(insn.operands[0].reg), value)

    def port_out(self, insn: _Instruction) -> None:
        """OUT."""
        size = insn.operands[1].size
        value = self._operand(insn, 1) & ((1 << 8 * size) - 1)
        self._port_write(self._operand(insn, 0) & 0xFFFF, size, value)

    def port_string(self, insn: _Instruction) -> None:
        """INS and OUTS; with REP one round, and the instruction once more while rounds are left."""
        reads = insn.id in {cs.X86_INS_INSB, cs.X86_INS_INSW, cs.X86_INS_INSD}
        size = {"b": 1, "w": 2, "d": 4}[insn.mnemonic[-1]]
        repeated = insn.prefix[0] in {0xF2, 0xF3}
        count = self._cpu.get("ecx")
        if repeated and not count:
            return
        pointer = "edi" if reads else "esi"
        at = self._cpu.get(pointer)
        port = self._cpu.get("edx") & 0xFFFF
        if reads:
            data = self._port_read(port, size).to_bytes(size, "little")
            self._cpu.store((at + self._cpu.segment_base("es")) & _MASK, data)
        else:
            segment = insn.operands[1].mem.segment
            base = self._cpu.segment_base(insn.reg_name(segment) if segment else "ds")
            raw = self._cpu.load((at + base) & _MASK, size)
            self._port_write(port, size, int.from_bytes(raw, "little"))
        step = -size if self._cpu.get("eflags") & 0x400 else size
        self._cpu.set(pointer, (at + step) & _MASK)
        if repeated:
            self._cpu.set("ecx", (count - 1) & _MASK)
            if count != 1:
                self._cpu.set("eip", self._cpu.get("eip") - insn.size)

    def trap(self, insn: _Instruction) -> None:
        """Instructions that lead out of the call."""
        if self.state.get("idt.limit") == 0:
            raise Reset  # no handlers: the third fault resets the machine
        raise Trap(f"{insn.mnemonic} {insn.op_str}".strip())


_BY_ID: dict[int, _Handler] = {
    cs.X86_INS_CLTS: Processor.clts,
    cs.X86_INS_LMSW: Processor.lmsw,
    cs.X86_INS_SMSW: Processor.smsw,
    cs.X86_INS_LGDT: Processor.load_table,
    cs.X86_INS_LIDT: Processor.load_table,
    cs.X86_INS_SGDT: Processor.store_table,
    cs.X86_INS_SIDT: Processor.store_table,
    cs.X86_INS_LLDT: Processor.load_selector,
    cs.X86_INS_LTR: Processor.load_selector,
    cs.X86_INS_SLDT: Processor.store_selector,
    cs.X86_INS_STR: Processor.store_selector,
    cs.X86_INS_INVLPG: Processor.invlpg,
    cs.X86_INS_WBINVD: Processor.write_back,
    cs.X86_INS_INVD: Processor.write_back,
    cs.X86_INS_HLT: Processor.hlt,
    cs.X86_INS_CPUID: Processor.cpuid,
    cs.X86_INS_RDMSR: Processor.rdmsr,
    cs.X86_INS_WRMSR: Processor.wrmsr,
    cs.X86_INS_RDTSC: Processor.rdtsc,
    cs.X86_INS_RDPMC: Processor.rdpmc,
    cs.X86_INS_IN: Processor.port_in,
    cs.X86_INS_OUT: Processor.port_out,
    **dict.fromkeys(
        (
            cs.X86_INS_INSB,
            cs.X86_INS_INSW,
            cs.X86_INS_INSD,
            cs.X86_INS_OUTSB,
            cs.X86_INS_OUTSW,
            cs.X86_INS_OUTSD,
        ),
        Processor.port_string,
    ),
    **dict.fromkeys(
        (
            cs.X86_INS_INT,
            cs.X86_INS_INT1,
            cs.X86_INS_INT3,
            cs.X86_INS_INTO,
            cs.X86_INS_UD0,
            cs.X86_INS_UD2,
            cs.X86_INS_SYSENTER,
            cs.X86_INS_SYSCALL,
            cs.X86_INS_SYSRET,
            cs.X86_INS_RDTSCP,
            cs.X86_INS_RSM,
            cs.X86_INS_MONITOR,
            cs.X86_INS_MWAIT,
            cs.X86_INS_XSETBV,
            cs.X86_INS_INVPCID,
            cs.X86_INS_VMCALL,
            cs.X86_INS_VMMCALL,
        ),
        Processor.trap,
    ),
}

_MOVE_SPECIAL = {(0x0F, second) for second in range(0x20, 0x28)}
"""Opcodes of MOV to and from control and debug registers."""


def handler_of(insn: _Instruction) -> _Handler | None:
    """The model's answer to an instruction; None for one that the engine may execute."""
    found = _BY_ID.get(insn.id)
    if found is None and insn.id == cs.X86_INS_MOV and tuple(insn.opcode[:2]) in _MOVE_SPECIAL:
        return Processor.move
    return found
