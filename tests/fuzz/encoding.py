"""Machine code for fuzzed programs: 32-bit, flat, as few forms as they need."""

import random
import struct

EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI = range(8)


def load(register: int, value: int) -> bytes:
    """MOV $value, %register."""
    return struct.pack("<BI", 0xB8 + register, value & 0xFFFFFFFF)


def store(address: int, value: int) -> bytes:
    """MOVL $value, address."""
    return struct.pack("<HII", 0x05C7, address, value & 0xFFFFFFFF)


def jump(origin: int, target: int) -> bytes:
    """JMP to `target`, from `origin`."""
    return struct.pack("<BI", 0xE9, (target - origin - 5) & 0xFFFFFFFF)


def control(register: int, value: int) -> bytes:
    """Load a control register; EAX is lost."""
    return load(EAX, value) + bytes((0x0F, 0x22, 0xC0 | register << 3))


def to_ring_3(target: int, stack: int) -> bytes:
    """IRET to ring 3, with the selectors of the tiny guests."""
    return struct.pack(
        "<BBBIBBBBBIB", 0x6A, 0x23, 0x68, stack, 0x6A, 2, 0x6A, 0x1B, 0x68, target, 0xCF
    )


def memory_operand(noise: random.Random, field: int, address: int) -> tuple[bytes, bytes]:
    """Code that loads registers, and ModRM with its tail, so that the operand is at `address`."""
    displacement = noise.choice((0, 1, -4, 0x7F, noise.getrandbits(31)))
    base = noise.choice((EAX, ECX, EDX, EBX, EBP, ESI, EDI))
    if noise.random() < 0.25:
        return b"", struct.pack("<BI", field << 3 | 5, address)
    small = -128 <= displacement < 128
    mode = 1 if small else 2
    tail = struct.pack("<b" if small else "<i", displacement)
    if noise.random() < 0.7:
        code = load(base, address - displacement)
        return code, bytes((mode << 6 | field << 3 | base,)) + tail
    index = noise.choice([n for n in (EAX, ECX, EDX, EBX, EBP, ESI, EDI) if n != base])
    scale, value = noise.randrange(4), noise.choice((0, 1, 4, 0xFFFFFFFF, noise.getrandbits(32)))
    code = load(base, address - displacement - (value << scale)) + load(index, value)
    return code, bytes((mode << 6 | field << 3 | 4, scale << 6 | index << 3 | base)) + tail
