"""The entry that firmware calls: one line through INT 10h, and nothing else changed."""

from __future__ import annotations

import struct

import pytest
import unicorn
from unicorn import x86_const as x86

from rombuilder.rom import Flavour, build_rom
from vmi.header import ENTRY_16

RETURN = (0xF000, 0xFFF0)
HANDLER = (0xF000, 0xE000)
KEPT = {
    x86.UC_X86_REG_BX: 0x1111,
    x86.UC_X86_REG_CX: 0x2222,
    x86.UC_X86_REG_DX: 0x3333,
    x86.UC_X86_REG_SI: 0x4444,
    x86.UC_X86_REG_DI: 0x5555,
    x86.UC_X86_REG_BP: 0x6666,
    x86.UC_X86_REG_DS: 0x0777,
    x86.UC_X86_REG_ES: 0x0888,
    x86.UC_X86_REG_SS: 0x7000,
    x86.UC_X86_REG_SP: 0xFFF0,
}
FLAGS = 0x0CD7
"""Carry, direction and more; interrupts off."""


def linear(far: tuple[int, int]) -> int:
    return (far[0] << 4) + far[1]


def power_on(image: bytes, segment: int, *, handler: bool = True, rude: bool = False) -> str:
    """Call the entry as firmware does, check what it keeps; what it wrote."""
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_16)
    uc.mem_map(0, 1 << 20)
    uc.mem_write(segment << 4, image)
    uc.mem_protect(segment << 4 & ~0xFFF, 0x4000, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
    if handler:
        uc.mem_write(4 * 0x10, struct.pack("<HH", HANDLER[1], HANDLER[0]))
    for register, value in KEPT.items():
        uc.reg_write(register, value)
    uc.reg_write(x86.UC_X86_REG_AX, 0x0020)
    uc.reg_write(x86.UC_X86_REG_EFLAGS, FLAGS)
    uc.reg_write(x86.UC_X86_REG_SP, 0xFFF0 - 4)
    uc.mem_write((0x7000 << 4) + 0xFFF0 - 4, struct.pack("<HH", RETURN[1], RETURN[0]))
    uc.reg_write(x86.UC_X86_REG_CS, segment)
    pending: list[int] = []
    uc.hook_add(unicorn.UC_HOOK_INTR, lambda _u, n, _d: (pending.append(n), uc.emu_stop()))
    text = ""
    at = (segment << 4) + ENTRY_16
    while True:
        uc.emu_start(at, linear(RETURN), count=10_000)
        at = (uc.reg_read(x86.UC_X86_REG_CS) << 4) + uc.reg_read(x86.UC_X86_REG_IP)
        if not pending:
            break
        assert pending.pop() == 0x10
        assert uc.reg_read(x86.UC_X86_REG_AH) == 0x0E
        assert uc.reg_read(x86.UC_X86_REG_BH) == 0
        text += chr(uc.reg_read(x86.UC_X86_REG_AL))
        if rude:
            for register in (x86.UC_X86_REG_AX, x86.UC_X86_REG_BP, x86.UC_X86_REG_SI):
                uc.reg_write(register, 0xDEAD)
    assert at == linear(RETURN)
    assert uc.reg_read(x86.UC_X86_REG_AX) == 0
    assert {register: uc.reg_read(register) for register in KEPT} == KEPT
    assert uc.reg_read(x86.UC_X86_REG_EFLAGS) == FLAGS
    return text


@pytest.mark.parametrize("flavour", list(Flavour))
@pytest.mark.parametrize("segment", [0xC000, 0xC280, 0xDF80])
@pytest.mark.parametrize("rude", [False, True])
def test_banner_names_version_flavour_and_address(
    flavour: Flavour, segment: int, *, rude: bool
) -> None:
    text = power_on(build_rom(flavour).data, segment, rude=rude)
    assert text == f"vmirom 1.0 {flavour} at {segment << 4:#x}\r\n"


def test_firmware_without_int_10h_is_left_alone() -> None:
    assert power_on(build_rom(Flavour.IDENTITY).data, 0xC800, handler=False) == ""
