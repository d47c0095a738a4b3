"""The shadow tables of a machine, as they are saved and checked when they are loaded.

The processor runs on these entries, so whoever makes up a file must not get one in that
leads out of the guest's memory. Every entry is looked at; what follows from the entries
(which table a frame has, which entries are free, how many withhold something) is
computed and not taken from the file. Of the lists of mappings and parents only the order
is taken, which decides what is forgotten first.
"""

from array import array
from typing import Any

from vmm.core.saved import BadState, Value

__all__ = ["load_entries", "save_entries"]

_PRESENT, _WRITABLE, _WITHHELD, _NOT_THERE, _LENT = 0x01, 0x02, 0x200, 0x400, 0x800
_NO_EXECUTE = 1 << 63
_FETCHABLE = 0x400
_FRAME = 0xFFFFF000
_FLAGS = 0x67 | _WITHHELD | _LENT | _NO_EXECUTE
"""Present, writable, user, accessed, dirty; and our own."""
_FREE, _TABLE, _DIRECT, _DIRECTORY, _IDENTITY = range(5)
_LEAF_KINDS = frozenset({_TABLE, _DIRECT})
_UPPER_KINDS = frozenset({_DIRECTORY, _IDENTITY})
_PARTS = {_TABLE: 2, _DIRECT: 1, _DIRECTORY: 4, _IDENTITY: 4}
_MANY = 1 << 16
_ROOTS_PAGE, _VOID_PAGE, _FIRST_PAGE = 0, 1, 2
_REGIONS = 2048
_PAGE = 4096


def save_entries(pages: Any) -> dict[str, Value]:
    """The pages in use with their entries, and the order of all lists."""
    kinds = memoryview(pages.kind)
    used = [page for page in range(_FIRST_PAGE, pages.page_count) if kinds[page] != _FREE]
    rows = array("I")
    for page in used:
        rows.extend((page, kinds[page], pages.frame_of[page], pages.part_of[page]))
    raw = memoryview(pages.entries).cast("B")
    entries = b"".join(raw[_PAGE * page : _PAGE * (page + 1)] for page in (_ROOTS_PAGE, *used))
    return {
        "pool_address": int(pages.pool_address),
        "page_count": int(pages.page_count),
        "pages": rows.tobytes(),
        "entries": entries,
        "free": memoryview(pages.free_pages)[: pages.free_count].tobytes(),
        "mappings": _lists(pages, pages.mappings),
        "parents": _lists(pages, pages.parents),
    }


def _lists(pages: Any, heads: Any) -> bytes:
    """Head, length, locations; of each list that is not empty."""
    location, follower = memoryview(pages.links.location), memoryview(pages.links.follower)
    out = array("I")
    for head, first in enumerate(memoryview(heads)):
        if first:
            found, node = [], first
            while node:
                found.append(location[node])
                node = follower[node]
            out.extend((head, len(found), *found))
    return out.tobytes()


def load_entries(pages: Any, state: dict[str, Any]) -> None:
    """Run on saved tables from now on. Raises `BadState` for what cannot be."""
    for name in ("pool_address", "page_count"):
        if state[name] != getattr(pages, name):
            raise BadState(f"{name} {state[name]!r}: expected {getattr(pages, name)}")
    _Loader(pages, state).load()


