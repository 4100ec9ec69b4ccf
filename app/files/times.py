"""Columns of times: a unit that is named, or the one in which a number lies between 2000 and 2100; text with its zone.

A second, a millisecond, a microsecond and a nanosecond of these hundred years have no number in common, so a number of
them is in one unit alone. All numbers of a file are in one unit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from app.files.reading import Naive, Table, Utc
from app.files.records import decimal_of
from app.files.refusals import expected, shown
from schemas.units import NS_PER_S, TS_END, TS_MIN, format_ts_ns, parse_ts_ns

UNITS = {"s": NS_PER_S, "ms": 1_000_000, "us": 1_000, "ns": 1}
WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
#: numbers of these years have their unit by themselves
FIRST_S, END_S = 946_684_800, 4_102_444_800
#: the whole numbers that a float has without gaps
EXACT_FLOAT = 2**53
_SUFFIX = re.compile(r"(?:_|\()(ns|us|ms|s)\)?$")
#: year, month, day in that order, with one separator or none, and a time of that day
_TIME = re.compile(r"(\d{4})([-/.]?)(\d\d)\2(\d\d)[Tt ](\d\d:\d\d)(:\d\d)?(?:\.(\d+))?"
                   r"(?: ?([Zz]|UTC|[+-]\d\d(?::?\d\d)?))?", re.ASCII)
FORMS = "a time with its zone (2026-11-20T09:41:06.828Z), or a number of a unit between 2000 and 2100"


@dataclass
class Times:
    """Times of the records of a file, in nanoseconds; None: refused.

    Attributes
    ----------
    naive : some have no zone, and none was named
    form : how they were read, in words
    """

    ns: list[int | None]
    naive: bool = False
    form: str = ""
    problems: list[str] = field(default_factory=list)


def named_unit(column: str) -> str | None:
    """Return the unit that a column's name ends in (``ts_ms``, ``time (us)``), if it does."""
    found = _SUFFIX.search(column.strip().lower())
    return found.group(1) if found else None


def unit_of(number: Decimal | int) -> str | None:
    """Return the unit in which a number is a time of 2000 to 2100, if there is one."""
    return next((u for u, factor in UNITS.items() if FIRST_S * NS_PER_S <= number * factor < END_S * NS_PER_S), None)


def zone_of(text: str) -> tzinfo:
    """Return a time zone: UTC, an offset as -05:00, or a name as America/New_York.

    Raises
    ------
    ValueError
        It is none.
    """
    found = re.fullmatch(r"([+-])(\d\d):?(\d\d)", text)
    if found:
        minutes = int(found.group(2)) * 60 + int(found.group(3))
        return timezone(timedelta(minutes=-minutes if found.group(1) == "-" else minutes))
    try:
        return UTC if text.upper() in ("UTC", "Z") else ZoneInfo(text)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(expected("time-zone", "UTC, an offset (-05:00) or a name (America/New_York)", text)) from error


def read_times(table: Table, column: str, unit: str | None, zone: tzinfo | None) -> Times:
    """Return the times of a column.

    Parameters
    ----------
    unit : of its numbers; None: what its name says, or the numbers themselves
    zone : of times that name none
    """
    out = Times([])
    said = named_unit(column)
    if unit is not None and said is not None and unit != said:
        out.problems.append(f"{table.name}: {column}: expected {WORDS[said]} as its name says, was --time-unit {unit}")
        return out
    reader = _Reader(column, unit or said, zone)
    for row, cell in enumerate(table.columns[column]):
        if type(cell) is Utc and TS_MIN <= cell < TS_END:
            reader.forms.add("times with a zone")
            out.ns.append(int(cell))
            continue
        try:
            out.ns.append(reader.read(cell, table, row))
        except ValueError as error:
            out.problems.append(f"{table.where(row, column)}: {error}")
            out.ns.append(None)
    out.naive, out.form = reader.naive, ", ".join(sorted(reader.forms))
    return out


