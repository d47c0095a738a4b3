import pytest

from vmi.calls import CALLS, PORT_CALLS, Place, call_named, call_numbered
from vmi.symbols import assembler_symbols, render


def test_numbers_and_names_are_unique_and_complete() -> None:
    numbers = [call.number for call in CALLS]
    assert numbers == sorted(set(numbers))
    assert set(numbers) == set(range(74)) - {72}
    assert len({call.name for call in CALLS}) == len(CALLS)


def test_interrupt_flag_calls_touch_nothing() -> None:
    for name in ("EnableInterrupts", "DisableInterrupts", "SetInterruptMask"):
        call = call_named(name)
        assert call.clobbers == {Place.FLAGS}
        assert not call.data_segments


def test_port_calls_fill_the_gap() -> None:
    assert [call_numbered(n).name for n in PORT_CALLS] == (
        ["IN", "INB", "INW", "INS", "INSB", "INSW", "OUT", "OUTB", "OUTW", "OUTS", "OUTSB", "OUTSW"]
    )
    assert all(call_numbered(n).extension for n in PORT_CALLS)


def test_unknown_calls_are_refused_by_value() -> None:
    with pytest.raises(KeyError, match="no call 72"):
        call_numbered(72)
    with pytest.raises(KeyError, match="no call 'SetPXE'"):
        call_named("SetPXE")


def test_symbols_carry_the_interface() -> None:
    symbols = assembler_symbols()
    assert symbols["CALL_SetPxE"] == 38
    assert symbols["CALL_SetLazyMode"] == 73
    assert symbols["VMI_VROM_SIGNATURE"].to_bytes(4, "little") == b"cVmi"
    assert symbols["VMI_GET_RELOC_OFFSET"] == 0x88
    assert ".set CALL_IRET, 0x21\n" in render(symbols)
