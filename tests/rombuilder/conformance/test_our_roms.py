"""Our ROMs do what the native instructions do, on whatever states Hypothesis asks for."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rombuilder.conformance.check import check_rom
from rombuilder.conformance.checker import Checker
from rombuilder.conformance.findings import Finding
from rombuilder.conformance.layout import PLACEMENTS, Placement
from rombuilder.conformance.native import NATIVE, native_code
from rombuilder.rom import Calls, Flavour, build_rom
from vmi.calls import CALLS, Call
from vmi.relocation import RelocationKind

APIC = {"APIC_VIRTUAL_BASE": 0xFFFFB000}


@cache
def image(flavour: Flavour, calls: Calls, *, apic: bool = False) -> bytes:
    return build_rom(flavour, calls=calls, defines=APIC if apic else {}).data


@pytest.mark.parametrize("calls", list(Calls))
@pytest.mark.parametrize("flavour", list(Flavour))
def test_conformant(flavour: Flavour, calls: Calls) -> None:
    report = check_rom(image(flavour, calls), states=3)
    assert report.findings == []
    assert report.conformant
    assert report.runs == len(report.calls) * 3 * len(PLACEMENTS)
    offered = {call.name for call in report.calls}
    assert {"IRET", "SYSEXIT"} <= offered
    if calls is Calls.ALL:
        assert len(offered) >= 50


def test_a_rom_that_was_built_for_one_guest_s_apic() -> None:
    report = check_rom(image(Flavour.IDENTITY, Calls.ALL, apic=True), states=3)
    assert report.findings == []
    assert {"APICRead", "APICWrite"} <= {call.name for call in report.calls}


def test_the_same_seed_gives_the_same_report() -> None:
    data = image(Flavour.IDENTITY, Calls.NEEDED)
    assert check_rom(data, seed=3, states=2) == check_rom(data, seed=3, states=2)


@pytest.mark.parametrize("flavour", list(Flavour))
@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(),
    call=st.sampled_from(CALLS),
    place=st.sampled_from(PLACEMENTS),
)
def test_random_states(flavour: Flavour, seed: int, call: Call, place: Placement) -> None:
    found: list[Finding] = []
    checker = _checker(flavour, found, seed)
    checker.check_call(call, place, _answers(flavour), range(2))
    assert found == []


def _checker(flavour: Flavour, found: list[Finding], seed: int) -> Checker:
    return Checker(image(flavour, Calls.ALL), native_code(), found.append, seed=seed)


@cache
def _answers(flavour: Flavour) -> dict[int, object]:
    found: list[Finding] = []
    answers = _checker(flavour, found, 0).relocate(PLACEMENTS[0])
    assert answers is not None
    assert found == []
    return dict(answers)


@pytest.mark.parametrize("flavour", list(Flavour))
def test_every_call_that_has_a_native_instruction_is_compared_with_it(flavour: Flavour) -> None:
    offered = {
        number
        for number, answer in _answers(flavour).items()
        if answer.kind is not RelocationKind.NONE
    }
    names = {call.name for call in CALLS if call.number in offered}
    assert names <= set(NATIVE)


def test_native_instructions_name_calls() -> None:
    assert set(NATIVE) <= {call.name for call in CALLS}
