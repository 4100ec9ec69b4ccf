"""Times and decimals at the border: exact readings of what the wire carries."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation

import numpy as np

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
INT64_MAX = 2**63 - 1
#: digits an exact decimal may have on the wire; what is longer does not fit the int64 columns
DECIMAL_DIGITS_MAX = 18
#: counted units of an instrument's increment that a position, or a statement, may come to: sums of two such fit int64
UNITS_MAX = 4_600_000_000_000_000_000
#: and that one trade may have: what comes in another order than it was traded adds up on the way
FILL_UNITS_MAX = INT64_MAX // 4
#: a time of a record lies from the first of these to before the second: 1 January of 2000 and of 2262, UTC. What lies
#: before is in another unit, what lies behind does not fit a counter of nanoseconds.
TS_MIN, TS_END = 946_684_800 * NS_PER_S, 9_214_646_400 * NS_PER_S
#: how far ahead of the receiving clock a record may be dated, where no setting says otherwise
FUTURE_NS = 60 * NS_PER_S
#: a refused value is shown up to so many characters
SHOWN = 120
#: the year of an integer is named within these
YEARS_SHOWN_NS = 1900 * 366 * 86_400 * NS_PER_S
_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?"
                      r"(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII)
_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)", re.ASCII)
#: dates of contracts
DATE_MIN, DATE_END = date(1900, 1, 1), date(2262, 1, 1)


def parse_ts_ns(value: str | int, field: str = "ts_event", latest_ns: int = TS_END - 1) -> int:
    """Return UTC nanoseconds since the epoch from RFC 3339 text (Z or an offset) or integer nanoseconds.

    Parameters
    ----------
    latest_ns : the last moment that the field may hold; by default the end of 2261

    Raises
    ------
    ValueError
        With the field, the value and what was expected: a time before 2000 or after ``latest_ns`` is in another unit,
        or wrong.
    """
    ns = value if isinstance(value, int) else _rfc3339_ns(value, field)
    if not TS_MIN <= ns <= latest_ns:
        raise ValueError(outside(ns, field, value, latest_ns))
    return ns


def outside(ns: int, field: str, value: str | int, latest_ns: int = TS_END - 1) -> str:
    """Return why a time outside its bounds is refused, with the value read in each unit that gives a time.

    Parameters
    ----------
    ns : the value in nanoseconds
    value : as it was stated
    """
    latest = format_ts_ns(min(latest_ns, TS_END - 1))
    text = (f"{field}: expected nanoseconds since 1970 or RFC 3339, from 2000-01-01 to {latest}, "
            f"was {str(value)[:SHOWN]!r}")
    if not isinstance(value, int) or not -YEARS_SHOWN_NS < ns < YEARS_SHOWN_NS:
        return text
    read = [f"of {_year_of(ns)} as nanoseconds"]
    read += [f"of {_year_of(ns * factor)} as {unit}"
             for unit, factor in (("microseconds", 1_000), ("milliseconds", NS_PER_MS), ("seconds", NS_PER_S))
             if TS_MIN <= ns * factor < TS_END]
    return f"{text} ({', '.join(read)})"


def _year_of(ns: int) -> int:
    return (datetime(1970, 1, 1) + timedelta(seconds=ns // NS_PER_S)).year


def _rfc3339_ns(text: str, field: str) -> int:
    """Return nanoseconds since the epoch of RFC 3339 text, before or after any bound."""
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise ValueError(f"{field}: expected RFC 3339 with a zone (2026-11-20T09:41:06.828Z) or integer nanoseconds, "
                         f"was {text[:SHOWN]!r}")
    year, month, day, hour, minute, second = map(int, found.group(1, 2, 3, 4, 5, 6))
    sign, zone_hour, zone_minute = found.group(8) or "+", int(found.group(9) or 0), int(found.group(10) or 0)
    if second == 60:
        raise ValueError(f"{field}: expected seconds from 00 to 59 (leap seconds are not taken), was {text!r}")
    try:
        days = date(year, month, day).toordinal() - date(1970, 1, 1).toordinal()
        time(hour, minute, second)
        time(zone_hour, zone_minute)
    except ValueError as error:
        raise ValueError(f"{field}: expected a time that there is, was {text!r}: {error}") from error
    offset_s = (zone_hour * 3600 + zone_minute * 60) * (-1 if sign == "-" else 1)
    seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset_s
    return seconds * NS_PER_S + int((found.group(7) or "").ljust(9, "0"))


def latest_of(stamps_ms: np.ndarray, future_ns: int, now_ns: int = TS_END - 1) -> np.ndarray:
    """Return the latest time that each record of a slice may carry: when it came to its log, and ``future_ns`` more.

    The log's own time is what every later reader finds again: a record that was taken once is never refused when the
    log is folded anew. A record without such a time, or with one that lies ahead of the reader's clock, is measured by
    that clock.

    Parameters
    ----------
    stamps_ms : times of the records in the log
    now_ns : clock of whoever receives them; by default no clock bounds them
    """
    stamps = np.clip(stamps_ms.astype(np.int64), -1, TS_END // NS_PER_MS) * NS_PER_MS
    known = (stamps >= TS_MIN) & (stamps <= now_ns + future_ns)
    return np.minimum(np.where(known, stamps, now_ns), TS_END - 1 - future_ns) + future_ns


def parse_date(text: str, field: str) -> date:
    """Return a date of a contract: YYYY-MM-DD, or the date of a time as `parse_ts_ns` reads it.

    Raises
    ------
    ValueError
        With the field and the value: it is no date, or one of before 1900 or after 2261.
    """
    try:
        if len(text) > len("2027-01-15"):
            _rfc3339_ns(text, field)
        day = date(*map(int, found.groups())) if (found := _DATE.match(text)) is not None else date.max
    except ValueError:
        day = date.max
    if not DATE_MIN <= day < DATE_END:
        raise ValueError(f"{field}: expected a date as 2027-01-15, from {DATE_MIN} to before {DATE_END}, "
                         f"was {text[:SHOWN]!r}")
    return day


def expiry_ns(text: str, field: str = "expiry") -> int:
    """Return the moment a contract expires, UTC: the end of its day where only a date is given.

    Raises
    ------
    ValueError
        With the field and the value, where it is neither a date nor a time with a zone.
    """
    day = parse_date(text, field)
    return parse_ts_ns(text if len(text) > len("2027-01-15") else f"{day}T23:59:59Z", field)


def format_ts_ns(ts_ns: int) -> str:
    """Return RFC 3339 UTC with milliseconds (nanoseconds where there are any) of nanoseconds since the epoch."""
    seconds, nanos = divmod(ts_ns, NS_PER_S)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f"{nanos:09d}"
    return f"{text}.{fraction if nanos % NS_PER_MS else fraction[:3]}Z"


def decimal_parts(value: Decimal | str | int | float, field: str) -> tuple[int, int]:
    """Return (mantissa, scale) with ``value == mantissa / 10**scale``, scale >= 0, exactly.

    Raises
    ------
    ValueError
        If the value is no finite decimal or has more digits than int64 columns carry.
    """
    try:
        number = value if isinstance(value, Decimal) else Decimal(str(value))
    except InvalidOperation as error:
        raise ValueError(f"{field}: expected a decimal number, was {str(value)[:SHOWN]!r}") from error
    if not number.is_finite():
        raise ValueError(f"{field}: expected a finite number, was {value!r}")
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    if digits == (0,):
        return 0, 0
    kept = len(digits)
    while exponent < 0 and digits[kept - 1] == 0:  # 1.500 carries one digit, not three
        kept, exponent = kept - 1, exponent + 1
    if kept + max(exponent, 0) > DECIMAL_DIGITS_MAX or -exponent > DECIMAL_DIGITS_MAX:
        raise ValueError(f"{field}: expected at most {DECIMAL_DIGITS_MAX} digits, was {str(value)[:SHOWN]}")
    mantissa = int("".join(map(str, digits[:kept])))
    if exponent > 0:
        mantissa, exponent = mantissa * 10**exponent, 0
    return (-mantissa if sign else mantissa), -exponent


def decimals_of(increment: str | None) -> int:
    """Return the number of decimals of an increment such as ``0.00001`` (5) or ``0.25`` (2); 0 for None."""
    return decimal_parts(increment, "increment")[1] if increment else 0
