"""How the MC146818 writes a moment in its registers: binary or BCD, 12 or 24 hours."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

__all__ = [
    "DAY",
    "HOURS",
    "MINUTES",
    "MONTH",
    "SECONDS",
    "WEEKDAY",
    "YEAR",
    "ClockFormat",
    "fields_of",
    "moment_of",
]

SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR = 0, 2, 4, 6, 7, 8, 9
"""Register numbers."""

_AFTERNOON = 0x80


@dataclass(frozen=True, slots=True)
class ClockFormat:
    """The DM and 24/12 bits of register B."""

    binary: bool
    hours_24: bool

    def encode(self, value: int) -> int:
        """A number, 0-99, as a register holds it."""
        return value if self.binary else value // 10 << 4 | value % 10

    def decode(self, raw: int) -> int:
        """The number that a register holds."""
        return raw if self.binary else (raw >> 4) * 10 + (raw & 0x0F)

    def encode_hours(self, hours: int) -> int:
        """Hours 0-23; on a 12-hour clock noon and midnight are 12, and bit 7 is afternoon."""
        if self.hours_24:
            return self.encode(hours)
        return self.encode(hours % 12 or 12) | (_AFTERNOON if hours >= 12 else 0)

    def decode_hours(self, raw: int) -> int:
        """The hours 0-23 that the register means."""
        if self.hours_24:
            return self.decode(raw)
        return self.decode(raw & ~_AFTERNOON) % 12 + (12 if raw & _AFTERNOON else 0)

    def encode_field(self, register: int, value: int) -> int:
        """What `register` holds for `value`."""
        return self.encode_hours(value) if register == HOURS else self.encode(value)

    def decode_field(self, register: int, raw: int) -> int:
        """What `raw` in `register` stands for."""
        return self.decode_hours(raw) if register == HOURS else self.decode(raw)


def fields_of(moment: datetime) -> dict[int, int]:
    """Numbers by register; Sunday is day 1 of the week."""
    return {
        SECONDS: moment.second,
        MINUTES: moment.minute,
        HOURS: moment.hour,
        WEEKDAY: moment.isoweekday() % 7 + 1,
        DAY: moment.day,
        MONTH: moment.month,
        YEAR: moment.year % 100,
    }


def moment_of(fields: Mapping[int, int], century: int) -> datetime | None:
    """The moment that the registers show, none for a thirtieth of February."""
    try:
        return datetime(
            century * 100 + fields[YEAR],
            fields[MONTH],
            fields[DAY],
            fields[HOURS],
            fields[MINUTES],
            fields[SECONDS],
            tzinfo=UTC,
        )
    except ValueError:
        return None
