"""Branch-free exp, log and normal distribution: forms that the compiler turns into vector instructions.

Calls into the C library keep a loop scalar; these are straight lines of arithmetic, so a pricing loop over plain
columns runs four options at a time. Accuracy against scipy: exp and log 2e-16 relative, cdf 1e-15 absolute (tested).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from models.jit import hot_kernel

_LOG2E = 1.4426950408889634
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
#: adding and taking away 1.5 * 2^52 rounds to a whole number, which then sits in the low bits
_ROUND = 6755399441055744.0
_SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
SQRT_2PI = 2.5066282746310002


@intrinsic
def _bits(_context: Any, _value: Any) -> Any:
    """Reinterpret a float64 as int64."""
    return types.int64(types.float64), lambda c, b, s, a: b.bitcast(a[0], ir.IntType(64))


@intrinsic
def _float(_context: Any, _value: Any) -> Any:
    """Reinterpret an int64 as float64."""
    return types.float64(types.int64), lambda c, b, s, a: b.bitcast(a[0], ir.DoubleType())


@hot_kernel
def exp(x: float) -> float:
    """e^x for x in [-708, 709]; clamped outside."""
    x = min(max(x, -708.0), 709.0)
    t = x * _LOG2E + _ROUND
    k = t - _ROUND
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    p = 1.6059043836821613e-10
    p = p * r + 2.08767569878681e-09
    p = p * r + 2.505210838544172e-08
    p = p * r + 2.755731922398589e-07
    p = p * r + 2.7557319223985893e-06
    p = p * r + 2.48015873015873e-05
    p = p * r + 0.0001984126984126984
    p = p * r + 0.001388888888888889
    p = p * r + 0.008333333333333333
    p = p * r + 0.041666666666666664
    p = p * r + 0.16666666666666666
    p = p * r + 0.5
    p = p * r * r + r
    scale = _float((_bits(t) + 1023) << 52)
    return scale + scale * p


@hot_kernel
def log(x: float) -> float:
    """Natural logarithm of a positive, normal x."""
    # the exponent is counted from sqrt(1/2), so that the mantissa lies in [0.707, 1.414)
    bits = _bits(x) - _SQRT_HALF_BITS
    e = bits >> 52
    m = _float((bits & 0xFFFFFFFFFFFFF) + _SQRT_HALF_BITS)
    f = m - 1.0
    s = f / (2.0 + f)
    z = s * s
    p = 1.0 / 23.0
    p = p * z + 1.0 / 21.0
    p = p * z + 1.0 / 19.0
    p = p * z + 1.0 / 17.0
    p = p * z + 1.0 / 15.0
    p = p * z + 1.0 / 13.0
    p = p * z + 1.0 / 11.0
    p = p * z + 1.0 / 9.0
    p = p * z + 1.0 / 7.0
    p = p * z + 1.0 / 5.0
    p = p * z + 1.0 / 3.0
    return e * _LN2_HIGH + (e * _LN2_LOW + (2.0 * s * z * p + 2.0 * s))


@hot_kernel
def upper_tail(x: float, gauss: float) -> float:
    """1 - N(|x|), given gauss = exp(-x²/2). Rational form of Hart (1968), coefficients as in West (2005)."""
    a = abs(x)
    n = 3.52624965998911e-02 * a + 0.700383064443688
    n = n * a + 6.37396220353165
    n = n * a + 33.912866078383
    n = n * a + 112.079291497871
    n = n * a + 221.213596169931
    n = n * a + 220.206867912376
    d = 8.83883476483184e-02 * a + 1.75566716318264
    d = d * a + 16.064177579207
    d = d * a + 86.7807322029461
    d = d * a + 296.564248779674
    d = d * a + 637.333633378831
    d = d * a + 793.826512519948
    d = d * a + 440.413735824752
    return gauss * n / d


@hot_kernel
def cdf(x: float) -> float:
    """Standard normal distribution function."""
    x = min(max(x, -37.0), 37.0)
    tail = upper_tail(x, exp(-0.5 * x * x))
    return 1.0 - tail if x > 0.0 else tail
