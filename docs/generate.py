"""Write docs/reference from the code, and run every example of the docs anew.

python docs/generate.py          write what has changed
python docs/generate.py --check  write nothing; status 1 and the names of stale files

An example is a block of kind "console": each line that starts with "$ " is a command,
what follows is what it prints. A line "..." stands for lines that are left out; as
many lines as stand before and after it are kept. The commands of a file run one after
the other in a folder of their own.
"""

import sys
from pathlib import Path

import click

from generator.apipage import api_page
from generator.examples import ROOT, with_real_cells, with_real_output
from generator.jsonpage import json_page
from generator.pages import (
    apic_bus_page,
    calls,
    commands,
    guests,
    policies,
    queue_page,
    reasons,
    results,
    views_page,
)

REFERENCE = ROOT / "docs" / "reference"
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
NOTE = "<!-- Made by docs/generate.py (make docs); edits here are lost. -->\n\n"
WITH_EXAMPLES = [
    "README.md",
    "docs/tutorial.md",
    "docs/howto-guest.md",
    "docs/howto-rom-call.md",
    "docs/howto-costs.md",
    "docs/howto-filter.md",
    "docs/howto-io.md",
    "docs/howto-traces.md",
]


PAGES = {
    "api.md": api_page,
    "apic-bus.md": apic_bus_page,
    "calls.md": calls,
    "commands.md": commands,
    "guests.md": guests,
    "json.md": json_page,
    "policies.md": policies,
    "queue.md": queue_page,
    "reasons.md": reasons,
    "views.md": views_page,
    "results.md": results,
}


def generated() -> dict[Path, str]:
    """{file: its text as it should be}."""
    pages = {REFERENCE / name: NOTE + page() for name, page in PAGES.items()}
    texts = {ROOT / name: (ROOT / name).read_text(encoding="utf-8") for name in WITH_EXAMPLES}
    return {
        **pages,
        **{path: with_real_output(text) for path, text in texts.items()},
        NOTEBOOK: with_real_cells(NOTEBOOK.read_text(encoding="utf-8")),
    }


def main() -> None:
    """Write, or check, every file."""
    check = "--check" in sys.argv[1:]
    stale = False
    for path, text in generated().items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale = True
        click.echo(f"{'stale' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
