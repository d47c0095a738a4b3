import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rombuilder import probe as probe_module
from rombuilder.assembler import assemble_text
from rombuilder.inspect import inspect_rom
from rombuilder.rom import Flavour, Rom, build_rom
from vmi.header import HeaderError, RomHeader, checksum
from vmi.relocation import RelocationKind

IDENTITY = build_rom(Flavour.IDENTITY)


def summed(data: bytearray) -> bytes:
    """The image with its byte sum made 0 again."""
    data[-1] = (data[-1] - checksum(bytes(data))) & 0xFF
    return bytes(data)


def with_code(symbol: str, source: str, rom: Rom = IDENTITY) -> bytes:
    """The ROM with a function overwritten."""
    data = bytearray(rom.data)
    code = assemble_text(source).section(".text").data
    offset = rom.symbols[symbol]
    data[offset : offset + len(code)] = code
    return summed(data)


def patched(offset: int, value: bytes) -> bytes:
    data = bytearray(IDENTITY.data)
    data[offset : offset + len(value)] = value
    return summed(data)


def codes(data: bytes) -> list[str]:
    return [defect.code for defect in inspect_rom(data).defects]


@pytest.mark.parametrize("flavour", list(Flavour))
def test_our_roms_have_no_defects(flavour: Flavour) -> None:
    rom = build_rom(flavour)
    found = inspect_rom(rom.data)
    assert found.defects == ()
    assert (found.manufacturer, found.product, found.license) == (
        "vmirom",
        flavour.value,
        "GPL v2",
    )
    assert found.init_result == 0
    assert len(found.calls) == 128
    assert found.sha256 == rom.sha256
    iret = found.calls[33]
    assert (iret.name, iret.kind) == ("IRET", RelocationKind.JUMP_REL)
    assert iret.offset == rom.symbols["native_IRET"]


HEADER = RomHeader.parse(IDENTITY.data)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (IDENTITY.data[:512], "truncated"),
        (IDENTITY.data[:-1] + b"\x01", "checksum"),
        (patched(2, b"\0"), "size-zero"),
        (patched(0x0D, b"\x04"), "api-version"),
        (patched(0x18, b"\0\0"), "pcir-missing"),
        (patched(HEADER.pcir_offset, b"X"), "pcir"),
        (patched(HEADER.pcir_offset + 4, b"\x86\x80"), "pci-id"),
        (patched(HEADER.pcir_offset + 0x10, b"\x01"), "pcir-size"),
        (patched(HEADER.pcir_offset + 0x0A, b"\x04"), "pcir-length"),
        (patched(HEADER.pnp_offset, b"X"), "pnp"),
        (patched(HEADER.pnp_offset + 9, b"\xff"), "pnp-checksum"),
        (patched(HEADER.license_offset, b"MIT\0"), "license"),
        (patched(0x16, b"\xff\xff"), "license"),
    ],
)
def test_header_defects(data: bytes, code: str) -> None:
    assert code in codes(data)


