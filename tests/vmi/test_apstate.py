"""The layout of a processor's initial state is the one that Linux compiles."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmi.apstate import AP_STATE_SIZE, ApState

OFFSETS = {
    "cr0": 0,
    "cr2": 4,
    "cr3": 8,
    "cr4": 12,
    "efer": 16,
    "eip": 24,
    "eflags": 28,
    "eax": 32,
    "ebx": 36,
    "ecx": 40,
    "edx": 44,
    "esp": 48,
    "ebp": 52,
    "esi": 56,
    "edi": 60,
    "cs": 64,
    "ss": 66,
    "ds": 68,
    "es": 70,
    "fs": 72,
    "gs": 74,
    "ldtr": 76,
    "gdtr_limit": 78,
    "gdtr_base": 80,
    "idtr_base": 84,
    "idtr_limit": 88,
}


def test_every_register_is_where_the_kernel_has_it() -> None:
    """gcc -m32 aligns the 64-bit EFER to 4 bytes; the whole is padded to a multiple of 4."""
    assert AP_STATE_SIZE == 92
    assert [field.name for field in fields(ApState)] == list(OFFSETS)
    for name, offset in OFFSETS.items():
        data = ApState(**{name: 0x5A}).encode()
        assert data[offset] == 0x5A
        assert sum(data) == 0x5A


@given(st.binary(min_size=AP_STATE_SIZE, max_size=AP_STATE_SIZE))
def test_a_state_survives(data: bytes) -> None:
    assert ApState.decode(data).encode() == data[:90] + bytes(2)


@pytest.mark.parametrize("size", [0, 90, 93])
def test_another_size_is_no_state(size: int) -> None:
    with pytest.raises(ValueError, match=f"processor state of {size} bytes, expected 92"):
        ApState.decode(bytes(size))
