"""The keyboard controller, without a keyboard or a mouse (Intel 8042; IBM PS/2 reference).

Guests use it to reset the machine and to find out that nothing is attached, which
takes them a long time when nobody answers.
"""

from collections import deque
from collections.abc import Callable

from vmi.address import Port
from vmm.core.saved import ARRAY, CUSTOM, U8, BadState, Fields, Optional
from vmm.devices.bytewide import ByteWideDevice
from vmm.devices.lines import InterruptLine

__all__ = ["I8042", "I8042_COMMAND_PORT", "I8042_DATA_PORT"]

I8042_DATA_PORT = Port(0x60)
I8042_COMMAND_PORT = Port(0x64)
"""Status when read. The two ports are registered one by one; 0x61 lies between."""

_OUTPUT_FULL, _SYSTEM, _WAS_COMMAND, _UNLOCKED, _TIMEOUT = 0x01, 0x04, 0x08, 0x10, 0x40
_KEYBOARD_INTERRUPT, _KEYBOARD_DISABLED, _TRANSLATE = 0x01, 0x10, 0x40
_FIRMWARE_MODE = _KEYBOARD_INTERRUPT | _SYSTEM | _TRANSLATE
_OUTPUT_NOT_RESET, _OUTPUT_A20 = 0x01, 0x02
_NO_KEYBOARD_LOCK = 0x80

_SELF_TEST_PASSED = 0x55
_PORT_GOOD = 0x00
_CLOCK_STUCK_LOW = 0x01
_RESEND = 0xFE
"""What the controller reads for a device that does not answer, with the timeout bit."""


class I8042(ByteWideDevice):
    """`line` is IRQ 1; `on_reset` is called with the reason when the guest asks for a reset."""

    SAVED = Fields(
        {
            ARRAY: "_ram",
            CUSTOM: "_answers",
            U8: "_last _last_status _output_port _was_command",
            Optional(U8): "_operand_for",
        },
        wiring="_line _on_reset _commands _operand_commands",
    )

    def __init__(self, line: InterruptLine, on_reset: Callable[[str], None]) -> None:
        self._line = line
        self._on_reset = on_reset
        self._ram = bytearray(32)
        self._ram[0] = _FIRMWARE_MODE
        self._answers: deque[tuple[int, int]] = deque()
        """Bytes for the output buffer, each with its status bits."""
        self._last = 0
        self._last_status = 0
        self._output_port = _OUTPUT_NOT_RESET | _OUTPUT_A20
        self._operand_for: int | None = None
        """The command whose operand comes next."""
        self._was_command = 0
        self._commands: dict[int, Callable[[], None]] = {
            0xA9: lambda: self._answer(_CLOCK_STUCK_LOW),
            0xAA: self._self_test,
            0xAB: lambda: self._answer(_PORT_GOOD),
            0xAD: self._disable_keyboard,
            0xAE: self._enable_keyboard,
            0xC0: lambda: self._answer(_NO_KEYBOARD_LOCK),
            0xD0: lambda: self._answer(self._output_port),
            0xE0: lambda: self._answer(0),
        }
        self._operand_commands: dict[int, Callable[[int], None]] = {
            0xD1: self._set_output_port,
            0xD2: self._answer,
            # To loop a byte through the mouse port: no such port, so it comes back as a key.
            0xD3: self._answer,
            0xD4: lambda _value: self._answer(_RESEND, _TIMEOUT),
        }

    def _check_saved(self) -> None:
        """A command that takes an operand."""
        command = self._operand_for
        if command not in {None, *self._operand_commands, *range(0x60, 0x80)}:
            raise BadState(f"an operand for command {command}")

    def _save_answers(self) -> list[list[int]]:
        """For `vmm.core.saved`: bytes with their status bits."""
        return [list(answer) for answer in self._answers]

    def _load_answers(self, value: list[list[int]]) -> None:
        """The same."""
        self._answers = deque((byte & 0xFF, bits & 0xFF) for byte, bits in value)

    @property
    def mode(self) -> int:
        """The command byte: interrupt enables, system flag, disables, translation."""
        return self._ram[0]

    def read_byte(self, port: int) -> int:
        """The status or the output buffer."""
        if port == I8042_COMMAND_PORT:
            return self._status()
        if port != I8042_DATA_PORT:
            return 0xFF
        if self._answers:
            self._last, self._last_status = self._answers.popleft()
            self._line.level = False
            self._settle()
        return self._last

    def _status(self) -> int:
        _, bits = self._answers[0] if self._answers else (0, self._last_status)
        full = _OUTPUT_FULL if self._answers else 0
        return full | bits | self.mode & _SYSTEM | self._was_command | _UNLOCKED

    def write_byte(self, port: int, value: int) -> None:
        """A command, its operand, or a byte for the keyboard."""
        if port == I8042_COMMAND_PORT:
            self._was_command = _WAS_COMMAND
            self._operand_for = None
            self._command(value)
        elif port == I8042_DATA_PORT:
            self._was_command = 0
            command, self._operand_for = self._operand_for, None
            if command is None:
                self._to_keyboard()
            elif command in self._operand_commands:
                self._operand_commands[command](value)
            else:
                self._ram[command & 0x1F] = value
        self._settle()

    def _command(self, value: int) -> None:
        if 0x20 <= value < 0x40:
            self._answer(self._ram[value & 0x1F])
        elif 0x60 <= value < 0x80 or value in self._operand_commands:
            self._operand_for = value
        elif value >= 0xF0:
            self._pulse(value & 0x0F)
        elif value in self._commands:
            self._commands[value]()

    def _answer(self, value: int, bits: int = 0) -> None:
        self._answers.append((value, bits))

    def _self_test(self) -> None:
        self._answers.clear()
        self._ram[0] |= _SYSTEM
        self._answer(_SELF_TEST_PASSED)

    def _disable_keyboard(self) -> None:
        self._ram[0] |= _KEYBOARD_DISABLED

    def _enable_keyboard(self) -> None:
        self._ram[0] &= ~_KEYBOARD_DISABLED

    def _set_output_port(self, value: int) -> None:
        self._output_port = value
        if not value & _OUTPUT_NOT_RESET:
            self._on_reset("keyboard controller's output port")

    def _pulse(self, mask: int) -> None:
        """Pull the output bits that are 0 in `mask` low for some microseconds."""
        if not mask & _OUTPUT_NOT_RESET:
            self._on_reset("keyboard controller")

    def _to_keyboard(self) -> None:
        """Sending to the keyboard enables it; there is none, which the controller notices."""
        self._enable_keyboard()
        self._answer(_RESEND, _TIMEOUT)

    def _settle(self) -> None:
        self._line.level = bool(self._answers) and bool(self.mode & _KEYBOARD_INTERRUPT)
