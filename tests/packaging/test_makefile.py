"""What `make` promises: clear words about Python, and edits of the core that count."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")

MAKE = shutil.which("make")

needs_make = pytest.mark.skipif(MAKE is None, reason="make is not installed")
needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    return subprocess.run(
        [str(MAKE), "-C", str(folder), "-f", str(ROOT / "Makefile"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@needs_make
def test_an_old_python_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "setup.py").touch()
    old = tmp_path / "old-python"
    # What it is asked runs in this interpreter, with another version to look at.
    old.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c "
        '"import sys; sys.version_info = (3, 9, 2); exec(sys.argv[1])" "$2"\n',
        encoding="ascii",
    )
    old.chmod(0o755)
    done = make(tmp_path, "demo", f"PYTHON={old}")
    assert done.returncode != 0
    assert f"needs Python 3.11 or newer, and {old} is 3.9" in done.stderr
    assert not (tmp_path / ".venv").exists()


@needs_make
@needs_compiler
def test_an_edit_of_a_hot_module_is_compiled(tmp_path: Path) -> None:
    """A small project with this one's setup.py and Makefile: two makes with an edit between."""
    core = tmp_path / "vmm" / "core"
    core.mkdir(parents=True)
    (core.parent / "__init__.py").touch()
    (core / "__init__.py").touch()
    (core / "answer.pxd").write_text("cpdef int answer()\n", encoding="ascii")
    source = core / "answer.py"
    source.write_text("def answer():\n    return 1\n", encoding="ascii")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "vmirom").mkdir()
    for name in ("__init__.py", "version.py"):
        shutil.copy(ROOT / "vmirom" / name, tmp_path / "vmirom")
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    python = binaries / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n', encoding="ascii")
    python.chmod(0o755)
    (tmp_path / ".venv" / ".installed").touch()

    def answer() -> int:
        done = make(tmp_path, ".venv/.compiled")
        assert done.returncode == 0, done.stderr
        built = core / f"answer{SUFFIX}"
        code = "from vmm.core.answer import answer; print(answer())"
        assert built.exists()
        result = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return int(result.stdout)

    assert answer() == 1
    source.write_text("def answer():\n    return 22\n", encoding="ascii")
    later = source.stat().st_mtime + 5
    os.utime(source, (later, later))
    assert answer() == 22
    before = (core / f"answer{SUFFIX}").stat().st_mtime_ns
    os.utime(tmp_path / ".venv" / ".compiled", (later + 1, later + 1))
    assert answer() == 22
    assert (core / f"answer{SUFFIX}").stat().st_mtime_ns == before


def test_the_core_in_use_is_not_older_than_its_source() -> None:
    """A compiled module that an edit has left behind would make every other test a lie."""
    for pxd in (ROOT / "vmm" / "core").rglob("*.pxd"):
        spec = importlib.util.find_spec(".".join(pxd.relative_to(ROOT).with_suffix("").parts))
        assert spec is not None
        assert spec.origin is not None
        used = Path(spec.origin)
        if used.suffix == ".so" and used.parent == pxd.parent:
            assert used.stat().st_mtime >= pxd.with_suffix(".py").stat().st_mtime, used.name
