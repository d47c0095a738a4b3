"""Port filters in ELF objects, as `clang -target bpf -c` and llvm-mc make them.

One section named after ports, as in SEC("port/0x40-0x42"), holds the program; global
variables in .data and .bss are its state, one behind the other.
"""

import lief

from vmm.filters.isa import STATE_SOURCE, Instruction, MalformedProgram, decode
from vmm.filters.program import BadFilter, FilterProgram, PortRange, parse_section

__all__ = ["read_object"]

_BPF_64_64 = 1
"""R_BPF_64_64: the address of a symbol into a wide load (LLVM, BPF relocation kinds)."""
_STATE_SECTIONS = (".data", ".bss", ".rodata")


def read_object(data: bytes, name: str) -> FilterProgram:
    """The program in an object file; `name` is for messages, usually the file's.

    Raises `BadFilter` for files that are no BPF object, hold no program or several,
    or refer to what a filter does not have.
    """
    binary = lief.ELF.parse(list(data))
    if binary is None:
        raise BadFilter(f"{name}: not an ELF file")
    header = binary.header
    if header.machine_type != lief.ELF.ARCH.BPF:
        raise BadFilter(f"{name}: an object for {header.machine_type.name}, expected BPF")
    if header.identity_data != lief.ELF.Header.ELF_DATA.LSB:
        raise BadFilter(f"{name}: a big-endian object, expected a little-endian one")
    programs = _programs(binary)
    if len(programs) != 1:
        raise BadFilter(
            f"{name}: {len(programs)} sections named after ports, as port/0x40, expected one"
        )
    section, ports = programs[0]
    state, places = _state(binary)
    try:
        code = decode(bytes(section.content))
    except MalformedProgram as error:
        raise BadFilter(f"{name}: {error}") from None
    for relocation in binary.relocations:
        # LLVM's sections of relocations are named after the section that they mend.
        if relocation.section is not None and relocation.section.name == section.name:
            _relocate(code, relocation, places, name)
    return FilterProgram(name, ports, tuple(code), state)


def _programs(binary: lief.ELF.Binary) -> list[tuple[lief.ELF.Section, tuple[PortRange, ...]]]:
    found = []
    for section in binary.sections:
        ports = parse_section(str(section.name))
        if ports is not None and section.size:
            found.append((section, ports))
    return found


def _state(binary: lief.ELF.Binary) -> tuple[bytes, dict[int, int]]:
    """The state's first contents, and where in it each section of variables begins."""
    state = bytearray()
    places = {}
    for index, section in enumerate(binary.sections):
        if not str(section.name).startswith(_STATE_SECTIONS):
            continue
        state += bytes(-len(state) % 8)
        places[index] = len(state)
        empty = section.type == lief.ELF.Section.TYPE.NOBITS
        state += bytes(section.size) if empty else bytes(section.content)
    return bytes(state), places


def _relocate(
    code: list[Instruction | None],
    relocation: lief.ELF.Relocation,
    places: dict[int, int],
    name: str,
) -> None:
    index = relocation.address // 8
    symbol = relocation.symbol
    one = code[index] if index < len(code) else None
    if one is None or symbol is None:
        raise BadFilter(f"{name}: a relocation of instruction {index}, which does not exist")
    if not one.is_wide or symbol.shndx not in places:
        raise BadFilter(
            f"{name}: instruction {index} refers to {str(symbol.name)!r}, "
            "expected a variable in .data or .bss"
        )
    place = places[symbol.shndx] + symbol.value + (one.imm & 0xFFFFFFFF)
    code[index] = Instruction(one.opcode, one.dst, STATE_SOURCE, 0, place << 32)
