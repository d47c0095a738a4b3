"""Filters from a few lines of text."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vmm.core.ports.filtervm import FilterMachine
from vmm.filters.program import FilterProgram
from vmm.filters.text import assemble_text

STATE_BYTES = 32


@pytest.fixture
def program() -> Callable[..., FilterProgram]:
    """A filter on port 0x40 with a body in text and 32 bytes of state."""

    def make(body: str, state: int = STATE_BYTES, ports: str = "0x40") -> FilterProgram:
        text = f'\t.section "port/{ports}"\n{body}\n\t.bss\nstate:\t.zero {state}\n'
        return assemble_text(text, "test")

    return make


@pytest.fixture
def build() -> Callable[[FilterProgram], FilterMachine]:
    """A program ready to run, verified or not."""

    def make(program: FilterProgram) -> FilterMachine:
        return FilterMachine(program.rows(), program.state)

    return make
