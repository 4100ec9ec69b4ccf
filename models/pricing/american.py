"""American options: Leisen-Reimer trees of two sizes, extrapolated; early-exercise premium on a cached spot grid.

Error against a high-precision integral method, on a strike of 100: 0.0014 root mean square, 0.011 at most over
200 random options (the test prints it). Source of the tree: Leisen and Reimer (1996), Peizer-Pratt inversion 2.
"""

from __future__ import annotations

import numpy as np

from models.jit import allocating_kernel, inline_kernel
from models.pricing.black_scholes import option_price
from models.pricing.normal import log

STEPS = (101, 203)


@inline_kernel
def _peizer_pratt(z: float, n: int) -> float:
    x = z / (n + 1.0 / 3.0 + 0.1 / (n + 1.0))
    root = np.sqrt(0.25 - 0.25 * np.exp(-x * x * (n + 1.0 / 6.0)))
    return 0.5 + root if z >= 0.0 else 0.5 - root


@inline_kernel
def _tree(w: float, s: float, k: float, t: float, v: float, r: float, b: float, n: int, value: np.ndarray) -> float:
    sd = v * np.sqrt(t)
    d1 = (np.log(s / k) + b * t) / sd + 0.5 * sd
    p_up = _peizer_pratt(d1 - sd, n)
    p_bar = _peizer_pratt(d1, n)
    dt = t / n
    growth = np.exp(b * dt)
    up = growth * p_bar / p_up
    down = growth * (1.0 - p_bar) / (1.0 - p_up)
    df = np.exp(-r * dt)
    pu, pd = df * p_up, df * (1.0 - p_up)
    ratio = up / down
    node = s * down ** n
    for j in range(n + 1):
        value[j] = max(w * (node - k), 0.0)
        node *= ratio
    low = s * down ** n
    for i in range(n - 1, -1, -1):
        low /= down
        node = low
        for j in range(i + 1):
            held = pd * value[j] + pu * value[j + 1]
            value[j] = max(held, w * (node - k))
            node *= ratio
    return value[0]


@inline_kernel
def american_price(w: float, s: float, k: float, t: float, v: float, r: float, b: float, value: np.ndarray) -> float:
    """Return one American price; ``value`` is scratch of at least 204 numbers."""
    if not (s > 0.0 and k > 0.0 and t >= 0.0 and v >= 0.0):
        return np.nan
    intrinsic = max(w * (s - k), 0.0)
    if v * np.sqrt(t) < 1e-8:
        return max(intrinsic, option_price(w, s, k, t, v, r, b))
    if w > 0.0 and b >= r and r >= 0.0:  # a call without dividends is never exercised early
        return option_price(w, s, k, t, v, r, b)
    n1, n2 = STEPS
    d1 = (log(s / k) + b * t) / (v * np.sqrt(t))
    if abs(d1) > 8.0:  # so deep that the tree's branch probability leaves no digits
        return max(intrinsic, option_price(w, s, k, t, v, r, b))
    coarse, fine = _tree(w, s, k, t, v, r, b, n1, value), _tree(w, s, k, t, v, r, b, n2, value)
    extrapolated = (n2 * fine - n1 * coarse) / (n2 - n1)
    return max(intrinsic, extrapolated, option_price(w, s, k, t, v, r, b))


@allocating_kernel
def american_prices(sign: np.ndarray, spot: np.ndarray, strike: np.ndarray, t_years: np.ndarray, vol: np.ndarray,
                    rate: np.ndarray, carry: np.ndarray, price: np.ndarray) -> None:
    """Fill American prices; inputs as for European options."""
    scratch = np.empty(256)
    for i in range(price.shape[0]):
        price[i] = american_price(sign[i], spot[i], strike[i], t_years[i], vol[i], rate[i], carry[i], scratch)


@allocating_kernel
def american_greeks(sign: np.ndarray, spot: np.ndarray, strike: np.ndarray, t_years: np.ndarray, vol: np.ndarray,
                    rate: np.ndarray, carry: np.ndarray, out: np.ndarray) -> None:
    """Fill price, delta, gamma, vega, theta (a year), rho by central differences; ``out`` is float64[n, 6].

    Bumps: spot 1 % of the total volatility's move (at least 0.1 %), volatility 0.5 points, one calendar day, 1 bp.
    """
    x = np.empty(256)
    for i in range(out.shape[0]):
        w, s, k, t, v, r, b = sign[i], spot[i], strike[i], t_years[i], vol[i], rate[i], carry[i]
        h = s * max(0.001, 0.1 * v * np.sqrt(t))
        mid = american_price(w, s, k, t, v, r, b, x)
        up, down = american_price(w, s + h, k, t, v, r, b, x), american_price(w, s - h, k, t, v, r, b, x)
        dv, dt, dr = min(0.005, 0.5 * v), min(1.0 / 365.0, 0.5 * t), 1e-4
        out[i, 0] = mid
        out[i, 1] = (up - down) / (2.0 * h)
        out[i, 2] = (up - 2.0 * mid + down) / (h * h)
        out[i, 3] = (american_price(w, s, k, t, v + dv, r, b, x) - american_price(w, s, k, t, v - dv, r, b, x)
                     ) / (2.0 * dv) if dv > 0.0 else 0.0
        out[i, 4] = (american_price(w, s, k, t - dt, v, r, b, x) - mid) / dt if dt > 0.0 else 0.0
        out[i, 5] = (american_price(w, s, k, t, v, r + dr, b + dr, x)
                     - american_price(w, s, k, t, v, r - dr, b - dr, x)) / (2.0 * dr)


@allocating_kernel
def premium_grid(sign: np.ndarray, moneyness: np.ndarray, strike: np.ndarray, t_years: np.ndarray, vol: np.ndarray,
                 rate: np.ndarray, carry: np.ndarray, grid: np.ndarray) -> None:
    """Fill the early-exercise premium (American less European) over spots ``strike * moneyness``.

    Parameters
    ----------
    moneyness : float64[g]
    grid : float64[n, g], in units of the strike: the premium changes slowly, so it is cached and interpolated
    """
    scratch = np.empty(256)
    for i in range(grid.shape[0]):
        w, k, t, v, r, b = sign[i], strike[i], t_years[i], vol[i], rate[i], carry[i]
        for j in range(moneyness.shape[0]):
            s = k * moneyness[j]
            grid[i, j] = (american_price(w, s, k, t, v, r, b, scratch) - option_price(w, s, k, t, v, r, b)) / k
