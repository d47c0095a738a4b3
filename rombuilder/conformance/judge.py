"""What must be equal when a call and its native instruction have run on the same state."""

from collections.abc import Iterator
from dataclasses import dataclass

from rombuilder.conformance.effects import effects_problem
from rombuilder.conformance.layout import PLACEMENTS, Placement, descriptors
from rombuilder.conformance.machine import MAX_STEPS, Access, Ending, Run
from rombuilder.conformance.rules import Problem
from rombuilder.conformance.states import ARITHMETIC, DF, IF, REGISTERS, State
from vmi.calls import Call, Place

__all__ = ["Ordinary", "Trial", "bad_ending", "conventions", "differences", "kept"]

_STATUS_FLAGS = IF | DF
_REENTRIES = 64
"""A call that has begun this often, ever deeper in the stack, will not end."""
_STACK_EDGE = 64
_WORD = 0xFFFFFFFF
_ROM_AREA = range(0xC0000, 0x100000)
"""Where option ROMs lie, as a physical address."""

# Results of which the caller takes a part only.
_RESULT_BITS = {
    "GetInterruptMask": IF,
    "GetLDT": 0xFFFF,
    "GetTR": 0xFFFF,
    "INB": 0xFF,
    "INW": 0xFFFF,
}
_RESULT_REGISTERS = {
    Place.EAX: ("EAX",),
    Place.EBX: ("EBX",),
    Place.ECX: ("ECX",),
    Place.EDX: ("EDX",),
    Place.ESI: ("ESI",),
    Place.EDI: ("EDI",),
    Place.EDX_EAX: ("EAX", "EDX"),
}
_MAY_ENABLE = {"EnableInterrupts", "SetInterruptMask"}
_ENABLES_BEFORE = {"Halt": {"hlt"}, "SYSEXIT": {"sysexit", "iretd"}}


@dataclass(frozen=True, slots=True)
class Ordinary:
    """What a function of the ROM may do to its caller. `jump`: nothing was pushed for it."""

    clobbers: frozenset[str]
    flags: bool = True
    jump: bool = False

    @classmethod
    def of(cls, call: Call) -> "Ordinary":
        """The convention of a VMI call."""
        registers = frozenset(place.value for place in call.clobbers)
        return cls(registers, Place.FLAGS in call.clobbers, call.must_patch)


@dataclass(frozen=True, slots=True)
class Trial:
    """A call that has run on a state, at a place."""

    place: Placement
    image_size: int
    state: State
    run: Run

    def is_absolute(self, address: int) -> bool:
        """Does the address make sense only for an image that is somewhere else?"""
        if self.place.load <= address < self.place.load + self.image_size:
            return False
        mappings = {0} | {place.mapping for place in PLACEMENTS}
        return address < self.image_size or any(address - start in _ROM_AREA for start in mappings)


def bad_ending(trial: Trial, *, survives_without_poison: bool = False) -> Problem | None:
    """What is wrong with a run that did not end by leaving, stopping or resetting."""
    run = trial.run
    deep = run.entries > _REENTRIES and run.lowest < trial.state.esp
    if deep and run.ending in {Ending.ACCESS, Ending.RUNAWAY}:
        return Problem("recursion", f"calls itself, {run.entries} times so far")
    if run.access is not None and 0 < trial.place.stack - run.access.address <= _STACK_EDGE:
        size = trial.state.esp - trial.place.stack
        return Problem("recursion", f"needs more stack than the {size:#x} bytes there are")
    if run.access is not None:
        return _bad_access(trial, run.access, survives_without_poison=survives_without_poison)
    return {
        Ending.RUNAWAY: Problem("runaway", f"does not end within {MAX_STEPS} instructions"),
        Ending.TRAP: Problem("exception", f"raises {run.detail}"),
        Ending.BROKEN: Problem("emulator", f"cannot be executed: {run.detail}"),
    }.get(run.ending)


def _bad_access(trial: Trial, access: Access, *, survives_without_poison: bool) -> Problem:
    address, verb = access.address, access.verb
    offset = address - trial.place.load
    if 0 <= offset < trial.image_size:
        return Problem("image-write", f"{verb} its own image at offset {offset:#x}")
    if survives_without_poison:
        return Problem("data-segment", f"{verb} memory through DS or ES (at {address:#x})")
    if trial.is_absolute(address):
        return Problem("absolute-address", f"{verb} {address:#x}, where the image is not")
    return Problem("access", f"{verb} {address:#x} ({access.size} bytes)")


