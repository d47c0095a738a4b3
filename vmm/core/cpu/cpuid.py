"""What the guest's CPUID answers: a plain family-6 processor under a hypervisor."""

from collections.abc import Callable

from vmm.core.localapic import LocalApic

__all__ = ["MODEL_SPECIFIC_REGISTERS", "cpuid", "cpuid_with_apic"]

_FPU, _PSE, _TSC, _MSR, _PAE, _CX8, _SEP, _PGE, _CMOV = 0, 3, 4, 5, 6, 8, 11, 13, 15
_MMX, _FXSR, _SSE, _SSE2 = 23, 24, 25, 26
_FEATURES = sum(
    1 << bit
    for bit in (_FPU, _PSE, _TSC, _MSR, _PAE, _CX8, _SEP, _PGE, _CMOV, _MMX, _FXSR, _SSE, _SSE2)
)
_HYPERVISOR = 1 << 31
_APIC = 1 << 9
_TSC_DEADLINE = 1 << 24
_INITIAL_ID_SHIFT = 24
_NO_EXECUTE = 1 << 20
# Model 7: no newer model's quirks and no model-specific registers beyond the few below.
_FAMILY_6_MODEL_7 = 0x673


def _words(text: bytes) -> tuple[int, int, int]:
    first, second, third = (int.from_bytes(text[i : i + 4], "little") for i in (0, 4, 8))
    return first, second, third


_VENDOR = _words(b"GenuineIntel")
_MONITOR = _words(b"vmirom\0\0\0\0\0\0")

_LEAVES: dict[int, tuple[int, int, int, int]] = {
    0: (1, _VENDOR[0], _VENDOR[2], _VENDOR[1]),
    1: (_FAMILY_6_MODEL_7, 0, _HYPERVISOR, _FEATURES),
    0x40000000: (0x40000000, *_MONITOR),
    0x80000000: (0x80000001, 0, 0, 0),
    0x80000001: (0, 0, 0, _NO_EXECUTE),
}


MODEL_SPECIFIC_REGISTERS = {
    0x10: 0,
    0x17: 0,
    0x1B: 0xFEE00900,
    0x8B: 0,
    0x1A0: 0,
    0xC0000080: 0,
}
"""Time stamp, platform and microcode identity, APIC base, miscellaneous enables, EFER."""


def cpuid(leaf: int) -> tuple[int, int, int, int]:
    """EAX, EBX, ECX, EDX of a leaf; zeros for one that is not there. No local APIC is."""
    return _LEAVES.get(leaf, (0, 0, 0, 0))


def cpuid_with_apic(apic: LocalApic) -> Callable[[int], tuple[int, int, int, int]]:
    """What CPUID answers on the CPU of this local APIC.

    The APIC's feature bit follows its enable bit in IA32_APIC_BASE.
    """

    def answer(leaf: int) -> tuple[int, int, int, int]:
        eax, ebx, ecx, edx = cpuid(leaf)
        if leaf == 1:
            ebx |= apic.initial_id << _INITIAL_ID_SHIFT
            if apic.is_on():
                ecx |= _TSC_DEADLINE
                edx |= _APIC
        return eax, ebx, ecx, edx

    return answer
