"""`vmirom inspect`: what an option ROM image says, and what is wrong with it."""

import json
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from rombuilder.disassembly import Routine, disassemble, read_symbols
from rombuilder.errors import BuildError
from rombuilder.inspect import Inspection, inspect_rom
from rombuilder.romfile import OptionImage
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
            "revision": pcir.revision,
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
        "images": [_image_report(image) for image in found.images],
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


def _image_report(image: OptionImage) -> dict[str, object]:
    pcir, efi = image.pcir, image.efi
    return {
        "offset": image.offset,
        "size": image.size,
        "runtime_size": image.runtime_size,
        "code_type": image.code_type,
        "kind": image.kind,
        "pcir": pcir
        and {
            "offset": image.pcir_offset,
            "revision": pcir.revision,
            "vendor": pcir.vendor,
            "device": pcir.device,
            "length": pcir.length,
            "class_code": list(pcir.class_code),
            "image_blocks": pcir.image_blocks,
            "code_revision": pcir.code_revision,
            "last": pcir.is_last,
            "list_offset": pcir.list_offset,
            "runtime_blocks": pcir.runtime_blocks,
            "utility_offset": pcir.utility_offset,
            "clp_offset": pcir.clp_offset,
        },
        "devices": list(image.devices),
        "pnp": [
            {
                "offset": offset,
                "next_offset": header.next_offset,
                "checksum_ok": header.checksum_ok,
                "bootstrap": header.bootstrap,
            }
            for offset, header in image.pnp.items()
        ],
        "efi": efi
        and {
            "machine": efi.machine,
            "subsystem": efi.subsystem,
            "compressed": efi.compressed,
            "image_offset": efi.image_offset,
        },
    }


def _images(found: Inspection) -> Table:
    table = Table(title="Images", title_justify="left")
    for column in ("offset", "size", "at run time"):
        table.add_column(column, justify="right")
    for column in ("kind", "PCIR", "device", "more"):
        table.add_column(column)
    for image in found.images:
        pcir = image.pcir
        more = []
        if image.efi is not None:
            packed = ", compressed" if image.efi.compressed else ""
            more.append(f"{image.efi.machine} {image.efi.subsystem}{packed}")
        if image.devices:
            more.append(f"also for {', '.join(f'{device:04x}' for device in image.devices)}")
        if len(image.pnp) > 1:
            more.append(f"{len(image.pnp)} $PnP headers")
        table.add_row(
            f"{image.offset:#x}",
            str(image.size),
            "" if image.runtime_size is None else str(image.runtime_size),
            image.kind,
            "none" if pcir is None else f"revision {pcir.revision}",
            "" if pcir is None else f"{pcir.vendor:04x}:{pcir.device:04x}",
            "; ".join(more),
        )
    return table


def _code_report(routine: Routine) -> dict[str, object]:
    return {
        "offset": routine.offset,
        "names": list(routine.names),
        "instructions": [
            {"offset": one.offset, "code": one.code.hex(), "text": one.text}
            for one in routine.instructions
        ],
    }


def _print_code(console: Console, routines: list[Routine]) -> None:
    for routine in routines:
        console.print(f"\n{routine.offset:#06x} <{', '.join(routine.names)}>:", markup=False)
        for instruction in routine.instructions:
            console.print(
                f"  {instruction.offset:#06x}  {instruction.code.hex(' '):<24} {instruction.text}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


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


@click.command(
    epilog="Examples: vmirom inspect batching.rom --json; vmirom inspect mine.rom --disassemble"
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--disassemble", "with_code", is_flag=True, help="Show the code of every VMI call.")
@click.option(
    "--symbols",
    "symbol_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="ELF",
    help="Take further names from the ROM's ELF file (vmirom build --elf).",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def inspect(file: Path, symbol_file: Path | None, *, with_code: bool, as_json: bool) -> None:
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
    code: list[Routine] = []
    if with_code:
        symbols = read_symbols(symbol_file) if symbol_file is not None else {}
        code = disassemble(data[: found.header.size], found.routines, symbols)
    if as_json:
        report = _report(file, found)
        if with_code:
            report["code"] = [_code_report(routine) for routine in code]
        click.echo(json.dumps(report))
    else:
        console = Console()
        console.print(_headers(file, found))
        if len(found.images) > 1 or any(image.devices for image in found.images):
            console.print(_images(found))
        if found.is_vmi:
            console.print(_calls(found))
        _print_code(console, code)
        for defect in found.defects:
            console.print(f"defect: {defect.text} \\[{defect.code}]", highlight=False)
        if not found.defects:
            console.print("no defects")
    sys.exit(1 if found.defects else 0)
