"""Run fuzzed jobs from standard input, a JSON object a line, and answer each with one line.

Started by fuzz.py, once as it is and once with VMIROM_INTERPRETED=1. An answer is
{"result": whatever two executions of the core must agree on, "trouble": [what must never
happen in either]}. What a function that cannot raise prints and swallows is trouble, too.
"""

import contextlib
import faulthandler
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import machines
import units

from vmm.core import is_compiled
from vmm.core.cpu import vcpu

RUN = {**machines.RUN, **units.RUN}


def answer(job: dict[str, Any], swallowed: list[str]) -> dict[str, Any]:
    """Run one job; nothing that it raises may end the worker."""
    swallowed.clear()
    result: dict[str, Any] = {}
    trouble: list[str] = []
    try:
        result, trouble = RUN[job["target"]](job)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        trouble = [f"raised {type(error).__name__}: {error}"]
    return {"result": result, "trouble": trouble + swallowed}


def main() -> None:
    """Answer until the input ends."""
    faulthandler.enable()
    swallowed: list[str] = []

    def swallow(about: "sys.UnraisableHookArgs") -> None:
        swallowed.append(f"swallowed {about.exc_type.__name__}: {about.exc_value}")

    sys.unraisablehook = swallow
    # What anything else prints must not get between the answers.
    with os.fdopen(os.dup(1), "w", buffering=1) as out, contextlib.redirect_stdout(sys.stderr):
        out.write(json.dumps({"compiled": is_compiled(), "core": vcpu.__file__}) + "\n")
        for line in sys.stdin:
            out.write(json.dumps(answer(json.loads(line), swallowed)) + "\n")


if __name__ == "__main__":
    main()
