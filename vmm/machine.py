"""A machine put together from a plain description, and what a run of it gives."""

import hashlib
import mmap
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from vmi.address import PAGE_SHIFT, PAGE_SIZE, GuestPhysical
from vmi.calls import call_numbered
from vmi.header import VMI_DEVICE, VMI_VENDOR
from vmm.core.blocks import BlockMeter
from vmm.core.bus import InterruptController, NoInterrupts, PortBus
from vmm.core.checker import ShadowChecker
from vmm.core.cpuid import MODEL_SPECIFIC_REGISTERS, cpuid
from vmm.core.cpustate import CpuState
from vmm.core.errors import BadDescription
from vmm.core.event import Event
from vmm.core.hooks import callbacks
from vmm.core.ledger import Ledger
from vmm.core.memory import GuestMemory
from vmm.core.outcome import Outcome
from vmm.core.policy import POLICIES, Policy
from vmm.core.runloop import RunLoop
from vmm.core.stop import Stop
from vmm.core.timers import Timers
from vmm.core.vcpu import Vcpu
from vmm.devices.console import DEBUG_PORT, DebugConsole
from vmm.devices.pci import CONFIG_ADDRESS, CONFIG_PORTS, PciHost
from vmm.devices.power import EXIT_PORT, EXIT_PORT_COUNT, ExitPort
from vmm.devices.vmirom import VmiRomDevice
from vmm.engine.unicorn import POOL_ADDRESS, WINDOW_ADDRESS, UnicornEngine
from vmm.firmware.multiboot import BOOT_MAGIC, FlatImage, boot_information, parse_multiboot
from vmm.firmware.post import ROM_AREA_START, ShadowedRom, power_on_self_test
from vmm.firmware.romcheck import check_vmi_rom

__all__ = ["DEFAULT_MAX_INSTRUCTIONS", "DEFAULT_MEMORY", "Machine", "MachineDescription", "Run"]

DEFAULT_MEMORY = 64 << 20
LEAST_MEMORY = 4 << 20
MOST_MEMORY = 1 << 30
DEFAULT_MAX_INSTRUCTIONS = 20_000_000_000

_POOL_PAGES = 2048
_GDT = 0x1000
_BOOT_INFO = GuestPhysical(0x9000)
_BOOT_INFO_END = 0x80000
_STACK = 0x8000
_GUEST_AREA = 1 << 20
_CODE, _DATA = 0x08, 0x10
_FLAT_GDT = struct.pack("<3Q", 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF)
_VGA_HOLE = (0xA0000, 0xC0000)
_EAX, _EBX, _ESP = 0, 3, 4
_CALL_ROWS = {128: "vmi_init", 129: "get_reloc", 130: "other"}


@dataclass(frozen=True, slots=True)
class MachineDescription:
    """Everything that a run depends on; equal descriptions give equal counts.

    `guest` is a Multiboot image, `rom` a VMI ROM image or none, `memory` is in
    bytes, `rom_address` where firmware puts the ROM. `check_shadow` compares every
    shadow entry with the guest's tables at each exit, which is slow.
    """

    guest: bytes
    rom: bytes | None = None
    command_line: str = ""
    memory: int = DEFAULT_MEMORY
    policy: Policy = POLICIES[0]
    rom_address: GuestPhysical = ROM_AREA_START
    max_instructions: int = DEFAULT_MAX_INSTRUCTIONS
    check_shadow: bool = False


@dataclass(frozen=True, slots=True)
class CallUse:
    """How often the guest entered a ROM call, and the instructions the ROM spent in it."""

    count: int
    instructions: int


@dataclass(frozen=True, slots=True)
class Paravirt:
    """What went through the batch queue.

    `updates` are page-table entries, `notices` all records, `flushes` the drains
    that found any, `largest_batch` the most records in one of them. `hypercalls`
    counts rings of the doorbell.
    """

    updates: int
    notices: int
    flushes: int
    largest_batch: int
    hypercalls: int


@dataclass(frozen=True, slots=True)
class Run:
    """The result of one run."""

    policy: Policy
    outcome: Outcome
    instructions: int
    rom_instructions: int
    virtual_ns: int
    ledger: Ledger
    paravirt: Paravirt
    calls: dict[str, CallUse]
    console: str
    complaints: tuple[str, ...]
    rom_sha256: str | None
    guest_sha256: str
    memory_crc: int
    shadow_entries_checked: int = 0
    engine: str = "unicorn"


