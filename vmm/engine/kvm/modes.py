"""The two states that a vCPU is started in: 32-bit flat and unpaged, and real mode."""

from collections.abc import Mapping

__all__ = ["flat_protected", "real_mode", "selector_segment"]

_CODE, _DATA, _BUSY_TASK, _LDT = 0xB, 0x3, 0xB, 0x2
_CR0_PE, _CR0_ET = 0x1, 0x10
_DATA_SEGMENTS = ("ds", "es", "fs", "gs", "ss")
_EFLAGS_FIXED = 2


def selector_segment(
    name: str, selector: int, *, base: int = 0, limit: int = 0xFFFFFFFF, big: bool = True
) -> dict[str, int]:
    """Registers of a ring 0 segment, code for cs, data for others, with its hidden part."""
    return {
        f"{name}.base": base,
        f"{name}.limit": limit,
        f"{name}.selector": selector,
        f"{name}.type": _CODE if name == "cs" else _DATA,
        f"{name}.present": 1,
        f"{name}.dpl": 0,
        f"{name}.db": int(big),
        f"{name}.s": 1,
        f"{name}.l": 0,
        f"{name}.g": int(limit > 0xFFFFF),
        f"{name}.unusable": 0,
    }


def _common() -> dict[str, int]:
    """A task register that the entry checks of both vendors take; no LDT."""
    return {
        "tr.base": 0,
        "tr.limit": 0xFFFF,
        "tr.selector": 0,
        "tr.type": _BUSY_TASK,
        "tr.present": 1,
        "tr.s": 0,
        "tr.unusable": 0,
        "ldt.limit": 0xFFFF,
        "ldt.selector": 0,
        "ldt.type": _LDT,
        "ldt.present": 1,
        "ldt.s": 0,
        "rflags": _EFLAGS_FIXED,
    }


def flat_protected(code: int, data: int, gdt: int, gdt_limit: int) -> Mapping[str, int]:
    """32-bit flat segments of these selectors, paging off, no IDT."""
    state = _common()
    state |= selector_segment("cs", code)
    for name in _DATA_SEGMENTS:
        state |= selector_segment(name, data)
    return state | {
        "cr0": _CR0_PE | _CR0_ET,
        "cr4": 0,
        "efer": 0,
        "gdt.base": gdt,
        "gdt.limit": gdt_limit,
        "idt.base": 0,
        "idt.limit": 0,
    }


def real_mode(code_segment: int, stack_segment: int = 0) -> Mapping[str, int]:
    """Real mode: each base is 16 times its segment, the vector table at 0."""
    state = _common()
    state |= selector_segment("cs", code_segment, base=code_segment << 4, limit=0xFFFF, big=False)
    for name in _DATA_SEGMENTS:
        segment = stack_segment if name == "ss" else 0
        state |= selector_segment(name, segment, base=segment << 4, limit=0xFFFF, big=False)
    return state | {
        "cr0": _CR0_ET,
        "cr4": 0,
        "efer": 0,
        "gdt.base": 0,
        "gdt.limit": 0xFFFF,
        "idt.base": 0,
        "idt.limit": 0xFFFF,
    }
