"""A guest that loads, stores and calls where it is told, while its memory slots change.

Each round the guest rings a port. The monitor compares what it has found with a model of
memory - plain Python, a linear search, no page tables - chooses new slots and accesses at random,
and has the slots replaced. Started as a program it runs what standard input describes, for the
interpreted core, and prints what came of it.
"""

import json
import random
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vmm.core import is_compiled
from vmm.core.event import Reason
from vmm.core.slots import MemorySlot
from vmm.devices.pluggable import Board, Device, Plug
from vmm.kvm_machine import KvmMachine
from vmm.machine import Machine, MachineDescription

PAGE = 4096
MEMORY = 4 << 20
EXTRA = 24
"""Pages of the second backing."""
SHARED = 0x200000
"""From here on the slots show pages of the RAM, too."""
SHARED_PAGES = 8
COMMANDS, TABLES = 0x300000, 0x310000
DIRECTORY = 0x10C000
PORT = 0x5F0
WINDOW = 0x00800000
WINDOWS = (WINDOW, 0x40000000, 0xFFFE0000)
"""Where slots come and go, each with this many pages."""
WINDOW_PAGES = 32
FIXED = (MemorySlot(0, 0xA0000), MemorySlot(0xC0000, MEMORY - 0xC0000, "ram", 0xC0000))
NOTHING, LOAD, STORE, CALL = range(4)
OPEN = 0x67

SOURCE = """
	.set COMMANDS, 0x300000
start:
	{paging}
round:
	mov $0x5f0, %edx
	outl %eax, (%dx)
	jmp 1f
1:	mov $COMMANDS, %esi
next:
	mov (%esi), %eax
	mov 4(%esi), %ebx
	cmp $1, %eax
	jb round
	je load
	cmp $3, %eax
	jb store
	ja done
	call *%ebx
	mov %eax, 8(%esi)
	add $12, %esi
	jmp next
load:	mov (%ebx), %ecx
	mov %ecx, 8(%esi)
	add $12, %esi
	jmp next
store:	mov 8(%esi), %ecx
	mov %ecx, (%ebx)
	add $12, %esi
	jmp next
done:	FINISH 0
"""


