"""The devices of one PC, plugged into a port bus."""

from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from typing import Any

from vmi.address import Port
from vmm.core.bus import PortBus, PortDevice
from vmm.core.outcome import Outcome, OutcomeKind
from vmm.core.saved import (
    CUSTOM,
    FLAG,
    PART,
    BadState,
    Fields,
    Text,
    Timer,
    Value,
    load_object,
    save_object,
)
from vmm.core.timers import Timers
from vmm.devices.chipset import HostBridge, IdeFunction
from vmm.devices.console import DEBUG_PORT, DebugConsole
from vmm.devices.disk import DiskImage
from vmm.devices.i8042 import I8042, I8042_COMMAND_PORT, I8042_DATA_PORT
from vmm.devices.ide import (
    IDE_CONTROL_COUNT,
    IDE_PORT_COUNT,
    PRIMARY_CONTROL,
    PRIMARY_PORTS,
    SECONDARY_CONTROL,
    SECONDARY_PORTS,
    IdeChannel,
)
from vmm.devices.idedrive import IdeDrive
from vmm.devices.ideinrom import IdeInRom
from vmm.devices.ioapic import input_of_irq
from vmm.devices.ioapiclink import IoApicLink, WireTo
from vmm.devices.linebatch import LineBatch
from vmm.devices.lines import InterruptLine, SharedLine
from vmm.devices.msi import MsiCapability
from vmm.devices.pci import CONFIG_ADDRESS, CONFIG_PORTS, PciFunction, PciHost
from vmm.devices.pic import (
    ELCR_PORTS,
    PIC_MASTER_PORTS,
    PIC_PORT_COUNT,
    PIC_SLAVE_PORTS,
    PicPair,
)
from vmm.devices.pit import PIT_PORT_COUNT, PIT_PORTS, Pit
from vmm.devices.port61 import CONTROL_PORT_B, ControlPortB
from vmm.devices.port92 import CONTROL_PORT_A, ControlPortA
from vmm.devices.power import EXIT_PORT, EXIT_PORT_COUNT, ExitPort
from vmm.devices.rtc import DEFAULT_START, RTC_PORT_COUNT, RTC_PORTS, Rtc
from vmm.devices.uart import COM1, UART_PORT_COUNT, Uart
from vmm.devices.vmirom import VmiRomDevice

__all__ = ["Part", "Pc"]

_IRQ_TIMER, _IRQ_KEYBOARD, _IRQ_COM1, _IRQ_RTC, _IRQ_PRIMARY, _IRQ_SECONDARY = 0, 1, 4, 8, 14, 15
_HOST_BRIDGE_SLOT, _IDE_SLOT, _VMI_ROM_SLOT = 0, 1, 4

_PANIC = "Kernel panic - "
_LAST_WORDS_NS = 1_000_000_000
_CASCADE = 2


@dataclass(slots=True)
class Part:
    """One of the devices that every PC has, by the name that errors call it."""

    name: str
    device: PortDevice
    ports: list[range] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


