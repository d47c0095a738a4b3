"""The probe tells what is so, and harms nobody."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vmm.engine.ability import ABILITIES, Ability
from vmm.engine.kvm import probe as module
from vmm.engine.kvm.probe import probe


def by_name() -> dict[str, Ability]:
    return {ability.name: ability for ability in probe()}


def test_every_ability_is_answered_in_order() -> None:
    assert tuple(by_name()) == tuple(ABILITIES)
    assert all(ability.detail for ability in probe())


def test_unpaged_code_runs_wherever_kvm_does() -> None:
    assert by_name()["unpaged_32"].available


def test_paging_that_fails_is_a_shutdown_that_was_seen() -> None:
    for name in ("paging_32", "paging_pae", "long_mode"):
        ability = by_name()[name]
        assert ability.available == ability.detail.startswith("KVM_EXIT_HLT")


def test_translation_is_checked_and_not_only_survival(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that ignores the tables would halt as well."""
    monkeypatch.setattr(module, "_ALIAS", 0x50000)
    long_mode = next(p for p in module._PROGRAMS if p.name == "long_mode")
    with module.Kvm() as kvm:
        ability = module._try(kvm, long_mode)
    assert not ability.available


def test_a_program_that_never_exits_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE_NS", 1_000_000_000)
    spin = module._Program("unpaged_32", b"\xeb\xfe")
    with module.Kvm() as kvm:
        assert module._try(kvm, spin) == Ability(
            "unpaged_32", available=False, detail="no exit within 1 s"
        )


def test_it_leaves_no_descriptor(descriptors: Callable[[], int]) -> None:
    before = descriptors()
    probe.__wrapped__()
    assert descriptors() == before
