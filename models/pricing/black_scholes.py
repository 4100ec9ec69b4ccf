"""European options under generalised Black-Scholes: one fused kernel for price and five Greeks.

Cost of carry b selects the model: b = r - q for equities and indices (dividend yield q), b = r - r_foreign for FX
(Garman-Kohlhagen), b = 0 for options on futures (Black-76).
"""

from __future__ import annotations

import numpy as np

from models.jit import hot_kernel, inline_kernel, kernel
from models.pricing.normal import SQRT_2PI, cdf, exp, log, upper_tail

#: below this total volatility an option is its discounted intrinsic value
_TINY = 1e-12
CALL, PUT = 1.0, -1.0
DAYS_PER_YEAR = 365.0


@kernel
def option_greeks(sign: np.ndarray, spot: np.ndarray, strike: np.ndarray, t_years: np.ndarray, vol: np.ndarray,
                  rate: np.ndarray, carry: np.ndarray, carry_follows_rate: np.ndarray, price: np.ndarray,
                  delta: np.ndarray, gamma: np.ndarray, vega: np.ndarray, theta: np.ndarray, rho: np.ndarray) -> None:
    """Fill price and Greeks per unit of the underlying, in its quote currency.

    Parameters
    ----------
    sign : +1 call, -1 put
    spot, strike : positive; spot is the futures price where carry is 0
    t_years, vol : non-negative; at zero the price is the discounted intrinsic value
    rate, carry : continuous, a year; may be negative
    carry_follows_rate : 1 where b moves with r (rho at fixed dividend yield), 0 where b is fixed (futures)
    price, delta, gamma : per unit and unit squared of spot
    vega : per 1.00 of volatility
    theta : per year of calendar time passing (negative = decay)
    rho : per 1.00 of rate

    Notes
    -----
    A row with an input outside its range gets NaN in every output.
    """
    for i in range(spot.shape[0]):
        w, s, k, t, v, r, b = sign[i], spot[i], strike[i], t_years[i], vol[i], rate[i], carry[i]
        root = np.sqrt(t)
        total = v * root
        sd = max(total, _TINY)
        d1 = (log(s / k) + b * t) / sd + 0.5 * sd
        d2 = d1 - sd
        d1 = min(max(d1, -37.0), 37.0)
        d2 = min(max(d2, -37.0), 37.0)
        gauss1 = exp(-0.5 * d1 * d1)
        tail1 = upper_tail(d1, gauss1)
        tail2 = upper_tail(d2, exp(-0.5 * d2 * d2))
        n1 = 1.0 - tail1 if w * d1 > 0.0 else tail1
        n2 = 1.0 - tail2 if w * d2 > 0.0 else tail2
        df = exp(-r * t)
        carried = s * exp((b - r) * t)
        density = carried * gauss1 / SQRT_2PI
        value = max(w * (carried * n1 - k * df * n2), 0.0)
        ok = (s > 0.0) & (k > 0.0) & (t >= 0.0) & (v >= 0.0) & (r == r) & (b == b)
        alive = total > _TINY
        nan = 0.0 if ok else np.nan
        price[i] = value + nan
        delta[i] = w * carried * n1 / s + nan
        gamma[i] = (density / (s * s * sd) if alive else 0.0) + nan
        vega[i] = (density * root if alive else 0.0) + nan
        decay = density * v / (2.0 * max(root, _TINY)) if alive else 0.0
        theta[i] = -decay - w * (b - r) * carried * n1 - w * r * k * df * n2 + nan
        follows = carry_follows_rate[i]
        rho[i] = follows * (w * k * t * df * n2) - (1.0 - follows) * t * value + nan


@hot_kernel
def option_price(w: float, s: float, k: float, t: float, v: float, r: float, b: float) -> float:
    """Return one European price; inputs as in `option_greeks`."""
    sd = max(v * np.sqrt(t), _TINY)
    d1 = (log(s / k) + b * t) / sd + 0.5 * sd
    return w * (s * exp((b - r) * t) * cdf(w * d1) - k * exp(-r * t) * cdf(w * (d1 - sd)))