class _Reader:
    def __init__(self, column: str, unit: str | None, zone: tzinfo | None) -> None:
        self._column, self._unit, self._zone = column, unit, zone
        self._named = unit is not None
        self._first = ""
        self.naive = False
        self.forms: set[str] = set()

    def read(self, cell: Any, table: Table, row: int) -> int:
        if isinstance(cell, Utc):
            self.forms.add("times with a zone")
            return self._bounded(int(cell), format_ts(cell))
        if isinstance(cell, Naive):
            return self._local(int(cell), format_ts(cell))
        if cell is None:
            raise ValueError(f"{self._column}: expected a time, was empty")
        if isinstance(cell, str) and (found := _TIME.fullmatch(cell)) is not None:
            return self._text(cell, found)
        try:
            number = decimal_of(cell, self._column)
        except ValueError as error:
            raise ValueError(expected(self._column, FORMS, cell)) from error
        if isinstance(cell, float) and abs(cell) > EXACT_FLOAT:
            raise ValueError(expected(self._column, "a whole number: a float of this size has gaps", cell))
        return self._number(number, cell, f"{table.where(row)}")

    def _number(self, number: Decimal, cell: Any, where: str) -> int:
        found = unit_of(number)
        if self._unit is None:
            if found is None:
                raise ValueError(expected(self._column, f"{FORMS}, or --time-unit", cell))
            self._unit, self._first = found, where
        elif not self._named and found != self._unit:
            raise ValueError(expected(self._column, f"{WORDS[self._unit]} as in {self._first}", cell)
                             + (f" ({WORDS[found]})" if found else ""))
        ns = number * UNITS[self._unit]
        if ns != int(ns):
            raise ValueError(expected(self._column, "at most nine digits of a second", cell))
        self.forms.add(f"{WORDS[self._unit]}, {'named' if self._named else 'of 2000 to 2100'}")
        return self._bounded(int(ns), cell)

    def _text(self, cell: str, found: re.Match[str]) -> int:
        year, _, month, day, minute, second, fraction, offset = found.groups()
        digits = (fraction or "").rstrip("0")
        if len(digits) > 9:
            raise ValueError(expected(self._column, "at most nine digits of a second", cell))
        offset = offset or ""
        if offset.upper() in ("Z", "UTC"):
            offset = "Z"
        elif offset:
            offset = f"{offset[:3]}:{offset[3:].lstrip(':') or '00'}"
        text = f"{year}-{month}-{day}T{minute}{second or ':00'}{'.' + digits if digits else ''}{offset or 'Z'}"
        try:
            ns = parse_ts_ns(text, self._column)
        except ValueError as error:
            why = str(error).rpartition(": ")[2] if "there is" in str(error) else ""
            raise ValueError(expected(self._column, "a time that there is, of 2000 to 2261", cell)
                             + (f": {why}" if why else "")) from error
        if offset:
            self.forms.add("times with a zone")
            return ns
        return self._local(ns, cell)

    def _local(self, ns: int, cell: Any) -> int:
        if self._zone is None:
            self.naive = True
            self.forms.add("times without a zone")
            return self._bounded(ns, cell)
        self.forms.add(f"times of {self._zone}")
        seconds, rest = divmod(self._bounded(ns, cell), NS_PER_S)
        local = datetime(1970, 1, 1) + timedelta(seconds=seconds)
        offsets = [local.replace(tzinfo=self._zone, fold=fold).utcoffset() for fold in (0, 1)]
        if offsets[0] != offsets[1] or offsets[0] is None:
            raise ValueError(expected(self._column, f"a time that {self._zone} has once", cell))
        return (seconds - int(offsets[0].total_seconds())) * NS_PER_S + rest

    def _bounded(self, ns: int, cell: Any) -> int:
        if not TS_MIN <= ns < TS_END:
            raise ValueError(f"{self._column}: expected a time from 2000 to 2261, was {shown(cell)}")
        return ns


def format_ts(ns: int) -> str:
    """Return a time for a refusal; one that no calendar has as its number."""
    try:
        return format_ts_ns(int(ns))
    except (OverflowError, ValueError, OSError):
        return str(int(ns))
