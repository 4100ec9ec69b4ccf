"""European options under the normal (Bachelier) model: forwards and strikes of either sign, volatility in price units.

The forward moves by ``vol * sqrt(t)`` in units of its own price: for what trades at or below zero (spreads, oil of
April 2020, rates), where a lognormal model has no value at all.
"""

from __future__ import annotations

import numpy as np

from models.jit import hot_kernel, inline_kernel, kernel
from models.pricing.normal import SQRT_2PI, cdf, exp

#: below this deviation of the forward, in price units, an option is its discounted intrinsic value
_TINY = 1e-12


@hot_kernel
def bachelier_price(w: float, f: float, k: float, t: float, v: float, r: float) -> float:
    """Return one European price: discounted, with ``v`` in price units a year."""
    sd = v * np.sqrt(t)
    gap = w * (f - k)
    d = gap / max(sd, _TINY)
    value = gap * cdf(d) + sd * exp(-0.5 * min(d * d, 1400.0)) / SQRT_2PI if sd > _TINY else max(gap, 0.0)
    return exp(-r * t) * max(value, 0.0)


@kernel
def bachelier_greeks(sign: np.ndarray, forward: np.ndarray, strike: np.ndarray, t_years: np.ndarray, vol: np.ndarray,
                     rate: np.ndarray, out: np.ndarray) -> None:
    """Fill price, delta, gamma, vega, theta (a year), rho of columns of options on a forward.

    Parameters
    ----------
    sign : +1 call, -1 put
    forward, strike : of either sign; delta and gamma are by the forward
    vol : in price units a year; vega is per 1.00 of it
    out : float64[n, 6]; rho holds the forward
    """
    for i in range(out.shape[0]):
        w, f, k, t, v, r = sign[i], forward[i], strike[i], t_years[i], vol[i], rate[i]
        df, root = exp(-r * t), np.sqrt(t)
        sd = v * root
        price = bachelier_price(w, f, k, t, v, r)
        d = (f - k) / max(sd, _TINY)
        d = min(max(d, -37.0), 37.0)
        alive = sd > _TINY
        density = df * exp(-0.5 * d * d) / SQRT_2PI if alive else 0.0
        out[i, 0] = price
        out[i, 1] = w * df * cdf(w * d)
        out[i, 2] = density / sd if alive else 0.0
        out[i, 3] = density * root
        out[i, 4] = r * price - (0.5 * v * density / root if alive else 0.0)
        out[i, 5] = -t * price


@kernel
def bachelier_implied(sign: np.ndarray, forward: np.ndarray, strike: np.ndarray, t_years: np.ndarray,
                      rate: np.ndarray, price: np.ndarray, vol: np.ndarray) -> None:
    """Fill the volatility at which each option is worth its price; NaN where none does."""
    for i in range(price.shape[0]):
        vol[i] = _implied(sign[i], forward[i], strike[i], t_years[i], rate[i], price[i])


@inline_kernel
def _implied(w: float, f: float, k: float, t: float, r: float, price: float) -> float:
    undiscounted = price * exp(r * t)
    gap = abs(f - k)
    # in the money: the time value is the opposite option's price (parity)
    target = undiscounted - max(w * (f - k), 0.0)
    if not (t > 0.0 and target > 1e-15 * undiscounted):
        return np.nan
    if gap == 0.0:
        return target * SQRT_2PI / np.sqrt(t)
    low, high = 0.0, max(gap, target * SQRT_2PI)
    while bachelier_price(1.0, -gap, 0.0, 1.0, high, 0.0) < target:
        low, high = high, 2.0 * high
        if high > 1e300:
            return np.nan
    sd = 0.5 * (low + high)
    for _ in range(200):
        value = bachelier_price(1.0, -gap, 0.0, 1.0, sd, 0.0)
        if value > target:
            high = sd
        else:
            low = sd
        d = gap / sd
        slope = exp(-0.5 * min(d * d, 1400.0)) / SQRT_2PI
        # far from the answer prices are exponentially small: a step in their logarithm goes further
        step = (value - target) / slope
        if 0.0 < value < 0.5 * target:
            step = value * np.log(value / target) / slope
        nearer = sd - step
        if not (low < nearer < high):
            nearer = 0.5 * (low + high)
        if abs(nearer - sd) <= 1e-15 * sd or high - low <= 1e-15 * high:
            return nearer / np.sqrt(t)
        sd = nearer
    return sd / np.sqrt(t)
