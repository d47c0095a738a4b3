"""Names for addresses: a kernel's System.map, or the symbols of a built-in guest."""

import bisect
from collections.abc import Mapping
from pathlib import Path

from vmm.core.errors import BadDescription

__all__ = ["SymbolMap", "read_system_map"]

_REACH = 1 << 16
"""An address farther than this behind a symbol belongs to something else."""


class SymbolMap:
    """Finds the symbol that an address lies in."""

    def __init__(self, symbols: Mapping[str, int]) -> None:
        pairs = sorted((address, name) for name, address in symbols.items())
        self._addresses = [address for address, _ in pairs]
        self._names = [name for _, name in pairs]

    def address(self, name: str) -> int:
        """Where a symbol is; raises `KeyError`."""
        if name not in self._names:
            raise KeyError(name)
        return self._addresses[self._names.index(name)]

    def name(self, address: int) -> str:
        """Answer the symbol and the distance, as in symbol+0x12; nothing where none is near."""
        index = bisect.bisect_right(self._addresses, address) - 1
        if index < 0 or address - self._addresses[index] > _REACH:
            return ""
        distance = address - self._addresses[index]
        return self._names[index] + (f"+{distance:#x}" if distance else "")


def read_system_map(path: Path) -> SymbolMap:
    """Read a System.map: lines of address, type and name, as nm prints them.

    Raises `BadDescription` when the file is not one.
    """
    try:
        text = path.read_text(encoding="ascii")
    except OSError as error:
        raise BadDescription(f"symbols {str(path)!r}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise BadDescription(f"symbols {str(path)!r}: not a System.map, which is text") from None
    symbols = {}
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.split()
        try:
            address, _kind, name = int(parts[0], 16), parts[1], parts[2]
        except (ValueError, IndexError):
            raise BadDescription(
                f"symbols {str(path)!r} line {number}: {line!r}, expected address, type and name"
            ) from None
        symbols[name] = address
    return SymbolMap(symbols)
