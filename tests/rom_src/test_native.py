from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
import unicorn
from unicorn import x86_const as x86

from vmi.doorbell import Feature
from vmi.relocation import RelocationKind

if TYPE_CHECKING:
    from conftest import Machine, MachineFactory

RAM = 0xC0400000
IF = 0x200
IOPL = 0x3000


def flags(made: Machine) -> int:
    return int(made.uc.reg_read(x86.UC_X86_REG_EFLAGS))


def set_flags(made: Machine, value: int) -> None:
    made.uc.reg_write(x86.UC_X86_REG_EFLAGS, value)


@pytest.fixture(params=["identity", "batching"])
def native(request: pytest.FixtureRequest, machine: MachineFactory) -> Machine:
    """A ROM whose calls are native: identity, or batching with nobody listening."""
    return machine(request.param, calls="all", features=None)


GENERAL = {
    "eax": 0xA0A0A0A0,
    "ecx": 0xC0C0C0C0,
    "edx": 0xD0D0D0D0,
}


@pytest.mark.parametrize(
    ("call", "changed"),
    [
        ("EnableInterrupts", set()),
        ("DisableInterrupts", set()),
        ("GetInterruptMask", {"eax"}),
        ("SetInterruptMask", set()),
    ],
)
def test_interrupt_flag_calls_keep_registers_and_memory(
    native: Machine, call: str, changed: set[str]
) -> None:
    address = native.address_of(call)
    registers = {**GENERAL, "eax": 0x202}
    native.prepare(address, **registers)
    touched: list[int] = []
    native.uc.hook_add(
        unicorn.UC_HOOK_MEM_READ | unicorn.UC_HOOK_MEM_WRITE,
        lambda _uc, _access, at, _size, _value, _data: touched.append(at),
    )
    esp = native.esp
    native.finish()
    assert native.esp == esp + 4
    for name, value in registers.items():
        if name not in changed:
            assert native.register(name) == value, name
    assert all(esp - 4 <= at <= esp for at in touched), "memory other than the stack"


def test_interrupt_flag(native: Machine) -> None:
    native.call("EnableInterrupts")
    assert flags(native) & IF
    assert native.call("GetInterruptMask") & IF
    native.call("DisableInterrupts")
    assert not flags(native) & IF
    assert not native.call("GetInterruptMask") & IF
    native.call("SetInterruptMask", eax=0x202)
    assert flags(native) & IF
    native.call("SetInterruptMask", eax=0x2)
    assert not flags(native) & IF


def test_iopl(native: Machine) -> None:
    native.call("SetIOPLMask", eax=IOPL)
    assert flags(native) & IOPL == IOPL
    native.call("SetIOPLMask", eax=0x1000)
    assert flags(native) & IOPL == 0x1000


def test_set_pxe_stores(native: Machine) -> None:
    native.call("SetPxE", eax=0x12345067, edx=RAM + 8, ecx=1)
    assert native.read(RAM + 8) == 0x12345067


@pytest.mark.parametrize(
    "call",
    [
        "UpdatePxE",
        "UpdatePxELong",
        "AllocatePage",
        "ReleasePage",
        "SetLinearMapping",
        "SetLazyMode",
        "UpdateKernelStack",
    ],
)
def test_calls_that_tell_something_do_nothing(native: Machine, call: str) -> None:
    before = bytes(native.uc.mem_read(RAM, 0x1000))
    native.call(call, (0, 0), eax=RAM, edx=RAM, ecx=RAM)
    assert bytes(native.uc.mem_read(RAM, 0x1000)) == before
    assert native.image() == native.rom.data


ENTRIES_64 = [0, 0x2000, 0x1_00003067, 0x1_00005065, 0x2_00003067, 0x2_00000000]


@pytest.mark.parametrize(("old", "new"), list(itertools.product(ENTRIES_64, repeat=2)))
def test_64_bit_entries_are_never_torn(native: Machine, old: int, new: int) -> None:
    def entry() -> int:
        return native.read(RAM + 16) | native.read(RAM + 20) << 32

    native.write(RAM + 16, old & 0xFFFFFFFF)
    native.write(RAM + 20, old >> 32)
    address = native.address_of("SetPxELong")
    native.prepare(address, (1,), eax=new & 0xFFFFFFFF, edx=new >> 32, ecx=RAM + 16)
    seen = [entry()]
    while native.eip != 0xC0A00000:
        native.step()
        if entry() != seen[-1]:
            seen.append(entry())
    assert entry() == new
    for between in seen[1:-1]:
        assert not between & 1, f"{between:#x} between {old:#x} and {new:#x}"
    if old & 1 and new & 1:
        assert len(seen) <= 2, "gone for a moment"


