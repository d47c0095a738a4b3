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

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist
from setuptools.errors import BaseError, CCompilerError, OptionError

HOT = sorted(pxd.stem for pxd in Path("vmm/core").glob("*.pxd") if pxd.stem != "native")
"""native.pxd holds types, no code."""

SHARED = "vmm.core._shared"
"""Cython's own helpers, compiled once for all: half of the time that a build takes."""

# What is compiled, each with its sources.
CORE = [(SHARED, []), *((f"vmm.core.{name}", [f"vmm/core/{name}.py"]) for name in HOT)]

JOBS = os.cpu_count() or 1

SANITIZERS = os.environ.get("VMIROM_SANITIZE", "")
"""What to give to -fsanitize, or nothing."""

OPTIMISED = ["-O2", "-fwrapv", "-g0", "-w"]
# Whatever a sanitizer finds ends the process. -fwrapv stays: the core relies on it.
SANITIZED = [
    "-O1", "-fwrapv", "-g1", "-w", "-fno-omit-frame-pointer",
    f"-fsanitize={SANITIZERS}", "-fno-sanitize-recover=all",
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
    """Make C of the Python sources of `extensions`, where it is not up to date."""
    from Cython.Build import cythonize  # noqa: PLC0415 - metadata is made without

    translated = cythonize(
        [Extension(extension.name, extension.sources) for extension in extensions],
        build_dir="build",
        nthreads=JOBS,
        compiler_directives=DIRECTIVES,
        shared_utility_qualified_name=SHARED,
    )
    for extension, c_code in zip(extensions, translated, strict=True):
        extension.sources, extension.depends = c_code.sources, c_code.depends
        for source in extension.sources:
            spare_optimiser(Path(source))


def fingerprint() -> str:
    """What C code depends on: the core's sources, and how this file has them translated."""
    sources = sorted([*Path("vmm/core").glob("*.p*"), Path("setup.py")])
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
            # The longest first: the last ones to end do so together.
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
