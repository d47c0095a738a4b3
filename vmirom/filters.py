"""`vmirom filters`: the port filters that come along, or whether a file is one."""

import sys

import click

from vmirom.options import as_json
from vmirom.output import number, plain_table, print_json, stderr, stdout
from vmm.filters import FilterProgram, RejectedFilter, load_filter, shipped_filters, verify

__all__ = ["filters"]


@click.command(epilog="Examples: vmirom filters; vmirom filters my.bpf my.o --json")
@click.argument("names", nargs=-1, metavar="[NAME|FILE]...")
@as_json
def filters(names: tuple[str, ...], *, json_output: bool) -> None:
    """List the port filters that come along, or verify those in files.

    A filter is an eBPF program that answers reads of its ports in the core; a file is
    an ELF object or source text. The exit status is 1 if any was rejected.
    """
    verdicts = [_judge(load_filter(name)) for name in names or shipped_filters()]
    if json_output:
        print_json(
            {
                "schema": "vmirom.filters/1",
                "filters": [
                    {
                        "name": program.name,
                        "ports": [str(ports) for ports in program.ports],
                        "instructions": len(program.code),
                        "state_bytes": len(program.state),
                        "longest_run": longest,
                        "rejected": None
                        if rejected is None
                        else {
                            "instruction": rejected.index,
                            "text": rejected.instruction,
                            "reason": rejected.reason,
                        },
                    }
                    for program, longest, rejected in verdicts
                ],
            }
        )
    else:
        _print(verdicts)
    if any(rejected is not None for _, _, rejected in verdicts):
        sys.exit(1)


_Judged = tuple[FilterProgram, int | None, RejectedFilter | None]


def _judge(program: FilterProgram) -> _Judged:
    try:
        return program, verify(program), None
    except RejectedFilter as rejected:
        return program, None, rejected


def _print(verdicts: list[_Judged]) -> None:
    table = plain_table("filter", "reads of ports", "instructions", "longest run", "state, bytes")
    for program, longest, _ in verdicts:
        table.add_row(
            program.name,
            ", ".join(map(str, program.ports)),
            number(len(program.code)),
            "rejected" if longest is None else number(longest),
            number(len(program.state)),
        )
    stdout.print(table)
    for _, _, rejected in verdicts:
        if rejected is not None:
            stderr.print(f"vmirom: {rejected}", markup=False)
