"""JSON numbers to the nearest double in a kernel, by Eisel and Lemire: bit for bit what Python's ``float`` gives.

Lemire, "Number parsing at a gigabyte per second", Software: Practice and Experience 51 (2021): the decimal digits,
as an integer, are multiplied with a 128-bit approximation of the power of ten; what is left is rounding. Numbers with
more than 19 digits, and powers of ten that no price or amount has, are refused: the caller reads them in another way.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from models.jit import inline_kernel
from models.json_scan import DOT, MINUS, NINE, REFUSED, ZERO

#: 10**19 - 1 fits 64 bits
SIGNIFICANT_MAX = 19
POWER_MIN, POWER_MAX = -45, 40
_BITS = 128


def _powers_of_five() -> np.ndarray:
    """Return the 128 leading bits of 5**q, truncated (those of its reciprocal rounded up): uint64[powers, 2]."""
    out = np.zeros((POWER_MAX - POWER_MIN + 1, 2), np.uint64)
    for q in range(POWER_MIN, POWER_MAX + 1):
        if q >= 0:
            power = 5**q
            shift = power.bit_length() - _BITS
            value = power >> shift if shift > 0 else power << -shift
        else:
            power = 5**-q
            value = (1 << (power.bit_length() + _BITS - 1)) // power + 1
            value >>= value.bit_length() - _BITS
        out[q - POWER_MIN] = value >> 64, value & (2**64 - 1)
    return out


FIVES = _powers_of_five()
_ONE, _THREE, _TEN, _HALF = np.uint64(1), np.uint64(3), np.uint64(10), np.uint64(32)
_LOW_HALF, _PRECISION = np.uint64(2**32 - 1), np.uint64((2**64 - 1) >> 55)
_HIDDEN, _SIGN, _SIXTY_THREE = np.uint64(1 << 52), np.uint64(1 << 63), np.uint64(63)


@inline_kernel
def _product(a: Any, b: Any) -> tuple[Any, Any]:
    """Return the (high, low) halves of a 64 by 64 bit product."""
    a0, a1, b0, b1 = a & _LOW_HALF, a >> _HALF, b & _LOW_HALF, b >> _HALF
    low, middle, other, high = a0 * b0, a1 * b0, a0 * b1, a1 * b1
    carry = ((low >> _HALF) + (middle & _LOW_HALF) + (other & _LOW_HALF)) >> _HALF
    return high + (middle >> _HALF) + (other >> _HALF) + carry, a * b


@inline_kernel
def double_bits(digits: Any, power: int) -> Any:
    """Return the bits of the double nearest to ``digits * 10**power``: uint64 and int64 in POWER_MIN..POWER_MAX."""
    if digits == np.uint64(0):
        return np.uint64(0)
    w, zeros = digits, 0
    while w & _SIGN == np.uint64(0):
        w, zeros = w << _ONE, zeros + 1
    high, low = _product(w, FIVES[power - POWER_MIN, 0])
    if high & _PRECISION == _PRECISION:
        more, _ = _product(w, FIVES[power - POWER_MIN, 1])
        low = low + more
        if more > low:
            high = high + _ONE
    upper = high >> _SIXTY_THREE
    shift = upper + np.uint64(64 - 52 - 3)
    mantissa = high >> shift
    exponent = ((217706 * power) >> 16) + 63 + np.int64(upper) - zeros + 1023
    # exactly between two doubles: to the even one
    if low <= _ONE and -4 <= power <= 23 and mantissa & _THREE == _ONE and mantissa << shift == high:
        mantissa = mantissa & ~_ONE
    mantissa = (mantissa + (mantissa & _ONE)) >> _ONE
    if mantissa >= _HIDDEN << _ONE:
        mantissa, exponent = _HIDDEN, exponent + 1
    return (mantissa & ~_HIDDEN) | (np.uint64(exponent) << np.uint64(52))


@inline_kernel
def read_double(buf: np.ndarray, at: int, end: int) -> tuple[int, Any]:
    """Return (next position or REFUSED, bits of the double) of a JSON number."""
    negative = at < end and buf[at] == MINUS
    if negative:
        at += 1
    first, digits, significant, power = at, np.uint64(0), 0, 0
    while at < end and ZERO <= buf[at] <= NINE:
        digits = digits * _TEN + np.uint64(buf[at] - ZERO)
        significant += 1 if digits != np.uint64(0) else 0
        at += 1
    if at == first or (at - first > 1 and buf[first] == ZERO):
        return REFUSED, np.uint64(0)
    if at < end and buf[at] == DOT:
        at += 1
        fraction = at
        while at < end and ZERO <= buf[at] <= NINE:
            digits = digits * _TEN + np.uint64(buf[at] - ZERO)
            significant += 1 if digits != np.uint64(0) else 0
            at += 1
        power = fraction - at
        if power == 0:
            return REFUSED, np.uint64(0)
    if at < end and (buf[at] | 32) == 101:
        at, written = _read_exponent(buf, at + 1, end)
        power += written
    if at == REFUSED or significant > SIGNIFICANT_MAX or not POWER_MIN <= power <= POWER_MAX:
        return REFUSED, np.uint64(0)
    bits = double_bits(digits, power)
    return at, bits | _SIGN if negative else bits


@inline_kernel
def _read_exponent(buf: np.ndarray, at: int, end: int) -> tuple[int, int]:
    negative = at < end and buf[at] == MINUS
    if at < end and (buf[at] == MINUS or buf[at] == 43):
        at += 1
    first, value = at, np.int64(0)
    while at < end and ZERO <= buf[at] <= NINE and at - first < 4:
        value = value * 10 + np.int64(buf[at] - ZERO)
        at += 1
    if at == first:
        return REFUSED, 0
    return at, int(-value if negative else value)
