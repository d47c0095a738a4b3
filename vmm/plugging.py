"""Plug devices into a machine: their ranges, their lines, their state."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from vmi.address import PAGE_MASK, PAGE_SHIFT, GuestPhysical, Port
from vmm.core.bus import MemoryBus, PortBus
from vmm.core.errors import BadDescription, DeviceFailure
from vmm.core.memory import GuestMemory
from vmm.core.timers import Timers
from vmm.devices.guard import GuardedDevice, guarded
from vmm.devices.lines import InterruptLine
from vmm.devices.pluggable import Board, Device, Option, Plug
from vmm.pc import Pc

__all__ = ["PluggedDevices", "check_options"]

_PORTS = 1 << 16
_APIC_PAGE = 0xFEE00000
"""Where local APICs are, hidden or not."""


class _Slot(Board):
    """One device's view of the machine."""

    def __init__(self, name: str, outside: "PluggedDevices") -> None:
        self._name = name
        self._outside = outside
        self.lines: dict[int, InterruptLine] = {}
        self._keys: set[int] = set()
        self._saved: list[list[int]] = []

    def pending(self) -> list[list[int]]:
        """When each of the device's timers is due, and its key."""
        timers = self._outside.timers
        found = [(timers.due(key), key) for key in sorted(self._keys)]
        return [[when, key] for when, key in found if when is not None]

    def expect(self, timers: list[list[int]]) -> None:
        """The device will set these again: equal times then keep their order."""
        self._saved = [list(timer) for timer in timers]

    def now(self) -> int:
        return self._outside.now()

    def at(self, when: int, callback: Callable[[], None]) -> int:
        timers = self._outside.timers

        def due() -> None:
            self._keys.discard(key)
            guarded(self._name, f"timer at {when} ns", callback)

        again = next((timer for timer in self._saved if timer[0] == when), None)
        if again is None:
            key = timers.at(when, due)
        else:
            self._saved.remove(again)
            timers.restore(again, due)
            key = again[1]
        self._keys.add(key)
        return key

    def cancel(self, key: int) -> None:
        self._keys.discard(key)
        self._outside.timers.cancel(key)

    def line(self, irq: int) -> InterruptLine:
        if irq not in self.lines:
            declared = ", ".join(map(str, self.lines)) or "none"
            raise ValueError(f"interrupt request {irq} is not declared; declared: {declared}")
        return self.lines[irq]

    def message(self, address: int, data: int) -> None:
        self._outside.message(address, data)


