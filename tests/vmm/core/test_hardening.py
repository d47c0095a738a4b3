"""Bounds checks are on in all compiled code, and hold where the GIL is let go."""

import re
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from vmm.core import is_compiled
from vmm.core.code.lengths import LengthDecoder
from vmm.core.errors import EngineFailure
from vmm.core.outcome import OutcomeKind
from vmm.core.ports.filtervm import FilterFault, FilterMachine
from vmm.core.run.swallowed import stopping_at_errors

ROOT = Path(__file__).resolve().parents[3]
CORE = ROOT / "vmm/core"


def test_no_function_turns_bounds_checks_off() -> None:
    assert '"boundscheck": True' in (ROOT / "setup.py").read_text()
    switches = re.compile(r"boundscheck|wraparound|initializedcheck|cython:|# *distutils")
    for path in [*CORE.rglob("*.py"), *CORE.rglob("*.pxd")]:
        assert not switches.search(path.read_text()), path


def test_the_gil_is_let_go_at_blocks_and_tlb_misses_alone() -> None:
    """What these need (docs/hardening.md); one more module needs a reason there."""
    without = {
        path.relative_to(CORE).with_suffix("").as_posix()
        for path in CORE.rglob("*.pxd")
        if " nogil" in path.read_text()
    }
    assert without == {
        "code/blocks",
        "code/blocktable",
        "cpu/blockentry",
        "cpu/cpustate",
        "cpu/gate",
        "code/inline",
        "memory",
        "native",
        "code/romcalls",
        "cpu/sharedcpu",
        "code/strings",
        "mmu/tlbfill",
    }


@pytest.mark.skipif(not is_compiled(), reason="the core is not compiled")
@pytest.mark.parametrize("at", [16, 1 << 20, 0xFFFFFFF0])
def test_a_compiled_index_out_of_bounds_is_an_error(at: int) -> None:
    with pytest.raises(IndexError):
        LengthDecoder(bytearray(16)).length(at, 0xFFFFFFFF, 1)


@pytest.mark.skipif(not is_compiled(), reason="the core is not compiled")
def test_bounds_hold_without_the_gil(tiny_guest, make_machine) -> None:
    """A sweep that damaged tables would lead outside the shadow ends the run.

    The second one: at the first the block is not known, and its code is read.
    """
    source = """
start:	PAGING
	movl $0, 0x200000
	xor %eax, %eax
	cld
	mov $2, %ebp
again:	mov $0x200000, %edi
	mov $100, %ecx
	PAUSED
	rep stosl
	dec %ebp
	jnz again
	FINISH 0
	"""
    machine = make_machine(tiny_guest(source.replace("PAUSED", "clts")))
    entries = machine.vcpu.shadow.pages.snapshot()["entries"]

    def damage() -> None:
        if machine.vcpu.cpu.reg(1) == 100 and machine.vcpu.cpu.reg(5) == 1:
            for root in range(512):
                entries[root] = 0x7FFFF001 if entries[root] & 1 else 0

    machine.vcpu.after_exit = damage
    told = sys.unraisablehook
    outcome = machine.run().outcome
    assert outcome.kind is OutcomeKind.ENGINE_FAILURE
    assert outcome.detail.startswith("vmm.core.code.strings.StringSweep.physical: IndexError")
    assert sys.unraisablehook is told


def test_errors_of_others_are_told_as_before(monkeypatch) -> None:
    """What is not the core's, or not this thread's, ends nobody's run."""
    told, ended = [], []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    def tell(name: object) -> None:
        sys.unraisablehook(
            SimpleNamespace(object=name, exc_type=IndexError, exc_value=IndexError("out"))
        )

    with stopping_at_errors(ended.append):
        tell("some.other.function")
        other = threading.Thread(target=tell, args=("vmm.core.memory.GuestMemory.host",))
        other.start()
        other.join()
        assert len(told) == 2
        assert not ended
        with stopping_at_errors(told.append):
            tell("vmm.core.memory.GuestMemory.host")
        assert isinstance(told.pop(), EngineFailure)
        tell("vmm.core.memory.GuestMemory.host")
    assert [str(error) for error in ended] == ["vmm.core.memory.GuestMemory.host: IndexError: out"]
    tell("vmm.core.memory.GuestMemory.host")
    assert len(told) == 3


def rows(*instructions: tuple[int, int, int, int, int]) -> FilterMachine:
    return FilterMachine([*instructions, (0x95, 0, 0, 0, 0)], bytes(8))


@pytest.mark.parametrize(("dst", "src"), [(11, 0), (0, 11), (15, 15), (-1, 0)])
def test_a_filter_has_eleven_registers(dst: int, src: int) -> None:
    with pytest.raises(FilterFault, match="registers"):
        rows((0xBF, dst, src, 0, 0))


@pytest.mark.parametrize("bits", [1, 7, 64, 65, 100, -8])
def test_a_filter_extends_signs_of_three_sizes(bits: int) -> None:
    with pytest.raises(FilterFault, match="sign"):
        rows((0xBF, 0, 1, bits, 0)).execute()


@pytest.mark.parametrize("bits", [0, 8, 24, 65, 127])
def test_a_filter_orders_bytes_of_three_sizes(bits: int) -> None:
    with pytest.raises(FilterFault, match="order"):
        rows((0xD7, 0, 0, 0, bits)).execute()
