"""Times and decimals at the border: exact readings of what the wire carries."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
INT64_MAX = 2**63 - 1
#: digits an exact decimal may have on the wire; what is longer does not fit the int64 columns
DECIMAL_DIGITS_MAX = 18


def parse_ts_ns(value: str | int, field: str = "ts_event") -> int:
    """Return UTC nanoseconds since the epoch from RFC 3339 text (Z or an offset) or integer nanoseconds.

    Raises
    ------
    ValueError
        With the field, the value and what was expected.
    """
    if isinstance(value, int):
        if not 0 < value <= INT64_MAX:
            raise ValueError(f"{field}: expected nanoseconds since 1970, was {value}")
        return value
    text = value.strip()
    head, dot, tail = text.partition(".")
    digits = ""
    if dot:
        n = 0
        while n < len(tail) and tail[n].isdigit():
            n += 1
        digits, tail = tail[:n], tail[n:]
        if not digits or n > 9:
            raise ValueError(f"{field}: expected RFC 3339 with up to nine decimals, was {value!r}")
        text = head + tail
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{field}: expected RFC 3339 UTC or integer nanoseconds, was {value!r}") from error
    if when.tzinfo is None:
        raise ValueError(f"{field}: expected a time zone (Z), was {value!r}")
    delta = when.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    ns = (delta.days * 86_400 + delta.seconds) * NS_PER_S + delta.microseconds * 1000
    ns += int(digits.ljust(9, "0")) if digits else 0
    if ns <= 0:
        raise ValueError(f"{field}: expected a time after 1970, was {value!r}")
    return ns


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
        raise ValueError(f"{field}: expected a decimal number, was {value!r}") from error
    if not number.is_finite():
        raise ValueError(f"{field}: expected a finite number, was {value!r}")
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    while exponent < 0 and len(digits) > 1 and digits[-1] == 0:  # 1.500 carries one digit, not three
        digits, exponent = digits[:-1], exponent + 1
    mantissa = int("".join(map(str, digits)) or "0")
    if mantissa == 0:
        return 0, 0
    if len(digits) + max(exponent, 0) > DECIMAL_DIGITS_MAX or -exponent > DECIMAL_DIGITS_MAX:
        raise ValueError(f"{field}: expected at most {DECIMAL_DIGITS_MAX} digits, was {value}")
    if exponent > 0:
        mantissa, exponent = mantissa * 10**exponent, 0
    return (-mantissa if sign else mantissa), -exponent


def decimals_of(increment: str | None) -> int:
    """Return the number of decimals of an increment such as ``0.00001`` (5) or ``0.25`` (2); 0 for None."""
    return decimal_parts(increment, "increment")[1] if increment else 0
