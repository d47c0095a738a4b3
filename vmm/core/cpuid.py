"""What the guest's CPUID answers: a plain family-6 processor under a hypervisor."""

__all__ = ["cpuid"]

_FPU, _PSE, _TSC, _MSR, _CX8, _PGE, _CMOV = 0, 3, 4, 5, 8, 13, 15
_MMX, _FXSR, _SSE, _SSE2 = 23, 24, 25, 26
# PAE and NX are the shadow's own and hidden; SEP waits for SYSENTER emulation.
_FEATURES = sum(
    1 << bit for bit in (_FPU, _PSE, _TSC, _MSR, _CX8, _PGE, _CMOV, _MMX, _FXSR, _SSE, _SSE2)
)
_HYPERVISOR = 1 << 31
_FAMILY_6_MODEL_14 = 0x6E8


def _words(text: bytes) -> tuple[int, int, int]:
    first, second, third = (int.from_bytes(text[i : i + 4], "little") for i in (0, 4, 8))
    return first, second, third


_VENDOR = _words(b"GenuineIntel")
_MONITOR = _words(b"vmirom\0\0\0\0\0\0")

_LEAVES: dict[int, tuple[int, int, int, int]] = {
    0: (1, _VENDOR[0], _VENDOR[2], _VENDOR[1]),
    1: (_FAMILY_6_MODEL_14, 0, _HYPERVISOR, _FEATURES),
    0x40000000: (0x40000000, *_MONITOR),
    0x80000000: (0x80000000, 0, 0, 0),
}


def cpuid(leaf: int) -> tuple[int, int, int, int]:
    """EAX, EBX, ECX, EDX of a leaf; zeros for one that is not there."""
    return _LEAVES.get(leaf, (0, 0, 0, 0))
