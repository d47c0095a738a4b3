"""ROM images built before, kept in the user's cache: assembling one takes as long as a short boot.

An image is found by a hash of all that it is made from: the assembly sources, the code of
the builder, the assembler's library, and the options. Nothing depends on the cache: where it
cannot be read, holds anything but what was put in, or cannot be written, the ROM is built.
Files appear whole, by renaming, so runs side by side do not disturb each other.
"""

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from rombuilder.flavour import DEFAULT_CALLS, Calls, Flavour, Visibility
from rombuilder.sources import rom_dir

__all__ = ["cache_dir", "rom_image"]

_PACKAGE = Path(__file__).resolve().parent
_BUILDERS = ("rombuilder", "linker", "vmi")
_DIGEST_BYTES = 32
_MOST_IMAGES = 64
"""The oldest give way; each is a few kilobytes."""


def rom_image(flavour: Flavour, queue: int, visibility: Visibility) -> tuple[bytes, Calls]:
    """The image that `build_rom` makes with these arguments, and the calls it takes over.

    `queue` is the batch queue's capacity in records. Raises `BuildError`.
    """
    calls = DEFAULT_CALLS[flavour]
    path = cache_dir() / f"{_key(flavour, queue, visibility)}.rom"
    image = _load(path)
    if image is None:
        # What builds ROMs is not even loaded when there is nothing to build.
        from rombuilder.rom import build_rom  # noqa: PLC0415

        image = build_rom(flavour, queue=queue, calls=calls, visibility=visibility).data
        _store(path, image)
    return image, calls


def cache_dir() -> Path:
    """Where images are kept: by the XDG Base Directory Specification, which wants it absolute."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        base = Path(os.path.expanduser("~")) / ".cache"  # noqa: PTH111 - never raises
    return base / "vmirom" / "roms"


def _key(flavour: Flavour, queue: int, visibility: Visibility) -> str:
    """A hash of everything that an image is made from, in hex."""
    key = hashlib.sha256(repr((flavour.value, queue, visibility.value, sys.version)).encode())
    for name, content in _ingredients():
        key.update(f"{name} {len(content)} ".encode())
        key.update(content)
    return key.hexdigest()


def _ingredients() -> Iterator[tuple[str, bytes]]:
    """Sources by name; of the assembler, which is large, what tells versions apart."""
    for path in sorted(rom_dir().iterdir()):
        if path.is_file():
            yield path.name, path.read_bytes()
    for package in _BUILDERS:
        folder = _PACKAGE.parent / package
        for path in sorted(folder.glob("*.py")):
            yield f"{package}/{path.name}", path.read_bytes()
    spec = find_spec("keystone")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(place).iterdir()):
            if path.is_file():
                about = path.stat()
                yield path.name, f"{about.st_size} {about.st_mtime_ns}".encode()


def _load(path: Path) -> bytes | None:
    """The image in a file, none unless it is whole: its SHA-256 precedes it."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, image = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    return image if hashlib.sha256(image).digest() == digest else None


def _store(path: Path, image: bytes) -> None:
    """Keep an image, if that is possible."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Loading this takes longer than the rest.
        import tempfile  # noqa: PLC0415

        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                file.write(hashlib.sha256(image).digest() + image)
                file.close()
                Path(file.name).replace(path)
            except OSError:
                Path(file.name).unlink(missing_ok=True)
                raise
        _make_room(path.parent)


def _make_room(folder: Path) -> None:
    """Drop the images that were made longest ago."""
    by_age = sorted(folder.glob("*.rom"), key=lambda path: path.stat().st_mtime_ns)
    for path in by_age[:-_MOST_IMAGES]:
        path.unlink(missing_ok=True)
