"""`vmirom devices`, `--device`, and the device of docs/howto-device.md as another package."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

ROOT = Path(__file__).resolve().parents[2]
HOWTO = (ROOT / "docs" / "howto-device.md").read_text(encoding="utf-8")
MOST_LINES = 40

Run = Callable[..., Result]
Json = dict[str, Any]


def block(file: str) -> str:
    found = re.search(
        rf"^`{re.escape(file)}`:\n\n```\w+\n(.*?)^```", HOWTO, re.MULTILINE | re.DOTALL
    )
    assert found is not None
    return found[1]


def install(folder: Path, package: str, points: dict[str, str]) -> None:
    """What pip leaves behind of a package, as far as entry points need it."""
    about = folder / f"{package}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{name} = {value}\n" for name, value in points.items()]
    (about / "entry_points.txt").write_text("[vmirom.devices]\n" + "".join(lines))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("hwrandom", None)


@pytest.fixture
def howto(site: Path) -> Path:
    """The how-to's package installed, and its guest's source."""
    project = tomllib.loads(block("pyproject.toml"))
    install(site, project["project"]["name"], project["project"]["entry-points"]["vmirom.devices"])
    (site / "hwrandom.py").write_text(block("hwrandom.py"))
    guest = site / "reader.S"
    guest.write_text(block("reader.S"))
    return guest


def test_the_device_of_the_howto_is_short() -> None:
    assert block("hwrandom.py").count("\n") < MOST_LINES


def test_the_device_of_the_howto_works(
    howto: Path, run: Run, run_json: Callable[..., Json]
) -> None:
    said = re.search(r"--device random` prints `([^`]*)`", HOWTO)
    assert said is not None
    first = run_json("run", str(howto), "--device", "random")
    assert said[1] in first["console"]
    again = run_json("run", str(howto), "--device", "random,seed=0x1")
    assert again["console"] == first["console"]
    assert run_json("run", str(howto), "--device", "random,seed=7")["console"] != first["console"]
    compared = run("compare", str(howto), "--device", "random")
    assert compared.exit_code == 0, compared.output
    row = next(row for row in run_json("devices")["devices"] if row["name"] == "random")
    assert row == {
        "name": "random",
        "source": "hwrandom",
        "summary": "Random numbers, the same ones for the same seed",
        "ports": ["0x600-0x603"],
        "memory": [],
        "lines": [],
        "options": {"seed": 1},
        "error": None,
    }


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("rnd", "device 'rnd': expected one of random"),
        ("random,seed", "'seed': expected key=value, each key once"),
        ("random,seed=1,seed=2", "'seed=2': expected key=value, each key once"),
        ("random,seed=x", "device random: option seed=x: expected a number, decimal or with 0x"),
        ("random,speed=9", "device random: option 'speed': expected one of seed"),
        ("random,seed=0", "device random: making it: ValueError: seed 0: expected 1 to 0xffffffff"),
    ],
)
def test_what_cannot_be_asked_for(howto: Path, run: Run, asked: str, said: str) -> None:
    result = run("run", str(howto), "--device", asked)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


def test_without_packages(run: Run, run_json: Callable[..., Json]) -> None:
    rows = {row["name"]: row for row in run_json("devices")["devices"]}
    assert (rows["com1"]["ports"], rows["com1"]["lines"]) == (["0x3f8-0x3ff"], [4])
    assert rows["ioapic"]["memory"] == ["0xfec00000-0xfec00fff"]
    assert "0x1f0-0x1f7, 0x3f6" in run("devices").stdout
    assert "no package brings one along" in run("run", "probe", "--device", "random").stderr


def test_a_broken_package_is_named(site: Path, run: Run, howto: Path) -> None:
    install(site, "broken", {"gone": "nowhere:Device", "odd": "json:dumps", "random": "json:loads"})
    result = run("devices")
    assert result.exit_code == 1
    errors = " ".join(result.stderr.split())
    assert "device 'gone' of package broken cannot be loaded from nowhere:Device" in errors
    assert "device 'odd' of package broken: json:dumps is <function dumps" in errors
    twice = run("run", str(howto), "--device", "random")
    assert twice.exit_code == 2
    assert "in several packages: broken and hwrandom" in " ".join(twice.stderr.split())


def test_a_device_that_fails_ends_the_run(howto: Path, run: Run) -> None:
    source = howto.with_name("hwrandom.py")
    source.write_text(source.read_text().replace("return self.number\n", "return 1 // 0\n", 1))
    result = run("run", str(howto), "--device", "random")
    assert result.exit_code == 1
    errors = " ".join(result.stderr.split())
    assert "device_failure: device random: read of 4 at port 0x600: ZeroDivisionError" in errors
    assert "Traceback" not in result.output


def test_the_ioapic_in_a_process_of_its_own(run: Run, run_json: Callable[..., Json]) -> None:
    here = run_json("run", "probe", "--apic")
    there = run_json("run", "probe", "--apic", "--ioapic-process")
    assert here["exits"] == there["exits"]
    refused = run("run", "probe", "--ioapic-process")
    assert refused.exit_code == 2
    assert "there is no I/O APIC; expected --apic or --cpus" in " ".join(refused.stderr.split())