class Pc:
    """Every device on its ports. The first that ends the machine decides its `outcome`.

    `now` answers virtual time in nanoseconds, `memory` is in bytes; `disk` is the first
    IDE drive. `on_line` hears
    each line of the console, `on_interrupt` each change of the CPU's interrupt line,
    `on_end` that the machine is to stop. `on_serial`, to be set by who wants it, gets
    the serial port's bytes as they are sent. Interrupt requests go to an `ioapic` as well.
    `bridge` stands in for the plain host bridge. With `message`, which takes the address and
    data of a message-signalled interrupt, the IDE function can send them.
    """

    SAVED = Fields(
        {
            CUSTOM: "_lines _reset _wires parts",
            Text(most=1 << 20): "_panic",
            FLAG: "_given_up",
            Timer("_give_up"): "_last_words",
            PART: "_serial",
        },
        wiring="_on_line _on_end _timers _now _ioapic _owners",
        elsewhere="interrupts pci exit_port debug uart ide",
        derived="unknown_parts",
        host="on_serial",
    )

    def __init__(
        self,
        ports: PortBus,
        timers: Timers,
        now: Callable[[], int],
        memory: int,
        rom: bytes | None,
        disk: DiskImage | None,
        on_line: Callable[[str], None],
        on_interrupt: Callable[[bool], None],
        on_end: Callable[[], None],
        ioapic: IoApicLink | None = None,
        bridge: PciFunction | None = None,
        message: Callable[[int, int], object] | None = None,
    ) -> None:
        self._lines: list[str] = []
        self._last_words: int | None = None
        self._on_line = on_line
        self._on_end = on_end
        self._reset: Outcome | None = None
        self._panic = ""
        self._given_up = False
        self._timers = timers
        self._now = now
        self.interrupts = PicPair(on_interrupt)
        self._ioapic = ioapic
        self._wires: dict[int, InterruptLine] = {}
        self._owners: dict[int, str] = {}
        self.parts: list[Part] = []
        self.unknown_parts: tuple[str, ...] = ()
        """Devices of a saved machine that this one has not, and of this one that that had not."""
        self.pci = PciHost()
        self.exit_port = ExitPort()
        self.exit_port.on_exit = on_end
        self.debug = DebugConsole(self._line)
        self._serial = LineBatch(self._serial_output)
        self.uart = Uart(self.claim(_IRQ_COM1, "com1"), self._sent, COM1)
        self.on_serial: Callable[[bytes], None] = lambda _data: None
        pit = Pit(timers, now, self.claim(_IRQ_TIMER, "pit"))
        i8042 = I8042(self.claim(_IRQ_KEYBOARD, "i8042"), self._reset_by)
        rtc = Rtc(timers, now, self.claim(_IRQ_RTC, "rtc"), memory)
        self.pci.plug(_HOST_BRIDGE_SLOT, HostBridge() if bridge is None else bridge)
        msi = None if message is None else MsiCapability(2, message)
        self.pci.plug(_IDE_SLOT, IdeFunction(msi))
        first_wire, second_wire = (
            self.claim(_IRQ_PRIMARY, "ide0"),
            self.claim(_IRQ_SECONDARY, "ide1"),
        )
        primary = IdeInRom(
            IdeChannel(
                first_wire if msi is None else msi.line(first_wire),
                PRIMARY_PORTS,
                PRIMARY_CONTROL,
                None if disk is None else IdeDrive(disk),
            )
        )
        secondary = IdeInRom(
            IdeChannel(
                second_wire if msi is None else msi.line(second_wire),
                SECONDARY_PORTS,
                SECONDARY_CONTROL,
            )
        )
        self.ide = (primary, secondary)
        if rom is not None:
            self.pci.plug(_VMI_ROM_SLOT, VmiRomDevice(rom))
        for name, first, count, device in (
            ("pic", PIC_MASTER_PORTS, PIC_PORT_COUNT, self.interrupts),
            ("pic", PIC_SLAVE_PORTS, PIC_PORT_COUNT, self.interrupts),
            ("pic", ELCR_PORTS, PIC_PORT_COUNT, self.interrupts),
            ("pit", PIT_PORTS, PIT_PORT_COUNT, pit),
            ("port61", CONTROL_PORT_B, 1, ControlPortB(pit)),
            ("port92", CONTROL_PORT_A, 1, ControlPortA(self._reset_by)),
            ("i8042", I8042_DATA_PORT, 1, i8042),
            ("i8042", I8042_COMMAND_PORT, 1, i8042),
            ("rtc", RTC_PORTS, RTC_PORT_COUNT, rtc),
            ("com1", COM1, UART_PORT_COUNT, self.uart),
            ("pci", CONFIG_ADDRESS, CONFIG_PORTS, self.pci),
            ("debug", DEBUG_PORT, 1, self.debug),
            ("ide0", PRIMARY_PORTS, IDE_PORT_COUNT, primary),
            ("ide0", PRIMARY_CONTROL, IDE_CONTROL_COUNT, primary),
            ("ide1", SECONDARY_PORTS, IDE_PORT_COUNT, secondary),
            ("ide1", SECONDARY_CONTROL, IDE_CONTROL_COUNT, secondary),
            ("exit", EXIT_PORT, EXIT_PORT_COUNT, self.exit_port),
        ):
            ports.register(Port(first), count, device, name)
            self._list(name, device, range(first, first + count))

    def wire(self, irq: int) -> InterruptLine:
        """The wire of interrupt request 0-15, without 2."""
        if irq not in self._wires:
            line: InterruptLine = self.interrupts.line(irq)
            if self._ioapic is not None:
                line = SharedLine(line, WireTo(self._ioapic, input_of_irq(irq)))
            self._wires[irq] = line
        return self._wires[irq]

    def claim(self, irq: int, name: str) -> InterruptLine:
        """The wire of an interrupt request, for the device of this name and no other.

        Raises `ValueError`, which names both, where another device has it.
        """
        if irq not in range(16) or irq == _CASCADE:
            raise ValueError(f"interrupt request {irq}: expected 0 to 15, without {_CASCADE}")
        if irq in self._owners:
            raise ValueError(f"interrupt request {irq} of {name} is {self._owners[irq]}'s")
        self._owners[irq] = name
        return self.wire(irq)

    def _list(self, name: str, device: PortDevice, ports: range) -> None:
        """Note what a device of the PC's own decodes."""
        if not self.parts or self.parts[-1].name != name:
            lines = [irq for irq, owner in self._owners.items() if owner == name]
            self.parts.append(Part(name, device, lines=lines))
        self.parts[-1].ports.append(ports)

    # ---- state, for `vmm.core.saved`

    def _save_lines(self) -> list[str]:
        """What the console has printed."""
        return list(self._lines)

    def _load_lines(self, value: list[str]) -> None:
        """The same."""
        self._lines = [str(line) for line in value]

    def _save_reset(self) -> list[str] | None:
        """How the machine was ended."""
        return None if self._reset is None else [str(text) for text in astuple(self._reset)]

    def _load_reset(self, value: list[str] | None) -> None:
        """The same."""
        self._reset = None if value is None else Outcome(OutcomeKind(value[0]), str(value[1]))

    def _save_wires(self) -> dict[str, Value]:
        """The interrupt requests' wires."""
        return {str(irq): save_object(wire) for irq, wire in self._wires.items()}

    def _load_wires(self, value: dict[str, Any]) -> None:
        """The same; wires come into being when somebody asks for them."""
        for irq, state in value.items():
            if int(irq) not in range(16) or int(irq) == _CASCADE:
                raise ValueError(f"interrupt request {irq}")
            load_object(self.wire(int(irq)), state)

    def _save_parts(self) -> dict[str, Value]:
        """The devices, by name."""
        return {part.name: save_object(part.device) for part in self.parts}

    def _load_parts(self, value: dict[str, Any]) -> None:
        """The same; one that is not on both sides is as after power-on, and reported."""
        parts = {part.name: part.device for part in self.parts}
        for name in parts.keys() & value.keys():
            try:
                load_object(parts[name], value[name])
            except BadState as error:
                raise BadState(f"{name}: {error}") from None
        self.unknown_parts = tuple(sorted(parts.keys() ^ value.keys()))

    def pulse_timer_line(self) -> None:
        """A rising edge on interrupt request 0: an alarm that the ROM was asked for."""
        line = self.wire(_IRQ_TIMER)
        line.level = False
        line.level = True

    @property
    def power_on_ns(self) -> int:
        """What the real-time clock showed at virtual time 0, in nanoseconds since 1970."""
        return int(DEFAULT_START.timestamp()) * 1_000_000_000

    @property
    def outcome(self) -> Outcome | None:
        """How the guest ended the machine, if it did.

        A reset after Linux has said that it panics is the end of a panic.
        """
        if self._panic and (self._reset is not None or self._given_up):
            return Outcome(OutcomeKind.PANIC, self._panic)
        return self._reset or self.exit_port.outcome

    def end(self, outcome: Outcome) -> None:
        """End the machine from outside; what ended it before stands."""
        if self._reset is None:
            self._reset = outcome
        self._on_end()

    @property
    def panic(self) -> str:
        """What Linux said when it panicked; empty while it has not."""
        return self._panic

    @property
    def console(self) -> str:
        """Everything printed so far, on the serial and the debug port."""
        self._serial.flush()
        return "\n".join([*self._lines, self.debug.unfinished])

    def _line(self, text: str) -> None:
        self._lines.append(text)
        if _PANIC in text and not self._panic:
            self._panic = text[text.index(_PANIC) :]
            # Linux has more to say, but unless told to reboot it never ends by itself.
            self._last_words = self._timers.at(self._now() + _LAST_WORDS_NS, self._give_up)
        self._on_line(text)

    def _give_up(self) -> None:
        self._given_up = True
        self._on_end()

    def _sent(self, data: bytes) -> None:
        self.on_serial(data)
        self._serial.write(data)

    def _serial_output(self, data: bytes) -> None:
        for line in data.decode("latin-1").rstrip("\n").split("\n"):
            self._line(line.rstrip("\r"))

    def _reset_by(self, reason: str) -> None:
        self.end(Outcome(OutcomeKind.REBOOT, reason))
