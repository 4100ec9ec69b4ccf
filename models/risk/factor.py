"""Factor risk: exposures x with a factor covariance F and specific variances D; sigma² = x'Fx + sum of specific."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def decompose(exposure: np.ndarray, covariance: np.ndarray, specific_variance: float) -> dict[str, Any]:
    """Return total volatility and what each factor contributes.

    Parameters
    ----------
    exposure : P&L per unit of each factor's move
    specific_variance : P&L variance not explained by factors, summed over independent positions

    Returns
    -------
    dict
        ``volatility``; ``contribution`` per factor = exposure x volatility x correlation with the book, and
        ``specific``: together they sum to the volatility.
    """
    moved = covariance @ exposure
    variance = float(exposure @ moved) + specific_variance
    volatility = math.sqrt(max(variance, 0.0))
    if volatility == 0.0:
        return {"volatility": 0.0, "contribution": np.zeros(len(exposure)), "specific": 0.0}
    return {"volatility": volatility, "contribution": exposure * moved / volatility,
            "specific": specific_variance / volatility}


def factor_model(returns: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (loadings[instruments, factors], specific variances) by least squares on every instrument at once."""
    design = np.column_stack([np.ones(len(factors)), factors])
    solved, *_ = np.linalg.lstsq(design, returns, rcond=None)
    residual = returns - design @ solved
    return solved[1:].T, residual.var(axis=0, ddof=min(design.shape[1], len(returns) - 1))
