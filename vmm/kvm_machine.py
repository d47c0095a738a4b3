"""The machine on KVM: the same description, firmware, devices and ledger, another processor."""

import mmap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import BinaryIO

from vmi.header import VMI_DEVICE, VMI_VENDOR
from vmm.core.bus import PortBus
from vmm.core.errors import BadDescription
from vmm.core.memory import GuestMemory
from vmm.core.outcome import Outcome, OutcomeKind
from vmm.core.policy import POLICIES
from vmm.core.slots import MemorySlot, SlotList
from vmm.core.timers import Timers
from vmm.description import DEFAULT_MAX_INSTRUCTIONS, MachineDescription, check_memory, open_disk
from vmm.devices.disk import DiskImage
from vmm.engine.kvm.biosmemory import BiosMemory
from vmm.engine.kvm.clock import HostClock
from vmm.engine.kvm.device import Kvm, KvmRefused
from vmm.engine.kvm.farcall import far_caller
from vmm.engine.kvm.hostlimits import paging_hint, require
from vmm.engine.kvm.modes import flat_protected, real_mode
from vmm.engine.kvm.policy import KVM_POLICY
from vmm.engine.kvm.processor import KvmProcessor
from vmm.engine.kvm.runloop import KvmRunLoop
from vmm.firmware.boot import BootPlan
from vmm.firmware.guest import plan_guest
from vmm.firmware.pcbios import (
    RESET_BASE,
    RESET_OFFSET,
    RESET_SEGMENT,
    check_bios,
    is_bios,
)
from vmm.firmware.post import ROM_AREA_END, ROM_AREA_START, ShadowedRom, power_on_self_test
from vmm.firmware.romcheck import check_vmi_rom
from vmm.layout import GDT, lay_out_memory
from vmm.pc import Pc
from vmm.plugging import PluggedDevices
from vmm.result import PhaseRecorder, Run, SoFar, collect_foreign, so_far
from vmm.timelimit import limited

__all__ = ["KvmMachine"]

_GENERAL = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")
"""In the order of the instruction encoding, which boot plans use."""


@dataclass(slots=True)
class _Counted:
    """What phases and the result are cut from."""

    vcpus: tuple[KvmProcessor, ...]
    clock: HostClock
    instructions: int = 0

    def now(self) -> int:
        """Virtual time."""
        return self.clock.now()