@pytest.mark.parametrize(("old", "new"), list(itertools.product(ENTRIES_64, repeat=2)))
def test_64_bit_entries_keep_the_stack(native: Machine, old: int, new: int) -> None:
    native.write(RAM, old & 0xFFFFFFFF)
    native.write(RAM + 4, old >> 32)
    native.call("SetPxELong", (1,), eax=new & 0xFFFFFFFF, edx=new >> 32, ecx=RAM)
    assert native.read(RAM) == new & 0xFFFFFFFF
    assert native.read(RAM + 4) == new >> 32


@pytest.mark.parametrize("call", ["WriteGDTEntry", "WriteLDTEntry", "WriteIDTEntry"])
def test_descriptor_entries(native: Machine, call: str) -> None:
    native.call(call, (0x22222222,), eax=RAM, edx=3, ecx=0x11111111)
    assert native.read(RAM + 24) == 0x11111111
    assert native.read(RAM + 28) == 0x22222222
    assert native.read(RAM + 20) == 0
    assert native.read(RAM + 32) == 0


def test_table_registers(native: Machine) -> None:
    native.uc.mem_write(RAM, (0x1FF).to_bytes(2, "little") + (RAM + 0x100).to_bytes(4, "little"))
    for kind in ("GDT", "IDT"):
        native.call(f"Set{kind}", eax=RAM)
        native.uc.mem_write(RAM + 16, bytes(8))
        native.call(f"Get{kind}", eax=RAM + 16)
        assert native.uc.mem_read(RAM + 16, 6) == native.uc.mem_read(RAM, 6)


def test_task_register_and_ldt(native: Machine) -> None:
    gdt = RAM + 0x100
    native.uc.mem_write(RAM, (0xFF).to_bytes(2, "little") + gdt.to_bytes(4, "little"))
    native.write(gdt + 0x28, 0x20000067)
    native.write(gdt + 0x2C, 0x00008900)
    native.write(gdt + 0x30, 0x20000007)
    native.write(gdt + 0x34, 0x00008200)
    native.call("SetGDT", eax=RAM)
    native.call("SetTR", eax=0x28)
    assert native.call("GetTR", eax=0xFFFFFFFF) == 0x28
    native.call("SetLDT", eax=0x30)
    assert native.call("GetLDT", eax=0xFFFFFFFF) == 0x30


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_debug_registers(native: Machine, number: int) -> None:
    native.call("SetDR", eax=number, edx=0x1000 + number)
    assert native.call("GetDR", eax=number) == 0x1000 + number


def test_every_debug_register_is_its_own(native: Machine) -> None:
    for number in range(4):
        native.call("SetDR", eax=number, edx=0x7000 + number)
    assert [native.call("GetDR", eax=number) for number in range(4)] == [
        0x7000 + number for number in range(4)
    ]
    assert native.call("GetDR", eax=6) & 0xFFFF0FF0 == 0xFFFF0FF0
    assert native.call("GetDR", eax=7) & 0x400 == 0x400


@pytest.mark.parametrize("number", [8, 100, 0xFFFFFFFF])
def test_debug_registers_that_do_not_exist(native: Machine, number: int) -> None:
    native.call("SetDR", eax=number, edx=1)
    assert native.call("GetDR", eax=number) == 0


def test_control_registers(native: Machine) -> None:
    native.call("SetCR2", eax=0x12345678)
    assert native.call("GetCR2") == 0x12345678
    native.call("SetCR3", eax=0x00345000)
    assert native.call("GetCR3") == 0x00345000
    native.call("SetCR4", eax=0x90)
    assert native.call("GetCR4") == 0x90
    cr0 = native.call("GetCR0")
    assert cr0 & 1
    native.call("SetCR0", eax=cr0 | 8)
    assert native.call("GetCR0") & 8
    native.call("CLTS")
    assert not native.call("GetCR0") & 8


@pytest.mark.parametrize("cr4", [0, 0x80])
@pytest.mark.parametrize("what", [1, 2, 3])
def test_flush_keeps_the_control_registers(native: Machine, cr4: int, what: int) -> None:
    native.call("SetCR3", eax=0x00345000)
    native.call("SetCR4", eax=cr4)
    native.call("FlushTLB", eax=what)
    native.call("InvalPage", eax=RAM)
    assert native.call("GetCR3") == 0x00345000
    assert native.call("GetCR4") == cr4


