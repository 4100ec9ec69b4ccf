"""The normal model of `bachelier`, asked with a spot and a cost of carry as the lognormal one is, for live options.

Where carry is 0 the spot is a futures price. An input that is missing makes every output NaN.
"""

from __future__ import annotations

import numpy as np

from models.jit import kernel
from models.pricing.bachelier import bachelier_greeks, bachelier_implied, bachelier_price


def normal_greeks(sign: np.ndarray, spot: np.ndarray, strike: np.ndarray, t_years: np.ndarray, vol: np.ndarray,
                  rate: np.ndarray, carry: np.ndarray, on_future: np.ndarray) -> np.ndarray:
    """Return price, delta, gamma, vega, theta (a year) and rho by the spot: float64[n, 6].

    Parameters
    ----------
    on_future : whether the spot is a futures price, which is held where the rate moves
    """
    out = np.empty((len(spot), 6))
    growth = np.exp(carry * t_years)
    forward = spot * growth
    bachelier_greeks(sign, forward, strike, t_years, vol, rate, out)
    delta = out[:, 1].copy()
    out[:, 1] *= growth
    out[:, 2] *= growth * growth
    out[:, 4] -= delta * forward * carry
    out[:, 5] += np.where(on_future, 0.0, delta * forward * t_years)
    out[~np.isfinite(sign + forward + strike + t_years + vol + rate)] = np.nan
    return out


def normal_implied(sign: np.ndarray, spot: np.ndarray, strike: np.ndarray, t_years: np.ndarray, rate: np.ndarray,
                   carry: np.ndarray, price: np.ndarray, vol: np.ndarray) -> None:
    """Fill the volatility, in price units a year, at which options are worth their price; NaN where none does."""
    bachelier_implied(sign, spot * np.exp(carry * t_years), strike, t_years, rate, price, vol)
    vol[~np.isfinite(sign + spot + strike + t_years + rate + carry + price)] = np.nan


@kernel
def normal_values(sign: np.ndarray, strike: np.ndarray, t_years: np.ndarray, vol: np.ndarray, rate: np.ndarray,
                  carry: np.ndarray, on_future: np.ndarray, spot: np.ndarray, vol_moves: np.ndarray,
                  rate_moves: np.ndarray, out: np.ndarray) -> None:
    """Fill what options are worth at other spots, volatilities and rates: float64[n, scenarios], NaN: not known."""
    for i in range(out.shape[0]):
        t = t_years[i]
        for s in range(out.shape[1]):
            moved = 0.0 if on_future[i] else rate_moves[i, s]
            forward = spot[i, s] * np.exp((carry[i] + moved) * t)
            v, r = vol[i] + vol_moves[i, s], rate[i] + rate_moves[i, s]
            known = forward + v + r + strike[i] + t
            out[i, s] = bachelier_price(sign[i], forward, strike[i], t, max(v, 0.0), r) if known == known else np.nan
