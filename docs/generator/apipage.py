"""The API reference: every public call of `vmm`, from signatures and docstrings.

What is public is said here, module by module, and a test sees to it that every module of
`vmm` is either listed or below a package that is not for users.
"""

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from importlib import import_module
from textwrap import indent
from types import FunctionType
from typing import Any

from generator.apiexamples import EXAMPLES
from generator.examples import ROOT
from generator.markdown import member_docs, table

CHAPTERS: dict[str, tuple[str, ...]] = {
    "Machines": (
        "vmm.machine",
        "vmm.description",
        "vmm.engines",
        "vmm.kvm_machine",
        "vmm.core.vm",
    ),
    "Results": ("vmm.result", "vmm.core.outcome", "vmm.core.ledger", "vmm.core.event"),
    "Virtual CPUs": ("vmm.core.processor", "vmm.core.latestexit", "vmi.apstate"),
    "Registers": ("vmm.core.registerfile", "vmm.core.registerids"),
    "Memory": ("vmm.core.slots", "vmm.core.memory", "vmm.layout", "vmm.ram"),
    "Interrupts": ("vmm.core.localapic", "vmm.core.apicbus", "vmm.core.apicmessage"),
    "Devices": (
        "vmm.devices.pluggable",
        "vmm.core.bus",
        "vmm.core.guestblock",
        "vmm.core.timers",
        "vmm.devices.lines",
        "vmm.plugging",
        "vmm.deviceentries",
    ),
    "Port filters": (
        "vmm.filters.attach",
        "vmm.filters.program",
        "vmm.filters.text",
        "vmm.filters.verifier",
    ),
    "Sandbox": ("vmm.sandbox",),
    "Recording exits": ("vmm.recording",),
    "Policies": ("vmm.core.policy",),
    "Errors": ("vmm.core.errors",),
}
"""{chapter: its modules}; what is public of a module is its `__all__`."""

COMPILED = {
    "vmm.core.memory": (("memory", "GuestMemory"),),
    "vmm.core.localapic": (("localapic", "LocalApic"), ("apic/interrupts", "ApicInterrupts")),
}
"""{compiled module: its class, and what that inherits from, with their modules}.

Types there are those of C, so what a call takes stands in its description."""

INTERNAL = (
    "vmm.assembly",
    "vmm.core",
    "vmm.devices",
    "vmm.engine",
    "vmm.filters",
    "vmm.firmware",
    "vmm.machinestate",
    "vmm.pc",
    "vmm.saveddescription",
    "vmm.savedfile",
    "vmm.timelimit",
)
"""Below these, what no chapter lists is the monitor's own."""


def api_page() -> str:
    """The whole page."""
    head = (
        "# API of the monitor\n\nEvery public call of `vmm`, as signatures and docstrings have it; "
        "[the monitor from Python](../monitor.md) tells how they go together. What begins with an "
        "underscore, and modules that are not listed here, may change at any time.\n\n"
        "Addresses are guest-physical, and in bytes, unless something else is said; times are "
        "nanoseconds of virtual time. What a call raises stands in its description; all errors of "
        "the monitor's own are `VmmError` (see [Errors](#errors)).\n"
    )
    parts = [head]
    for chapter, modules in CHAPTERS.items():
        parts.append(f"\n## {chapter}\n\n```python\n{EXAMPLES[chapter].strip()}\n```\n")
        parts += [_module(name) for name in modules]
    return "".join(parts)


def public_objects() -> Iterator[tuple[str, str, Any]]:
    """(module, name, object) of all that the page describes, members of classes not included."""
    for modules in CHAPTERS.values():
        for name in modules:
            module = import_module(name)
            for public in getattr(module, "__all__", ()):
                yield name, public, getattr(module, public)


