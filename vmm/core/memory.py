"""Guest-physical memory: one buffer, and what each of its page frames is."""

import cython

RAM = cython.declare(cython.uint, 1)
PROTECTED = cython.declare(cython.uint, 2)
ALL_ONES = cython.declare(cython.uint, 0xFFFFFFFF)


@cython.final
@cython.cclass
class GuestMemory:
    """`size` bytes of guest-physical memory from address 0, in a buffer the caller owns.

    Frames start as writable RAM. Reads outside RAM answer all ones, as a bus with
    nobody on it does; writes outside RAM and to protected frames are dropped. So no
    value that a guest controls can reach beyond the buffer.
    """

    def __init__(self, buffer):
        view = memoryview(buffer).cast("B")
        if len(view) == 0 or len(view) & 0xFFF:
            raise ValueError(f"guest memory of {len(view)} bytes is not a number of whole pages")
        self.bytes = view
        self.words = view.cast("I")
        self.size = len(view)
        self.frame_count = len(view) >> 12
        self.frames = bytearray([1]) * (len(view) >> 12)

    def set_protected(self, first, count, protected):
        """Write-protect `count` frames from `first` on, or make them writable again."""
        frame: cython.uint
        for frame in range(first, first + count):
            if protected:
                self.frames[frame] = self.frames[frame] | PROTECTED
            else:
                self.frames[frame] = self.frames[frame] & ~PROTECTED

    def set_hole(self, first, count):
        """There is no RAM in `count` frames from `first` on."""
        frame: cython.uint
        for frame in range(first, first + count):
            self.frames[frame] = 0

    def frames_view(self):
        """What each frame is: bit 0 RAM, bit 1 write-protected."""
        return memoryview(self.frames)

    def is_ram(self, frame: cython.uint) -> cython.bint:
        """Is there memory behind this page frame?"""
        return frame < self.frame_count and (self.frames[frame] & RAM) != 0

    def is_protected(self, frame: cython.uint) -> cython.bint:
        """Is this page frame RAM that behaves as a ROM?"""
        return frame < self.frame_count and (self.frames[frame] & PROTECTED) != 0

    def contains(self, address: cython.uint) -> cython.bint:
        """Is there memory at this address?"""
        return self.is_ram(address >> 12)

    def read8(self, address: cython.uint) -> cython.uint:
        """A byte."""
        if not self.contains(address):
            return 0xFF
        return self.bytes[address]

    def read32(self, address: cython.uint) -> cython.uint:
        """The aligned dword that `address` lies in."""
        if not self.contains(address):
            return ALL_ONES
        return self.words[address >> 2]

    def read64(self, address: cython.uint) -> cython.ulonglong:
        """The aligned quadword that `address` lies in."""
        address = (address >> 3) << 3
        low: cython.ulonglong = self.read32(address)
        high: cython.ulonglong = self.read32(address + 4)
        return low | (high << 32)

    def write32(self, address: cython.uint, value: cython.uint) -> cython.int:
        """Store to the aligned dword that `address` lies in."""
        if self.contains(address) and not self.is_protected(address >> 12):
            self.words[address >> 2] = value
        return 0

    def write8(self, address: cython.uint, value: cython.uint) -> cython.int:
        """Store a byte."""
        if self.contains(address) and not self.is_protected(address >> 12):
            self.bytes[address] = value & 0xFF
        return 0

    def read(self, address, size):
        """`size` bytes as `bytes`, all ones where there is no RAM."""
        return bytes(self.read8((address + i) & 0xFFFFFFFF) for i in range(size))

    def load(self, address, data):
        """Copy `data` in as firmware would, protection or not.

        Raises `ValueError` when it does not fit into memory.
        """
        if address + len(data) > self.size:
            raise ValueError(
                f"{len(data)} bytes at {address:#x} end at {address + len(data):#x}, "
                f"beyond the guest's {self.size:#x} bytes of memory"
            )
        i: cython.uint = address
        for byte in data:
            self.bytes[i] = byte
            i += 1
