"""`vmirom build`: a ROM image from source."""

import json
from pathlib import Path

import click

from rombuilder.errors import BuildError
from rombuilder.replace import load_object
from rombuilder.rom import Calls, Flavour, Rom, Visibility, build_rom
from vmi.header import VMI_DEVICE, VMI_VENDOR
from vmi.queue import DEFAULT_CAPACITY
from vmirom.options import visibility_option
from vmirom.values import Number, PciId, Replacement

__all__ = ["build"]

_SCHEMA = "vmirom.build/1"
_APIC_BASE = "APIC_VIRTUAL_BASE"
"""What rom_src/apic_io.S asks for."""


def _report(rom: Rom, output: Path) -> dict[str, object]:
    return {
        "schema": _SCHEMA,
        "flavour": rom.flavour.value,
        "calls": rom.calls.value,
        "queue": rom.queue if rom.flavour is Flavour.BATCHING else None,
        "visibility": rom.visibility.value if rom.flavour is Flavour.BATCHING else None,
        "timer": rom.timer if rom.flavour is Flavour.BATCHING else None,
        "pci": f"{rom.pci[0]:04x}:{rom.pci[1]:04x}",
        "file": str(output),
        "size": len(rom.data),
        "sha256": rom.sha256,
        "sections": [
            {"name": section.name, "offset": section.address, "size": section.size}
            for section in rom.image.sections
        ],
        "symbols": dict(rom.symbols),
    }


@click.command(
    epilog="Examples: vmirom build -o vmi.rom --map vmi.map; vmirom build --flavour identity; "
    "vmirom build --queue 64 --calls all --json"
)
@click.option(
    "--flavour",
    type=click.Choice([flavour.value for flavour in Flavour]),
    default=Flavour.BATCHING.value,
    show_default=True,
    help="What the ROM does with a call.",
)
@click.option(
    "--queue",
    type=int,
    default=DEFAULT_CAPACITY,
    show_default=True,
    metavar="N",
    help="Capacity of the batch queue, in records.",
)
@click.option(
    "--calls",
    type=click.Choice([calls.value for calls in Calls]),
    help="Calls the ROM takes over.  [default: all for identity, needed for batching]",
)
@visibility_option
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where the image goes.  [default: FLAVOUR.rom]",
)
@click.option(
    "--map",
    "map_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a map of sections and symbols.",
)
@click.option(
    "--elf",
    "elf_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write an ELF file with symbols, for gdb, objdump and profilers.",
)
@click.option(
    "--base",
    type=Number(),
    default=0,
    metavar="ADDRESS",
    help="Where the image lies in the ELF file, e.g. 0xC00C8000 where a guest maps it.  "
    "[default: 0]",
)
@click.option(
    "--timer/--no-timer",
    default=True,
    show_default=True,
    help="Offer the timer calls where the monitor serves alarms: the guest then leaves the "
    "interval timer alone.",
)
@click.option(
    "--pci",
    type=PciId(),
    metavar="VENDOR:DEVICE",
    help="The PCI device (hex) that the image is for, so that firmware takes it from that "
    "device's ROM, e.g. 8086:100e.  [default: 15ad:0801]",
)
@click.option(
    "--apic-base",
    type=Number(),
    metavar="ADDRESS",
    help="Where the one guest that the ROM is for maps its local APIC; without it APICRead and "
    "APICWrite, which Linux calls with an offset, are left to the guest.",
)
@click.option(
    "--object",
    "object_files",
    type=click.Path(dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Link an i386 ELF object, or AT&T source (*.S), with the ROM; may be repeated.",
)
@click.option(
    "--replace",
    "replacements",
    type=Replacement(),
    multiple=True,
    metavar="CALL=SYMBOL",
    help="Have a call served by a function of an --object; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def build(
    flavour: str,
    queue: int,
    calls: str | None,
    visibility: str,
    output: Path | None,
    map_file: Path | None,
    elf_file: Path | None,
    base: int,
    pci: tuple[int, int] | None,
    apic_base: int | None,
    object_files: tuple[Path, ...],
    replacements: tuple[tuple[str, str], ...],
    *,
    timer: bool,
    as_json: bool,
) -> None:
    """Build the VMI ROM from source."""
    rom = build_rom(
        Flavour(flavour),
        queue=queue,
        calls=Calls(calls) if calls else None,
        visibility=Visibility(visibility),
        timer=timer,
        pci=pci or (VMI_VENDOR, VMI_DEVICE),
        objects=[load_object(path) for path in object_files],
        replace=dict(replacements),
        defines={} if apic_base is None else {_APIC_BASE: apic_base},
    )
    output = output or Path(f"{flavour}.rom")
    _write(output, rom.data)
    if map_file is not None:
        _write(map_file, rom.map_text().encode("ascii"))
    if elf_file is not None:
        _write(elf_file, rom.elf(base))
    if as_json:
        click.echo(json.dumps(_report(rom, output)))
    else:
        click.echo(f"{output}: {rom.flavour} ROM, {len(rom.data)} bytes, sha256 {rom.sha256}")


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise BuildError(f"{path}: {error.strerror}") from error
