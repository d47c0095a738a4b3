"""Values as people write them on the command line of build."""

import re
from typing import Any

import click

__all__ = ["Number", "PciId", "Replacement"]

_ADDRESS_LIMIT = 1 << 32


class Number(click.ParamType[int]):
    """An address, in decimal or with 0x in hex."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The address."""
        if isinstance(value, int):
            return value
        try:
            address = int(str(value), 0)
        except ValueError:
            self.fail(f"{value!r}: expected a number such as 0xC00C8000", param, ctx)
        if not 0 <= address < _ADDRESS_LIMIT:
            self.fail(f"{value!r}: expected an address below 4 GiB", param, ctx)
        return address


class PciId(click.ParamType[tuple[int, int]]):
    """Vendor and device of a PCI device, in hex, as lspci -n prints them."""

    name = "vendor:device"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """(vendor, device)."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(?:0x)?([0-9a-f]{1,4}):(?:0x)?([0-9a-f]{1,4})", str(value).lower())
        if match is None:
            self.fail(f"{value!r}: expected two hex numbers such as 8086:100e", param, ctx)
        return int(match[1], 16), int(match[2], 16)


class Replacement(click.ParamType[tuple[str, str]]):
    """A call and the function that serves it."""

    name = "call=symbol"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """(call, symbol)."""
        if isinstance(value, tuple):
            return value
        call, _, symbol = str(value).partition("=")
        if not (call and symbol):
            self.fail(f"{value!r}: expected a call and a symbol, SetPxE=my_function", param, ctx)
        return call, symbol
