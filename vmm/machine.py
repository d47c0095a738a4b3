"""A machine put together from a plain description."""

import mmap
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from vmi.address import PAGE_SIZE, GuestPhysical
from vmi.apstate import ApState
from vmi.clock import Wiring
from vmi.header import VMI_DEVICE, VMI_VENDOR
from vmm.core.apicbus import ApicBus
from vmm.core.apicmessage import ApicMessage, BadMessage, message_signalled
from vmm.core.bus import InterruptController, MemoryBus, PortBus
from vmm.core.checker import ShadowChecker
from vmm.core.clock import GuestClock
from vmm.core.cpuid import MODEL_SPECIFIC_REGISTERS, cpuid
from vmm.core.crew import Crew
from vmm.core.errors import BadDescription
from vmm.core.hooks import callbacks
from vmm.core.ledger import Ledger
from vmm.core.localapic import LocalApic
from vmm.core.memory import GuestMemory
from vmm.core.outcome import Outcome, OutcomeKind
from vmm.core.policy import POLICIES, Policy
from vmm.core.portfilters import PortFilters
from vmm.core.processor import Activity, Processor
from vmm.core.registerfile import RegisterFile
from vmm.core.runloop import RunLoop
from vmm.core.sharedcpu import shared_callbacks
from vmm.core.slots import MemorySlot
from vmm.core.stop import Stop
from vmm.core.threadrun import ThreadedRun
from vmm.core.timers import Timers
from vmm.core.vcpu import Vcpu
from vmm.core.vm import MOST_CPUS, Vm
from vmm.devices.disk import DiskImage, Writes
from vmm.devices.ioapic import IOAPIC_ADDRESS
from vmm.devices.ioapiclink import IoApicHere, IoApicHome, IoApicLink, IoApicProcess
from vmm.devices.pluggable import Plug
from vmm.engine.parallel import check_parallel
from vmm.engine.unicorn import POOL_ADDRESS, WINDOW_ADDRESS, UnicornEngine
from vmm.filters.attach import attach, attached
from vmm.filters.program import FilterProgram
from vmm.firmware.boot import BootPlan
from vmm.firmware.guest import plan_guest
from vmm.firmware.mptable import mp_tables
from vmm.firmware.post import ROM_AREA_START, ShadowedRom, power_on_self_test
from vmm.firmware.romcheck import check_vmi_rom
from vmm.layout import MOST_MEMORY, lay_out_memory
from vmm.pc import Pc
from vmm.plugging import PluggedDevices
from vmm.recording import ExitSink, Recording
from vmm.result import PhaseRecorder, Reflection, Run, SoFar, collect, event_totals, so_far
from vmm.timelimit import limited

__all__ = [
    "DEFAULT_MAX_INSTRUCTIONS",
    "DEFAULT_MEMORY",
    "GDT",
    "Machine",
    "MachineDescription",
    "Run",
    "check_memory",
    "open_disk",
]

DEFAULT_MEMORY = 64 << 20
"""Bytes of RAM."""
LEAST_MEMORY = 4 << 20
DEFAULT_MAX_INSTRUCTIONS = 20_000_000_000
"""After so many the run ends, as `LIMIT`."""

_POOL_PAGES = 2048
GDT = GuestPhysical(0x1000)
"""Where the first descriptors lie."""
_RESERVED_FLAGS = 2
_CASCADE = 2
_LINT1 = 1


