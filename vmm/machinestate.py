"""The state of a whole machine as values, and back: who has what, and in which order it is loaded.

Each class says for itself what its state is (`vmm.core.saved`). Here is what goes between
them: registers by id, slots, timers, and what the processor is told when everything
else is there.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from vmi.address import GuestPhysical
from vmm.core.errors import BadDescription
from vmm.core.guestblock import GuestBlock
from vmm.core.processor import Activity
from vmm.core.registerids import REGISTERS, RegisterClass
from vmm.core.saved import BadState, Value, load_object, save_object
from vmm.core.slots import MemorySlot, SlotList

if TYPE_CHECKING:
    from vmm.core.cpu.cpustate import CpuState
    from vmm.core.memory import GuestMemory
    from vmm.machine import Machine

__all__ = ["load_state", "parts_of", "state_of"]

_FRAMES = 1 << 20
_LAID = 4
"""Bits that firmware lays over a frame, as a number below this."""


def state_of(machine: "Machine") -> dict[str, Value]:
    """All that the machine is apart from its description and the bytes of its memory."""
    return {
        "memory": _save_memory(machine.memory),
        "registers": [
            {f"{register:#018x}": f"{value:#x}" for register, value in file.get(ids).items()}
            for file, ids in ((file, _registers(file.ids())) for file in machine.registers)
        ],
        "hidden_flags": [vcpu.cpu.hidden_flags() for vcpu in machine.vm.vcpus],
        "current": machine.vm.vcpus.index(machine.vm.current),
        **{name: save_object(part) for name, part in parts_of(machine)},
        "lent": [channel.block_start for channel in machine.pc.ide],
        "plugged": machine.devices.save_all(),
    }


def parts_of(machine: "Machine") -> list[tuple[str, Any]]:
    """(name, object), in the order in which they are loaded."""
    parts: list[tuple[str, Any]] = [
        ("pages", machine.vm.pages),
        *((f"cpu{i}", processor) for i, processor in enumerate(machine.processors)),
        ("filters", machine.filters),
        ("pc", machine.pc),
        ("apic_bus", machine.bus),
        ("loop", machine.loop),
        ("phases", machine.phases),
    ]
    if machine.ioapic is not None:
        parts.append(("ioapic", machine.ioapic))
    if machine.checker is not None:
        parts.append(("checker", machine.checker))
    # Last, for it looks at every timer that there is by then.
    return [*parts, ("timers", machine.timers)]


def _registers(ids: Iterable[int]) -> list[int]:
    """What is kept by id; a local APIC is kept as what it is, with its timer."""
    return [
        register
        for register in ids
        if REGISTERS[register].kind is not RegisterClass.APIC and REGISTERS[register].writable
    ]


def load_state(machine: "Machine", state: Mapping[str, Any]) -> list[str]:
    """Be as the machine was; its memory has its bytes already.

    Answers what the file has and this version does not know, and the other way round:
    names of registers and devices. Raises `BadState` or `BadDescription`; the machine is of
    no use then.
    """
    try:
        return _load(machine, state)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError) as error:
        if isinstance(error, BadDescription):
            raise
        raise BadState(f"{type(error).__name__}: {error}") from None


def _load(machine: "Machine", state: Mapping[str, Any]) -> list[str]:
    machine.timers.clear()
    _load_memory(machine.memory, state["memory"])
    vcpus = machine.vm.vcpus
    unknown = _load_registers(machine, state["registers"], state)
    for name, part in parts_of(machine)[:-1]:
        _load_part(name, part, state)
    _load_loans(machine, state["lent"])
    unknown += machine.devices.load_all(state["plugged"])
    unknown += machine.pc.unknown_parts
    name, part = parts_of(machine)[-1]
    _load_part(name, part, state)
    current = state["current"]
    if current not in range(len(vcpus)):
        raise BadState(f"CPU {current!r} runs, of {len(vcpus)}")
    machine.vm.go_on_with(vcpus[current])
    for i, flags in enumerate(state["hidden_flags"]):
        _start(machine, i, flags)
    return unknown


def _load_part(name: str, part: Any, state: Mapping[str, Any]) -> None:
    try:
        load_object(part, state[name])
    except BadState as error:
        raise BadState(f"{name}: {error}") from None


# ---- processors


def _load_registers(
    machine: "Machine", files: list[dict[str, str]], state: Mapping[str, Any]
) -> list[str]:
    """Registers by id, which checks them; a CPU that never ran has none of interest."""
    if len(files) != len(machine.registers):
        raise BadState(f"registers of {len(files)} CPUs, expected {len(machine.registers)}")
    unknown: list[str] = []
    for i, (file, values) in enumerate(zip(machine.registers, files, strict=True)):
        wanted = {int(register, 16): int(value, 16) for register, value in values.items()}
        known = set(_registers(file.ids()))
        unknown += [f"register {register:#018x}" for register in wanted if register not in known]
        unknown += [REGISTERS[register].name for register in known - wanted.keys()]
        if state[f"cpu{i}"]["vcpu"]["cpu"]["root"]:
            file.set({register: wanted[register] for register in known & wanted.keys()})
    return unknown


def _start(machine: "Machine", index: int, flags: int) -> None:
    """Have a CPU's engine follow what was loaded.

    It runs on tables of the monitor's own, or not at all before it is started up.
    """
    processor = machine.processors[index]
    vcpu = processor.vcpu
    cpu: CpuState = vcpu.cpu
    if not cpu.root:
        if processor.activity is not Activity.WAITING:
            raise BadState(f"CPU {index} runs without tables")
        return
    if cpu.root != vcpu.shadow.root_address():
        raise BadState(f"CPU {index} runs on tables at {cpu.root:#x}")
    vcpu.privileged.reload()
    cpu.set_hidden_flags(flags)


def _load_loans(machine: "Machine", places: list[int | None]) -> None:
    """IDE channels that the ROM keeps, in its own data."""
    for channel, start in zip(machine.pc.ide, places, strict=True):
        if start is None:
            continue
        if start & 3 or not machine.vcpu.queue.is_in_image(start, channel.block_size):
            raise BadState(f"an IDE channel lent to {start:#x}")
        block = GuestBlock(machine.memory, GuestPhysical(start), channel.block_size)
        channel.stay_lent(block)


# ---- memory


def _save_memory(memory: "GuestMemory") -> dict[str, Value]:
    slots = list(memory.slots)
    written = memory.log.state()
    return {
        "slots": [
            [slot.address, slot.size, slot.backing, slot.offset, slot.read_only, slot.logging]
            for slot in slots
        ],
        "written": [written.get(slot, []) for slot in slots],
        "laid": [list(run) for run in memory.laid()],
    }


def _load_memory(memory: "GuestMemory", state: Mapping[str, Any]) -> None:
    """The slots, what firmware has laid over them, and which pages count as written."""
    slots = [
        MemorySlot(int(address), int(size), str(backing), int(offset), bool(fixed), bool(logging))
        for address, size, backing, offset, fixed, logging in state["slots"]
    ]
    memory.replace(SlotList(slots, memory.slots.backings.values()))
    for first, count, bits in state["laid"]:
        if not (0 <= first <= first + count <= _FRAMES and 0 < bits < _LAID):
            raise BadState(f"{count} frames laid over from {first} on")
        memory.set_laid(first, count, bits)
    for slot, pages in zip(slots, state["written"], strict=True):
        if any(not 0 <= page < slot.size >> 12 for page in pages):
            raise BadState(f"slot {slot}: pages written that it has not")
        if pages:
            memory.log.restore(slot, pages)
