"""Fuzzed guests: programs of events, each of which may fault, hang on the next, or end the run.

A tiny guest of tests/vmm/conftest.py with its page tables ready; the events are put into
its memory as machine code, one a slot. An event that faults is given up, and the next one
begins. Targets differ in which events they have most of.
"""

import importlib.util
import random
import struct
import sys
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from encoding import (
    EAX,
    ECX,
    EDI,
    EDX,
    ESI,
    ESP,
    control,
    jump,
    load,
    memory_operand,
    store,
    to_ring_3,
)

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS / "vmm"))
from differential_worker import account

from rombuilder.rom import Flavour, build_rom
from vmi.doorbell import PORT, Doorbell
from vmi.queue import HeaderField
from vmm.core.mmu.checker import ShadowChecker
from vmm.core.outcome import OutcomeKind
from vmm.core.policy import policy_named
from vmm.machine import Machine, MachineDescription
from vmm.recording import ExitRecord

Job = dict[str, Any]
Answer = tuple[dict[str, Any], list[str]]

RESUME, CODE, SLOT = 0x107000, 0x140000, 128
GDT, IDT, TSS, DIRECTORY, TABLE = 0x108000, 0x109000, 0x10B000, 0x10C000, 0x10D000
USER_STACK, APIC_VIEW, IOAPIC_VIEW = 0x111000, 0x3FE000, 0x3FD000
OPEN = 0x67
TABLES = 0x200000
DIRECTORIES = (DIRECTORY, 0x210000, 0x211000, 0x212000)
# The same for PAE: pointers to four directories, two of which share the first 4 MiB.
POINTERS, PAE_DIRECTORIES, PAE_TABLES = (0x213000, 0x213020), (0x214000, 0x215000), 0x216000
ROM_ADDRESS = 0xC0000
ODD_FRAMES = (
    0x10C, 0x10D, 0x210, 0x211, 0x214, 0x216, 0x3FF, 0xC0, 0xA5, 0xF0, 0x400, 0x80000, 0xE0000,
    0xF0002, 0xF8000, 0xFEC00, 0xFEE00, 0xFFFFF,
)  # fmt: skip
HANDLED = (0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 0x81)
MSRS = (0x10, 0x1B, 0x174, 0x175, 0x176, 0xC0000080, 0x6E0, 0x277, 0xFE)
PORTS = (0x20, 0x21, 0x40, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x80, 0xCF8, 0xCFC, 0x3F8, 0x402)
# Stores that kernels make, so that half of all bytes mean something.
STORES = (
    b"\x89", b"\xC7", b"\x88", b"\xC6", b"\x87", b"\x86", b"\x80", b"\x81", b"\x83", b"\x01",
    b"\x09", b"\x21", b"\x31", b"\x29", b"\xFF", b"\xFE", b"\xF7", b"\xF6", b"\x8F", b"\xD1",
    b"\x0F\xAB", b"\x0F\xB3", b"\x0F\xBB", b"\x0F\xBA", b"\x0F\xB1", b"\x0F\xB0", b"\x0F\xC1",
    b"\x0F\xC7", b"\x0F\xC0", b"\x0F\xA4", b"\x0F\x90", b"\x0F\x11", b"\x0F\x7F", b"\x0F\xC3",
)  # fmt: skip
PREFIXES = (b"", b"", b"", b"", b"\xf0", b"\x66", b"\xf3", b"\xf2", b"\x65", b"\x67", b"\x66\xf0")
NOPS = b"\x90" * 12


@cache
def batching() -> bytes:
    return build_rom(Flavour.BATCHING).data


