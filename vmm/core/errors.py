"""What can end a run before the guest says so."""

__all__ = [
    "BadDescription",
    "EngineFailure",
    "GuestError",
    "TripleFault",
    "Unsupported",
    "VmmError",
]


class VmmError(Exception):
    """Base of everything the monitor raises on purpose."""


class BadDescription(VmmError, ValueError):
    """A machine description or an image that cannot be used; the user's to mend."""


class EngineFailure(VmmError):
    """The engine is not what the monitor was built for, or stopped without a reason."""


class GuestError(VmmError):
    """The guest did something that ends its run."""


class TripleFault(GuestError):
    """An exception could not be delivered, and neither could the double fault."""


class Unsupported(GuestError):
    """The guest asked for something this machine does not emulate."""
