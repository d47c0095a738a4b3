"""Examples of the docs, run anew."""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]

NOTEBOOK_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
EXAMPLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
SOURCE = re.compile(r"^`([\w.]+)`:\n\n```(?:asm|toml)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def trimmed(expected: list[str], real: list[str]) -> list[str]:
    """The real output, cut where the expected one has "..."."""
    if "..." not in expected:
        return real
    before = expected.index("...")
    after = len(expected) - before - 1
    return [*real[:before], "...", *(real[-after:] if after else [])]


def output_of(command: str, folder: Path) -> list[str]:
    """What a command prints, lines stripped at their ends, blank ones left out."""
    words = shlex.split(command)
    if words[0] == "vmirom":
        words[:1] = [sys.executable, "-m", "vmirom"]
    done = subprocess.run(  # noqa: S603 - our own examples
        words,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if "Traceback" in done.stdout:
        raise RuntimeError(f"{command}: {done.stdout}")
    return [line.rstrip() for line in done.stdout.splitlines() if line.strip()]


def with_real_output(text: str) -> str:
    """A document with every example's output as it is today."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def block(match: re.Match[str]) -> str:
            lines: list[str] = []
            for example in re.split(r"^(?=\$ )", match[1], flags=re.MULTILINE):
                command, *expected = example.splitlines() or [""]
                if command:
                    real = output_of(command.removeprefix("$ "), folder)
                    lines += [command, *trimmed(expected, real)]
            return "```console\n" + "\n".join(lines) + "\n```"

        for file, source in SOURCE.findall(text):
            (folder / file).write_text(source, encoding="ascii")
        return EXAMPLE.sub(block, text)


def with_real_cells(text: str) -> str:
    """A notebook with every cell's output as it is today, and nothing of this host in it."""
    notebook = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    for cell in notebook.cells:
        cell.metadata = {}
    notebook.metadata = {"kernelspec": NOTEBOOK_KERNEL}
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT)}}).execute()
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", ()):
            # The table as text says the same, and reads well anywhere.
            output.get("data", {}).pop("text/html", None)
    notebook.metadata = {"kernelspec": NOTEBOOK_KERNEL}
    return f"{nbformat.writes(notebook)}\n"  # type: ignore[no-untyped-call]