@cache
def skeleton() -> bytes:
    """The guest without its events."""
    spec = importlib.util.spec_from_file_location("guests", TESTS / "vmm/conftest.py")
    assert spec is not None
    assert spec.loader is not None
    guests = sys.modules["guests"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(guests)
    source = f"""
start:	mov ${CODE}, %eax
	jmp *%eax
next:	mov $STACK_TOP, %esp
	mov $KERNEL_DATA, %eax
	mov %ax, %ss
	mov $USER_DATA, %eax
	mov %ax, %ds
	mov %ax, %es
	jmp *{RESUME:#x}
"""
    data: bytes = guests.make_guest(source, handlers=dict.fromkeys(HANDLED, "next")).data
    return data


class Events:
    """Draws events; each is machine code that fits into a slot."""

    def __init__(self, noise: random.Random, *, pae: bool, queue: int) -> None:
        self.noise = noise
        self.pae = pae
        self.queue = queue

    def word(self) -> int:
        return self.noise.choice(
            (0, 1, 0xFFFFFFFF, 0x80000000, self.slot(), self.address(), self.noise.getrandbits(32))
        )

    def entry(self) -> int:
        frame = self.noise.choice((*range(0x200, 0x218), *range(0x300, 0x310), *ODD_FRAMES))
        flags = self.noise.getrandbits(12) & 0xE7
        if self.noise.random() < 0.8:
            flags |= 1
        if self.noise.random() < 0.85:
            flags &= ~0x80
        return frame << 12 | flags

    def slot(self) -> int:
        """Where an entry of a table in use lies."""
        if self.noise.random() < 0.3:
            # Seldom what maps the program itself.
            if self.pae:
                table = self.noise.choice((*PAE_DIRECTORIES, *PAE_DIRECTORIES, POINTERS[0]))
                return table + 4 * self.noise.choice((4, 4, 5, 6, 6, 7, 0, 700, 1023))
            return self.noise.choice(DIRECTORIES) + 4 * self.noise.choice((1, 2, 3, 3, 700, 1023))
        return TABLES + 0x1000 * self.noise.randrange(24) + 4 * self.index()

    def index(self) -> int:
        return self.noise.choice((0, 1, 2, 3, 511, 512, 1023, self.noise.randrange(1024)))

    def address(self) -> int:
        if self.noise.random() < 0.1:
            return self.noise.getrandbits(32)
        base = self.noise.choice((0x400000, 0x800000, 0xC00000, 0xFFC00000, 0x3C0000))
        page = base + 0x1000 * self.index() + self.noise.choice((0, 4, 0x800, 0xFFD, 0xFFE))
        return page & 0xFFFFFFFF

    # ---- kinds of events

    def table_store(self) -> bytes:
        """A plain store to a table, or an invalidation that should follow one."""
        code = store(self.slot(), self.entry())
        if self.pae and self.noise.random() < 0.5:
            code += store(self.slot() | 4, self.noise.choice((0, 1, 0x80000000, 0xF, 0x10)))
        if self.noise.random() < 0.4:
            code += b"\x0f\x01\x3d" + struct.pack("<I", self.address())
        return code

    def odd_store(self) -> bytes:
        """Any instruction at all, with its operand in a page table or across its edge."""
        target = (self.slot() + self.noise.choice((0, 0, 0, 1, 2, 3, -1, -2))) & 0xFFFFFFFF
        return self.instruction(target)

    def instruction(self, target: int) -> bytes:
        opcode = self.noise.choice(STORES)
        if self.noise.random() < 0.4:
            opcode = bytes((self.noise.getrandbits(8),))
            if self.noise.random() < 0.4:
                opcode = b"\x0f" + opcode
        registers, operand = memory_operand(self.noise, self.noise.randrange(8), target)
        others = load(self.noise.randrange(4), self.entry()) if self.noise.random() < 0.5 else b""
        prefix = self.noise.choice(PREFIXES)
        tail = struct.pack("<I", self.noise.choice((self.entry(), 0, 0xFFFFFFFF)))
        return others + registers + prefix + opcode + operand + tail + NOPS

    def string(self) -> bytes:
        """A repeated string instruction, over whatever is there."""
        places = (self.slot, self.address, lambda: 0x220000 + self.noise.randrange(0x3000))
        return b"".join((
            load(ESI, self.noise.choice(places)()),
            load(EDI, self.noise.choice(places)()),
            load(ECX, self.noise.choice((0, 1, 2, 3, 1024, 4096, self.noise.randrange(5000)))),
            load(EAX, self.entry()),
            self.noise.choice((b"\xfc", b"\xfc", b"\xfc", b"\xfd")),
            self.noise.choice((b"", b"", b"", b"\x66", b"\x67", b"\x65")),
            self.noise.choice((b"\xf3", b"\xf3", b"\xf2", b"")),
            self.noise.choice((b"\xa4", b"\xa5", b"\xaa", b"\xab", b"\xa6", b"\xaf")),
            b"\xfc",
        ))  # fmt: skip

    def access(self) -> bytes:
        """Use a translation: read, write, read and write, or run what is there."""
        address = self.address()
        form = self.noise.randrange(5)
        if form == 0:
            return b"\xa1" + struct.pack("<I", address)
        if form == 1:
            return store(address, 0x12345)
        if form == 2:
            return b"\xff\x05" + struct.pack("<I", address)
        if form == 3:
            return load(EAX, address) + b"\xff\xe0"
        return self.instruction(address)

    def control(self) -> bytes:
        """Control, debug and model-specific registers, and their relatives."""
        form = self.noise.randrange(8)
        if form <= 2:
            return control(3, self.root())
        if form == 3:
            register, bit = self.noise.choice(((0, 16), (0, 3), (4, 4), (4, 7), (4, 5), (0, 31)))
            read = bytes((0x0F, 0x20, 0xC0 | register << 3))
            flip = b"\x0f\xba\xf8" + bytes((bit,))
            return read + flip + bytes((0x0F, 0x22, 0xC0 | register << 3))
        if form == 4:
            code = load(ECX, self.noise.choice((*MSRS, self.word()))) + load(EAX, self.word())
            return code + load(EDX, self.word()) + self.noise.choice((b"\x0f\x30", b"\x0f\x32"))
        if form == 5:
            second = self.noise.choice((0x01, 0x20, 0x21, 0x22, 0x23, 0x06, 0x08, 0x09, 0x34, 0x35))
            code = load(EAX, self.word()) + bytes((0x0F, second, self.noise.getrandbits(8)))
            return code + struct.pack("<I", self.slot()) + NOPS
        if form == 6:
            return self.noise.choice((b"\x0f\xa2", b"\x0f\x31", b"\xf3\x90", b"\xcc", b"\x0f\x0b"))
        port = self.noise.choice((*PORTS, self.noise.getrandbits(16)))
        if port == 0x501:
            port = 0x500
        code = load(EDX, port) + load(EAX, self.word())
        return code + self.noise.choice(
            (b"\xec", b"\xed", b"\x66\xed", b"\xee", b"\xef", b"\x66\xef")
        )

    def root(self) -> int:
        """What to load into CR3: as a rule, what has the program in its first 4 MiB."""
        if self.noise.random() < 0.02:
            return self.word()
        return self.noise.choice(POINTERS if self.pae else DIRECTORIES)

    def ring(self) -> bytes:
        """The doorbell, with any argument."""
        function = self.noise.choice((*Doorbell, self.noise.getrandbits(8), self.word()))
        pointers = (self.queue, self.queue + 4, 0x220000, USER_STACK - 16)
        argument = self.noise.choice(
            (self.word(), self.record(), self.slot(), self.address(), *pointers)
        )
        if function == Doorbell.SET_CR3:
            argument = self.root()
        code = load(EAX, function) + load(ECX, argument) + load(EDX, PORT) + b"\xef"
        if self.noise.random() < 0.1:
            code = load(EDX, PORT) + self.noise.choice((b"\xed", b"\xec", b"\x66\xed", b"\xee"))
        return code

    def record(self) -> int:
        page = self.noise.randrange(0x200, 0x218) << 12
        kind = self.noise.getrandbits(2)
        return self.noise.choice((self.slot() | kind, page | kind, self.noise.getrandbits(32), 4))

    def queue_store(self) -> bytes:
        """Records and their count, or a word of the header, with anything in it."""
        if self.noise.random() < 0.3:
            field = self.noise.choice((4 * self.noise.randrange(16), *HeaderField))
            return store(self.queue + field, self.word())
        first, records = self.noise.choice((0, 0, 0, 1, 5)), self.noise.randint(1, 4)
        counts = (0, first + records, first + records, 8, 127, 128, 130, 0xFFFFFFFF, self.word())
        code = b"".join(
            store(self.queue + HeaderField.RECORDS + 4 * (first + number), self.record())
            for number in range(records)
        )
        return code + store(self.queue + HeaderField.COUNT, self.noise.choice(counts))

    def descriptors(self) -> bytes:
        """Damage to the GDT, the IDT or the TSS, and then something that looks there."""
        low, high = self.noise.getrandbits(32), self.noise.getrandbits(32)
        if self.noise.random() < 0.6:
            selector = self.noise.choice((0x08, 0x10, 0x1B, 0x20, 0x28, 0x30, 0x33))
            low = selector << 16 | 0xFFF0
            high = 0x100000 | self.noise.choice((0x8E, 0x8F, 0xEE, 0x0E, 0x8C, 0x86, 0x85)) << 8
        where = self.noise.random()
        if where < 0.5:
            vector = self.noise.choice((0x40, 0x40, 0x40, 3, 6, 13))
            return (
                store(IDT + 8 * vector, low) + store(IDT + 8 * vector + 4, high) + self.trap(vector)
            )
        if where < 0.65:
            selector = self.noise.choice((0x28, 0x30))
            code = store(GDT + selector, low) + store(GDT + selector + 4, high)
            return code + load(EAX, selector) + b"\x0f\x00" + self.noise.choice((b"\xd8", b"\xd0"))
        if where < 0.75:
            return store(TSS + 4 * self.noise.randrange(26), self.word())
        if where < 0.85:
            table, pointer = self.noise.choice((0x15, 0x1D)), 0x220000
            base = self.noise.choice((GDT, IDT, self.word(), self.address()))
            limit = self.noise.choice((0xFFFF, 0, 7, 0x2F, 0x207, 0x7FF)) << 16
            code = store(pointer, limit) + store(pointer + 4, base)
            return code + bytes((0x0F, 0x01, table)) + struct.pack("<I", pointer + 2)
        if where < 0.95:
            pushes = b"".join(
                b"\x68"
                + struct.pack("<I", self.noise.choice((0x1B, 0x23, 0x08, 0x10, self.word())))
                for _ in range(self.noise.randint(0, 6))
            )
            return pushes + b"\xcf"
        return load(ESP, self.word()) + self.trap(0x40)

    def trap(self, vector: int) -> bytes:
        """Reach a vector in one of the ways there are."""
        return self.noise.choice((bytes((0xCD, vector)), b"\x0f\x0b", b"\xcc", b"\xfa\xf4"[:1]))

    def device(self) -> bytes:
        """Any instruction on the registers of the local or the I/O APIC."""
        view = self.noise.choice((APIC_VIEW, APIC_VIEW, IOAPIC_VIEW))
        if view == IOAPIC_VIEW:
            offset = self.noise.choice((0, 0x10, 0x10, 4, 0x40, 0xFFE))
            code = store(IOAPIC_VIEW, self.noise.choice((0, 1, 2, 0x10, 0x11, 0x3F, self.word())))
        else:
            offset, code = (
                16 * self.noise.randrange(64) + self.noise.choice((0, 0, 0, 1, 2, 12)),
                b"",
            )
        if self.noise.random() < 0.5:
            value = self.noise.choice((0x1FF, 0x10040, 0x20, 0xC0040, 0x4500, self.word()))
            return code + store(view + offset, value)
        return code + self.instruction(view + offset) + self.noise.choice((b"", b"\xfb\x90\xfa"))


MIXES: dict[str, tuple[str, ...]] = {
    "queue": ("queue_store", "queue_store", "ring", "ring", "table_store", "access", "control"),
    "tables": ("table_store", "table_store", "access", "access", "control", "string"),
    "descriptors": ("descriptors", "descriptors", "descriptors", "access", "table_store"),
    "stores": ("odd_store", "odd_store", "odd_store", "string", "access", "table_store"),
    "devices": ("device", "device", "device", "control", "access", "odd_store", "ring"),
    "everything": (
        "queue_store", "ring", "table_store", "odd_store", "access", "control", "string",
        "descriptors", "device",
    ),
}  # fmt: skip


def program(target: str, noise: random.Random) -> Job:
    """A job: how the machine is made, and the events."""
    rom = target == "queue" or noise.random() < 0.4
    pae = noise.random() < 0.35
    apic = target == "devices" or noise.random() < 0.2
    queue = ROM_ADDRESS + batching().index(b"VMIq") if rom else 0x221000
    events = Events(noise, pae=pae, queue=queue)
    draw: list[Callable[[], bytes]] = [getattr(events, name) for name in MIXES[target]]
    parts: list[list[Any]] = []
    for _ in range(noise.randint(5, 60)):
        event = noise.choice(draw)
        code = event()
        assert len(code) <= SLOT - 40, code.hex()
        # In ring 3 a port access ends the run.
        ring_3 = noise.random() < (0.01 if event.__name__ in {"ring", "control"} else 0.15)
        parts.append([ring_3, code.hex()])
    return {
        "rom": rom,
        "pae": pae,
        "apic": apic,
        "cpus": 2 if apic and noise.random() < 0.15 else 1,
        "attach": queue if rom and noise.random() < 0.9 else 0,
        "policy": noise.choice(("svm-shadow", "svm-shadow", "svm-unsync", "vtx-shadow", "npt")),
        "record": noise.random() < 0.3,
        "parts": parts,
    }


def code_of(job: Job) -> bytes:
    """The program at CODE: paging, the queue, the events, the end."""
    prologue = control(4, 0x20) + control(3, POINTERS[0]) if job["pae"] else control(3, DIRECTORY)
    prologue += control(0, 0x80010001 | 0x10)
    if job["attach"]:
        prologue += (
            load(EAX, Doorbell.ATTACH) + load(ECX, job["attach"]) + load(EDX, PORT) + b"\xef"
        )
    out = bytearray(prologue.ljust(SLOT, b"\x90"))
    for user, part in job["parts"]:
        here = CODE + len(out)
        code = store(RESUME, here + SLOT)
        if user:
            code += to_ring_3(here + len(code) + len(to_ring_3(0, 0)), USER_STACK)
        code += bytes.fromhex(part)
        code += b"\xcd\x81" if user else jump(here + len(code), here + SLOT)
        out += code.ljust(SLOT, b"\x90")
    out += load(EAX, 0) + load(EDX, 0x501) + b"\xef\xeb\xfe"
    return bytes(out)


def prepare(machine: Machine, job: Job) -> None:
    """Put the program and the page tables into memory, as a loader would."""
    machine.memory.load(CODE, code_of(job))
    for directory in DIRECTORIES[1:]:
        machine.memory.load(directory, struct.pack("<I", TABLE | OPEN))
    for pointers in POINTERS:
        rows = [PAE_DIRECTORIES[0] | 1, PAE_DIRECTORIES[1] | 1, 0, PAE_DIRECTORIES[1] | 1]
        machine.memory.load(pointers, struct.pack("<4Q", *rows))
    for directory in PAE_DIRECTORIES:
        machine.memory.load(
            directory, struct.pack("<2Q", PAE_TABLES | OPEN, (PAE_TABLES + 0x1000) | OPEN)
        )
    identity = [page << 12 | OPEN for page in range(1024)]
    identity[APIC_VIEW >> 12] = 0xFEE00000 | OPEN
    identity[IOAPIC_VIEW >> 12] = 0xFEC00000 | OPEN
    machine.memory.load(PAE_TABLES, struct.pack("<1024Q", *identity))
    machine.memory.load(TABLE, struct.pack("<1024I", *identity))


class Records:
    """A sink that keeps a checksum of what the recorder tells."""

    def __init__(self) -> None:
        self.checksum = 0

    def take(self, cpu: int, exits: Sequence[ExitRecord]) -> None:
        self.checksum = zlib.crc32(repr((cpu, exits)).encode(), self.checksum)


def run(job: Job) -> Answer:
    """Run it, compare the shadow with the tables, and account for all that is left."""
    machine = Machine(
        MachineDescription(
            skeleton(),
            rom=batching() if job["rom"] else None,
            memory=4 << 20,
            policy=policy_named(job["policy"]),
            max_instructions=30_000,
            apic=job["apic"],
            cpus=job["cpus"],
        )
    )
    prepare(machine, job)
    records = Records()
    if job["record"]:
        machine.record(records)
    outcome = machine.run()
    trouble = []
    if outcome.outcome.kind is OutcomeKind.ENGINE_FAILURE:
        trouble.append(str(outcome.outcome))
    # Random code tells nobody what it stores into a table that it has announced, and a
    # shadow that was not told may be behind.
    if not any(machine.vm.pages.snapshot()["announced"]):
        ShadowChecker(machine.vcpu).check()
    return {**account(machine, outcome), "records": records.checksum}, trouble


MAKE = {target: (lambda noise, target=target: program(target, noise)) for target in MIXES}
RUN = dict.fromkeys(MIXES, run)
