"""Compare the shadow with the guest's tables, entry by entry.

What must hold at every exit, once the queue is drained: a shadow entry never
allows more than the guest's entry that it stands for, it leads to the same frame,
and no writable entry leads to a traced or protected frame. What the guest clears in
an announced table without a word may stay present until the page is released
(Linux does that at exit), so those are counted, not refused.
"""

from vmi.queue import HeaderField, RecordKind
from vmm.core.errors import EngineFailure
from vmm.core.vcpu import Vcpu

__all__ = ["ShadowChecker"]

_PRESENT, _WRITABLE, _USER = 1, 2, 4
_GUEST_DIRTY = 0x40
_FRAME = 0xFFFFF000
_GUEST_FRAME = 0xFFFFFFFFFF000
_NO_EXECUTE = 1 << 63
_TABLE, _DIRECT = 1, 2
_CR4_PAE = 0x20

Snapshot = dict[str, memoryview]


class ShadowChecker:
    """Checks one vCPU; `entries` counts comparisons, `unannounced` the tolerated ones."""

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

    def _queued_entries(self) -> set[int]:
        queue = self._vcpu.queue
        if not queue.attached:
            return set()
        header, capacity = queue.location()
        memory = self._vcpu.memory
        count = min(memory.read32(header + HeaderField.COUNT), capacity)
        words = (memory.read32(header + HeaderField.RECORDS + 4 * i) for i in range(count))
        return {word & ~3 for word in words if word & 3 == RecordKind.ENTRY}

    def _check_table(self, state: Snapshot, page: int, queued: set[int]) -> None:
        frame, part = state["frame_of"][page], state["part_of"][page]
        memory = self._vcpu.memory
        wide = bool(self._vcpu.paging.cr4 & _CR4_PAE)
        for index in range(512):
            entry = state["entries"][512 * page + index]
            if not entry & _PRESENT:
                continue
            if wide:
                address = (frame << 12) + 8 * index
                guest = memory.read64(address)
            else:
                address = (frame << 12) + 4 * (512 * part + index)
                guest = memory.read32(address)
            if address in queued:
                continue
            self.entries += 1
            if not guest & _PRESENT and state["announced"][frame]:
                self.unannounced += 1
                continue
            if self._allows_more(entry, guest) or self._differs(entry, guest & _GUEST_FRAME):
                raise EngineFailure(
                    f"shadow entry {entry:#x} stands for {guest:#x} at {address:#x}"
                )
            self._check_rights(state, entry)

    def _allows_more(self, entry: int, guest: int) -> bool:
        """Does the entry grant a right that the guest's does not?

        Ring 0 alone may write to a read-only page, while CR0.WP is clear.
        """
        writable = guest & _WRITABLE and guest & _GUEST_DIRTY
        return bool(
            not guest & _PRESENT
            or (entry & _USER and not guest & _USER)
            or (entry & _WRITABLE and entry & _USER and not writable)
            or (self._vcpu.paging.no_execute and guest & _NO_EXECUTE and not entry & _NO_EXECUTE)
        )

    def _differs(self, entry: int, address: int) -> bool:
        """Does the entry lead elsewhere? Frames without RAM lead to windows of the engine."""
        if address >> 12 >= self._vcpu.memory.frame_count:
            return False
        if not self._vcpu.memory.frames_view()[address >> 12] & 1:
            return False
        return entry & _FRAME != address

    def _check_direct(self, state: Snapshot, page: int) -> None:
        first = 512 * state["frame_of"][page]
        for index in range(512):
            entry = state["entries"][512 * page + index]
            if entry & _PRESENT:
                self.entries += 1
                if self._differs(entry, (first + index) << 12):
                    raise EngineFailure(
                        f"shadow entry {entry:#x} stands for frame {first + index:#x}"
                    )
                self._check_rights(state, entry)

    def _check_rights(self, state: Snapshot, entry: int) -> None:
        frame = (entry & _FRAME) >> 12
        if not entry & _WRITABLE or frame >= self._vcpu.memory.frame_count:
            return
        tables = state["table_of"][2 * frame : 2 * frame + 2]
        directories = state["directory_of"][4 * frame : 4 * frame + 4]
        if not state["announced"][frame] and (any(tables) or any(directories)):
            raise EngineFailure(f"traced frame {frame:#x} is writable by shadow entry {entry:#x}")
        if self._vcpu.memory.frames_view()[frame] & 2:
            raise EngineFailure(f"protected frame {frame:#x} is writable by entry {entry:#x}")
