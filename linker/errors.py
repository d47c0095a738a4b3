"""What can go wrong between objects, a linker script and an image.

Every error is a `LinkError`, its text is one line, and the values in that text are
attributes too, so that a caller can act on them without parsing English.
"""

__all__ = [
    "AbsoluteRelocationError",
    "AssertionFailedError",
    "DuplicateSymbolError",
    "ImageSizeError",
    "LinkError",
    "ObjectError",
    "OrphanSectionError",
    "OverlapError",
    "RelocationOverflowError",
    "ScriptError",
    "UndefinedSymbolError",
]


class LinkError(ValueError):
    """The inputs cannot become an image."""


class ObjectError(LinkError):
    """An object file is damaged or uses what this linker does not implement."""

    def __init__(self, obj: str, problem: str) -> None:
        super().__init__(f"{obj}: {problem}")
        self.object = obj
        self.problem = problem


class ScriptError(LinkError):
    """A linker script is malformed or uses what this linker does not implement."""

    def __init__(self, script: str, line: int, problem: str) -> None:
        super().__init__(f"{script}:{line}: {problem}")
        self.script = script
        self.line = line
        self.problem = problem


class AssertionFailedError(ScriptError):
    """An ASSERT in the script does not hold."""


class UndefinedSymbolError(LinkError):
    """A symbol is used by an object or by the script, and nothing defines it."""

    def __init__(self, symbol: str, place: str) -> None:
        super().__init__(f"{place}: undefined symbol {symbol}")
        self.symbol = symbol
        self.place = place


class DuplicateSymbolError(LinkError):
    """Two places define the same global symbol."""

    def __init__(self, symbol: str, first: str, second: str) -> None:
        super().__init__(f"duplicate symbol {symbol}: defined in {first} and in {second}")
        self.symbol = symbol
        self.first = first
        self.second = second


class OrphanSectionError(LinkError):
    """No rule of the script places an input section."""

    def __init__(self, obj: str, section: str) -> None:
        super().__init__(f"{obj}: section {section} is placed by no rule of the linker script")
        self.object = obj
        self.section = section


class OverlapError(LinkError):
    """Two output sections claim the same addresses; ranges are (start, end)."""

    def __init__(
        self, first: str, first_range: tuple[int, int], second: str, second_range: tuple[int, int]
    ) -> None:
        super().__init__(
            f"sections overlap: {first} [{first_range[0]:#x}, {first_range[1]:#x}) and "
            f"{second} [{second_range[0]:#x}, {second_range[1]:#x})"
        )
        self.first = first
        self.first_range = first_range
        self.second = second
        self.second_range = second_range


class RelocationOverflowError(LinkError):
    """A relocated value does not fit its field."""

    def __init__(
        self, place: str, kind: str, symbol: str, value: int, limits: tuple[int, int]
    ) -> None:
        super().__init__(
            f"{place}: {kind} against {symbol} needs the value {value:#x}, "
            f"but the field holds {limits[0]:#x} to {limits[1]:#x}"
        )
        self.place = place
        self.kind = kind
        self.symbol = symbol
        self.value = value
        self.limits = limits


class AbsoluteRelocationError(LinkError):
    """An absolute 32-bit address in a section that must be position independent."""

    def __init__(self, place: str, output: str, symbol: str) -> None:
        super().__init__(
            f"{place}: absolute 32-bit reference to {symbol}, "
            f"but output section {output} must be position independent"
        )
        self.place = place
        self.output = output
        self.symbol = symbol


class ImageSizeError(LinkError):
    """The image is larger than it may be; sizes in bytes."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"image is {size} bytes, at most {limit} are allowed")
        self.size = size
        self.limit = limit
