"""The API reference names every public call, with what it raises."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vmm

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))

from generator.apiexamples import EXAMPLES  # noqa: E402 - the generator is beside the pages
from generator.apipage import (  # noqa: E402
    CHAPTERS,
    COMPILED,
    INTERNAL,
    api_page,
    compiled_calls,
    public_calls,
    public_objects,
)

LISTED = {module for modules in CHAPTERS.values() for module in modules}
NOT_ERRORS = {"KeyboardInterrupt", "StopIteration"}


def test_every_module_is_listed_or_not_for_users() -> None:
    found = {module.name for module in pkgutil.walk_packages(vmm.__path__, "vmm.")}
    assert {
        name
        for name in found - LISTED
        if not any(name == inner or name.startswith(f"{inner}.") for inner in INTERNAL)
    } == set()
    assert {name for name in LISTED if name.startswith("vmm.")} <= found


def calls() -> Iterator[tuple[str, Any, ast.AST]]:
    """(name, what documents it, its source's tree) of every public call."""
    for module, name, item in public_objects():
        if inspect.isfunction(item):
            yield f"{module}.{name}", [item], tree_of(item)
        elif isinstance(item, type) and item.__module__ == module:
            for method, function in public_calls(item):
                yield f"{module}.{name}.{method}", [function], tree_of(function)
            for maker in (vars(item).get(name) for name in ("__init__", "__post_init__")):
                # A dataclass has one without a source, and so has a protocol.
                if inspect.isfunction(maker) and maker.__code__.co_filename == inspect.getfile(
                    item
                ):
                    yield f"{module}.{name}", [item, maker], tree_of(maker)


def tree_of(function: Any) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


def raised_in(tree: ast.AST) -> set[str]:
    """The classes of exceptions that a function raises by itself."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            what = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(what, ast.Name) and what.id[0].isupper():
                names.add(what.id)
    return names - NOT_ERRORS


@pytest.mark.parametrize(
    ("name", "documents", "tree"), [pytest.param(*call, id=call[0]) for call in calls()]
)
def test_a_call_says_what_it_does_and_what_it_raises(
    name: str, documents: list[Any], tree: ast.AST
) -> None:
    text = "\n".join(inspect.getdoc(item) or "" for item in documents if item.__doc__)
    assert text, f"{name} has no docstring"
    missing = {error for error in raised_in(tree) if error not in text}
    assert not missing, f"{name} raises {missing} and does not say so"


@pytest.mark.parametrize("module", COMPILED)
def test_a_compiled_call_says_so_too(module: str) -> None:
    for cls, _, method in compiled_calls(module):
        text = ast.get_docstring(method) or ""
        assert text, f"{cls}.{method.name} has no docstring"
        assert all(error in text for error in raised_in(method)), f"{cls}.{method.name}"


def test_the_page_has_every_name() -> None:
    page = api_page()
    for module, name, item in public_objects():
        assert f"`{name}" in page or f"class {name}\n" in page, f"{module}.{name}"
        if isinstance(item, type) and item.__module__ == module:
            for method, _ in public_calls(item):
                assert f"\n- `{method}" in page, f"{module}.{name}.{method}"
    for module in COMPILED:
        for _, _, method in compiled_calls(module):
            assert f"\n- `{method.name}(" in page, method.name
    assert " at 0x" not in page
    assert "<factory>" not in page


def test_every_constant_says_what_it_is() -> None:
    tables = api_page().split("| constant |")[1:]
    rows = [row for table in tables for row in table.partition("\n\n")[0].split("\n")[2:]]
    assert len(rows) > 10
    assert [row for row in rows if row.endswith("|  |")] == []


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_an_example_runs(chapter: str) -> None:
    exec(EXAMPLES[chapter], {"__name__": "example"})  # noqa: S102 - it is ours


def test_the_reference_is_complete() -> None:
    assert set(EXAMPLES) == set(CHAPTERS)
    for modules in CHAPTERS.values():
        for module in modules:
            assert importlib.import_module(module).__doc__