@dataclass(slots=True)
class KvmMachine:
    """One machine on /dev/kvm, assembled and past POST, ready to run once.

    The interface is that of `vmm.machine.Machine`. Raises `KvmUnavailable` without KVM,
    `HostCannot` where the guest is known to need what this host lacks, and
    `BadDescription` for what only the other engine can do.
    """

    description: MachineDescription
    echo: Callable[[str], None] | None = None
    timers: Timers = field(default_factory=Timers)
    ram: mmap.mmap = field(init=False)
    memory: GuestMemory = field(init=False)
    processor: KvmProcessor = field(init=False)
    pc: Pc = field(init=False)
    devices: PluggedDevices = field(init=False)
    roms: list[ShadowedRom] = field(init=False, default_factory=list)
    clock: HostClock = field(init=False)
    _phases: PhaseRecorder = field(init=False)
    _disk: BinaryIO | None = field(init=False, default=None)
    _bios: BiosMemory | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        about = self.description
        _check(about)
        plan = None
        if is_bios(about.guest):
            check_bios(about.guest, about.command_line, about.initrd)
        else:
            plan = plan_guest(about.guest, about.memory, about.command_line, about.initrd)
        if about.rom is not None:
            check_vmi_rom(about.rom)
        require("unpaged_32", "read_only_slots")
        if plan is not None and plan.pages:
            require("paging_32")
        if about.rom is not None or plan is None:
            require("real_mode")
        if about.apic:
            require("split_irqchip")
        self._phases = PhaseRecorder(about.marks)
        self._disk = open_disk(about)
        try:
            self._assemble(plan)
        except BaseException:
            self.close()
            raise

    def _assemble(self, plan: BootPlan | None) -> None:
        about = self.description
        self.clock = HostClock()
        self.ram, self.memory = lay_out_memory(about.memory, about.backings)
        ports = PortBus()
        if plan is None:
            self._bios = BiosMemory(about.guest, self.memory, self._remap)
        self.pc = Pc(
            ports,
            self.timers,
            self.clock.now,
            about.memory,
            about.rom,
            None if self._disk is None else DiskImage(self._disk, about.disk_writes),
            self._console_line,
            self._interrupt_line,
            self._stop,
            bridge=None if self._bios is None else self._bios.bridge,
        )
        self.devices = PluggedDevices(
            self.pc, ports, None, self.memory, self.timers, self.clock.now, self._no_message
        )
        self.devices.plug_in(about.devices)
        with Kvm() as kvm:
            self.processor = KvmProcessor(
                kvm, self.ram, self.memory, ports, self.pc.pci, local_apic=about.apic
            )
        if plan is None:
            self._start_bios()
            return
        self.roms = power_on_self_test(
            self.ram,
            self.memory,
            ports,
            self.pc.pci,
            about.rom_address,
            far_caller(self.processor),
        )
        for rom in self.roms:
            if (rom.vendor, rom.device) == (VMI_VENDOR, VMI_DEVICE):
                self.processor.doorbell.allow(rom.address, rom.address + rom.size)
        self._start(plan)

    @staticmethod
    def _no_message(address: int, data: int) -> None:
        raise ValueError(f"message {data:#x} to {address:#x}: engine kvm delivers none")

    def _start_bios(self) -> None:
        """The processor's reset state; firmware finds and places option ROMs itself."""
        self.processor.doorbell.allow(ROM_AREA_START, ROM_AREA_END)
        self._remap()
        state = dict(real_mode(RESET_SEGMENT))
        self.processor.start(state | {"cs.base": RESET_BASE, "rip": RESET_OFFSET})

    def _remap(self) -> None:
        """Firmware has switched memory."""
        if self._bios is not None:
            self.processor.add_slots(self._bios.slots())
        self.processor.remap()

    def set_memory(self, slots: Iterable[MemorySlot]) -> None:
        """Replace the list of memory slots as a whole, at once.

        In the vCPU's thread, while it is not in the guest: a device may ask for it. Raises
        `BadSlots`, with nothing changed, for a list that cannot be, and `BadDescription` or
        `KvmRefused` for one that this host cannot have.
        """
        self.processor.vcpu.check_thread()
        before = self.memory.slots
        checked = SlotList(slots, before.backings.values())
        self.processor.collect_written()
        self.memory.replace(checked)
        try:
            self._remap()
        except (BadDescription, KvmRefused):
            self.memory.replace(before)
            raise

    def dirty_log(self, slot: MemorySlot) -> bytes:
        """Which pages of a slot that logs them were written, as `Vm.dirty_log` tells it.

        The kernel keeps the log; what it tells and clears is one step to the guest, which does
        not run meanwhile.
        """
        self.processor.vcpu.check_thread()
        self.processor.collect_written()
        return bytes(self.memory.log.bitmap(slot))

    def _start(self, plan: BootPlan) -> None:
        """Carry out a boot plan: memory, descriptors, registers."""
        for segment in plan.segments:
            self.memory.load(segment.address, segment.data)
        gdt = plan.descriptors()
        self.memory.load(GDT, gdt)
        state = dict(flat_protected(plan.code, plan.data, GDT, len(gdt) - 1))
        state |= {name: plan.registers.get(i, 0) for i, name in enumerate(_GENERAL)}
        self.processor.start(state | {"rip": plan.entry})

    def _console_line(self, line: str) -> None:
        if self.echo is not None:
            self.echo(line)
        if self.description.until and self.description.until in line:
            self.pc.end(Outcome(OutcomeKind.PASSED, f"the console printed {line!r}"))
        self._phases.line(line, self._counted)

    def _interrupt_line(self, level: bool) -> None:  # noqa: FBT001 - a wire has a level
        self.processor.irq_pending = level

    def _stop(self) -> None:
        self.processor.stopping = True

    @property
    def _counted(self) -> _Counted:
        return _Counted((self.processor,), self.clock)

    def close(self) -> None:
        """Give the virtual machine back to the kernel, and the disk image's file."""
        if hasattr(self, "processor"):
            self.processor.close()
        if self._disk is not None:
            self._disk.close()

    def run(self, watch: Callable[[int], None] | None = None) -> Run:
        """Run the guest to its end, then give the virtual machine back.

        `watch` is as in `KvmRunLoop.run`. Raises `HostCannot` when the guest turns out to
        need what KVM on this host cannot do.
        """
        loop = KvmRunLoop(self.processor, self.clock, self.timers, self.pc.interrupts, self.pc)
        try:
            return self.result(loop.run(limited(watch, self.description.seconds)))
        finally:
            self.close()

    def so_far(self) -> SoFar:
        """How far the run is, in exits and time; instructions are not counted."""
        return so_far(self._counted, KVM_POLICY)

    def result(self, outcome: Outcome) -> Run:
        """The counts as they stand."""
        processor, about = self.processor, self.description
        complaints = list(processor.doorbell.complaints)
        if not outcome.ok:
            complaints += paging_hint()
        return collect_foreign(
            self._counted,
            KVM_POLICY,
            outcome,
            engine="kvm",
            engine_events=processor.returns_by_name(),
            complaints=tuple(complaints),
            registers=processor.state(),
            guest=about.guest,
            rom=about.rom,
            memory=self.ram,
            console=self.pc.console,
            phases=self._phases.finish(KVM_POLICY, self._counted),
        )


def _check(about: MachineDescription) -> None:
    """What a description may ask of this engine."""
    check_memory(about)
    if about.policy not in {POLICIES[0], KVM_POLICY}:
        raise BadDescription(
            f"policy {about.policy.name!r}: engine kvm runs on this host's processor and models "
            "none; leave the policy away"
        )
    if about.max_instructions != DEFAULT_MAX_INSTRUCTIONS:
        raise BadDescription(
            f"a limit of {about.max_instructions} instructions: engine kvm counts none; limit the "
            "seconds"
        )
    if about.cpus != 1:
        raise BadDescription(f"{about.cpus} virtual CPUs: engine kvm has one")
    if about.threads:
        raise BadDescription("threads for virtual CPUs: engine kvm has one virtual CPU")
    if about.ioapic_process:
        raise BadDescription("an I/O APIC in a process of its own: engine kvm has none")
    if about.reflect:
        raise BadDescription("exits are reflected by the core: engine kvm has none")
    if about.filters:
        raise BadDescription("port filters answer in the core: engine kvm has none")
    if about.check_shadow:
        raise BadDescription("there is no shadow to check: engine kvm has none")
