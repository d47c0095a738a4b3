"""`vmirom engines`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import vmm.engines
from vmm.core.errors import EngineFailure
from vmm.engine.ability import ABILITIES
from vmm.engine.kvm.device import Kvm, KvmUnavailable

Json = dict[str, Any]


def engine(value: Json, name: str) -> Json:
    found: Json = next(each for each in value["engines"] if each["name"] == name)
    return found


def test_both_engines_are_listed(run_json: Callable[..., Json]) -> None:
    value = run_json("engines")
    assert value["schema"] == "vmirom.engines/1"
    assert [each["name"] for each in value["engines"]] == ["unicorn", "kvm"]
    unicorn = engine(value, "unicorn")
    assert unicorn["available"]
    assert list(unicorn["abilities"]) == list(ABILITIES)
    assert unicorn["abilities"]["paging_32"]["available"]
    assert not unicorn["abilities"]["long_mode"]["available"]


def test_a_host_without_kvm(
    run: Callable[..., Result], run_json: Callable[..., Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vmm.engines, "Kvm", lambda: Kvm(Path("/nowhere/kvm")))
    kvm = engine(run_json("engines"), "kvm")
    assert not kvm["available"]
    assert kvm["refusal"].startswith("/nowhere/kvm does not exist")
    assert kvm["abilities"] == {}
    result = run("engines")
    assert result.exit_code == 0
    assert "kvm: the kernel's hypervisor" in result.stdout
    assert "cannot be used: /nowhere/kvm does not exist" in result.stdout


def test_a_broken_unicorn_is_told(
    run_json: Callable[..., Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise EngineFailure("self-test: nothing arrived")

    monkeypatch.setattr(vmm.engines, "check_unicorn", broken)
    unicorn = engine(run_json("engines"), "unicorn")
    assert (unicorn["available"], unicorn["refusal"]) == (False, "self-test: nothing arrived")


def test_a_host_with_kvm(run_json: Callable[..., Json]) -> None:
    try:
        Kvm().close()
    except KvmUnavailable as reason:
        pytest.skip(str(reason))
    kvm = engine(run_json("engines"), "kvm")
    assert kvm["available"]
    assert kvm["refusal"] is None
    assert list(kvm["abilities"]) == list(ABILITIES)
