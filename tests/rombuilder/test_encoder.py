from pathlib import Path

import pytest

from rombuilder.encoder import Encoder, Encoding
from rombuilder.errors import EncoderError


def test_fields_are_found_by_width() -> None:
    encoder = Encoder()
    assert encoder.encode(32, "mov ${0}, %eax", ((4, 2, 1),)) == Encoding(
        b"\xb8\0\0\0\0", ((1, 4),)
    )
    assert encoder.encode(32, "movw ${0}, {1}(%eax)", ((4, 2, 1), (4,))) == Encoding(
        bytes.fromhex("66c780 00000000 0000"), ((7, 2), (3, 4))
    )
    assert encoder.encode(16, "mov {0}, %ax", ((2,),)) == Encoding(b"\xa1\0\0", ((1, 2),))
    assert encoder.encode(16, "movl ${0}, %eax", ((4, 2, 1),)) == Encoding(
        b"\x66\xb8\0\0\0\0", ((2, 4),)
    )
    encoder.close()


def test_refusal_and_nonsense() -> None:
    encoder = Encoder()
    with pytest.raises(EncoderError, match="KS_ERR_ASM_MNEMONICFAIL"):
        encoder.encode(32, "frobnicate %eax")
    with pytest.raises(EncoderError, match="no encoding found"):
        encoder.encode(32, "cs mov")
    assert encoder.encode(32, "nop").code == b"\x90"
    encoder.close()


def test_a_crash_of_keystone_is_an_error_and_the_next_statement_works() -> None:
    encoder = Encoder()
    with pytest.raises(EncoderError, match=r"Keystone crashed on this statement \(worker status"):
        encoder.encode(32, ".text")
    assert encoder.encode(32, "nop").code == b"\x90"
    encoder.close()


def test_answers_are_remembered(tmp_path: Path) -> None:
    worker = tmp_path / "once.py"
    worker.write_text("print('[\"90\", []]', flush=True); input()")
    encoder = Encoder(worker)
    assert [encoder.encode(32, "nop").code for _ in range(3)] == [b"\x90"] * 3
    encoder.close()
