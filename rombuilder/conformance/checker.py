"""A whole check of one ROM, in this process: for ROMs that are known to be harmless.

`rombuilder.conformance.check` does it at arm's length.
"""

import gc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from rombuilder.conformance.effects import MAY_BE_DROPPED
from rombuilder.conformance.findings import Finding, Findings
from rombuilder.conformance.judge import Ordinary, Trial, bad_ending, conventions, differences
from rombuilder.conformance.layout import PLACEMENTS, Placement
from rombuilder.conformance.machine import Ending, Machine, Run
from rombuilder.conformance.relocation import Answer, ask, group_problems, initialise
from rombuilder.conformance.rules import Problem
from rombuilder.conformance.states import ARITHMETIC, State, random_state
from vmi.calls import CALLS, Call, Place
from vmi.relocation import RelocationKind

__all__ = ["Checker", "Progress"]

Progress = Callable[[str, int, int], None]
"""Is told what is going on, how much is done, and of how much."""

_LENDING = {"APICWrite", "APICRead"}
"""Only the ROM knows where its guest maps the local APIC."""
_HOPELESS = {"runaway", "recursion", "exception", "emulator"}
"""Not tried again elsewhere: these take long, and say enough."""


class Checker:
    """Checks an image whose header has been found good enough to run it."""

    def __init__(
        self,
        image: bytes,
        natives: Mapping[str, bytes],
        report: Callable[[Finding], None],
        *,
        seed: int,
    ) -> None:
        self.answers: dict[int, Answer] = {}
        """get_reloc's, at the first load address."""
        self.runs = 0
        """Calls made on random states."""
        self._image = image
        self._natives = natives
        self._findings = Findings(report)
        self._seed = seed
        self._hopeless: set[str] = set()
        self._used: Machine | None = None

    def check(self, states: int, progress: Progress) -> None:
        """Everything, each call on so many states at each load address."""
        for index, place in enumerate(PLACEMENTS):
            answers = self.relocate(place)
            if answers is None:
                return
            self.answers = self.answers or answers
            for done, call in enumerate(CALLS):
                progress(
                    f"{call.name} at {place.load:#x}",
                    index * len(CALLS) + done,
                    len(PLACEMENTS) * len(CALLS),
                )
                self.check_call(call, place, answers, range(states))

    def relocate(self, place: Placement) -> dict[int, Answer] | None:
        """vmi_init and get_reloc at one place; None if the calls cannot be found."""
        seed = f"{self._seed}/{place.load:#x}"
        machine = self._machine(place)
        if not initialise(
            machine, seed, lambda problem, state: self._add(problem, "vmi_init", place, state)
        ):
            return None
        answers = ask(
            machine, seed, lambda name, problem, state: self._add(problem, name, place, state)
        )
        if answers is not None:
            state = random_state(None, place, seed)
            for name, problem in group_problems(answers, self.answers):
                self._add(problem, name, place, state)
        return answers

    def check_call(
        self, call: Call, place: Placement, answers: Mapping[int, Answer], states: range
    ) -> None:
        """One call at one place, on states by their numbers."""
        answer = answers.get(call.number)
        if answer is None or answer.kind is RelocationKind.NONE or call.name in self._hopeless:
            return
        if answer.kind is RelocationKind.NOP:
            judge: Callable[[Machine, State], tuple[Iterator[Problem], bool]] = partial(
                self._dropped, call
            )
        elif answer.offset is None or answer.offset >= len(self._image):
            return
        elif call.must_patch != (answer.kind is RelocationKind.JUMP_REL):
            return  # a finding already, and nothing is known of the stack it expects
        else:
            judge = partial(self._offered, call, answer.offset)
        for index in states:
            state = random_state(call, place, f"{self._seed}/{place.load:#x}/{call.name}/{index}")
            problems, goes_on = judge(self._machine(place), state)
            self.runs += 1
            for problem in problems:
                self._add(problem, call.name, place, state)
                if problem.code in _HOPELESS:
                    self._hopeless.add(call.name)
            if not goes_on:
                self._used = None
                return

    def _machine(self, place: Placement) -> Machine:
        """A machine at the place: the one used before, unless it was given up."""
        if self._used is None or self._used.place != place:
            # Machines refer to themselves through their hooks, and each reserves much memory.
            self._used = None
            gc.collect()
            self._used = Machine(self._image, place, self._natives)
        return self._used

    def _add(self, problem: Problem, call: str, place: Placement, state: State) -> None:
        self._findings.add(problem, call, place.load, state)

    def _offered(
        self, call: Call, offset: int, machine: Machine, state: State
    ) -> tuple[Iterator[Problem], bool]:
        """The call against its native instruction; may the machine be used again?"""
        machine.take_back()
        run = machine.call(offset, state, jump=call.must_patch, lends=call.name in _LENDING)
        trial = Trial(machine.place, len(self._image), state, run)
        survives = False
        if state.poisoned and run.ending is Ending.ACCESS:
            self._used = None
            tame = replace(state, poisoned=False)
            again = self._machine(machine.place).call(offset, tame, jump=call.must_patch)
            survives = again.ending is Ending.LEFT
        problem = bad_ending(trial, survives_without_poison=survives)
        if problem:
            return iter([problem]), False
        if call.name not in self._natives:
            return conventions(trial, Ordinary.of(call), call=call), True
        if call.name in _LENDING and machine.lent is None:
            return iter([Problem("memory", "uses no register of a local APIC")]), True
        native = self._native(call, machine, state)
        return differences(trial, call, native), True

    def _native(self, call: Call, machine: Machine, state: State) -> Run:
        if machine.lent is not None:
            at = machine.lent + state.registers["EAX"]
            state = replace(state, registers={**state.registers, "EAX": at})
        return machine.native(call.name, state, jump=call.must_patch)

    def _dropped(
        self, call: Call, machine: Machine, state: State
    ) -> tuple[Iterator[Problem], bool]:
        """NOP: the native instruction had better do nothing."""
        if call.name in MAY_BE_DROPPED or call.must_patch or call.name not in self._natives:
            return iter(()), True
        native = self._native(call, machine, state)
        done = [str(effect) for effect in native.effects]
        if native.arena != state.memory:
            done.append("a store to memory")
        if (native.registers["EFLAGS"] ^ state.flags) & ~ARITHMETIC:
            done.append("a change of EFLAGS")
        for result in call.results:
            name = "EAX" if result.place is Place.EDX_EAX else result.place.value
            if native.registers[name] != state.registers[name]:
                done.append(f"an answer in {name}")
        if not done:
            return iter(()), True
        text = f"is answered NOP, but natively there is {', '.join(done)}"
        return iter([Problem("dropped", text)]), True
