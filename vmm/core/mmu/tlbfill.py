"""Fill the engine's TLB from the shadow tables, in the place of the engine's own walker.

The engine walks page tables through its general way to memory: three entries are three lookups
of what lies where. The shadow tables are an array here, and a walk is three loads. So the
engine's pointer to its walker is made to point to `raw_fill`, for one CPU. What a walk of
the shadow finds and permits goes into the TLB. What it forbids to a load or a store of
translated code is served at once, and the access goes on in its block if the shadow alone was to
blame. All else - a fetch, a probe, tables that are not the shadow's, CPUs with host threads
of their own - is the engine's walker's, as ever. A word of the engine's CPU state that it has no
use for (the TSC offset: RDTSC is intercepted) holds whose CPU it is.

Only the compiled core takes that place. The interpreted one leaves it to the engine, with the
same counts.
"""

import cython

from vmm.core.cpu.vcpu import Vcpu
from vmm.core.mmu.shadowpages import ShadowPages
from vmm.core.saved import Fields

if not cython.compiled:
    from vmm.core.native import FillCall, LeaveCall, PageCall, RestoreCall, SetPageCall

# 8-byte units of the engine's CPU state (cpustate.py).
CR0 = cython.declare(cython.uint, 53)
CR3 = cython.declare(cython.uint, 56)
CR4 = cython.declare(cython.uint, 57)
# Paging, and read-only pages that bind ring 0 too.
CR0_PG_WP = cython.declare(cython.ulonglong, (1 << 31) | (1 << 16))
CR4_PAE = cython.declare(cython.ulonglong, 0x20)

PRESENT = cython.declare(cython.ulonglong, 0x01)
WRITABLE = cython.declare(cython.ulonglong, 0x02)
USER = cython.declare(cython.ulonglong, 0x04)
ACCESSED = cython.declare(cython.ulonglong, 0x20)
DIRTY = cython.declare(cython.ulonglong, 0x40)
FRAME_MASK = cython.declare(cython.longlong, 0xFFFFF000)
LOW_32 = cython.declare(cython.ulonglong, 0xFFFFFFFF)
# Bits by which an entry is none that the shadow has: those below no-execute, and a large page.
UNKNOWN = cython.declare(cython.ulonglong, (((1 << 31) - 1) << 32) | 0x80)
NO_EXECUTE_BIT = cython.declare(cython.uint, 63)
# Roots lie in the first page of the pool.
ROOT_ENTRIES = cython.declare(cython.ulonglong, 512)

# How the engine has it: kinds of access, rights, and which of its TLBs is ring 3's.
LOAD = cython.declare(cython.int, 0)
STORE = cython.declare(cython.int, 1)
FETCH = cython.declare(cython.int, 2)
MAY_READ = cython.declare(cython.int, 1)
MAY_WRITE = cython.declare(cython.int, 2)
MAY_READ_WRITE = cython.declare(cython.longlong, 3)
MAY_FETCH = cython.declare(cython.int, 4)
OF_RING_3 = cython.declare(cython.int, 1)
RIGHTS = cython.declare(cython.longlong, 7)
RING_3 = cython.declare(cython.uint, 3)
PAGE_SIZE = cython.declare(cython.ulonglong, 4096)

# What `found` answers where the access must not be made.
FOREIGN = cython.declare(cython.longlong, -1)
MISSING = cython.declare(cython.longlong, -2)
FORBIDDEN = cython.declare(cython.longlong, -3)
# Bits of a page-fault error code.
ERROR_PRESENT = cython.declare(cython.uint, 1)
ERROR_WRITE = cython.declare(cython.uint, 2)
ERROR_USER = cython.declare(cython.uint, 4)

# How far behind the engine's CPU object it is said whose CPU it is.
owner_at = cython.declare(cython.size_t, 0)


