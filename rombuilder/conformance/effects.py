"""When are the effects of a call those of the native instruction?

Equal effects always are. A few calls may do more, or otherwise: a larger flush than
was asked for is one, and a delay is a delay.
"""

from collections.abc import Callable

from rombuilder.conformance.machine import Run
from rombuilder.conformance.privileged import Effect
from rombuilder.conformance.rules import Problem
from rombuilder.conformance.states import State
from vmi.calls import Call
from vmi.flags import TlbFlush

__all__ = ["MAY_BE_DROPPED", "effects_problem"]

MAY_BE_DROPPED = {"IODelay"}
"""Calls that a ROM may answer with NOP although the native instruction does something."""

_PGE = 0x80
_DELAY_PORTS = {0x80, 0xED}


def _text(effects: list[Effect]) -> str:
    return ", ".join(map(str, effects)) or "nothing"


def _flushed(run: Run) -> tuple[bool, bool] | None:
    """Was the TLB flushed, and of global pages too? None if anything else was done.

    Loading CR3 spares global pages; a change of CR4.PGE does not (Intel SDM vol. 3,
    4.10.4.1).
    """
    everything = local = False
    pge = run.control["cr4"]
    for effect in run.effects:
        if effect.what == "CR3":
            local = True
        elif effect.what == "CR4":
            now = effect.operands[0]
            everything = everything or (pge ^ now) & _PGE != 0
            pge = now
        elif effect.what != "INVLPG":
            return None
    return local or everything, everything


def _flush(state: State, run: Run, _native: Run) -> bool:
    """FlushTLB: as much as was asked for, and no register changed by it."""
    flushed = _flushed(run)
    if flushed is None:
        return False
    last = {effect.what: effect.operands for effect in run.effects}
    wanted = {"CR3": run.control["cr3"], "CR4": run.control["cr4"]}
    if any(last.get(name, (value,)) != (value,) for name, value in wanted.items()):
        return False
    # Without CR4.PGE no page is global.
    whole = bool(state.registers["EAX"] & TlbFlush.GLOBAL and run.control["cr4"] & _PGE)
    return flushed[1] if whole else flushed[0]


def _inval(_state: State, run: Run, native: Run) -> bool:
    """InvalPage: the page, or everything."""
    if run.effects == native.effects:
        return True
    flushed = _flushed(run)
    return flushed is not None and flushed[1]


def _delay(_state: State, run: Run, _native: Run) -> bool:
    """IODelay: accesses to ports that are there for it, or none."""
    return all(
        effect.what == "OUT8" and effect.operands[0] in _DELAY_PORTS for effect in run.effects
    )


_JUDGES: dict[str, Callable[[State, Run, Run], bool]] = {
    "FlushTLB": _flush,
    "InvalPage": _inval,
    "IODelay": _delay,
}


def effects_problem(call: Call, state: State, run: Run, native: Run) -> Problem | None:
    """What is wrong with the effects of a call."""
    judge = _JUDGES.get(call.name)
    if judge(state, run, native) if judge else run.effects == native.effects:
        return None
    return Problem("effect", f"does {_text(run.effects)}, natively {_text(native.effects)}")
