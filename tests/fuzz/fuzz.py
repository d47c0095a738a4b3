"""Fuzz the compiled core against the interpreted one.

    python tests/fuzz/fuzz.py --seconds 600              every target in turn
    python tests/fuzz/fuzz.py --target stores --seed 77 --rounds 1
    python tests/fuzz/fuzz.py --repeat build/fuzz/stores-77.json

Each round is one job: a random guest, or random input for a part of the core, which
follows from target and seed alone. Two workers run it, compiled and interpreted. A
difference, a crash, a hang, an engine failure or a shadow that disagrees with the
guest's tables is a finding: the job is cut down to the parts that it takes, written
to a file, and the exit status is 1. With --sanitized the compiled core is one that
`make sanitize` has built, and with --alone there is no interpreted one to compare with,
which takes most of the time.
"""

import argparse
import json
import os
import random
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import machines
import units
from sanitizers import under_sanitizers

Job = dict[str, Any]
Answer = dict[str, Any]

MAKE = {**machines.MAKE, **units.MAKE}
TOO_LONG = 120.0
SHRINKING = 300


class Worker:
    """One execution of the core in a process of its own, started again when it dies."""

    def __init__(self, *, interpreted: bool, sanitized: Path | None = None) -> None:
        self.name = "interpreted" if interpreted else "compiled"
        self.environment = {**os.environ, "VMIROM_INTERPRETED": "1" if interpreted else "0"}
        if sanitized is not None:
            self.environment |= under_sanitizers(sanitized)
        self.start()
        assert self.about["compiled"] is not interpreted, f"the {self.name} core is {self.about}"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self.environment,
        )
        self.about = self.receive()

    def send(self, job: Job) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(job).encode() + b"\n")
        self.process.stdin.flush()

    def receive(self) -> Answer:
        """The next answer; a crash and a hang are answers, too."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], TOO_LONG)
        line = self.process.stdout.readline() if ready else b""
        if line:
            answer: Answer = json.loads(line)
            return answer
        if not ready:
            self.process.kill()
        status = self.process.wait()
        what = f"ended with status {status}" if ready else f"hung for {TOO_LONG:.0f} seconds"
        self.start()
        return {"result": {}, "trouble": [f"the {self.name} core {what}"]}

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


class Fuzzer:
    """Makes jobs, runs them and judges the answers."""

    def __init__(self, *, alone: bool, sanitized: Path | None) -> None:
        self.workers = [Worker(interpreted=False, sanitized=sanitized)]
        if not alone:
            self.workers.append(Worker(interpreted=True))
        self.outcomes: Counter[str] = Counter()

    def close(self) -> None:
        for worker in self.workers:
            worker.close()

    def findings(self, job: Job) -> list[str]:
        """What is wrong with a job: nothing, as a rule."""
        for worker in self.workers:
            worker.send(job)
        answers = [worker.receive() for worker in self.workers]
        result = answers[0]["result"]
        self.outcomes[f"{job['target']}: {str(result.get('outcome', 'done')).split(':')[0]}"] += 1
        found = [
            f"{worker.name}: {trouble}"
            for worker, answer in zip(self.workers, answers, strict=True)
            for trouble in answer["trouble"]
        ]
        if not found and answers[0]["result"] != answers[-1]["result"]:
            keys = sorted(result.keys() | answers[-1]["result"].keys())
            found = [
                f"{key}: compiled {str(result.get(key))[:300]}, "
                f"interpreted {str(answers[-1]['result'].get(key))[:300]}"
                for key in keys
                if result.get(key) != answers[-1]["result"].get(key)
            ]
        if not found and job["target"] in units.JUDGE:
            found = units.JUDGE[job["target"]](job, result)
        return found


def made(target: str, seed: int) -> Job:
    """The job of a target and a seed."""
    noise = random.Random(f"{target} {seed}")  # noqa: S311 - repeatable, no secret
    return {"target": target, "seed": seed, **MAKE[target](noise)}


def shrunk(job: Job, fails: Callable[[Job], bool]) -> Job:
    """The job with as few of its parts as still fail (delta debugging, bounded)."""
    parts, size, tries = job["parts"], max(1, len(job["parts"]) // 2), 0
    while tries < SHRINKING:
        at, before = 0, len(parts)
        while at < len(parts) and tries < SHRINKING:
            fewer = parts[:at] + parts[at + size :]
            tries += 1
            if fails({**job, "parts": fewer}):
                parts = fewer
            else:
                at += size
        if size == 1 and len(parts) == before:
            break
        size = max(1, size // 2)
    return {**job, "parts": parts}


def report(fuzzer: Fuzzer, job: Job, found: list[str], folder: Path) -> None:
    """Cut the job down, write it to a file, and say how to see it again."""
    print(f"FOUND by target {job['target']}, seed {job['seed']}:", flush=True)
    # A slow way to fail would take SHRINKING times as long.
    small = job if "hung" in found[0] else shrunk(job, lambda less: bool(fuzzer.findings(less)))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{job['target']}-{job['seed']}.json"
    path.write_text(json.dumps(small))
    for line in found[:12]:
        print(f"  {line}")
    print(
        f"  {len(small['parts'])} of {len(job['parts'])} parts are enough: --repeat {path}",
        flush=True,
    )


def main() -> int:
    """Fuzz until the time or the rounds are over; 1 when there are findings."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--rounds", type=int, help="so many jobs in all instead")
    parser.add_argument("--seed", type=int, default=None, help="the first seed (chosen, printed)")
    parser.add_argument("--most", type=int, default=20, help="end after so many findings (20)")
    parser.add_argument("--target", action="append", choices=sorted(MAKE), help="only this one")
    parser.add_argument("--alone", action="store_true", help="no interpreted core to compare with")
    parser.add_argument("--sanitized", type=Path, metavar="TREE", help="take the core from there")
    parser.add_argument("--repeat", type=Path, help="run one job from a file")
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"), help="for findings")
    options = parser.parse_args()
    fuzzer = Fuzzer(alone=options.alone, sanitized=options.sanitized)
    if options.repeat is not None:
        found = fuzzer.findings(json.loads(options.repeat.read_text()))
        print("\n".join(found) or "no difference, no trouble")
        fuzzer.close()
        return int(bool(found))
    # Any number will do, as long as it is printed.
    seed = int(time.time()) if options.seed is None else options.seed
    targets = options.target or list(MAKE)
    about = fuzzer.workers[0].about["core"]
    print(f"seed {seed}, targets {', '.join(targets)}, core {about}", flush=True)
    start, rounds, findings = time.monotonic(), 0, 0
    while (
        time.monotonic() - start < options.seconds
        if options.rounds is None
        else rounds < options.rounds
    ):
        job = made(targets[rounds % len(targets)], seed + rounds // len(targets))
        found = fuzzer.findings(job)
        if found:
            findings += 1
            report(fuzzer, job, found, options.folder)
            if findings == options.most:
                break
        rounds += 1
    fuzzer.close()
    spent = time.monotonic() - start
    for outcome, count in sorted(fuzzer.outcomes.items()):
        print(f"{count:8}  {outcome}")
    print(f"{rounds} jobs in {spent:.0f} seconds, {findings} findings")
    return int(findings > 0)


if __name__ == "__main__":
    sys.exit(main())
