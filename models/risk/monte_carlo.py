"""Monte Carlo VaR: factor draws with a fixed seed, shared by every node and every what-if (common random numbers)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from models.jit import kernel
from models.risk.parametric import factor_root
from models.risk.quantile import tail_count, worst_rank


def factor_draws(covariance: np.ndarray, paths: int, seed: int) -> np.ndarray:
    """Return float64[paths, factors] of normal factor moves, in antithetic pairs, from a seed.

    The covariance is salvaged first (negative eigenvalues set to zero, variances kept).
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    half = (paths + 1) // 2
    normal = rng.standard_normal((half, len(covariance)))
    return np.asarray(np.concatenate([normal, -normal])[:paths] @ factor_root(covariance).T)


@kernel
def path_tails(pnl: np.ndarray, keep: int, out: np.ndarray) -> None:
    """Fill the ``keep`` worst values of every row, ascending: float64[rows, keep].

    A threshold from a sample says which values to look at; only those are sorted.
    """
    n = pnl.shape[1]
    stride = max(n // 500, 1)
    for r in range(pnl.shape[0]):
        sample = np.sort(pnl[r, ::stride])
        at = min(int(sample.shape[0] * keep / n * 1.6) + 2, sample.shape[0] - 1)
        found = np.empty(0, pnl.dtype)
        while True:
            threshold = sample[at]
            count = 0
            for i in range(n):
                count += pnl[r, i] <= threshold
            if count >= keep or at == sample.shape[0] - 1:
                found = np.empty(max(count, 1), pnl.dtype)
                k = 0
                for i in range(n):
                    if pnl[r, i] <= threshold:
                        found[k] = pnl[r, i]
                        k += 1
                break
            at = min(2 * at + 1, sample.shape[0] - 1)
        if found.shape[0] < keep:
            found = pnl[r].copy()
        found.sort()
        out[r, :] = found[:keep]


def tail_summary(worst: np.ndarray, paths: int, level: float) -> dict[str, Any]:
    """Return VaR, ES and standard error from the worst values of simulated P&L (see `path_tails`, `tail_size`).

    Parameters
    ----------
    worst : float64[..., values], ascending in the last axis; the figures have the shape of the others
    """
    k, width = worst_rank(paths, level), _width(paths, level)
    tail = float(tail_count(paths, level))
    whole = int(tail)
    total = worst[..., :whole].sum(axis=-1) + ((tail - whole) * worst[..., whole] if tail > whole else 0.0)
    spacing = worst[..., k - 1 + width] - worst[..., k - 1 - width]
    return {"var": -worst[..., k - 1], "es": -total / tail,
            "standard_error": math.sqrt((1.0 - level) * level / paths) * spacing * paths / (2.0 * width)}


def tail_size(paths: int, level: float) -> int:
    """Return how many of the worst values a summary needs."""
    return worst_rank(paths, level) + _width(paths, level)


def _width(paths: int, level: float) -> int:
    """Return the bandwidth of the density at the quantile, in ranks (Bofinger)."""
    return max(1, min(worst_rank(paths, level) - 1, int(paths ** 0.8 * 0.4 * (1.0 - level) ** 0.4)))


def summary(pnl: np.ndarray, level: float) -> dict[str, float]:
    """Return VaR, ES and the standard error of VaR of one vector of simulated P&L.

    The error is sqrt(a(1-a)/n) over the density at the quantile, estimated from the spacing of order statistics.
    """
    keep = tail_size(len(pnl), level)
    found = tail_summary(np.sort(np.partition(pnl, keep - 1)[:keep]), len(pnl), level)
    return {name: float(value) for name, value in found.items()}
