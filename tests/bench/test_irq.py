"""Exits of an interrupt, by its way to the processor: exact, and what each way is for."""

import json

import pytest
from click.testing import CliRunner

from bench.irq import IrqCost, Route, measure_irq
from vmirom.main import cli


@pytest.fixture(scope="module")
def rows() -> dict[tuple[Route, bool], IrqCost]:
    return {(row.route, row.rom_calls): row for row in measure_irq(50)}


def test_what_one_interrupt_costs(rows) -> None:
    costs = {key: (row.exits, row.light, row.heavy) for key, row in rows.items()}
    # Being interrupted is one exit; the end is a device's, the core's, or nobody's.
    assert costs == {
        (Route.PIC, False): (2, 1, 1),
        (Route.IOAPIC, False): (2, 2, 0),
        (Route.IOAPIC, True): (1, 1, 0),
        (Route.MSI, False): (2, 2, 0),
        (Route.MSI, True): (1, 1, 0),
    }
    assert rows[Route.PIC, False].by_reason == {"interrupt": 1, "io": 1}
    assert rows[Route.MSI, False].by_reason == {"interrupt": 1, "mmio": 1}
    assert rows[Route.MSI, True].by_reason == {"interrupt": 1}


def test_it_repeats(rows) -> None:
    assert measure_irq(50) == list(rows.values())


def test_the_table_and_the_json_say_the_same() -> None:
    result = CliRunner().invoke(cli, ["bench", "irq", "--interrupts", "20", "--json"])
    answer = json.loads(result.output)
    assert [(row["route"], row["rom_calls"], row["exits_each"]) for row in answer["rows"]] == [
        ("PIC", False, 2),
        ("IOAPIC", False, 2),
        ("IOAPIC", True, 1),
        ("MSI", False, 2),
        ("MSI", True, 1),
    ]
    table = CliRunner().invoke(cli, ["bench", "irq", "--interrupts", "20"]).output
    assert "ROM call" in table
    assert "io 1.00" in table
