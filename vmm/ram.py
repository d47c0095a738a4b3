"""The guest's memory on the host: zeroes that cost nothing until they are touched.

A guest touches a part of its memory only, and a checksum of all of it would make the
host allocate the rest. So the checksum asks the kernel which pages there are, and
steps over the others by arithmetic: it is the same number.
"""

import ctypes
import mmap
import os
import zlib
from array import array
from collections.abc import Iterator
from functools import cache
from itertools import groupby

__all__ = ["checksum", "guest_ram", "touched_ranges"]

_PAGEMAP = "/proc/self/pagemap"
_PRESENT = 1 << 63
_SWAPPED = 1 << 62
_GRAIN = 64
"""Pages looked at as one: 256 KiB, whose zeroes cost about what stepping over them does."""
_POLYNOMIAL = 0xEDB88320
"""CRC-32 of ISO 3309, reflected: bit 31 is the constant term."""
_ONE = 1 << 31
_ALL_ONES = 0xFFFFFFFF


def guest_ram(size: int) -> mmap.mmap:
    """`size` bytes of zeroes that no other process shares, in large pages where they are to be had.

    Private, for of shared memory the kernel does not tell which pages were swapped out.
    """
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        memory.madvise(mmap.MADV_HUGEPAGE)
    except OSError:
        # A kernel without them; nothing depends on it.
        return memory
    return memory


def checksum(memory: mmap.mmap) -> int:
    """The CRC-32 of memory from `guest_ram`, as `zlib.crc32` of all its bytes is."""
    crc = 0
    with memoryview(memory) as view:
        for touched, start, end in _stretches(memory):
            crc = zlib.crc32(view[start:end], crc) if touched else _append_zeroes(crc, end - start)
    return crc


def touched_ranges(memory: mmap.mmap) -> Iterator[tuple[int, int]]:
    """(first byte, byte behind the last) of what may hold anything but zeroes, in order."""
    for touched, start, end in _stretches(memory):
        if touched:
            yield start, end


def _stretches(memory: mmap.mmap) -> Iterator[tuple[bool, int, int]]:
    """(may it hold anything but zeroes, first byte, byte behind the last), in order."""
    pages = -(-len(memory) // mmap.PAGESIZE)
    entries = _page_entries(memory, pages)
    if entries is None:
        yield True, 0, len(memory)
        return
    here = 0
    grains = (any(entries[i : i + _GRAIN]) for i in range(0, pages, _GRAIN))
    for touched, group in groupby(grains):
        end = here + sum(1 for _ in group) * _GRAIN * mmap.PAGESIZE
        yield touched, here, min(end, len(memory))
        here = end


def _page_entries(memory: mmap.mmap, pages: int) -> list[bool] | None:
    """Which pages were touched; none where the host does not tell.

    See Documentation/admin-guide/mm/pagemap.rst in the kernel's source: a quadword a
    page, of which everybody may read the flags of their own.
    """
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    entries = array("Q")
    try:
        with open(_PAGEMAP, "rb", buffering=0) as pagemap:  # noqa: PTH123 - unbuffered
            raw = os.pread(pagemap.fileno(), 8 * pages, address // mmap.PAGESIZE * 8)
    except OSError:
        return None
    if len(raw) != 8 * pages:
        return None
    entries.frombytes(raw)
    return [bool(entry & (_PRESENT | _SWAPPED)) for entry in entries]


def _append_zeroes(crc: int, count: int) -> int:
    """The CRC-32 of what had `crc` and `count` zero bytes behind it.

    The register times x to the power of the bits, modulo the polynomial, as in zlib's
    crc32_combine.
    """
    register = crc ^ _ALL_ONES
    power = 0
    while count:
        if count & 1:
            register = _times(register, _power(power))
        count >>= 1
        power += 1
    return register ^ _ALL_ONES


@cache
def _power(exponent: int) -> int:
    """X to the power of 8 * 2**exponent: that many zero bytes."""
    if exponent:
        return _times(_power(exponent - 1), _power(exponent - 1))
    return _ONE >> 8


def _times(a: int, b: int) -> int:
    """The product of two polynomials over GF(2), modulo the CRC's."""
    product = 0
    bit = _ONE
    while bit:
        if a & bit:
            product ^= b
        b = b >> 1 ^ _POLYNOMIAL if b & 1 else b >> 1
        bit >>= 1
    return product
