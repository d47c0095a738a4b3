"""The core's Python made into C: what of it is made anew, and what becomes of errors."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A core of three modules: `user` knows of `used`, `alone` of nobody."""
    core = tmp_path / "vmm" / "core"
    core.mkdir(parents=True)
    for package in (core.parent, core):
        (package / "__init__.py").touch()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    sources = {
        "used.pxd": "cdef class Used:\n    cdef int number\n",
        "used.py": "class Used:\n    def __init__(self):\n        self.number = 3\n",
        "user.pxd": "from vmm.core.used cimport Used\ncpdef int double(Used used)\n",
        "user.py": "def double(used):\n    return 2 * used.number\n",
        "alone.pxd": "cpdef int answer()\n",
        "alone.py": "def answer():\n    return 1\n",
    }
    for name, text in sources.items():
        (core / name).write_text(text, encoding="ascii")
    return tmp_path


def build(project: Path) -> subprocess.CompletedProcess[str]:
    """Compile the core in place."""
    return subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )


def change(source: Path, text: str) -> None:
    """Write it, as somebody does some seconds after the last build."""
    source.write_text(text, encoding="ascii")
    later = source.stat().st_mtime + 5
    os.utime(source, (later, later))


def translated(project: Path) -> dict[str, int]:
    """When the C code of each module was made."""
    folder = project / "build" / "vmm" / "core"
    return {c_code.stem: c_code.stat().st_mtime_ns for c_code in folder.glob("*.c")}


def test_an_edit_of_a_declaration_translates_all_that_use_it_and_nothing_else(
    project: Path,
) -> None:
    assert build(project).returncode == 0
    before = translated(project)
    assert set(before) == {"_shared", "alone", "used", "user"}
    change(project / "vmm/core/used.pxd", "cdef class Used:\n    cdef long long number\n")
    assert build(project).returncode == 0
    after = translated(project)
    assert {name for name in after if after[name] != before[name]} == {"used", "user"}
    code = "from vmm.core import used, user; print(user.double(used.Used()), user.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, stdout=subprocess.PIPE, text=True, check=True
    )
    answer, file = done.stdout.split()
    assert answer == "6"
    assert file.endswith(".so")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("user.pxd", "from vmm.core.used cimport Nobody\n", "declarations of vmm/core"),
        ("used.pxd", "cdef clas Used:\n", "declarations of vmm/core"),
        ("user.py", "def double(used):\n    yield used.number\n", "user.py"),
        ("alone.py", "def answer(:\n", "alone.py"),
    ],
)
def test_a_mistake_ends_the_build_and_is_told(
    project: Path, name: str, text: str, said: str
) -> None:
    """Only a missing compiler lets the core run interpreted: that is no way out of a mistake."""
    source = project / "vmm/core" / name
    right = source.read_text(encoding="ascii")
    source.write_text(text, encoding="ascii")
    done = build(project)
    assert done.returncode != 0
    assert said in done.stderr
    assert name in done.stderr
    assert "run interpreted" not in done.stderr
    assert "Traceback" not in done.stderr
    source.write_text(right, encoding="ascii")
    assert build(project).returncode == 0
