"""Traces: by the published format, equal to the ledger, repeatable, bounded, whole if cut short."""

from __future__ import annotations

import gzip
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench.inputs import load_guest, load_rom
from bench.trace import TRACE_SCHEMA, TraceWriter
from vmm.core.errors import BadDescription
from vmm.machine import Machine, MachineDescription, Run

Json = dict[str, Any]
ABOUT = {"guest": "forkstorm", "rom": "batching", "policy": "svm-shadow"}
SMALL = "rounds=3"


def traced(path: Path, limit: int = 1 << 30, rom: str = "batching", **more: Any) -> Run:
    guest = load_guest("forkstorm")
    about = MachineDescription(
        guest.image, rom=load_rom(rom).image, command_line=SMALL, marks=("Found",), **more
    )
    machine = Machine(about)
    with TraceWriter(path, ABOUT, guest.symbols, limit=limit) as trace:
        machine.record(trace)
        run = machine.run()
        trace.finish(run)
    assert trace.written + sum(trace.left_out.values()) == run.ledger.total
    return run


def load(path: Path) -> Json:
    value = json.loads(path.read_text(encoding="utf-8"))
    check_format(value)
    return dict(value)


def check_format(value: Json) -> None:
    """The JSON object form of "Trace Event Format", for the phases X, M and C.

    Every event has name, ph, pid, tid; X has ts and a dur that is not negative, and slices of
    one track nest; C has numbers only; M names a process or thread.
    """
    assert set(value) == {"displayTimeUnit", "traceEvents", "otherData"}
    assert value["displayTimeUnit"] in {"ms", "ns"}
    named = set()
    ends: dict[int, float] = {}
    for event in value["traceEvents"]:
        assert isinstance(event["name"], str)
        assert event["name"]
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert isinstance(event["args"], dict)
        match event["ph"]:
            case "M":
                assert set(event) == {"name", "ph", "pid", "tid", "args"}
                assert event["name"] in {"process_name", "thread_name"}
                assert isinstance(event["args"]["name"], str)
                named.add(event["tid"])
            case "X":
                assert set(event) == {"name", "cat", "ph", "pid", "tid", "ts", "dur", "args"}
                assert event["ts"] >= 0
                assert event["dur"] > 0
                start, end = round(event["ts"] * 1000), round((event["ts"] + event["dur"]) * 1000)
                before = ends.get(event["tid"], 0)
                # Side by side, or at the same nanosecond.
                assert start >= before - 1
                ends[event["tid"]] = max(before, end)
                assert event["tid"] in named
            case "C":
                assert set(event) == {"name", "ph", "pid", "tid", "ts", "args"}
                assert all(isinstance(number, int) for number in event["args"].values())
            case other:
                pytest.fail(f"phase {other!r} was not expected")


def test_slices_are_the_exits_of_the_ledger(tmp_path: Path) -> None:
    run = traced(tmp_path / "a.json")
    value = load(tmp_path / "a.json")
    slices = [e for e in value["traceEvents"] if e.get("cat", "").startswith("exit")]
    assert Counter(event["name"] for event in slices) == {
        reason.value: row.count for reason, row in run.ledger.by_reason.items()
    }
    heavy = [event for event in slices if event["cat"] == "exit,heavy"]
    assert len(heavy) == run.ledger.heavy
    assert {event["args"]["weight"] for event in heavy} == {"heavy"}
    # A port access takes 400 ns of virtual time.
    assert {event["dur"] for event in heavy if event["name"] == "io"} == {0.4}
    places = Counter((e["name"], e["args"]["at"], e["args"]["eip"]) for e in slices)
    assert places == {
        (place.reason.value, place.detail, f"{place.eip:#010x}"): place.count
        for place in run.ledger.places
    }
    assert any(event["args"]["symbol"] for event in slices)
    assert all("address" in event["args"] for event in slices if event["name"] == "page_fault")
    other = value["otherData"]
    assert other["schema"] == TRACE_SCHEMA
    assert other["exits"] == run.ledger.total
    assert other["left_out"] == 0
    assert "virtual time" in other["clock"]


