"""Concentration, leverage, liquidity, margin: what a book is exposed to, and how fast it could leave."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

#: liquidity horizons of MAR33, in days; crypto is not listed there, 20 is our choice
LIQUIDITY_HORIZON_DAYS = {"equity": 10, "fx": 10, "fx_option": 40, "option": 20, "future": 20, "bond": 40,
                          "perpetual": 20, "cash": 10, "fx_forward": 10, "money_market": 10}
BUCKETS_DAYS = (1.0, 5.0, 20.0)


def concentration(values: np.ndarray, group: np.ndarray, groups: int) -> dict[str, Any]:
    """Return shares of gross per group and the Herfindahl-Hirschman index.

    Parameters
    ----------
    values : market value of each position; the share is of the sum of absolute values
    group : group of each position, -1 where unknown (counted as a group of its own in ``unknown``)

    Returns
    -------
    dict
        ``shares`` float64[groups], ``hhi`` (None with fewer than two groups: one contributor says nothing),
        ``unknown`` share without a group
    """
    size = np.abs(values)
    total = float(size.sum())
    known = group >= 0
    by_group = np.bincount(group[known], size[known], groups)
    if total == 0.0:
        return {"shares": by_group, "hhi": None, "unknown": 0.0}
    shares = by_group / total
    several = int((shares > 0).sum()) >= 2
    return {"shares": shares, "hhi": float((shares ** 2).sum()) if several else None,
            "unknown": float(size[~known].sum()) / total}


def leverage(gross: float, net_by_underlying: np.ndarray, nav: float | None) -> dict[str, float | None]:
    """Return leverage by the gross and by the commitment method.

    Parameters
    ----------
    gross : sum of absolute delta equivalents, without cash in base currency
    net_by_underlying : delta equivalents netted per underlying (the same risk, both ways)
    nav : of the node; without it the ratios are unknown, not 0
    """
    commitment = float(np.abs(net_by_underlying).sum())
    if nav is None or not nav > 0.0:
        return {"gross": None, "commitment": None, "gross_exposure": gross, "commitment_exposure": commitment}
    return {"gross": gross / nav, "commitment": commitment / nav, "gross_exposure": gross,
            "commitment_exposure": commitment}


def days_to_liquidate(quantity: np.ndarray, adv: np.ndarray, participation: float = 0.20) -> np.ndarray:
    """Return days to trade out of positions; NaN where the average daily volume is unknown."""
    if not 0.0 < participation <= 1.0:
        raise ValueError(f"participation: expected above 0 and at most 1, was {participation!r}")
    rate = np.where(adv > 0.0, adv * participation, np.nan)
    return np.asarray(np.where(quantity == 0.0, 0.0, np.abs(quantity) / rate))


def liquidity_cost(value: np.ndarray, relative_spread: np.ndarray) -> float:
    """Return half the spread on every position's value: added to VaR after horizon scaling."""
    return float(np.nansum(0.5 * relative_spread * np.abs(value)))


def liquidity_buckets(value: np.ndarray, days: np.ndarray) -> dict[str, float]:
    """Return the share of gross value that can be left within 1, 5 and 20 days, beyond, or unknown."""
    size = np.abs(value)
    total = float(size.sum())
    if total == 0.0:
        return {}
    out, low = {}, -1.0
    for bound in BUCKETS_DAYS:
        out[f"within_{bound:.0f}d"] = float(size[(days > low) & (days <= bound)].sum()) / total
        low = bound
    out["beyond"] = float(size[days > low].sum()) / total
    out["unknown"] = float(size[np.isnan(days)].sum()) / total
    return out


def liquidity_horizon_es(es_by_horizon: Mapping[int, float], base_days: int = 10) -> float:
    """Return the liquidity-horizon ES of MAR33.

    Parameters
    ----------
    es_by_horizon : for each horizon of 10, 20, 40, 60, 120 days the base-horizon ES of only those factors whose
        horizon is at least that long (the first one: all factors)
    """
    horizons = sorted(es_by_horizon)
    total, before = 0.0, 0
    for h in horizons:
        total += es_by_horizon[h] ** 2 * (h - before if before else base_days) / base_days
        before = h
    return math.sqrt(total)


def initial_margin(notional: float, rate: float = 1.0, leverage_: float = 1.0) -> float:
    """Return initial margin: notional times rate over the venue's leverage."""
    if not leverage_ > 0.0 or rate < 0.0:
        raise ValueError(f"margin: expected leverage above 0 and a rate of at least 0, was {leverage_!r}, {rate!r}")
    return abs(notional) * rate / leverage_


def notional(quantity: float, price: float, inverse: bool, multiplier: float = 1.0) -> float:
    """Return the notional: quote currency for linear contracts, base coin for inverse ones; never below 0."""
    return abs(quantity) * multiplier / price if inverse else abs(quantity * multiplier * price)


def tiered_margin(value: float, tiers: Sequence[tuple[float, float]]) -> float:
    """Return margin on ascending (up to, rate) tiers, each rate on its slice of the notional."""
    left, low, out = abs(value), 0.0, 0.0
    for up_to, rate in tiers:
        part = min(left, up_to - low)
        if part <= 0.0:
            break
        out += part * rate
        left -= part
        low = up_to
    if left > 1e-9 * abs(value):
        raise ValueError(f"tiers: expected to cover a notional of {value!r}, end at {low!r}")
    return out


def funding_rate(premium: float, interest: float, clamp: float = 0.0005) -> float:
    """Return a perpetual's funding rate: premium + clamp(interest - premium, +-0.05 %); longs pay it if positive."""
    return premium + min(max(interest - premium, -clamp), clamp)