class PluggedDevices:
    """The devices that a description plugs in, by name.

    `message` delivers a message-signalled interrupt. `buses` are the machine's ports
    and, where its engine has devices in memory, its memory bus.
    """

    def __init__(
        self,
        pc: Pc,
        ports: PortBus,
        memory_bus: MemoryBus | None,
        memory: GuestMemory,
        timers: Timers,
        now: Callable[[], int],
        message: Callable[[int, int], object],
    ) -> None:
        self.timers = timers
        self.now = now
        self.message = message
        self._pc = pc
        self._ports = ports
        self._memory_bus = memory_bus
        self._memory = memory
        self._devices: dict[str, Device] = {}
        self._slots: dict[str, _Slot] = {}

    def plug_in(self, plugs: Iterable[Plug]) -> None:
        """Make the devices and put them on their ports, addresses and lines.

        A second one of a name is called name.2. Raises `BadDescription` for options or
        ranges that cannot be, ports or memory that overlap another device's, a line
        that is another one's, and a device that cannot be made.
        """
        for plug in plugs:
            self._plug(plug)

    def _plug(self, plug: Plug) -> None:
        name, number = str(plug), 1
        while name in self._devices:
            number += 1
            name = f"{plug}.{number}"
        options = check_options(plug)
        slot = _Slot(name, self)
        try:
            device: Device = guarded(name, "making it", lambda: plug.device(slot, **options))
        except DeviceFailure as failure:
            raise BadDescription(str(failure)) from failure
        guard = GuardedDevice(name, device)
        try:
            for irq in device.lines:
                slot.lines[irq] = self._pc.claim(irq, name)
            for ports in _ranges("ports", device.ports, _PORTS):
                self._ports.register(Port(ports.start), len(ports), guard, name)
            for addresses in _ranges("memory", device.memory, 1 << 32):
                self._register_memory(addresses, guard, name)
        except (TypeError, ValueError) as error:
            raise BadDescription(f"device {name}: {error}") from None
        self._devices[name] = device
        self._slots[name] = slot

    def _register_memory(self, addresses: range, guard: GuardedDevice, name: str) -> None:
        if self._memory_bus is None:
            raise ValueError("this engine has no devices in memory")
        where = f"memory {addresses.start:#x}-{addresses.stop - 1:#x}"
        if addresses.start & PAGE_MASK or addresses.stop & PAGE_MASK:
            raise ValueError(f"{where}: expected whole pages")
        first, count = addresses.start >> PAGE_SHIFT, len(addresses) >> PAGE_SHIFT
        if any(self._memory.kinds(first, count)):
            raise ValueError(f"{where} overlaps the guest's RAM, {self._memory.size:#x} bytes")
        if _APIC_PAGE in addresses:
            raise ValueError(f"{where} overlaps the local APIC's at {_APIC_PAGE:#x}")
        self._memory_bus.register(GuestPhysical(addresses.start), len(addresses), guard, name)

    # ---- state

    def __getitem__(self, name: str) -> Device:
        return self._devices[name]

    def __len__(self) -> int:
        return len(self._devices)

    def save(self) -> dict[str, dict[str, Any]]:
        """Each device's state, by name, in values that JSON has.

        Raises `DeviceFailure` for a device that cannot say, or says anything else.
        """
        return {
            name: guarded(name, "saving its state", partial(_state_of, device))
            for name, device in self._devices.items()
        }

    def load(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Give each device the state that `save` told.

        Raises `BadDescription` unless the devices are those that were saved, and
        `DeviceFailure` for one that does not take its state.
        """
        if set(states) != set(self._devices):
            raise BadDescription(
                f"saved with devices {_names(states)}; the machine has {_names(self._devices)}"
            )
        for name, device in self._devices.items():
            state = states[name]
            guarded(name, "loading its state", partial(device.load, state))

    def save_all(self) -> dict[str, dict[str, Any]]:
        """Each device's state with its timers, for a machine that is saved whole."""
        return {
            name: {"state": state, "timers": self._slots[name].pending()}
            for name, state in self.save().items()
        }

    def load_all(self, states: Mapping[str, Any]) -> list[str]:
        """Give each device what `save_all` told; answers which are not on both sides.

        Those here are then as after power-on. Raises `DeviceFailure` for one that does not
        take its state.
        """
        for name in self._devices.keys() & states.keys():
            slot, state = self._slots[name], states[name]["state"]
            slot.expect(states[name]["timers"])
            guarded(name, "loading its state", partial(self._devices[name].load, state))
            slot.expect([])
        return [f"device {name}" for name in sorted(self._devices.keys() ^ states.keys())]


def check_options(plug: Plug) -> dict[str, Option]:
    """All options of a device, with defaults filled in and text made numbers.

    Raises `BadDescription` for an option that it has not, and for a value that is
    no number where its default is one.
    """
    known = plug.device.options
    for name, value in plug.options.items():
        if name not in known:
            raise BadDescription(f"device {plug}: option {name!r}: expected one of {_names(known)}")
        if isinstance(known[name], int) and not _is_number(value):
            raise BadDescription(
                f"device {plug}: option {name}={value}: expected a number, decimal or with 0x"
            )
    chosen = {**known, **plug.options}
    return {
        name: int(str(value), 0) if isinstance(known[name], int) else str(value)
        for name, value in chosen.items()
    }


def _is_number(value: Option) -> bool:
    try:
        int(str(value), 0)
    except ValueError:
        return False
    return True


def _ranges(what: str, declared: Sequence[range], end: int) -> Sequence[range]:
    for one in declared:
        if not isinstance(one, range) or one.step != 1 or not one or not 0 <= one.start < one.stop:
            raise TypeError(f"{what} {one!r}: expected a range such as range(0x510, 0x514)")
        if one.stop > end:
            raise ValueError(f"{what} {one.start:#x}-{one.stop - 1:#x}: expected below {end:#x}")
    return declared


def _state_of(device: Device) -> dict[str, Any]:
    state: Any = device.save()
    if not isinstance(state, dict) or json.loads(json.dumps(state)) != state:
        raise TypeError(f"{state!r}: expected a dict of values that JSON has")
    return dict(state)


def _names(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
