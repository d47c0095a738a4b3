import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmi.address import GuestPhysical
from vmi.flags import PageFlag
from vmi.queue import DRAINED, Record, RecordKind

entries = st.integers(0, 0x3FFF_FFFF).map(lambda n: n << 2)
pages = st.integers(0, 0xF_FFFF).map(lambda n: n << 12)


@given(entries)
def test_entry_record_survives_encoding(address: int) -> None:
    record = Record(RecordKind.ENTRY, GuestPhysical(address))
    assert Record.decode(record.encode()) == record
    assert record.encode() != 0


@given(
    st.sampled_from([RecordKind.ALLOCATE, RecordKind.RELEASE]),
    pages,
    st.integers(0, 0x7F).map(PageFlag),
)
def test_page_record_survives_encoding(kind: RecordKind, address: int, flags: PageFlag) -> None:
    record = Record(kind, GuestPhysical(address), flags)
    assert Record.decode(record.encode()) == record


@pytest.mark.parametrize("word", [0, DRAINED])
def test_empty_slots_are_no_records(word: int) -> None:
    with pytest.raises(ValueError, match="has no kind"):
        Record.decode(word)
