"""Run a far-called 16-bit routine on KVM, as firmware does with an option ROM's entry.

In real mode the processor goes through the vector table by itself, so all that is
needed is a place to return to: a HLT where a BIOS has its reset entry.
"""

import struct
import time
from collections.abc import Mapping
from mmap import mmap

from vmm.core.bus import PortBus
from vmm.core.errors import BadDescription, EngineFailure, TripleFault
from vmm.core.memory import GuestMemory
from vmm.engine.kvm.modes import real_mode
from vmm.engine.kvm.processor import KvmProcessor
from vmm.engine.kvm.uapi import Exit
from vmm.engine.realmode import FarCall

__all__ = ["far_caller"]

_PATIENCE_NS = 10_000_000_000
_LOOK_NS = 5_000_000
_STACK_SEGMENT = 0x7000
_STACK_POINTER = 0xFFEC
_RETURN_SEGMENT = 0xF000
_RETURN_OFFSET = 0xFFF0
_RETURN = (_RETURN_SEGMENT << 4) + _RETURN_OFFSET
_HLT = 0xF4


def far_caller(processor: KvmProcessor) -> FarCall:
    """`vmm.engine.realmode.call_far` on a processor that has not started its guest yet.

    Nothing that it does is counted: POST precedes the guest. It raises `BadDescription`
    when the routine crashes, halts, or takes more than ten seconds.
    """

    def call_far(
        _ram: mmap,
        memory: GuestMemory,
        _ports: PortBus,
        segment: int,
        offset: int,
        registers: Mapping[str, int],
    ) -> int:
        where = f"option ROM entry {segment:04x}:{offset:04x}"
        stack = (_STACK_SEGMENT << 4) + _STACK_POINTER
        memory.load(stack, struct.pack("<HH", _RETURN_OFFSET, _RETURN_SEGMENT))
        kept = memory.read(_RETURN, 1)
        memory.load(_RETURN, bytes([_HLT]))
        state = dict(real_mode(segment, _STACK_SEGMENT))
        for name, value in registers.items():
            if name == "es":
                state |= {"es.selector": value, "es.base": value << 4}
            else:
                state[f"r{name}"] = value
        processor.remap()
        processor.start(state | {"rip": offset, "rsp": _STACK_POINTER})
        try:
            _run(processor, where)
        finally:
            memory.load(_RETURN, kept)
            processor.forget()
        return processor.registers.named("rax")[0] & 0xFFFF

    return call_far


def _run(processor: KvmProcessor, where: str) -> None:
    """Run until the routine has returned. A kernel with the local APIC keeps the HLT to itself."""
    end = time.monotonic_ns() + _PATIENCE_NS
    with processor.vcpu.kicker as kicker:
        try:
            kicker.after(_LOOK_NS)
            while (reason := processor.enter()) != Exit.HLT and not processor.asleep:
                if reason != Exit.INTR:
                    processor.serve(reason)
                elif time.monotonic_ns() >= end:
                    break
                else:
                    kicker.settle()
                    kicker.after(_LOOK_NS)
        except (TripleFault, EngineFailure) as error:
            raise BadDescription(f"{where} crashed: {error}") from None
    if reason == Exit.INTR and not processor.asleep:
        seconds = _PATIENCE_NS // 10**9
        raise BadDescription(f"{where} did not return within {seconds} seconds")
    if processor.eip() != _RETURN + 1:
        raise BadDescription(f"{where} halted at {processor.eip() - 1:#x}")
