import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linker.errors import LinkError
from rombuilder.assembler import assemble_text
from rombuilder.errors import BuildError, QueueCapacityError
from rombuilder.rom import Calls, Flavour, Rom, Visibility, build_rom
from vmi.header import Pcir, Pnp, RomHeader, checksum
from vmi.queue import MAX_CAPACITY

PAGE, UNIT = 0x1000, 0x800


@pytest.mark.parametrize("flavour", list(Flavour))
def test_finished_headers(flavour: Flavour) -> None:
    rom = build_rom(flavour)
    header = RomHeader.parse(rom.data)
    assert header.is_vmi
    assert header.size == len(rom.data)
    assert checksum(rom.data) == 0
    assert Pcir.parse(rom.data, header.pcir_offset).image_blocks * 512 == len(rom.data)
    assert Pnp.parse(rom.data, header.pnp_offset).checksum_ok


def test_a_name_is_as_good_as_its_member() -> None:
    for flavour in Flavour:
        assert build_rom(flavour.value).data == build_rom(flavour).data  # type: ignore[arg-type]


@pytest.mark.parametrize("flavour", list(Flavour))
def test_entries_jump_to_their_code(flavour: Flavour) -> None:
    rom = build_rom(flavour)
    for offset, symbol in ((0x80, "vmi_init"), (0x88, "get_reloc")):
        opcode, distance = struct.unpack_from("<Bi", rom.data, offset)
        assert (opcode, offset + 5 + distance) == (0xE9, rom.symbols[symbol])


def test_same_arguments_same_bytes() -> None:
    first = build_rom(Flavour.BATCHING, queue=64)
    assert first.sha256 == build_rom(Flavour.BATCHING, queue=64).sha256
    assert first.sha256 != build_rom(Flavour.BATCHING, queue=65).sha256


def test_identity_has_no_writable_data() -> None:
    rom = build_rom(Flavour.IDENTITY)
    assert [section.name for section in rom.image.sections] == [
        ".header",
        ".post",
        ".text",
        ".rodata",
    ]
    assert rom.symbols["__data_size"] == 0
    assert len(rom.data) - rom.symbols["__rom_end"] < 512
    assert rom.calls is Calls.ALL


def check_pages(rom: Rom) -> None:
    """The pages that hold data hold nothing else, wherever firmware puts the image."""
    start, end = rom.symbols["__data_start"], rom.symbols["__data_end"]
    assert start % UNIT == 0
    assert end % UNIT == 0
    for base in (0xC0000, 0xC0800):
        first = (base + start) // PAGE * PAGE - base
        last = -(-(base + end) // PAGE) * PAGE - base
        assert rom.symbols["__rodata_end"] <= first
        assert last <= len(rom.data)
        assert not any(rom.data[first:start])
        assert not any(rom.data[end:last])


@settings(max_examples=8, deadline=None)
@given(queue=st.integers(1, MAX_CAPACITY))
def test_pages_opened_for_the_data_hold_nothing_else(queue: int) -> None:
    check_pages(build_rom(Flavour.BATCHING, queue=queue))


@pytest.mark.parametrize("size", [1, 511, 512, 513, 2047, 2048, 5000, 0x5000, 0xF000])
def test_code_may_be_as_long_as_it_needs_to_be(size: int) -> None:
    """The data and its guards move up, in whole units; everything stays in the image."""
    more = assemble_text(f"more: .fill {size}, 1, 0x90")
    plain, rom = build_rom(), build_rom(objects=[more])
    check_pages(rom)
    assert abs(rom.symbols["__rodata_end"] - plain.symbols["__rodata_end"] - size) < 4
    assert 0 <= len(rom.data) - len(plain.data) - size // UNIT * UNIT <= UNIT
    header = RomHeader.parse(rom.data)
    assert header.size == len(rom.data)
    assert checksum(rom.data) == 0
    identity = build_rom(Flavour.IDENTITY, objects=[more])
    assert len(identity.data) - identity.symbols["__rom_end"] < 512


def test_a_rom_that_is_too_large_is_refused() -> None:
    more = assemble_text(".data\n .skip 0x20000")
    size = build_rom().symbols["__data_end"] + 0x20000
    with pytest.raises(LinkError, match=f"image is {size} bytes, at most 130560 are allowed"):
        build_rom(objects=[more])


def test_the_queue_header_tells_the_size_of_the_region() -> None:
    rom = build_rom(Flavour.BATCHING, queue=7)
    magic, size, capacity = struct.unpack_from("<4sII", rom.data, rom.symbols["queue_header"])
    assert magic == b"VMIq"
    assert size == rom.symbols["__data_end"] - rom.symbols["queue_header"]
    assert capacity == 7


@pytest.mark.parametrize("queue", [0, -1, MAX_CAPACITY + 1])
def test_queue_out_of_range(queue: int) -> None:
    with pytest.raises(QueueCapacityError, match=f"queue of {queue} records: .* 1 to 1024"):
        build_rom(Flavour.BATCHING, queue=queue)


def test_calls_can_be_chosen() -> None:
    assert build_rom(Flavour.BATCHING).calls is Calls.NEEDED
    chosen = build_rom(Flavour.BATCHING, calls=Calls.ALL)
    assert chosen.calls is Calls.ALL
    assert chosen.data != build_rom(Flavour.BATCHING).data


def test_visibility_matters_to_batching_only() -> None:
    assert build_rom().visibility is Visibility.TLB
    strict = build_rom(visibility=Visibility.STRICT)
    assert strict.data == build_rom(defines={"VISIBILITY_STRICT": 1}).data
    assert strict.data != build_rom().data
    identity = build_rom(Flavour.IDENTITY, visibility=Visibility.STRICT)
    assert identity.data == build_rom(Flavour.IDENTITY).data


def test_a_define_cannot_move_the_entries() -> None:
    with pytest.raises(BuildError, match=r"the entry at 0x88 must be a jump to get_reloc, found"):
        build_rom(Flavour.IDENTITY, defines={"VMI_GET_RELOC_OFFSET": 0x90})


def test_map_shows_symbols() -> None:
    text = build_rom(Flavour.BATCHING).map_text()
    assert "header.o" in text
    assert "queue_header" in text
    assert "__data_start" in text


@pytest.mark.parametrize("flavour", list(Flavour))
def test_code_of_calls_that_are_not_offered_is_left_out(flavour: Flavour) -> None:
    every, needed = (build_rom(flavour, calls=calls) for calls in (Calls.ALL, Calls.NEEDED))
    assert needed.symbols["__rodata_end"] < every.symbols["__rodata_end"] - 512
    assert not needed.symbols.keys() & {"native_CPUID", "native_GetDR", "native_Reboot"}
    assert len(needed.data) <= len(every.data)


def test_both_flavours_build_in_under_a_second() -> None:
    """The best of five: what a busy machine adds is no property of the builder."""

    def once() -> float:
        start = time.perf_counter()
        for flavour in Flavour:
            build_rom(flavour)
        return time.perf_counter() - start

    assert min(once() for _ in range(5)) < 1.0


def test_a_pci_number_has_16_bits() -> None:
    with pytest.raises(BuildError, match="PCI device 0x10000:0x1: each number has 16 bits"):
        build_rom(Flavour.IDENTITY, pci=(0x10000, 1))
