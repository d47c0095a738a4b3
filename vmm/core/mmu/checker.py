"""Compare the shadow with the guest's tables, entry by entry.

What must hold at every exit, once the queue is drained: a shadow entry never
allows more than the guest's entry that it stands for, it leads to the same frame,
no writable entry leads to a traced or protected frame, and no entry at all leads
anywhere but to the guest's memory, an open window, or the page that reads as an
empty bus; the levels above lead to shadow pages. What the guest clears in
an announced table without a word may stay present until the page is released
(Linux does that at exit), so those are counted, not refused. Between a store to an
announced table and its notice the two differ: an exit there, which takes an interrupt
in the middle of the ROM's code, is no place to check.
"""

from typing import Any

from vmi.address import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from vmi.queue import HeaderField, RecordKind
from vmm.core.cpu.vcpu import Vcpu
from vmm.core.errors import EngineFailure
from vmm.core.saved import U64, Fields

__all__ = ["ShadowChecker"]

_PRESENT, _WRITABLE, _USER = 1, 2, 4
_GUEST_DIRTY = 0x40
_FRAME = 0xFFFFF000
_GUEST_FRAME = 0xFFFFFFFFFF000
_NO_EXECUTE = 1 << 63
_WRITE_PROTECT = 0x10000
_TABLE, _DIRECT, _DIRECTORY, _IDENTITY = 1, 2, 3, 4
_LEAF_KINDS = frozenset({_TABLE, _DIRECT})
_DIRECTORY_KINDS = frozenset({_DIRECTORY, _IDENTITY})
_ROOTS_PAGE, _VOID_PAGE = 0, 1
_ROOT_ENTRIES = 512
_PAE_MODE = 0x20

Snapshot = dict[str, Any]


