"""Every call of API 3.0: number, arguments, results, clobbers, segment rules.

Sources: the Linux client (arch/x86/kernel/vmi_32.c, include/asm/vmi.h, 2.6.21 to
2.6.36) and, where Linux never calls, the 2006 proposal "Paravirtualization API
Version 2.0". Where the two differ, Linux wins: it is the guest that exists.
"""

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "API_MAJOR",
    "API_MINOR",
    "CALLS",
    "PORT_CALLS",
    "TIMER_CALLS",
    "Argument",
    "Call",
    "Place",
    "call_named",
    "call_numbered",
]

API_MAJOR = 3
API_MINOR = 0


class Place(StrEnum):
    """Where an argument or a result travels."""

    EAX = "EAX"
    EBX = "EBX"
    ECX = "ECX"
    EDX = "EDX"
    ESI = "ESI"
    EDI = "EDI"
    EDX_EAX = "EDX:EAX"
    ECX_EDX = "ECX:EDX"
    FLAGS = "flags"
    STACK0 = "stack[0]"
    STACK1 = "stack[1]"
    FRAME = "iret frame"


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument or result."""

    name: str
    place: Place


_STANDARD = frozenset({Place.EAX, Place.EDX, Place.ECX, Place.FLAGS})
_FLAGS_ONLY = frozenset({Place.FLAGS})
_NOTHING: frozenset[Place] = frozenset()


@dataclass(frozen=True, slots=True)
class Call:
    """One VMI call.

    `clobbers` are the registers that the caller gives up, results included. With
    `data_segments` false the call may be made with only CS and SS usable, so it
    must not touch memory through DS or ES. `must_patch` marks the two calls whose
    native fallback is poison once VMI is active. `asked_by_linux` is false where
    no Linux version ever asks get_reloc for the call.
    """

    number: int
    name: str
    summary: str
    arguments: tuple[Argument, ...] = ()
    results: tuple[Argument, ...] = ()
    clobbers: frozenset[Place] = _STANDARD
    data_segments: bool = True
    must_patch: bool = False
    returns: bool = True
    asked_by_linux: bool = True
    extension: bool = False


def _args(text: str) -> tuple[Argument, ...]:
    """Parse "value=EAX entry=EDX" into arguments."""
    pairs = (part.split("=") for part in text.split())
    return tuple(Argument(name, Place(place.replace("_", " "))) for name, place in pairs)


def _call(
    number: int,
    name: str,
    summary: str,
    arguments: str = "",
    results: str = "",
    *,
    clobbers: frozenset[Place] = _STANDARD,
    data_segments: bool = True,
    must_patch: bool = False,
    returns: bool = True,
    asked_by_linux: bool = True,
    extension: bool = False,
) -> Call:
    return Call(
        number,
        name,
        summary,
        _args(arguments),
        _args(results),
        clobbers,
        data_segments,
        must_patch,
        returns,
        asked_by_linux,
        extension,
    )


_NATIVE_CPUID = frozenset({Place.EAX, Place.EBX, Place.ECX, Place.EDX, Place.FLAGS})
_MSR_RESULT = frozenset({Place.EAX, Place.EDX, Place.FLAGS})

CALLS: tuple[Call, ...] = (
    _call(
        0,
        "CPUID",
        "Processor identification",
        "leaf=EAX subleaf=ECX",
        "a=EAX b=EBX c=ECX d=EDX",
        clobbers=_NATIVE_CPUID,
    ),
    _call(
        1,
        "WRMSR",
        "Write a model-specific register",
        "msr=ECX value=EDX:EAX",
        clobbers=_FLAGS_ONLY,
        asked_by_linux=False,
    ),
    _call(
        2,
        "RDMSR",
        "Read a model-specific register",
        "msr=ECX",
        "value=EDX:EAX",
        clobbers=_MSR_RESULT,
        asked_by_linux=False,
    ),
    _call(3, "SetGDT", "Load GDTR", "descriptor=EAX"),
    _call(4, "SetLDT", "Load LDTR", "selector=EAX"),
    _call(5, "SetIDT", "Load IDTR", "descriptor=EAX"),
    _call(6, "SetTR", "Load the task register", "selector=EAX"),
    _call(7, "GetGDT", "Store GDTR", "descriptor=EAX"),
    _call(8, "GetLDT", "Store LDTR", "", "selector=EAX", asked_by_linux=False),
    _call(9, "GetIDT", "Store IDTR", "descriptor=EAX"),
    _call(10, "GetTR", "Store the task register", "", "selector=EAX"),
    _call(11, "WriteGDTEntry", "Write one GDT entry", "table=EAX index=EDX low=ECX high=stack[0]"),
    _call(12, "WriteLDTEntry", "Write one LDT entry", "table=EAX index=EDX low=ECX high=stack[0]"),
    _call(13, "WriteIDTEntry", "Write one IDT entry", "table=EAX index=EDX low=ECX high=stack[0]"),
    _call(
        14,
        "UpdateKernelStack",
        "The kernel stack in the TSS changed; the caller has already written tss.sp0",
        "tss=EAX esp0=EDX",
    ),
    _call(15, "SetCR0", "Write CR0", "value=EAX"),
    _call(16, "SetCR2", "Write CR2", "value=EAX"),
    _call(17, "SetCR3", "Write CR3: switch the address space", "value=EAX"),
    _call(18, "SetCR4", "Write CR4", "value=EAX"),
    _call(19, "GetCR0", "Read CR0", "", "value=EAX"),
    _call(20, "GetCR2", "Read CR2", "", "value=EAX"),
    _call(21, "GetCR3", "Read CR3", "", "value=EAX"),
    _call(22, "GetCR4", "Read CR4", "", "value=EAX"),
    _call(23, "WBINVD", "Write back and invalidate the caches"),
    _call(24, "SetDR", "Write a debug register", "number=EAX value=EDX"),
    _call(25, "GetDR", "Read a debug register", "number=EAX", "value=EAX"),
    _call(
        26,
        "RDPMC",
        "Read a performance counter",
        "counter=ECX",
        "value=EDX:EAX",
        clobbers=_MSR_RESULT,
        asked_by_linux=False,
    ),
    _call(27, "RDTSC", "Read the time-stamp counter", "", "value=EDX:EAX", clobbers=_MSR_RESULT),
    _call(28, "CLTS", "Clear CR0.TS"),
    _call(29, "EnableInterrupts", "STI", clobbers=_FLAGS_ONLY, data_segments=False),
    _call(30, "DisableInterrupts", "CLI", clobbers=_FLAGS_ONLY, data_segments=False),
    _call(
        31,
        "GetInterruptMask",
        "Flags word; bit 9 (0x200) is IF",
        "",
        "mask=EAX",
        clobbers=frozenset({Place.EAX, Place.FLAGS}),
        data_segments=False,
    ),
    _call(
        32,
        "SetInterruptMask",
        "Restore the flags word that GetInterruptMask gave",
        "mask=EAX",
        clobbers=_FLAGS_ONLY,
        data_segments=False,
    ),
    _call(
        33,
        "IRET",
        "Return from an interrupt; the stack holds the frame and nothing else",
        "frame=iret_frame",
        clobbers=_NOTHING,
        data_segments=False,
        must_patch=True,
        returns=False,
    ),
    _call(
        34,
        "SYSEXIT",
        "Return to user mode; interrupts come on in the same step",
        "eip=EDX esp=ECX",
        clobbers=_FLAGS_ONLY,
        data_segments=False,
        must_patch=True,
        returns=False,
    ),
    _call(35, "Halt", "Enable interrupts and wait for one"),
    _call(36, "Reboot", "Reset the machine", "kind=EAX", returns=False, asked_by_linux=False),
    _call(37, "Shutdown", "Stop the machine for good", returns=False, asked_by_linux=False),
    _call(38, "SetPxE", "Store a 32-bit page-table entry", "value=EAX entry=EDX flags=ECX"),
    _call(
        39,
        "SetPxELong",
        "Store a 64-bit page-table entry",
        "value=EDX:EAX entry=ECX flags=stack[0]",
    ),
    _call(40, "UpdatePxE", "A 32-bit entry was stored already", "entry=EAX flags=EDX"),
    _call(41, "UpdatePxELong", "A 64-bit entry was stored already", "entry=EAX flags=EDX"),
    _call(
        42,
        "MachineToPhysical",
        "Machine page number to physical: equal here",
        "frame=EAX",
        "frame=EAX",
        asked_by_linux=False,
    ),
    _call(
        43,
        "PhysicalToMachine",
        "Physical page number to machine: equal here",
        "frame=EAX",
        "frame=EAX",
        asked_by_linux=False,
    ),
    _call(
        44,
        "AllocatePage",
        "The page is a page table from now on",
        "pfn=EAX flags=EDX clone=ECX start=stack[0] count=stack[1]",
    ),
    _call(45, "ReleasePage", "The page is ordinary memory again", "pfn=EAX flags=EDX"),
    _call(46, "InvalPage", "Drop one translation", "address=EAX"),
    _call(47, "FlushTLB", "Drop all translations", "flags=EAX"),
    _call(
        48,
        "SetLinearMapping",
        "Where the guest maps physical memory linearly",
        "slot=EAX va=EDX pages=ECX pfn=stack[0]",
    ),
    _call(49, "IN", "Port read, 32 bits", "port=EDX", "value=EAX", extension=True),
    _call(50, "INB", "Port read, 8 bits", "port=EDX", "value=EAX", extension=True),
    _call(51, "INW", "Port read, 16 bits", "port=EDX", "value=EAX", extension=True),
    _call(
        52,
        "INS",
        "String port read, 32 bits",
        "port=EDX count=ECX buffer=EDI",
        "left=ECX end=EDI",
        clobbers=_STANDARD | {Place.EDI},
        extension=True,
    ),
    _call(
        53,
        "INSB",
        "String port read, 8 bits",
        "port=EDX count=ECX buffer=EDI",
        "left=ECX end=EDI",
        clobbers=_STANDARD | {Place.EDI},
        extension=True,
    ),
    _call(
        54,
        "INSW",
        "String port read, 16 bits",
        "port=EDX count=ECX buffer=EDI",
        "left=ECX end=EDI",
        clobbers=_STANDARD | {Place.EDI},
        extension=True,
    ),
    _call(55, "OUT", "Port write, 32 bits", "value=EAX port=EDX", extension=True),
    _call(56, "OUTB", "Port write, 8 bits", "value=EAX port=EDX", extension=True),
    _call(57, "OUTW", "Port write, 16 bits", "value=EAX port=EDX", extension=True),
    _call(
        58,
        "OUTS",
        "String port write, 32 bits",
        "port=EDX count=ECX buffer=ESI",
        "left=ECX end=ESI",
        clobbers=_STANDARD | {Place.ESI},
        extension=True,
    ),
    _call(
        59,
        "OUTSB",
        "String port write, 8 bits",
        "port=EDX count=ECX buffer=ESI",
        "left=ECX end=ESI",
        clobbers=_STANDARD | {Place.ESI},
        extension=True,
    ),
    _call(
        60,
        "OUTSW",
        "String port write, 16 bits",
        "port=EDX count=ECX buffer=ESI",
        "left=ECX end=ESI",
        clobbers=_STANDARD | {Place.ESI},
        extension=True,
    ),
    _call(61, "SetIOPLMask", "Set IOPL in the flags", "mask=EAX"),
    _call(
        62,
        "SetInitialAPState",
        "Where an application processor starts",
        "state=EAX apic_id=EDX",
    ),
    _call(63, "APICWrite", "Write a local APIC register by offset", "offset=EAX value=EDX"),
    _call(64, "APICRead", "Read a local APIC register by offset", "offset=EAX", "value=EAX"),
    _call(65, "IODelay", "Wait as long as a write to port 0x80 takes"),
    _call(66, "GetCycleFrequency", "Cycles a second", "", "hertz=EDX:EAX"),
    _call(67, "GetCycleCounter", "Read a counter", "counter=EAX", "cycles=EDX:EAX"),
    _call(
        68,
        "SetAlarm",
        "Arm the timer",
        "flags=EAX expiry=ECX:EDX period_low=stack[0] period_high=stack[1]",
    ),
    _call(69, "CancelAlarm", "Disarm the timer", "flags=EAX", "was_armed=EAX"),
    _call(70, "GetWallclockTime", "Nanoseconds since 1970", "", "ns=EDX:EAX"),
    _call(71, "WallclockUpdated", "Has the wall clock been set?", "", "updated=EAX"),
    _call(73, "SetLazyMode", "Enter or leave a lazy mode", "mode=EAX"),
)

TIMER_CALLS = range(66, 71)
"""All or nothing: if 66 is answered, Linux calls the missing ones through NULL."""

PORT_CALLS = range(49, 61)
"""This toolkit's extension, in the gap where the 2006 interface had its port calls.

get_reloc's answer tells whether a ROM has them; the API version stays as it is. They leave
flags, registers and memory as the native instructions do: a string call ends with ECX 0
(`left`) and the pointer behind the last element (`end`), whichever way DF points.
"""

_BY_NUMBER = {call.number: call for call in CALLS}
_BY_NAME = {call.name: call for call in CALLS}


def call_numbered(number: int) -> Call:
    """The call with this number; raises `KeyError` where API 3.0 has none."""
    try:
        return _BY_NUMBER[number]
    except KeyError:
        raise KeyError(f"VMI API 3.0 has no call {number}") from None


def call_named(name: str) -> Call:
    """The call with this name; raises `KeyError` where API 3.0 has none."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise KeyError(f"VMI API 3.0 has no call {name!r}") from None
