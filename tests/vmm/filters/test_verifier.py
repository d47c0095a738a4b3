"""What may run and what must not: programs that mean harm."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vmi.address import Port
from vmm.filters.isa import Instruction
from vmm.filters.program import FilterProgram, PortRange
from vmm.filters.verifier import RejectedFilter, verify

Make = Callable[..., FilterProgram]

HOSTILE = {
    # Places that are not the program's.
    "reads behind the state": ("r2 = state ll\nr0 = *(u64 *)(r2 + 25)\nexit", "outside its 32"),
    "reads in front of the state": ("r2 = state ll\nr0 = *(u8 *)(r2 - 1)\nexit", "outside its 32"),
    "writes behind the state": ("r2 = state ll\n*(u8 *)(r2 + 32) = 1\nexit", "outside its 32"),
    "a state address far off": ("r2 = state + 32 ll\nr0 = *(u8 *)(r2 + 0)\nexit", "outside its 32"),
    "an index without bound": (
        "r2 = state ll\nr3 = *(u64 *)(r1 + 8)\nr2 += r3\nr0 = *(u8 *)(r2 + 0)\nexit",
        "without bound",
    ),
    "an index one too large": (
        "r2 = state ll\nr3 = *(u32 *)(r1 + 0)\nr3 &= 31\nr2 += r3\nr0 = *(u16 *)(r2 + 0)\nexit",
        "outside its 32",
    ),
    "an index checked as signed only": (
        (
            "r2 = state ll\nr3 = *(u64 *)(r1 + 8)\nif r3 s> 31 goto out\nr2 += r3\n"
            "r0 = *(u8 *)(r2 + 0)\nexit\nout: r0 = 0\nexit"
        ),
        "without bound",
    ),
    "an index checked in its lower half only": (
        (
            "r2 = state ll\nr3 = *(u64 *)(r1 + 8)\nif w3 > 31 goto out\nr2 += r3\n"
            "r0 = *(u8 *)(r2 + 0)\nexit\nout: r0 = 0\nexit"
        ),
        "without bound",
    ),
    "an index checked the wrong way round": (
        (
            "r2 = state ll\nr3 = *(u32 *)(r1 + 0)\nif r3 < 32 goto out\nr2 += r3\n"
            "r0 = *(u8 *)(r2 + 0)\nexit\nout: r0 = 0\nexit"
        ),
        "without bound|outside its 32",
    ),
    "an index checked after its use": (
        (
            "r2 = state ll\nr3 = *(u16 *)(r2 + 0)\nr2 += r3\nr0 = *(u8 *)(r2 + 0)\n"
            "if r3 > 31 goto out\nout: r0 = 0\nexit"
        ),
        "outside its 32",
    ),
    "a loaded index that wraps": (
        (
            "r2 = state ll\nr3 = *(u64 *)(r2 + 0)\nr3 += 1\nif r3 > 16 goto out\nr3 -= 1\n"
            "r2 += r3\n"
            "r0 = *(u8 *)(r2 + 0)\nexit\nout: r0 = 0\nexit"
        ),
        "without bound|outside its 32",
    ),
    "climbs out step by step": (
        (
            "r2 = state ll\nr3 = 0\nl: r2 += 8\nr3 += 1\n*(u64 *)(r2 + 0) = 1\n"
            "if r3 < 4 goto l\nr0 = 0\nexit"
        ),
        "outside its 32",
    ),
    "reads behind the context": ("r0 = *(u32 *)(r1 + 24)\nexit", "outside its 24"),
    "reads in front of the context": ("r0 = *(u32 *)(r1 - 4)\nexit", "outside its 24"),
    "reads across fields of the context": ("r0 = *(u64 *)(r1 + 4)\nexit", "no field"),
    "reads half a field of the context": ("r0 = *(u16 *)(r1 + 8)\nexit", "no field"),
    "reads padding of the context": ("r0 = *(u32 *)(r1 + 20)\nexit", "no field"),
    "writes the port": ("*(u32 *)(r1 + 0) = 1\nr0 = 0\nexit", "reading only"),
    "writes the time": ("r0 = 0\n*(u64 *)(r1 + 8) = r0\nexit", "reading only"),
    "a place in the context that varies": (
        "r2 = *(u32 *)(r1 + 0)\nr2 &= 4\nr1 += r2\nr0 = *(u32 *)(r1 + 0)\nexit",
        "varies",
    ),
    "locks the context": ("r2 = 1\nlock *(u32 *)(r1 + 16) += r2\nr0 = 0\nexit", "atomic"),
    "reads above the stack": ("r0 = *(u8 *)(r10 + 0)\nexit", "outside the frame's 512"),
    "reads below the stack": ("r0 = *(u8 *)(r10 - 513)\nexit", "outside the frame's 512"),
    "writes below the stack": ("*(u64 *)(r10 - 516) = 1\nexit", "outside the frame's 512"),
    "writes above the stack": ("*(u64 *)(r10 - 4) = 1\nexit", "outside the frame's 512"),
    "a place on the stack that varies": (
        (
            "r2 = *(u32 *)(r1 + 0)\nr2 &= 7\nr3 = r10\nr3 -= 8\nr3 += r2\n*(u8 *)(r3 + 0) = 1\n"
            "r0 = 0\nexit"
        ),
        "varies",
    ),
    "a number as an address": ("r2 = 0x10000 ll\nr0 = *(u64 *)(r2 + 0)\nexit", "a number"),
    "a null address": ("r2 = 0\nr0 = *(u64 *)(r2 + 0)\nexit", "a number"),
    "a loaded address": (
        "r2 = state ll\nr3 = *(u64 *)(r2 + 0)\nr0 = *(u8 *)(r3 + 0)\nexit",
        "a number",
    ),
    "an address put together on the stack": (
        (
            "*(u64 *)(r10 - 8) = r1\n*(u8 *)(r10 - 8) = 8\nr2 = *(u64 *)(r10 - 8)\n"
            "r0 = *(u32 *)(r2 + 0)\nexit"
        ),
        "never written|a number",
    ),
    # What was never written.
    "r0 is never set": ("exit", "r0 is read and was never written"),
    "reads a register never set": ("r0 = r7\nexit", "r7 is read"),
    "adds to a register never set": ("r0 += 1\nexit", "r0 is read"),
    "reads the stack unwritten": ("r0 = *(u64 *)(r10 - 8)\nexit", "never written"),
    "reads the stack half written": (
        "*(u32 *)(r10 - 8) = 1\nr0 = *(u64 *)(r10 - 8)\nexit",
        "never written",
    ),
    "set on one way only": (
        "r2 = *(u32 *)(r1 + 0)\nif r2 == 64 goto l\nr0 = 0\nl: exit",
        "r0 is read",
    ),
    "arguments after a call": ("call f\nr0 = r1\nexit\nf: r0 = 0\nexit", "r1 is read"),
    "a caller's register in a function": (
        "r6 = 1\ncall f\nexit\nf: r0 = r6\nexit",
        "r6 is read",
    ),
    "a frame that is gone": (
        (
            "r1 = r10\nr1 -= 8\ncall f\nr1 = *(u64 *)(r10 - 8)\nr0 = *(u64 *)(r1 - 8)\nexit\n"
            "f: *(u64 *)(r10 - 8) = 1\n*(u64 *)(r1 + 0) = r10\nr0 = 0\nexit"
        ),
        "outlive",
    ),
    # Addresses that would get out.
    "answers with an address": ("r0 = r10\nexit", "r0 is an address"),
    "keeps an address in its state": ("r2 = state ll\n*(u64 *)(r2 + 0) = r10\nexit", "be kept"),
    "puts an address into the answer": ("*(u32 *)(r1 + 16) = r1\nexit", "be kept"),
    "half an address": ("w0 = w1\nexit", "become a number"),
    "an address by its bits": ("r0 = r1\nr0 &= 255\nexit", "arithmetic on an address"),
    "the difference of addresses": ("r0 = r10\nr0 -= r1\nexit", "two addresses"),
    "compares addresses": ("r0 = 0\nif r1 > r10 goto l\nr0 = 1\nl: exit", "is an address"),
    "compares an address with a number": ("r0 = 0\nif r1 == 0 goto l\nl: exit", "is an address"),
    "an address through the stack in parts": (
        "*(u64 *)(r10 - 8) = r1\nr0 = *(u32 *)(r10 - 8)\nexit",
        "part of an address",
    ),
    "exchanges an address": (
        "r2 = state ll\nr3 = r1\nr3 = xchg_64(r2 + 0, r3)\nr0 = 0\nexit",
        "is an address",
    ),
    "swaps the bytes of an address": ("r0 = r1\nr0 = be64 r0\nexit", "is an address"),
    "negates an address": ("r0 = r1\nr0 = -r0\nexit", "is an address"),
    "multiplies an address": ("r0 = r1\nr0 *= 2\nexit", "arithmetic on an address"),
    "changes the frame pointer": ("r10 += 8\nr0 = 0\nexit", "reading only"),
    "loads the frame pointer": ("r10 = 0\nr0 = 0\nexit", "reading only"),
    # No end.
    "loops for ever": ("r0 = 0\nl: goto l\nexit", "is never reached|nothing is known to end"),
    "loops for ever and does nothing": (
        "r0 = 0\nl: if r0 == 0 goto l\nexit",
        "nothing is known to end",
    ),
    "loops as long as the guest likes": (
        "r0 = 0\nr2 = *(u32 *)(r1 + 0)\nl: r2 += 1\nif r2 != 0 goto l\nexit",
        "nothing is known to end|more than 4096",
    ),
    "loops as long as its state says": (
        "r2 = state ll\nl: r0 = *(u8 *)(r2 + 0)\nif r0 > 1 goto l\nexit",
        "nothing is known to end",
    ),
    "loops too long": ("r0 = 0\nl: r0 += 1\nif r0 < 3000 goto l\nr0 = 0\nexit", "more than 4096"),
    "loops in loops": (
        (
            "r0 = 0\nr2 = 0\no: r3 = 0\ni: r3 += 1\nif r3 < 100 goto i\nr2 += 1\n"
            "if r2 < 100 goto o\nexit"
        ),
        "more than 4096",
    ),
    "calls itself": ("call f\nexit\nf: call f\nr0 = 0\nexit", "more than 8 functions"),
    "counts backwards past zero": (
        "r0 = 0\nr2 = 3\nl: r2 -= 2\nif r2 != 0 goto l\nexit",
        "more than 4096",
    ),
    "runs over its end": ("r0 = 0", "over its end"),
    "runs over its end on one way": ("r0 = 0\nif r0 == 1 goto l\nexit\nl: r0 = 1", "over its end"),
    "has code nobody reaches": ("r0 = 0\nexit\nr0 = 1\nexit", "is never reached"),
    # Nonsense.
    "answers neither yes nor no": ("r0 = 2\nexit", "may be 0x2"),
    "answers anything": ("r0 = *(u32 *)(r1 + 0)\nexit", "may be"),
    "divides by zero": ("r0 = 1\nr0 /= 0\nexit", "division by"),
    "takes the rest of zero": ("r0 = 1\nr0 %= 0\nexit", "division by"),
    "shifts too far": ("r0 = 1\nr0 <<= 64\nexit", "shift by 64"),
    "shifts a half too far": ("w0 = 1\nw0 >>= 32\nexit", "shift by 32"),
    "shifts backwards": ("r0 = 1\nr0 <<= -1\nexit", "shift by -1"),
    "an atomic operation across words": (
        "r2 = state ll\nr3 = 1\nlock *(u64 *)(r2 + 4) += r3\nr0 = 0\nexit",
        "multiple of 8",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_harm_is_refused(program: Make, what: str) -> None:
    body, reason = HOSTILE[what]
    with pytest.raises(RejectedFilter, match=reason) as caught:
        verify(program(body))
    assert caught.value.reason
    assert f"instruction {caught.value.index}" in str(caught.value)


def test_there_are_enough_of_them() -> None:
    assert len(HOSTILE) >= 50


@pytest.mark.parametrize("target", [-100, 100, -2])
def test_jumps_out_of_the_program(target: int) -> None:
    code = (Instruction(0xB7), Instruction(0x05, offset=target), Instruction(0x95))
    with pytest.raises(
        RejectedFilter, match=r"outside the program's|nothing is known|never reached"
    ):
        verify(FilterProgram("test", (PortRange(Port(1), Port(1)),), code, b""))


def test_jump_into_a_wide_load() -> None:
    code = (Instruction(0x05, offset=1), Instruction(0x18), None, Instruction(0x95))
    with pytest.raises(RejectedFilter, match="middle of a wide load"):
        verify(FilterProgram("test", (), code, b""))


def test_length_and_complexity_are_bounded(program: Make) -> None:
    with pytest.raises(RejectedFilter, match="expected at most 4096"):
        verify(program("r0 = 0\n" * 5000 + "exit"))
    # Each turn doubles the number of different states.
    branches = "".join(
        f"r2 = *(u32 *)(r1 + 0)\nr2 &= {1 << n}\nif r2 == 0 goto l{n}\nr3 += {1 << n}\nl{n}:\n"
        for n in range(28)
    )
    with pytest.raises(RejectedFilter, match="too complex"):
        verify(program(f"r3 = 0\n{branches}\nr0 = 0\nexit"))


GOOD = {
    "answers nothing": ("r0 = 0\nexit", 2),
    "a bounded loop": ("r0 = 0\nr2 = 0\nl: r2 += 1\nif r2 < 100 goto l\nexit", 203),
    "a checked index": (
        (
            "r2 = state ll\nr3 = *(u32 *)(r1 + 0)\nif r3 >= 32 goto out\nr2 += r3\n"
            "r0 = *(u8 *)(r2 + 0)\nr0 &= 1\nexit\nout: r0 = 0\nexit"
        ),
        7,
    ),
    "an index checked as signed on both sides": (
        (
            "r2 = state ll\nr3 = *(u64 *)(r1 + 8)\nif r3 s< 0 goto out\nif r3 s> 31 goto out\n"
            "r2 += r3\n"
            "r0 = *(u8 *)(r2 + 0)\nr0 &= 1\nexit\nout: r0 = 0\nexit"
        ),
        8,
    ),
    "an address kept on the stack": (
        "*(u64 *)(r10 - 8) = r1\nr2 = *(u64 *)(r10 - 8)\nr0 = *(u32 *)(r2 + 4)\nr0 &= 1\nexit",
        5,
    ),
    "a function that writes its caller's frame": (
        (
            "r1 = r10\nr1 -= 8\ncall f\nr0 = *(u64 *)(r10 - 8)\nr0 &= 1\nexit\n"
            "f: *(u64 *)(r1 + 0) = 1\nr0 = 0\nexit"
        ),
        9,
    ),
    "a division that may be by zero": (
        "r0 = 1\nr2 = *(u32 *)(r1 + 0)\nr0 /= r2\nr0 &= 1\nexit",
        5,
    ),
}


@pytest.mark.parametrize("what", GOOD)
def test_what_is_harmless_may_run(program: Make, what: str) -> None:
    body, longest = GOOD[what]
    assert verify(program(body)) == longest


def test_the_message_names_line_and_instruction(program: Make) -> None:
    with pytest.raises(RejectedFilter) as caught:
        verify(program("r2 = state ll\nr0 = *(u64 *)(r2 + 25)\nexit"))
    assert str(caught.value) == (
        "test:3: instruction 2 (r0 = *(u64 *)(r2 + 25)): "
        "read of 8 bytes at the state+25, outside its 32 bytes"
    )
    assert (caught.value.index, caught.value.instruction) == (2, "r0 = *(u64 *)(r2 + 25)")
