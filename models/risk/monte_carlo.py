"""Monte Carlo VaR: factor draws with a fixed seed, shared by every node and every what-if (common random numbers)."""

from __future__ import annotations

import math

import numpy as np

from models.risk.parametric import factor_root
from models.risk.quantile import expected_shortfall, quantile_loss, worst_rank


def factor_draws(covariance: np.ndarray, paths: int, seed: int) -> np.ndarray:
    """Return float64[paths, factors] of normal factor moves, in antithetic pairs, from a seed.

    The covariance is salvaged first (negative eigenvalues set to zero, variances kept).
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    half = (paths + 1) // 2
    normal = rng.standard_normal((half, len(covariance)))
    return np.asarray(np.concatenate([normal, -normal])[:paths] @ factor_root(covariance).T)


def standard_error(pnl: np.ndarray, level: float) -> float:
    """Return the standard error of the VaR estimate: sqrt(a(1-a)/n) over the density at the quantile.

    The density is estimated from the spacing of order statistics around the quantile (Bofinger's bandwidth).
    """
    n = len(pnl)
    p = 1.0 - level
    k = worst_rank(n, level)
    width = max(1, min(k - 1, int(n ** 0.8 * 0.4 * p ** 0.4)))
    worst = np.partition(pnl, [k - 1 - width, k - 1 + width])
    spacing = float(worst[k - 1 + width] - worst[k - 1 - width])
    return math.sqrt(p * level / n) * spacing * n / (2.0 * width)


def summary(pnl: np.ndarray, level: float) -> dict[str, float]:
    """Return VaR, ES and the standard error of VaR of simulated P&L."""
    return {"var": quantile_loss(pnl, level), "es": expected_shortfall(pnl, level),
            "standard_error": standard_error(pnl, level)}
