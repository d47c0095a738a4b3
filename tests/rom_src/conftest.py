"""A bare machine for single ROM calls: flat 32-bit ring 0, a doorbell, a model of the monitor.

The ROM lies in memory that may only be read and executed. ATTACH opens the pages of its
data, as the monitor does; any other write into the image ends the test with an error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
import unicorn
from unicorn import x86_const as x86

from queuecalls import ALONE, ready
from rombuilder.rom import Calls, Flavour, Rom, Visibility, build_rom
from vmi.calls import call_named
from vmi.doorbell import PORT, SIGNATURE, Doorbell, Feature
from vmi.header import GET_RELOC, VMI_INIT
from vmi.queue import DRAINED, MAGIC, HeaderField
from vmi.relocation import RelocationAnswer, RelocationKind

LINEAR_BASE: Final = 0xC0000000
ROM_BASE: Final = 0xC00CA800
ROM_AREA: Final = (0xC00C0000, 0x20000)
RAM: Final = (0xC0400000, 0x400000)
"""Linear memory for page tables and whatever else a call points to."""
STACK_TOP: Final = 0xC0900000
STACK_SIZE: Final = 0x10000
RETURN_TO: Final = 0xC0A00000

REGISTERS: Final[Mapping[str, int]] = {
    "eax": x86.UC_X86_REG_EAX,
    "ebx": x86.UC_X86_REG_EBX,
    "ecx": x86.UC_X86_REG_ECX,
    "edx": x86.UC_X86_REG_EDX,
    "esi": x86.UC_X86_REG_ESI,
    "edi": x86.UC_X86_REG_EDI,
    "ebp": x86.UC_X86_REG_EBP,
}
CALLEE_SAVED: Final = {"ebx": 0x0B0B0B0B, "esi": 0x51515151, "edi": 0xD1D1D1D1, "ebp": 0xB9B9B9B9}

ALL_FEATURES: Final = Feature.ATTACHED | Feature.SHADOW | Feature.IN_STEP | Feature.ALONE


@functools.cache
def _build(
    flavour: Flavour,
    calls: Calls,
    queue: int,
    visibility: Visibility,
    defines: tuple[tuple[str, int], ...],
) -> Rom:
    return build_rom(
        flavour, queue=queue, calls=calls, visibility=visibility, defines=dict(defines)
    )


@dataclass
class Queue:
    """The monitor's side of the queue, after vmi/queue.py.

    `listener` is told each record as it is applied.
    """

    machine: Machine
    address: int
    applied: list[int] = field(default_factory=list)
    listener: Callable[[int], None] = lambda _record: None

    def word(self, offset: int) -> int:
        return self.machine.read(self.address + offset)

    def set_word(self, offset: int, value: int) -> None:
        self.machine.write(self.address + offset, value)

    @property
    def capacity(self) -> int:
        return self.word(HeaderField.CAPACITY)

    @property
    def count(self) -> int:
        return self.word(HeaderField.COUNT)

    @property
    def downgrade(self) -> bool:
        return self.word(HeaderField.DOWNGRADE) != 0

    @property
    def pending(self) -> list[int]:
        """Records that wait; neither what is in flight nor what was applied."""
        slots = range(min(self.count, self.capacity))
        words = [self.word(HeaderField.RECORDS + 4 * slot) for slot in slots]
        return [word for word in words if word not in (0, DRAINED)]

    def apply(self, record: int) -> None:
        self.applied.append(record)
        self.listener(record)

    def drain(self) -> None:
        in_use = min(self.count, self.capacity)
        offsets = [HeaderField.RECORDS + 4 * slot for slot in range(in_use)]
        words = [self.word(offset) for offset in offsets]
        in_flight = [slot for slot, word in enumerate(words) if word == 0]
        keep = in_flight[-1] + 1 if in_flight else 0
        for slot, offset in enumerate(offsets):
            left = DRAINED if slot < keep and words[slot] else 0
            self.set_word(offset, left)
        self.set_word(HeaderField.COUNT, keep)
        self.set_word(HeaderField.DOWNGRADE, 0)
        for word in words:
            if word not in (0, DRAINED):
                self.apply(word)


@dataclass
class Ring:
    """One write to the doorbell."""

    function: Doorbell
    argument: int


class Machine:
    """A ROM in a bare machine. `features` is what ATTACH answers, None: nobody listens."""

    def __init__(self, rom: Rom, features: Feature | None, base: int = ROM_BASE) -> None:
        self.rom = rom
        self.base = base
        self.features = features
        self.queue: Queue | None = None
        self.rings: list[Ring] = []
        self.refuse: set[Doorbell] = set()
        self.home = 1
        self.ring: Callable[[Doorbell, int], int] | None = None
        self.port_reads: list[tuple[int, int]] = []
        self.port_writes: list[tuple[int, int]] = []
        self.port_value: Callable[[int], int] = lambda _number: 0xFFFFFFFF
        self._answers: dict[int, RelocationAnswer] = {}
        self.uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
        self.uc.mem_map(*ROM_AREA, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        self.uc.mem_map(*RAM)
        self.uc.mem_map(STACK_TOP - STACK_SIZE, STACK_SIZE)
        self.uc.mem_map(RETURN_TO, 0x1000)
        self.uc.mem_write(base, rom.data)
        self.uc.mem_write(RETURN_TO, b"\xf4" * 16)
        self.uc.hook_add(unicorn.UC_HOOK_INSN, self._port_read, None, 1, 0, x86.UC_X86_INS_IN)
        self.uc.hook_add(unicorn.UC_HOOK_INSN, self._port_write, None, 1, 0, x86.UC_X86_INS_OUT)

    def read(self, address: int) -> int:
        return int.from_bytes(self.uc.mem_read(address, 4), "little")

    def write(self, address: int, value: int) -> None:
        self.uc.mem_write(address, (value & 0xFFFFFFFF).to_bytes(4, "little"))

    def register(self, name: str) -> int:
        return int(self.uc.reg_read(REGISTERS[name]))

    def image(self) -> bytes:
        return bytes(self.uc.mem_read(self.base, len(self.rom.data)))

    @property
    def data_range(self) -> range:
        return range(self.rom.symbols["__data_start"], self.rom.symbols["__data_end"])

    def symbol(self, name: str) -> int:
        return self.base + self.rom.symbols[name]

    def _port_read(self, _uc: unicorn.Uc, port: int, size: int, _data: object) -> int:
        if port == PORT and size == 4 and self.features is not None:
            return SIGNATURE
        self.port_reads.append((port, size))
        return self.port_value(len(self.port_reads)) & ((1 << 8 * size) - 1)

    def _port_write(self, uc: unicorn.Uc, port: int, size: int, value: int, _data: object) -> None:
        if port != PORT:
            self.port_writes.append((port, value & ((1 << 8 * size) - 1)))
            return
        assert size == 4
        assert self.features is not None, "rang where nobody listens"
        ring = Ring(Doorbell(value), self.register("ecx"))
        self.rings.append(ring)
        uc.reg_write(x86.UC_X86_REG_EAX, self._serve(ring))

    def _serve(self, ring: Ring) -> int:
        if self.ring is not None and ring.function in (Doorbell.IDE_TAKE, Doorbell.IDE_REQUEST):
            return self.ring(ring.function, ring.argument)
        if ring.function in self.refuse:
            return 0
        if ring.function is Doorbell.ATTACH:
            return self._attach(ring.argument)
        assert self.queue is not None
        self.queue.drain()
        if ring.function is Doorbell.FIND_HOME:
            return self.home
        if ring.function is Doorbell.QUEUE_FULL:
            self.queue.apply(ring.argument)
        elif ring.function is Doorbell.UPDATE_ENTRY:
            self.queue.apply(ring.argument - LINEAR_BASE | 1)
        return 1

    def _attach(self, address: int) -> int:
        assert self.features is not None
        if not self.features & Feature.ATTACHED:
            return 0
        assert self.read(address + HeaderField.MAGIC) == MAGIC
        size = self.read(address + HeaderField.REGION_SIZE)
        first = address & ~0xFFF
        last = (address + size + 0xFFF) & ~0xFFF
        self.uc.mem_protect(first, last - first, unicorn.UC_PROT_ALL)
        self.queue = Queue(self, address)
        return int(self.features)

    def attached(self) -> Queue:
        assert self.queue is not None
        return self.queue

    # Calls

    def prepare(self, address: int, stack: tuple[int, ...] = (), **registers: int) -> None:
        """Registers and stack as a caller leaves them; nothing is run."""
        esp = STACK_TOP - 0x100
        for word in reversed((RETURN_TO, *stack)):
            esp -= 4
            self.write(esp, word)
        self.uc.reg_write(x86.UC_X86_REG_ESP, esp)
        for name, value in {**CALLEE_SAVED, **registers}.items():
            self.uc.reg_write(REGISTERS[name], value)
        self.uc.reg_write(x86.UC_X86_REG_EIP, address)

    @property
    def eip(self) -> int:
        return int(self.uc.reg_read(x86.UC_X86_REG_EIP))

    @property
    def esp(self) -> int:
        return int(self.uc.reg_read(x86.UC_X86_REG_ESP))

    def step(self) -> None:
        self.uc.emu_start(self.eip, RETURN_TO, count=1)

    def finish(self, limit: int = 10_000) -> None:
        """Run to the caller's next instruction."""
        self.uc.emu_start(self.eip, RETURN_TO, count=limit)
        assert self.eip == RETURN_TO, f"still at {self.eip:#x} after {limit} instructions"

    def run(self, address: int, stack: tuple[int, ...] = (), **registers: int) -> int:
        """Call `address`, check what every call keeps, and return EAX."""
        self.prepare(address, stack, **registers)
        esp = self.esp
        kept = {name: self.register(name) for name in CALLEE_SAVED}
        self.finish()
        assert self.esp == esp + 4, "the stack is not balanced"
        assert {name: self.register(name) for name in CALLEE_SAVED} == kept
        return self.register("eax")

    def count(self, address: int, stack: tuple[int, ...] = (), **registers: int) -> int:
        """Instructions from the call's entry to its return, ret included."""
        self.prepare(address, stack, **registers)
        steps = 0
        while self.eip != RETURN_TO:
            self.step()
            steps += 1
        return steps

    def interrupt(self, handler: Callable[[Machine], None]) -> None:
        """Run `handler` as an interrupt between two instructions would."""
        context = self.uc.context_save()
        esp = self.esp - 12
        self.uc.reg_write(x86.UC_X86_REG_ESP, esp)
        handler(self)
        self.uc.context_restore(context)

    def nested(self, name: str, **registers: int) -> None:
        """A call from within a handler: on the stack as it is."""
        esp = self.esp - 4
        self.write(esp, RETURN_TO)
        self.prepare_nested(esp, self.address_of(name), **registers)
        self.finish()
        assert self.esp == esp + 4

    def snapshot(self) -> Callable[[], None]:
        """What brings the machine back to where it is now: far cheaper than a new one."""
        context = self.uc.context_save()
        data = (self.base + self.data_range.start, len(self.data_range))
        ranges = [data, (RAM[0], 0x10000), (STACK_TOP - 0x1000, 0x1000)]
        memory = [(at, bytes(self.uc.mem_read(at, size))) for at, size in ranges]
        rings = list(self.rings)
        applied = list(self.attached().applied)

        def restore() -> None:
            for at, content in memory:
                self.uc.mem_write(at, content)
            self.uc.context_restore(context)
            self.rings[:] = rings
            self.attached().applied[:] = applied

        return restore

    def prepare_nested(
        self, esp: int, address: int, eax: int = 0, edx: int = 0, ecx: int = 1
    ) -> None:
        """A call from within a handler, about to be stepped; its return address is at `esp`."""
        self.uc.reg_write(x86.UC_X86_REG_ESP, esp)
        for register, value in {"eax": eax, "edx": edx, "ecx": ecx}.items():
            self.uc.reg_write(REGISTERS[register], value)
        self.uc.reg_write(x86.UC_X86_REG_EIP, address)

    # The interface

    def init(self) -> int:
        return self.run(self.base + VMI_INIT)

    def reloc(self, call: str | int) -> RelocationAnswer:
        number = call_named(call).number if isinstance(call, str) else call
        if number not in self._answers:
            self._answers[number] = self._ask(number)
        return self._answers[number]

    def _ask(self, number: int) -> RelocationAnswer:
        esp = self.esp - 0x200  # below whatever a handler has there
        self.write(esp, RETURN_TO)
        context = self.uc.context_save()
        self.uc.reg_write(x86.UC_X86_REG_ESP, esp)
        self.uc.reg_write(x86.UC_X86_REG_EBX, 0x0B0B0B0B)
        self.uc.reg_write(x86.UC_X86_REG_EAX, number)
        self.uc.reg_write(x86.UC_X86_REG_EIP, self.base + GET_RELOC)
        self.finish()
        assert self.esp == esp + 4
        assert self.register("ebx") == 0x0B0B0B0B
        answer = RelocationAnswer.from_registers(self.register("eax"), self.register("edx"))
        self.uc.context_restore(context)
        return answer

    def address_of(self, name: str) -> int:
        answer = self.reloc(name)
        assert answer.kind in (RelocationKind.CALL_REL, RelocationKind.JUMP_REL), name
        return answer.address

    def call(self, name: str, stack: tuple[int, ...] = (), **registers: int) -> int:
        return self.run(self.address_of(name), stack, **registers)

    def map_linear(self, slot: int = 0, va: int = LINEAR_BASE, pages: int = 1 << 18) -> None:
        self.call("SetLinearMapping", (0,), eax=slot, edx=va, ecx=pages)


