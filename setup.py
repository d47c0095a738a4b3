"""Compile the core's hot path and carry the assembly sources in the wheel.

The core is ordinary Python that Cython compiles as it stands. Without a C compiler
the package installs all the same and runs interpreted, more slowly; set
VMIROM_REQUIRE_COMPILED=1 to make that an error instead.
"""

import os
import shutil
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

HOT = ["batch", "blocks", "counters", "cpustate", "delivery", "doorbell", "fetch", "hooks", "links", "memory", "paging",
       "privileged",
       "shadow", "stores", "vcpu"]  # fmt: skip
REQUIRED = os.environ.get("VMIROM_REQUIRE_COMPILED") == "1"


class BuildCore(build_ext):
    """Build what can be built; an interpreted core is slow but whole."""

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:
            if REQUIRED:
                raise
            self.warn(f"the core is not compiled and will run interpreted: {error}")
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)

    def copy_extensions_to_source(self) -> None:
        if all(
            Path(self.get_ext_fullpath(e.name)).exists() or self._built(e) for e in self.extensions
        ):
            super().copy_extensions_to_source()

    def _built(self, extension: Extension) -> bool:
        return (Path(self.build_lib) / self.get_ext_filename(extension.name)).exists()


class BuildSources(build_py):
    """Copy the assembly sources beside the package that assembles them."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for folder in ("rom_src", "guests"):
            target = Path(self.build_lib) / "rombuilder" / "_sources" / folder
            shutil.copytree(folder, target, dirs_exist_ok=True)


setup(
    cmdclass={"build_ext": BuildCore, "build_py": BuildSources},
    ext_modules=cythonize(
        [
            Extension(
                f"vmm.core.{name}",
                [f"vmm/core/{name}.py"],
                extra_compile_args=["-O2", "-fwrapv", "-g0"],
            )
            for name in HOT
        ],
        build_dir="build",
        compiler_directives={
            "language_level": "3",
            "boundscheck": True,
            "wraparound": False,
            "initializedcheck": False,
            "cdivision": True,
        },
    ),
)
