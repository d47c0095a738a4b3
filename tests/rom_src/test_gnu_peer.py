"""The sources are plain enough for GNU as, which makes the same bytes of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rombuilder.guest import build_guest, guest_layout, guest_names
from rombuilder.rom import Calls, Flavour, Visibility, build_rom
from rombuilder.sources import guests_dir, rom_dir
from vmi.queue import DEFAULT_CAPACITY
from vmi.symbols import assembler_symbols, render

pytestmark = pytest.mark.peer("as", "ld")


def run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)


def gnu_build(
    folder: Path, sources: list[Path], script: Path, symbols: dict[str, int], include: Path
) -> bytes:
    """Assemble and link with the GNU tools; the symbols are one more source before each."""
    definitions = folder / "symbols.inc"
    definitions.write_text(render(symbols))
    objects = []
    for source in sources:
        objects.append(folder / f"{source.stem}.o")
        run("as", "--32", "--fatal-warnings", "-I", include, "-o", objects[-1], definitions, source)
    image = folder / "image.bin"
    run("ld", "-m", "elf_i386", "-T", script, "--oformat", "binary", "-o", image, *objects)
    return image.read_bytes()


@pytest.mark.parametrize("calls", list(Calls))
@pytest.mark.parametrize(
    ("flavour", "visibility"),
    [
        (Flavour.IDENTITY, Visibility.TLB),
        (Flavour.BATCHING, Visibility.TLB),
        (Flavour.BATCHING, Visibility.STRICT),
    ],
)
def test_rom(tmp_path: Path, flavour: Flavour, visibility: Visibility, calls: Calls) -> None:
    symbols = {
        **assembler_symbols(),
        "FLAVOUR_BATCHING": int(flavour is Flavour.BATCHING),
        "CALLS_ALL": int(calls is Calls.ALL),
        "VISIBILITY_STRICT": int(visibility is Visibility.STRICT),
        "TIMER_CALLS": 1,
        "QUEUE_CAPACITY": DEFAULT_CAPACITY,
    }
    sources = sorted(rom_dir().glob("*.S"), key=lambda path: (path.name != "header.S", path.name))
    gnu = gnu_build(tmp_path, sources, rom_dir() / "rom.ld", symbols, rom_dir())
    ours = build_rom(flavour, calls=calls, visibility=visibility).image.data
    assert gnu == ours


@pytest.mark.parametrize("guest", guest_names())
def test_guest(tmp_path: Path, guest: str) -> None:
    folder = guests_dir()
    source = folder / f"{guest}.S"
    gnu = gnu_build(tmp_path, [source], guest_layout(source), assembler_symbols(), folder)
    assert gnu == build_guest(guest).data
