"""Fuzzed parts of the core that need no machine: port filters, lengths, the local APIC."""

import random
from typing import Any

from vmm.core.code.lengths import LengthDecoder
from vmm.core.localapic import LocalApic
from vmm.core.ports.filtervm import FilterFault, FilterMachine
from vmm.core.timers import Timers

Job = dict[str, Any]
Answer = tuple[dict[str, Any], list[str]]

U64 = (1 << 64) - 1
FILTER_BASE, FILTER_END = 0x10000, 0x11060
NUMBERS = (0, 1, 7, 8, 63, 64, 0x7F, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 63, U64)


def number(noise: random.Random, bits: int) -> int:
    """A number, often at an edge."""
    if noise.random() < 0.5:
        return (noise.choice(NUMBERS) + noise.randint(-2, 2)) & ((1 << bits) - 1)
    return noise.getrandbits(noise.randint(1, bits))


# ---- port filters, as no verifier would let them through


def filter_row(noise: random.Random, length: int) -> list[int]:
    """One instruction; many jump within the program, and load and store near its memory."""
    opcode = noise.getrandbits(8)
    dst, src = (noise.randrange(11 + (noise.random() < 0.01)) for _ in range(2))
    offset = noise.choice((0, 1, 2, 8, 16, 32, 64, noise.randint(-9, 9), noise.getrandbits(16)))
    offset = (offset & 0xFFFF) - ((offset & 0x8000) << 1)
    immediate = number(noise, 64)
    kind = noise.random()
    if kind < 0.2:
        opcode = 0x18
        immediate = noise.randint(FILTER_BASE - 9, FILTER_END + 9)
    elif kind < 0.3:
        opcode, immediate = 0x85, noise.randint(-length, length) & U64
        src = 1
    elif kind < 0.4:
        opcode, src = 0xDB if noise.random() < 0.5 else 0xC3, 2
        immediate = noise.choice((0, 1, 0x40, 0x50, 0xA0, 0xE1, 0xF1, 0xFF))
    elif kind < 0.5:
        opcode, immediate = noise.choice((0xD4, 0xDC, 0xD7)), noise.choice((8, 16, 32, 64, 127))
    elif kind < 0.55:
        opcode = 0x95
    elif kind < 0.85:
        # Arithmetic, of 32 and of 64 bits, with a register or a number.
        opcode = noise.randrange(14) << 4 | noise.choice((4, 7, 0xC, 0xF))
        offset = noise.choice((0, 0, 1, 8, 16, 32))
    return [opcode, dst, src, offset, immediate]


def filters(noise: random.Random) -> Job:
    length = noise.randint(1, 24)
    return {
        "values": [number(noise, 64) for _ in range(10)],
        "reads": [[number(noise, 32), noise.choice((1, 2, 4)), number(noise, 64)]],
        "parts": [filter_row(noise, length) for _ in range(length)],
    }


AFTER = [
    (0x18, 10, 6, 0, 0),
    (0, 0, 0, 0, 0),
    *((0x7B, 10, number, 8 * number, 0) for number in range(10)),
    (0xB7, 0, 0, 0, 1),
    (0x95, 0, 0, 0, 0),
]
"""Store the registers to the program's state, which is what there is to compare."""


def before(values: list[int]) -> list[tuple[int, int, int, int, int]]:
    """Load the registers."""
    rows = [[(0x18, register, 0, 0, value), (0,) * 5] for register, value in enumerate(values)]
    return [row for pair in rows for row in pair]


def run_filters(job: Job) -> Answer:
    try:
        machine = FilterMachine([*before(job["values"]), *job["parts"], *AFTER], bytes(80))
        answers = [[bool(machine.run(*read)), int(machine.answer)] for read in job["reads"]]
    except FilterFault as fault:
        return {"fault": str(fault)}, []
    return {"answers": answers, "state": bytes(machine.state).hex()}, []


# ---- lengths of instructions, also against Capstone's

# SSE4a, which the processor has not, and what Capstone thinks to have no operand.
NOT_OURS = {"extrq", "insertq", "ud0", "ud1"}
PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
# These may start an AVX or XOP instruction.
LOOK_LIKE_VEX = frozenset(b"\x62\x8f\xc4\xc5")


