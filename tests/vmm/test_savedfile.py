"""Files of saved machines: whole or refused, and none that leads out of the guest's memory."""

from __future__ import annotations

import json
import os
import zipfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bench.inputs import load_guest, load_rom
from vmm.core.errors import BadDescription
from vmm.machine import Machine, MachineDescription
from vmm.savedfile import VERSION


def _forkstorm() -> Machine:
    image, rom = load_guest("forkstorm").image, load_rom("batching").image
    return Machine(MachineDescription(image, rom, memory=4 << 20))


def _saved(path: Path) -> Path:
    machine = _forkstorm()
    machine.proceed(instructions=1_000_000)
    machine.save(path)
    machine.close()
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return _saved(tmp_path_factory.mktemp("saved") / "machine").read_bytes()


def refused(path: Path, text: str) -> None:
    with pytest.raises(BadDescription, match=text) as caught:
        Machine.resume(path)
    assert str(path) in str(caught.value)


def test_a_truncated_file(saved: bytes, tmp_path: Path) -> None:
    path = tmp_path / "machine"
    for size in (0, 1, len(saved) // 2, len(saved) - 1):
        path.write_bytes(saved[:size])
        refused(path, "truncated")


def test_a_damaged_file(saved: bytes, tmp_path: Path) -> None:
    """A byte anywhere: the CRC of an entry, or the directory, tells."""
    path = tmp_path / "machine"
    for at in range(60, len(saved) - 60, len(saved) // 40):
        damaged = bytearray(saved)
        damaged[at] ^= 0x5A
        path.write_bytes(damaged)
        with suppress(BadDescription):
            # A byte that nobody reads: a time, a comment.
            Machine.resume(path).close()


def test_another_file(tmp_path: Path) -> None:
    path = tmp_path / "machine"
    path.write_text("{}")
    refused(path, "truncated, or no saved machine")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "not this one")
    refused(path, "no saved machine")
    refused(tmp_path / "absent", "No such file")
    refused(tmp_path, "directory")


def rewritten(saved: bytes, path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The file with another `machine.json`."""
    path.write_bytes(saved)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    head = json.loads(entries["machine.json"])
    change(head)
    entries["machine.json"] = json.dumps(head).encode()
    _write(path, entries)
    return path


def _write(path: Path, entries: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


@pytest.mark.parametrize("version", [VERSION - 1, VERSION + 1])
def test_a_file_of_another_version(saved: bytes, tmp_path: Path, version: int) -> None:
    path = rewritten(saved, tmp_path / "machine", lambda head: head.update(version=version))
    refused(path, f"version {version}, by vmirom .*: expected version {VERSION}")


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all values in a tree."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        for i, item in enumerate(value[:4]):
            yield from leaves(item, (*path, i))
    else:
        yield path


def replaced(head: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        head = head[key]
    head[path[-1]] = value


def test_no_value_brings_down_the_host(saved: bytes, tmp_path: Path) -> None:
    """Each value in the file replaced by others: refused, or a guest that runs or fails."""
    with zipfile.ZipFile(_file(tmp_path, saved)) as archive:
        places = list(leaves(json.loads(archive.read("machine.json"))))
    assert len(places) > 250
    accepted = 0
    for number, place in list(enumerate(places))[::4]:
        value = (None, -1, 1 << 70, "x", [], {}, 0xFFFFFFFF, True)[number // 4 % 8]
        path = rewritten(
            saved, tmp_path / "machine", lambda head, p=place, v=value: replaced(head, p, v)
        )
        try:
            machine = Machine.resume(path, max_instructions=1_200_000, seconds=5)
        except BadDescription:
            continue
        accepted += 1
        machine.run()
    assert accepted < len(places) // 8


def _file(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "whole"
    path.write_bytes(data)
    return path


def shadow_with(
    saved: bytes, path: Path, name: str, change: Callable[[array[int]], None], kind: str = "Q"
) -> Path:
    """The file with other shadow tables."""
    path.write_bytes(saved)
    with zipfile.ZipFile(path) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    words = array(kind, entries[f"state/pages/entries/{name}"])
    change(words)
    entries[f"state/pages/entries/{name}"] = words.tobytes()
    _write(path, entries)
    return path


def first(words: array[int], wanted: Callable[[int], bool]) -> int:
    return next(i for i, word in enumerate(words) if i >= 512 and wanted(word))


@pytest.mark.parametrize(
    "address",
    [0xE0000000, 0xE0002000, 0xF0000000, 0xF0002000, 0xF8000000, 0xFFFFF000, 4 << 20],
    ids=hex,
)
def test_shadow_entries_lead_to_the_guests_memory_alone(
    address: int, saved: bytes, tmp_path: Path
) -> None:
    """Not to the tables themselves, nor to what the engine keeps beside them."""

    def change(words: array[int]) -> None:
        at = first(words, lambda word: word & 3 == 3 and word & 0xFFFFF000 < 4 << 20)
        words[at] = words[at] & ~0xFFFFF000 | address

    refused(shadow_with(saved, tmp_path / "machine", "entries", change), "shadow entry")


def test_shadow_links_lead_to_the_level_below(saved: bytes, tmp_path: Path) -> None:
    def to_root(words: array[int]) -> None:
        at = first(words, lambda word: word & 0xFF000001 == 0xE0000001 and word & 0xFFFFFF > 0x1FFF)
        words[at] = words[at] & ~0xFFFFF000 | 0xE0000000

    refused(shadow_with(saved, tmp_path / "machine", "entries", to_root), "shadow entry")

    def into_page(words: array[int]) -> None:
        words[0] = 0x00100001

    refused(shadow_with(saved, tmp_path / "machine", "entries", into_page), "shadow entry")


@pytest.mark.parametrize("name", ["pages", "free", "mappings", "parents"])
def test_lists_of_the_shadow_are_whole(name: str, saved: bytes, tmp_path: Path) -> None:
    for change in (
        lambda words: words.pop(),
        lambda words: words.append(words[0]),
        lambda words: words.__setitem__(0, 0xFFFFFFFF),
        lambda words: words.__setitem__(len(words) - 1, words[len(words) - 1] + 1),
    ):
        refused(shadow_with(saved, tmp_path / "machine", name, change, "I"), "pages: entries")


def test_a_cpu_without_tables_of_its_own(saved: bytes, tmp_path: Path) -> None:
    for root in (0, 0x1000, 0xE0001000):

        def change(head: dict[str, Any], root: int = root) -> None:
            head["state"]["cpu0"]["vcpu"]["cpu"]["root"] = root

        refused(rewritten(saved, tmp_path / "machine", change), "tables")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "machine"
    _saved(path)
    before = path.read_bytes()
    machine = _forkstorm()

    def fails(_text: str) -> None:
        raise OSError(28, os.strerror(28))

    with pytest.raises(BadDescription, match="No space left"):
        machine.save(path, fails)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["machine"]
    with pytest.raises(BadDescription, match="No such file"):
        machine.save(tmp_path / "absent" / "machine")
    machine.close()


def test_zero_pages_take_no_room(saved: bytes) -> None:
    assert len(saved) < 200_000
