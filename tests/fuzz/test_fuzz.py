"""The fuzzer finds mistakes that are put into the core, and none in the core as it is."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vmm.core import is_compiled

pytestmark = pytest.mark.skipif(not is_compiled(), reason="the core is not compiled")

FUZZ = Path(__file__).with_name("fuzz.py")
ROOT = FUZZ.parents[2]
TARGETS = 9


def fuzz(
    *arguments: str, folder: Path, core: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    environment = {k: v for k, v in os.environ.items() if k != "VMIROM_INTERPRETED"}
    environment["PYTHONPATH"] = str(core or ROOT)
    return subprocess.run(
        [sys.executable, str(FUZZ), *arguments, "--folder", str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_few_jobs_of_every_target(tmp_path: Path) -> None:
    done = fuzz("--seed", "1", "--rounds", str(2 * TARGETS), folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{2 * TARGETS} jobs in " in done.stdout
    assert done.stdout.startswith("seed 1, ")


@pytest.mark.parametrize(
    ("module", "right", "wrong", "target", "rounds"),
    [
        ("code/lengths.py", "(0xC8, 0xC8): 0x0A", "(0xC8, 0xC8): 0x08", "lengths", 20),
        ("ports/filtervm.py", "a = a - b", "a = a - b + (b > a)", "filters", 2000),
        ("code/fetch.py", "address += self.dword(after)\n        return", "return", "stores", 60),
        ("paravirt/batch.py", "DRAINED_SLOT if i < in_flight else 0", "0", "queue", 60),
    ],
)
def test_a_mistake_in_one_execution_is_found_cut_down_and_repeated(
    tmp_path: Path, module: str, right: str, wrong: str, target: str, rounds: int
) -> None:
    """The interpreted core reads its sources, so that a mistake there is in it alone."""
    tree = tmp_path / "tree"
    for package in ("vmi", "vmm", "linker", "rombuilder", "rom_src"):
        shutil.copytree(ROOT / package, tree / package)
    source = tree / "vmm/core" / module
    text = source.read_text()
    assert text.count(right) == 1
    source.write_text(text.replace(right, wrong))
    limits = ("--target", target, "--seed", "1", "--rounds", str(rounds))
    found = fuzz(*limits, "--most", "1", folder=tmp_path / "found", core=tree)
    assert found.returncode == 1, found.stdout + found.stderr
    (file,) = (tmp_path / "found").glob(f"{target}-*.json")
    assert 1 <= len(json.loads(file.read_text())["parts"]) <= 12
    repeat = ("--repeat", str(file))
    assert fuzz(*repeat, folder=tmp_path, core=tree).returncode == 1
    assert fuzz(*repeat, folder=tmp_path).returncode == 0
