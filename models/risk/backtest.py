"""Backtests of VaR: Kupiec, Christoffersen, Basel traffic light and multiplier."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

#: additions to the multiplier by number of exceptions in 250 days: the 1996 framework on 3.00, MAR33 on 1.50
STEPS_1996 = {5: 0.40, 6: 0.50, 7: 0.65, 8: 0.75, 9: 0.85}
STEPS_MAR33 = {5: 0.20, 6: 0.26, 7: 0.33, 8: 0.38, 9: 0.42}


def _xlogy(x: float, y: float) -> float:
    return 0.0 if x == 0 else x * math.log(y)


def chi_square_tail(x: float, freedom: int) -> float:
    """Return the upper tail of a chi-square distribution with 1 or 2 degrees of freedom."""
    return math.erfc(math.sqrt(max(x, 0.0) / 2.0)) if freedom == 1 else math.exp(-max(x, 0.0) / 2.0)


def kupiec(n: int, exceptions: int, p: float) -> dict[str, float]:
    """Return the proportion-of-failures likelihood ratio and its p-value (chi-square, 1 degree of freedom).

    Parameters
    ----------
    p : expected exception rate, 1 - level

    Raises
    ------
    ValueError
        More exceptions than days, no days, or a rate outside (0, 1).
    """
    if not (n > 0 and 0 <= exceptions <= n and 0.0 < p < 1.0):
        raise ValueError(f"kupiec: expected 0 <= exceptions <= n and 0 < p < 1, was {exceptions}, {n}, {p!r}")
    share = exceptions / n
    lr = -2.0 * (_xlogy(n - exceptions, 1.0 - p) + _xlogy(exceptions, p)
                 - _xlogy(n - exceptions, 1.0 - share) - _xlogy(exceptions, share))
    lr = max(lr, 0.0)
    return {"lr_pof": lr, "p_value": chi_square_tail(lr, 1)}


def christoffersen(hits: np.ndarray, p: float) -> dict[str, float]:
    """Return independence and conditional coverage statistics of a sequence of exceptions (0 or 1 a day, NaN: missing).

    A day follows another only where both are known; without such a pair there is no statistic (NaN). Conditional
    coverage adds the unconditional statistic of all days and the independence statistic.
    """
    known = hits[np.isfinite(hits)]
    both = np.isfinite(hits[:-1]) & np.isfinite(hits[1:])
    before, after = hits[:-1][both].astype(bool), hits[1:][both].astype(bool)
    n00, n01 = int((~before & ~after).sum()), int((~before & after).sum())
    n10, n11 = int((before & ~after).sum()), int((before & after).sum())
    total = n00 + n01 + n10 + n11
    if not total:
        names = ("lr_independence", "p_value_independence", "lr_conditional", "p_value_conditional")
        return dict.fromkeys(names, math.nan)
    p01 = n01 / (n00 + n01) if n00 + n01 else 0.0
    p11 = n11 / (n10 + n11) if n10 + n11 else 0.0
    share = (n01 + n11) / total
    null = _xlogy(n00 + n10, 1.0 - share) + _xlogy(n01 + n11, share)
    free = _xlogy(n00, 1.0 - p01) + _xlogy(n01, p01) + _xlogy(n10, 1.0 - p11) + _xlogy(n11, p11)
    independence = max(2.0 * (free - null), 0.0)
    pof = kupiec(len(known), int(known.sum()), p)["lr_pof"]
    return {"lr_independence": independence, "p_value_independence": chi_square_tail(independence, 1),
            "lr_conditional": pof + independence, "p_value_conditional": chi_square_tail(pof + independence, 2)}


def binomial_cumulative(k: int, n: int, p: float) -> float:
    """Return P(at most k exceptions in n days)."""
    log_p, log_q = math.log(p), math.log1p(-p)
    return min(math.fsum(math.exp(math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1)
                                  + i * log_p + (n - i) * log_q) for i in range(min(k, n) + 1)), 1.0)


def traffic_light(exceptions: int, n: int = 250, p: float = 0.01) -> dict[str, Any]:
    """Return the Basel zone and both multipliers.

    Returns
    -------
    dict
        ``zone``: green while P(X <= k) < 95 %, amber while < 99.99 %, red beyond; ``zone_days`` and ``zone_basis``:
        what it rests on; ``multiplier`` by MAR33 (1.50 to 2.00), ``multiplier_1996`` by the first framework (3.00 to
        4.00); both only for 250 days at 99 %.
    """
    cumulative = binomial_cumulative(exceptions, n, p)
    zone = "green" if cumulative < 0.95 else "amber" if cumulative < 0.9999 else "red"
    basel = n == 250 and abs(p - 0.01) < 1e-12
    out: dict[str, Any] = {"cumulative_probability": cumulative, "zone": zone, "zone_days": n,
                           "zone_basis": "Basel's table: 250 days at 0.99" if basel else
                           f"probability of at most {exceptions} exceptions in {n} days at {round(1.0 - p, 12)!r}; "
                           "Basel's table is for 250 days at 0.99, no multiplier follows"}
    if basel:
        red = exceptions > 9
        out["multiplier"] = 2.0 if red else 1.5 + STEPS_MAR33.get(exceptions, 0.0)
        out["multiplier_1996"] = 4.0 if red else 3.0 + STEPS_1996.get(exceptions, 0.0)
    return out


def hits_of(pnl: np.ndarray, var: np.ndarray) -> np.ndarray:
    """Return 1 for every day whose loss exceeds that day's VaR, 0 for another; NaN where either is missing.

    Parameters
    ----------
    pnl, var : one number a day, the oldest first; VaR as a positive loss known before the day
    """
    pnl, var = np.asarray(pnl, np.float64), np.asarray(var, np.float64)
    return np.where(np.isnan(pnl) | np.isnan(var), np.nan, (-pnl > var).astype(np.float64))


def backtest(hits: np.ndarray, level: float) -> dict[str, Any]:
    """Return the whole backtest of a node from `hits_of` its days; the zone is of the last 250 that are known."""
    p = round(1.0 - level, 12)
    known = hits[np.isfinite(hits)]
    out: dict[str, Any] = {"days": len(known), "exceptions": int(known.sum())}
    out |= kupiec(len(known), int(known.sum()), p) | christoffersen(hits, p)
    return out | traffic_light(int(known[-250:].sum()), min(len(known), 250), p)
