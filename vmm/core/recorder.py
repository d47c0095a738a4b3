"""A ring of fixed-size records, one for each event, for whoever wants to see them singly.

The core only fills the ring. Python empties it when it is full and at the end of the
run, so that recording costs no call into Python for an event, and nothing at all
where nobody asked for it. It changes no count: it reads and never writes.
"""

from array import array

import cython

from vmm.core.code.blocks import BlockMeter
from vmm.core.cpu.cpustate import CpuState
from vmm.core.event import Event
from vmm.core.paravirt.batch import BatchQueue
from vmm.core.saved import Fields

if not cython.compiled:
    from vmm.core.native import host_ns

RECORDS = cython.declare(cython.uint, 1 << 13)
MOST = cython.declare(cython.ulonglong, 0xFFFFFFFF)
PTE_WRITE = cython.declare(cython.uint, Event.PTE_WRITE)
SHADOW_FILL = cython.declare(cython.uint, Event.SHADOW_FILL)
PAGE_FAULT = cython.declare(cython.uint, Event.PAGE_FAULT)
NX_FETCH = cython.declare(cython.uint, Event.NX_FETCH)
BYPASSED_FAULT = cython.declare(cython.uint, Event.BYPASSED_FAULT)


@cython.final
@cython.cclass
class Recorder:
    """Records the events of one CPU.

    `on_full` is called when the ring has no room left, and must `take` the records.
    With `timing` each record has the host's nanoseconds from entering the core to
    leaving it; those differ from run to run, and nothing else in a record does.
    """

    SAVED = Fields(
        host="cpu meter queue on_full timing used inside pending heavy host charged notices when "
        "event qualifier eip address depth row_when row_charged row_host row_event row_heavy "
        "row_qualifier row_eip row_address row_depth row_drained",
    )

    def __init__(self, cpu: CpuState, meter: BlockMeter, queue: BatchQueue, on_full, timing):
        self.cpu = cpu
        self.meter = meter
        self.queue = queue
        self.on_full = on_full
        self.timing = timing
        self.used = 0
        self.inside = self.pending = self.heavy = False
        self.host = self.charged = self.notices = self.when = 0
        self.event = self.qualifier = self.eip = self.address = self.depth = 0
        self.row_when = array("Q", bytes(8 * RECORDS))
        self.row_charged = array("I", bytes(4 * RECORDS))
        self.row_host = array("I", bytes(4 * RECORDS))
        self.row_event = array("I", bytes(4 * RECORDS))
        self.row_heavy = array("I", bytes(4 * RECORDS))
        self.row_qualifier = array("I", bytes(4 * RECORDS))
        self.row_eip = array("I", bytes(4 * RECORDS))
        self.row_address = array("I", bytes(4 * RECORDS))
        self.row_depth = array("I", bytes(4 * RECORDS))
        self.row_drained = array("I", bytes(4 * RECORDS))

    def begin(self) -> cython.int:
        """The engine calls into the core."""
        if self.pending:
            self.write()
        self.inside = True
        self.charged = self.meter.charged_ns
        self.notices = self.queue.notices
        self.depth = self.queue.depth()
        if self.timing:
            self.host = host_ns()
        return 0

    def note_heavy(self) -> cython.int:
        """The event that comes next is a device's to serve."""
        self.heavy = True
        return 0

    def note(self, event: cython.uint, qualifier: cython.uint, eip: cython.uint) -> cython.int:
        """An event was counted."""
        if self.pending:
            self.write()
        if not self.inside:
            # The run loop saw it, out of the engine.
            self.charged = self.meter.charged_ns
            self.notices = self.queue.notices
            self.depth = self.queue.depth()
        self.event = event
        self.qualifier = qualifier
        self.eip = eip
        self.when = self.meter.now_at(self.cpu.linear(eip)) - (self.meter.charged_ns - self.charged)
        self.address = 0
        if (
            event == PTE_WRITE
            or event == SHADOW_FILL
            or event == PAGE_FAULT
            or event == NX_FETCH
            or event == BYPASSED_FAULT
        ):
            self.address = self.cpu.fault_address()
        self.pending = True
        if not self.inside:
            self.write()
        return 0

    def end(self) -> cython.int:
        """Back to the engine."""
        if self.pending:
            self.write()
        self.inside = False
        return 0

    def write(self) -> cython.int:
        """What is known of the event by now goes into the ring."""
        i: cython.uint = self.used
        spent: cython.ulonglong = 0
        if self.timing and self.inside:
            spent = host_ns() - self.host
        self.row_when[i] = self.when
        self.row_charged[i] = cython.cast(
            cython.uint, min(self.meter.charged_ns - self.charged, MOST)
        )
        self.row_host[i] = cython.cast(cython.uint, min(spent, MOST))
        self.row_event[i] = self.event
        self.row_heavy[i] = self.heavy
        self.row_qualifier[i] = self.qualifier
        self.row_eip[i] = self.eip
        self.row_address[i] = self.address
        self.row_depth[i] = self.depth
        self.row_drained[i] = cython.cast(cython.uint, self.queue.notices - self.notices)
        self.pending = self.heavy = False
        self.used += 1
        if self.used == RECORDS:
            self.on_full()
            self.used = 0
        return 0

    def finish(self):
        """The run is over: an event that an error cut short is written too."""
        if self.pending:
            self.write()
        self.on_full()

    def take(self):
        """The records since the last time, oldest first, and forget them.

        Tuples of virtual time at the start (ns), virtual time taken (ns), the host's
        time (ns; 0 without `timing`), event, heavy (0 or 1), qualifier, instruction
        address, guest-virtual address of a fault (0 otherwise), records in the batch
        queue at the start, records drained meanwhile.
        """
        n = int(self.used)
        self.used = 0
        return [
            (
                self.row_when[i],
                self.row_charged[i],
                self.row_host[i],
                self.row_event[i],
                self.row_heavy[i],
                self.row_qualifier[i],
                self.row_eip[i],
                self.row_address[i],
                self.row_depth[i],
                self.row_drained[i],
            )
            for i in range(n)
        ]
