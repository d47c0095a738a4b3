import struct
from pathlib import Path

import pytest

from rombuilder import guest as guest_module
from rombuilder.errors import BuildError
from rombuilder.guest import (
    UnknownGuestError,
    build_guest,
    guest_layout,
    guest_names,
    guest_summary,
)


@pytest.mark.parametrize("name", guest_names())
def test_multiboot_header_tells_where_things_are(name: str) -> None:
    guest = build_guest(name)
    offset = guest.data.find(struct.pack("<I", 0x1BADB002))
    assert 0 <= offset < 8192
    assert offset % 4 == 0
    magic, flags, total, header, load, load_end, bss_end, entry = struct.unpack_from(
        "<8I", guest.data, offset
    )
    assert (magic + flags + total) & 0xFFFFFFFF == 0
    assert load == guest.load_address == 0x100000
    assert header == load + offset
    assert load_end == load + len(guest.data)
    assert bss_end == guest.symbols["__image_bss_end"] - guest.kernel_base
    assert load <= entry < load_end


@pytest.mark.parametrize("name", guest_names())
def test_builds_are_repeatable_and_described(name: str) -> None:
    first = build_guest(name)
    assert first.sha256 == build_guest(name).sha256
    assert first.name == name
    assert first.summary == guest_summary(name) != ""
    assert ".text" in first.map_text()


def test_the_main_guests_are_there() -> None:
    assert {"forkstorm", "mmapstorm", "pagefault", "ctxswitch"} <= set(guest_names())


def test_unknown_guest() -> None:
    with pytest.raises(UnknownGuestError, match=r"unknown guest 'nope'; there are calibrate, "):
        build_guest("nope")


def test_an_own_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "guest.ld").write_text((guest_module.guests_dir() / "guest.ld").read_text())
    (tmp_path / "mini.S").write_text("start: mov $start, %eax\n mov $N, %al\n.bss\n.skip 16\n")
    monkeypatch.setattr(guest_module, "guests_dir", lambda: tmp_path)
    monkeypatch.setattr("rombuilder.sources.guests_dir", lambda: tmp_path)
    guest = build_guest("mini", defines={"N": 5})
    assert guest.data == bytes.fromhex("b8 000010c0 b0 05")
    assert guest.summary == ""
    assert guest.symbols["__image_bss_end"] == 0xC0100000 + 7 + 16


def test_missing_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rombuilder.sources._PACKAGE", tmp_path / "rombuilder")
    with pytest.raises(BuildError, match=r"cannot find the guests sources, looked at .*_sources"):
        guest_names()
    packaged = tmp_path / "rombuilder" / "_sources" / "guests"
    packaged.mkdir(parents=True)
    (tmp_path / "guests").mkdir()
    assert guest_module.guests_dir() == packaged


def test_a_layout_that_there_is_not(tmp_path: Path) -> None:
    source = tmp_path / "odd.S"
    source.write_text("# summary: odd\n# layout: odd.ld\nstart: ret\n")
    with pytest.raises(
        BuildError, match=r"odd.S: layout 'odd.ld', expected one of guest.ld, flat.ld"
    ):
        guest_layout(source)


def test_an_unpaged_guest_is_linked_where_it_is_loaded() -> None:
    guest = build_guest("portstorm")
    assert guest.kernel_base == 0
    assert guest.symbols["__image_bss_end"] > guest.load_address == 0x100000
