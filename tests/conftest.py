"""Peers: other people's programs and firmware that ours is compared with.

`@pytest.mark.peer("gcc", "ld")` names what a test needs. Where one is missing the test is
skipped and says which Debian package has it; in continuous integration (CI or
VMIROM_REQUIRE_PEERS set) it fails, so that no comparison is lost unnoticed.
"""

import os
import shutil
from pathlib import Path

import pytest

PACKAGES = {
    "as": "binutils",
    "gcc": "gcc",
    "gdb": "gdb",
    "ld": "binutils",
    "nm": "binutils",
    "objdump": "binutils",
    "qemu-system-i386": "qemu-system-x86",
    "readelf": "binutils",
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


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("peer"):
        missing = missing_peers(marker.args)
        if not missing:
            continue
        text = f"not installed: {', '.join(missing)}"
        if os.environ.get("CI") or os.environ.get("VMIROM_REQUIRE_PEERS"):
            pytest.fail(f"{text}; peers are required here", pytrace=False)
        pytest.skip(text)
