"""Tables in Markdown, of rows and of enumerations."""

import ast
import inspect
from enum import Enum
from typing import Any

PLAIN = {
    "CPUID": "The CPUID instruction.",
    "CLONE": "It starts as a copy of part of another.",
    "CPU": "Processor state may be put off; neither flavour does.",
    "CURRENT_AS": "The entry belongs to the current address space.",
    "DEFER": "The update may wait for the next flush.",
    "GLOBAL": "Global pages too.",
    "MMU": "Page-table updates may wait until the mode is left.",
    "NONE": "Nothing may wait.",
    "PAE": "Of 64-bit entries.",
    "PD": "A page directory.",
    "PDP": "A table of page directories.",
    "PML4": "The fourth level; 64-bit guests only.",
    "PT": "A page table, the last level.",
    "TLB": "Every translation but global ones.",
    "ZEROED": "It is said to be all zeros; not to be trusted.",
    "CR_READ": "A read of a control register; its place carries the number.",
    "CR_WRITE": "A write of a control register, CLTS and LMSW included.",
    "DESCRIPTOR_TABLE": "A load or store of GDTR, IDTR, LDTR or TR.",
    "DR_ACCESS": "An access to a debug register.",
    "HLT": "The guest halted.",
    "INVLPG": "The guest dropped one translation.",
    "MSR": "RDMSR or WRMSR; its place carries the register.",
    "RDTSC": "A read of the time-stamp counter, which gives virtual time.",
    "SOFTWARE_INTERRUPT": "INT n, INT3, INTO: the engine cannot do without the intercept.",
    "TRIPLE_FAULT": "An exception could not be delivered, and neither could the double fault.",
    "DEVICE_FAILURE": "The code of a plugged-in device went wrong; the detail names it.",
    "ENGINE_FAILURE": "The engine stopped without a reason; a defect of the monitor.",
    "ATTACHED": "The queue is taken: the doorbell is answered.",
    "MAGIC": "Marks a queue header.",
}
"""Members that go without a word in the source."""


def table(headers: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in r)} |\n" for r in lines
    )


def member_docs(enum: type[Enum]) -> dict[str, str]:
    """{member: the string below it in the source}, on one line each."""
    body = ast.parse(inspect.getsource(enum)).body[0]
    if not isinstance(body, ast.ClassDef):
        raise TypeError(f"{enum} is no class")
    docs, name = {name: PLAIN.get(name, "") for name in enum.__members__}, ""
    for node in body.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
        elif name and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docs[name] = " ".join(str(node.value.value).split())
    return docs


def members(enum: type[Enum], how: str) -> str:
    """A table of an enum's members, values shown by the format `how`."""
    return table(
        ["name", "value", "meaning"],
        [
            [f"`{name}`", format(enum[name].value, how), doc]
            for name, doc in member_docs(enum).items()
        ],
    )


def prose(module: Any) -> str:
    """A module's description as Markdown, without its first line."""
    text = inspect.getdoc(module) or ""
    return text.partition("\n\n")[2]