@cython.final
@cython.cclass
class TlbFill:
    """Fills the TLB of one virtual CPU.

    `binding` is the engine's `EngineBinding`. With `serves` page faults are served in the middle
    of a block.
    """

    SAVED = Fields(
        wiring="vcpu cpu pages size serves set_page set_dirty restore_state leave engine_walk"
    )

    def __init__(self, vcpu: Vcpu, binding):
        pages: ShadowPages = vcpu.shadow.pages
        self.vcpu = vcpu
        self.cpu = vcpu.cpu
        self.pages = pages
        self.serves = False
        self.restore_state = cython.cast(
            RestoreCall, cython.cast(cython.size_t, binding.restore_state)
        )
        self.leave = cython.cast(LeaveCall, cython.cast(cython.size_t, binding.leave))
        self.size = 512 * pages.page_count
        self.set_page = cython.cast(SetPageCall, cython.cast(cython.size_t, binding.set_page))
        global owner_at  # noqa: PLW0603 - raw_fill has nothing else to find it by
        # The same for every CPU: it is a place in a structure of the engine's.
        owner_at = binding.owner_offset
        self.set_dirty = cython.cast(PageCall, cython.cast(cython.size_t, binding.set_dirty))
        self.engine_walk = cython.cast(FillCall, cython.cast(cython.size_t, binding.walk))

    def found(
        self, address: cython.ulonglong, access: cython.int, user: cython.bint
    ) -> cython.longlong:
        """What the shadow has for an access that it permits: the frame's address and the rights.

        Else MISSING, FORBIDDEN, or, where the tables in use are not as the shadow's, FOREIGN.
        """
        if (
            address > LOW_32
            or (self.cpu.quads[CR0] & CR0_PG_WP) != CR0_PG_WP
            or not self.cpu.quads[CR4] & CR4_PAE
        ):
            return FOREIGN
        # Below the pool's address the difference is a number beyond every table.
        at: cython.ulonglong = self.cpu.quads[CR3] - self.pages.pool_address
        at = (at >> 3) + (address >> 30)
        if at >= ROOT_ENTRIES:
            return FOREIGN
        entry: cython.ulonglong = self.pages.entries[at]
        if not entry & PRESENT:
            return MISSING
        if entry > LOW_32:
            return FOREIGN
        at = (entry & FRAME_MASK) - self.pages.pool_address
        at = (at >> 3) + ((address >> 21) & 511)
        if at >= self.size:
            return FOREIGN
        link: cython.ulonglong = self.pages.entries[at]
        if not link & PRESENT:
            return MISSING
        if not link & ACCESSED or link & UNKNOWN:
            return FOREIGN
        at = (link & FRAME_MASK) - self.pages.pool_address
        at = (at >> 3) + ((address >> 12) & 511)
        if at >= self.size:
            return FOREIGN
        entry = self.pages.entries[at]
        if not entry & PRESENT:
            return MISSING
        if not entry & ACCESSED or entry & UNKNOWN:
            return FOREIGN
        if user and not link & entry & USER:
            return FORBIDDEN
        rights: cython.int = MAY_READ
        if link & entry & WRITABLE and entry & DIRTY:
            rights |= MAY_WRITE
        elif access == STORE:
            return FORBIDDEN
        if not (link | entry) >> NO_EXECUTE_BIT:
            rights |= MAY_FETCH
        elif access == FETCH:
            return FORBIDDEN
        return cython.cast(cython.longlong, (entry & FRAME_MASK) | rights)

    def fill(
        self,
        engine_cpu: cython.size_t,
        address: cython.ulonglong,
        size: cython.int,
        access: cython.int,
        ring: cython.int,
        probe: cython.uchar,
        code: cython.size_t,
    ) -> cython.uchar:
        """What the engine asks its walker for; does not return where the guest faults.

        `code` is where translated code goes on, for an access of its own.
        """
        user: cython.bint = ring == OF_RING_3
        entry: cython.longlong = self.found(address, access, user)
        if entry < 0:
            if (
                not self.serves
                or entry == FOREIGN
                or access == FETCH
                or probe
                or not self.restore_state(engine_cpu, code, False)
            ):
                return self.engine_walk(engine_cpu, address, size, access, ring, probe, code)
            error: cython.uint = ERROR_USER if user else 0
            if access == STORE:
                error |= ERROR_WRITE
            if entry == FORBIDDEN:
                error |= ERROR_PRESENT
            with cython.gil:
                entry = self.serve(cython.cast(cython.uint, address), error, access, user)
            if entry < 0:
                self.leave(engine_cpu)
        self.set_page(
            engine_cpu,
            (address >> 12) << 12,
            entry & FRAME_MASK,
            cython.cast(cython.int, entry & RIGHTS),
            ring,
            PAGE_SIZE,
        )
        if access == STORE and (entry & RIGHTS) == MAY_READ_WRITE and not self.is_code(entry):
            # Else the store would look for translated code that it hits. Not where a load came
            # first: the engine's second TLB does not know such an entry for a store before one
            # has been made, which may be seen where the shadow lacks a way that the TLB has.
            self.set_dirty(engine_cpu, address)
        return 1

    def serve(
        self, address: cython.uint, error: cython.uint, access: cython.int, user: cython.bint
    ) -> cython.longlong:
        """Serve a page fault here and now; answers as `found`.

        The access goes on where it is, in the middle of its block, if all that was wrong was the
        shadow. Else the engine has to leave the block: also where it could not come back to
        it, since the guest has changed how its code is mapped, or stores to it; and where what is
        stored may have been loaded through a translation that has changed since.
        """
        code: cython.longlong = self.code_now()
        behind: cython.bint = self.pages.tlb_stale
        loaded: cython.longlong = self.found(address, LOAD, user)
        # A fault where flags are kept has put them back, for whoever comes to the instruction
        # anew; its translation goes on with what it had.
        source: cython.ulonglong = self.cpu.flag_source()
        operation: cython.uint = self.cpu.flag_operation()
        if not self.vcpu.fault(address, error):
            return MISSING
        entry: cython.longlong = self.found(address, access, user)
        if (
            entry < 0
            or code < 0
            or code != self.code_now()
            or (access == STORE and self.is_code(entry))
            or (access == STORE and behind)
            or (access == STORE and loaded >= 0 and (loaded ^ entry) & FRAME_MASK)
            or not self.vcpu.meter.stay()
        ):
            return MISSING
        self.cpu.set_flag_source(source, operation)
        return entry

    def code_now(self) -> cython.longlong:
        """As `found`, for the instruction that the CPU is at."""
        at: cython.uint = self.cpu.linear(self.cpu.eip())
        return self.found(at, FETCH, self.cpu.cpl() == RING_3)

    def is_code(self, entry: cython.longlong) -> cython.bint:
        """May there be translated code in the frame? A store may hit the very block."""
        frame: cython.longlong = entry >> 12
        return frame < self.pages.memory.host_count and self.pages.translated[frame] != 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def raw_fill(
    engine_cpu: cython.size_t,
    address: cython.ulonglong,
    size: cython.int,
    access: cython.int,
    ring: cython.int,
    probe: cython.uchar,
    code: cython.size_t,
) -> cython.uchar:
    """The engine's TLB misses."""
    owner: cython.pointer(cython.p_void) = cython.cast(
        cython.pointer(cython.p_void), engine_cpu + owner_at
    )
    return cython.cast(TlbFill, owner[0]).fill(engine_cpu, address, size, access, ring, probe, code)


def fill_callback(filler: TlbFill, serves):
    """(address, user data) of what an engine asks in its walker's place; compiled only.

    With `serves` it serves page faults as well. The filler must outlive the engine.
    """
    filler.serves = serves
    return (
        cython.cast(cython.size_t, cython.cast(cython.p_void, raw_fill)),
        cython.cast(cython.size_t, cython.cast(cython.p_void, filler)),
    )
