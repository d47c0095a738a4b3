"""The parts of a machine, made and wired: virtual CPUs, local APICs, clocks, the guest's start."""

import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from vmi.apstate import ApState
from vmi.clock import Wiring
from vmm.core.apicbus import ApicBus
from vmm.core.bus import InterruptController, PortBus
from vmm.core.cpu.cpuid import MODEL_SPECIFIC_REGISTERS, cpuid
from vmm.core.cpu.sharedhooks import shared_callbacks
from vmm.core.cpu.vcpu import Vcpu
from vmm.core.hooks import callbacks
from vmm.core.localapic import LocalApic
from vmm.core.memory import GuestMemory
from vmm.core.paravirt.clock import GuestClock
from vmm.core.ports.filters import PortFilters
from vmm.core.processor import Activity, Processor
from vmm.core.run.crew import Crew
from vmm.core.timers import Timers
from vmm.core.vm import Vm
from vmm.description import MachineDescription
from vmm.engine.parallel import prepare_parallel
from vmm.engine.unicorn import POOL_ADDRESS, WINDOW_ADDRESS, UnicornEngine
from vmm.firmware.boot import BootPlan
from vmm.firmware.mptable import mp_tables
from vmm.layout import GDT
from vmm.pc import Pc

__all__ = [
    "VirtualCpus",
    "make_apics",
    "make_clocks",
    "make_processors",
    "make_vcpus",
    "start_guest",
]

_RESERVED_FLAGS = 2


@dataclass(frozen=True, slots=True)
class VirtualCpus:
    """The CPUs of a machine with what executes for them, and their threads where they have any."""

    vm: Vm
    engines: list[UnicornEngine]
    crew: Crew | None


def make_vcpus(
    about: MachineDescription,
    ram: mmap.mmap,
    pool: mmap.mmap,
    memory: GuestMemory,
    ports: PortBus,
    filters: PortFilters,
) -> VirtualCpus:
    """CPUs on the guest's `ram` and shadow tables in `pool`, connected to their engines."""
    make = partial(UnicornEngine, ram, pool, pauses=about.cpus > 1)
    crew = None
    if about.threads:
        prepare_parallel()
        crew = Crew(about.cpus)
        engines = [thread.call(make) for thread in crew.threads]
    else:
        engines = [make() for _ in range(about.cpus)]
    vm = Vm(
        memory,
        [engine.binding() for engine in engines],
        pool,
        POOL_ADDRESS,
        WINDOW_ADDRESS,
        about.policy,
        ports,
        cpuid,
        MODEL_SPECIFIC_REGISTERS,
        crew,
    )
    for vcpu, engine in zip(vm.vcpus, engines, strict=True):
        if crew is None:
            engine.connect(callbacks(vcpu), vcpu.mmio_read, vcpu.mmio_write)
        else:
            cell = crew.cells[vcpu.index]
            engine.connect(shared_callbacks(cell), cell.mmio_read, cell.mmio_write)
        vcpu.connect(engine.call_before, engine.mark_blocks)
        vcpu.ports.filters = filters
    return VirtualCpus(vm, engines, crew)


def make_apics(
    vm: Vm,
    timers: Timers,
    bus: ApicBus,
    external: InterruptController,
    changed: Callable[[Vcpu, bool], None],
) -> list[LocalApic]:
    """Local APICs that the guest sees; the 8259s reach the first one, as firmware leaves it.

    `changed` hears of each CPU's interrupt line.
    """
    apics = []
    for vcpu in vm.vcpus:
        apic = LocalApic(vcpu.index, vcpu.index == 0, timers, vm.now, bus, external)
        bus.attach(apic)
        vcpu.plug_in(apic)
        apic.on_change = partial(changed, vcpu)
        apics.append(apic)
    apics[0].virtual_wire()
    if len(apics) == 1:
        # A ROM has one queue header, and so room for one local APIC.
        vm.vcpus[0].doorbell.serve_apic(apics[0])
    return apics


def make_clocks(
    vm: Vm, timers: Timers, memory: GuestMemory, pc: Pc, apics: Sequence[LocalApic]
) -> None:
    """What the ROM's timer calls need: each CPU has its alarms, and its ways to get them."""
    for vcpu in vm.vcpus:
        clock = GuestClock(timers, vm.now, pc.power_on_ns, memory)
        clock.wire(Wiring.IRQ0, pc.pulse_timer_line)
        if apics:
            # A kernel that finds a local APIC asks for this one.
            clock.wire(Wiring.LVTT, apics[vcpu.index].timer_alarm)
        vcpu.doorbell.serve_clock(clock)


def make_processors(
    cpus: VirtualCpus, apics: Sequence[LocalApic], external: InterruptController
) -> list[Processor]:
    """The CPUs as the run loop sees them; start-up reaches the others by their APICs."""
    vcpus = cpus.vm.vcpus
    processors = [
        Processor(
            vcpu,
            engine,
            apics[vcpu.index] if apics else external,
            Activity.WAITING if vcpu.index else Activity.RUNNING,
        )
        for vcpu, engine in zip(vcpus, cpus.engines, strict=True)
    ]

    def start_ap(apic_id: int, state: ApState) -> None:
        """SetInitialAPState."""
        for processor, apic in zip(processors, apics, strict=True):
            if apic.initial_id == apic_id:
                processor.start_in(state)
                return
        raise ValueError(f"there is no processor with APIC ID {apic_id}")

    if len(vcpus) > 1:
        for vcpu in vcpus:
            vcpu.doorbell.serve_start(start_ap)
    for processor, apic in zip(processors, apics, strict=False):
        apic.on_nmi = processor.raise_nmi
        apic.on_init = partial(_reset_by_init, processor, apic)
        apic.on_startup = processor.startup
    return processors


def _reset_by_init(processor: Processor, apic: LocalApic) -> None:
    processor.init()
    apic.initialise()


def start_guest(plan: BootPlan, cpus: VirtualCpus, memory: GuestMemory, apics: int) -> None:
    """Carry out a boot plan: memory, descriptors, registers; MP tables for so many `apics`."""
    vcpu = cpus.vm.vcpus[0]
    for segment in plan.segments:
        memory.load(segment.address, segment.data)
    if apics:
        signature, _, _, features = vcpu.privileged.cpuid(1)
        tables = mp_tables(apics, signature, features)
        memory.load(tables.address, tables.data)
    gdt = plan.descriptors()
    memory.load(GDT, gdt)
    cpus.engines[0].reset_segments(GDT, len(gdt) - 1, plan.code, plan.data)
    cpu = vcpu.cpu
    for register, value in plan.registers.items():
        cpu.set_reg(register, value)
    cpu.set_eflags(_RESERVED_FLAGS)
    vcpu.privileged.power_on()
    cpu.set_eip(plan.entry)
