"""The engines that there are, and what each can do on this host."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from vmm.core.errors import BadDescription, EngineFailure
from vmm.engine.ability import Ability
from vmm.engine.unicorn import check_unicorn
from vmm.machine import Machine, MachineDescription

if TYPE_CHECKING:
    # Loaded where it is asked for, as loading takes a tenth of a short run.
    from vmm.kvm_machine import KvmMachine

__all__ = ["EngineName", "EngineReport", "create_machine", "engine_named", "report_engines"]


class EngineName(StrEnum):
    """What executes a guest's instructions; the names are stable."""

    UNICORN = "unicorn"
    KVM = "kvm"


_SUMMARIES = {
    EngineName.UNICORN: "an emulated AMD-V processor: every policy, exact and repeatable counts",
    EngineName.KVM: "the kernel's hypervisor: this host's own processor and time",
}

_UNICORN_ABILITIES = (
    Ability("real_mode", available=False, detail="no more than the entries of option ROMs"),
    Ability("unpaged_32", available=True, detail="on shadow tables that map memory to itself"),
    Ability("unpaged_interrupts", available=True, detail="delivered by the core"),
    Ability("paging_32", available=True, detail="on shadow tables"),
    Ability("paging_pae", available=True, detail="on shadow tables"),
    Ability("long_mode", available=False, detail="guests are 32-bit"),
    Ability("read_only_slots", available=True, detail="the shadow write-protects any page"),
    Ability("split_irqchip", available=False, detail="all interrupt controllers are ours"),
)


@dataclass(frozen=True, slots=True)
class EngineReport:
    """One engine on this host. `refusal` says why it cannot be used, empty when it can."""

    name: EngineName
    refusal: str
    abilities: tuple[Ability, ...]

    @property
    def available(self) -> bool:
        """Can guests be run on it?"""
        return not self.refusal

    @property
    def summary(self) -> str:
        """What it is."""
        return _SUMMARIES[self.name]


def engine_named(name: str) -> EngineName:
    """The engine with this name; raises `BadDescription` when there is none."""
    try:
        return EngineName(name)
    except ValueError:
        known = ", ".join(EngineName)
        raise BadDescription(f"engine {name!r}: expected one of {known}") from None


def create_machine(
    engine: EngineName,
    description: MachineDescription,
    echo: Callable[[str], None] | None = None,
) -> "Machine | KvmMachine":
    """A machine on this engine, ready to run once; `echo` hears each line of the console.

    Raises `BadDescription` for what cannot be used, `KvmUnavailable` among it.
    """
    if engine is EngineName.KVM:
        from vmm.kvm_machine import KvmMachine  # noqa: PLC0415

        return KvmMachine(description, echo)
    return Machine(description, echo)


def report_engines() -> list[EngineReport]:
    """Every engine, with what it can do here. Harmless: see `vmm.engine.kvm.probe`."""
    return [_report_unicorn(), _report_kvm()]


def _report_unicorn() -> EngineReport:
    try:
        check_unicorn()
    except EngineFailure as failure:
        return EngineReport(EngineName.UNICORN, str(failure), ())
    return EngineReport(EngineName.UNICORN, "", _UNICORN_ABILITIES)


def _report_kvm() -> EngineReport:
    from vmm.engine.kvm.device import Kvm, KvmUnavailable  # noqa: PLC0415
    from vmm.engine.kvm.probe import probe  # noqa: PLC0415

    try:
        with Kvm():
            abilities = probe()
    except (KvmUnavailable, EngineFailure) as refusal:
        return EngineReport(EngineName.KVM, str(refusal), ())
    return EngineReport(EngineName.KVM, "", abilities)
