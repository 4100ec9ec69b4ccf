"""Factor risk: exposures x with a factor covariance F and specific variances D; sigma² = x'Fx + sum of specific."""

from __future__ import annotations

from typing import Any

import numpy as np


def decompose(exposure: np.ndarray, covariance: np.ndarray, specific_variance: Any) -> dict[str, np.ndarray]:
    """Return total volatility and what each factor contributes, of one book or of many at once.

    Parameters
    ----------
    exposure : float64[..., factors], P&L per unit of each factor's move
    specific_variance : float64[...], P&L variance not explained by factors, summed over independent positions

    Returns
    -------
    dict
        ``volatility``; ``contribution`` per factor = exposure x volatility x correlation with the book, and
        ``specific``: together they sum to the volatility.
    """
    parts = exposure * (exposure @ covariance)
    volatility = np.sqrt(np.maximum(parts.sum(axis=-1) + specific_variance, 0.0))
    per = np.where(volatility > 0.0, 1.0 / np.where(volatility > 0.0, volatility, 1.0), 0.0)
    return {"volatility": volatility, "contribution": parts * per[..., None], "specific": specific_variance * per}


#: styles need so many equities and days; momentum looks back a year, and leaves out the last month
STYLE_EQUITIES_MIN, STYLE_DAYS_MIN = 10, 60
MOMENTUM_DAYS, MOMENTUM_SKIPPED_DAYS = 252, 21


def style_returns(returns: np.ndarray) -> dict[str, np.ndarray]:
    """Return the moves of style factors: equities by their score today, long what is high, short what is low.

    Momentum scores by the past year's return without its last month, volatility by the standard deviation of all days.
    Weights are standard scores, at most 3, that add to one on each side: today's styles on past days, as historical
    simulation takes today's book.

    Parameters
    ----------
    returns : float64[days, equities], the oldest first

    Returns
    -------
    dict
        float64[days] by style; none where there are too few equities or days
    """
    days, equities = returns.shape
    if days < STYLE_DAYS_MIN or equities < STYLE_EQUITIES_MIN:
        return {}
    past = returns[-MOMENTUM_DAYS:-MOMENTUM_SKIPPED_DAYS]
    out = {}
    for style, score in (("momentum", np.log1p(past).sum(axis=0)), ("volatility", returns.std(axis=0, ddof=1))):
        spread = score.std()
        if not spread > 0.0:  # all alike: there is no such style
            continue
        z = np.clip((score - score.mean()) / spread, -3.0, 3.0)
        weights = np.where(z > 0.0, z / z[z > 0.0].sum(), z / -z[z < 0.0].sum())
        out[style] = returns @ weights
    return out


def factor_model(returns: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (loadings[instruments, factors], specific variances) by least squares on every instrument at once."""
    design = np.column_stack([np.ones(len(factors)), factors])
    solved, *_ = np.linalg.lstsq(design, returns, rcond=None)
    residual = returns - design @ solved
    return solved[1:].T, residual.var(axis=0, ddof=min(design.shape[1], len(returns) - 1))
