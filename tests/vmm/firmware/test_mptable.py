"""The MP tables, read as a kernel reads them."""

import struct

import pytest

from vmm.firmware.mptable import MP_ADDRESS, mp_tables
from vmm.machine import MachineDescription

LENGTHS = {0: 20, 1: 8, 2: 8, 3: 8, 4: 8}


def parse(data: bytes) -> tuple[bytes, list[bytes]]:
    """The configuration table's header and its entries, checked on the way."""
    signature, address, length, revision, _, feature = struct.unpack_from("<4sIBBBB", data)
    assert (signature, length, revision, feature) == (b"_MP_", 1, 4, 0)
    assert sum(data[:16]) & 0xFF == 0
    table = data[address - MP_ADDRESS :]
    assert table[:4] == b"PCMP"
    size, count = struct.unpack_from("<H", table, 4)[0], struct.unpack_from("<H", table, 34)[0]
    assert size == len(table)
    assert sum(table) & 0xFF == 0
    entries, at = [], 44
    for _ in range(count):
        entries.append(table[at : at + LENGTHS[table[at]]])
        at += LENGTHS[table[at]]
    assert at == size
    return table[:44], entries


@pytest.mark.parametrize("processors", [1, 2, 8])
def test_processors(processors: int) -> None:
    header, entries = parse(mp_tables(processors, 0x673, 0x123).data)
    assert struct.unpack_from("<I", header, 36)[0] == 0xFEE00000
    assert [struct.unpack("<BBBBIIII", entry) for entry in entries if entry[0] == 0] == [
        (0, n, 0x14, 3 if n == 0 else 1, 0x673, 0x123, 0, 0) for n in range(processors)
    ]
    # Entries are in the order of their kinds (section 4.3).
    kinds = [entry[0] for entry in entries]
    assert kinds == sorted(kinds)


def test_buses_and_interrupts() -> None:
    _, entries = parse(mp_tables(1, 0, 0).data)
    buses = [entry[2:] for entry in entries if entry[0] == 1]
    assert buses == [b"ISA   "]
    assert [struct.unpack("<BBBBI", entry) for entry in entries if entry[0] == 2] == [
        (2, 8, 0x11, 1, 0xFEC00000)
    ]
    wired = [(entry[1], entry[5], entry[6], entry[7]) for entry in entries if entry[0] == 3]
    # Input 0 is the 8259s', the timer's is 2.
    assert wired[:2] == [(3, 0, 8, 0), (0, 0, 8, 2)]
    assert wired[2:] == [(0, irq, 8, irq) for irq in (1, *range(3, 16))]
    local = [(entry[1], entry[6], entry[7]) for entry in entries if entry[0] == 4]
    assert local == [(3, 0xFF, 0), (1, 0xFF, 1)]


@pytest.mark.parametrize("apic", [True, False])
def test_a_machine_has_them_where_kernels_look(make_machine, tiny_guest, *, apic: bool) -> None:
    machine = make_machine(tiny_guest("start: FINISH 0"), apic=apic)
    area = machine.memory.read(0xF0000, 0x10000)
    found = [at for at in range(0, 0x10000, 16) if area[at : at + 4] == b"_MP_"]
    assert found == ([MP_ADDRESS - 0xF0000] if apic else [])
    machine.close()


def test_the_description_says_no_by_default() -> None:
    assert not MachineDescription(b"").apic
