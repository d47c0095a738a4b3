"""POST with option ROMs that use the firmware's services."""

from __future__ import annotations

import pytest

from rombuilder.assembler import assemble_text
from rombuilder.guest import build_guest
from rombuilder.rom import Flavour, build_rom
from vmi.address import GuestPhysical
from vmm.core.errors import BadDescription
from vmm.machine import Machine, MachineDescription

GUEST = build_guest("ctxswitch").data


def post(rom: bytes, address: int = 0xC8000) -> Machine:
    return Machine(MachineDescription(GUEST, rom=rom, rom_address=GuestPhysical(address)))


def with_entry(source: str) -> bytes:
    """The identity ROM with other 16-bit code."""
    rom = build_rom(Flavour.IDENTITY)
    code = assemble_text(f".code16\n{source}\n.byte 0xcb").section(".text").data
    data = bytearray(rom.data)
    at = rom.symbols["post"]
    data[at : at + len(code)] = code
    data[rom.symbols["__checksum"]] = 0
    data[rom.symbols["__checksum"]] = -sum(data) & 0xFF
    return bytes(data)


@pytest.mark.parametrize("flavour", list(Flavour))
def test_the_banner_is_on_the_console(flavour: Flavour) -> None:
    lines: list[str] = []
    machine = Machine(
        MachineDescription(GUEST, rom=build_rom(flavour).data, rom_address=GuestPhysical(0xCA800)),
        echo=lines.append,
    )
    banner = f"vmirom 1.0 {flavour} at 0xca800"
    assert lines == [banner]
    assert machine.pc.console == f"{banner}\n"


def test_other_services_return_and_do_nothing() -> None:
    source = "mov $0x0e21, %ax\n int $0x13\n int $0xff\n mov $0x0321, %ax\n int $0x10"
    assert post(with_entry(source)).pc.console == ""
    assert post(with_entry(f"{source}\n mov $0x0e21, %ax\n int $0x10")).pc.console == "!"


def test_a_rom_may_put_its_own_handler_in_the_table() -> None:
    handler = "push %cs\n pop %ds\n jmp 2f\n 1: mov $0x0e21, %ax\n int $0x10\n iretw\n 2:"
    source = (
        f"{handler} xor %ax, %ax\n mov %ax, %es\n"
        "call 3f\n 3: pop %bx\n sub $3b - 1b, %bx\n"
        "mov %bx, %es:0x200\n mov %cs, %es:0x202\n int $0x80"
    )
    assert post(with_entry(source)).pc.console == "!"


def test_a_rom_that_interrupts_for_ever_is_refused() -> None:
    with pytest.raises(BadDescription, match=r"c800:0003 makes more than 10000 interrupts"):
        post(with_entry("1: int $0x80\n jmp 1b"))
    with pytest.raises(BadDescription, match=r"did not return within 1000000 instructions"):
        post(with_entry("1: jmp 1b"))
