"""`vmirom guests` and `vmirom policies`: what there is."""

import click

from rombuilder.guest import guest_names, guest_summary
from vmirom.options import as_json
from vmirom.output import plain_table, print_json, stdout
from vmm.core.policy import INTERCEPTS, POLICIES

__all__ = ["guests", "policies"]


@click.command(epilog="Example: vmirom guests --json")
@as_json
def guests(*, json_output: bool) -> None:
    """List the built-in guests."""
    rows = [(name, guest_summary(name)) for name in guest_names()]
    if json_output:
        print_json(
            {
                "schema": "vmirom.guests/1",
                "guests": [{"name": name, "summary": summary} for name, summary in rows],
            }
        )
        return
    _print_rows("guest", rows)


@click.command(epilog="Example: vmirom policies --json")
@as_json
def policies(*, json_output: bool) -> None:
    """List the policies: which events the modelled processor exits on."""
    if json_output:
        print_json(
            {
                "schema": "vmirom.policies/1",
                "policies": [
                    {
                        "name": policy.name,
                        "summary": policy.summary,
                        "shadow": policy.shadow,
                        "fault_mask": policy.fault_mask,
                        "unsync": policy.unsync,
                        "exits": sorted(event.name.lower() for event in policy.exits),
                    }
                    for policy in POLICIES
                ],
                "intercepts": sorted(INTERCEPTS),
            }
        )
        return
    _print_rows("policy", [(policy.name, policy.summary) for policy in POLICIES])
    for policy in POLICIES:
        exits = ", ".join(sorted(event.name.lower() for event in policy.exits))
        stdout.print(f"{policy.name} exits on {exits}", markup=False)
    stdout.print(
        f"--intercept takes + or - and one of {', '.join(sorted(INTERCEPTS))}", markup=False
    )


def _print_rows(what: str, rows: list[tuple[str, str]]) -> None:
    table = plain_table(what, "what it is")
    table.columns[1].justify = "left"
    for row in rows:
        table.add_row(*row)
    stdout.print(table)
