"""The interface as assembler symbols: what rom_src and guests are assembled with."""

from collections.abc import Mapping
from enum import IntEnum, IntFlag

from vmi import doorbell, header, ide, queue, reflection
from vmi.calls import API_MAJOR, API_MINOR, CALLS
from vmi.clock import CycleCounter
from vmi.flags import LazyMode, PageFlag, RebootKind, TlbFlush, UpdateFlag
from vmi.relocation import RelocationKind

__all__ = ["assembler_symbols", "render"]


def _members(prefix: str, enum: type[IntEnum] | type[IntFlag]) -> dict[str, int]:
    return {f"{prefix}_{name}": int(value) for name, value in enum.__members__.items()}


def assembler_symbols() -> dict[str, int]:
    """Every symbol of the interface, by name.

    Calls are `CALL_<name>` in the interface's own spelling (`CALL_SetPxE`), all
    else is upper case.
    """
    mirrored = sum(1 << offset // 16 for offset in queue.APIC_MIRRORED)
    return {
        "VMI_API_MAJOR": API_MAJOR,
        "VMI_API_MINOR": API_MINOR,
        "VMI_ROM_SIGNATURE": header.ROM_SIGNATURE,
        "VMI_VROM_SIGNATURE": header.VROM_SIGNATURE,
        "VMI_VENDOR": header.VMI_VENDOR,
        "VMI_DEVICE": header.VMI_DEVICE,
        "VMI_INIT_OFFSET": header.VMI_INIT,
        "VMI_GET_RELOC_OFFSET": header.GET_RELOC,
        "VMI_CALL_LIMIT": max(call.number for call in CALLS) + 1,
        **{f"CALL_{call.name}": call.number for call in CALLS},
        **_members("RELOC", RelocationKind),
        **_members("PAGE", PageFlag),
        **_members("UPDATE", UpdateFlag),
        **_members("LAZY", LazyMode),
        **_members("TLB_FLUSH", TlbFlush),
        **_members("REBOOT", RebootKind),
        **_members("CYCLES", CycleCounter),
        "DOORBELL_PORT": doorbell.PORT,
        "DOORBELL_SIGNATURE": doorbell.SIGNATURE,
        **_members("DOORBELL", doorbell.Doorbell),
        **_members("FEATURE", doorbell.Feature),
        "QUEUE_MAGIC": queue.MAGIC,
        "QUEUE_FAULT_PAGE_MASK": queue.FAULT_PAGE_MASK,
        "QUEUE_NO_FAULT_PAGE": queue.NO_FAULT_PAGE,
        "QUEUE_HOMES": queue.HOMES,
        "QUEUE_CURTAIN_END": queue.CURTAIN_END,
        **_members("QUEUE_ABLE", queue.Ability),
        "QUEUE_HEADER_SIZE": queue.HEADER_SIZE,
        "QUEUE_RECORD_SIZE": queue.RECORD_SIZE,
        **{f"QUEUE_{field.name}_OFFSET": int(field) for field in queue.HeaderField},
        **{f"HOME_{field.name}_OFFSET": int(field) for field in queue.HomeField},
        **_members("RECORD", queue.RecordKind),
        "APIC_MIRRORED_LOW": mirrored & 0xFFFFFFFF,
        "APIC_MIRRORED_HIGH": mirrored >> 32,
        **{f"CHANNEL_{field.name}": int(field) for field in ide.IdeField},
        **_members("CHANNEL_REQUEST", ide.IdeRequest),
        "CHANNEL_BUFFER_SECTORS": ide.BUFFER_SECTORS,
        "CHANNEL_BUFFER_SIZE": ide.BUFFER_SIZE,
        "CHANNEL_IDENTIFY_SIZE": ide.IDENTIFY_SIZE,
        "CHANNEL_BLOCK_SIZE": ide.BLOCK_SIZE,
        **_members("ACCESS", reflection.Access),
        "ACCESS_LENGTH_SHIFT": reflection.LENGTH_SHIFT,
        "ACCESS_PORT_SHIFT": reflection.PORT_SHIFT,
    }


def render(symbols: Mapping[str, int]) -> str:
    """The symbols as assembler source, one `.set` a line."""
    return "".join(f".set {name}, {value:#x}\n" for name, value in symbols.items())
