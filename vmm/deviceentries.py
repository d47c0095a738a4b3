"""Devices of other packages: those that name a class in the entry points `vmirom.devices`."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from vmm.core.errors import BadDescription
from vmm.devices.pluggable import Device, Option, Plug
from vmm.plugging import check_options

__all__ = ["GROUP", "DeviceEntry", "device_entries", "plug_named"]

GROUP = "vmirom.devices"
"""The entry points of other packages' devices."""


@dataclass(frozen=True, slots=True)
class DeviceEntry:
    """A device by name, and the distribution that brings it along."""

    name: str
    package: str
    point: EntryPoint

    def load(self) -> type[Device]:
        """Its class. Raises `BadDescription`, which names both, where there is none."""
        place = f"device {self.name!r} of package {self.package}"
        try:
            found = self.point.load()
        except Exception as error:
            raise BadDescription(
                f"{place} cannot be loaded from {self.point.value}: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(found, type) or not issubclass(found, Device):
            raise BadDescription(
                f"{place}: {self.point.value} is {found!r}, expected a class of "
                f"{Device.__module__}.{Device.__qualname__}"
            )
        return found


def device_entries() -> list[DeviceEntry]:
    """What the packages installed here add, by name; a class is not loaded before `load`."""
    return sorted(
        (
            DeviceEntry(point.name, "unknown" if point.dist is None else point.dist.name, point)
            for point in entry_points(group=GROUP)
        ),
        key=lambda entry: (entry.name, entry.package),
    )


def plug_named(text: str) -> Plug:
    """The device that NAME[,key=value...] asks for, with its options checked.

    Raises `BadDescription` for a name that no package or more than one has, for options
    that the device has not, and for text of another form.
    """
    name, *pairs = text.split(",")
    entries = device_entries()
    found = [entry for entry in entries if entry.name == name]
    if not found:
        known = ", ".join(entry.name for entry in entries) or "none: no package brings one along"
        raise BadDescription(f"device {name!r}: expected one of {known}")
    if len(found) > 1:
        packages = " and ".join(entry.package for entry in found)
        raise BadDescription(f"device {name!r} is in several packages: {packages}")
    options: dict[str, Option] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key or key in options:
            raise BadDescription(f"device {text!r}: {pair!r}: expected key=value, each key once")
        options[key] = value
    plug = Plug(found[0].load(), options, name)
    check_options(plug)
    return plug
