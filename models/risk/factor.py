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


def factor_model(returns: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (loadings[instruments, factors], specific variances) by least squares on every instrument at once."""
    design = np.column_stack([np.ones(len(factors)), factors])
    solved, *_ = np.linalg.lstsq(design, returns, rcond=None)
    residual = returns - design @ solved
    return solved[1:].T, residual.var(axis=0, ddof=min(design.shape[1], len(returns) - 1))
