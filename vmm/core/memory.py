"""Guest-physical memory: where in the host's buffer each page frame of the guest is.

The truth is the list of slots. It is looked up by bisection, once for each frame: a table with
a word for every frame below 4 GiB remembers the answer, be it memory, nothing, or the registers
of a device. A new list comes with an empty table, and both take the place of the old ones at
once, while no guest instruction runs.

Two numbers name a page frame, and they must not be mixed up: that of the guest, which page
tables have, and that of the host, by which everything is kept that depends on the bytes
alone - so that what is true of a page is true through all its aliases.
"""

import mmap
import re
from array import array
from itertools import groupby

import cython

from vmm.core.dirtylog import DirtyLog
from vmm.core.saved import Fields
from vmm.core.slots import SlotList, whole

# What the table says of a frame, under the number of the host's frame; 0 is not looked up yet.
RAM = cython.declare(cython.uint, 1)
PROTECTED = cython.declare(cython.uint, 2)
KNOWN = cython.declare(cython.uint, 4)
DEVICE = cython.declare(cython.uint, 8)
# What firmware has laid over the slots.
WRITE_PROTECTED = cython.declare(cython.uint, 1)
SWITCHED_OFF = cython.declare(cython.uint, 2)

ALL_ONES = cython.declare(cython.uint, 0xFFFFFFFF)
NO_HOST = cython.declare(cython.uint, 0xFFFFFFFF)
FRAMES = 1 << 20


