"""What may be a batch queue: the checks of a region that a ROM hands over, for any engine."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from vmi.address import PAGE_SHIFT, PAGE_SIZE
from vmi.queue import HEADER_SIZE, MAGIC, MAX_CAPACITY, Ability, HeaderField, HomeField
from vmm.core.errors import GuestError

__all__ = ["QueueRefused", "QueueRegion", "check_region"]


class QueueRefused(GuestError):
    """The ROM handed over something that cannot be a queue; the run goes on without one."""


class _Memory(Protocol):
    def read(self, address: int, size: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class QueueRegion:
    """A queue's header, guest-physical, its capacity in records, and its page frames.

    The ROM has `homes` headers like this one, `stride` bytes apart.
    """

    header: int
    capacity: int
    first_frame: int
    frames: int
    homes: int = 1
    stride: int = 0


def check_region(
    memory: _Memory, translate: Callable[[int], int], address: int, image: tuple[int, int]
) -> QueueRegion:
    """The region whose header is at this guest-virtual address.

    `translate` answers the guest-physical address, or a negative number for one that is
    not mapped; `image` is where the ROM lies. Raises `QueueRefused` when the region is
    not page-aligned room inside the ROM image or the header is not one.
    """
    image_start, image_end = image
    start = _locate(translate, address)
    if start & 3:
        raise QueueRefused(f"queue header at {start:#x} is not a multiple of 4")
    if not image_start <= start <= image_end - HEADER_SIZE:
        raise QueueRefused(
            f"queue header at guest-physical {start:#x} is outside the ROM image "
            f"at {image_start:#x}-{image_end:#x}"
        )
    header = memory.read(start, HEADER_SIZE)
    magic = _word(header, HeaderField.MAGIC)
    if magic != MAGIC:
        raise QueueRefused(f"queue header starts with {magic:#010x}, expected {MAGIC:#010x}")
    capacity = _word(header, HeaderField.CAPACITY)
    if not 1 <= capacity <= MAX_CAPACITY:
        raise QueueRefused(f"queue capacity {capacity}, expected 1 to {MAX_CAPACITY}")
    size = _word(header, HeaderField.REGION_SIZE)
    if size < HEADER_SIZE + 4 * capacity:
        raise QueueRefused(f"queue region of {size} bytes cannot hold {capacity} records")
    first = start >> PAGE_SHIFT
    last = (start + size - 1) >> PAGE_SHIFT
    if first << PAGE_SHIFT < image_start or (last + 1) << PAGE_SHIFT > image_end:
        raise QueueRefused(
            f"the pages of the queue region {start:#x}-{start + size:#x} reach beyond the "
            f"ROM image at {image_start:#x}-{image_end:#x}"
        )
    for page in range(1, last - first + 1):
        if _locate(translate, address + PAGE_SIZE * page) != start + PAGE_SIZE * page:
            raise QueueRefused(f"the queue region at {address:#x} is not physically contiguous")
    homes, stride = _homes(memory, start, header, capacity, size)
    return QueueRegion(start, capacity, first, last - first + 1, homes, stride)


def _homes(memory: _Memory, start: int, header: bytes, capacity: int, size: int) -> tuple[int, int]:
    """How many homes there are, and how far apart; the first one is known to be in the region."""
    if not _word(header, HeaderField.ABILITIES) & Ability.HOMES:
        return 1, 0
    behind = HEADER_SIZE + 4 * capacity
    least = behind + HomeField.KEY + 4
    if size < least:
        raise QueueRefused(f"queue region of {size} bytes cannot hold a home of {least}")
    words = memory.read(start + behind, HomeField.KEY)
    homes, stride = _word(words, HomeField.COUNT), _word(words, HomeField.STRIDE)
    if stride & 3 or stride < least:
        raise QueueRefused(f"homes {stride} bytes apart, expected a multiple of 4 from {least} up")
    if not 1 <= homes <= size // stride:
        raise QueueRefused(f"{homes} homes of {stride} bytes in a queue region of {size} bytes")
    return homes, stride


def _word(header: bytes, offset: int) -> int:
    return int.from_bytes(header[offset : offset + 4], "little")


def _locate(translate: Callable[[int], int], address: int) -> int:
    address &= 0xFFFFFFFF
    physical = translate(address)
    if physical < 0:
        raise QueueRefused(f"queue address {address:#010x} is not mapped")
    return physical
