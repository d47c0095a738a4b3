"""What a section is made of before its layout is known."""

from dataclasses import dataclass, field

from linker.objects import SectionFlag
from rombuilder.expression import Expression
from rombuilder.origin import Origin

__all__ = ["Align", "Branch", "Bytes", "Fixup", "Fragment", "Org", "SectionDraft", "Space"]


@dataclass(frozen=True, slots=True)
class Fixup:
    """A field of `width` bytes at `offset` into its fragment, computed at the end."""

    offset: int
    width: int
    expression: Expression
    origin: Origin


@dataclass(slots=True)
class Bytes:
    """Bytes as they are, apart from their fixups."""

    data: bytearray = field(default_factory=bytearray)
    fixups: list[Fixup] = field(default_factory=list)


@dataclass(slots=True)
class Branch:
    """A relative branch, short (8-bit displacement) until that does not reach.

    `short` or `near` is empty where the instruction has no such form; `width` is
    that of the near form's displacement.
    """

    short: bytes
    near: bytes
    width: int
    target: Expression
    origin: Origin
    text: str
    is_near: bool = False

    @property
    def size(self) -> int:
        """Bytes in the present form."""
        return len(self.near) + self.width if self.is_near else len(self.short) + 1


@dataclass(frozen=True, slots=True)
class Align:
    """Fill up to a multiple of `boundary`, but not with more than `limit` bytes.

    Without `fill` code gets no-operations of `mode` bits and data gets zeros.
    """

    boundary: int
    fill: int | None
    limit: int
    mode: int


@dataclass(frozen=True, slots=True)
class Org:
    """Fill up to an address in the section."""

    target: Expression
    fill: int
    origin: Origin


@dataclass(frozen=True, slots=True)
class Space:
    """`count` times `unit`, the count computed during layout."""

    count: Expression
    unit: bytes
    origin: Origin


Fragment = Bytes | Branch | Align | Org | Space


@dataclass(slots=True)
class SectionDraft:
    """A section while it is being assembled."""

    name: str
    flags: SectionFlag
    nobits: bool
    alignment: int = 1
    fragments: list[Fragment] = field(default_factory=list)

    def tail(self) -> Bytes:
        """The bytes at the end, to append to."""
        if not self.fragments or not isinstance(self.fragments[-1], Bytes):
            self.fragments.append(Bytes())
        tail = self.fragments[-1]
        assert isinstance(tail, Bytes)  # noqa: S101 (tells the type checker what was just done)
        return tail
