"""The kernel side of the monitor; its hot path is compiled.

The modules with a .pxd beside them are Python that Cython compiles as it stands.
Where no compiler was at hand they run interpreted, as they do when the environment
variable VMIROM_INTERPRETED is set to 1: slower, and otherwise the same.
"""

import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

__all__ = ["is_compiled"]


class _SourceFinder:
    """Finds this package's modules as source even where a compiled one lies beside it."""

    @staticmethod
    def find_spec(
        fullname: str,
        _path: Sequence[str] | None = None,
        _target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        parent, _, name = fullname.rpartition(".")
        if parent != __name__:
            return None
        source = Path(__file__).with_name(f"{name}.py")
        return importlib.util.spec_from_file_location(fullname, source)


if os.environ.get("VMIROM_INTERPRETED") == "1":
    sys.meta_path.insert(0, _SourceFinder)


def is_compiled() -> bool:
    """Does the hot path run compiled?"""
    spec = importlib.util.find_spec("vmm.core.vcpu")
    return spec is not None and not (spec.origin or "").endswith(".py")