@cython.final
@cython.cclass
class GuestMemory:
    """The memory that `slots` show of a buffer that the caller owns; all of it, from 0, by default.

    Reads where no slot is answer all ones, as a bus with nobody on it does; writes there
    and to protected frames are dropped. So no value that a guest controls can reach beyond the
    buffer. `log` is told of every write.
    """

    SAVED = Fields(
        wiring="size host_count frame_count",
        elsewhere="bytes words slots log overlay device_frames",
        derived="first last origin kind table",
        host="lookups",
    )

    def __init__(self, buffer, slots=None):
        view = memoryview(buffer).cast("B")
        if len(view) == 0 or len(view) & 0xFFF:
            raise ValueError(f"guest memory of {len(view)} bytes is not a number of whole pages")
        self.bytes = view
        self.words = view.cast("I")
        self.size = len(view)
        self.host_count = len(view) >> 12
        self.frame_count = FRAMES
        self.overlay = memoryview(mmap.mmap(-1, FRAMES))
        self.device_frames = array("I")
        self.log = DirtyLog(self.host_count)
        self.lookups = 0
        self.replace(SlotList(*whole(len(view))) if slots is None else slots)

    # ---- the slots

    def replace(self, slots):
        """Have this `SlotList` from now on; no guest instruction may be under way.

        What else depends on where memory is, the shadow above all, is the caller's. Raises
        `ValueError` for a slot whose backing is not in the buffer.
        """
        first = array("I", [slot.address >> 12 for slot in slots])
        last = array("I", [(slot.end - 1) >> 12 for slot in slots])
        origin = array("I", [slots.host(slot) >> 12 for slot in slots])
        kind = array("I", [RAM | PROTECTED if slot.read_only else RAM for slot in slots])
        for slot in slots:
            if slots.host(slot) + slot.size > self.size:
                raise ValueError(f"slot {slot}: its backing is not in a buffer of {self.size:#x}")
        self.log.follow(slots)
        self.first, self.last, self.origin, self.kind = first, last, origin, kind
        self.slots = slots
        self.forget()

    def forget(self):
        """Look every frame up anew."""
        # Zeroes that cost nothing until they are touched.
        self.table = memoryview(mmap.mmap(-1, 4 * FRAMES)).cast("I")

    def know_devices(self, frames):
        """Devices answer in these page frames of the guest, where no slot is."""
        self.device_frames = array("I", sorted(frames))
        self.forget()

    def look_up(self, frame: cython.uint) -> cython.uint:
        """What a frame of the guest is, by bisection of the slots; the table has it then."""
        low: cython.Py_ssize_t = 0
        high: cython.Py_ssize_t = len(self.first)
        middle: cython.Py_ssize_t
        while low < high:
            middle = (low + high) >> 1
            if self.first[middle] <= frame:
                low = middle + 1
            else:
                high = middle
        entry: cython.uint = KNOWN
        laid: cython.uint = self.overlay[frame]
        low -= 1
        if low >= 0 and frame <= self.last[low] and not laid & SWITCHED_OFF:
            entry |= ((self.origin[low] + (frame - self.first[low])) << 12) | self.kind[low]
            if laid & WRITE_PROTECTED:
                entry |= PROTECTED
        elif self.has_device(frame):
            entry |= DEVICE
        self.table[frame] = entry
        self.lookups += 1
        return entry

    def has_device(self, frame: cython.uint) -> cython.bint:
        """Does a device answer in this frame?"""
        low: cython.Py_ssize_t = 0
        high: cython.Py_ssize_t = len(self.device_frames)
        middle: cython.Py_ssize_t
        while low < high:
            middle = (low + high) >> 1
            if self.device_frames[middle] < frame:
                low = middle + 1
            else:
                high = middle
        return low < len(self.device_frames) and self.device_frames[low] == frame

    def entry(self, frame: cython.uint) -> cython.uint:
        """What is known of a frame of the guest: bits, under the number of the host's frame."""
        found: cython.uint = self.table[frame & 0xFFFFF]
        return found or self.look_up(frame & 0xFFFFF)

    # ---- what firmware lays over them

    def set_protected(self, first, count, protected):
        """Write-protect `count` frames from `first` on, or make them writable again."""
        self.lay(first, count, WRITE_PROTECTED, protected)

    def set_hole(self, first, count, hole):
        """Switch `count` frames from `first` on off, as if no slot were there, or on again."""
        self.lay(first, count, SWITCHED_OFF, hole)

    def lay(self, first, count, bit, on):
        """Set or clear a bit that lies over the slots."""
        frame: cython.uint
        for frame in range(first, first + count):
            laid: cython.uint = self.overlay[frame]
            self.overlay[frame] = laid | bit if on else laid & ~bit
            self.table[frame] = 0

    def set_laid(self, first, count, bits):
        """Lay these bits over frames that have none."""
        self.lay(first, count, bits, True)

    def laid(self):
        """(first frame, count, bits) of what firmware has laid over the slots."""
        found = []
        whole = bytes(self.overlay)
        for run in re.finditer(rb"[^\0]+", whole):
            first = run.start()
            for bits, group in groupby(run[0]):
                count = sum(1 for _ in group)
                found.append((first, count, bits))
                first += count
        return found

    # ---- frames

    def is_ram(self, frame: cython.uint) -> cython.bint:
        """Is there memory behind this page frame?"""
        return (self.entry(frame) & RAM) != 0

    def is_protected(self, frame: cython.uint) -> cython.bint:
        """Is this page frame memory that behaves as a ROM?"""
        return (self.entry(frame) & PROTECTED) != 0

    def is_device(self, frame: cython.uint) -> cython.bint:
        """Does a device answer here, and no memory?"""
        return (self.entry(frame) & DEVICE) != 0

    def contains(self, address: cython.uint) -> cython.bint:
        """Is there memory at this address?"""
        return (self.entry(address >> 12) & RAM) != 0

    def host(self, frame: cython.uint) -> cython.uint:
        """The host's number of a frame of the guest's; NO_HOST where no memory is."""
        found: cython.uint = self.entry(frame)
        return found >> 12 if found & RAM else NO_HOST

    def kinds(self, first, count):
        """What `count` frames from `first` on are, a byte each: 1 memory, 3 write-protected."""
        return bytes(self.entry(frame) & 3 for frame in range(first, first + count))

    def count_ram(self, frames: cython.uint[::1]) -> cython.uint:
        """In how many of these frames of the guest memory is."""
        i: cython.Py_ssize_t
        found: cython.uint = 0
        for i in range(len(frames)):
            if self.entry(frames[i]) & RAM:
                found += 1
        return found

    def runs(self, end=FRAMES):
        """(first frame, count, first frame of the host, protected) of memory, in order.

        As few as there can be, below the guest's frame `end`.
        """
        found = []
        for slot in self.slots:
            for frame in range(slot.address >> 12, min(slot.end >> 12, end)):
                entry = self.entry(frame)
                if not entry & RAM:
                    continue
                host, protected = entry >> 12, bool(entry & PROTECTED)
                if found:
                    last = len(found) - 1
                    first, count, start, was = found[last]
                    if (first + count, start + count, was) == (frame, host, protected):
                        found[last] = (first, count + 1, start, was)
                        continue
                found.append((frame, 1, host, protected))
        return found

    # ---- loads and stores by guest-physical address

    def read8(self, address: cython.uint) -> cython.uint:
        """A byte."""
        entry: cython.uint = self.entry(address >> 12)
        if not entry & RAM:
            return 0xFF
        return self.bytes[((entry >> 12) << 12) | (address & 0xFFF)]

    def read32(self, address: cython.uint) -> cython.uint:
        """The aligned dword that `address` lies in."""
        entry: cython.uint = self.entry(address >> 12)
        if not entry & RAM:
            return ALL_ONES
        return self.words[((entry >> 12) << 10) | ((address & 0xFFF) >> 2)]

    def read64(self, address: cython.uint) -> cython.ulonglong:
        """The aligned quadword that `address` lies in."""
        address = (address >> 3) << 3
        low: cython.ulonglong = self.read32(address)
        high: cython.ulonglong = self.read32(address + 4)
        return low | (high << 32)

    def write32(self, address: cython.uint, value: cython.uint) -> cython.int:
        """Store to the aligned dword that `address` lies in."""
        entry: cython.uint = self.entry(address >> 12)
        if (entry & (RAM | PROTECTED)) == RAM:
            if self.log.on:
                self.log.written(entry >> 12)
            self.words[((entry >> 12) << 10) | ((address & 0xFFF) >> 2)] = value
        return 0

    def write8(self, address: cython.uint, value: cython.uint) -> cython.int:
        """Store a byte."""
        entry: cython.uint = self.entry(address >> 12)
        if (entry & (RAM | PROTECTED)) == RAM:
            if self.log.on:
                self.log.written(entry >> 12)
            self.bytes[((entry >> 12) << 12) | (address & 0xFFF)] = value & 0xFF
        return 0

    def read(self, address, size):
        """`size` bytes as `bytes`, all ones where there is no RAM."""
        parts = []
        while size > 0:
            address &= 0xFFFFFFFF
            count = min(size, 4096 - (address & 0xFFF))
            entry = self.entry(address >> 12)
            if entry & RAM:
                start = ((entry >> 12) << 12) | (address & 0xFFF)
                parts.append(bytes(self.bytes[start : start + count]))
            else:
                parts.append(b"\xff" * count)
            address += count
            size -= count
        return b"".join(parts)

    def write(self, address, data):
        """Store bytes; those that fall where no RAM is or into a protected frame are dropped."""
        done = 0
        while done < len(data):
            at = (address + done) & 0xFFFFFFFF
            count = min(len(data) - done, 4096 - (at & 0xFFF))
            entry = self.entry(at >> 12)
            if (entry & (RAM | PROTECTED)) == RAM:
                if self.log.on:
                    self.log.written(entry >> 12)
                start = ((entry >> 12) << 12) | (at & 0xFFF)
                memoryview(self.bytes)[start : start + count] = data[done : done + count]
            done += count

    def load(self, address, data):
        """Copy `data` in as firmware would, protection or not.

        Raises `ValueError`, with nothing copied, when some of it does not fall into memory.
        """
        end = address + len(data)
        frame: cython.uint
        i: cython.uint
        for at in range(address & ~0xFFF, end, 4096):
            if at >= FRAMES << 12 or not self.is_ram(at >> 12):
                raise ValueError(
                    f"{len(data)} bytes at {address:#x} end at {end:#x}: there is no memory at "
                    f"{max(at, address):#x}, in a guest with {self.size:#x} bytes of it"
                )
        for at in range(address & ~0xFFF, end, 4096):
            start, stop = max(at, address), min(at + 4096, end)
            frame = self.host(at >> 12)
            self.log.written(frame)
            i = (frame << 12) | (start & 0xFFF)
            for byte in data[start - address : stop - address]:
                self.bytes[i] = byte
                i += 1

    # ---- loads from the host's buffer

    def host_bytes(self, address, size):
        """Bytes of the buffer, at this place in it."""
        return bytes(self.bytes[address : address + size])

    def host32(self, address: cython.uint) -> cython.uint:
        """The aligned dword at this place in the buffer."""
        return self.words[address >> 2]

    def host64(self, address: cython.uint) -> cython.ulonglong:
        """The aligned quadword at this place in the buffer."""
        low: cython.ulonglong = self.words[(address >> 3) << 1]
        high: cython.ulonglong = self.words[((address >> 3) << 1) + 1]
        return low | (high << 32)
