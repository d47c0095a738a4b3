"""The process that runs a ROM under test: one JSON request in, JSON lines out as things are found.

A request is {"image": hex, "natives": {call: hex}, "seed": n, "states": n}. Lines are
{"at": [text, done, total]}, {"finding": {...}} and, last, {"done": {...}}; without
that line the process did not get to its end. The ROM cannot do more than the machine
lets it; what can break the machine's engine breaks only this process, which is bounded
in CPU time and memory.
"""

import json
import resource
import sys

from rombuilder.conformance.checker import Checker
from rombuilder.conformance.findings import Finding

__all__ = ["main"]

_MEMORY = 4 << 30


def _say(key: str, value: object) -> None:
    sys.stdout.write(json.dumps({key: value}) + "\n")
    sys.stdout.flush()


def _found(finding: Finding) -> None:
    _say("finding", finding.as_dict())


def _progress(text: str, done: int, total: int) -> None:
    _say("at", [text, done, total])


def main() -> None:
    """Serve one request."""
    request = json.load(sys.stdin)
    seconds = int(request["cpu_seconds"])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    natives = {name: bytes.fromhex(code) for name, code in request["natives"].items()}
    image = bytes.fromhex(request["image"])
    checker = Checker(image, natives, _found, seed=request["seed"])
    checker.check(request["states"], _progress)
    answers = {
        number: [answer.kind.name, answer.offset] for number, answer in checker.answers.items()
    }
    _say("done", {"runs": checker.runs, "answers": answers})


if __name__ == "__main__":
    main()