@pytest.mark.parametrize(
    ("symbol", "source", "expected"),
    [
        ("vmi_init", "mov $1, %eax\n ret", "vmi_init answers 0x1, the guest stays native"),
        ("vmi_init", "1: jmp 1b", "vmi_init does not return within 100000 instructions"),
        ("vmi_init", "cli\n hlt", "vmi_init does not return within"),
        (
            "vmi_init",
            "xor %eax,%eax\n mov %eax, 0xc8000\n ret",
            "writes to its own image at offset",
        ),
        ("vmi_init", "mov 0x12345678, %eax\n ret", r"reads from 0x12345678 \(4 bytes\)"),
        ("vmi_init", "ud2", "raises interrupt or exception|cannot be executed"),
        ("vmi_init", "int $0x80\n ret", "raises interrupt or exception 128"),
        ("vmi_init", "xor %eax,%eax\n xor %ebx,%ebx\n ret", "vmi_init: EBX is not kept"),
        ("vmi_init", "xor %eax,%eax\n ret $4", "vmi_init: the stack is not balanced"),
        ("vmi_init", "mov $0xf0000, %eax\n jmp *%eax", "runs at 0xf0000"),
        ("get_reloc", "mov $9, %edx\n ret", "call 0: get_reloc answered kind 9"),
        ("get_reloc", "xor %edx,%edx\n ret", "IRET must be answered with JUMP_REL, not NONE"),
        ("get_reloc", "mov $1,%edx\n xor %eax,%eax\n ret", "CPUID is said to be at 0x0, outside"),
        ("get_reloc", "mov $2,%edx\n mov $0xc8010,%eax\n ret", "CPUID returns, so JUMP_REL makes"),
        ("get_reloc", "mov $3,%edx\n ret", "call 99 does not exist, the answer is NOP"),
        ("get_reloc", "cmp $5,%eax\n 1: je 1b\n ret", r"get_reloc\(5\) does not return"),
        (
            "get_reloc",
            "xor %edx,%edx\n cmp $66,%eax\n jne 1f\n mov $3,%edx\n 1: ret",
            "GetCycleFrequency is offered but GetCycleCounter is not",
        ),
    ],
)
def test_defects_that_show_when_it_runs(symbol: str, source: str, expected: str) -> None:
    found = inspect_rom(with_code(symbol, source))
    assert any(re.search(expected, d.text) for d in found.defects), found.defects


@pytest.mark.parametrize(
    "source",
    [
        "mov %eax, %dr7\n mov $-1,%eax\n mov %eax,%dr7\n ret",
        "sysenter",
        "mov %eax, %cr0\n ret",
        "mov $-1, %eax\n mov %eax, %cr0\n mov %eax, %cr4\n mov %eax, %cr3\n ret",
        "mov $-1, %ecx\n rep lodsb\n ret",
        "mov $-1, %ecx\n mov $0x80000, %edi\n rep insb\n ret",
        "mov $0x80000, %esp\n push %eax",
        "lgdt 0xc8000\n ljmp $0x10, $0",
    ],
)
def test_a_hostile_rom_does_no_harm(source: str) -> None:
    found = inspect_rom(with_code("vmi_init", source))
    assert found.file_size == len(IDENTITY.data)


def test_a_crash_of_the_emulator_is_a_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setattr(probe_module, "_WORKER", worker)
    (defect,) = inspect_rom(IDENTITY.data).defects
    assert defect.code == "vmi-init"
    assert defect.text == "vmi_init kills the emulator that runs it (status -11)"


def other_rom() -> bytearray:
    data = bytearray(1024)
    data[:3] = b"\x55\xaa\x02"
    return data


def test_a_rom_that_is_no_vmi_rom_is_not_run() -> None:
    found = inspect_rom(summed(other_rom()))
    assert found.defects == ()
    assert not found.is_vmi
    assert found.init_result is None
    assert found.calls == ()


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "image ends at 0x0"), (b"MZ" + bytes(510), "not an option ROM: it starts with 0x5a4d")],
)
def test_what_is_no_rom_at_all(data: bytes, message: str) -> None:
    with pytest.raises(HeaderError, match=message):
        inspect_rom(data)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(3, 1023), st.integers(0, 255)), max_size=20),
    st.integers(32, 1024),
)
def test_damaged_headers_are_judged_without_failing(
    changes: list[tuple[int, int]], length: int
) -> None:
    data = other_rom()
    data[0x18:0x1C] = b"\x20\x00\x60\x00"
    data[0x20:0x24] = b"PCIR"
    data[0x60:0x66] = b"$PnP\x10\x02"
    for offset, value in changes:
        data[offset] = value
    data[8] = 0  # never a VMI ROM: those are run
    assert inspect_rom(bytes(data[:length])).file_size == length


