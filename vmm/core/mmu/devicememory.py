"""Guest-physical addresses that are no RAM and yet answer: one CPU's view of them.

The local APIC's registers are each CPU's own; the core answers there, which makes a
light exit. All else is a device's, on the memory bus, and the exit heavy.
"""

import cython

from vmm.core.bus import MemoryBus
from vmm.core.localapic import LocalApic
from vmm.core.memory import GuestMemory
from vmm.core.saved import Fields

# What decodes() answers.
NOBODY = cython.declare(cython.uint, 0)
CORE = cython.declare(cython.uint, 1)
DEVICE = cython.declare(cython.uint, 2)

PAGE_OFFSET = cython.declare(cython.uint, 0xFFF)


@cython.final
@cython.cclass
class DeviceMemory:
    """Loads and stores outside RAM, by guest-physical address; nobody home reads as all ones."""

    SAVED = Fields(wiring="apic bus memory")

    def __init__(self, memory: GuestMemory):
        self.memory = memory
        self.apic = None
        self.bus = MemoryBus()

    def set_apic(self, apic: LocalApic):
        """Give the CPU a local APIC that its guest can see."""
        self.apic = apic

    def connect(self, bus):
        """The devices of the machine, all registered by now."""
        self.bus = bus
        self.memory.know_devices(bus.frames())

    def decodes(self, frame: cython.uint) -> cython.uint:
        """Who answers in this page frame?"""
        if self.apic is not None and self.apic.is_at(frame << 12):
            return CORE
        return DEVICE if self.memory.is_device(frame) else NOBODY

    def read(self, address: cython.uint, size: cython.uint) -> cython.uint:
        """A load of 1, 2 or 4 bytes that lie in one page."""
        if self.apic is not None and self.apic.is_at(address):
            return self.apic.load(address & PAGE_OFFSET, size)
        return self.bus.read(int(address), int(size))

    def write(self, address: cython.uint, size: cython.uint, value: cython.uint) -> cython.int:
        """A store of 1, 2 or 4 bytes that lie in one page."""
        if self.apic is not None and self.apic.is_at(address):
            return self.apic.store(address & PAGE_OFFSET, size, value)
        self.bus.write(int(address), int(size), int(value))
        return 0