@dataclass(frozen=True, slots=True)
class MachineDescription:
    """Everything that a run depends on; equal descriptions give equal counts.

    `guest` is a Multiboot image, a Linux bzImage or a vmlinux, the latter two with
    an `initrd`; `rom` a VMI ROM image or none, `memory` is in bytes, `rom_address`
    where firmware puts the ROM. `backings` are names and sizes, in bytes, of memory that the guest
    sees only where `set_memory` shows it. `disk` is an image for the first IDE drive, in a
    file or as it is; what the guest writes to it is forgotten, unless `disk_writes` says
    otherwise. The run is cut into phases where the console first prints one of `marks`.
    `filters` see the reads of their ports before the devices do; with `reflect` a ROM that
    can answers native accesses to the IDE channels' ports in the device's place. `devices`
    are plugged in besides those of every PC. `check_shadow` compares every shadow entry
    with the guest's tables at each exit, which is slow. `apic` shows the guest its local
    APIC, which is hidden otherwise, an I/O APIC, and the tables that name them;
    `ioapic_process` lets the I/O APIC live in a process of its own. Of `cpus` virtual CPUs
    the first one starts the guest; with more than one they have APICs in any case, and with
    `threads` each runs in a host thread of its own, in parallel: counts do not repeat then.
    `seconds` of the host's time, where given, end the run, and so does a line of the
    console with `until` in it.
    """

    guest: bytes
    rom: bytes | None = None
    command_line: str = ""
    initrd: bytes | None = None
    disk: Path | bytes | None = None
    disk_writes: Writes = Writes.OVERLAY
    memory: int = DEFAULT_MEMORY
    backings: tuple[tuple[str, int], ...] = ()
    policy: Policy = POLICIES[0]
    rom_address: GuestPhysical = ROM_AREA_START
    max_instructions: int = DEFAULT_MAX_INSTRUCTIONS
    marks: tuple[str, ...] = ()
    filters: tuple[FilterProgram, ...] = ()
    reflect: bool = False
    devices: tuple[Plug, ...] = ()
    check_shadow: bool = False
    apic: bool = False
    ioapic_process: bool = False
    cpus: int = 1
    threads: bool = False
    seconds: float | None = None
    until: str = ""


def check_memory(about: MachineDescription) -> None:
    """Raise `BadDescription` unless the memory is of a size that a machine can have."""
    if about.memory % PAGE_SIZE or not LEAST_MEMORY <= about.memory <= MOST_MEMORY:
        raise BadDescription(
            f"memory of {about.memory} bytes: expected whole pages, "
            f"{LEAST_MEMORY >> 20}M to {MOST_MEMORY >> 20}M"
        )


def open_disk(about: MachineDescription) -> BinaryIO | None:
    """The disk image as a file, for the caller to close; raises `BadDescription`."""
    if about.disk is None:
        return None
    if isinstance(about.disk, bytes):
        return BytesIO(about.disk)
    through = about.disk_writes is Writes.THROUGH
    try:
        return about.disk.open("r+b") if through else about.disk.open("rb")
    except OSError as error:
        raise BadDescription(f"disk {str(about.disk)!r}: {error.strerror}") from None