def lengths(noise: random.Random) -> Job:
    parts = []
    for _ in range(200):
        prefixes = bytes(noise.choices(sorted(PREFIXES), k=noise.choice((0, 0, 0, 1, 1, 2, 3, 15))))
        escape = noise.choice((b"", b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a"))
        parts.append((prefixes + escape + noise.randbytes(noise.randint(1, 14))).hex())
    return {"wide": noise.random() < 0.7, "parts": parts}


def comparable(code: bytes, mnemonic: str) -> bool:
    """Not where the two are known to see the bytes with other eyes."""
    rest = code.lstrip(bytes(PREFIXES))
    return (
        mnemonic.rsplit(maxsplit=1)[-1] not in NOT_OURS
        and len(code) - len(rest) <= 3
        and len(set(code[: len(code) - len(rest)])) == len(code) - len(rest)
        and rest[:1] != b"\x0f"
        and rest[0] not in LOOK_LIKE_VEX
    )


def run_lengths(job: Job) -> Answer:
    codes = [bytes.fromhex(part) for part in job["parts"]]
    found = [int(LengthDecoder(bytearray(c)).length(0, len(c), job["wide"])) for c in codes]
    trouble = [
        f"a length of {length} for {code.hex()}"
        for code, length in zip(codes, found, strict=True)
        if not 1 <= length <= len(code)
    ]
    return {"lengths": found}, trouble


def against_capstone(job: Job, result: dict[str, Any]) -> list[str]:
    """What Capstone sees otherwise; not in a worker, since sanitizers refuse to load it."""
    import capstone  # noqa: PLC0415 - as the docstring says

    mode = capstone.CS_MODE_32 if job["wide"] else capstone.CS_MODE_16
    peer = capstone.Cs(capstone.CS_ARCH_X86, mode)
    trouble = []
    for part, ours in zip(job["parts"], result["lengths"], strict=True):
        code = bytes.fromhex(part)
        theirs = next(peer.disasm_lite(code, 0x1000, 1), None)
        if theirs is not None and theirs[1] != ours and comparable(code, theirs[2]):
            trouble.append(f"{part}: {ours}, and to Capstone {theirs[1]} ({theirs[2]})")
    return trouble


# ---- the local APIC: registers and inputs in any order, at any time


def apic(noise: random.Random) -> Job:
    parts: list[list[int | str]] = []
    for _ in range(noise.randint(1, 120)):
        what = noise.choice(("store", "store", "store", "load", "wire", "time", "take"))
        if what in {"store", "load"}:
            offset = 16 * noise.randrange(64) + noise.choice((0, 0, 0, 0, 1, 4))
            size = noise.choice((4, 4, 4, 1, 2))
            value = noise.choice((number(noise, 32), 0x1FF, 0x10000 | noise.getrandbits(8)))
            parts.append([what, offset, size, value])
        elif what == "wire":
            parts.append([what, noise.randrange(2), noise.randrange(2)])
        elif what == "time":
            parts.append([what, noise.choice((1, 100, 10**6, noise.getrandbits(40)))])
        else:
            parts.append([what])
    return {"parts": parts}


class World:
    """What an APIC talks to."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.pending = False

    def command(self, _apic: LocalApic, low: int, destination: int) -> None:
        self.heard.append(["command", int(low), int(destination)])

    def end_of_interrupt(self, vector: int) -> None:
        self.heard.append(["end", int(vector)])

    def acknowledge(self) -> int:
        return 0x70


def run_apic(job: Job) -> Answer:
    world, timers, clock = World(), Timers(), [0]
    local = LocalApic(0, 1, timers, lambda: clock[0], world, world)
    local.on_change = lambda level: world.heard.append(["level", bool(level)])
    local.on_nmi = lambda: world.heard.append("nmi")
    local.on_init = lambda: world.heard.append("init")
    local.on_startup = lambda page: world.heard.append(["startup", int(page)])
    for what, *values in job["parts"]:
        if what == "store":
            local.store(*values)
        elif what == "load":
            world.heard.append(int(local.load(*values[:2])))
        elif what == "wire":
            world.pending = bool(values[1])
            local.set_wire(values[0], bool(values[1]))
        elif what == "time":
            clock[0] += values[0]
            timers.run_due(clock[0])
        else:
            world.heard.append(int(local.acknowledge()))
    registers = [int(local.read(offset)) for offset in range(0, 0x400, 16)]
    return {"heard": world.heard, "registers": registers}, []


MAKE = {"filters": filters, "lengths": lengths, "apic": apic}
RUN = {"filters": run_filters, "lengths": run_lengths, "apic": run_apic}
JUDGE = {"lengths": against_capstone}
"""What else is to be said of an answer without trouble."""