@dataclass(slots=True)
class Machine:
    """One machine, assembled and past POST, ready to run once."""

    description: MachineDescription
    echo: Callable[[str], None] | None = None
    interrupts: InterruptController = field(default_factory=NoInterrupts)
    timers: Timers = field(default_factory=Timers)
    ram: mmap.mmap = field(init=False)
    memory: GuestMemory = field(init=False)
    engine: UnicornEngine = field(init=False)
    vcpu: Vcpu = field(init=False)
    ports: PortBus = field(init=False)
    roms: list[ShadowedRom] = field(init=False)
    console: DebugConsole = field(init=False)
    power: ExitPort = field(init=False)
    _pool: mmap.mmap = field(init=False)
    _checker: ShadowChecker | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        about = self.description
        if about.memory % PAGE_SIZE or not LEAST_MEMORY <= about.memory <= MOST_MEMORY:
            raise BadDescription(
                f"memory of {about.memory} bytes: expected whole pages, "
                f"{LEAST_MEMORY >> 20}M to {MOST_MEMORY >> 20}M"
            )
        image = parse_multiboot(about.guest)
        self.ram = mmap.mmap(-1, about.memory)
        self._pool = mmap.mmap(-1, _POOL_PAGES * PAGE_SIZE)
        self.memory = GuestMemory(self.ram)
        self.memory.set_hole(
            _VGA_HOLE[0] >> PAGE_SHIFT, (_VGA_HOLE[1] - _VGA_HOLE[0]) >> PAGE_SHIFT
        )
        self._plug_devices()
        self.engine = UnicornEngine(self.ram, self._pool)
        self.vcpu = Vcpu(
            CpuState(self.engine.binding()),
            self.memory,
            self._pool,
            POOL_ADDRESS,
            WINDOW_ADDRESS,
            int(about.policy.features),
            self.ports,
            cpuid,
            dict(MODEL_SPECIFIC_REGISTERS),
        )
        self.vcpu.fault_mask = about.policy.fault_mask
        self.engine.connect(callbacks(self.vcpu), self.vcpu.mmio_read, self.vcpu.mmio_write)
        self.power.on_exit = lambda: self.vcpu.request_stop(Stop.REQUEST)
        if about.check_shadow:
            self._checker = ShadowChecker(self.vcpu)
            self.vcpu.after_exit = self._checker.check
        for rom in self.roms:
            if (rom.vendor, rom.device) == (VMI_VENDOR, VMI_DEVICE):
                self.vcpu.queue.allow(rom.address, rom.address + rom.size)
                self.vcpu.meter.watch_rom(rom.address, rom.address + rom.size)
        self._load_guest(image)

    def _plug_devices(self) -> None:
        about = self.description
        self.ports = PortBus()
        self.console = DebugConsole(self.echo)
        self.power = ExitPort()
        pci = PciHost()
        self.ports.register(CONFIG_ADDRESS, CONFIG_PORTS, pci)
        self.ports.register(DEBUG_PORT, 1, self.console)
        self.ports.register(EXIT_PORT, EXIT_PORT_COUNT, self.power)
        if about.rom is not None:
            check_vmi_rom(about.rom)
            pci.plug(4, VmiRomDevice(about.rom))
        self.roms = power_on_self_test(self.ram, self.memory, self.ports, pci, about.rom_address)

    def _load_guest(self, image: FlatImage) -> None:
        about = self.description
        if image.address < _GUEST_AREA or image.end > about.memory:
            raise BadDescription(
                f"guest occupies {image.address:#x}-{image.end:#x}, expected within "
                f"{_GUEST_AREA:#x}-{about.memory:#x}"
            )
        if not image.address <= image.entry < image.end:
            raise BadDescription(
                f"guest entry {image.entry:#x} is outside {image.address:#x}-{image.end:#x}"
            )
        info = boot_information(_BOOT_INFO, about.memory, about.command_line)
        if _BOOT_INFO + len(info) > _BOOT_INFO_END:
            raise BadDescription(
                f"command line of {len(about.command_line)} characters is too long"
            )
        self.memory.load(image.address, image.data)
        self.memory.load(_BOOT_INFO, info)
        self.memory.load(_GDT, _FLAT_GDT)
        self.engine.reset_segments(_GDT, len(_FLAT_GDT) - 1, _CODE, _DATA)
        cpu = self.vcpu.cpu
        cpu.set_reg(_EAX, BOOT_MAGIC)
        cpu.set_reg(_EBX, _BOOT_INFO)
        cpu.set_reg(_ESP, _STACK)
        cpu.set_eflags(2)
        self.vcpu.privileged.power_on()
        cpu.set_eip(image.entry)

    def run(self, watch: Callable[[int], None] | None = None) -> Run:
        """Run the guest to its end; `watch` is told the instructions so far (see `RunLoop.run`)."""
        loop = RunLoop(self.vcpu, self.engine, self.timers, self.interrupts, self.power)
        return self.result(loop.run(self.description.max_instructions, watch))

    def result(self, outcome: Outcome) -> Run:
        """The counts as they stand."""
        vcpu = self.vcpu
        places, elsewhere = vcpu.counters.places()
        about = self.description
        return Run(
            policy=about.policy,
            outcome=outcome,
            instructions=vcpu.meter.instructions,
            rom_instructions=vcpu.meter.rom_instructions,
            virtual_ns=vcpu.meter.now(),
            ledger=Ledger.from_counts(about.policy, vcpu.counters.totals(), places, elsewhere),
            paravirt=Paravirt(
                updates=vcpu.queue.updates,
                notices=vcpu.queue.notices,
                flushes=vcpu.queue.drains,
                largest_batch=vcpu.queue.largest,
                hypercalls=vcpu.counters.total(Event.HYPERCALL),
            ),
            calls={
                _call_name(vcpu.meter, row): CallUse(count, instructions)
                for row, (count, instructions) in vcpu.meter.calls().items()
            },
            console=self.console.text,
            complaints=tuple(vcpu.doorbell.complaints),
            rom_sha256=None if about.rom is None else hashlib.sha256(about.rom).hexdigest(),
            guest_sha256=hashlib.sha256(about.guest).hexdigest(),
            memory_crc=zlib.crc32(self.ram),
            shadow_entries_checked=0 if self._checker is None else self._checker.entries,
        )


def _call_name(meter: BlockMeter, row: int) -> str:
    """The call's name, or several joined by "/" where a ROM serves them by one entry."""
    if row in _CALL_ROWS:
        return _CALL_ROWS[row]
    return "/".join(_name_of(number) for number in meter.shared_with(row))


def _name_of(number: int) -> str:
    try:
        return call_numbered(number).name
    except KeyError:
        return f"call {number}"
