"""Base of records whose decimals are finite, checked when one is made, and whose times are times, when one is read.

What is looked at late is validated here: whoever has read a record needs no second check, and all readers of a topic
accept and refuse the same records.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from typing import Annotated, Any

import msgspec

from schemas.units import INT64_MAX, SHOWN, TS_END, parse_ts_ns

#: digits before the point, and zeros behind it before the first other digit
DIGITS_MAX = 30
_DECIMAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|-?(?:s?NaN|inf(?:inity)?)", re.ASCII | re.IGNORECASE)
#: JSON of a time: RFC 3339, or integer nanoseconds
Timestamp = str | int
#: nanoseconds since 1970 in records that only this system writes
StampNs = Annotated[int, msgspec.Meta(ge=0, lt=TS_END)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
#: of an account or instrument: keys join several of them by bars; control characters read like nothing
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[^|\x00-\x1f\x7f]+$(?!\n)")]
#: what somebody is called, or says: one sign of it at least can be seen
Said = Annotated[str, msgspec.Meta(max_length=1024, pattern=r"\S")]
#: ISO codes, coins, points of a house: two to twelve capital letters and digits (no line break after them)
Currency = Annotated[str, msgspec.Meta(pattern=r"^[A-Z0-9]{2,12}$(?!\n)")]
#: money, price or quantity: exact from a JSON string or a JSON number
Number = Decimal
#: a number that is counted with in 64 bits
Whole = Annotated[int, msgspec.Meta(ge=-INT64_MAX, le=INT64_MAX)]
#: how often a record was written anew: others count on from it
Revision = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
#: a quantity in a record that only this system writes: plain digits
Amount = Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]{1,24}(\.[0-9]{1,24})?$")]


class FiniteNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """A record that cannot be made, or read, with a decimal that is not finite, or very long."""

    def __post_init__(self) -> None:
        """Check every decimal.

        Raises
        ------
        ValueError
            With the field, what was expected and what it was.
        """
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, Decimal):
                check_decimal(value, name)

    def check_times(self) -> None:
        """Check every time; `schemas.codec` calls it for each record that it decodes.

        Raises
        ------
        ValueError
            With the field, what was expected and what it was.
        """
        for name in time_fields(type(self)):
            value = getattr(self, name)
            if value is not None:
                parse_ts_ns(value, name)


@cache
def decimal_fields(cls: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the names of the fields that hold one decimal."""
    return tuple(f.encode_name for f in msgspec.structs.fields(cls) if f.type in (Decimal, Decimal | None))


@cache
def time_fields(cls: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the names of the fields that hold times of records."""
    return tuple(f.name for f in msgspec.structs.fields(cls) if f.type in (Timestamp, Timestamp | None))


def check_text(record: Mapping[str, Any], cls: type[msgspec.Struct]) -> None:
    """Refuse decimals that come as text of another form than JSON's numbers have.

    `Decimal` would take digits of other scripts, underscores and spaces around: the same text is read in one way here
    and in another one, or not at all, by other programs.

    Raises
    ------
    ValueError
        With the field and the text.
    """
    for name in decimal_fields(cls):
        value = record.get(name)
        if isinstance(value, str) and not _DECIMAL.fullmatch(value):
            raise ValueError(f"{name}: expected a decimal number, was {value[:SHOWN]!r}")


def check_decimal(value: Decimal, name: str) -> None:
    """Refuse a decimal that cannot be counted with.

    Raises
    ------
    ValueError
        It is not finite, very large, or so small that it is lost as a float.
    """
    if not value.is_finite() or (value and not -DIGITS_MAX <= value.adjusted() < DIGITS_MAX):
        raise ValueError(f"{name}: expected a finite number of at most {DIGITS_MAX} digits, was {value}")
