"""Between the machine and a device's own code: what goes wrong there is the device's."""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from vmm.core.errors import DeviceFailure
from vmm.devices.pluggable import Device

__all__ = ["GuardedDevice", "guarded"]

T = TypeVar("T")


def guarded(name: str, doing: str, call: Callable[[], T]) -> T:
    """What `call` answers. Raises `DeviceFailure`, which names the device, for what it raises."""
    try:
        return call()
    except DeviceFailure:
        raise
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise DeviceFailure(
            f"device {name}: {doing}: {type(error).__name__}: {error} "
            f"({Path(where.filename).name}, line {where.lineno})"
        ) from error


class GuardedDevice:
    """A device on the buses, whose errors end the run and name it."""

    def __init__(self, name: str, device: Device) -> None:
        self._name = name
        self._device = device

    def read(self, port: int, size: int) -> int:
        """IN."""
        return self._value(
            size, f"read of {size} at port {port:#x}", lambda: self._device.read(port, size)
        )

    def write(self, port: int, size: int, value: int) -> None:
        """OUT."""
        guarded(
            self._name,
            f"write of {size} at port {port:#x}",
            lambda: self._device.write(port, size, value),
        )

    def memory_read(self, address: int, size: int) -> int:
        """A load."""
        return self._value(
            size, f"load of {size} at {address:#x}", lambda: self._device.memory_read(address, size)
        )

    def memory_write(self, address: int, size: int, value: int) -> None:
        """A store."""
        guarded(
            self._name,
            f"store of {size} at {address:#x}",
            lambda: self._device.memory_write(address, size, value),
        )

    def _value(self, size: int, doing: str, call: Callable[[], Any]) -> int:
        value = guarded(self._name, doing, call)
        if not isinstance(value, int):
            raise DeviceFailure(f"device {self._name}: {doing}: {value!r}, expected an integer")
        return value & ((1 << (8 * size)) - 1)