@pytest.mark.peer("/usr/share/seabios")
def test_debian_option_roms() -> None:
    found = sorted(Path("/usr/share/seabios").glob("vgabios-*.bin"))
    assert found
    for path in found:
        inspection = inspect_rom(path.read_bytes())
        assert inspection.defects == (), path
        assert inspection.header.size == path.stat().st_size


def legacy(
    *, blocks: int = 1, revision: int = 0, last: bool = True, code_type: int = 0, **fields: bytes
) -> bytearray:
    """An image of any code type; `fields` are bytes by hex offset, as at_40=b"..."."""
    data = bytearray(blocks * 512)
    data[:3] = bytes([0x55, 0xAA, blocks])
    data[0x18] = 0x20
    data[0x20:0x24] = b"PCIR"
    data[0x24:0x28] = bytes.fromhex("86800e10")
    data[0x2A] = 0x1C if revision >= 3 else 0x18
    data[0x2C] = revision
    data[0x30] = blocks
    data[0x34] = code_type
    data[0x35] = 0x80 if last else 0
    for name, value in fields.items():
        at = int(name.removeprefix("at_"), 16)
        data[at : at + len(value)] = value
    data[-1] = -sum(data) & 0xFF
    return data


def test_several_images_and_what_they_are() -> None:
    first = legacy(
        blocks=2, revision=3, last=False,
        at_28=b"\x20\x00",  # the list, from PCIR
        at_36=b"\x01\x00",  # run-time size
        at_40=b"\x0e\x10\x0f\x10\x00\x00",
    )  # fmt: skip
    second = legacy(
        blocks=3, code_type=3, at_04=bytes.fromhex("f10e00000b0064860100"), at_16=b"\x38\x00"
    )
    found = inspect_rom(bytes(first + second))
    assert found.defects == ()
    one, two = found.images
    assert (one.offset, one.size, one.kind, one.runtime_size) == (0, 1024, "PC-AT", 512)
    assert one.devices == (0x100E, 0x100F)
    assert (two.offset, two.size, two.kind, two.runtime_size) == (1024, 1536, "EFI", None)
    assert two.efi is not None
    assert (two.efi.machine, two.efi.subsystem) == ("x64", "boot service driver")
    assert (two.efi.compressed, two.efi.image_offset) == (True, 0x38)
    assert two.devices == ()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (legacy(last=False), "last-image"),
        (legacy(last=False) + legacy(code_type=3), "efi"),
        (legacy(last=False) + legacy(blocks=2)[:512], "truncated"),
        (legacy(last=False) + legacy()[:-1] + b"\x77", "checksum"),
        (legacy(revision=3, at_36=b"\x09"), "runtime-size"),
    ],
)
def test_defects_between_images(data: bytearray, code: str) -> None:
    assert codes(bytes(data)) == [code]


def test_a_chain_of_pnp_headers_ends_even_in_a_circle() -> None:
    def header(following: int) -> bytes:
        data = bytearray(b"$PnP\x10\x02" + following.to_bytes(2, "little") + bytes(24))
        data[9] = -sum(data) & 0xFF
        return bytes(data)

    data = legacy(at_1a=b"\x60\x00", at_60=header(0x80), at_80=header(0x60))
    found = inspect_rom(bytes(data))
    assert list(found.images[0].pnp) == [0x60, 0x80]
    assert found.defects == ()
    data[0x8F] ^= 1
    data[-1] = -sum(data[:-1]) & 0xFF
    assert codes(bytes(data)) == ["pnp-checksum"]


@pytest.mark.peer("/usr/lib/ipxe/qemu")
def test_debian_network_roms() -> None:
    for path in sorted(Path("/usr/lib/ipxe/qemu").glob("efi-*.rom")):
        found = inspect_rom(path.read_bytes())
        assert found.defects == (), path
        assert [image.kind for image in found.images] == ["PC-AT", "EFI"]
        assert found.images[0].runtime_size is not None
        assert sum(image.size for image in found.images) == found.file_size
        assert found.product == "iPXE"
