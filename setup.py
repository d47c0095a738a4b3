"""Compile the core's hot path and carry the assembly sources in the wheel.

The hot path is the modules of vmm/core that have a .pxd beside them: ordinary Python
that Cython compiles as it stands. Without a C compiler the package installs all the
same and runs interpreted, more slowly; with VMIROM_REQUIRE_COMPILED=1 in the
environment that is an error instead.

A source distribution carries the C code that Cython made, and the build spends gcc's
optimiser on what runs while a guest does: together a third of the time it took.

VMIROM_SANITIZE=address,undefined in the environment builds it with gcc's sanitizers, for
`make sanitize` (docs/hardening.md). Such a core runs only in an interpreter that has loaded
their run-time library first, so it never goes beside the sources.
"""

import gc
import hashlib
import multiprocessing
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from math import inf
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist
from setuptools.errors import BaseError, CCompilerError, OptionError

HOT = sorted(pxd.with_suffix("") for pxd in Path("vmm/core").rglob("*.pxd") if pxd.stem != "native")
"""native.pxd holds types, no code."""

SHARED = "vmm.core._shared"
"""Cython's own helpers, compiled once for all: half of the time that a build takes."""

# What is compiled, each with its sources.
CORE = [(SHARED, []), *((".".join(module.parts), [f"{module}.py"]) for module in HOT)]

JOBS = os.cpu_count() or 1

SANITIZERS = os.environ.get("VMIROM_SANITIZE", "")
"""What to give to -fsanitize, or nothing."""

# Parts of Cython's own code that the core has no use for: a tenth of gcc's time.
SPARED = [
    "-DCYTHON_VECTORCALL_TPNEW=0",
    "-DCYTHON_USE_PYLONG_INTERNALS=0",
    "-DCYTHON_COMPRESS_STRINGS=0",
]
# -w alone keeps warnings back, which gcc looks for all the same: a ninth of its time.
QUIET = ["-w", "-Wno-all"]
OPTIMISED = ["-O2", "-fwrapv", "-g0", *QUIET, *SPARED]
# Whatever a sanitizer finds ends the process. -fwrapv stays: the core relies on it.
SANITIZED = [
    "-O1", "-fwrapv", "-g1", *QUIET, "-fno-omit-frame-pointer",
    f"-fsanitize={SANITIZERS}", "-fno-sanitize-recover=all", *SPARED,
]  # fmt: skip
DIRECTIVES = {
    "language_level": "3",
    "boundscheck": True,
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    # Nobody pickles or introspects the core.
    "auto_pickle": False,
    "binding": False,
    # They advise against the bounds checks.
    "show_performance_hints": False,
}

CARRIED = Path("translated")
"""Where a source distribution has the C code, and what it was made of."""

# A third of the C code are the bodies of C functions, and all that a guest's exits run. The
# rest serves Python's calls, makes types and modules, and reports errors: at -O2 it takes
# three fifths of gcc's time, for nothing that could be measured. Clang skips the pragmas.
WRAPPER = "/* Python wrapper */"
TAIL = "/* #### Code section: module_exttypes ### */"
PLAIN = '#pragma GCC optimize("O0")\n'
AS_ASKED = "#pragma GCC reset_options\n"


def spare_optimiser(c_code: Path) -> None:
    """Have gcc optimise only the C functions of what Cython made; what has been done stays."""
    text = c_code.read_text(encoding="utf-8")
    if PLAIN in text:
        return
    lines = []
    spared = False
    for line in text.splitlines(keepends=True):
        if not spared and line.startswith((WRAPPER, TAIL)):
            lines.append(PLAIN)
            spared = True
        elif spared and line.startswith("static ") and "__pyx_f_" in line and line.endswith("{\n"):
            lines.append(AS_ASKED)
            spared = False
        lines.append(line)
    c_code.write_text("".join(lines), encoding="utf-8")


