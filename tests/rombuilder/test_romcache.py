"""ROM images kept in the user's cache: the same bytes, and nothing believed that is not whole."""

import concurrent.futures
import os
from pathlib import Path

import pytest

import rombuilder.rom
import rombuilder.romcache
from rombuilder.flavour import Calls, Flavour, Visibility
from rombuilder.rom import build_rom
from rombuilder.romcache import cache_dir, rom_image


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "vmirom" / "roms"


def _no_building(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a ROM was built")

    monkeypatch.setattr(rombuilder.rom, "build_rom", refuse)


def test_an_image_is_built_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = build_rom(Flavour.BATCHING, queue=32)
    assert rom_image(Flavour.BATCHING, 32, Visibility.TLB) == (built.data, Calls.NEEDED)
    assert [path.suffix for path in cache.iterdir()] == [".rom"]
    _no_building(monkeypatch)
    assert rom_image(Flavour.BATCHING, 32, Visibility.TLB) == (built.data, Calls.NEEDED)


def test_options_and_sources_tell_images_apart(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rom_image(Flavour.BATCHING, 32, Visibility.TLB)
    rom_image(Flavour.BATCHING, 33, Visibility.TLB)
    rom_image(Flavour.BATCHING, 32, Visibility.STRICT)
    assert len(list(cache.iterdir())) == 3
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "new.S").write_text("nop\n")
    monkeypatch.setattr(rombuilder.romcache, "rom_dir", lambda: sources)
    _no_building(monkeypatch)
    with pytest.raises(AssertionError, match="was built"):
        rom_image(Flavour.BATCHING, 32, Visibility.TLB)


@pytest.mark.parametrize("damage", ["empty", "short", "flipped", "directory"])
def test_a_damaged_file_is_built_anew(cache: Path, damage: str) -> None:
    built = rom_image(Flavour.IDENTITY, 32, Visibility.TLB)
    (path,) = cache.iterdir()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    if damage == "directory":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes({"empty": b"", "short": bytes(data[:40]), "flipped": bytes(data)}[damage])
    assert rom_image(Flavour.IDENTITY, 32, Visibility.TLB) == built
    if damage == "directory":
        assert list(cache.iterdir()) == [path]
    else:
        assert rombuilder.romcache._load(path) == built[0]


def test_a_cache_that_cannot_be_made_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert rom_image(Flavour.IDENTITY, 32, Visibility.TLB)[0] == build_rom(Flavour.IDENTITY).data


def test_a_relative_cache_folder_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert cache_dir() == Path.home() / ".cache" / "vmirom" / "roms"


def test_the_oldest_images_give_way(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rombuilder.romcache, "_MOST_IMAGES", 2)
    cache.mkdir(parents=True)
    for age in range(4):
        path = cache / f"{age}.rom"
        path.write_bytes(b"")
        os.utime(path, (age, age))
    image, _ = rom_image(Flavour.IDENTITY, 32, Visibility.TLB)
    names = {path.name for path in cache.iterdir()}
    assert len(names) == 2
    assert "3.rom" in names
    assert image


def test_builders_side_by_side_store_whole_files(cache: Path) -> None:
    image = bytes(range(256)) * 64
    cache.mkdir(parents=True)
    path = cache / "one.rom"

    def store_and_load(_: int) -> bytes | None:
        rombuilder.romcache._store(path, image)
        return rombuilder.romcache._load(path)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert set(pool.map(store_and_load, range(64))) == {image}
    assert list(cache.iterdir()) == [path]
