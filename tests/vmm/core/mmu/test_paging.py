"""The software walk against the processor's own."""

import random
import struct

import pytest
from unicorn import Uc, UcError
from unicorn import unicorn_const as const
from unicorn import x86_const as x86

from vmm.core.memory import GuestMemory
from vmm.core.mmu.paging import GuestPaging

DIRECTORY, TABLES, CODE = 0x1000, 0x2000, 0x10000
SIZE = 0x100000
LINEAR = 0xFFC00000
"""The last 4 MiB are the code's own, and map the first megabyte."""
PG, WP, PE = 1 << 31, 1 << 16, 1
PSE = 0x10
ACCESSED, DIRTY = 0x20, 0x40


def at(paging: GuestPaging, address: int, access: str) -> int:
    """Translate for "read", "write", "user read" or "user write"."""
    write, user = access.endswith("write"), access.startswith("user")
    return paging.translate(address, write, user)


def memory_with(seed: int) -> bytearray:
    """Eight random tables below a directory of which every entry is something."""
    noise = random.Random(seed)  # noqa: S311 - tests repeat
    ram = bytearray(SIZE)
    for page in range(8):
        for index in range(1024):
            frame = noise.choice((0x20, 0x40, 0x80, 0xC0, noise.randrange(0x100)))
            flags = noise.getrandbits(12) & 0xE77
            struct.pack_into("<I", ram, TABLES + 4096 * page + 4 * index, frame << 12 | flags)
    for index in range(1023):
        entry = TABLES + 4096 * noise.randrange(8) | noise.getrandbits(8) & 0x67
        if noise.random() < 0.3:
            # A large page; bits 21-13 are reserved, and whoever sets them faults.
            entry = noise.getrandbits(8) & 0x67 | 0x80
        struct.pack_into("<I", ram, DIRECTORY + 4 * index, entry)
    struct.pack_into("<I", ram, DIRECTORY + 4 * 1023, 0xA000 | 0x67)
    for index in range(256):
        struct.pack_into("<I", ram, 0xA000 + 4 * index, 4096 * index | 0x67)
    return ram


def natively(
    ram: bytearray, address: int, *, write: bool, cr0: int, cr4: int
) -> tuple[bool, bytearray]:
    """Does the processor get through, and what does memory look like then?"""
    uc = Uc(const.UC_ARCH_X86, const.UC_MODE_32)
    uc.mem_map(0, SIZE)
    uc.mem_write(0, bytes(ram))
    uc.mem_write(CODE, b"\xfe\x00" if write else b"\x8a\x18")
    uc.mem_write(CODE + 2, b"\x90")
    uc.reg_write(x86.UC_X86_REG_CR4, cr4)
    uc.reg_write(x86.UC_X86_REG_CR3, DIRECTORY)
    uc.reg_write(x86.UC_X86_REG_CR0, cr0 | PG | PE)
    uc.reg_write(x86.UC_X86_REG_EAX, address)
    faults: list[int] = []

    def fault(uc: Uc, number: int, _data: object) -> None:
        faults.append(number)
        uc.emu_stop()

    uc.hook_add(const.UC_HOOK_INTR, fault)
    try:
        uc.emu_start(LINEAR + CODE, LINEAR + CODE + 2, count=1)
    except UcError:
        return False, bytearray()
    return not faults, bytearray(uc.mem_read(0, SIZE))


@pytest.mark.parametrize("cr0", [0, WP], ids=["", "WP"])
@pytest.mark.parametrize("cr4", [0, PSE], ids=["", "PSE"])
def test_ring_0_against_the_processor(cr0: int, cr4: int) -> None:
    noise = random.Random(cr0 | cr4)  # noqa: S311 - tests repeat
    original = memory_with(cr0 | cr4)
    reached = 0
    for _ in range(120):
        # Within the first megabyte of a large page: beyond it is no memory at all.
        address = noise.randrange(1023) << 22 | noise.randrange(SIZE)
        write = noise.random() < 0.5
        ram = bytearray(original)
        paging = GuestPaging(GuestMemory(ram))
        paging.cr0, paging.cr3, paging.cr4 = cr0 | PG | PE, DIRECTORY, cr4
        physical = at(paging, address, "write" if write else "read")
        through, after = natively(original, address, write=write, cr0=cr0, cr4=cr4)
        assert (physical >= 0) == through, hex(address)
        if through:
            reached += 1
            if write:
                ram[physical] = (ram[physical] + 1) & 0xFF
            # The code's own translations and bytes apart.
            ram[CODE : CODE + 3] = after[CODE : CODE + 3]
            assert ram == after, hex(address)
    assert reached > 10