def public_calls(cls: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """(name, function) of a class's own public methods and properties."""
    for name, member in vars(cls).items():
        function = _function(member)
        if function is not None and not name.startswith("_"):
            yield name, function


def _function(member: Any) -> FunctionType | None:
    if isinstance(member, property):
        member = member.fget
    elif isinstance(member, staticmethod | classmethod):
        member = member.__func__
    return member if isinstance(member, FunctionType) else None


# ---- compiled classes, by their source: they have no signatures


def compiled_calls(name: str) -> Iterator[tuple[str, str, ast.FunctionDef]]:
    """(class, arguments, definition) of each public call of a compiled module's classes."""
    for stem, public in COMPILED[name]:
        source = ROOT / "vmm" / "core" / f"{stem}.py"
        hidden = set(
            re.findall(r"(?m)^    cdef [^(]*?(\w+)\(", source.with_suffix(".pxd").read_text())
        )
        for node in ast.parse(source.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.ClassDef) or node.name != public:
                continue
            for method in node.body:
                if (
                    isinstance(method, ast.FunctionDef)
                    and not method.name.startswith("_")
                    and method.name not in hidden
                ):
                    names = [argument.arg for argument in method.args.args[1:]]
                    yield public, ", ".join(names), method


def _compiled(name: str) -> str:
    cls = getattr(import_module(name), COMPILED[name][0][1])
    summary = _doc(import_module(name)).partition("\n\n")[0]
    parts = [f"\n### {name}\n\n{summary}\n\n#### class {cls.__name__}\n\n{_doc(cls)}\n"]
    for _, arguments, method in compiled_calls(name):
        text = indent(inspect.cleandoc(ast.get_docstring(method) or ""), "  ")
        parts.append(f"\n- `{method.name}({arguments})`\n\n{text}\n")
    return "".join(parts)


# ---- what a page is made of


def _module(name: str) -> str:
    if name in COMPILED:
        return _compiled(name)
    module = import_module(name)
    summary = _doc(module).partition("\n\n")[0]
    constants, parts = [], [f"\n### {name}\n\n{summary}\n"]
    for public in module.__all__:
        item = getattr(module, public)
        if getattr(item, "__module__", name) != name and isinstance(item, type | FunctionType):
            parts.append(f"\n`{public}` is that of `{item.__module__}`.\n")
        elif isinstance(item, type):
            parts.append(_class(public, item))
        elif isinstance(item, FunctionType):
            parts.append(f"\n#### {_code(public, item)}\n\n{_doc(item)}\n")
        else:
            constants.append([f"`{public}`", _value(item), _comment(module, public)])
    if constants:
        parts.insert(1, "\n" + table(["constant", "value", "meaning"], constants))
    return "".join(parts)


def _class(name: str, cls: type) -> str:
    if issubclass(cls, Enum):
        rows = [
            [f"`{key}`", f"`{cls[key].value!r}`", text] for key, text in member_docs(cls).items()
        ]
        head = f"\n#### class {name}\n\n{_doc(cls)}\n"
        return f"{head}\n{table(['member', 'value', 'meaning'], rows)}" + _members(cls)
    signature = "" if _is_abstract(cls) else _signature(cls)
    parts = [f"\n#### class {name}\n\n"]
    if signature:
        parts.append(f"`{name}{signature}`\n\n")
    parts.append(f"{_doc(cls)}\n")
    shown = _attributes(cls)
    if shown:
        parts.append("\n" + table(["attribute", "type"], shown))
    return "".join(parts) + _members(cls)


def _members(cls: type) -> str:
    parts = []
    for name, function in public_calls(cls):
        is_property = isinstance(vars(cls)[name], property)
        shown = f"`{name}`, a property" if is_property else _code(name, function)
        parts.append(f"\n- {shown}\n\n{indent(_doc(function), '  ')}\n")
    return "".join(parts)


def _is_abstract(cls: type) -> bool:
    return getattr(cls, "_is_protocol", False) or issubclass(cls, BaseException)


def _attributes(cls: type) -> list[list[str]]:
    """The public fields of a dataclass that its signature does not show."""
    if not is_dataclass(cls):
        return []
    return [
        [f"`{field.name}`", f"`{_type(field.type)}`"]
        for field in fields(cls)
        if not field.init and not field.name.startswith("_")
    ]


def _code(name: str, function: Callable[..., Any]) -> str:
    return f"`{name}{_signature(function)}`"


def _signature(function: Callable[..., Any]) -> str:
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name != "self"]
    return _type(str(signature.replace(parameters=parameters)))


def _type(text: Any) -> str:
    """A type as a reader writes it: without modules, and addresses of objects."""
    shown = text if isinstance(text, str) else inspect.formatannotation(text)
    shown = re.sub(r"<factory>|<[^<>]* object at 0x[0-9a-f]+>", "...", shown)
    shown = re.sub(r"Policy\(name='([^']*)'.*?\)(?=[,)])", r"'\1'", shown)
    shown = re.sub(r"<([A-Za-z]+\.[A-Z_]+): [^<>]*>", r"\1", shown)
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Za-z_])", "", shown)


def _value(item: Any) -> str:
    if isinstance(item, bool | str):
        return f"`{item!r}`"
    if isinstance(item, int):
        return f"`{item:#x}`" if item >= 1 << 12 else f"`{item}`"
    return f"`{type(item).__name__}`"


def _comment(module: Any, name: str) -> str:
    """The string below a constant in the source."""
    source = inspect.getsource(module)
    found = re.search(rf'(?ms)^{name}\b[^\n]* = .*?\n"""(.*?)"""', source)
    between = found and re.search(r"(?m)^[A-Za-z_]", found[0].split("\n", 1)[1].split('"""')[0])
    return "" if found is None or between else " ".join(found[1].split())


def _doc(item: Any) -> str:
    return inspect.getdoc(item) or ""
