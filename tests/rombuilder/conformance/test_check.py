"""A check at arm's length: headers, hostile ROMs, and what is no ROM."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import pytest

from rombuilder.conformance import check as check_module
from rombuilder.conformance.check import check_rom
from rombuilder.rom import Calls, Flavour, build_rom
from vmi.header import HeaderError, RomHeader

IDENTITY = build_rom(Flavour.IDENTITY, calls=Calls.NEEDED).data
HEADER = RomHeader.parse(IDENTITY)

Plant = Callable[..., bytes]
Finish = Callable[[bytearray], bytes]


@pytest.mark.parametrize(
    ("offset", "value", "code", "text"),
    [
        (HEADER.license_offset, b"MIT\0", "license", "licence 'MIT'"),
        (HEADER.pcir_offset, b"X", "pcir", "PCI data structure at"),
        (HEADER.pcir_offset + 4, b"\x86\x80", "pci-id", "8086"),
        (HEADER.pnp_offset + 9, b"\xff", "pnp-checksum", "does not sum to 0"),
        (0x0D, b"\x04", "api-version", "API version 4.0"),
    ],
)
def test_headers(finish: Finish, offset: int, value: bytes, code: str, text: str) -> None:
    data = bytearray(IDENTITY)
    data[offset : offset + len(value)] = value
    if code == "pcir":
        data[-1] = (data[-1] - sum(data)) & 0xFF
        image = bytes(data)
    else:
        image = finish(data)
    found = {finding.code: finding for finding in check_rom(image, states=1).findings}
    assert list(found) == [code]
    assert text in found[code].text
    assert found[code].call is None
    assert "PCI Firmware Specification" in found[code].source


def test_a_wrong_checksum() -> None:
    data = IDENTITY[:-1] + bytes([IDENTITY[-1] ^ 1])
    assert [finding.code for finding in check_rom(data, states=1).findings] == ["checksum"]


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("jmp planted", "runaway"),
        ("call planted", "recursion"),
        ("mov $-1, %ecx\n mov %edx, %esi\n rep lodsb\n ret", "access"),
        ("mov $-1, %ecx\n mov $0x60, %edx\n xor %edi, %edi\n rep insb\n ret", "absolute-address"),
        ("mov $-1, %eax\n mov %eax, %cr0\n mov %eax, %cr4\n mov %eax, %dr7\n ret", "effect"),
        ("sysenter", "exception"),
        ("lgdt (%esp)\n ljmp $0x10, $0", "exception"),
        ("xor %esp, %esp\n push %eax\n ret", "access"),
        ("xor %eax, %eax\n mov %eax, %ss\n ret", "exception"),
        ("push $0x20000\n push $0x60\n push $0\n iretl", "absolute-address"),
        (".byte 0x0f, 0xff, 0xff", "exception"),
        (".byte 0xf0, 0x0f, 0xc7, 0xc8\n ret", "exception"),
    ],
)
def test_a_hostile_rom_does_no_harm(plant: Plant, source: str, code: str) -> None:
    begun = time.monotonic()
    codes = {finding.code for finding in check_rom(plant("SetPxE", source), states=1).findings}
    assert codes
    assert code in codes
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("import os; os.kill(os.getpid(), 11)", "status -11: it was killed, or took too long"),
        ("raise MemoryError('all gone')", "status 1: MemoryError: all gone"),
    ],
)
def test_the_death_of_the_worker_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, command: str, text: str
) -> None:
    monkeypatch.setattr(check_module, "_COMMAND", (sys.executable, "-c", command))
    (found,) = check_rom(IDENTITY).findings
    assert found.code == "emulator"
    assert found.call == "vmi_init"
    assert text in found.text


def test_a_worker_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_module, "_COMMAND", (sys.executable, "-c", "while True: pass"))
    monkeypatch.setattr(check_module, "_BASE_SECONDS", 0)
    monkeypatch.setattr(check_module, "_SECONDS_PER_STATE", 0.1)
    (found,) = check_rom(IDENTITY).findings
    assert "status -9" in found.text


def test_progress_is_told() -> None:
    told: list[str] = []
    check_rom(IDENTITY, states=1, progress=told.append)
    assert told[0] == "0 %: CPUID at 0xc00c0000"
    assert told[-1].startswith("99 %: ")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "image ends at 0x0"),
        (b"\x7fELF" + bytes(1000), "not an option ROM"),
        (b"\x55\xaa\x01" + bytes(509), "not a VMI ROM: signature 0x00000000 at 0x8"),
    ],
)
def test_what_is_no_vmi_rom(data: bytes, text: str) -> None:
    with pytest.raises(HeaderError, match=text):
        check_rom(data)
