"""The kernel side of the monitor; its hot path is compiled.

What others use of it lies here: events and policies, the ledger, slots and registers, errors,
and the boundary to devices (`bus`). Each folder is an inner part: `cpu` at whose exits all
begins, `mmu` and `code` and `ports` which serve them, `apic`, what is shared with a ROM
(`paravirt`), and `run`, the loop around it.

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
    """Finds the core's modules as source even where a compiled one lies beside it."""

    @staticmethod
    def find_spec(
        fullname: str,
        _path: Sequence[str] | None = None,
        _target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(f"{__name__}."):
            return None
        names = fullname.removeprefix(f"{__name__}.").split(".")
        source = Path(__file__).parent.joinpath(*names).with_suffix(".py")
        # A folder has no compiled one.
        return importlib.util.spec_from_file_location(fullname, source) if source.exists() else None


if os.environ.get("VMIROM_INTERPRETED") == "1":
    sys.meta_path.insert(0, _SourceFinder)


def is_compiled() -> bool:
    """Does the hot path run compiled?"""
    spec = importlib.util.find_spec("vmm.core.cpu.vcpu")
    return spec is not None and not (spec.origin or "").endswith(".py")
