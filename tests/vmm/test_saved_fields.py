"""Every attribute of every object of a machine is saved, or said not to be and why."""

import enum
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.inputs import load_guest, load_rom
from vmm.core.saved import BY_KEY, PART, PARTS, Fields
from vmm.filters import load_filter, shipped_filters
from vmm.machine import Machine, MachineDescription
from vmm.machinestate import parts_of

CORE = Path(__file__).resolve().parents[2] / "vmm/core"

# Whose state is no part of the machine's.
ELSEWHERE = {
    "vmm.machine.Machine": "takes its parts to the file, one by one",
    "vmm.pc.Part": "the name and the ranges of a device",
    "vmm.core.registerfile.RegisterFile": "reads and writes what is another's",
    "vmm.engine.unicorn.UnicornEngine": "the processor: registers by id, and tables that are saved",
    "vmm.core.bus.PortBus": "who decodes what",
    "vmm.core.bus.MemoryBus": "who decodes what",
    "vmm.core.slots.SlotList": "saved with the memory",
    "vmm.plugging.PluggedDevices": "asks its devices, each of which says for itself",
    "vmm.plugging._Slot": "timers, which are saved with the devices",
    "vmm.devices.ioapiclink.IoApicHere": "where an I/O APIC lives, not what it is",
    "vmm.devices.ioapiclink.IoApicProcess": "where an I/O APIC lives, not what it is",
    "vmm.devices.ioapiclink.IoApicServer": "its state is the link's, by what it has said",
    "vmm.devices.ioapic.IoApic": "its state is the link's, by what it has said",
}


def compiled_classes() -> Iterator[tuple[str, str, set[str]]]:
    """(module, class, attributes) of each class that a .pxd declares, with inherited ones."""
    found: dict[str, tuple[str, str, set[str]]] = {}
    for pxd in sorted(CORE.rglob("*.pxd")):
        parts = re.split(r"(?m)^cdef class (\w+)(?:\((\w+)\))?:", pxd.read_text())
        for name, base, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            lines = re.findall(r"(?m)^    cdef (?:public |readonly )?[\w \[\]:,]*?(\w+)$", body)
            found[name] = (
                ".".join(pxd.relative_to(CORE).with_suffix("").parts),
                base or "",
                set(lines),
            )
    for name, (module, _, _) in found.items():
        above, attributes = name, set()
        while above:
            _, base, own = found[above]
            attributes |= own
            above = base
        yield module, name, attributes


COMPILED = {name: (module, attributes) for module, name, attributes in compiled_classes()}
EXCEPT = {
    "ApicInterrupts": "declared by the class that is made of it",
    "BlockEntry": "declared by the class that is made of it",
    "ShadowEntries": "declared by the class that is made of it",
    "ShadowRoots": "declared by the class that is made of it",
    "Gate": "of machines whose CPUs run in threads, which cannot be saved",
    "SharedCpu": "of machines whose CPUs run in threads, which cannot be saved",
}


@pytest.mark.parametrize("name", sorted(COMPILED.keys() - EXCEPT.keys()))
def test_a_compiled_class_declares_each_attribute(name: str) -> None:
    module, attributes = COMPILED[name]
    imported = __import__(f"vmm.core.{module}", fromlist=[name])
    declared = list(getattr(imported, name).SAVED)
    assert len(declared) == len(set(declared))
    assert set(declared) == attributes


def machine(tmp_path: Path) -> Machine:
    """One with everything."""
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    return Machine(
        MachineDescription(
            load_guest("forkstorm").image,
            load_rom("batching").image,
            disk=disk,
            cpus=2,
            memory=16 << 20,
            filters=tuple(load_filter(name) for name in shipped_filters()),
            check_shadow=True,
        )
    )


def attributes_of(owner: Any) -> dict[str, Any]:
    """{name: value} of what Python can see."""
    names = set(getattr(owner, "__dict__", ()))
    for base in type(owner).__mro__:
        slots = base.__dict__.get("__slots__", ())
        names |= {slots} if isinstance(slots, str) else set(slots)
    found = {}
    for name in names:
        mangled = name
        if name.startswith("__") and not name.endswith("__"):
            mangled = f"_{type(owner).__name__.lstrip('_')}{name}"
        if hasattr(owner, mangled):
            found[name] = getattr(owner, mangled)
    if type(owner).__name__ in COMPILED:
        for name in COMPILED[type(owner).__name__][1]:
            if hasattr(owner, name):
                found[name] = getattr(owner, name)
    return found


def is_state(value: Any) -> bool:
    """Is it an object of ours that may change?"""
    kind = type(value)
    if not kind.__module__.startswith("vmm.") or isinstance(value, (enum.Enum, type, Fields)):
        return False
    parameters = getattr(kind, "__dataclass_params__", None)
    return not (parameters and parameters.frozen) and not inspect.isroutine(value)


def reachable(start: Any) -> Iterator[Any]:
    """Every object of ours that a machine has, itself first."""
    seen: set[int] = set()
    waiting = [start]
    keep = []
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        keep.append(value)
        if is_state(value):
            yield value
            waiting.extend(attributes_of(value).values())
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple, set, frozenset)):
            waiting.extend(value)
        elif hasattr(value, "__self__") and not isinstance(value, type):
            waiting.append(value.__self__)
        elif hasattr(value, "__closure__") and value.__closure__:
            waiting.extend(cell.cell_contents for cell in value.__closure__)
        elif hasattr(value, "func") and hasattr(value, "args"):
            waiting.extend((value.func, *value.args))


def test_each_object_of_a_machine_declares_its_attributes(tmp_path: Path) -> None:
    whole = machine(tmp_path)
    kinds: set[str] = set()
    for owner in reachable(whole):
        name = f"{type(owner).__module__}.{type(owner).__qualname__}"
        kinds.add(name)
        if name in ELSEWHERE or type(owner).__name__ in COMPILED:
            continue
        assert hasattr(type(owner), "SAVED"), f"{name} says nothing of its state"
        assert set(owner.SAVED) == set(attributes_of(owner)), name
    assert kinds > {"vmm.devices.pitchannel.PitChannel", "vmm.core.code.blocks.BlockMeter"}
    assert set(ELSEWHERE) - kinds <= {
        "vmm.devices.ioapiclink.IoApicProcess",
        # Behind a socket, or made when a device is plugged in.
        "vmm.plugging._Slot",
    }
    whole.close()


def parts_within(owner: Any) -> Iterator[Any]:
    """The objects that are saved with one, itself first."""
    yield owner
    for name, kind in owner.SAVED.saved.items():
        value = getattr(owner, name, None)
        parts: Any = ()
        if kind is PART:
            parts = (value,)
        elif kind is PARTS:
            parts = value
        elif kind is BY_KEY:
            parts = value.values()
        for part in parts:
            if part is not None:
                yield from parts_within(part)


def test_each_object_with_state_is_saved_with_the_machine(tmp_path: Path) -> None:
    """Not only declared: somebody asks for it."""
    whole = machine(tmp_path)
    starts = [part for _, part in parts_of(whole)]
    starts += [part.device for part in whole.pc.parts]
    starts += whole.pc._wires.values()
    asked = {id(part) for start in starts for part in parts_within(start)}
    for owner in reachable(whole):
        name = f"{type(owner).__module__}.{type(owner).__qualname__}"
        if name not in ELSEWHERE and owner.SAVED.saved:
            assert id(owner) in asked, f"nobody saves a {name}"
    whole.close()