class Model:
    """What memory is, without any cache."""

    def __init__(self, extra: int, ram: bytes) -> None:
        self.bytes = {"ram": bytearray(ram), "extra": bytearray(extra)}
        self.slots: tuple[MemorySlot, ...] = FIXED
        self.dirty: dict[MemorySlot, set[int]] = {}

    def replace(self, slots: tuple[MemorySlot, ...]) -> None:
        self.slots = slots
        self.dirty = {slot: self.dirty.get(slot, set()) for slot in slots if slot.logging}

    def place(self, address: int) -> tuple[MemorySlot, int] | None:
        for slot in self.slots:
            if slot.address <= address < slot.end:
                return slot, slot.offset + address - slot.address
        return None

    def load(self, address: int) -> int:
        found = self.place(address)
        if found is None:
            return 0xFFFFFFFF
        slot, at = found
        return int.from_bytes(self.bytes[slot.backing][at : at + 4], "little")

    def store(self, address: int, value: int) -> None:
        found = self.place(address)
        if found is None or found[0].read_only:
            return
        slot, at = found
        self.bytes[slot.backing][at : at + 4] = value.to_bytes(4, "little")
        for log, pages in self.dirty.items():
            if log.backing == slot.backing and log.offset <= at < log.offset + log.size:
                pages.add((at - log.offset) // PAGE)

    def code(self, address: int) -> int | None:
        """What a call there answers, if there is `mov $value, %eax; ret`."""
        first, second = self.load(address), self.load(address + 4)
        if self.place(address) is None or first & 0xFF != 0xB8 or second & 0xFF00 != 0xC300:
            return None
        return first >> 8 | (second & 0xFF) << 24


class Bell(Device):
    """A port that tells somebody of each store."""

    ports = (range(PORT, PORT + 4),)

    def __init__(self, board: Board) -> None:
        super().__init__(board)
        self.rung: Callable[[], None] = lambda: None

    def write(self, port: int, size: int, value: int) -> None:
        """Any store."""
        self.rung()

    def save(self) -> dict[str, Any]:
        """It has no state."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """As `save` says."""


class Stress:
    """One machine whose slots change `changes` times; `problems` is what was not as modelled."""

    def __init__(
        self, guest: bytes, seed: int, changes: int, *, paged: bool, kvm: bool = False, **about: Any
    ) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a test that repeats
        make = KvmMachine if kvm else Machine
        self.machine = make(
            MachineDescription(
                guest,
                memory=MEMORY,
                backings=(("extra", EXTRA * PAGE),),
                devices=(Plug(Bell, name="bell"),),
                **about,
            )
        )
        bell = self.machine.devices["bell"]
        assert isinstance(bell, Bell)
        bell.rung = self._rung
        if paged:
            self._map()
        self.model = Model(EXTRA * PAGE, bytes(self.machine.ram[:MEMORY]))
        self.left = changes
        self.changes = self.loads = self.calls = self.stale = 0
        self.expected: list[int | None] = []
        self.problems: list[str] = []

    def _map(self) -> None:
        """Page tables for the windows: each address to itself."""
        for number, window in enumerate(WINDOWS):
            table = TABLES + PAGE * number
            start = window & ~0x3FFFFF
            entries = ((start + PAGE * i) | OPEN for i in range(1024))
            self.machine.memory.load(table, struct.pack("<1024I", *entries))
            self.machine.memory.load(
                DIRECTORY + 4 * (window >> 22), struct.pack("<I", table | OPEN)
            )

    # ---- the port

    def _rung(self) -> None:
        self._check()
        if isinstance(self.machine, Machine):
            self.machine.vm.post(self._change)
        else:
            # The vCPU has left the guest for this access.
            self._change()

    def _check(self) -> None:
        for number, expected in enumerate(self.expected):
            found = self.machine.memory.read32(COMMANDS + 12 * number + 8)
            if expected is not None and found != expected:
                op, address = struct.unpack(
                    "<2I", self.machine.memory.read(COMMANDS + 12 * number, 8)
                )
                self.problems.append(
                    f"change {self.changes}: {op} at {address:#x}: {found:#x}, not {expected:#x}"
                )
        self.expected = []

    def _change(self) -> None:
        vm = self.machine.vm if isinstance(self.machine, Machine) else self.machine
        for slot, pages in self.model.dirty.items():
            if self.random.random() < 0.5:
                bitmap = int.from_bytes(vm.dirty_log(slot), "little")
                if bitmap != sum(1 << page for page in pages):
                    self.problems.append(
                        f"change {self.changes}: log of {slot}: {bitmap:#x}, not {sorted(pages)}"
                    )
                pages.clear()
        if not self.left:
            self._tell([(CALL + 1, 0, 0)])
            return
        self.left -= 1
        self.changes += 1
        slots = self._slots()
        vm.set_memory(slots)
        self.model.replace(slots)
        self._tell(self._accesses())

    def _tell(self, commands: list[tuple[int, int, int]]) -> None:
        words = [word for command in (*commands, (NOTHING, 0, 0)) for word in command]
        self.machine.memory.load(COMMANDS, struct.pack(f"<{len(words)}I", *words))

    # ---- what to do next

    def _slots(self) -> tuple[MemorySlot, ...]:
        """Some of what there was, and something new, in any order."""
        slots = [slot for slot in self.model.slots[2:] if self.random.random() < 0.6]
        for _ in range(self.random.randrange(5)):
            new = self._slot()
            if all(new.end <= old.address or old.end <= new.address for old in slots):
                slots.append(new)
        self.random.shuffle(slots)
        return (*FIXED, *slots)

    def _slot(self) -> MemorySlot:
        window = self.random.choice(WINDOWS)
        first = self.random.randrange(WINDOW_PAGES)
        backing = self.random.choice(["ram", "extra"])
        there = SHARED_PAGES if backing == "ram" else EXTRA
        offset = self.random.randrange(there)
        count = self.random.randrange(1, 1 + min(8, WINDOW_PAGES - first, there - offset))
        base = SHARED if backing == "ram" else 0
        return MemorySlot(
            window + PAGE * first, PAGE * count, backing, base + PAGE * offset,
            read_only=self.random.random() < 0.2, logging=self.random.random() < 0.4,
        )  # fmt: skip

    def _address(self) -> int:
        """Mostly in a slot, sometimes where perhaps none is; a few places in each page."""
        if self.random.random() < 0.75 and len(self.model.slots) > 2:
            slot = self.random.choice(self.model.slots[2:])
            page = slot.address + PAGE * self.random.randrange(slot.size // PAGE)
        elif self.random.random() < 0.5:
            page = SHARED + PAGE * self.random.randrange(SHARED_PAGES)
        else:
            page = self.random.choice(WINDOWS) + PAGE * self.random.randrange(WINDOW_PAGES)
        return page + 8 * self.random.randrange(4)

    def _accesses(self) -> list[tuple[int, int, int]]:
        commands = []
        for _ in range(self.random.randrange(4, 16)):
            address = self._address()
            chance = self.random.random()
            answer = self.model.code(address)
            if chance < 0.4 and answer is not None:
                commands.append((CALL, address, 0))
                self.expected.append(answer)
                self.calls += 1
            elif chance < 0.6:
                value = self.random.randrange(1 << 32)
                words = (0xB8 | (value << 8) & 0xFFFFFFFF, value >> 24 | 0xC300)
                for i, word in enumerate(words):
                    commands.append((STORE, address + 4 * i, word))
                    self.expected.append(None)
                    self.model.store(address + 4 * i, word)
            else:
                commands.append((LOAD, address, 0))
                self.expected.append(self.model.load(address))
                self.loads += 1
        return commands

    # ---- all of it

    def run(self) -> dict[str, Any]:
        """Everything in which two executions could differ."""
        run = self.machine.run()
        extra = self.machine.ram[MEMORY:]
        if extra != bytes(self.model.bytes["extra"]):
            self.problems.append("the second backing is not as modelled")
        here = slice(SHARED, SHARED + PAGE * SHARED_PAGES)
        if self.machine.ram[here] != bytes(self.model.bytes["ram"][here]):
            self.problems.append("the shared pages are not as modelled")
        return {
            "problems": self.problems,
            "outcome": str(run.outcome),
            "changes": self.changes,
            "loads": self.loads,
            "calls": self.calls,
            "logged": run.ledger.by_reason[Reason.DIRTY_LOG].count
            if Reason.DIRTY_LOG in run.ledger.by_reason
            else 0,
            "instructions": run.instructions,
            "virtual_ns": run.virtual_ns,
            "exits": {str(k): [v.light, v.heavy] for k, v in run.ledger.by_reason.items()},
            "events": run.ledger.engine_events,
            "memory_crc": run.memory_crc,
        }


def with_tables(machine: Machine) -> None:
    """Page tables for the first 4 MiB of the windows."""
    entries = b"".join(((WINDOW + PAGE * i) | OPEN).to_bytes(4, "little") for i in range(1024))
    machine.memory.load(TABLES, entries)
    machine.memory.load(
        DIRECTORY + 4 * (WINDOW >> 22),
        (TABLES | OPEN).to_bytes(4, "little"),
    )


def pair(page: int) -> tuple[MemorySlot, ...]:
    """Slots that show one page of the second backing twice."""
    return (
        *FIXED,
        MemorySlot(WINDOW, PAGE, "extra", page * PAGE),
        MemorySlot(WINDOW + 0x100000, PAGE, "extra", page * PAGE),
    )


def main() -> None:
    job = json.load(sys.stdin)
    guest = Path(job.pop("guest")).read_bytes()
    json.dump({"compiled": is_compiled(), "result": Stress(guest, **job).run()}, sys.stdout)


if __name__ == "__main__":
    main()