class _Loader:
    """One load: checks while it carries over."""

    def __init__(self, pages: Any, state: dict[str, Any]) -> None:
        self._pages = pages
        self._frames: int = pages.memory.host_count
        self._rows = _words(state["pages"])
        self._raw: bytes = state["entries"]
        self._free = _words(state["free"])
        self._mappings = _words(state["mappings"])
        self._parents = _words(state["parents"])
        self._mapped: dict[int, int] = {}
        """{location of a leaf that maps RAM: frame}"""
        self._linked: dict[int, int] = {}
        """{location of a link: shadow page}"""
        self._withheld = 0

    def load(self) -> None:
        pages = self._pages
        generation = pages.generation
        windows = memoryview(pages.windows.frame_of).tobytes(), pages.windows.used
        pages.clear()
        memoryview(pages.windows.frame_of).cast("B")[:] = windows[0]
        pages.windows.used = windows[1]
        pages.generation = generation
        used = self._load_pages()
        self._load_free(used)
        if len(self._raw) != _PAGE * (1 + len(used)):
            raise BadState(f"{len(self._raw)} bytes of entries for {len(used)} pages and the roots")
        target = memoryview(pages.entries).cast("B")
        for number, page in enumerate((_ROOTS_PAGE, *used)):
            raw = self._raw[_PAGE * number : _PAGE * (number + 1)]
            self._look_at(page, memoryview(raw).cast("Q"))
            target[_PAGE * page : _PAGE * (page + 1)] = raw
        pages.withheld = self._withheld
        # Which leaves a TLB may still have is not known: it is flushed whole.
        pages.stale_count = _MANY
        self._load_lists(pages.mappings, self._mappings, self._mapped)
        self._load_lists(pages.parents, self._parents, self._linked)

    def _load_pages(self) -> list[int]:
        """What each page in use shadows; answers their numbers."""
        pages = self._pages
        if len(self._rows) % 4:
            raise BadState(f"{len(self._rows)} words of shadow pages, expected four a page")
        used: list[int] = []
        seen: set[tuple[int, int, int]] = set()
        for i in range(0, len(self._rows), 4):
            page, kind, frame, part = self._rows[i : i + 4]
            if (
                not _FIRST_PAGE <= page < pages.page_count
                or pages.kind[page] != _FREE
                or part >= _PARTS.get(kind, 0)
                or (kind, frame, part) in seen
                or not self._can_be_shadowed(kind, frame)
            ):
                raise BadState(f"shadow page {page} of kind {kind} for part {part} of {frame:#x}")
            seen.add((kind, frame, part))
            used.append(page)
            pages.kind[page], pages.frame_of[page], pages.part_of[page] = kind, frame, part
            if kind == _TABLE:
                pages.table_of[2 * frame + part] = page
            elif kind == _DIRECTORY:
                pages.directory_of[4 * frame + part] = page
            elif kind == _DIRECT:
                pages.direct_of[frame] = page
            else:
                pages.identity[part] = page
        return used

    def _can_be_shadowed(self, kind: int, frame: int) -> bool:
        if kind == _DIRECT:
            return frame < _REGIONS
        return frame == 0 if kind == _IDENTITY else frame < self._frames

    def _load_free(self, used: list[int]) -> None:
        """The free pages, in the order in which they will be taken."""
        pages = self._pages
        expected = set(range(_FIRST_PAGE, pages.page_count)) - set(used)
        if len(self._free) != len(expected) or set(self._free) != expected:
            raise BadState(f"{len(self._free)} free shadow pages, expected {len(expected)}")
        for i, page in enumerate(self._free):
            pages.free_pages[i] = page
        pages.free_count = len(self._free)

    # ---- entries

    def _look_at(self, page: int, entries: memoryview) -> None:
        """Is each entry of a page one that this monitor makes?"""
        kind = self._pages.kind[page]
        for index, entry in enumerate(entries):
            if not entry:
                continue
            location = 512 * page + index
            if entry & _WITHHELD:
                self._withheld += 1
            if page == _ROOTS_PAGE:
                # Pointers of PAE roots have no rights; all other bits are reserved.
                good = entry & ~_FRAME == _PRESENT and self._links(location, entry, _UPPER_KINDS)
            elif kind in _LEAF_KINDS:
                good = entry == _NOT_THERE or self._leads_to_page(location, entry)
            else:
                good = not entry & ~(_FRAME | _FLAGS) and self._links(location, entry, _LEAF_KINDS)
            if not good:
                raise BadState(f"shadow entry {entry:#x} in page {page} of kind {kind}")

    def _links(self, location: int, entry: int, kinds: frozenset[int]) -> bool:
        """Does a link lead to a shadow page of the level below?"""
        page = ((entry & _FRAME) - self._pages.pool_address) // _PAGE
        self._linked[location] = page
        return bool(
            entry & _PRESENT
            and _FIRST_PAGE <= page < self._pages.page_count
            and self._pages.kind[page] in kinds
        )

    def _leads_to_page(self, location: int, entry: int) -> bool:
        """Does a leaf lead to the guest's buffer, an open window or the empty page?"""
        if not entry & _PRESENT or entry & ~(_FRAME | _FLAGS | _FETCHABLE):
            return False
        frame = (entry & _FRAME) // _PAGE
        if frame < self._frames:
            self._mapped[location] = frame
            if not entry & (_NO_EXECUTE | _LENT):
                self._pages.fetched[frame] += 1
            return True
        windows = self._pages.windows
        if entry & _FRAME == self._pages.pool_address + _PAGE * _VOID_PAGE:
            return not entry & _WRITABLE
        inside = 0 <= (entry & _FRAME) - windows.address < _PAGE * windows.used
        return inside and bool(entry & _NO_EXECUTE)

    # ---- lists

    def _load_lists(self, heads: Any, words: memoryview, expected: dict[int, int]) -> None:
        """Every location that is on a list once, on the list that its entry says."""
        left = dict(expected)
        at = 0
        while at < len(words):
            head, count = words[at], words[at + 1] if at + 1 < len(words) else 0
            locations = words[at + 2 : at + 2 + count]
            if not count or len(locations) != count:
                raise BadState(f"a list of {count} shadow entries, {len(locations)} there")
            for location in reversed(locations):
                if left.pop(location, None) != head:
                    raise BadState(f"shadow entry {location} on the list of {head}")
                self._pages.links.add(heads, head, location)
            at += 2 + count
        if left:
            raise BadState(f"{len(left)} shadow entries on no list")


def _words(raw: bytes) -> memoryview:
    if not isinstance(raw, bytes) or len(raw) % 4:
        raise BadState("shadow tables: expected words of 32 bits")
    return memoryview(raw).cast("I")