def test_phases_and_the_queue(tmp_path: Path) -> None:
    run = traced(tmp_path / "a.json")
    events = load(tmp_path / "a.json")["traceEvents"]
    phases = [event for event in events if event.get("cat") == "phase"]
    assert [event["name"] for event in phases] == ["until Found", "until the end"]
    assert phases[1]["ts"] == pytest.approx(phases[0]["dur"])
    assert phases[1]["ts"] + phases[1]["dur"] == pytest.approx(run.virtual_ns / 1000)
    depths = [event["args"]["records"] for event in events if event["ph"] == "C"]
    assert max(depths) == run.paravirt.largest_batch
    assert depths[-1] == 0
    assert all(one != other for one, other in itertools.pairwise(depths))


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    for ending in ("json", "json.gz", "jsonl", "jsonl.gz"):
        one, two = tmp_path / f"one.{ending}", tmp_path / f"two.{ending}"
        traced(one)
        traced(two)
        assert one.read_bytes() == two.read_bytes()
    assert (
        gzip.decompress((tmp_path / "one.json.gz").read_bytes())
        == (tmp_path / "one.json").read_bytes()
    )


def test_json_lines(tmp_path: Path) -> None:
    run = traced(tmp_path / "a.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert lines[0]["type"] == "run"
    assert lines[0]["schema"] == TRACE_SCHEMA
    assert lines[-1]["type"] == "end"
    assert lines[-1]["outcome"] == "passed"
    exits = [line for line in lines if line["type"] == "exit"]
    assert len(exits) == run.ledger.total == lines[-1]["exits"]
    # What an engine event drains is in no exit; a page of the ROM that turns executable is one.
    assert 0 <= run.paravirt.notices - sum(line["drained"] for line in exits) < 10
    assert [line["name"] for line in lines if line["type"] == "phase"] == [
        "until Found",
        "until the end",
    ]
    assert {frozenset(line) for line in exits} == {
        frozenset(
            {
                *("type", "virtual_ns", "charged_ns", "cpu", "reason", "weight", "at", "eip"),
                *("symbol", "address", "queued", "drained"),
            }
        )
    }


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_trace_is_bounded_and_says_what_it_left_out(tmp_path: Path, name: str) -> None:
    limit = 50_000
    run = traced(tmp_path / name, limit, rom="none")
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert limit < len(text) < limit + 3000
    if name.endswith("jsonl"):
        end = json.loads(text.splitlines()[-1])
    else:
        end = load(tmp_path / name)["otherData"]
    assert end["left_out"] > 0
    assert end["exits"] + end["left_out"] == run.ledger.total
    assert sum(end["left_out_by_reason"].values()) == end["left_out"]


def test_a_trace_without_room_is_still_a_trace(tmp_path: Path) -> None:
    traced(tmp_path / "a.json", 0)
    assert load(tmp_path / "a.json")["otherData"]["exits"] == 0


def test_a_run_that_breaks_off_leaves_a_whole_file(tmp_path: Path) -> None:
    guest = load_guest("forkstorm")
    machine = Machine(MachineDescription(guest.image))

    def stop(instructions: int) -> None:
        if instructions:
            raise RuntimeError("somebody pulled the plug")

    path = tmp_path / "a.json"
    trace = TraceWriter(path, ABOUT, guest.symbols)
    machine.record(trace)
    with pytest.raises(RuntimeError), trace:
        machine.run(stop)
    other = load(path)["otherData"]
    assert other["outcome"] == "unfinished"
    assert other["exits"] == trace.written > 0


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadDescription, match="No such file"):
        traced(tmp_path / "none" / "a.json")
    with pytest.raises(BadDescription, match="irectory"):
        traced(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_ends_in_words(tmp_path: Path) -> None:
    link = tmp_path / "full.json"
    link.symlink_to("/dev/full")
    with pytest.raises(BadDescription, match="No space left"):
        traced(link)
