"""The process that runs an unknown ROM: one JSON request in, one JSON answer out.

The ROM gets a machine of its own: 32-bit flat, ring 0, the image mapped read-only,
a stack, and nothing else; port reads answer all ones, as on an empty bus. The run
is bounded in instructions, the process in CPU time and memory, and what can crash
an emulator crashes only this process. This file is run as a script and imports
nothing of the package.

A request is {"image": hex, "load": address, "entry": offset, "query": offset,
"numbers": n}; the answer is {"init": outcome, "answers": [outcome, ...]}, an outcome
being {"eax": n, "edx": n, "broken": [texts]} or {"problem": text}. The answers end
with the first problem: a ROM that hangs should not do so n times.
"""

import json
import resource
import sys
from typing import Any

from unicorn import unicorn_const as const
from unicorn import x86_const as x86
from unicorn.unicorn_py3.unicorn import Uc, UcError

_STACK = 0x80000
_STACK_SIZE = 0x4000
_RETURN = 0x90000
_PAGE = 0x1000
_INSTRUCTIONS = 100_000
_TIMEOUT = 1_000_000
"""Microseconds; only reached by what is slow without executing many instructions."""
_CPU_SECONDS = 20
_MEMORY = 4 << 30

# Unicorn's binding has hints for some of its methods only.
_new_cpu: Any = Uc

# What a C function gives back as it was (System V ABI, i386).
_KEPT = {
    "EBX": (x86.UC_X86_REG_EBX, 0xB0B0B0B0),
    "ESI": (x86.UC_X86_REG_ESI, 0x51515151),
    "EDI": (x86.UC_X86_REG_EDI, 0xD1D1D1D1),
    "EBP": (x86.UC_X86_REG_EBP, 0xB9B9B9B9),
}


class _Machine:
    def __init__(self, image: bytes, load: int) -> None:
        self.load = load
        self.size = -(-len(image) // _PAGE) * _PAGE
        self.problem = ""
        self.uc = _new_cpu(const.UC_ARCH_X86, const.UC_MODE_32)
        self.uc.mem_map(self.load, self.size, const.UC_PROT_READ | const.UC_PROT_EXEC)
        self.uc.mem_write(self.load, image)
        self.uc.mem_map(_STACK, _STACK_SIZE, const.UC_PROT_READ | const.UC_PROT_WRITE)
        self.uc.mem_map(_RETURN, _PAGE, const.UC_PROT_READ | const.UC_PROT_EXEC)
        self.uc.hook_add(const.UC_HOOK_INSN, self._port_read, None, 1, 0, x86.UC_X86_INS_IN)
        self.uc.hook_add(const.UC_HOOK_MEM_INVALID, self._bad_access, None, 1, 0)
        self.uc.hook_add(const.UC_HOOK_INTR, self._interrupt)
        self.start = self.uc.context_save()

    @staticmethod
    def _port_read(_uc: object, _port: int, size: int, _user: object) -> int:
        return (1 << 8 * size) - 1

    def _bad_access(
        self, _uc: object, kind: int, address: int, size: int, _value: int, _user: object
    ) -> bool:
        inside = self.load <= address < self.load + self.size
        where = f"its own image at offset {address - self.load:#x}" if inside else f"{address:#x}"
        verb = {
            const.UC_MEM_WRITE_PROT: "writes to",
            const.UC_MEM_WRITE_UNMAPPED: "writes to",
            const.UC_MEM_READ_UNMAPPED: "reads from",
        }.get(kind, "runs at")
        self.problem = f"{verb} {where} ({size} bytes)"
        return False

    def _interrupt(self, uc: Any, number: int, _user: object) -> None:
        self.problem = f"raises interrupt or exception {number}"
        uc.emu_stop()

    def call(self, offset: int, eax: int) -> dict[str, object]:
        """Call a function of the image as a regparm C function."""
        uc = self.uc
        self.problem = ""
        uc.context_restore(self.start)
        top = _STACK + _STACK_SIZE - 0x100
        uc.mem_write(top, _RETURN.to_bytes(4, "little"))
        uc.reg_write(x86.UC_X86_REG_ESP, top)
        uc.reg_write(x86.UC_X86_REG_EAX, eax)
        uc.reg_write(x86.UC_X86_REG_EFLAGS, 2)
        for register, value in _KEPT.values():
            uc.reg_write(register, value)
        try:
            uc.emu_start(self.load + offset, _RETURN, timeout=_TIMEOUT, count=_INSTRUCTIONS)
        except UcError as error:
            return {"problem": self.problem or f"cannot be executed: {error}"}
        if self.problem:
            return {"problem": self.problem}
        at = uc.reg_read(x86.UC_X86_REG_EIP)
        if at != _RETURN:
            return {
                "problem": f"does not return within {_INSTRUCTIONS} instructions, "
                f"or halts (stopped at {at:#x})"
            }
        broken = [
            f"{name} is not kept"
            for name, (register, value) in _KEPT.items()
            if uc.reg_read(register) != value
        ]
        if uc.reg_read(x86.UC_X86_REG_ESP) != top + 4:
            broken.append("the stack is not balanced")
        return {
            "eax": uc.reg_read(x86.UC_X86_REG_EAX),
            "edx": uc.reg_read(x86.UC_X86_REG_EDX),
            "broken": broken,
        }


def main() -> None:
    """Serve one request."""
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    request = json.load(sys.stdin)
    machine = _Machine(bytes.fromhex(request["image"]), request["load"])
    answers: list[dict[str, object]] = []
    result = {"init": machine.call(request["entry"], 0), "answers": answers}
    for number in range(request["numbers"]):
        answers.append(machine.call(request["query"], number))
        if "problem" in answers[-1]:
            break
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
