"""`vmirom inspect`: what an option ROM image says, and what is wrong with it."""

import json
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from rombuilder.errors import BuildError
from rombuilder.inspect import Inspection, inspect_rom
from vmi.header import HeaderError
from vmi.relocation import RelocationKind

__all__ = ["inspect"]

_SCHEMA = "vmirom.inspect/1"


def _report(path: Path, found: Inspection) -> dict[str, object]:
    header, pcir, pnp = found.header, found.pcir, found.pnp
    return {
        "schema": _SCHEMA,
        "file": str(path),
        "file_size": found.file_size,
        "sha256": found.sha256,
        "size": header.size,
        "checksum": found.checksum,
        "pcir": pcir
        and {
            "offset": header.pcir_offset,
            "vendor": pcir.vendor,
            "device": pcir.device,
            "length": pcir.length,
            "class_code": list(pcir.class_code),
            "image_blocks": pcir.image_blocks,
            "code_revision": pcir.code_revision,
            "code_type": pcir.code_type,
            "last": pcir.is_last,
        },
        "pnp": pnp
        and {
            "offset": header.pnp_offset,
            "revision": pnp.revision,
            "length": pnp.length,
            "next_offset": pnp.next_offset,
            "checksum_ok": pnp.checksum_ok,
            "bootstrap": pnp.bootstrap,
        },
        "manufacturer": found.manufacturer,
        "product": found.product,
        "vmi": {
            "api_version": [header.api_major, header.api_minor],
            "virtual_top": header.virtual_top,
            "license": found.license,
            "init_result": found.init_result,
            "calls": [
                {
                    "number": call.number,
                    "name": call.name,
                    "kind": call.kind.name,
                    "offset": call.offset,
                }
                for call in found.calls
            ],
        }
        if found.is_vmi
        else None,
        "defects": [{"code": defect.code, "text": defect.text} for defect in found.defects],
    }


def _headers(path: Path, found: Inspection) -> Table:
    table = Table(title=str(path), show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    header, pcir, pnp = found.header, found.pcir, found.pnp
    table.add_row("file", f"{found.file_size} bytes, sha256 {found.sha256}")
    table.add_row("image", f"{header.size} bytes, byte sum {found.checksum:#04x}")
    if pcir is not None:
        base, sub, interface = pcir.class_code
        table.add_row(
            "PCIR",
            f"at {header.pcir_offset:#x}: {pcir.vendor:04x}:{pcir.device:04x}, "
            f"class {base:02x}{sub:02x}{interface:02x}, code type {pcir.code_type}, "
            f"revision {pcir.code_revision >> 8}.{pcir.code_revision & 0xFF}"
            f"{', last image' if pcir.is_last else ''}",
        )
    if pnp is not None:
        good = "ok" if pnp.checksum_ok else "wrong"
        table.add_row("$PnP", f"at {header.pnp_offset:#x}: {pnp.length} bytes, checksum {good}")
    if found.manufacturer or found.product:
        table.add_row("product", f"{found.manufacturer or '?'} {found.product or '?'}")
    if found.is_vmi:
        table.add_row("VMI", f"API {header.api_major}.{header.api_minor}")
        table.add_row("licence", str(found.license))
        if found.init_result is not None:
            table.add_row("vmi_init", f"answers {found.init_result:#x}")
    return table


def _calls(found: Inspection) -> Table:
    table = Table(title="Calls that are taken over", title_justify="left")
    for column in ("number", "offset"):
        table.add_column(column, justify="right")
    table.add_column("call")
    table.add_column("kind")
    for call in found.calls:
        if call.kind is not RelocationKind.NONE:
            offset = "" if call.offset is None else f"{call.offset:#x}"
            table.add_row(str(call.number), offset, call.name, call.kind.name)
    return table


@click.command(epilog="Example: vmirom inspect batching.rom --json")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def inspect(file: Path, *, as_json: bool) -> None:
    """Show what an option ROM image says; exit status 1 when it has defects."""
    # A file that is no ROM is bad input (status 2), not a ROM with defects.
    try:
        data = file.read_bytes()
    except OSError as error:
        raise BuildError(f"{file}: {error.strerror}") from error
    try:
        found = inspect_rom(data)
    except HeaderError as error:
        raise BuildError(f"{file}: {error}") from error
    if as_json:
        click.echo(json.dumps(_report(file, found)))
    else:
        console = Console()
        console.print(_headers(file, found))
        if found.is_vmi:
            console.print(_calls(found))
        for defect in found.defects:
            console.print(f"defect: {defect.text} \\[{defect.code}]", highlight=False)
        if not found.defects:
            console.print("no defects")
    sys.exit(1 if found.defects else 0)
