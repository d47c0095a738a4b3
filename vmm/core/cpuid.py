"""What the guest's CPUID answers: a plain family-6 processor under a hypervisor."""

__all__ = ["MODEL_SPECIFIC_REGISTERS", "cpuid"]

_FPU, _PSE, _TSC, _MSR, _PAE, _CX8, _SEP, _PGE, _CMOV = 0, 3, 4, 5, 6, 8, 11, 13, 15
_MMX, _FXSR, _SSE, _SSE2 = 23, 24, 25, 26
# There is no local APIC.
_FEATURES = sum(
    1 << bit
    for bit in (_FPU, _PSE, _TSC, _MSR, _PAE, _CX8, _SEP, _PGE, _CMOV, _MMX, _FXSR, _SSE, _SSE2)
)
_HYPERVISOR = 1 << 31
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
    """EAX, EBX, ECX, EDX of a leaf; zeros for one that is not there."""
    return _LEAVES.get(leaf, (0, 0, 0, 0))
