"""The documents say what the code does: reference, examples, links, how-tos."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import rombuilder.rom
from bench.inputs import load_guest, load_rom
from rombuilder.assembler import assemble_text
from rombuilder.inspect import inspect_rom
from rombuilder.rom import Flavour, build_rom
from rombuilder.sources import rom_dir
from vmi.calls import CALLS
from vmi.relocation import RelocationKind
from vmm.core.event import Reason
from vmm.machine import Machine, MachineDescription

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FRONT = 20
"""Lines of the README that must show the result."""


def script() -> ModuleType:
    sys.path.insert(0, str(ROOT / "docs"))
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = script()
examples = importlib.import_module("generator.examples")


def test_stale_files_are_found_and_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good, stale, missing = (tmp_path / name for name in ("good", "stale", "new/missing"))
    good.write_text("a", encoding="utf-8")
    stale.write_text("b", encoding="utf-8")
    texts = {good: "a", stale: "B", missing: "c"}
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "generated", lambda: texts)

    def status(*arguments: str) -> object:
        monkeypatch.setattr(sys, "argv", ["generate.py", *arguments])
        with pytest.raises(SystemExit) as end:
            generate.main()
        return end.value.code

    assert status("--check") == 1
    assert capsys.readouterr().out == "stale: stale\nstale: new/missing\n"
    assert stale.read_text(encoding="utf-8") == "b"
    assert status() == 0
    assert capsys.readouterr().out == "written: stale\nwritten: new/missing\n"
    assert {path: path.read_text(encoding="utf-8") for path in texts} == texts
    assert status("--check") == 0


@pytest.mark.parametrize("page", generate.PAGES)
def test_reference_is_what_the_code_says(page: str) -> None:
    text = (generate.REFERENCE / page).read_text(encoding="utf-8")
    assert text == generate.NOTE + generate.PAGES[page](), "run `make docs`"


@pytest.mark.parametrize("name", generate.WITH_EXAMPLES)
def test_examples_print_what_the_document_says(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert generate.with_real_output(text) == text, "run `make docs`"


def test_the_notebook_prints_what_it_shows() -> None:
    text = generate.NOTEBOOK.read_text(encoding="utf-8")
    assert generate.with_real_cells(text) == text, "run `make docs`"
    assert "forkstorm" in text


def test_examples_would_be_found_out(tmp_path: Path) -> None:
    text = "```console\n$ vmirom guests\n...\n it is\n```"
    real = generate.with_real_output(text)
    assert real != text
    assert real.splitlines()[2] == "..."
    assert len(real.splitlines()) == len(text.splitlines())


def test_trimming_keeps_as_many_lines() -> None:
    real = list("abcdef")
    assert examples.trimmed(["x", "...", "y", "z"], real) == ["a", "...", "e", "f"]
    assert examples.trimmed(["x", "..."], real) == ["a", "..."]
    assert examples.trimmed(["..."], real) == ["..."]
    assert examples.trimmed(["x"], real) == real


def test_every_call_and_reason_has_a_line() -> None:
    calls = (generate.REFERENCE / "calls.md").read_text(encoding="utf-8")
    assert all(f"| {call.number} | `{call.name}` |" in calls for call in CALLS)
    reasons = (generate.REFERENCE / "reasons.md").read_text(encoding="utf-8")
    assert all(f"| `{reason.value}` |" in reasons for reason in Reason)
    queue = (generate.REFERENCE / "queue.md").read_text(encoding="utf-8")
    for page in (calls, reasons, queue):
        assert not [line for line in page.splitlines() if line.endswith("|  |")]


def test_readme_opens_with_the_result() -> None:
    """Numbers of its first table against JSON, parsed apart from the script above."""
    front = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:FRONT]
    assert "$ vmirom compare forkstorm" in front
    done = subprocess.run(
        [sys.executable, "-m", "vmirom", "compare", "forkstorm", "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
    )
    value = json.loads(done.stdout)
    exits = [run["exits"] for run in value["runs"]]
    rows = {
        cells[0]: [int(cell.replace(",", "")) for cell in cells[1:]]
        for line in front
        if len(cells := line.split()) == 4 and cells[1].replace(",", "").isdigit()
    }
    assert len(rows) >= 3
    assert rows.pop("total") == [one["total"] for one in exits]
    for reason, counts in rows.items():
        assert counts == [one["by_reason"].get(reason, {"count": 0})["count"] for one in exits]
    saved = f"saved {value['saved'][2]['exits']:,} of {exits[0]['total']:,} exits"
    assert any(saved in line for line in front)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(path: Path) -> None:
    rooms = "vmi|linker|rombuilder|rom_src|guests|vmm|bench|vmirom|tests|docs"
    for name in re.findall(rf"`((?:{rooms})/[\w./]*)`", path.read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), name


def block(document: str, file: str) -> str:
    """A source file that a document shows."""
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    return str(dict(examples.SOURCE.findall(text))[file])


@pytest.mark.parametrize("rom", ["none", "identity", "batching"])
def test_the_guest_of_the_howto_works(tmp_path: Path, rom: str) -> None:
    source = tmp_path / "hello.S"
    source.write_text(block("howto-guest.md", "hello.S"), encoding="ascii")
    image = load_guest(str(source)).image
    run = Machine(MachineDescription(guest=image, rom=load_rom(rom).image, check_shadow=True)).run()
    assert run.outcome.ok, run.outcome
    assert run.console.splitlines()[-1] == "hello: all rounds done, ok"


def test_the_guest_of_the_howto_works_for_long(tmp_path: Path) -> None:
    """Thousands of faults at one address, each mended by a drain: none is taken for a loop."""
    source = tmp_path / "hello.S"
    source.write_text(block("howto-guest.md", "hello.S"), encoding="ascii")
    guest = load_guest(str(source))
    run = Machine(
        MachineDescription(guest.image, rom=load_rom("batching").image, command_line="rounds=5000")
    ).run()
    assert run.outcome.ok, run.outcome


def test_the_guest_of_the_howto_can_fail(tmp_path: Path) -> None:
    """With a ROM that forgets its flushes it must notice."""
    source = tmp_path / "hello.S"
    source.write_text(block("howto-guest.md", "hello.S"), encoding="ascii")
    rom = build_rom(Flavour.BATCHING, defines={"OMIT_FLUSH": 1}).data
    description = MachineDescription(
        guest=load_guest(str(source)).image, rom=rom, max_instructions=50_000_000
    )
    assert not Machine(description).run().outcome.ok


def test_the_call_of_the_howto_is_the_roms_and_can_be_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = block("howto-rom-call.md", "port_io.S")
    code = assemble_text(source).section(".text").data
    ours = build_rom(Flavour.IDENTITY)
    at = ours.symbols["native_INB"]
    assert ours.data[at : at + len(code)] == code
    folder = tmp_path / "rom_src"
    shutil.copytree(rom_dir(), folder)
    (folder / "port_io.S").write_text(source, encoding="ascii")
    text = (ROOT / "docs" / "howto-rom-call.md").read_text(encoding="utf-8")
    row = re.search(r"^\tOFFER CALL_INB, .*$", text, re.MULTILINE)
    assert row is not None
    dispatch = folder / "dispatch.S"
    lines = dispatch.read_text(encoding="ascii").splitlines()
    ports = [line for line in lines if line.startswith("\tOFFER_PORT ")]
    assert len(ports) == 12
    kept = [
        row[0] if line == "\tOFFER_PORT INB" else line
        for line in lines
        if line not in ports or line == "\tOFFER_PORT INB"
    ]
    dispatch.write_text("\n".join(kept) + "\n", encoding="ascii")
    monkeypatch.setattr(rombuilder.rom, "rom_dir", lambda: folder)
    found = inspect_rom(build_rom(Flavour.IDENTITY).data)
    assert not found.defects
    kinds = {call.number: call.kind for call in found.calls}
    assert kinds[50] is RelocationKind.CALL_REL
    assert kinds[51] is RelocationKind.NONE
