"""`vmirom check`: does a VMI ROM do what the native instructions do?"""

import sys
from pathlib import Path

import click

from rombuilder.conformance.check import DEFAULT_SEED, DEFAULT_STATES, Report, check_rom
from rombuilder.conformance.findings import Finding
from rombuilder.errors import BuildError
from vmi.header import HeaderError
from vmirom.output import number, print_json, progress, stdout

__all__ = ["check"]

_SCHEMA = "vmirom.check/1"


def _finding_json(finding: Finding) -> dict[str, object]:
    return {**finding.as_dict(), "rule": finding.rule, "source": finding.source}


def _json(path: Path, report: Report) -> dict[str, object]:
    return {
        "schema": _SCHEMA,
        "file": str(path),
        "sha256": report.sha256,
        "seed": report.seed,
        "states": report.states,
        "loads": list(report.loads),
        "runs": report.runs,
        "conformant": report.conformant,
        "calls": [
            {
                "number": call.number,
                "name": call.name,
                "kind": call.kind.name,
                "offset": call.offset,
            }
            for call in report.calls
        ],
        "findings": [_finding_json(finding) for finding in report.findings],
    }


def _show(path: Path, report: Report) -> None:
    for finding in report.findings:
        where = "" if finding.load is None else f", image at {finding.load:#x}"
        stdout.print(f"{finding.code}: {finding.text}{where}", markup=False)
        stdout.print(f"  rule    {finding.rule}", markup=False)
        stdout.print(f"  source  {finding.source}", markup=False)
        if finding.seed:
            values = " ".join(f"{name}={value}" for name, value in finding.state.items())
            stdout.print(f"  state   {finding.seed}: {values}", markup=False)
    checked = (
        f"{number(len(report.calls))} calls at {number(len(report.loads))} load addresses, "
        f"{number(report.runs)} runs, seed {report.seed}"
    )
    verdict = "conformant" if report.conformant else f"{number(len(report.findings))} findings"
    stdout.print(f"{path}: {verdict} ({checked})", markup=False)


@click.command(
    epilog="Examples: vmirom check batching.rom; vmirom check batching.rom --seed 7 --json"
)
@click.argument("rom", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--seed",
    type=int,
    default=DEFAULT_SEED,
    show_default=True,
    help="Makes the random states; the same seed makes the same ones.",
)
@click.option(
    "--states",
    type=click.IntRange(1, 10_000),
    default=DEFAULT_STATES,
    show_default=True,
    metavar="N",
    help="States for each call, at each load address.",
)
@click.option("--json", "json_output", is_flag=True, help="Print one JSON object.")
def check(rom: Path, seed: int, states: int, *, json_output: bool) -> None:
    """Compare every call of a VMI ROM with the native instruction.

    Exit status 0: conformant. 1: there are findings. 2: no VMI ROM.
    """
    try:
        data = rom.read_bytes()
    except OSError as error:
        raise BuildError(f"{rom}: {error.strerror}") from error
    try:
        with progress() as tell:
            report = check_rom(data, seed=seed, states=states, progress=tell)
    except HeaderError as error:
        raise BuildError(f"{rom}: {error}") from error
    if json_output:
        print_json(_json(rom, report))
    else:
        _show(rom, report)
    sys.exit(0 if report.conformant else 1)
