"""A machine put together from a plain description."""

import hashlib
import mmap
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

from vmi.address import PAGE_SIZE
from vmi.header import VMI_DEVICE, VMI_VENDOR
from vmm.assembly import (
    VirtualCpus,
    make_apics,
    make_clocks,
    make_processors,
    make_vcpus,
    start_guest,
)
from vmm.core.apicbus import ApicBus
from vmm.core.apicmessage import ApicMessage, BadMessage, message_signalled
from vmm.core.bus import InterruptController, MemoryBus, PortBus
from vmm.core.cpu.vcpu import Vcpu
from vmm.core.errors import BadDescription
from vmm.core.ledger import Ledger
from vmm.core.localapic import LocalApic
from vmm.core.memory import GuestMemory
from vmm.core.mmu.checker import ShadowChecker
from vmm.core.outcome import Outcome, OutcomeKind
from vmm.core.ports.filters import PortFilters
from vmm.core.processor import Processor
from vmm.core.registerfile import RegisterFile
from vmm.core.run.crew import Crew
from vmm.core.run.runloop import Limits, RunLoop
from vmm.core.run.stop import Stop
from vmm.core.run.threadrun import ThreadedRun
from vmm.core.saved import BadState
from vmm.core.slots import MemorySlot
from vmm.core.timers import Timers
from vmm.core.vm import MOST_CPUS, Vm
from vmm.description import (
    MachineDescription,
    check_memory,
    open_disk,
)
from vmm.devices.disk import DiskImage
from vmm.devices.ioapic import IOAPIC_ADDRESS
from vmm.devices.ioapiclink import IoApicHere, IoApicHome, IoApicLink, IoApicProcess
from vmm.devices.pluggable import Plug
from vmm.engine.unicorn import UnicornEngine
from vmm.filters.attach import attach, attached
from vmm.firmware.guest import plan_guest
from vmm.firmware.post import ShadowedRom, power_on_self_test
from vmm.firmware.romcheck import check_vmi_rom
from vmm.layout import lay_out_memory
from vmm.machinestate import load_state, state_of
from vmm.pc import Pc
from vmm.plugging import PluggedDevices
from vmm.recording import ExitSink, Recording
from vmm.result import PhaseRecorder, Reflection, Run, SoFar, collect, event_totals, so_far
from vmm.saveddescription import description_of, save_description
from vmm.savedfile import Told, read_memory, read_saved, write_saved
from vmm.timelimit import limited

__all__ = [
    "Machine",
    "MachineDescription",
    "Run",
]


_POOL_PAGES = 2048
_CASCADE = 2
_LINT1 = 1


_LEFT = frozenset({OutcomeKind.LIMIT, OutcomeKind.INTERRUPTED, OutcomeKind.PASSED})
"""How a run that could go on is left: by a limit, Ctrl-C, or what `until` waits for."""


