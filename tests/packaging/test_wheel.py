"""The wheel works away from the checkout, compiled and not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
NOT_SOURCES = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "*.egg-info", "*.so", "__pycache__", ".*_cache", ".hypothesis"
)
HOT = sorted(p.stem for p in (ROOT / "vmm" / "core").glob("*.pxd") if p.stem != "native")
NO_COMPILER = {"CC": "/bin/false"}

needs_compiler = pytest.mark.skipif(
    shutil.which("cc") is None and shutil.which("gcc") is None, reason="there is no C compiler"
)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the sources, as they are and not as they were committed."""
    folder = tmp_path / "sources"
    shutil.copytree(ROOT, folder, ignore=NOT_SOURCES)
    return folder


def build_wheel(sources: Path, target: Path, **environment: str) -> Path:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"),
            *("--no-index", "-w", str(target), str(sources)),
        ],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    (wheel,) = target.glob("vmirom-*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """A new environment: the project from the wheel, its dependencies from this one."""
    venv.create(folder, with_pip=False)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"),
            *("--prefix", str(folder), "--ignore-installed", str(wheel)),
        ],
        check=True,
    )
    dependencies = packages / "_dependencies"
    dependencies.mkdir()
    for name in ("purelib", "platlib"):
        for item in Path(sysconfig.get_path(name)).iterdir():
            link = dependencies / item.name
            ours = "vmirom" in item.name or item.suffix == ".pth" or (ROOT / item.name).is_dir()
            if not ours and not link.exists():
                link.symlink_to(item)
    (packages / "dependencies.pth").write_text(f"{dependencies}\n", encoding="utf-8")
    return folder / "bin"


def run(binaries: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The installed command, with nothing of the checkout in sight."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VMIROM"))}
    return subprocess.run(
        [str(binaries / "python"), "-I", "-m", "vmirom", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def origin(binaries: Path, module: str) -> Path:
    code = f"import {module}; print({module}.__file__)"
    done = subprocess.run(
        [str(binaries / "python"), "-I", "-c", code],
        cwd=binaries,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return Path(done.stdout.strip())


def compared(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_contents(compiled: Path) -> None:
    names = set(zipfile.ZipFile(compiled).namelist())
    for module in HOT:
        assert {f"vmm/core/{module}{end}" for end in (".py", ".pxd", SUFFIX)} <= names
    for package in ("vmi", "linker", "rombuilder", "vmm", "bench", "vmirom"):
        assert f"{package}/py.typed" in names
        for source in (ROOT / package).rglob("*.py"):
            assert source.relative_to(ROOT).as_posix() in names
    for models in (ROOT / "bench" / "costs").glob("*.toml"):
        assert models.relative_to(ROOT).as_posix() in names
    for folder in ("rom_src", "guests"):
        for source in (ROOT / folder).rglob("*.*"):
            assert f"rombuilder/_sources/{source.relative_to(ROOT).as_posix()}" in names
    # What Cython makes stays out; the reference loop of a benchmark is source.
    assert [name for name in names if name.endswith(".c")] == ["bench/kvmloop.c"]
    assert not [name for name in names if name.startswith("tests/")]
    assert any(name.endswith("/licenses/LICENSE") for name in names)


@needs_compiler
def test_the_main_result_away_from_the_checkout(sources: Path, tmp_path: Path) -> None:
    compiled = build_wheel(sources, tmp_path / "wheel", VMIROM_REQUIRE_COMPILED="1")
    check_contents(compiled)
    shutil.rmtree(sources)
    binaries = install(compiled, tmp_path / "venv")
    assert origin(binaries, "vmirom").is_relative_to(tmp_path)
    assert origin(binaries, "vmm.core.vcpu").name == f"vcpu{SUFFIX}"
    done = run(binaries, tmp_path, "compare", "forkstorm", "--json")
    value = compared(done)
    assert done.stderr == ""
    assert [one["outcome"] for one in value["runs"]] == ["passed"] * 3
    assert value["saved"][1]["exits"] == 0
    assert value["saved"][2]["percent"] >= 80
    assert value["saved"][2]["by_reason"]["pte_write"]["percent"] >= 95
    here = subprocess.run(
        [sys.executable, "-m", "vmirom", "compare", "forkstorm", "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
    )
    assert value == json.loads(here.stdout)


def test_without_a_compiler_it_runs_interpreted(sources: Path, tmp_path: Path) -> None:
    interpreted = build_wheel(sources, tmp_path / "wheel", **NO_COMPILER)
    names = zipfile.ZipFile(interpreted).namelist()
    assert not [name for name in names if name.endswith(".so")]
    binaries = install(interpreted, tmp_path / "venv")
    assert origin(binaries, "vmm.core.vcpu").name == "vcpu.py"
    small = ("--append", "rounds=1 pages=16", "--json")
    done = run(binaries, tmp_path, "compare", "pagefault", *small)
    value = compared(done)
    assert [one["outcome"] for one in value["runs"]] == ["passed"] * 3
    assert len(done.stderr.splitlines()) == 1
    assert "not compiled" in done.stderr
    here = subprocess.run(
        [sys.executable, "-m", "vmirom", "compare", "pagefault", *small],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
    )
    assert value == json.loads(here.stdout)
    # What does not run a machine has no need to say so.
    assert run(binaries, tmp_path, "guests").stderr == ""


def test_a_compiler_can_be_demanded(sources: Path, tmp_path: Path) -> None:
    environment = {**os.environ, **NO_COMPILER, "VMIROM_REQUIRE_COMPILED": "1"}
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "-b", str(tmp_path)],
        cwd=sources,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "/bin/false" in done.stderr
