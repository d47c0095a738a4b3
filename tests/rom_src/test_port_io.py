"""The twelve port calls, natively: every width, both directions, any count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from unicorn import x86_const as x86

from vmi.calls import PORT_CALLS, call_numbered
from vmi.relocation import RelocationKind

if TYPE_CHECKING:
    from conftest import Machine, MachineFactory

BUFFER = 0xC0500000
PORT = 0x1F0
FIRST_VALUE = 0x80C0E0F1
WIDTHS = {"": 4, "B": 1, "W": 2}
SPARE = {"eax": 0x11223344, "ebx": 0x0B0B0B0B, "ebp": 0xB9B9B9B9}


@pytest.fixture(params=["identity", "batching"])
def made(request: pytest.FixtureRequest, machine: MachineFactory) -> Machine:
    made = machine(request.param, calls="all")
    made.port_reads.clear()
    made.port_value = lambda number: FIRST_VALUE + number - 1
    return made


def go(made: Machine, name: str, *, backwards: bool = False, **registers: int) -> None:
    """Make the call and check what every one of them keeps."""
    made.prepare(made.address_of(name), **SPARE | registers)
    flags = 0x402 if backwards else 0x2
    made.uc.reg_write(x86.UC_X86_REG_EFLAGS, flags)
    esp = made.esp
    made.finish(limit=100_000)
    assert made.esp == esp + 4
    assert made.uc.reg_read(x86.UC_X86_REG_EFLAGS) & 0xF00 == flags & 0xF00
    for register in ("ebx", "ebp"):
        assert made.register(register) == SPARE[register]
    assert made.register("edx") == registers["edx"]


def test_all_twelve_are_calls(made: Machine) -> None:
    assert {made.reloc(n).kind for n in PORT_CALLS} == {RelocationKind.CALL_REL}
    assert len({made.reloc(n).address for n in PORT_CALLS}) == 12


def test_a_rom_with_the_needed_calls_has_none_of_them(machine: MachineFactory) -> None:
    for flavour in ("identity", "batching"):
        few = machine(flavour, calls="needed")
        assert {few.reloc(n).kind for n in PORT_CALLS} == {RelocationKind.NONE}
        assert not {f"native_{call_numbered(n).name}" for n in PORT_CALLS} & set(few.rom.symbols)


@pytest.mark.parametrize("suffix", list(WIDTHS))
@pytest.mark.parametrize("port", [0, PORT, 0xFFFF])
def test_a_read_leaves_the_rest_of_eax(made: Machine, suffix: str, port: int) -> None:
    go(made, f"IN{suffix}", edx=port)
    mask = (1 << 8 * WIDTHS[suffix]) - 1
    assert made.port_reads == [(port, WIDTHS[suffix])]
    assert made.register("eax") == (SPARE["eax"] & ~mask) | (FIRST_VALUE & mask)


@pytest.mark.parametrize("suffix", list(WIDTHS))
@pytest.mark.parametrize("port", [0, PORT, 0xFFFF])
def test_a_write(made: Machine, suffix: str, port: int) -> None:
    go(made, f"OUT{suffix}", edx=port)
    mask = (1 << 8 * WIDTHS[suffix]) - 1
    assert made.port_writes == [(port, SPARE["eax"] & mask)]
    assert made.register("eax") == SPARE["eax"]


@pytest.mark.parametrize("suffix", list(WIDTHS))
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 256, 5000])
def test_string_reads(made: Machine, suffix: str, *, backwards: bool, count: int) -> None:
    width = WIDTHS[suffix]
    step = -width if backwards else width
    made.uc.mem_write(BUFFER - 0x8000, bytes(0x10000))
    go(made, f"INS{suffix}", backwards=backwards, edx=PORT, ecx=count, edi=BUFFER)
    assert made.register("ecx") == 0
    assert made.register("edi") == BUFFER + step * count
    assert made.register("eax") == SPARE["eax"]
    assert len(made.port_reads) == count
    mask = (1 << 8 * width) - 1
    for index in {0, 1, count // 2, count - 1} & set(range(count)):
        stored = int.from_bytes(made.uc.mem_read(BUFFER + step * index, width), "little")
        assert stored == FIRST_VALUE + index & mask
    beyond = BUFFER + step * count
    assert not any(made.uc.mem_read(beyond, width))


@pytest.mark.parametrize("suffix", list(WIDTHS))
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 256, 5000])
def test_string_writes(made: Machine, suffix: str, *, backwards: bool, count: int) -> None:
    width = WIDTHS[suffix]
    step = -width if backwards else width
    content = bytes(i * 7 % 251 for i in range(0x10000))
    made.uc.mem_write(BUFFER - 0x8000, content)
    go(made, f"OUTS{suffix}", backwards=backwards, edx=PORT, ecx=count, esi=BUFFER)
    assert made.register("ecx") == 0
    assert made.register("esi") == BUFFER + step * count
    offsets = [0x8000 + step * index for index in range(count)]
    expected = [int.from_bytes(content[at : at + width], "little") for at in offsets]
    assert made.port_writes == [(PORT, value) for value in expected]