def _nobody(_text: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class SavedState:
    """What a saved machine is to a new one; `missing` are devices that cannot be had here."""

    path: Path
    guest_sha256: str
    state: dict[str, Any]
    missing: tuple[str, ...]
    tell: Told


@dataclass(slots=True)
class Machine:
    """One machine, assembled and past POST, ready to run once.

    `echo` hears each line of the console. `interrupts` stands in for the PC's own
    interrupt controllers; `timers` is where it can wait for virtual time. With `saved`,
    which `resume` gives it, it goes on as that says instead of starting the guest.

    Raises `BadDescription` for a description that cannot be, with the value in question, and
    `EngineFailure` where Unicorn is not what the monitor was built for.
    """

    description: MachineDescription
    echo: Callable[[str], None] | None = None
    interrupts: InterruptController | None = None
    timers: Timers = field(default_factory=Timers)
    saved: SavedState | None = None
    ram: mmap.mmap = field(init=False)
    memory: GuestMemory = field(init=False)
    cpus: VirtualCpus = field(init=False)
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
    roms: list[ShadowedRom] = field(init=False, default_factory=list)
    crew: Crew | None = field(init=False, default=None)
    loop: RunLoop | ThreadedRun = field(init=False)
    guest_sha256: str = field(init=False)
    unknown: tuple[str, ...] = field(init=False, default=())
    """What a saved machine had and this one has not, or the other way round."""
    _pool: mmap.mmap = field(init=False)
    phases: PhaseRecorder = field(init=False)
    _recording: Recording | None = field(init=False, default=None)
    checker: ShadowChecker | None = field(init=False, default=None)
    _disk: BinaryIO | None = field(init=False, default=None)
    saved_to: Path | None = field(init=False, default=None)
    """Where `run` has saved the machine, if it has."""
    _left_early: Outcome | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        about = self.description
        check_memory(about)
        if not 1 <= about.cpus <= MOST_CPUS:
            raise BadDescription(f"{about.cpus} virtual CPUs: expected 1 to {MOST_CPUS}")
        plan = None
        if self.saved is None:
            plan = plan_guest(about.guest, about.memory, about.command_line, about.initrd)
        if about.rom is not None:
            check_vmi_rom(about.rom)
        self.phases = PhaseRecorder(about.marks)
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
            self.apics = make_apics(
                self.vm, self.timers, self.bus, self._external, self._pending_changed
            )
        self._make_clocks()
        self.devices = PluggedDevices(
            self.pc, ports, memory_bus, self.memory, self.timers, self.vm.now, self.bus.msi
        )
        self.devices.plug_in(about.devices)
        for vcpu in self.vm.vcpus:
            vcpu.devices.connect(memory_bus)
        attach(about.filters, ports, self.filters)
        if plan is not None:
            self._power_on(ports)
            start_guest(plan, self.cpus, self.memory, len(self.apics))
        self._make_processors()
        self._make_loop()
        if self.saved is None:
            self.guest_sha256 = hashlib.sha256(about.guest).hexdigest()
        else:
            self._load(self.saved)

    def _make_loop(self) -> None:
        if self.crew is None:
            self.loop = RunLoop(
                self.vm, self.processors, self.timers, self.pc, lambda: self.so_far().exits
            )
        else:
            self.loop = ThreadedRun(self.vm, self.crew, self.processors, self.timers, self.pc)
            self.vm.bind_crew()
        if self._left_early is not None:
            self._leave(self._left_early)

    def _leave(self, outcome: Outcome) -> None:
        """End the run where it can go on, or just end it where CPUs have threads."""
        if isinstance(self.loop, RunLoop):
            self.loop.leave(outcome)
        else:
            self.pc.end(outcome)

    def _power_on(self, ports: PortBus) -> None:
        """Let firmware find the ROM, and the CPUs know where it is."""
        about = self.description
        self.roms = power_on_self_test(self.ram, self.memory, ports, self.pc.pci, about.rom_address)
        for rom in self.roms:
            if (rom.vendor, rom.device) == (VMI_VENDOR, VMI_DEVICE):
                for vcpu in self.vm.vcpus:
                    vcpu.queue.allow(rom.address, rom.address + rom.size)
                    vcpu.meter.rom.watch(rom.address, rom.address + rom.size)

    @property
    def _is_made(self) -> bool:
        return hasattr(self, "loop")

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
        cpus = make_vcpus(about, self.ram, self._pool, self.memory, ports, self.filters)
        self.cpus, self.vm, self.engines, self.crew = cpus, cpus.vm, cpus.engines, cpus.crew
        if about.check_shadow:
            self.checker = ShadowChecker(self.vcpu)
            for vcpu in self.vm.vcpus:
                vcpu.after_exit = self.checker.check

    def _make_ioapic(self, memory_bus: MemoryBus) -> None:
        self.ioapic_home = IoApicProcess() if self.description.ioapic_process else IoApicHere()
        self.ioapic = IoApicLink(self.ioapic_home, self.bus.deliver)
        self.bus.listen(self.ioapic.end_of_interrupt)
        memory_bus.register(IOAPIC_ADDRESS, PAGE_SIZE, self.ioapic, "ioapic")

    def _make_clocks(self) -> None:
        """Time for the ROM, and the IDE channels where it takes those."""
        make_clocks(self.vm, self.timers, self.memory, self.pc, self.apics)
        for vcpu in self.vm.vcpus:
            vcpu.doorbell.serve_channels(self.pc.ide)
            if self.description.reflect:
                vcpu.doorbell.reflect_channels(self.engines[vcpu.index].break_at)

    def _make_processors(self) -> None:
        self.processors = make_processors(self.cpus, self.apics, self._external)
        self.registers = [
            RegisterFile(self.vm, processor, engine)
            for processor, engine in zip(self.processors, self.engines, strict=True)
        ]

    def _console_line(self, line: str) -> None:
        if self.echo is not None:
            self.echo(line)
        if self.description.until and self.description.until in line:
            outcome = Outcome(OutcomeKind.PASSED, f"the console printed {line!r}")
            if self._is_made:
                self._leave(outcome)
            else:
                self._left_early = outcome
        self.phases.line(line, self.vm)

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

    @property
    def _external(self) -> InterruptController:
        """Who asks for interrupts in the PC's old way: the 8259s."""
        return self.pc.interrupts if self.interrupts is None else self.interrupts

    def record(self, *sinks: ExitSink, timing: bool = False) -> None:
        """Hand every exit of the run to come to `sinks`; counts stay what they would be.

        With `timing` each has the host's time that serving it took.
        """
        self._recording = Recording(self.vm.vcpus, self.description.policy, sinks, timing=timing)

    def run(
        self,
        watch: Callable[[int], None] | None = None,
        *,
        waits: bool = False,
        save: Path | None = None,
    ) -> Run:
        """Run the guest to its end; `watch` is told the instructions so far (see `RunLoop.run`).

        A machine all of whose CPUs have halted for good ends, or, with `waits`, sleeps until a
        call from another thread wakes it. A run that is left before the guest has ended is
        saved to the file `save`. In the thread that made the machine; raises
        `VcpuThreadError` in another one.
        """
        self.vm.check_thread("run")
        try:
            return self._run(watch, waits=waits, save=save)
        finally:
            self.close()

    def _run(self, watch: Callable[[int], None] | None, *, waits: bool, save: Path | None) -> Run:
        outcome = self._go(watch, self.description.max_instructions, waits=waits)
        if self._recording is not None:
            self._recording.finish()
        if save is not None and outcome.kind in _LEFT and self.pc.outcome is None:
            self.save(save)
            self.saved_to = save
        return self.result(outcome)

    def proceed(
        self,
        instructions: int | None = None,
        exits: int | None = None,
        virtual_ns: int | None = None,
        watch: Callable[[int], None] | None = None,
    ) -> Outcome:
        """Run on, up to a limit: all instructions and exits so far, or virtual time in nanoseconds.

        As `run`, but the machine stays: what comes next may be another `proceed`, `save`,
        `run` or `close`, and counts are what they are without the stop. It stops at the
        first block of code that would reach the limit; exits are looked at every
        `vmm.core.run.runloop.EXITS_LOOK` instructions. The description's own limits hold as well.
        Raises `BadDescription` where CPUs have threads.
        """
        self.vm.check_thread("proceed")
        if self.crew is not None:
            raise BadDescription("CPUs in threads: a run has no places to stop and go on")
        most = self.description.max_instructions
        most = most if instructions is None else min(most, instructions)
        return self._go(watch, Limits(most, exits, virtual_ns))

    def _go(
        self, watch: Callable[[int], None] | None, limits: Limits | int, *, waits: bool = False
    ) -> Outcome:
        watch = limited(watch, self.description.seconds)
        if isinstance(self.loop, RunLoop):
            return self.loop.run(limits, watch, waits=waits)
        return self.loop.run(self.description.max_instructions, watch, waits=waits)

    # ---- saving

    def save(self, path: Path, tell: Told | None = None) -> int:
        """Save the machine to a file, to be resumed from; answers the file's size in bytes.

        Between two runs, in the thread of the CPUs; the run may go on afterwards as if it
        had not been saved. The file is written whole or not at all. Raises
        `BadDescription` for a guest that has ended, and where the file cannot be written.
        """
        self.vm.check_thread("save")
        if self.crew is not None:
            raise BadDescription("a machine whose CPUs run in threads cannot be saved")
        if self.description.reflect:
            raise BadDescription("a machine whose ROM takes exits reflected to it cannot be saved")
        if self.pc.outcome is not None:
            raise BadDescription(f"the guest has ended, {self.pc.outcome}: nothing to resume")
        about, now = self.description, self.so_far()
        head = {
            "made_by": f"vmirom {version('vmirom')}",
            "engine": "unicorn",
            "guest": {"sha256": self.guest_sha256},
            "instructions": now.instructions,
            "virtual_ns": now.virtual_ns,
            "exits": now.exits,
            "description": save_description(about, self._disk),
            "state": state_of(self),
        }
        return write_saved(path, head, self.ram, tell or _nobody)

    @classmethod
    def resume(
        cls,
        path: Path,
        echo: Callable[[str], None] | None = None,
        *,
        disk: Path | None = None,
        devices: Iterable[Plug] = (),
        tell: Told | None = None,
        **limits: Any,
    ) -> "Machine":
        """The machine that was saved to a file, ready to run on.

        Its counts go on from where they were. `disk` says where the disk's image is now;
        `devices` stand in for plugged-in devices of the same names that no installed package has.
        `limits` are `max_instructions`, `seconds` and `until`, as in `MachineDescription`.
        `unknown` then names what is not on both sides: registers and devices.

        Raises `BadDescription`, and there is no machine, for a file that is damaged, is none,
        or is of a newer version, and for a disk image that has changed.
        """
        head = read_saved(path)
        resumed = description_of(head, disk, devices)
        saved = SavedState(
            path, resumed.guest_sha256, head["state"], resumed.missing, tell or _nobody
        )
        return cls(replace(resumed.description, **limits), echo, saved=saved)

    def _load(self, saved: SavedState) -> None:
        try:
            read_memory(saved.path, self.ram, saved.tell)
            unknown = load_state(self, saved.state)
        except BadState as error:
            self.close()
            raise BadDescription(f"saved machine {str(saved.path)!r}: {error}") from None
        except BaseException:
            self.close()
            raise
        self.guest_sha256 = saved.guest_sha256
        missing = (f"device {name}" for name in saved.missing)
        self.unknown = tuple(dict.fromkeys((*unknown, *missing)))

    # ---- calls from any thread, carried out between two instructions

    def stop(self) -> None:
        """End the run, as `INTERRUPTED`, with what was counted so far; from any thread."""
        if isinstance(self.loop, ThreadedRun):
            self.loop.stop()
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
            guest_sha256=self.guest_sha256,
            rom=about.rom,
            memory=self.ram,
            console=self.pc.console,
            phases=self.phases.finish(about.policy, self.vm),
            filters=attached(about.filters, self.filters),
            reflection=self._reflection() if about.reflect else None,
            checked=0 if self.checker is None else self.checker.entries,
        )
