import ctypes
import mmap
import struct

import pytest
import unicorn
from unicorn import Uc
from unicorn import unicorn_const as const
from unicorn import x86_const as x86

from vmm.core.errors import EngineFailure
from vmm.engine import calibration
from vmm.engine import unicorn as engine
from vmm.engine.calibration import (
    WALKER,
    address_of,
    data_of,
    engine_handle,
    library,
    locate_state,
    locate_walker,
    trust_memory,
)
from vmm.engine.unicorn import UnicornEngine


@pytest.fixture
def uc() -> Uc:
    uc = Uc(const.UC_ARCH_X86, const.UC_MODE_32)
    uc.ctl_set_cpu_model(x86.UC_CPU_X86_COREDUO)
    return uc


@pytest.mark.parametrize(
    ("register", "index"),
    [(x86.UC_X86_REG_EAX, 0), (x86.UC_X86_REG_EDI, 7), (x86.UC_X86_REG_EIP, 16)],
)
def test_the_state_is_the_engines_own(uc: Uc, register: int, index: int) -> None:
    found = locate_state(uc)
    uc.reg_write(register, 0x1234567)
    state = (ctypes.c_uint64 * 32).from_address(found.address)
    assert state[index] == 0x1234567
    state[index] = 0x7654321
    assert uc.reg_read(register) == 0x7654321


def test_calibration_leaves_no_trace(uc: Uc) -> None:
    locate_state(uc)
    for register in (x86.UC_X86_REG_DR0, x86.UC_X86_REG_DR3, x86.UC_X86_REG_EIP):
        assert uc.reg_read(register) == 0


def test_a_copy_of_the_state_is_not_taken_for_it(uc: Uc, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it may lie behind an old pointer, in memory that was freed, with a pointer to it."""
    stray = (ctypes.c_uint64 * 512)()
    at = ctypes.addressof(stray)
    stray[0] = at + 64
    read, saved = calibration._read_self, calibration._saved_context

    def saved_twice(uc: Uc) -> bytes:
        context = saved(uc)
        begin = context.find(struct.pack("<Q", calibration._MAGIC_EIP)) - calibration._EIP_OFFSET
        ctypes.memmove(at + 64, context[begin:], calibration._MATCH)
        return context

    def read_and_stray(address: int, size: int) -> bytes:
        found = read(address, size)
        return found + struct.pack("<Q", at) if address == engine_handle(uc) else found

    monkeypatch.setattr(calibration, "_saved_context", saved_twice)
    monkeypatch.setattr(calibration, "_read_self", read_and_stray)
    assert not at <= locate_state(uc).address < at + ctypes.sizeof(stray)


def test_a_context_without_the_marks_is_refused(uc: Uc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_saved_context", lambda _uc: bytes(4096))
    with pytest.raises(EngineFailure, match="not found exactly once"):
        locate_state(uc)


def test_a_handle_without_the_state_is_refused(uc: Uc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_read_self", lambda _address, _size: bytes(64))
    with pytest.raises(EngineFailure, match="not found behind the engine's handle"):
        locate_state(uc)


def test_the_pointer_to_the_walker_is_found(uc: Uc) -> None:
    at = locate_walker(uc, locate_state(uc).cpu)
    assert ctypes.c_size_t.from_address(at).value == address_of(WALKER)
    uc.ctl_set_tlb_mode(const.UC_TLB_VIRTUAL)
    assert ctypes.c_size_t.from_address(at).value == address_of("unicorn_fill_tlb_x86_64")


def test_a_cpu_without_the_pointer_is_refused(uc: Uc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_read_self", lambda _address, _size: bytes(64))
    with pytest.raises(EngineFailure, match="0 pointers to x86_cpu_tlb_fill_x86_64, expected one"):
        locate_walker(uc, 0x1000)


def test_a_block_with_stores_is_translated_without_looks_at_a_stop_request(uc: Uc) -> None:
    uc.mem_map(0x1000, 0x2000)
    uc.mem_write(0x1000, b"\xa3\x00\x20\x00\x00" * 8 + b"\xeb\x00")
    looked = []
    uc.hook_add(const.UC_HOOK_MEM_WRITE, lambda *_: (looked.append(1), uc.emu_stop()))
    uc.emu_start(0x1000, 0x102A)
    assert len(looked) == 1
    uc.ctl_flush_tb()
    trust_memory(uc, address_of("check_exit_request_x86_64"))
    uc.emu_start(0x1000, 0x102A)
    assert len(looked) == 1 + 8


def test_code_that_looks_otherwise_is_not_trusted(uc: Uc) -> None:
    with pytest.raises(EngineFailure, match="does not test the flag"):
        trust_memory(uc, address_of("uc_emu_start"))


def test_code_calls_back_with_the_data_of_when_it_was_translated(uc: Uc) -> None:
    """The first of four jumps before the data has changed, the third one since."""
    uc.mem_map(0x1000, 0x1000)
    uc.mem_write(0x1000, b"\xeb\x00" * 4)
    seen: list[tuple[int, int]] = []
    kind = ctypes.CFUNCTYPE(
        None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p
    )
    called = kind(lambda _uc, address, _size, data: seen.append((address, data)))
    callback = (ctypes.cast(called, ctypes.c_void_p).value or 0, 7)
    hook = ctypes.c_size_t()
    everywhere = (ctypes.c_uint64(1), ctypes.c_uint64(0))
    status = library().uc_hook_add(
        ctypes.c_void_p(engine_handle(uc)),
        ctypes.byref(hook),
        ctypes.c_int(const.UC_HOOK_BLOCK),
        *map(ctypes.c_void_p, callback),
        *everywhere,
    )
    assert status == 0
    data = ctypes.c_size_t.from_address(data_of(hook, callback))
    uc.emu_start(0x1000, 0x1004)
    data.value = 9
    uc.emu_start(0x1000, 0x1004)
    uc.emu_start(0x1002, 0x1006)
    assert [data for address, data in seen if address == 0x1000] == [7, 7]
    assert [data for address, data in seen if address == 0x1004] == [9]
    with pytest.raises(EngineFailure, match="unknown places"):
        data_of(hook, (callback[0], 8))


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unicorn, "__version__", "2.0.1")
    with pytest.raises(EngineFailure, match=r"2\.0\.1 is installed"):
        UnicornEngine(mmap.mmap(-1, 4 << 20), mmap.mmap(-1, 1 << 20))


def test_the_windows_and_the_pool_are_apart() -> None:
    pool = engine.POOL_ADDRESS
    scratch = engine._SCRATCH_ADDRESS
    window = engine.WINDOW_ADDRESS
    assert pool + (2048 << 12) <= scratch < scratch + engine._SCRATCH_SIZE <= window
    assert window + engine.WINDOW_COUNT * 4096 <= 1 << 32
