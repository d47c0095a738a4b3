"""`vmirom engines`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import vmm.engine.kvm.device
import vmm.engine.kvm.probe
import vmm.engines
from vmm.core.errors import EngineFailure
from vmm.engine.ability import ABILITIES
from vmm.engine.kvm.device import Kvm, KvmUnavailable
from vmm.engine.kvm.probe import probe

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
    monkeypatch.setattr(vmm.engine.kvm.device, "Kvm", lambda: Kvm(Path("/nowhere/kvm")))
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


@pytest.fixture
def kvm_here() -> None:
    try:
        Kvm().close()
    except KvmUnavailable as reason:
        pytest.skip(str(reason))


def ability(name: str) -> bool:
    return next(each for each in probe() if each.name == name).available


def test_an_engine_that_does_not_exist(run: Callable[..., Result]) -> None:
    for arguments in (("run", "--engine"), ("compare", "--engines")):
        result = run(arguments[0], "portstorm", arguments[1], "qemu")
        assert result.exit_code == 2
        assert "engine 'qemu': expected one of unicorn, kvm" in result.output


def test_engine_kvm_without_kvm(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> Kvm:
        return Kvm(Path("/nowhere/kvm"))

    monkeypatch.setattr(vmm.engine.kvm.probe, "Kvm", gone)
    vmm.engine.kvm.probe.probe.cache_clear()
    result = run("run", "portstorm", "--engine", "kvm")
    vmm.engine.kvm.probe.probe.cache_clear()
    assert result.exit_code == 2
    assert "/nowhere/kvm does not exist: no KVM in this kernel" in result.output


@pytest.mark.usefixtures("kvm_here")
def test_run_on_kvm(run: Callable[..., Result], run_json: Callable[..., Json]) -> None:
    line = ("portstorm", "--engine", "kvm", "--append", "rounds=3")
    value = run_json("run", *line)
    assert (value["engine"], value["policy"], value["outcome"]) == ("kvm", "kvm", "passed")
    assert value["instructions"] is None
    assert value["engine_events"]["kvm_exit_io"] == value["exits"]["total"]
    result = run("run", *line)
    assert result.exit_code == 0
    assert "policy kvm, engine kvm: 0." in result.stdout


@pytest.mark.usefixtures("kvm_here")
def test_a_paged_guest_on_a_host_that_cannot(run: Callable[..., Result]) -> None:
    if ability("paging_32"):
        pytest.skip("KVM pages in 32-bit mode here")
    result = run("run", "forkstorm", "--engine", "kvm")
    assert result.exit_code == 2
    assert "the guest needs 32-bit paging" in result.output
    assert "use --engine unicorn" in result.output
    assert "Traceback" not in result.output


@pytest.mark.usefixtures("kvm_here")
def test_compare_shows_both_and_explains(
    run: Callable[..., Result], run_json: Callable[..., Json]
) -> None:
    line = ("portstorm", "--engines", "unicorn,kvm", "--roms", "none,batching")
    line = (*line, "--append", "rounds=3")
    value = run_json("compare", *line)
    pairs = [(each["engine"], each["rom"]["flavour"]) for each in value["runs"]]
    assert pairs == [
        ("unicorn", "none"),
        ("unicorn", "batching"),
        ("kvm", "none"),
        ("kvm", "batching"),
    ]
    saved = {(each["engine"], each["rom"]): each["by_reason"]["io"] for each in value["saved"]}
    assert saved["kvm", "none"]["exits"] == 0
    assert saved["kvm", "batching"] == saved["unicorn", "batching"]
    assert [each["heavy_equal"] for each in value["engines"]] == [True, True]
    result = run("compare", *line)
    assert "Heavy exits, those of devices, are equal" in result.stdout
    assert "hardware-assisted paging" in result.stdout


@pytest.mark.usefixtures("kvm_here")
@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--policy", "npt"), "policy 'npt': engine kvm runs on this host's processor"),
        (("--max-instructions", "5"), "engine kvm counts none; limit the seconds"),
        (("--trace", "nowhere.json"), "engine kvm records no single exits"),
        (("-i",), "-i needs engine unicorn"),
        (("--check",), "engine kvm has none"),
    ],
)
def test_what_it_refuses(run: Callable[..., Result], option: tuple[str, ...], message: str) -> None:
    result = run("run", "portstorm", "--engine", "kvm", *option)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_a_time_limit_on_the_other_engine(run_json: Callable[..., Json], run: Any) -> None:
    result = run("run", "forkstorm", "--seconds", "0.2", "--append", "rounds=1000000", "--json")
    assert result.exit_code == 1
    assert '"outcome": "limit"' in result.stdout


def test_until_ends_a_run(run_json: Callable[..., Json]) -> None:
    value = run_json("run", "portstorm", "--until", "VMI: no ROM", "--append", "rounds=1000000")
    assert value["outcome"] == "passed"
    assert "VMI: no ROM" in value["console"]
    assert "portstorm:" not in value["console"]
