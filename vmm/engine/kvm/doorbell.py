"""The doorbell where the processor walks the guest's own tables: vmi/doorbell.py, on KVM.

There is no shadow, so there is nothing to be told: a ROM that attaches is granted
ATTACHED alone, and offers calls that save port and other exits.
"""

from collections.abc import Callable

from vmi.doorbell import Doorbell, Feature
from vmm.core.memory import GuestMemory
from vmm.core.paravirt.queueregion import QueueRefused, check_region

__all__ = ["KvmDoorbell"]

_COMPLAINTS = 16


class KvmDoorbell:
    """Serves hypercalls. `remap` is told when a page of the ROM has become writable.

    `translate` answers the guest-physical address of a virtual one, -1 where nothing is.
    """

    def __init__(
        self, memory: GuestMemory, translate: Callable[[int], int], remap: Callable[[], None]
    ) -> None:
        self._memory = memory
        self._translate = translate
        self._remap = remap
        self._image = (0, 0)
        self._attached = False
        self.complaints: list[str] = []

    def allow(self, start: int, end: int) -> None:
        """Where a queue may lie: inside the ROM image at [start, end)."""
        self._image = (start, end)

    @property
    def attached(self) -> bool:
        """Has a ROM come up?"""
        return self._attached

    def ring(self, function: int, argument: int, eip: int) -> int:
        """What the ROM finds in EAX: 0 is refused."""
        if function == Doorbell.ATTACH:
            return self._attach(argument, eip)
        if function != Doorbell.FLUSH or not self._attached:
            try:
                name = Doorbell(function).name
            except ValueError:
                name = str(function)
            reason = (
                "which only an engine with shadow tables serves"
                if self._attached
                else "before a queue is attached"
            )
            self._complain(f"doorbell function {name} at {eip:#010x}, {reason}")
            return 0
        return int(Feature.ATTACHED)

    def _attach(self, address: int, eip: int) -> int:
        try:
            region = check_region(self._memory, self._translate, address, self._image)
        except QueueRefused as refusal:
            self._complain(f"doorbell ATTACH at {eip:#010x} refused: {refusal}")
            return 0
        self._memory.set_protected(region.first_frame, region.frames, protected=False)
        self._attached = True
        self._remap()
        return int(Feature.ATTACHED)

    def _complain(self, text: str) -> None:
        if len(self.complaints) < _COMPLAINTS:
            self.complaints.append(text)