class ShadowChecker:
    """Checks one vCPU; `entries` counts comparisons, `unannounced` the tolerated ones."""

    SAVED = Fields({U64: "entries unannounced"}, wiring="_vcpu")

    def __init__(self, vcpu: Vcpu) -> None:
        self._vcpu = vcpu
        self.entries = 0
        self.unannounced = 0

    def check(self) -> None:
        """Compare everything now; raises `EngineFailure` naming the first disagreement."""
        state = self._vcpu.shadow.pages.snapshot()
        queued = self._queued_entries()
        for page, kind in enumerate(state["kind"]):
            if kind == _TABLE:
                self._check_table(state, page, queued)
            elif kind == _DIRECT:
                self._check_direct(state, page)
            elif kind in _DIRECTORY_KINDS:
                self._check_links(state, page, 512, _LEAF_KINDS)
        self._check_links(state, _ROOTS_PAGE, _ROOT_ENTRIES, _DIRECTORY_KINDS)

    def _check_links(self, state: Snapshot, page: int, count: int, kinds: frozenset[int]) -> None:
        """Present entries of an upper level lead to shadow pages of the level below."""
        for entry in state["entries"][512 * page : 512 * page + count]:
            if entry & _PRESENT:
                target = self._pool_page(state, entry)
                if target is None or state["kind"][target] not in kinds:
                    raise EngineFailure(f"shadow link {entry:#x} leads to no table")

    @staticmethod
    def _pool_page(state: Snapshot, entry: int) -> int | None:
        """The number of the shadow page that an entry leads to; none outside the pool."""
        address, pages = state["pool"]
        page: int = ((entry & _FRAME) - address) >> PAGE_SHIFT
        return page if 0 <= page < pages else None

    def _queued_entries(self) -> set[int]:
        """Where in the host's buffer the entries are that records in a queue are about."""
        own = self._vcpu.queue
        memory = self._vcpu.memory
        found: set[int] = set()
        for queue in (own, *own.peers):
            if queue.attached:
                header, capacity = queue.location()
                count = min(memory.read32(header + HeaderField.COUNT), capacity)
                words = (memory.read32(header + HeaderField.RECORDS + 4 * i) for i in range(count))
                found |= {
                    (memory.host(word >> PAGE_SHIFT) << PAGE_SHIFT) | (word & PAGE_MASK & ~3)
                    for word in words
                    if word & 3 == RecordKind.ENTRY
                }
        return found

    def _check_table(self, state: Snapshot, page: int, queued: set[int]) -> None:
        frame, part = state["frame_of"][page], state["part_of"][page]
        memory = self._vcpu.memory
        wide = bool(self._vcpu.shadow.pages.mode & _PAE_MODE)
        for index in range(512):
            entry = state["entries"][512 * page + index]
            if not entry & _PRESENT:
                continue
            address = (frame << 12) + (8 * index if wide else 4 * (512 * part + index))
            guest = int.from_bytes(memory.host_bytes(address, 8 if wide else 4), "little")
            if address in queued:
                continue
            self.entries += 1
            if state["out_of_step"][frame]:
                continue
            if not guest & _PRESENT and state["announced"][frame]:
                self.unannounced += 1
                continue
            target = (guest & _GUEST_FRAME) >> PAGE_SHIFT
            if self._allows_more(entry, guest) or self._differs(entry, target):
                raise EngineFailure(
                    f"shadow entry {entry:#x} stands for {guest:#x} at {address:#x}"
                )
            self._check_rights(state, entry, target)

    def _allows_more(self, entry: int, guest: int) -> bool:
        """Does the entry grant a right that the guest's does not?

        Ring 0 alone may write to a read-only page, while CR0.WP is clear.
        """
        writable = guest & _WRITABLE and guest & _GUEST_DIRTY
        return bool(
            not guest & _PRESENT
            or (entry & _USER and not guest & _USER)
            or (
                entry & _WRITABLE
                and not writable
                and (entry & _USER or self._vcpu.paging.cr0 & _WRITE_PROTECT)
            )
            or (self._vcpu.paging.no_execute and guest & _NO_EXECUTE and not entry & _NO_EXECUTE)
        )

    def _differs(self, entry: int, frame: int) -> bool:
        """Does the entry lead elsewhere than to a guest's frame?

        Frames without RAM lead to windows of the engine.
        """
        memory = self._vcpu.memory
        if frame >= memory.frame_count or not memory.is_ram(frame):
            return False
        return bool((entry & _FRAME) >> PAGE_SHIFT != memory.host(frame))

    def _check_direct(self, state: Snapshot, page: int) -> None:
        first = 512 * state["frame_of"][page]
        for index in range(512):
            entry = state["entries"][512 * page + index]
            if entry & _PRESENT:
                self.entries += 1
                if self._differs(entry, first + index):
                    raise EngineFailure(
                        f"shadow entry {entry:#x} stands for frame {first + index:#x}"
                    )
                self._check_rights(state, entry, first + index)

    def _check_rights(self, state: Snapshot, entry: int, guest: int) -> None:
        """`guest` is the number of the guest's frame, the entry has the host's."""
        frame = (entry & _FRAME) >> PAGE_SHIFT
        memory = self._vcpu.memory
        if frame >= memory.host_count:
            windows = self._vcpu.shadow.pages.windows
            first, end = windows.address, windows.address + windows.used * PAGE_SIZE
            if not first <= entry & _FRAME < end and (
                entry & _WRITABLE or self._pool_page(state, entry) != _VOID_PAGE
            ):
                raise EngineFailure(f"shadow entry {entry:#x} leads out of the guest's memory")
            return
        if not entry & _WRITABLE:
            return
        tables = state["table_of"][2 * frame : 2 * frame + 2]
        directories = state["directory_of"][4 * frame : 4 * frame + 4]
        told = state["announced"][frame] or state["out_of_step"][frame]
        if not told and (any(tables) or any(directories)):
            raise EngineFailure(f"traced frame {frame:#x} is writable by shadow entry {entry:#x}")
        if memory.is_protected(guest):
            raise EngineFailure(f"protected frame {guest:#x} is writable by entry {entry:#x}")
        if memory.log.is_clean(frame):
            raise EngineFailure(f"clean frame {guest:#x} is writable by entry {entry:#x}")
