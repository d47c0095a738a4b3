"""A map of an image that reads like GNU ld's."""

from collections.abc import Iterator

from linker.image import Image, ImageSection, ImageSymbol

__all__ = ["render_map"]

_NAME_WIDTH = 16


def _row(name: str, rest: str) -> Iterator[str]:
    """A name and what goes with it; a long name has a line of its own, as ld does it."""
    if len(name) >= _NAME_WIDTH:
        yield name
        name = ""
    yield f"{name:<{_NAME_WIDTH}}{rest}"


def _place(address: int, size: int) -> str:
    return f"0x{address:08x} {size:#10x}"


def _section(section: ImageSection, labels: list[ImageSymbol]) -> Iterator[str]:
    yield ""
    yield from _row(section.name, _place(section.address, section.size))
    remaining = list(labels)
    for piece in section.pieces:
        yield from _row(f" {piece.section}", f"{_place(piece.address, piece.size)} {piece.object}")
        inside = [
            label
            for label in remaining
            if label.object == piece.object
            and piece.address <= label.address < piece.address + piece.size
        ]
        for label in inside:
            yield f"{'':<{_NAME_WIDTH}}0x{label.address:08x}{'':16}{label.name}"
        remaining = [label for label in remaining if label not in inside]
    for label in remaining:
        yield f"{'':<{_NAME_WIDTH}}0x{label.address:08x}{'':16}{label.name}"


def render_map(image: Image) -> str:
    """The image's sections, their input sections and the global symbols in them.

    Addresses and sizes are in bytes, as linked.
    """
    lines = []
    if image.discarded:
        lines += ["Discarded input sections", ""]
        for piece in image.discarded:
            lines += _row(f" {piece.section}", f"{_place(0, piece.size)} {piece.object}")
        lines.append("")
    lines += ["Linker script and memory map"]
    shown: set[str] = set()
    for section in image.sections:
        end = section.address + section.size
        labels = [
            label
            for label in image.labels
            if label.is_global
            and (
                label.section == section.name
                or (not label.section and section.address <= label.address < end)
            )
        ]
        shown |= {label.name for label in labels}
        lines += _section(section, labels)
    outside = [label for label in image.labels if label.is_global and label.name not in shown]
    if outside:
        lines += ["", "Symbols outside all sections"]
        lines += [
            f"{'':<{_NAME_WIDTH}}0x{label.address:08x}{'':16}{label.name}" for label in outside
        ]
    return "\n".join(lines) + "\n"
