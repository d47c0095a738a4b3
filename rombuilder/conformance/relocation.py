"""vmi_init and get_reloc: how they behave, and whether the answers fit together."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from rombuilder.conformance.judge import Ordinary, Trial, conventions
from rombuilder.conformance.machine import Machine
from rombuilder.conformance.rules import Problem
from rombuilder.conformance.states import IF, State, random_state
from vmi.calls import TIMER_CALLS, call_numbered
from vmi.header import GET_RELOC, VMI_INIT
from vmi.relocation import RelocationAnswer, RelocationKind

__all__ = ["LIMIT", "Answer", "ask", "group_problems", "initialise", "name_of"]

LIMIT = 128
"""Calls that are asked for. API 3.0 knows 0 to 73."""
_BEYOND = (LIMIT, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

_FUNCTION = Ordinary(frozenset({"EAX", "EDX", "ECX"}))
_LEADS_SOMEWHERE = {RelocationKind.CALL_REL, RelocationKind.JUMP_REL}

Add = Callable[[Problem, State], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What get_reloc said. `offset` into the image, None where there is no address."""

    kind: RelocationKind
    offset: int | None


def name_of(number: int) -> str:
    """How a finding names a call by number."""
    try:
        return call_numbered(number).name
    except KeyError:
        return f"call {number}"


def _wrong(code: str, problems: Iterator[Problem]) -> Iterator[Problem]:
    """Breaches of the C convention count as the function's own; graver ones keep their name."""
    own = {"register", "stack", "direction-flag", "interrupt-flag", "flags", "segment"}
    for problem in problems:
        yield Problem(code, problem.text) if problem.code in own else problem


def initialise(machine: Machine, seed: str, add: Add) -> bool:
    """Call vmi_init; is there any point in going on?"""
    state = random_state(None, machine.place, f"{seed}/vmi_init")
    state = replace(state, flags=state.flags & ~IF)
    run = machine.call(VMI_INIT, state)
    trial = Trial(machine.place, len(machine.image), state, run)
    problems = list(_wrong("vmi-init", conventions(trial, _FUNCTION)))
    if not problems and run.registers["EAX"]:
        problems.append(Problem("vmi-init", f"answers {run.registers['EAX']:#x}, expected 0"))
    for problem in problems:
        add(problem, state)
    return not any(problem.code != "vmi-init" for problem in problems)


def ask(
    machine: Machine, seed: str, add: Callable[[str, Problem, State], None]
) -> dict[int, Answer] | None:
    """get_reloc's answer for every number; None when it cannot be asked."""
    answers = {}
    for number in (*range(LIMIT), *_BEYOND):
        state = random_state(None, machine.place, f"{seed}/get_reloc/{number}")
        state = replace(state, registers={**state.registers, "EAX": number})
        run = machine.call(GET_RELOC, state)
        trial = Trial(machine.place, len(machine.image), state, run)
        problems = list(_wrong("get-reloc", conventions(trial, _FUNCTION)))
        for problem in problems:
            add("get_reloc", problem, state)
        if any(problem.code != "get-reloc" for problem in problems):
            return None
        try:
            said = RelocationAnswer.from_registers(run.registers["EAX"], run.registers["EDX"])
        except ValueError as error:
            add(name_of(number), Problem("relocation-kind", f"is no patch: {error}"), state)
            continue
        offset = None
        if said.kind in _LEADS_SOMEWHERE:
            offset = (said.address - machine.place.load) & 0xFFFFFFFF
        answer = answers[number] = Answer(said.kind, offset)
        for problem in _answer_problems(number, answer, len(machine.image), machine.place.load):
            add(name_of(number), problem, state)
    return answers


def _answer_problems(number: int, answer: Answer, size: int, load: int) -> Iterator[Problem]:
    if answer.offset is not None and answer.offset >= size:
        yield Problem(
            "relocation-address",
            f"is said to be at {(answer.offset + load) & 0xFFFFFFFF:#x}, "
            f"the image at {load:#x} to {load + size:#x}",
        )
    try:
        call = call_numbered(number)
    except KeyError:
        if answer.kind is not RelocationKind.NONE:
            yield Problem("unknown-call", f"does not exist and is answered {answer.kind.name}")
        return
    if call.must_patch and answer.kind is not RelocationKind.JUMP_REL:
        yield Problem("must-patch", f"is answered {answer.kind.name}")
    if call.returns and answer.kind is RelocationKind.JUMP_REL:
        yield Problem("jump", "returns and is answered JUMP_REL")


def group_problems(
    answers: Mapping[int, Answer], first: Mapping[int, Answer]
) -> Iterator[tuple[str, Problem]]:
    """What the answers say together; `first` are those of the first load address."""
    offered = {
        number
        for number in TIMER_CALLS
        if answers.get(number, Answer(RelocationKind.NONE, None)).kind is not RelocationKind.NONE
    }
    if offered and len(offered) < len(TIMER_CALLS):
        there = ", ".join(name_of(number) for number in sorted(offered))
        missing = ", ".join(name_of(n) for n in TIMER_CALLS if n not in offered)
        yield (
            "get_reloc",
            Problem("timer-group", f"offers {there} but not {missing}"),
        )
    for number, answer in answers.items():
        before = first.get(number)
        if before is not None and before != answer:
            yield (
                name_of(number),
                Problem("relocation-moves", f"is {_text(answer)} here, {_text(before)} elsewhere"),
            )


def _text(answer: Answer) -> str:
    where = "" if answer.offset is None else f" at offset {answer.offset:#x}"
    return f"{answer.kind.name}{where}"