def translate(extensions: list[Extension]) -> None:
    """Make C of the Python sources of `extensions`, where it is not up to date.

    As cythonize does, but for one thing: that analyses the declarations (.pxd) a module uses
    anew for each module, half of its time. Here they are analysed once, and each module is
    translated in a process that begins from there: no module sees what another one adds.
    """
    # Metadata is made without Cython.
    from Cython.Build.Dependencies import create_dependency_tree  # noqa: PLC0415
    from Cython.Compiler import Errors, Main  # noqa: PLC0415
    from Cython.Utils import file_generated_by_this_cython  # noqa: PLC0415

    options = Main.CompilationOptions(
        compiler_directives=DIRECTIVES, include_path=["."], shared_utility_qualified_name=SHARED
    )
    declared = Main.Context.from_options(options)
    newest_of = create_dependency_tree(declared, quiet=True).newest_dependency

    def translate_one(name: str, source: str, c_code: Path) -> None:
        if name == SHARED:
            make_shared()
        elif Main.compile_single(
            source, Main.CompilationOptions(options, output_file=str(c_code)), name, None, declared
        ).num_errors:
            raise SystemExit(f"{source} cannot be translated")
        spare_optimiser(c_code)

    outdated = []
    for extension in extensions:
        source = "".join(extension.sources)
        c_code = Path("build", *extension.name.split(".")).with_suffix(".c")
        c_code.parent.mkdir(parents=True, exist_ok=True)
        if not file_generated_by_this_cython(str(c_code)) or (
            source and c_code.stat().st_mtime < newest_of(source)[0]
        ):
            outdated.append((extension.name, source, c_code))
        extension.sources = [str(c_code)]
    gc.disable()  # There is little garbage to find, and looking takes a tenth of the time.
    Errors.open_listing_file(None)  # On stderr.
    for name, source, _ in outdated:
        if source:
            declared.find_module(name)
    if Errors.get_errors_count():
        raise SystemExit("the declarations of vmm/core cannot be analysed")
    # The longest first: the last ones to end do so together.
    outdated.sort(key=lambda task: -Path(task[1]).stat().st_size if task[1] else -inf)
    run_apart(translate_one, outdated)


def make_shared() -> None:
    """Make C of what all modules share of Cython."""
    from Cython.Build import cythonize  # noqa: PLC0415 - metadata is made without

    cythonize(
        [Extension(SHARED, [])],
        build_dir="build",
        compiler_directives=DIRECTIVES,
        shared_utility_qualified_name=SHARED,
    )


def run_apart(function: Callable[..., None], tasks: list[tuple]) -> None:
    """Call `function` with each of `tasks` in a process of its own, one for each processor.

    Raises SystemExit if one of them failed; it has said why.
    """
    fork = multiprocessing.get_context("fork")
    waiting = tasks[::-1]
    running: dict[int, ForkProcess] = {}
    while waiting or running:
        while waiting and len(running) < JOBS:
            process = fork.Process(target=function, args=waiting.pop())
            process.start()
            running[process.sentinel] = process
        for ended in wait(list(running)):
            process = running.pop(ended)
            process.join()
            if process.exitcode:
                raise SystemExit(process.exitcode)


def fingerprint() -> str:
    """What C code depends on: the core's sources, and how this file has them translated."""
    core = Path("vmm/core")
    sources = sorted([*core.rglob("*.py"), *core.rglob("*.pxd"), Path("setup.py")])
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def use_carried(extensions: list[Extension]) -> bool:
    """Compile the C code that came along, unless a source was edited since: False."""
    made_of = CARRIED / "sources.sha256"
    if not made_of.is_file() or made_of.read_text(encoding="ascii") != fingerprint():
        return False
    for extension in extensions:
        extension.sources = [str(CARRIED / f"{extension.name}.c")]
    return True