@kernel
def option_prices(sign: np.ndarray, spot: np.ndarray, strike: np.ndarray, t_years: np.ndarray, vol: np.ndarray,
                  rate: np.ndarray, carry: np.ndarray, price: np.ndarray) -> None:
    """Fill prices alone (scenario revaluation)."""
    for i in range(spot.shape[0]):
        w, s, k, t, r, b = sign[i], spot[i], strike[i], t_years[i], rate[i], carry[i]
        sd = max(vol[i] * np.sqrt(t), _TINY)
        d1 = (log(s / k) + b * t) / sd + 0.5 * sd
        price[i] = w * (s * exp((b - r) * t) * cdf(w * d1) - k * exp(-r * t) * cdf(w * (d1 - sd)))


@kernel
def implied_volatilities(sign: np.ndarray, spot: np.ndarray, strike: np.ndarray, t_years: np.ndarray,
                         rate: np.ndarray, carry: np.ndarray, price: np.ndarray, vol: np.ndarray) -> None:
    """Fill the volatility at which each option is worth its price; NaN where no volatility does.

    Newton's steps on the out-of-the-money price, kept inside a bracket that only shrinks; prices at or outside the
    no-arbitrage bounds have no implied volatility.
    """
    for i in range(price.shape[0]):
        vol[i] = _implied(sign[i], spot[i], strike[i], t_years[i], rate[i], carry[i], price[i])


@inline_kernel
def _implied(w: float, s: float, k: float, t: float, r: float, b: float, price: float) -> float:
    if not (s > 0.0 and k > 0.0 and t > 0.0 and price == price):
        return np.nan
    carried, strike_pv = s * exp((b - r) * t), k * exp(-r * t)
    target = price
    if w * (carried - strike_pv) > 0.0:  # in the money: the time value is the opposite option's price (parity)
        target = price - w * (carried - strike_pv)
        w = -w
    most = carried if w > 0.0 else strike_pv
    # what is left after taking intrinsic value away carries the rounding of the price: below it nothing is known
    if not (target > 1e-15 * price and 0.0 < target < most):
        return np.nan
    low, high = 1e-9, 1.0
    while option_price(w, s, k, t, high, r, b) < target:
        low, high = high, high * 2.0
        if high > 1e4:
            return np.nan
    v = min(max(np.sqrt(2.0 * abs(log(carried / strike_pv)) / t), 0.1), 0.9 * high)
    for _ in range(200):
        value = option_price(w, s, k, t, v, r, b)
        if value > target:
            high = v
        else:
            low = v
        sd = v * np.sqrt(t)
        d1 = log(carried / strike_pv) / sd + 0.5 * sd
        slope = carried * exp(-0.5 * d1 * d1) / SQRT_2PI * np.sqrt(t)
        step = (value - target) / slope if slope > 0.0 else np.inf
        # far from the answer prices are exponentially small: a step in their logarithm goes further
        if value > 0.0 and value < 0.5 * target and slope > 0.0:
            step = value * log(value / target) / slope
        nearer = v - step
        if not (low < nearer < high):
            nearer = 0.5 * (low + high)
        if abs(nearer - v) <= 1e-15 * v or high - low <= 1e-15 * high:
            return nearer
        v = nearer
    return v


class OptionGreeks:
    """Outputs of `option_greeks` as columns."""

    __slots__ = ("delta", "gamma", "price", "rho", "theta", "vega")

    def __init__(self, n: int) -> None:
        self.price, self.delta, self.gamma = np.empty(n), np.empty(n), np.empty(n)
        self.vega, self.theta, self.rho = np.empty(n), np.empty(n), np.empty(n)


def greeks(sign: np.ndarray, spot: np.ndarray, strike: np.ndarray, t_years: np.ndarray, vol: np.ndarray,
           rate: np.ndarray, carry: np.ndarray, carry_follows_rate: np.ndarray | None = None) -> OptionGreeks:
    """Return price and Greeks of columns of European options (see `option_greeks`)."""
    out = OptionGreeks(len(spot))
    follows = np.ones(len(spot)) if carry_follows_rate is None else carry_follows_rate
    option_greeks(sign, spot, strike, t_years, vol, rate, carry, follows, out.price, out.delta, out.gamma, out.vega,
                  out.theta, out.rho)
    return out
