"""What of an object is its state, declared once: for a machine that is saved and resumed.

A class with state has a class attribute `SAVED`, a `Fields`, which names every attribute:
the saved ones by kind, the others by why they are not saved. A test compares that
with the attributes that there are (tests/vmm/test_saved_fields.py). In a compiled module the
saved attributes are `public` in the .pxd.

What is loaded may come from anybody. A kind accepts the values that it can make and no
others; what an attribute means beyond that, the class checks in `_check_saved`, before
anything runs.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from vmm.core.errors import VmmError

__all__ = [
    "ARRAY", "BY_KEY", "CUSTOM", "FLAG", "PART", "PARTS", "U8", "U16", "U32", "U64",
    "VIRTUAL_TIME", "BadState", "Bytes", "Fields", "Kind", "Methods", "Number", "Numbers",
    "Optional", "Signed", "Text", "Timer", "Value", "load_object", "save_object",
]  # fmt: skip

Value = None | bool | int | str | bytes | list[Any] | dict[str, Any]
"""What a saved attribute is in a file: JSON's values, and bytes."""


class BadState(VmmError):
    """A saved state that cannot be; the text says of what, and what was expected."""


class Kind(ABC):
    """How an attribute becomes a value and back."""

    @abstractmethod
    def save(self, owner: Any, name: str) -> Value:
        """The attribute as a value."""

    @abstractmethod
    def load(self, owner: Any, name: str, value: Any) -> None:
        """Set the attribute; raises `BadState` for a value that `save` cannot have made."""


class Number(Kind):
    """An integer of so many bits, without sign."""

    def __init__(self, bits: int) -> None:
        self._end = 1 << bits
        self._bits = bits

    def save(self, owner: Any, name: str) -> Value:
        """The number."""
        return int(getattr(owner, name))

    def load(self, owner: Any, name: str, value: Any) -> None:
        """Set it."""
        setattr(owner, name, self.checked(value))

    def checked(self, value: Any) -> int:
        """The value, if it is such a number."""
        if type(value) is not int or not 0 <= value < self._end:
            raise BadState(f"{_shown(value)}: expected a number of {self._bits} bits")
        return value


class Signed(Number):
    """An integer of so many bits besides its sign."""

    def checked(self, value: Any) -> int:
        """The value, if it is such a number."""
        return (
            -super().checked(-value) if type(value) is int and value < 0 else super().checked(value)
        )


class _Flag(Kind):
    """True or false."""

    def save(self, owner: Any, name: str) -> Value:
        return bool(getattr(owner, name))

    def load(self, owner: Any, name: str, value: Any) -> None:
        if not isinstance(value, bool):
            raise BadState(f"{_shown(value)}: expected true or false")
        setattr(owner, name, value)


class _Array(Kind):
    """A buffer of a size that never changes: its bytes are replaced in place."""

    def save(self, owner: Any, name: str) -> Value:
        return memoryview(getattr(owner, name)).tobytes()

    def load(self, owner: Any, name: str, value: Any) -> None:
        target = memoryview(getattr(owner, name)).cast("B")
        if not isinstance(value, bytes) or len(value) != len(target):
            raise BadState(f"{_shown(value)}: expected {len(target)} bytes")
        target[:] = value


class Bytes(Kind):
    """Bytes, as many as there are, up to `most`."""

    def __init__(self, most: int) -> None:
        self._most = most

    def save(self, owner: Any, name: str) -> Value:
        """A copy."""
        return bytes(getattr(owner, name))

    def load(self, owner: Any, name: str, value: Any) -> None:
        """Set the attribute, to a `bytearray` if it was one."""
        if not isinstance(value, bytes) or len(value) > self._most:
            raise BadState(f"{_shown(value)}: expected at most {self._most} bytes")
        setattr(owner, name, type(getattr(owner, name))(value))


class Numbers(Kind):
    """A list or deque of numbers, at most `most`."""

    def __init__(self, bits: int, most: int) -> None:
        self._number = Number(bits)
        self._most = most

    def save(self, owner: Any, name: str) -> Value:
        """As a list."""
        return [int(number) for number in getattr(owner, name)]

    def load(self, owner: Any, name: str, value: Any) -> None:
        """Set the attribute, to a `deque` if it was one."""
        if not isinstance(value, list) or len(value) > self._most:
            raise BadState(f"{_shown(value)}: expected at most {self._most} numbers")
        numbers = [self._number.checked(number) for number in value]
        setattr(owner, name, deque(numbers) if isinstance(getattr(owner, name), deque) else numbers)


class Text(Kind):
    """Text of at most `most` characters."""

    def __init__(self, most: int) -> None:
        self._most = most

    def save(self, owner: Any, name: str) -> Value:
        """The text."""
        return str(getattr(owner, name))

    def load(self, owner: Any, name: str, value: Any) -> None:
        """Set it."""
        if not isinstance(value, str) or len(value) > self._most:
            raise BadState(f"{_shown(value)}: expected text of at most {self._most} characters")
        setattr(owner, name, value)


class Optional(Kind):
    """None, or what another kind has."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    def save(self, owner: Any, name: str) -> Value:
        """None or the other kind's value."""
        return None if getattr(owner, name) is None else self._kind.save(owner, name)

    def load(self, owner: Any, name: str, value: Any) -> None:
        """Set it."""
        if value is None:
            setattr(owner, name, None)
        else:
            self._kind.load(owner, name, value)


class Methods(Kind):
    """A list of the owner's methods, of those with these names, no more than there are."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def save(self, owner: Any, name: str) -> Value:
        """The methods' names."""
        return [str(method.__name__) for method in getattr(owner, name)]

    def load(self, owner: Any, name: str, value: Any) -> None:
        """Set it."""
        names: list[Any] = value if isinstance(value, list) else [None]
        if len(names) > len(self._names) or any(each not in self._names for each in names):
            raise BadState(f"{_shown(value)}: expected a list of {', '.join(self._names)}")
        setattr(owner, name, [getattr(owner, each) for each in names])


