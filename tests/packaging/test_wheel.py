"""The wheel works away from the checkout, by way of the source distribution and uncompiled."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
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
HOT = sorted(
    pxd.relative_to(ROOT).with_suffix("")
    for pxd in (ROOT / "vmm" / "core").rglob("*.pxd")
    if pxd.stem != "native"
)
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


@pytest.fixture
def distributed(sources: Path, tmp_path: Path) -> Path:
    """What the source distribution made of `sources` holds, which then go."""
    subprocess.run(
        [sys.executable, "setup.py", "-q", "sdist", "-d", str(tmp_path)],
        cwd=sources,
        capture_output=True,
        check=True,
    )
    shutil.rmtree(sources)
    (archive,) = tmp_path.glob("vmirom-*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    return tmp_path / archive.name.removesuffix(".tar.gz")


@pytest.fixture
def no_cython(tmp_path: Path) -> dict[str, str]:
    """An environment in which to import Cython is an error."""
    (tmp_path / "without" / "Cython").mkdir(parents=True)
    (tmp_path / "without" / "Cython" / "__init__.py").write_text("raise ImportError('no Cython')\n")
    return {"PYTHONPATH": str(tmp_path / "without")}


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
        assert {f"{module}{end}" for end in (".py", ".pxd", SUFFIX)} <= names
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


def check_optimised(c_code: Path) -> None:
    """Each C function is compiled with the options that were asked for, the rest without."""
    asked = True
    functions = spared = 0
    for line in c_code.read_text(encoding="utf-8").splitlines():
        if line.startswith("#pragma GCC"):
            asked = line.endswith("reset_options")
            spared += not asked
        if line.startswith("static ") and "__pyx_f_" in line and line.endswith("{"):
            functions += 1
            assert asked, line
    assert spared, c_code
    assert not asked, c_code
    # The class of a module that others cimport has at least one, but for Cython's own helpers.
    assert functions or c_code.name == "vmm.core._shared.c"


@needs_compiler
def test_the_main_result_away_from_the_checkout(
    distributed: Path, no_cython: dict[str, str], tmp_path: Path
) -> None:
    """By way of the source distribution, which has all of Cython's work done."""
    assert {c_code.name for c_code in (distributed / "translated").glob("*.c")} == {
        "vmm.core._shared.c",
        *(f"{'.'.join(module.parts)}.c" for module in HOT),
    }
    for c_code in (distributed / "translated").glob("*.c"):
        check_optimised(c_code)
    compiled = build_wheel(
        distributed, tmp_path / "wheel", VMIROM_REQUIRE_COMPILED="1", **no_cython
    )
    check_contents(compiled)
    # C code of a source that was edited since is not compiled: it is translated anew.
    edited = distributed / "vmm" / "core" / "code" / "stores.py"
    edited.write_text(edited.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    anew = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "-b", str(tmp_path / "anew")],
        cwd=distributed,
        env={**os.environ, **no_cython},
        capture_output=True,
        text=True,
        check=False,
    )
    assert anew.returncode != 0
    assert "no Cython" in anew.stderr
    shutil.rmtree(distributed)
    binaries = install(compiled, tmp_path / "venv")
    assert origin(binaries, "vmirom").is_relative_to(tmp_path)
    assert origin(binaries, "vmm.core.cpu.vcpu").name == f"vcpu{SUFFIX}"
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
    assert origin(binaries, "vmm.core.cpu.vcpu").name == "vcpu.py"
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
