"""`vmirom registers`: the registers of a virtual CPU, by id."""

import click

from vmirom.options import as_json
from vmirom.output import plain_table, print_json, stdout
from vmm.core.registerids import REGISTERS, RegisterClass

__all__ = ["registers"]


@click.command(
    epilog="Examples: vmirom registers; vmirom registers --class debug; vmirom registers --json"
)
@click.option(
    "--class",
    "kind",
    type=click.Choice([kind.name.lower() for kind in RegisterClass]),
    help="Those of one class only.",
)
@as_json
def registers(kind: str | None, *, json_output: bool) -> None:
    """List the registers of a virtual CPU: 64-bit id, name, size, class.

    Programs get and set them by id, any number in one call (docs/monitor.md).
    """
    chosen = [
        register
        for register in REGISTERS.values()
        if kind is None or register.kind.name.lower() == kind
    ]
    if json_output:
        print_json(
            {
                "schema": "vmirom.registers/1",
                "registers": [
                    {
                        "id": f"{register.id:#018x}",
                        "name": register.name,
                        "class": register.kind.name.lower(),
                        "bytes": register.size,
                        "bits": register.bits,
                        "writable": register.writable,
                    }
                    for register in chosen
                ],
            }
        )
        return
    table = plain_table("id", "register", "class", "bits", "access")
    for column in (1, 2, 4):
        table.columns[column].justify = "left"
    for register in chosen:
        table.add_row(
            f"{register.id:#018x}",
            register.name,
            register.kind.name.lower(),
            str(register.bits),
            "read, write" if register.writable else "read",
        )
    stdout.print(table)