@dataclass(slots=True)
class Machine:
    """One machine, assembled and past POST, ready to run once.

    `echo` hears each line of the console. `interrupts` stands in for the PC's own
    interrupt controllers; `timers` is where it can wait for virtual time.

    Raises `BadDescription` for a description that cannot be, with the value in question, and
    `EngineFailure` where Unicorn is not what the monitor was built for.
    """

    description: MachineDescription
    echo: Callable[[str], None] | None = None
    interrupts: InterruptController | None = None
    timers: Timers = field(default_factory=Timers)
    ram: mmap.mmap = field(init=False)
    memory: GuestMemory = field(init=False)
    engines: list[UnicornEngine] = field(init=False)
    vm: Vm = field(init=False)
    bus: ApicBus = field(init=False, default_factory=ApicBus)
    apics: list[LocalApic] = field(init=False, default_factory=list)
    ioapic_home: IoApicHome | None = field(init=False, default=None)
    ioapic: IoApicLink | None = field(init=False, default=None)
    processors: list[Processor] = field(init=False)
    registers: list[RegisterFile] = field(init=False)
    pc: Pc = field(init=False)
    devices: PluggedDevices = field(init=False)
    filters: PortFilters = field(init=False, default_factory=PortFilters)
    roms: list[ShadowedRom] = field(init=False)
    crew: Crew | None = field(init=False, default=None)
    _pool: mmap.mmap = field(init=False)
    _loop: RunLoop | ThreadedRun = field(init=False)
    _phases: PhaseRecorder = field(init=False)
    _recording: Recording | None = field(init=False, default=None)
    _checker: ShadowChecker | None = field(init=False, default=None)
    _disk: BinaryIO | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        about = self.description
        check_memory(about)
        if not 1 <= about.cpus <= MOST_CPUS:
            raise BadDescription(f"{about.cpus} virtual CPUs: expected 1 to {MOST_CPUS}")
        plan = plan_guest(about.guest, about.memory, about.command_line, about.initrd)
        if about.rom is not None:
            check_vmi_rom(about.rom)
        self._phases = PhaseRecorder(about.marks)
        self.ram, self.memory = lay_out_memory(about.memory, about.backings)
        self._pool = mmap.mmap(-1, _POOL_PAGES * PAGE_SIZE)
        ports, memory_bus = PortBus(), MemoryBus()
        self._make_vm(ports)
        has_apics = about.apic or about.cpus > 1
        if has_apics:
            self._make_ioapic(memory_bus)
        self.pc = Pc(
            ports,
            self.timers,
            self.vm.now,
            about.memory,
            about.rom,
            self._open_disk(),
            self._console_line,
            self._interrupt_line,
            lambda: self.vm.current.request_stop(Stop.REQUEST),
            self.ioapic,
            message=self._message_of_device if has_apics else None,
        )
        if has_apics:
            self._make_apics()
        self._make_clocks()
        self.devices = PluggedDevices(
            self.pc, ports, memory_bus, self.memory, self.timers, self.vm.now, self.bus.msi
        )
        self.devices.plug_in(about.devices)
        for vcpu in self.vm.vcpus:
            vcpu.devices.connect(memory_bus)
        attach(about.filters, ports, self.filters)
        self.roms = power_on_self_test(self.ram, self.memory, ports, self.pc.pci, about.rom_address)
        for rom in self.roms:
            if (rom.vendor, rom.device) == (VMI_VENDOR, VMI_DEVICE):
                for vcpu in self.vm.vcpus:
                    vcpu.queue.allow(rom.address, rom.address + rom.size)
                    vcpu.meter.watch_rom(rom.address, rom.address + rom.size)
        self._start(plan)
        self._make_processors()
        if self.crew is None:
            self._loop = RunLoop(self.vm, self.processors, self.timers, self.pc)
        else:
            self._loop = ThreadedRun(self.vm, self.crew, self.processors, self.timers, self.pc)
            self.vm.bind_crew()

    def _open_disk(self) -> DiskImage | None:
        self._disk = open_disk(self.description)
        return None if self._disk is None else DiskImage(self._disk, self.description.disk_writes)

    def close(self) -> None:
        """Let go of the disk image's file, of a device's process, and of the CPUs' threads."""
        if self.crew is not None:
            self.crew.close()
        if self.ioapic is not None:
            self.ioapic.close()
        if self._disk is not None:
            self._disk.close()

    @property
    def vcpu(self) -> Vcpu:
        """The first virtual CPU, which starts the guest."""
        return self.vm.vcpus[0]

    def _make_vm(self, ports: PortBus) -> None:
        about = self.description
        make = partial(UnicornEngine, self.ram, self._pool, pauses=about.cpus > 1)
        if about.threads:
            check_parallel()
            self.crew = Crew(about.cpus)
            self.engines = [thread.call(make) for thread in self.crew.threads]
        else:
            self.engines = [make() for _ in range(about.cpus)]
        self.vm = Vm(
            self.memory,
            [engine.binding() for engine in self.engines],
            self._pool,
            POOL_ADDRESS,
            WINDOW_ADDRESS,
            about.policy,
            ports,
            cpuid,
            MODEL_SPECIFIC_REGISTERS,
            self.crew,
        )
        for vcpu, engine in zip(self.vm.vcpus, self.engines, strict=True):
            if self.crew is None:
                engine.connect(callbacks(vcpu), vcpu.mmio_read, vcpu.mmio_write)
            else:
                cell = self.crew.cells[vcpu.index]
                engine.connect(shared_callbacks(cell), cell.mmio_read, cell.mmio_write)
            vcpu.ports.filters = self.filters
        if about.check_shadow:
            self._checker = ShadowChecker(self.vcpu)
            for vcpu in self.vm.vcpus:
                vcpu.after_exit = self._checker.check

    def _make_ioapic(self, memory_bus: MemoryBus) -> None:
        self.ioapic_home = IoApicProcess() if self.description.ioapic_process else IoApicHere()
        self.ioapic = IoApicLink(self.ioapic_home, self.bus.deliver)
        self.bus.listen(self.ioapic.end_of_interrupt)
        memory_bus.register(IOAPIC_ADDRESS, PAGE_SIZE, self.ioapic, "ioapic")

    def _make_apics(self) -> None:
        """Local APICs that the guest sees; the 8259s reach the first one, as firmware leaves it."""
        for vcpu in self.vm.vcpus:
            apic = LocalApic(
                vcpu.index,
                vcpu.index == 0,
                self.timers,
                self.vm.now,
                self.bus,
                self._external,
            )
            self.bus.attach(apic)
            vcpu.plug_in(apic)
            apic.on_change = partial(self._pending_changed, vcpu)
            self.apics.append(apic)
        self.apics[0].virtual_wire()
        if len(self.apics) == 1:
            # A ROM has one queue header, and so room for one local APIC.
            self.vcpu.doorbell.serve_apic(self.apics[0])

    def _make_clocks(self) -> None:
        """What the ROM's timer calls need: each CPU has its alarms, and its ways to get them."""
        for vcpu in self.vm.vcpus:
            clock = GuestClock(self.timers, self.vcpu.meter.now, self.pc.power_on_ns)
            clock.wire(Wiring.IRQ0, self.pc.pulse_timer_line)
            if self.apics:
                # A kernel that finds a local APIC asks for this one.
                clock.wire(Wiring.LVTT, self.apics[vcpu.index].timer_alarm)
            vcpu.doorbell.serve_clock(clock)
            vcpu.doorbell.serve_channels(self.pc.ide)
            if self.description.reflect:
                vcpu.doorbell.reflect_channels(self.engines[vcpu.index].break_at)

    def _make_processors(self) -> None:
        """The CPUs as the run loop sees them; start-up reaches the others by their APICs."""
        self.processors = [
            Processor(
                vcpu,
                engine,
                self.apics[vcpu.index] if self.apics else self._external,
                Activity.WAITING if vcpu.index else Activity.RUNNING,
            )
            for vcpu, engine in zip(self.vm.vcpus, self.engines, strict=True)
        ]
        self.registers = [
            RegisterFile(self.vm, processor, engine)
            for processor, engine in zip(self.processors, self.engines, strict=True)
        ]
        if self.description.cpus > 1:
            for vcpu in self.vm.vcpus:
                vcpu.doorbell.serve_start(self._start_ap)
        for processor, apic in zip(self.processors, self.apics, strict=False):
            apic.on_nmi = processor.raise_nmi
            apic.on_init = partial(self._reset_by_init, processor, apic)
            apic.on_startup = processor.startup

    def _start(self, plan: BootPlan) -> None:
        """Carry out a boot plan: memory, descriptors, registers."""
        for segment in plan.segments:
            self.memory.load(segment.address, segment.data)
        if self.apics:
            signature, _, _, features = self.vcpu.privileged.cpuid(1)
            tables = mp_tables(len(self.apics), signature, features)
            self.memory.load(tables.address, tables.data)
        gdt = plan.descriptors()
        self.memory.load(GDT, gdt)
        self.engines[0].reset_segments(GDT, len(gdt) - 1, plan.code, plan.data)
        cpu = self.vcpu.cpu
        for register, value in plan.registers.items():
            cpu.set_reg(register, value)
        cpu.set_eflags(_RESERVED_FLAGS)
        self.vcpu.privileged.power_on()
        cpu.set_eip(plan.entry)

    def _console_line(self, line: str) -> None:
        if self.echo is not None:
            self.echo(line)
        if self.description.until and self.description.until in line:
            self.pc.end(Outcome(OutcomeKind.PASSED, f"the console printed {line!r}"))
        self._phases.line(line, self.description.policy, self.vm)

    def _interrupt_line(self, level: bool) -> None:  # noqa: FBT001 - a wire has a level
        """The line of the PC's interrupt controllers changed."""
        if self.apics:
            for apic in self.apics:
                apic.set_wire(0, level)
            if self.ioapic is not None:
                self.ioapic.set_line(0, level=level)
        else:
            self._pending_changed(self.vcpu, level)

    def _pending_changed(self, vcpu: Vcpu, level: bool) -> None:  # noqa: FBT001 - as above
        """A CPU's interrupt line changed while the guest was out of the engine."""
        vcpu.irq_pending = level
        vcpu.window_wanted = level and not vcpu.can_interrupt_now()
        if self.crew is not None:
            self.crew.attend(vcpu.index)

    def _start_ap(self, apic_id: int, state: ApState) -> None:
        """SetInitialAPState."""
        for processor, apic in zip(self.processors, self.apics, strict=True):
            if apic.initial_id == apic_id:
                processor.start_in(state)
                return
        raise ValueError(f"there is no processor with APIC ID {apic_id}")

    @staticmethod
    def _reset_by_init(processor: Processor, apic: LocalApic) -> None:
        processor.init()
        apic.initialise()

    @property
    def _external(self) -> InterruptController:
        """Who asks for interrupts in the PC's old way: the 8259s."""
        return self.pc.interrupts if self.interrupts is None else self.interrupts

    def record(self, *sinks: ExitSink, timing: bool = False) -> None:
        """Hand every exit of the run to come to `sinks`; counts stay what they would be.

        With `timing` each has the host's time that serving it took.
        """
        self._recording = Recording(self.vm.vcpus, self.description.policy, sinks, timing=timing)

    def run(self, watch: Callable[[int], None] | None = None, *, waits: bool = False) -> Run:
        """Run the guest to its end; `watch` is told the instructions so far (see `RunLoop.run`).

        A machine all of whose CPUs have halted for good ends, or, with `waits`, sleeps until a
        call from another thread wakes it. In the thread that made the machine; raises
        `VcpuThreadError` in another one.
        """
        self.vm.check_thread("run")
        try:
            return self._run(watch, waits=waits)
        finally:
            self.close()

    def _run(self, watch: Callable[[int], None] | None, *, waits: bool) -> Run:
        about = self.description
        watch = limited(watch, about.seconds)
        outcome = self._loop.run(about.max_instructions, watch, waits=waits)
        if self._recording is not None:
            self._recording.finish()
        return self.result(outcome)

    # ---- calls from any thread, carried out between two instructions

    def stop(self) -> None:
        """End the run, as `INTERRUPTED`, with what was counted so far; from any thread."""
        if isinstance(self._loop, ThreadedRun):
            self._loop.stop()
        else:
            self.vm.post(self._interrupted)

    @staticmethod
    def _interrupted() -> None:
        raise KeyboardInterrupt

    def irq_line(self, irq: int, *, high: bool) -> None:
        """Drive the wire of interrupt request 0 to 15, without 2; high is a request.

        From any thread. Raises `ValueError` for another number.
        """
        if irq not in range(16) or irq == _CASCADE:
            raise ValueError(f"interrupt request {irq}: expected 0 to 15, without {_CASCADE}")
        self.vm.post(lambda: setattr(self.pc.wire(irq), "level", high))

    def nmi(self, cpu: int = 0) -> None:
        """Pulse LINT1 of a virtual CPU, as a PC's NMI button does; from any thread.

        What that is, the CPU's local APIC decides, where the guest sees one and has not
        switched it off: firmware leaves an NMI on the first CPU, and nothing on the others.
        Without it LINT1 is the NMI. Raises `IndexError` for a CPU that is not there.
        """
        processor = self.processors[range(len(self.processors))[cpu]]

        def pulse() -> None:
            if self.apics:
                self.apics[cpu].set_wire(_LINT1, high=True)
                self.apics[cpu].set_wire(_LINT1, high=False)
            else:
                processor.raise_nmi()

        self.vm.post(pulse)

    def msi(self, address: int, data: int) -> None:
        """A message-signalled interrupt: a store of 32 bits of `data` to a bus `address`.

        From any thread. Raises `BadMessage` for one that means nothing.
        """
        interrupt = message_signalled(address, data)
        self.vm.post(lambda: self._deliver(interrupt))

    def _message_of_device(self, address: int, data: int) -> None:
        """A PCI function stores a message: where no local APIC is, that is no interrupt."""
        with suppress(BadMessage):
            self.bus.msi(address, data)

    def _deliver(self, interrupt: ApicMessage) -> None:
        self.bus.deliver(interrupt)

    def set_memory(self, slots: Iterable[MemorySlot]) -> None:
        """Replace the list of memory slots as a whole, before the guest's next instruction.

        From any thread. Raises `BadSlots`, with nothing changed, for a list that cannot be;
        see `Vm.set_memory`.
        """
        self.vm.change_memory(self.vm.check_memory(slots))

    def so_far(self) -> SoFar:
        """How far the run is; from any thread, also while it goes on."""
        return so_far(self.vm, self.description.policy)

    def ledger(self) -> Ledger:
        """The exits so far, by reason; without places, which take a while to collect.

        From any thread, also while the run goes on.
        """
        return Ledger.from_counts(self.description.policy, event_totals(self.vm.vcpus), (), 0)

    def _reflection(self) -> Reflection:
        each = [vcpu.reflector for vcpu in self.vm.vcpus]
        return Reflection(
            sum(len(reflector.sites) for reflector in each),
            sum(int(reflector.patched) for reflector in each),
        )

    def result(self, outcome: Outcome) -> Run:
        """The counts as they stand."""
        about = self.description
        return collect(
            self.vm,
            about.policy,
            outcome,
            guest=about.guest,
            rom=about.rom,
            memory=self.ram,
            console=self.pc.console,
            phases=self._phases.finish(about.policy, self.vm),
            filters=attached(about.filters, self.filters),
            reflection=self._reflection() if about.reflect else None,
            checked=0 if self._checker is None else self._checker.entries,
        )