class Timer(Kind):
    """The key of a timer (`vmm.core.timers`), or None; its callback is a method of the owner.

    `timers` is the owner's attribute that holds the `Timers`.
    """

    def __init__(self, callback: str, timers: str = "_timers") -> None:
        self._callback = callback
        self._timers = timers

    def save(self, owner: Any, name: str) -> Value:
        """When it is due and its key, which decides the order of equal times."""
        key = getattr(owner, name)
        due = None if key is None else getattr(owner, self._timers).due(key)
        return None if due is None else [due, key]

    def load(self, owner: Any, name: str, value: Any) -> None:
        """Set the timer again."""
        timers = getattr(owner, self._timers)
        setattr(owner, name, None)
        if value is not None:
            timers.restore(value, getattr(owner, self._callback))
            setattr(owner, name, value[1])


class _Part(Kind):
    """An object with state of its own, which stays the same object, or None."""

    def save(self, owner: Any, name: str) -> Value:
        part = getattr(owner, name)
        return None if part is None else save_object(part)

    def load(self, owner: Any, name: str, value: Any) -> None:
        _load_part(getattr(owner, name), value)


class _Parts(Kind):
    """A sequence of such objects, always the same ones."""

    def save(self, owner: Any, name: str) -> Value:
        return [None if part is None else save_object(part) for part in getattr(owner, name)]

    def load(self, owner: Any, name: str, value: Any) -> None:
        parts = list(getattr(owner, name))
        if not isinstance(value, list) or len(value) != len(parts):
            raise BadState(f"{_shown(value)}: expected {len(parts)} parts")
        for part, state in zip(parts, value, strict=True):
            _load_part(part, state)


class _ByKey(Kind):
    """A dict of such objects, always the same ones."""

    def save(self, owner: Any, name: str) -> Value:
        return {str(key): save_object(part) for key, part in getattr(owner, name).items()}

    def load(self, owner: Any, name: str, value: Any) -> None:
        parts = {str(key): part for key, part in getattr(owner, name).items()}
        if not isinstance(value, dict) or set(value) != set(parts):
            raise BadState(f"{_shown(value)}: expected parts {', '.join(parts)}")
        for key, part in parts.items():
            load_object(part, value[key])


class _Custom(Kind):
    """The owner's `_save_NAME` and `_load_NAME`, for an attribute `NAME` or `_NAME`."""

    def save(self, owner: Any, name: str) -> Value:
        value: Value = getattr(owner, f"_save_{name.lstrip('_')}")()
        return value

    def load(self, owner: Any, name: str, value: Any) -> None:
        try:
            getattr(owner, f"_load_{name.lstrip('_')}")(value)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise BadState(f"{_shown(value)}: {type(error).__name__}: {error}") from None


U8, U16, U32, U64 = Number(8), Number(16), Number(32), Number(64)
VIRTUAL_TIME = Number(60)
"""Nanoseconds, or instructions; sums and differences of a few stay within 64 bits."""
FLAG, ARRAY, PART, PARTS, BY_KEY = _Flag(), _Array(), _Part(), _Parts(), _ByKey()
CUSTOM = _Custom()


class Fields:
    """Every attribute of a class: what is saved, as what, and why the others are not.

    Names are separated by blanks. `wiring` is other objects, and what never changes once
    the machine is made; `derived` follows from what is saved; `elsewhere` is saved with
    another object; `transient` means nothing between two instructions; `host` is the
    host's business, not the guest's.
    """

    def __init__(
        self,
        saved: Mapping[Kind, str] | None = None,
        *,
        wiring: str = "",
        derived: str = "",
        elsewhere: str = "",
        transient: str = "",
        host: str = "",
    ) -> None:
        self.saved = {name: kind for kind, names in (saved or {}).items() for name in names.split()}
        self.others = frozenset(f"{wiring} {derived} {elsewhere} {transient} {host}".split())

    def __iter__(self) -> Iterator[str]:
        yield from self.saved
        yield from self.others


def save_object(owner: Any) -> dict[str, Value]:
    """The state of an object whose class declares it."""
    fields: Fields = owner.SAVED
    return {name.lstrip("_"): kind.save(owner, name) for name, kind in fields.saved.items()}


def load_object(owner: Any, state: Any) -> None:
    """Give an object the state that `save_object` told.

    Raises `BadState`, which names the attribute, unless every attribute is there, no
    other is, and each value is one that can be.
    """
    fields: Fields = owner.SAVED
    expected = {name.lstrip("_"): name for name in fields.saved}
    if not isinstance(state, dict):
        raise BadState(f"{_shown(state)}: expected the state of a {type(owner).__name__}")
    if set(state) != set(expected):
        missing = ", ".join(sorted(set(expected) - set(state))) or "nothing"
        extra = ", ".join(sorted(set(state) - set(expected))) or "nothing"
        raise BadState(f"{missing} missing, {extra} unknown")
    for called, name in expected.items():
        try:
            fields.saved[name].load(owner, name, state[called])
        except BadState as error:
            raise BadState(f"{called}: {error}") from None
    check = getattr(owner, "_check_saved", None)
    if check is not None:
        check()


def _load_part(part: Any, state: Any) -> None:
    if (part is None) != (state is None):
        there = "no such part" if part is None else f"the state of a {type(part).__name__}"
        raise BadState(f"{_shown(state)}: expected {there}")
    if part is not None:
        load_object(part, state)


def _shown(value: Any) -> str:
    """A value as an error quotes it, cut short."""
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
