"""The file that a machine is saved in: a zip archive of JSON and raw arrays.

Zip, because every entry has a CRC and a size that is known before it is unpacked, a truncated
file has no directory, and `unzip` shows what is inside. JSON and raw bytes, because
reading them can make nothing but numbers and text: the file may come from anybody.

`machine.json` says what the machine is and how it stands; bytes in it are entries of their
own, named by their place. `memory.index` has the numbers of the pages that are not all
zeroes, 32 bits each, and `memory.pages` these pages one behind the other. All
numbers are little-endian (docs/monitor.md, "Saved machines").
"""

import json
import os
import tempfile
import zipfile
import zlib
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from mmap import mmap
from pathlib import Path
from typing import Any, BinaryIO

from vmi.address import PAGE_SIZE
from vmm.core.errors import BadDescription
from vmm.ram import touched_ranges

__all__ = ["FORMAT", "VERSION", "Told", "read_memory", "read_saved", "write_saved"]

FORMAT = "vmirom machine"
VERSION = 2

Told = Callable[[str], None]
"""Hears what is being done, for a progress line."""

_HEAD, _INDEX, _PAGES = "machine.json", "memory.index", "memory.pages"
_BYTES = "$bytes"
_MOST_HEAD = 64 << 20
_MOST_BYTES = 256 << 20
_LEVEL = 1
"""Of deflate: half the size of no compression, at ten times the speed of the best."""
_AT_ONCE = 256
_ZERO = bytes(PAGE_SIZE)
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def write_saved(path: Path, head: dict[str, Any], memory: mmap, tell: Told) -> int:
    """Write a machine to a file, whole or not at all; answers its size in bytes.

    `memory` is from `guest_ram`. Raises `BadDescription` where the file cannot be written; what
    was there before is still there then.
    """
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            try:
                _write(file, {"format": FORMAT, "version": VERSION} | head, memory, tell)
                file.flush()
                os.fsync(file.fileno())
                os.fchmod(file.fileno(), 0o666 & ~_umask())
                temporary.replace(path)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink()
                raise
        return path.stat().st_size
    except OSError as error:
        raise BadDescription(f"saved machine {str(path)!r}: {error.strerror or error}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write(file: Any, head: dict[str, Any], memory: mmap, tell: Told) -> None:
    entries: dict[str, bytes] = {}
    text = json.dumps(_without_bytes(head, "", entries), indent=1)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        archive.writestr(_HEAD, text)
        for name, data in entries.items():
            archive.writestr(name, data)
        numbers = array("I")
        with archive.open(_PAGES, "w", force_zip64=True) as out:
            for number, page in _pages(memory):
                if not len(numbers) % (16 * _AT_ONCE):
                    tell(f"saving: {len(numbers) * PAGE_SIZE >> 20} MiB")
                numbers.append(number)
                out.write(page)
        archive.writestr(_INDEX, numbers.tobytes())


def _pages(memory: mmap) -> Iterator[tuple[int, bytes]]:
    """(number, bytes) of each page that is not all zeroes."""
    for start, end in touched_ranges(memory):
        for at in range(start, end, PAGE_SIZE):
            page = memory[at : at + PAGE_SIZE]
            if page != _ZERO:
                yield at // PAGE_SIZE, page


def _without_bytes(value: Any, place: str, entries: dict[str, bytes]) -> Any:
    """JSON's values, with bytes as entries of their own."""
    if isinstance(value, bytes):
        entries[place] = value
        return {_BYTES: place}
    if isinstance(value, dict):
        return {
            key: _without_bytes(item, f"{place}/{key}" if place else key, entries)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_without_bytes(item, f"{place}/{i}", entries) for i, item in enumerate(value)]
    return value


# ---- reading


def read_saved(path: Path) -> dict[str, Any]:
    """What a file says of a machine; see `read_memory` for the rest.

    Raises `BadDescription` for a file that is none, is damaged, or is of another version.
    """
    with _opened(path) as archive:
        try:
            head = json.loads(_content(archive, _HEAD, _MOST_HEAD))
        except (ValueError, RecursionError) as error:
            raise BadDescription(f"{_called(path)}: {_HEAD} is no JSON: {error}") from None
        if not isinstance(head, dict) or head.get("format") != FORMAT:
            raise BadDescription(f"{_called(path)}: expected format {FORMAT!r}")
        version = head.get("version")
        if version != VERSION:
            made_by = head.get("made_by", "another program")
            raise BadDescription(
                f"{_called(path)} is of version {version!r}, by {made_by}: "
                f"expected version {VERSION}"
            )
        room = [_MOST_BYTES]
        found: dict[str, Any] = _with_bytes(head, archive, room)
        return found


def read_memory(path: Path, memory: mmap, tell: Told) -> None:
    """Fill memory, all zeroes so far, from a file.

    Raises `BadDescription` for a file that is damaged, or of a machine with less memory.
    """
    with _opened(path) as archive:
        count = len(memory) // PAGE_SIZE
        raw = _content(archive, _INDEX, 4 * count)
        numbers = array("I")
        if len(raw) % 4:
            raise BadDescription(f"{_called(path)}: {_INDEX} has {len(raw)} bytes")
        numbers.frombytes(raw)
        wrong = next((number for number in numbers if number >= count), None)
        if wrong is not None:
            raise BadDescription(f"{_called(path)}: page {wrong} of {count}")
        if archive.getinfo(_PAGES).file_size != len(numbers) * PAGE_SIZE:
            raise BadDescription(f"{_called(path)}: {_PAGES} is not of {len(numbers)} pages")
        with archive.open(_PAGES) as pages:
            for first in range(0, len(numbers), _AT_ONCE):
                if not first % (16 * _AT_ONCE):
                    tell(f"resuming: {first * PAGE_SIZE >> 20} MiB")
                some = numbers[first : first + _AT_ONCE]
                data = pages.read(len(some) * PAGE_SIZE)
                for i, number in enumerate(some):
                    page = data[i * PAGE_SIZE : (i + 1) * PAGE_SIZE]
                    memory[number * PAGE_SIZE : (number + 1) * PAGE_SIZE] = page
            # The CRC is looked at where the entry ends.
            pages.read(1)


class _opened:  # noqa: N801 - used as a function
    """A zip archive, whose damage is the user's to mend."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> zipfile.ZipFile:
        try:
            self._file: BinaryIO = self._path.open("rb")
            self._archive = zipfile.ZipFile(self._file)
        except OSError as error:
            raise BadDescription(f"{_called(self._path)}: {error.strerror or error}") from None
        except _BROKEN as error:
            self._file.close()
            raise BadDescription(
                f"{_called(self._path)} is truncated, or no saved machine: {error}"
            ) from None
        return self._archive

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._file.close()
        if isinstance(error, KeyError):
            raise BadDescription(f"{_called(self._path)} is no saved machine: {error}") from None
        if isinstance(error, (*_BROKEN, ValueError)) and not isinstance(error, BadDescription):
            raise BadDescription(f"{_called(self._path)} is damaged: {error}") from None
        if isinstance(error, OSError):
            raise BadDescription(f"{_called(self._path)}: {error.strerror or error}") from None


def _called(path: Path) -> str:
    return f"saved machine {str(path)!r}"


def _content(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """An entry, if it is not larger than it can be; raises `KeyError` where there is none."""
    size = archive.getinfo(name).file_size
    if size > most:
        raise zipfile.BadZipFile(f"{name} has {size} bytes, expected at most {most}")
    with archive.open(name) as entry:
        data = entry.read(size + 1)
    if len(data) != size:
        raise zipfile.BadZipFile(f"{name} has {len(data)} bytes, its directory says {size}")
    return data


def _with_bytes(value: Any, archive: zipfile.ZipFile, room: list[int]) -> Any:
    """The values with their bytes; `room` is how many there may still be."""
    if isinstance(value, dict):
        if value.keys() == {_BYTES}:
            data = _content(archive, str(value[_BYTES]), room[0])
            room[0] -= len(data)
            return data
        return {key: _with_bytes(item, archive, room) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_bytes(item, archive, room) for item in value]
    return value
