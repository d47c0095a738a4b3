"""Where the assembly sources are: beside the package in a checkout, inside it once installed."""

from pathlib import Path

from rombuilder.errors import BuildError

__all__ = ["guest_names", "guests_dir", "rom_dir"]

_PACKAGE = Path(__file__).resolve().parent


def _find(name: str) -> Path:
    candidates = (_PACKAGE / "_sources" / name, _PACKAGE.parent / name)
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    places = " and ".join(str(candidate) for candidate in candidates)
    raise BuildError(f"cannot find the {name} sources, looked at {places}")


def rom_dir() -> Path:
    """The folder of the ROM's sources and linker script; raises `BuildError`."""
    return _find("rom_src")


def guests_dir() -> Path:
    """The folder of the guests' sources and linker script; raises `BuildError`."""
    return _find("guests")


def guest_names() -> list[str]:
    """The built-in guests, by name. Raises `BuildError` when the sources are missing."""
    return sorted(path.stem for path in guests_dir().glob("*.S"))
