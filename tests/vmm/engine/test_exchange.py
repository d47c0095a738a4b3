import ctypes

import pytest

from vmm.core.errors import EngineFailure
from vmm.engine import exchange
from vmm.engine.calibration import address_of
from vmm.engine.exchange import make_exchange_atomic

NAMES = sorted(exchange._TAILS)


def code(name: str, size: int = 40) -> bytes:
    return ctypes.string_at(address_of(name), size)


@pytest.mark.parametrize("name", NAMES)
def test_each_helper_exchanges(name: str) -> None:
    make_exchange_atomic()
    tail = code(name)[exchange._TAIL_AT :]
    assert tail.lstrip(b"\x66")[0] in {0x86, 0x87}
    assert tail.startswith(bytes.fromhex(exchange._TAILS[name][1]))


def test_once_is_enough() -> None:
    make_exchange_atomic()
    before = [code(name) for name in NAMES]
    make_exchange_atomic()
    assert [code(name) for name in NAMES] == before


def test_other_code_is_refused_and_nothing_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [code(name) for name in NAMES]
    monkeypatch.setattr(exchange, "_TAILS", {NAMES[-1]: ("90 90 c3", "90 90 c3")})
    with pytest.raises(EngineFailure, match=f"between threads: {NAMES[-1]} is 53 89 d3"):
        make_exchange_atomic.__wrapped__()
    assert [code(name) for name in NAMES] == before


def test_a_build_without_the_helper_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_TAILS", {"helper_of_another_build": ("c3", "c3")})
    with pytest.raises(EngineFailure, match="exports no helper_of_another_build"):
        make_exchange_atomic.__wrapped__()


def test_a_host_that_protects_code_is_told_of() -> None:
    with pytest.raises(EngineFailure, match=r"between threads: .*mprotect"):
        exchange._replace(0x1000, b"\xc3")
