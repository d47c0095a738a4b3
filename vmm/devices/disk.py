"""A disk image, with or without leave to write to it."""

import os
from array import array
from enum import StrEnum
from typing import BinaryIO

from vmm.core.errors import BadDescription
from vmm.core.saved import CUSTOM, Fields

__all__ = ["SECTOR_SIZE", "DiskImage", "WriteProtected", "Writes"]

SECTOR_SIZE = 512
_MOST_SECTORS = 1 << 48


class Writes(StrEnum):
    """What becomes of the guest's writes."""

    REFUSE = "refuse"
    """The disk is write-protected; the guest gets an error."""
    OVERLAY = "overlay"
    """Kept in memory until the end of the run; the file stays as it is."""
    THROUGH = "through"
    """Stored in the file, which must be open for writing."""


class WriteProtected(Exception):
    """A write to a disk that refuses them."""


class DiskImage:
    """Whole sectors of 512 bytes in `file`; the caller opens and closes it."""

    SAVED = Fields(
        {CUSTOM: "_overlay"},
        wiring="_file _writes sectors",
    )

    def __init__(self, file: BinaryIO, writes: Writes = Writes.REFUSE) -> None:
        size = file.seek(0, os.SEEK_END)
        if not size or size % SECTOR_SIZE or size // SECTOR_SIZE > _MOST_SECTORS:
            raise BadDescription(
                f"disk image of {size} bytes: expected a positive multiple of {SECTOR_SIZE}"
            )
        if writes is Writes.THROUGH and not file.writable():
            raise BadDescription("disk image is open for reading only: cannot write through to it")
        self._file = file
        self._writes = writes
        self._overlay: dict[int, bytes] = {}
        self.sectors = size // SECTOR_SIZE

    def _save_overlay(self) -> dict[str, bytes]:
        """For `vmm.core.saved`: the numbers of the sectors, 64 bits each, and their contents."""
        return {
            "numbers": array("Q", self._overlay).tobytes(),
            "sectors": b"".join(self._overlay.values()),
        }

    def _load_overlay(self, value: dict[str, bytes]) -> None:
        """The same."""
        numbers, data = memoryview(value["numbers"]).cast("Q"), value["sectors"]
        if len(data) != len(numbers) * SECTOR_SIZE or (numbers and self._writes is Writes.REFUSE):
            raise ValueError(f"{len(numbers)} sectors in {len(data)} bytes")
        self._overlay = {}
        for i, number in enumerate(numbers):
            self._check(number)
            self._overlay[number] = data[i * SECTOR_SIZE : (i + 1) * SECTOR_SIZE]

    @property
    def writes(self) -> Writes:
        """What becomes of the guest's writes."""
        return self._writes

    @property
    def changed_sectors(self) -> int:
        """How many sectors the overlay holds."""
        return len(self._overlay)

    def read_sector(self, number: int) -> bytes:
        """512 bytes; raises `IndexError` beyond the end, `OSError` when the file fails."""
        self._check(number)
        if number in self._overlay:
            return self._overlay[number]
        self._file.seek(number * SECTOR_SIZE)
        data = self._file.read(SECTOR_SIZE)
        if len(data) < SECTOR_SIZE:
            raise OSError(f"sector {number}: the image's file has become shorter")
        return data

    def write_sector(self, number: int, data: bytes) -> None:
        """Store 512 bytes.

        Raises `WriteProtected`, `IndexError` beyond the end, `OSError` when the file fails.
        """
        self._check(number)
        if len(data) != SECTOR_SIZE:
            raise ValueError(f"{len(data)} bytes are not a sector of {SECTOR_SIZE}")
        if self._writes is Writes.REFUSE:
            raise WriteProtected(f"sector {number} of a write-protected disk")
        if self._writes is Writes.OVERLAY:
            self._overlay[number] = data
            return
        self._file.seek(number * SECTOR_SIZE)
        self._file.write(data)

    def flush(self) -> None:
        """Hand written sectors on to the file's system; raises `OSError` when it fails."""
        if self._writes is Writes.THROUGH:
            self._file.flush()

    def _check(self, number: int) -> None:
        if not 0 <= number < self.sectors:
            raise IndexError(f"sector {number} of {self.sectors}")
