"""The core runs compiled or interpreted as a whole: the two do not mix."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vmm.core import is_compiled

ROOT = Path(__file__).resolve().parents[3]
HOT = [
    ".".join(pxd.relative_to(ROOT).with_suffix("").parts)
    for pxd in sorted((ROOT / "vmm/core").rglob("*.pxd"))
    if pxd.stem != "native"
]


@pytest.mark.parametrize("interpreted", ["0", "1"])
def test_every_hot_module_runs_as_the_others_do(interpreted: str) -> None:
    code = f"import importlib; [print(importlib.import_module(m).__file__) for m in {HOT}]"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "VMIROM_INTERPRETED": interpreted},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert len(HOT) > 40
    ends = {Path(file).suffix for file in done.stdout.split()}
    assert ends == ({".py"} if interpreted == "1" or not is_compiled() else {".so"})
