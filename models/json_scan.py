"""Byte-level JSON reading for kernels: one flat record, any key order, no Python objects.

The scanner is deliberately narrow. Whatever it does not read for certain (escapes, non-ASCII text, exponents,
nested values of known keys, anything malformed) it refuses, and the caller gives that record to `msgspec`, which is
the judge of what is valid. A property test proves that both read the same values.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from models.jit import inline_kernel
from schemas.units import TS_END, TS_MIN

QUOTE, COMMA, COLON, MINUS, DOT, OPEN, CLOSE, BACKSLASH = 34, 44, 58, 45, 46, 123, 125, 92
OPEN_LIST, CLOSE_LIST, ZERO, NINE = 91, 93, 48, 57
#: more digits than this may not fit int64
DIGITS_MAX = 18
REFUSED = -1
#: times outside these years go the slow way, which names what is wrong with them; within them nanoseconds fit int64
YEAR_MIN, YEAR_END = 2000, 2262


@inline_kernel
def skip_space(buf: np.ndarray, at: int, end: int) -> int:
    """Return the first position at or after ``at`` that is no JSON white space."""
    while at < end and (buf[at] == 32 or buf[at] == 9 or buf[at] == 10 or buf[at] == 13):
        at += 1
    return at


@inline_kernel
def string_end(buf: np.ndarray, at: int, end: int) -> int:
    """Return the position of the closing quote of the plain ASCII string whose text starts at ``at``, or REFUSED."""
    while at < end:
        c = buf[at]
        if c == QUOTE:
            return at
        if c == BACKSLASH or c < 32 or c >= 128:
            return REFUSED
        at += 1
    return REFUSED


@inline_kernel
def read_decimal(buf: np.ndarray, at: int, end: int) -> tuple[int, Any, int]:
    """Return (next position or REFUSED, mantissa, scale) of a JSON number without exponent."""
    negative = False
    if at < end and buf[at] == MINUS:
        negative = True
        at += 1
    first = at
    mantissa = np.int64(0)
    digits = 0
    while at < end and ZERO <= buf[at] <= NINE:
        mantissa = mantissa * 10 + np.int64(buf[at] - ZERO)
        digits += 1
        at += 1
        if digits > DIGITS_MAX:
            return REFUSED, 0, 0
    if digits == 0 or (digits > 1 and buf[first] == ZERO):
        return REFUSED, 0, 0
    scale = 0
    if at < end and buf[at] == DOT:
        at += 1
        while at < end and ZERO <= buf[at] <= NINE:
            mantissa = mantissa * 10 + np.int64(buf[at] - ZERO)
            scale += 1
            at += 1
            if digits + scale > DIGITS_MAX:
                return REFUSED, 0, 0
        if scale == 0:
            return REFUSED, 0, 0
    return at, (-mantissa if negative else mantissa), scale


@inline_kernel
def read_number_value(buf: np.ndarray, at: int, end: int) -> tuple[int, Any, int]:
    """Return (next position or REFUSED, mantissa, scale) of a number, or of a number in quotes."""
    if at < end and buf[at] == QUOTE:
        at, mantissa, scale = read_decimal(buf, at + 1, end)
        if at == REFUSED or at >= end or buf[at] != QUOTE:
            return REFUSED, 0, 0
        return at + 1, mantissa, scale
    return read_decimal(buf, at, end)


@inline_kernel
def _two(buf: np.ndarray, at: int) -> Any:
    a, b = np.int64(buf[at]) - ZERO, np.int64(buf[at + 1]) - ZERO
    if a < 0 or a > 9 or b < 0 or b > 9:
        return -1000
    return a * 10 + b


@inline_kernel
def days_from_civil(year: int, month: int, day: int) -> int:
    """Return days since 1970-01-01 of a Gregorian date (Hinnant's algorithm, `days_from_civil`)."""
    y = year - 1 if month <= 2 else year
    era = y // 400
    yoe = y - era * 400
    doy = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    doe = yoe * 365 + yoe // 4 - yoe // 100 + doy
    return era * 146097 + doe - 719468


@inline_kernel
def read_timestamp(buf: np.ndarray, at: int, end: int) -> tuple[int, Any]:
    """Return (next position or REFUSED, UTC ns) of ``"YYYY-MM-DDTHH:MM:SS[.f]Z"`` or of integer nanoseconds."""
    if at >= end:
        return REFUSED, 0
    if buf[at] != QUOTE:
        # nanoseconds have 19 digits: read by hand, int64 holds them until 2262
        value = np.int64(0)
        digits = 0
        while at < end and ZERO <= buf[at] <= NINE:
            value = value * 10 + np.int64(buf[at] - ZERO)
            digits += 1
            at += 1
        if digits == 0 or digits > 19 or value < TS_MIN or value >= TS_END:
            return REFUSED, 0
        if at < end and (buf[at] == DOT or (buf[at] | 32) == 101):
            return REFUSED, 0
        return at, value
    at += 1
    if at + 20 > end:
        return REFUSED, 0
    century, year2 = _two(buf, at), _two(buf, at + 2)
    month, day = _two(buf, at + 5), _two(buf, at + 8)
    hour, minute, second = _two(buf, at + 11), _two(buf, at + 14), _two(buf, at + 17)
    if (buf[at + 4] != MINUS or buf[at + 7] != MINUS or buf[at + 10] != 84 or buf[at + 13] != COLON
            or buf[at + 16] != COLON or century < 19 or year2 < 0):
        return REFUSED, 0
    year = century * 100 + year2
    if (year < YEAR_MIN or year >= YEAR_END or not 1 <= month <= 12 or not 1 <= day <= 28 + (0 if month == 2 else 3)
            or (day == 31 and (month == 4 or month == 6 or month == 9 or month == 11))
            or not 0 <= hour <= 23 or not 0 <= minute <= 59 or not 0 <= second <= 59):
        return REFUSED, 0  # 29 February goes the slow way too
    at += 19
    nanos = np.int64(0)
    if buf[at] == DOT:
        at += 1
        digits = 0
        while at < end and ZERO <= buf[at] <= NINE:
            nanos = nanos * 10 + np.int64(buf[at] - ZERO)
            digits += 1
            at += 1
            if digits > 9:
                return REFUSED, 0
        if digits == 0:
            return REFUSED, 0
        for _ in range(9 - digits):
            nanos *= 10
    if at + 1 >= end or buf[at] != 90 or buf[at + 1] != QUOTE:
        return REFUSED, 0
    seconds = days_from_civil(year, month, day) * 86400 + hour * 3600 + minute * 60 + second
    value = seconds * 1_000_000_000 + nanos
    return at + 2, value


@inline_kernel
def skip_scalar(buf: np.ndarray, at: int, end: int) -> int:
    """Return the position after a plain string, number, true, false or null, or REFUSED (nested values too)."""
    if at >= end:
        return REFUSED
    c = buf[at]
    if c == QUOTE:
        close = string_end(buf, at + 1, end)
        return REFUSED if close == REFUSED else close + 1
    if c == MINUS or ZERO <= c <= NINE:
        after, _, _ = read_decimal(buf, at, end)
        return after
    if c == 110:
        return skip_word(buf, at, end, 110, 117, 108, 108)  # null
    if c == 116:
        return skip_word(buf, at, end, 116, 114, 117, 101)  # true
    if c == 102 and at + 5 <= end and buf[at + 4] == 101:
        after = skip_word(buf, at, end - 1, 102, 97, 108, 115)  # fals + e
        return REFUSED if after == REFUSED else after + 1
    return REFUSED


@inline_kernel
def skip_word(buf: np.ndarray, at: int, end: int, a: int, b: int, c: int, d: int) -> int:
    """Return the position after the four given bytes, or REFUSED."""
    if at + 4 > end or buf[at] != a or buf[at + 1] != b or buf[at + 2] != c or buf[at + 3] != d:
        return REFUSED
    return at + 4


@inline_kernel
def is_null(buf: np.ndarray, at: int, end: int) -> bool:
    """Return whether ``null`` starts at ``at``."""
    return skip_word(buf, at, end, 110, 117, 108, 108) != REFUSED
