import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.core.apicmessage import (
    MESSAGE_SIZE,
    MESSAGE_VERSION,
    ApicMessage,
    BadMessage,
    DeliveryMode,
    MessageFlag,
    MessageKind,
    message_signalled,
)

messages = st.builds(
    ApicMessage,
    st.sampled_from(MessageKind),
    st.sampled_from(DeliveryMode),
    st.integers(0, 7).map(MessageFlag),
    vector=st.integers(0, 0xFF),
    index=st.integers(0, 0xFFFF),
    destination=st.integers(0, 0xFFFFFFFF),
    value=st.integers(0, (1 << 64) - 1),
)


@given(messages)
def test_what_is_packed_is_unpacked(message: ApicMessage) -> None:
    packet = message.pack()
    assert len(packet) == MESSAGE_SIZE == 24
    assert ApicMessage.unpack(packet) == message


def test_the_bytes_of_version_1() -> None:
    """What another program was written against must not move."""
    message = ApicMessage(
        MessageKind.INTERRUPT,
        DeliveryMode.LOWEST_PRIORITY,
        MessageFlag.LOGICAL | MessageFlag.ASSERT | MessageFlag.LEVEL,
        vector=0x51,
        index=0x0203,
        destination=0x04050607,
        value=0x1122334455667788,
    )
    assert message.pack().hex(" ") == (
        "01 01 01 07 51 00 03 02 07 06 05 04 00 00 00 00 88 77 66 55 44 33 22 11"
    )


def test_one_message_is_one_packet() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        sent = [ApicMessage(MessageKind.EOI, vector=vector) for vector in (0x31, 0x41)]
        for message in sent:
            ours.send(message.pack())
        assert [ApicMessage.unpack(theirs.recv(64)) for _ in sent] == sent


@pytest.mark.parametrize(
    ("offset", "byte", "text"),
    [
        (0, 2, f"version 2, expected {MESSAGE_VERSION}"),
        (1, 0, "0 is not a valid MessageKind"),
        (1, 8, "8 is not a valid MessageKind"),
        (2, 3, "3 is not a valid DeliveryMode"),
        (3, 9, "0x8 is no flag"),
        (5, 1, "fields that are zero"),
        (13, 1, "fields that are zero"),
    ],
)
def test_what_means_nothing_is_refused(offset: int, byte: int, text: str) -> None:
    packet = bytearray(ApicMessage(MessageKind.EOI, vector=0x31).pack())
    packet[offset] = byte
    with pytest.raises(BadMessage, match=text):
        ApicMessage.unpack(bytes(packet))


@pytest.mark.parametrize("size", [0, 23, 25])
def test_another_length_is_refused(size: int) -> None:
    with pytest.raises(BadMessage, match=f"{size} bytes, expected 24"):
        ApicMessage.unpack(bytes(size))


@given(st.binary(max_size=40))
def test_no_bytes_do_harm(packet: bytes) -> None:
    try:
        message = ApicMessage.unpack(packet)
    except BadMessage:
        return
    assert message.pack() == packet


@pytest.mark.parametrize(
    ("address", "data", "delivery", "flags", "vector", "destination"),
    [
        (0xFEE00000, 0x0041, DeliveryMode.FIXED, MessageFlag.ASSERT, 0x41, 0),
        (0xFEE03000, 0x0141, DeliveryMode.LOWEST_PRIORITY, MessageFlag.ASSERT, 0x41, 3),
        (
            0xFEEFF00C,
            0xC431,
            DeliveryMode.NMI,
            MessageFlag.LOGICAL | MessageFlag.ASSERT | MessageFlag.LEVEL,
            0x31,
            0xFF,
        ),
        # The level goes low: level-triggered, not asserted.
        (0xFEE01000, 0x8031, DeliveryMode.FIXED, MessageFlag.LEVEL, 0x31, 1),
    ],
)
def test_address_and_data_of_an_msi(
    address: int,
    data: int,
    delivery: DeliveryMode,
    flags: MessageFlag,
    vector: int,
    destination: int,
) -> None:
    assert message_signalled(address, data) == ApicMessage(
        MessageKind.INTERRUPT, delivery, flags, vector=vector, destination=destination
    )


@pytest.mark.parametrize(
    ("address", "data", "text"),
    [
        (0xFED00000, 0x41, "0xfed00000, expected 0xfee00000-0xfeefffff"),
        (0xFEF00000, 0x41, "0xfef00000"),
        (0xFEE00000, 0x341, "delivery mode 3"),
    ],
)
def test_an_msi_that_is_none(address: int, data: int, text: str) -> None:
    with pytest.raises(BadMessage, match=text):
        message_signalled(address, data)
