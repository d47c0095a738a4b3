"""`vmirom engines`: what executes guests here, and what this host can do."""

import click

from vmirom.options import as_json
from vmirom.output import plain_table, print_json, stdout
from vmm.engines import EngineReport, report_engines

__all__ = ["engines"]


@click.command(epilog="Example: vmirom engines --json")
@as_json
def engines(*, json_output: bool) -> None:
    """List the engines and what each can do on this host.

    KVM's abilities are found out by running a few instructions of each kind in virtual machines of
    their own. The exit status is 0 also where an engine cannot be used.
    """
    reports = report_engines()
    if json_output:
        print_json(
            {
                "schema": "vmirom.engines/1",
                "engines": [_to_json(report) for report in reports],
            }
        )
        return
    for report in reports:
        _print(report)


def _to_json(report: EngineReport) -> dict[str, object]:
    return {
        "name": report.name.value,
        "summary": report.summary,
        "available": report.available,
        "refusal": report.refusal or None,
        "abilities": {
            ability.name: {
                "available": ability.available,
                "summary": ability.summary,
                "detail": ability.detail,
            }
            for ability in report.abilities
        },
    }


def _print(report: EngineReport) -> None:
    stdout.print(f"{report.name}: {report.summary}", markup=False)
    if not report.available:
        stdout.print(f"  cannot be used: {report.refusal}", markup=False)
        return
    table = plain_table("ability", "here", "what it is", "how that showed")
    for column in table.columns:
        column.justify = "left"
    for ability in report.abilities:
        here = "yes" if ability.available else "no"
        table.add_row(ability.name, here, ability.summary, ability.detail)
    stdout.print(table)