def kept(trial: Trial, ordinary: Ordinary, native: Run | None = None) -> Iterator[Problem]:
    """What a caller relies on: address, stack, registers, flags, segments.

    Without a native run to compare with, those of a call that returns.
    """
    state, run = trial.state, trial.run
    returns = native.registers["EIP"] if native else trial.place.returns
    stack = native.registers["ESP"] if native else state.esp + 4
    eip, esp = run.registers["EIP"], run.registers["ESP"]
    if eip != returns:
        code = (
            "absolute-address" if trial.is_absolute(eip) else "ring" if ordinary.jump else "stack"
        )
        yield Problem(code, f"goes to {eip:#x} instead of {returns:#x}")
        return
    if esp != stack:
        yield Problem("stack", f"leaves ESP at {esp:#x}, {esp - stack:+d} bytes from {stack:#x}")
    for name in REGISTERS:
        allowed = {state.registers[name]} | ({native.registers[name]} if native else set())
        if name not in ordinary.clobbers and run.registers[name] not in allowed:
            yield Problem(
                "register",
                f"changes {name} from {state.registers[name]:#010x} to {run.registers[name]:#010x}",
            )
    yield from _flags(trial, ordinary, native)
    yield from _selectors(trial, ordinary, native)


def _flags(trial: Trial, ordinary: Ordinary, native: Run | None) -> Iterator[Problem]:
    expected = native.registers["EFLAGS"] if native else trial.state.flags
    changed = trial.run.registers["EFLAGS"] ^ expected
    if changed & DF:
        yield Problem("direction-flag", f"leaves DF {'clear' if expected & DF else 'set'}")
    if changed & IF:
        yield Problem("interrupt-flag", f"leaves interrupts {'off' if expected & IF else 'on'}")
    others = changed & ~_STATUS_FLAGS & (~ARITHMETIC if ordinary.flags else _WORD)
    if others:
        yield Problem(
            "flags", f"leaves EFLAGS {trial.run.registers['EFLAGS']:#x}, expected {expected:#x}"
        )


def _selectors(trial: Trial, ordinary: Ordinary, native: Run | None) -> Iterator[Problem]:
    if native is None:
        return
    for name, expected in native.selectors.items():
        found = trial.run.selectors[name]
        if found != expected:
            code = "ring" if ordinary.jump else "segment"
            yield Problem(code, f"leaves {name} {found:#x}, expected {expected:#x}")


def _interrupts(call: Call | None, run: Run) -> Iterator[Problem]:
    name = call.name if call else ""
    if name in _MAY_ENABLE:
        return
    for instruction, following in run.turned_on:
        if instruction == "sti" and following in _ENABLES_BEFORE.get(name, ()):
            continue
        yield Problem(
            "interrupt-window", f"turns interrupts on by {instruction} with {following} to follow"
        )


def _first_difference(found: bytes, expected: bytes) -> int | None:
    if found == expected:
        return None
    pairs = zip(found, expected, strict=True)
    return next(at for at, (one, other) in enumerate(pairs) if one != other)


def _memory(trial: Trial, ordinary: Ordinary, native: Run | None) -> Iterator[Problem]:
    """All memory is equal, but for what lies below the caller's part of the stack."""
    place, state, run = trial.place, trial.state, trial.run
    above = state.esp - place.stack + 4 * len(state.stack) + (0 if ordinary.jump else 4)
    expected_arena = native.arena if native else state.memory
    pairs: list[tuple[int, bytes, bytes]] = [
        (place.arena, run.arena, expected_arena),
        (place.tables, run.tables, descriptors()),
    ]
    if native:
        pairs.append((run.lent or 0, run.page, native.page))
    top = place.stack + above
    pairs.append((top, run.stack[above:], state.old_stack[above:]))
    for start, found, expected in pairs:
        at = _first_difference(found, expected)
        if at is not None:
            yield Problem(
                "memory",
                f"leaves {found[at : at + 4].hex(' ')} at {start + at:#x}, "
                f"expected {expected[at : at + 4].hex(' ')}",
            )


def conventions(
    trial: Trial, ordinary: Ordinary, *, call: Call | None = None, memory: bool = True
) -> Iterator[Problem]:
    """All rules for a function that has no native counterpart."""
    problem = bad_ending(trial)
    if problem:
        yield problem
        return
    yield from kept(trial, ordinary)
    yield from _interrupts(call, trial.run)
    if memory:
        yield from _memory(trial, ordinary, None)


def differences(trial: Trial, call: Call, native: Run) -> Iterator[Problem]:
    """All rules for a call, `native` being what the native instruction did."""
    run = trial.run
    if run.ending is not native.ending:
        code = {Ending.RESET: "reset", Ending.STOPPED: "stop"}.get(native.ending, "effect")
        done = {Ending.RESET: "resets the machine", Ending.STOPPED: "halts with interrupts off"}
        yield Problem(code, f"{done.get(run.ending, 'returns')}, which it natively does not")
        return
    if native.ending is not Ending.LEFT:
        return
    ordinary = Ordinary.of(call)
    found = list(kept(trial, ordinary, native))
    yield from found
    if any(problem.code in {"stack", "ring", "absolute-address"} for problem in found):
        return
    bits = _RESULT_BITS.get(call.name, _WORD)
    for result in call.results:
        for name in _RESULT_REGISTERS[result.place]:
            answer, expected = run.registers[name] & bits, native.registers[name] & bits
            if answer != expected:
                yield Problem("result", f"answers {name} {answer:#x}, expected {expected:#x}")
    yield from _interrupts(call, run)
    yield from _memory(trial, ordinary, native)
    problem = effects_problem(call, trial.state, run, native)
    if problem:
        yield problem