def test_processor_calls(native: Machine) -> None:
    # CPUID's registers are the native ones, EBX included, which run() would object to.
    native.prepare(native.address_of("CPUID"), eax=0, ecx=0)
    native.finish()
    name = b"".join(native.register(r).to_bytes(4, "little") for r in ("ebx", "edx", "ecx"))
    assert name in (b"GenuineIntel", b"AuthenticAMD")
    first = native.call("RDTSC")
    assert native.call("RDTSC") != first
    native.call("WRMSR", ecx=0x174, eax=0x60, edx=0)
    assert native.call("RDMSR", ecx=0x174) == 0x60
    native.call("WBINVD")


@pytest.mark.parametrize("call", ["MachineToPhysical", "PhysicalToMachine"])
def test_frames_are_their_own(native: Machine, call: str) -> None:
    assert native.call(call, eax=0x12345) == 0x12345


def test_io_delay(native: Machine) -> None:
    native.call("IODelay", eax=0x55)
    assert [port for port, _ in native.port_writes] == [0x80]


def test_iret_returns_through_the_frame(native: Machine) -> None:
    # IRET is particular about its segments: code at 8, and a stack segment that says 32 bits.
    native.uc.mem_write(RAM, (23).to_bytes(2, "little") + (RAM + 0x100).to_bytes(4, "little"))
    for index, word in enumerate([0x0000FFFF, 0x00CF9B00, 0x0000FFFF, 0x00CF9300]):
        native.write(RAM + 0x108 + 4 * index, word)
    native.call("SetGDT", eax=RAM)
    native.uc.reg_write(x86.UC_X86_REG_SS, 0x10)
    native.prepare(native.address_of("IRET"), (8, 0x246), **GENERAL)
    esp = native.esp
    native.finish()
    assert native.esp == esp + 12
    assert flags(native) & 0x246 == 0x246
    for name, value in GENERAL.items():
        assert native.register(name) == value


def test_sysexit_enables_interrupts_first(native: Machine) -> None:
    at = native.address_of("SYSEXIT")
    assert bytes(native.uc.mem_read(at, 3)) == bytes([0xFB, 0x0F, 0x35])


def test_halt_enables_interrupts_and_halts(native: Machine) -> None:
    at = native.address_of("Halt")
    assert bytes(native.uc.mem_read(at, 3)) == bytes([0xFB, 0xF4, 0xC3])


def test_shutdown_halts_with_interrupts_off(native: Machine) -> None:
    set_flags(native, 0x202)
    native.prepare(native.address_of("Shutdown"))
    native.uc.emu_start(native.eip, 0, count=100)
    assert not flags(native) & IF
    assert native.base < native.eip < native.base + len(native.rom.data)


@pytest.mark.parametrize("kind", [0, 1])
def test_reboot_pulls_the_reset_line(native: Machine, kind: int) -> None:
    native.prepare(native.address_of("Reboot"), eax=kind)
    native.uc.emu_start(native.eip, 0, count=400_000)
    assert native.port_writes == [(0x64, 0xFE)]
    assert not flags(native) & IF


def test_apic_by_offset_and_by_address(machine: MachineFactory) -> None:
    made = machine("identity", APIC_VIRTUAL_BASE=RAM + 0x10000)
    made.call("APICWrite", eax=0x320, edx=0x10030)
    assert made.read(RAM + 0x10320) == 0x10030
    assert made.call("APICRead", eax=0x320) == 0x10030
    made.call("APICWrite", eax=RAM + 0x10380, edx=7)
    assert made.call("APICRead", eax=0x380) == 7


def test_nothing_but_the_stack_and_the_target_is_written(machine: MachineFactory) -> None:
    made = machine("identity")
    written: set[int] = set()
    made.uc.hook_add(
        unicorn.UC_HOOK_MEM_WRITE,
        lambda _uc, _access, at, _size, _value, _data: written.add(at & ~0xFFFFF),
    )
    made.call("SetPxE", eax=1, edx=RAM, ecx=1)
    made.call("SetDR", eax=0, edx=0)
    made.call("AllocatePage", (0, 0), eax=5, edx=1, ecx=0)
    assert written <= {RAM, 0xC0800000}


def test_with_a_host_native_calls_are_still_native(machine: MachineFactory) -> None:
    made = machine("batching", calls="all", features=Feature.ATTACHED)
    assert made.reloc("SetPxE").address == made.symbol("native_SetPxE")
    assert made.reloc("IODelay").kind is RelocationKind.NOP
