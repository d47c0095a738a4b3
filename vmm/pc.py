"""The devices of one PC, plugged into a port bus."""

from collections.abc import Callable

from vmi.address import Port
from vmm.core.bus import PortBus
from vmm.core.outcome import Outcome, OutcomeKind
from vmm.core.timers import Timers
from vmm.devices.console import DEBUG_PORT, DebugConsole
from vmm.devices.i8042 import I8042, I8042_COMMAND_PORT, I8042_DATA_PORT
from vmm.devices.linebatch import LineBatch
from vmm.devices.pci import CONFIG_ADDRESS, CONFIG_PORTS, PciHost
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
from vmm.devices.rtc import RTC_PORT_COUNT, RTC_PORTS, Rtc
from vmm.devices.uart import COM1, UART_PORT_COUNT, Uart
from vmm.devices.vmirom import VmiRomDevice

__all__ = ["Pc"]

_IRQ_TIMER, _IRQ_KEYBOARD, _IRQ_COM1, _IRQ_RTC = 0, 1, 4, 8
_VMI_ROM_SLOT = 4


class Pc:
    """Every device on its ports. The first that ends the machine decides its `outcome`.

    `now` answers virtual time in nanoseconds, `memory` is in bytes. `on_line` hears
    each line of the console, `on_interrupt` each change of the CPU's interrupt line,
    `on_end` that the machine is to stop.
    """

    def __init__(
        self,
        ports: PortBus,
        timers: Timers,
        now: Callable[[], int],
        memory: int,
        rom: bytes | None,
        on_line: Callable[[str], None],
        on_interrupt: Callable[[bool], None],
        on_end: Callable[[], None],
    ) -> None:
        self._lines: list[str] = []
        self._on_line = on_line
        self._on_end = on_end
        self._reset: Outcome | None = None
        self._panic = ""
        self.interrupts = PicPair(on_interrupt)
        self.pci = PciHost()
        self.exit_port = ExitPort()
        self.exit_port.on_exit = on_end
        self.debug = DebugConsole(self._line)
        self._serial = LineBatch(self._serial_output)
        self.uart = Uart(self.interrupts.line(_IRQ_COM1), self._serial.write, COM1)
        pit = Pit(timers, now, self.interrupts.line(_IRQ_TIMER))
        i8042 = I8042(self.interrupts.line(_IRQ_KEYBOARD), self._reset_by)
        rtc = Rtc(timers, now, self.interrupts.line(_IRQ_RTC), memory)
        if rom is not None:
            self.pci.plug(_VMI_ROM_SLOT, VmiRomDevice(rom))
        for first, count, device in (
            (PIC_MASTER_PORTS, PIC_PORT_COUNT, self.interrupts),
            (PIC_SLAVE_PORTS, PIC_PORT_COUNT, self.interrupts),
            (ELCR_PORTS, PIC_PORT_COUNT, self.interrupts),
            (PIT_PORTS, PIT_PORT_COUNT, pit),
            (CONTROL_PORT_B, 1, ControlPortB(pit)),
            (CONTROL_PORT_A, 1, ControlPortA(self._reset_by)),
            (I8042_DATA_PORT, 1, i8042),
            (I8042_COMMAND_PORT, 1, i8042),
            (RTC_PORTS, RTC_PORT_COUNT, rtc),
            (COM1, UART_PORT_COUNT, self.uart),
            (CONFIG_ADDRESS, CONFIG_PORTS, self.pci),
            (DEBUG_PORT, 1, self.debug),
            (EXIT_PORT, EXIT_PORT_COUNT, self.exit_port),
        ):
            ports.register(Port(first), count, device)

    @property
    def outcome(self) -> Outcome | None:
        """How the guest ended the machine, if it did.

        A reset after Linux has said that it panics is the end of a panic.
        """
        if self._reset is not None and self._panic:
            return Outcome(OutcomeKind.PANIC, self._panic)
        return self._reset or self.exit_port.outcome

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
        if "Kernel panic - " in text:
            self._panic = text[text.index("Kernel panic") :]
        self._on_line(text)

    def _serial_output(self, data: bytes) -> None:
        for line in data.decode("latin-1").rstrip("\n").split("\n"):
            self._line(line.rstrip("\r"))

    def _reset_by(self, reason: str) -> None:
        if self._reset is None:
            self._reset = Outcome(OutcomeKind.REBOOT, reason)
        self._on_end()