MachineFactory = Callable[..., Machine]


@pytest.fixture
def machine() -> MachineFactory:
    """`machine(flavour, calls=, queue=, visibility=, features=, base=, rom=, **defines)`.

    VMI is initialised. `rom` takes the place of a ROM built as described.
    """

    def make(
        flavour: str = "batching",
        *,
        calls: str | None = None,
        queue: int = 8,
        visibility: str = "tlb",
        features: Feature | None = ALL_FEATURES,
        base: int = ROM_BASE,
        rom: Rom | None = None,
        **defines: Any,
    ) -> Machine:
        chosen = Flavour(flavour)
        default = Calls.ALL if chosen is Flavour.IDENTITY else Calls.NEEDED
        rom = rom or _build(
            chosen,
            Calls(calls) if calls else default,
            queue,
            Visibility(visibility),
            tuple(defines.items()),
        )
        made = Machine(rom, features, base)
        assert made.init() == 0
        return made

    return make


@pytest.fixture(params=[ALONE, ALONE & ~Feature.ALONE], ids=["alone", "several"])
def features(request: pytest.FixtureRequest) -> Feature:
    """Of a machine with one processor, and of one with several."""
    return Feature(request.param)


@pytest.fixture(params=["tlb", "strict"])
def made(request: pytest.FixtureRequest, machine: MachineFactory, features: Feature) -> Machine:
    """For what holds however updates become visible."""
    return ready(machine, request.param, features)


@pytest.fixture
def tlb(machine: MachineFactory, features: Feature) -> Machine:
    """Updates become visible as with a TLB."""
    return ready(machine, "tlb", features)


@pytest.fixture
def strict(machine: MachineFactory, features: Feature) -> Machine:
    """Updates become visible by the letter of the interface."""
    return ready(machine, "strict", features)


@pytest.fixture
def ide_machine(machine: MachineFactory) -> Machine:
    """The host hands its IDE channels over."""
    return machine("batching", features=Feature.ATTACHED | Feature.IDE)
