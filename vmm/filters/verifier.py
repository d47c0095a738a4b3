"""Is a port filter harmless? Every path is walked, without the numbers, before it may run.

An accepted program ends within `MOST_STEPS` instructions whatever the guest does, reads
what it has written and nothing else, stays within its context, stack and state, and can
neither learn nor keep an address. The method is that of the Linux kernel's verifier
(kernel/bpf/verifier.c, in words: Documentation/bpf/verifier.rst): walk each path; stop
where everything that may follow was already walked under weaker assumptions.
"""

from dataclasses import dataclass, field

from vmm.filters.abstract import AbstractState, Forbidden
from vmm.filters.isa import Instruction, JumpOp
from vmm.filters.listing import text_of
from vmm.filters.program import FilterProgram
from vmm.filters.steps import Successor, step

__all__ = ["MOST_INSTRUCTIONS", "MOST_STEPS", "MOST_VISITS", "RejectedFilter", "verify"]

MOST_INSTRUCTIONS = 4096
"""The longest program, in units of 8 bytes."""
MOST_STEPS = 4096
"""Instructions that one run of a filter may take."""
MOST_VISITS = 50_000
"""Instructions looked at, over all paths, before a program counts as too complex."""

_REMEMBERED = 64
"""States kept per place; older ones are the least likely to come again."""


class RejectedFilter(ValueError):
    """A program that must not run: which instruction, and why.

    `index` counts instructions as jumps do, `instruction` is its text.
    """

    def __init__(self, program: FilterProgram, index: int, reason: str) -> None:
        one = program.code[index] if index < len(program.code) else None
        self.index = index
        self.instruction = "" if one is None else text_of(one, index)
        self.reason = reason
        line = f":{program.lines[index]}" if index < len(program.lines) else ""
        shown = f" ({self.instruction})" if self.instruction else ""
        super().__init__(f"{program.name}{line}: instruction {index}{shown}: {reason}")


@dataclass(slots=True)
class _Node:
    """A place on the path that is being walked."""

    index: int
    state: AbstractState
    length: int
    """Instructions from here to its successors."""
    successors: list[Successor]
    longest: int = 0
    """The longest way found so far from a successor to the end."""


@dataclass(slots=True)
class _Known:
    """From these states at a place, all was walked; it took at most so many instructions."""

    entries: list[tuple[AbstractState, int]] = field(default_factory=list)

    def longest(self, state: AbstractState) -> int | None:
        for known, length in reversed(self.entries):
            if known.includes(state):
                return length
        return None

    def remember(self, state: AbstractState, length: int) -> None:
        self.entries.append((state, length))
        del self.entries[:-_REMEMBERED]


def verify(program: FilterProgram) -> int:
    """Raise `RejectedFilter` unless the program is harmless; answers its longest run.

    That is in instructions, over all that a guest, a device and the clock can do.
    """
    return _Verifier(program).verify()


class _Verifier:
    def __init__(self, program: FilterProgram) -> None:
        self._program = program
        self._code = program.code
        self._visits = 0
        self._joins: set[int] = set()
        self._known: dict[int, _Known] = {}

    def _reject(self, index: int, reason: str) -> RejectedFilter:
        return RejectedFilter(self._program, index, reason)

    def verify(self) -> int:
        if len(self._code) > MOST_INSTRUCTIONS:
            raise self._reject(
                MOST_INSTRUCTIONS,
                f"the program has {len(self._code)}, expected at most {MOST_INSTRUCTIONS}",
            )
        self._check_flow()
        return self._walk()

    def _instruction(self, index: int) -> Instruction:
        one = self._code[index]
        if one is None:
            raise self._reject(index, "is the middle of a wide load")
        return one

    def _check_flow(self) -> None:
        """Jumps go to instructions, the end is not run over, nothing is there for nothing."""
        reached = [0]
        seen = set()
        while reached:
            index = reached.pop()
            if index in seen:
                continue
            seen.add(index)
            one = self._instruction(index)
            for target in self._targets(index, one):
                if target == len(self._code) and not one.is_jump:
                    raise self._reject(index, "the program runs over its end")
                if not 0 <= target < len(self._code):
                    raise self._reject(
                        index, f"goes to {target}, outside the program's {len(self._code)}"
                    )
                if self._code[target] is None:
                    raise self._reject(index, f"goes to {target}, the middle of a wide load")
                if one.is_jump:
                    self._joins.add(target)
                reached.append(target)
        for index, found in enumerate(self._code):
            if found is not None and index not in seen:
                raise self._reject(index, "is never reached")

    @staticmethod
    def _targets(index: int, one: Instruction) -> list[int]:
        following = index + (2 if one.is_wide else 1)
        if not one.is_jump:
            return [following]
        operation = one.operation
        if operation == JumpOp.EXIT:
            return []
        if operation == JumpOp.JA:
            return [one.target(index)]
        return [following, one.target(index)]

    def _walk(self) -> int:
        """Depth first over all paths, without recursion: paths are long."""
        path = [self._node((0, AbstractState.at_entry(len(self._program.state))))]
        steps = path[0].length
        while True:
            node = path[-1]
            if node.successors:
                index, state = node.successors.pop()
                known = self._known.get(index)
                longest = None if known is None else known.longest(state)
                if longest is None:
                    self._check_progress(path, index, state)
                    path.append(self._node((index, state)))
                    steps += path[-1].length
                else:
                    node.longest = max(node.longest, longest)
                    self._check_steps(steps + longest, node)
                self._check_steps(steps, node)
                continue
            path.pop()
            steps -= node.length
            longest = node.length + node.longest
            self._known.setdefault(node.index, _Known()).remember(node.state, longest)
            if not path:
                return longest
            path[-1].longest = max(path[-1].longest, longest)

    def _check_steps(self, steps: int, node: _Node) -> None:
        if steps > MOST_STEPS:
            raise self._reject(
                node.index, f"a run can take more than {MOST_STEPS} instructions to its end"
            )

    def _check_progress(self, path: list[_Node], index: int, state: AbstractState) -> None:
        for node in path:
            if node.index == index and node.state.includes(state):
                raise self._reject(index, "a loop that nothing is known to end")

    def _node(self, start: Successor) -> _Node:
        """Walk from a place to where paths part or may meet."""
        index, state = start
        before = state.copy()
        length = 0
        while True:
            self._visits += 1
            length += 1
            if self._visits > MOST_VISITS:
                raise self._reject(
                    index, f"too complex: {MOST_VISITS} instructions were looked at without an end"
                )
            one = self._instruction(index)
            try:
                successors = step(state, index, one)
            except Forbidden as error:
                raise self._reject(index, str(error)) from None
            if len(successors) == 1 and successors[0][0] not in self._joins:
                index, state = successors[0]
                continue
            return _Node(start[0], before, length, successors)
