"""Keep a generation of guests: images as this version builds them, and what they count.

python tests/compat/record.py NAME                    a new generation, in the folder NAME
python tests/compat/record.py --again NAME --why TEXT count an old one's images anew

See README.md beside this file.
"""

import argparse
import hashlib
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bench.inputs import load_guest, load_rom
from vmirom.version import VERSION
from vmm.core.policy import POLICIES, policy_named
from vmm.machine import Machine, MachineDescription

HERE = Path(__file__).resolve().parent
_EXPECTED = "expected.json"
_GUESTS = {
    "calibrate": "rounds=1 steps=8",
    "ctxswitch": "rounds=8 tasks=3",
    "forkstorm": "rounds=2 pages=24 touches=4",
    "mmapstorm": "rounds=2 pages=16",
    "pagefault": "rounds=2 pages=16",
    "probe": "",
}
"""With their command lines: small ones, as the counts matter and not the load."""
_ROMS = ("identity", "batching")
_MEMORY = 16 << 20

Json = dict[str, Any]


def generations() -> list[str]:
    """The names of all generations, oldest first."""
    return sorted(path.parent.name for path in HERE.glob(f"*/{_EXPECTED}"))


def load(generation: str) -> Json:
    """What a generation's images are and count."""
    expected: Json = json.loads((HERE / generation / _EXPECTED).read_text(encoding="utf-8"))
    return expected


def digest(generation: str) -> str:
    """Of the expected counts, as the table in README.md has it."""
    data = (HERE / generation / _EXPECTED).read_bytes()
    return hashlib.sha256(data).hexdigest()[:16]


def last_rows() -> dict[str, str]:
    """{generation: the digest in its last row of README.md's table}."""
    rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (HERE / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    )
    return {row[0]: row[2].strip("`") for row in rows if len(row) == 4 and row[2].startswith("`")}


def measure(generation: str, run: Json) -> Json:
    """Run what `run` names, and answer it with what this version counts."""
    folder = HERE / generation
    rom = None if run["rom"] == "none" else (folder / f"{run['rom']}.rom").read_bytes()
    result = Machine(
        MachineDescription(
            (folder / f"{run['guest']}.bin").read_bytes(),
            rom=rom,
            command_line=run["command_line"],
            memory=_MEMORY,
            policy=policy_named(run["policy"]),
        )
    ).run()
    return {
        **{key: run[key] for key in ("guest", "command_line", "rom", "policy")},
        "outcome": result.outcome.kind.value,
        "instructions": result.instructions,
        "virtual_ns": result.virtual_ns,
        "console_crc32": zlib.crc32(result.console.encode()),
        "exits": {
            reason.value: [row.light, row.heavy]
            for reason, row in sorted(result.ledger.by_reason.items())
        },
    }


def differences(expected: Json, now: Json) -> list[str]:
    """What is not as it was, in words; empty when all is."""
    said = [
        f"{key}: {expected[key]}, now {now[key]}"
        for key in ("outcome", "instructions", "virtual_ns", "console_crc32")
        if expected[key] != now[key]
    ]
    for reason in sorted({*expected["exits"], *now["exits"]}):
        was, is_now = (run["exits"].get(reason, [0, 0]) for run in (expected, now))
        if was != is_now:
            said.append(f"exits {reason}: {was} (light, heavy), now {is_now}")
    return said


def _all_runs() -> Iterator[Json]:
    for guest, command_line in _GUESTS.items():
        for rom in ("none", *_ROMS):
            for policy in POLICIES:
                yield {
                    "guest": guest,
                    "command_line": command_line,
                    "rom": rom,
                    "policy": policy.name,
                }


def _new(generation: str) -> None:
    folder = HERE / generation
    folder.mkdir()
    for guest in _GUESTS:
        (folder / f"{guest}.bin").write_bytes(load_guest(guest).image)
    for rom in _ROMS:
        (folder / f"{rom}.rom").write_bytes(load_rom(rom).image or b"")
    images = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }
    runs = [measure(generation, run) for run in _all_runs()]
    bad = [run for run in runs if run["outcome"] != "passed"]
    if bad:
        sys.exit(f"not recorded, for it did not pass: {bad[0]}")
    _write(generation, {"version": VERSION, "images": images, "runs": runs}, "first recorded")


def _again(generation: str, why: str) -> None:
    old = load(generation)
    runs = [measure(generation, run) for run in old["runs"]]
    changed = 0
    for was, now in zip(old["runs"], runs, strict=True):
        for said in differences(was, now):
            changed += 1
            sys.stdout.write(f"{was['guest']}, ROM {was['rom']}, {was['policy']}: {said}\n")
    if not changed:
        sys.exit(f"{generation} counts as it did: nothing to write")
    _write(generation, {**old, "runs": runs}, why)


def _write(generation: str, expected: Json, why: str) -> None:
    """The counts, one run a line, and the row of the table that says why."""
    runs = expected.pop("runs")
    head = json.dumps(expected, indent=1).removesuffix("\n}")
    lines = ",\n".join(f"  {json.dumps(run)}" for run in runs)
    path = HERE / generation / _EXPECTED
    path.write_text(f'{head},\n "runs": [\n{lines}\n ]\n}}\n', encoding="utf-8")
    with (HERE / "README.md").open("a", encoding="utf-8") as readme:
        readme.write(f"| {generation} | {VERSION} | `{digest(generation)}` | {why} |\n")


def main(arguments: Iterable[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Keep a generation of guests.")
    parser.add_argument("generation", metavar="NAME", help="the generation's folder")
    parser.add_argument("--again", action="store_true", help="count an old one's images anew")
    parser.add_argument("--why", default="", help="with --again: why its counts have changed")
    about = parser.parse_args(None if arguments is None else list(arguments))
    known = about.generation in generations()
    if about.again != known:
        parser.error(
            f"{about.generation}: there is {'such' if known else 'no such'} a generation; those "
            f"that there are: {', '.join(generations()) or 'none'}"
        )
    if about.again and (not about.why or "|" in about.why):
        parser.error("--again: expected --why, a sentence without |")
    if about.again:
        _again(about.generation, about.why)
    else:
        _new(about.generation)


if __name__ == "__main__":
    main()
