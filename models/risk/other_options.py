"""Options that the lognormal model says nothing of: those of the normal model, and those that have expired."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.contracts import INPUTS, Contracts
from models.pricing.spot_normal import normal_values


def values_at(options: Any, spot: np.ndarray, vol_moves: np.ndarray | None = None,
              rate_moves: np.ndarray | None = None) -> np.ndarray:
    """Return what options of the normal model are worth at other spots: float64[options, scenarios].

    Parameters
    ----------
    spot, vol_moves, rate_moves : float64[options, scenarios]; None: held
    """
    held = np.zeros(spot.shape)
    out = np.empty(spot.shape)
    sign, strike, t_years, vol, rate, carry = (np.ascontiguousarray(options[f]) for f in INPUTS)
    normal_values(sign, strike, t_years, vol, rate, carry, options["future"] != 0, np.ascontiguousarray(spot),
                  held if vol_moves is None else np.ascontiguousarray(vol_moves),
                  held if rate_moves is None else np.ascontiguousarray(rate_moves), out)
    return out


def revalue_other_options(contracts: Contracts, columns: dict[str, np.ndarray], moves: np.ndarray,
                          steps: dict[str, np.ndarray], fx: np.ndarray, shocks: bool, unit: np.ndarray) -> None:
    """Fill the unit vectors of options of the normal model, and of those that have expired: they move no more.

    Parameters
    ----------
    columns : of `ScenarioBook`
    moves : float64[factors, scenarios], fractions of the prices of now
    steps : differences of the prices that move by them
    fx : see `currency_moves`
    shocks : a move of volatility is of points: so many hundredths of the underlying's price
    unit : float64[instruments, scenarios], in the firm's base currency
    """
    market, options = contracts.market, contracts.options
    if not len(options):
        return
    where = options["instrument"]
    expired = where[options["t_years"] <= 0.0]
    unit[expired] = np.where(np.isnan(market.price[expired]), np.nan, 0.0)[:, None]
    rows = options[(options["normal"] != 0) & (options["t_years"] > 0.0)]
    if not len(rows):
        return
    k, spot = rows["instrument"], market.price[rows["underlying"]]
    names = list(market.instruments)
    moved = np.full((len(rows), moves.shape[1]), np.nan)
    for j, under in enumerate(rows["underlying"].tolist()):
        if names[under] in steps:
            moved[j] = spot[j] + steps[names[under]]
        elif columns["factor"][k[j]] >= 0:
            moved[j] = spot[j] * (1.0 + moves[columns["factor"][k[j]]])
    of_vol, of_rate = (np.where(columns[name][k][:, None] >= 0, moves[columns[name][k]], 0.0)
                       for name in ("vol_factor", "rate_factor"))
    if shocks:
        of_vol = of_vol * np.abs(spot)[:, None]
    change = values_at(rows, moved, of_vol, of_rate) - rows["model_price"][:, None]
    c = columns["currency"][k]
    unit[k] = (columns["unit"][k] * market.rate[c])[:, None] * change * (1.0 + fx[c])
