"""What can end a run before the guest says so."""

__all__ = [
    "BadDescription",
    "BadSlots",
    "DeviceFailure",
    "EngineFailure",
    "GuestError",
    "StaleFetch",
    "TimeUp",
    "TripleFault",
    "Unsupported",
    "VcpuThreadError",
    "VmmError",
]


class VmmError(Exception):
    """Base of everything the monitor raises on purpose."""


class BadDescription(VmmError, ValueError):
    """A machine description or an image that cannot be used; the user's to mend."""


class BadSlots(BadDescription):
    """A list of memory slots that cannot be; the text names the slots."""


class EngineFailure(VmmError):
    """The engine is not what the monitor was built for, or stopped without a reason."""


class DeviceFailure(VmmError):
    """A plugged-in device's own code went wrong; the text names the device."""


class TimeUp(VmmError):
    """The run has taken as long as it may."""


class VcpuThreadError(VmmError):
    """A call to a virtual CPU from a thread that it does not belong to."""


class GuestError(VmmError):
    """The guest did something that ends its run."""


class TripleFault(GuestError):
    """An exception could not be delivered, and neither could the double fault."""


class StaleFetch(VmmError):
    """The processor runs an instruction that the guest's tables map no more, or to another one.

    Its TLB is behind, which is allowed; an emulator that reads through the tables must
    have it fetch, and so fault, again.
    """


class Unsupported(GuestError):
    """The guest asked for something this machine does not emulate."""