class BuildCore(build_ext):
    """Compile every hot module, or none: compiled and interpreted ones do not mix."""

    def finalize_options(self) -> None:
        """Use every processor; translation and compilation both take long enough."""
        super().finalize_options()
        self.parallel = self.parallel or JOBS
        if SANITIZERS and (self.inplace or self.editable_mode):
            raise OptionError("VMIROM_SANITIZE builds into a tree of its own: not in place")

    def run(self) -> None:
        """Build in one folder for editable installs and for `build_ext --inplace`.

        So that the second recompiles nothing that the first has compiled.
        """
        if self.inplace or self.editable_mode:
            self.inplace = True
            self.build_lib, self.build_temp = "build/inplace", "build/temp"
        super().run()

    def build_extensions(self) -> None:
        """Translate to C where it has not come along, then compile."""
        try:
            self._try_compiler()
            if not use_carried(self.extensions):
                translate(self.extensions)
            self._read_header_once()
            # The longest first here, too.
            self.extensions.sort(key=lambda extension: -Path(extension.sources[0]).stat().st_size)
            super().build_extensions()
        except (BaseError, CCompilerError) as error:
            if os.environ.get("VMIROM_REQUIRE_COMPILED") == "1":
                raise
            self.warn(f"the core is not compiled and will run interpreted: {error}")
            self._remove_compiled()

    def copy_extensions_to_source(self) -> None:
        """Copy what was compiled; what an earlier build left there must not stay."""
        for extension in self.extensions or self.distribution.ext_modules:
            Path(self.get_ext_filename(extension.name)).unlink(missing_ok=True)
        super().copy_extensions_to_source()

    def _try_compiler(self) -> None:
        """Raises what the core would, before seconds have gone into its translation."""
        probe = Path(self.build_temp) / "probe.c"
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_text("int probe;\n", encoding="ascii")
        self.compiler.compile([str(probe)], str(probe.parent))

    def _read_header_once(self) -> None:
        """Have gcc read Python.h once for all modules, a third of what it reads.

        A compiler that cannot, or that does not take it up, reads it each time as ever.
        """
        header = Path(self.build_temp).absolute() / "prefix.h"
        header.write_text('#define PY_SSIZE_T_CLEAN\n#include "Python.h"\n', encoding="ascii")
        folders = [f"-I{folder}" for folder in (*self.include_dirs, *self.compiler.include_dirs)]
        options = [*folders, *self.extensions[0].extra_compile_args]
        with suppress(BaseError):
            self.spawn([
                *self.compiler.compiler_so, *options, "-x", "c-header", str(header),
                "-o", f"{header}.gch",
            ])  # fmt: skip
        for extension in self.extensions:
            extension.extra_compile_args = [*extension.extra_compile_args, "-include", str(header)]

    def _remove_compiled(self) -> None:
        for extension in self.extensions:
            Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
        self.extensions = []


class BuildSources(build_py):
    """Copy the assembly sources beside the package that assembles them."""

    def run(self) -> None:
        """Not for an editable install: there they are beside it already."""
        super().run()
        if self.editable_mode:
            return
        for folder in ("rom_src", "guests"):
            target = Path(self.build_lib) / "rombuilder" / "_sources" / folder
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(folder, target)


class DistributeSources(sdist):
    """Add the C code: whoever installs it need not wait for Cython."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Put it beside the sources, none of it into the checkout."""
        super().make_release_tree(base_dir, files)
        extensions = [Extension(name, sources) for name, sources in CORE]
        translate(extensions)
        folder = Path(base_dir) / CARRIED
        folder.mkdir()
        for extension in extensions:
            (c_code,) = extension.sources
            shutil.copyfile(c_code, folder / f"{extension.name}.c")
        (folder / "sources.sha256").write_text(fingerprint(), encoding="ascii")


setup(
    cmdclass={"build_ext": BuildCore, "build_py": BuildSources, "sdist": DistributeSources},
    ext_modules=[
        Extension(
            name,
            sources,
            extra_compile_args=SANITIZED if SANITIZERS else OPTIMISED,
            extra_link_args=[f"-fsanitize={SANITIZERS}"] if SANITIZERS else [],
        )
        for name, sources in CORE
    ],
)
