"""Ring 3 code in a box: every way out is the function's, and none leads anywhere else."""

from __future__ import annotations

import random
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from linker.link import link
from linker.script_parser import parse_script
from rombuilder.assembler import assemble_text
from vmm.core.errors import BadDescription
from vmm.sandbox import Ending, EndingKind, Event, Fault, PortRead, PortWrite, Sandbox, SystemCall

CODE, DATA, STACK = 0x100000, 0x200000, 0x301000
EXIT = "\nmov $1, %eax\nint $0x80\n"
K = EndingKind


def machine_code(source: str) -> bytes:
    script = parse_script(f"SECTIONS {{ . = {CODE:#x}; .text : {{ *(.text) }} }}")
    text = f"\t.text\n{textwrap.dedent(source)}\n"
    return bytes(link([assemble_text(text)], script).data)


class Box:
    """A sandbox whose system call 1 ends the run with EBX, and that keeps what came."""

    def __init__(self, source: str, **about: int) -> None:
        self.events: list[Event] = []
        self.answers: Callable[[Sandbox, Event], bool] = lambda _box, _event: False
        self.sandbox = Sandbox(self.handle, **about)
        code = machine_code(source)
        self.sandbox.map(CODE, -(-len(code) // 4096) * 4096, writable=False, data=code)
        self.sandbox.map(DATA, 0x1000)
        self.sandbox.map(STACK - 0x1000, 0x1000)

    def handle(self, box: Sandbox, event: Event) -> bool:
        self.events.append(event)
        if event == SystemCall(0x80, box.get("eip")) and box.get("eax") == 1:
            box.stop(box.get("ebx"))
            return True
        return self.answers(box, event)

    def run(self, instructions: int = 100_000) -> Ending:
        return self.sandbox.run(CODE, stack=STACK, instructions=instructions)


def test_a_system_call_is_the_functions() -> None:
    box = Box("mov $42, %ebx" + EXIT)
    ending = box.run()
    assert (ending.kind, ending.value, ending.instructions) == (K.STOPPED, 42, 3)
    assert box.sandbox.get("eax") == 1


def test_results_go_back_in_registers_and_memory() -> None:
    box = Box(f"mov $5, %eax\nint $0x80\nadd {DATA:#x}, %eax\nmov %eax, %ebx" + EXIT)

    def answer(sandbox: Sandbox, event: Event) -> bool:
        sandbox.set("eax", 100)
        sandbox.write(DATA, b"\x0b\0\0\0")
        return isinstance(event, SystemCall)

    box.answers = answer
    assert box.run().value == 111


@pytest.mark.parametrize(
    ("source", "vector"),
    [("int $0x21", 0x21), ("int3", 3), ("mov $0x7fffffff, %eax\ninc %eax\ninto", 4)],
)
def test_other_software_interrupts(source: str, vector: int) -> None:
    ending = Box(source + EXIT).run()
    assert ending.kind is K.UNHANDLED
    assert isinstance(ending.event, SystemCall)
    assert ending.event.vector == vector


def test_sysenter_goes_on_behind_itself() -> None:
    box = Box("sysenter\nmov $9, %ebx" + EXIT)
    box.answers = lambda _box, event: isinstance(event, SystemCall) and event.vector is None
    assert box.run().value == 9


def test_ports_are_the_functions() -> None:
    box = Box(
        "in $0x60, %al\nmov %eax, %ebx\nmov $0x560, %edx\nin (%dx), %eax\nadd %eax, %ebx\n"
        "mov %ebx, %eax\nout %eax, (%dx)" + EXIT
    )

    def answer(_box: Sandbox, event: Event) -> bool:
        if isinstance(event, PortRead):
            event.value = event.port
        return isinstance(event, PortRead | PortWrite)

    box.answers = answer
    assert box.run().value == 0x60 + 0x560
    assert box.events[:3] == [
        PortRead(0x60, 1, 0x60),
        PortRead(0x560, 4, 0x560),
        PortWrite(0x560, 4, 0x5C0),
    ]


def test_memory_on_demand() -> None:
    box = Box(
        "mov $0x500000, %edi\nmov $8, %ecx\n1: movl $7, (%edi)\nadd $0x1000, %edi\ndec %ecx\n"
        "jnz 1b\nmov 0x507000, %ebx" + EXIT
    )

    def answer(sandbox: Sandbox, event: Event) -> bool:
        if not isinstance(event, Fault) or not event.is_page_fault:
            return False
        assert event.target is not None
        assert event.error == 6
        sandbox.map(event.target & ~0xFFF, 0x1000)
        return True

    box.answers = answer
    assert box.run().value == 7
    assert sum(isinstance(event, Fault) for event in box.events) == 8
    assert box.sandbox.mapped == (3 + 8) * 0x1000


@pytest.mark.parametrize(
    ("source", "vector", "error"),
    [
        ("mov 0xc0000000, %eax", 14, 5),
        ("mov 0, %eax", 14, 4),
        ("movl $0, 0x100000", 14, 7),
        ("mov $0xc0000000, %eax\njmp *%eax", 14, 5),
        ("hlt", 13, 0),
        ("mov %cr0, %eax", 13, 0),
        ("mov %eax, %cr3", 13, 0),
        ("lgdt 0x200000", 13, 0),
        ("lidt 0x200000", 13, 0),
        ("ltr %ax", 13, 0),
        ("invlpg 0", 13, 0),
        ("wrmsr", 13, 0),
        ("wbinvd", 13, 0),
        ("mov %eax, %db7", 13, 0),
        ("push $0x08\npush $0\nlret", 13, 8),
        ("xor %ecx, %ecx\ndiv %ecx", 0, None),
        ("ud2", 6, None),
        ("mov $8, %eax\nmov %ax, %ds", 13, 8),
    ],
)
def test_the_kernels_things_are_out_of_reach(source: str, vector: int, error: int | None) -> None:
    ending = Box(source + EXIT).run()
    assert ending.kind is K.UNHANDLED
    assert isinstance(ending.event, Fault), ending
    assert (ending.event.vector, ending.event.error) == (vector, error)


def test_a_handled_fault_is_tried_again_and_may_be_stepped_over() -> None:
    box = Box("ud2\nmov $3, %ebx" + EXIT)

    def answer(sandbox: Sandbox, event: Event) -> bool:
        assert isinstance(event, Fault)
        sandbox.set("eip", event.address + 2)
        return True

    box.answers = answer
    assert box.run().value == 3


def test_a_fault_that_is_not_mended_does_not_go_on_for_ever() -> None:
    box = Box("ud2")
    box.answers = lambda _box, _event: True
    assert box.run().kind is K.STUCK


@pytest.mark.parametrize("limit", [1, 10, 12_345])
def test_the_instruction_limit(limit: int) -> None:
    ending = Box("1: inc %eax\njmp 1b").run(limit)
    assert ending.kind is K.LIMIT
    assert ending.instructions <= limit
    assert ending.instructions >= limit - 2


def test_the_memory_limit_and_bad_ranges() -> None:
    box = Sandbox(lambda _box, _event: False, memory=0x4000)
    box.map(0x1000, 0x3000)
    for address, size, reason in (
        (0x8000, 0x2000, "0x1000 of the sandbox's memory are left"),
        (0x8001, 0x1000, "expected whole pages"),
        (0x8000, 0, "expected whole pages"),
        (0xC0000000, 0x1000, "below 0xc0000000"),
        (0xBFFFF000, 0x2000, "below 0xc0000000"),
        (0x3000, 0x1000, "mapped already"),
    ):
        with pytest.raises(BadDescription, match=reason):
            box.map(address, size)
    assert box.mapped == 0x3000
    with pytest.raises(BadDescription, match="0x4000 is not mapped"):
        box.write(0x3FF0, bytes(0x11))
    assert box.read(0x3FF0, 0x10) == bytes(0x10)
    with pytest.raises(BadDescription, match="expected one of eax"):
        box.get("cr3")


def test_an_exception_of_the_function_comes_out() -> None:
    class OwnError(Exception):
        pass

    def handle(_box: Sandbox, _event: Event) -> bool:
        raise OwnError

    for source in ("int $0x80", "in $0x60, %al"):
        box = Sandbox(handle)
        box.map(CODE, 0x1000, data=machine_code(source))
        with pytest.raises(OwnError):
            box.run(CODE)


def test_runs_go_on_where_registers_were() -> None:
    box = Box("inc %ebx" + EXIT)
    assert [box.run().value for _ in range(3)] == [1, 2, 3]


def test_the_same_code_counts_the_same() -> None:
    source = "mov $1000, %ecx\n1: push %ecx\npop %eax\nloop 1b" + EXIT
    first, second = Box(source).run(), Box(source).run()
    assert first == second


def test_random_code_stays_in_the_box() -> None:
    """Whatever the bytes are, a run ends, and memory that is not the code's stays as it was."""
    numbers = random.Random(7)  # noqa: S311 - nothing is to be kept secret
    for _ in range(150):
        box = Sandbox(lambda _box, event: isinstance(event, PortRead | PortWrite))
        box.map(CODE, 0x1000, writable=False, data=numbers.randbytes(64))
        box.map(DATA, 0x1000)
        box.map(STACK - 0x1000, 0x1000)
        for register in ("eax", "ecx", "edx", "ebx", "ebp", "esi", "edi"):
            box.set(register, numbers.choice([DATA + 64, STACK - 64, numbers.getrandbits(32)]))
        code = box.read(CODE, 0x1000)
        ending = box.run(CODE, stack=STACK - 16, instructions=2_000)
        assert ending.instructions <= 2_000
        assert box.read(CODE, 0x1000) == code
        assert box.mapped == 0x3000


def test_the_how_to_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "howto-sandbox.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    exec(compile(code, "howto-sandbox.md", "exec"), {"__name__": "example"})  # noqa: S102
    assert "value=42" in capsys.readouterr().out