def tables(**entries: int) -> GuestPaging:
    """`pde` and `pte` map address 0; anything else is absent."""
    ram = bytearray(SIZE)
    struct.pack_into("<I", ram, DIRECTORY, entries["pde"])
    struct.pack_into("<I", ram, TABLES, entries.get("pte", 0))
    paging = GuestPaging(GuestMemory(ram))
    paging.cr0, paging.cr3, paging.cr4 = PG | PE | WP, DIRECTORY, PSE
    return paging


@pytest.mark.parametrize(
    ("pde", "pte", "access", "error"),
    [
        (0, 0, "read", 0),
        (0, 0, "write", 2),
        (0, 0, "user write", 6),
        (TABLES | 7, 0, "user read", 4),
        (TABLES | 7, 0x5005, "user write", 7),
        (TABLES | 7, 0x5003, "user read", 5),
        (TABLES | 3, 0x5007, "user read", 5),
        (TABLES | 5, 0x5007, "write", 3),
        (0x83, 0, "user read", 5),
        (0x85, 0, "user write", 7),
        (0x80000007, 0, "read", 0),
    ],
)
def test_error_codes(pde: int, pte: int, access: str, error: int) -> None:
    paging = tables(pde=pde, pte=pte)
    assert at(paging, 0x123, access) == -1
    assert paging.error == error


def test_without_paging_everything_is_itself() -> None:
    paging = GuestPaging(GuestMemory(bytearray(SIZE)))
    for address in (0, 0x1234, 0xFFFFFFFF):
        assert at(paging, address, "user write") == address


def test_write_protection_off() -> None:
    paging = tables(pde=TABLES | 5, pte=0x5005)
    paging.cr0 = PG | PE
    assert at(paging, 8, "write") == 0x5008
    assert at(paging, 8, "user write") == -1


def test_accessed_and_dirty() -> None:
    ram = bytearray(SIZE)
    struct.pack_into("<I", ram, DIRECTORY, TABLES | 7)
    struct.pack_into("<I", ram, TABLES, 0x5007)
    memory = GuestMemory(ram)
    paging = GuestPaging(memory)
    paging.cr0, paging.cr3 = PG | PE | WP, DIRECTORY
    assert at(paging, 0, "read") == 0x5000
    assert memory.read32(DIRECTORY) & (ACCESSED | DIRTY) == ACCESSED
    assert memory.read32(TABLES) & (ACCESSED | DIRTY) == ACCESSED
    at(paging, 0, "write")
    assert memory.read32(DIRECTORY) & DIRTY == 0
    assert memory.read32(TABLES) & DIRTY


@pytest.mark.parametrize("cr3", [0x100000, 0x7FFFF000, 0xE0000000, 0xFFFFF000])
def test_a_directory_outside_memory_maps_nothing(cr3: int) -> None:
    paging = tables(pde=0x87)
    paging.cr3 = cr3
    assert at(paging, 0, "read") == -1
    assert paging.error == 0


def test_pae_pointers_count_when_they_are_loaded() -> None:
    ram = bytearray(SIZE)
    struct.pack_into("<Q", ram, 0x1020, TABLES | 1)
    struct.pack_into("<Q", ram, TABLES, 0x3000 | 7)
    struct.pack_into("<Q", ram, 0x3008, 0x5000 | 7)
    struct.pack_into("<Q", ram, 0x3010, 1 << 63 | 0x6000 | 7)
    struct.pack_into("<Q", ram, 0x3018, 1 << 40 | 7)
    paging = GuestPaging(GuestMemory(ram))
    paging.cr0, paging.cr3, paging.cr4 = PG | PE | WP, 0x1020, 0x20
    assert at(paging, 0x1004, "user read") == -1
    paging.load_pointers()
    assert at(paging, 0x1004, "user read") == 0x5004
    assert at(paging, 0x2004, "user write") == 0x6004
    assert at(paging, 0x3004, "read") >= SIZE
    struct.pack_into("<Q", ram, 0x1020, 0)
    assert at(paging, 0x1004, "user read") == 0x5004
    paging.load_pointers()
    assert at(paging, 0x1004, "user read") == -1
