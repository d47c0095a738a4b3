"""The doorbell: the one port by which the batching ROM reaches the monitor.

A port is the one doorbell that every engine can answer (KVM hands no VMCALL to
userspace). A 32-bit read answers `SIGNATURE` where a monitor listens; elsewhere
the bus floats and the ROM behaves as the identity flavour. A 32-bit write rings:

    EAX  function, one of `Doorbell`; on return the result, 0 for refused
    ECX  argument
    DX   the port

Only ring 0 is answered, and no other register changes.
"""

from enum import IntEnum, IntFlag

from vmi.address import Port

__all__ = ["PORT", "SIGNATURE", "Doorbell", "Feature"]

PORT = Port(0x0560)
SIGNATURE = int.from_bytes(b"VMI3", "little")


class Doorbell(IntEnum):
    """Functions. Each, `ATTACH` apart, drains the queue before it does its own work."""

    ATTACH = 0
    """ECX = virtual address of the queue header. Answers `Feature` bits, 0 if refused."""
    FLUSH = 1
    """Drain only: leaving lazy mode, or an update that must be visible at once."""
    INVALIDATE_PAGE = 2
    """ECX = virtual address whose translation is dropped."""
    FLUSH_TLB = 3
    """ECX = `TlbFlush` bits."""
    SET_CR3 = 4
    """ECX = new CR3."""
    UPDATE_ENTRY = 5
    """ECX = virtual address of an entry that the ROM could not make physical."""
    QUEUE_FULL = 6
    """ECX = a record for which there was no slot."""
    ADOPT_TABLES = 7
    """All page tables in use are announced, as if by AllocatePage: the guest calls the
    ROM for every store from now on, and those of its boot it never announces itself."""
    SET_ALARM = 8
    """ECX = virtual address of the five words of an alarm (vmi/clock.py)."""
    CANCEL_ALARM = 9
    """ECX = flags of the alarm. Answers whether it was set."""
    START_AP = 10
    """ECX = virtual address of two words: the virtual address of a processor's initial state
    (vmi/apstate.py), and its APIC id."""
    APIC_READ = 11
    """ECX = offset of a local APIC's register. Answers what is in it."""
    APIC_WRITE = 12
    """ECX = value for the register whose offset is in bits 31-16 of EAX."""
    FIND_HOME = 13
    """Which of the ROM's homes is this processor's (vmi/queue.py)? Answers 1 for the first."""
    IDE_TAKE = 14
    """ECX = virtual address of a channel block (vmi/ide.py) in the ROM's data: the ROM wants to
    keep that IDE channel. Answers whether it does from now on."""
    IDE_REQUEST = 15
    """ECX = number of a channel that the ROM keeps: carry out what its block asks for."""
    REFLECT = 16
    """ECX = virtual address of a table (vmi/reflection.py) of what answers native accesses to the
    channels' ports. Answers whether that gets to hear of them."""


class Feature(IntFlag):
    """What `ATTACH` answers."""

    ATTACHED = 1
    SHADOW = 2
    """Page tables are shadowed: announcing and queueing save exits. Without it the
    processor walks the guest's own tables and the ROM answers NONE for them."""
    IN_STEP = 4
    """The shadow follows every drained record at once, and every fault drains before
    it is judged. So to the guest the shadow is a TLB: a change need be told only when
    it must be invalidated, and InvalPage and FlushTLB need no exit while nothing that
    takes a permission away is queued."""
    CLOCK = 8
    """The clock is published in the queue header, and alarms are served: the ROM may answer
    the timer calls, which are all or nothing."""
    START_AP = 16
    """There are more processors: the ROM may hand over in which state one begins."""
    CURTAIN = 32
    """The curtain is offered to a ROM that can lower it (vmi/queue.py)."""
    APIC = 64
    """The guest's one local APIC can be reached by ringing, and is mirrored in the queue header
    (`vmi.queue.HeaderField`)."""
    ALONE = 128
    """The machine has one processor, whose home is the first: none need be looked for."""
    IDE = 256
    """The ROM may keep the IDE channels and answer port calls to them itself. Granted with `ALONE`
    only: a call is one access to its channel because interrupts are off."""
    REFLECT = 512
    """Native accesses to the channels' ports are reflected to a handler that the ROM names. Granted
    with `IDE` where the user asks for it."""
