"""What an engine can do on this host, one thing at a time."""

from dataclasses import dataclass

__all__ = ["ABILITIES", "Ability"]

ABILITIES = {
    "real_mode": "16-bit real mode: firmware and option ROMs",
    "unpaged_32": "32-bit protected mode without paging",
    "unpaged_interrupts": "interrupts and IRET there",
    "paging_32": "32-bit paging, as i386 kernels use it",
    "paging_pae": "32-bit paging with physical address extension",
    "long_mode": "paging in long mode",
    "read_only_slots": "memory whose stores exit: ROMs, traced page tables",
    "split_irqchip": "local APICs in the kernel, PIC and IOAPIC here",
}
"""Names, which are stable, and what each means; in the order of reports."""


@dataclass(frozen=True, slots=True)
class Ability:
    """Whether an engine can do one of `ABILITIES`, and how that showed."""

    name: str
    available: bool
    detail: str

    @property
    def summary(self) -> str:
        """What it is."""
        return ABILITIES[self.name]
