"""What tests share: ROMs with a mistake in them, and peers.

Peers are other people's programs and firmware that ours is compared with:
`@pytest.mark.peer("gcc", "ld")` names what a test needs. Where one is missing the test is
skipped and says which Debian package has it; in continuous integration (CI or
VMIROM_REQUIRE_PEERS set) it fails, so that no comparison is lost unnoticed.
"""

import gc
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rombuilder.rom
from rombuilder.rom import Rom, build_rom
from rombuilder.sources import rom_dir

PACKAGES = {
    "as": "binutils",
    "gcc": "gcc",
    "gdb": "gdb",
    "ld": "binutils",
    "nm": "binutils",
    "objcopy": "binutils",
    "objdump": "binutils",
    "qemu-system-i386": "qemu-system-x86",
    "readelf": "binutils",
    "/usr/lib/ipxe/qemu": "ipxe-qemu",
    "/usr/share/seabios": "seabios",
}
"""Programs, and paths of files, by the Debian package that has them."""


def missing_peers(names: tuple[str, ...]) -> list[str]:
    """What is not here, with its package."""
    return [
        f"{name} (Debian: {PACKAGES[name]})"
        for name in names
        if not (Path(name).exists() if name.startswith("/") else shutil.which(name))
    ]


def pytest_collection_finish() -> None:
    """Thousands of collected tests are no garbage: no collection has to look through them."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("peer"):
        missing = missing_peers(marker.args)
        if not missing:
            continue
        text = f"not installed: {', '.join(missing)}"
        if os.environ.get("CI") or os.environ.get("VMIROM_REQUIRE_PEERS"):
            pytest.fail(f"{text}; peers are required here", pytrace=False)
        pytest.skip(text)


AlterRom = Callable[..., Rom]


@pytest.fixture
def altered_rom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AlterRom:
    """`altered_rom(source, old, new, **how)`: a ROM with a mistake put into one source.

    `old` must be there once; `how` goes to `build_rom`.
    """

    def alter(source: str, old: str, new: str, **how: Any) -> Rom:
        folder = tmp_path / "rom_src"
        shutil.copytree(rom_dir(), folder)
        path = folder / source
        text = path.read_text()
        assert text.count(old) == 1, f"{source} has {text.count(old)} times {old!r}"
        path.write_text(text.replace(old, new))
        with monkeypatch.context() as patch:
            patch.setattr(rombuilder.rom, "rom_dir", lambda: folder)
            return build_rom(**how)

    return alter
