import io
from pathlib import Path

import pytest

from vmm.core.errors import BadDescription
from vmm.devices.disk import SECTOR_SIZE, DiskImage, WriteProtected, Writes


def image(sectors: int = 4) -> bytes:
    return b"".join(bytes((n,)) * SECTOR_SIZE for n in range(sectors))


@pytest.mark.parametrize("size", [0, 1, 511, 513])
def test_not_whole_sectors(size: int) -> None:
    with pytest.raises(BadDescription, match=rf"disk image of {size} bytes: .*multiple of 512"):
        DiskImage(io.BytesIO(bytes(size)))


def test_reads() -> None:
    disk = DiskImage(io.BytesIO(image()))
    assert disk.sectors == 4
    assert disk.read_sector(3) == bytes((3,)) * SECTOR_SIZE
    for beyond in (-1, 4):
        with pytest.raises(IndexError, match=f"sector {beyond} of 4"):
            disk.read_sector(beyond)


def test_refuses_writes_unless_asked() -> None:
    file = io.BytesIO(image())
    disk = DiskImage(file)
    assert disk.writes is Writes.REFUSE
    with pytest.raises(WriteProtected, match="sector 1 of a write-protected disk"):
        disk.write_sector(1, bytes(SECTOR_SIZE))
    assert file.getvalue() == image()


def test_overlay_leaves_the_file_alone() -> None:
    file = io.BytesIO(image())
    disk = DiskImage(file, Writes.OVERLAY)
    disk.write_sector(1, b"x" * SECTOR_SIZE)
    disk.flush()
    assert disk.read_sector(1) == b"x" * SECTOR_SIZE
    assert disk.read_sector(2) == bytes((2,)) * SECTOR_SIZE
    assert disk.changed_sectors == 1
    assert file.getvalue() == image()


def test_through(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(image())
    with path.open("r+b") as file:
        disk = DiskImage(file, Writes.THROUGH)
        disk.write_sector(2, b"y" * SECTOR_SIZE)
        disk.flush()
        assert path.read_bytes()[1024:1536] == b"y" * SECTOR_SIZE
    with path.open("rb") as file, pytest.raises(BadDescription, match="reading only"):
        DiskImage(file, Writes.THROUGH)


def test_a_sector_is_a_sector() -> None:
    with pytest.raises(ValueError, match="3 bytes are not a sector of 512"):
        DiskImage(io.BytesIO(image()), Writes.OVERLAY).write_sector(0, b"abc")
