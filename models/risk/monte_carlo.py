"""Monte Carlo VaR: factor draws with a fixed seed, shared by every node and every what-if (common random numbers)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from models.jit import allocating_kernel
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


@allocating_kernel
def _collect(pnl: np.ndarray, threshold: np.ndarray, keep: int, out: np.ndarray) -> None:
    """Fill the values of every row that are not above its threshold, then infinity.

    A row where these are too few, or too many, begins with NaN.
    """
    n = pnl.shape[1]
    found = np.empty(n + 1, pnl.dtype)
    for r in range(pnl.shape[0]):
        count = 0
        for i in range(n):  # every value is written, the place moves on behind those that count: no branches
            found[count] = pnl[r, i]
            count += not pnl[r, i] > threshold[r]
        out[r, :] = np.inf
        if keep <= count <= out.shape[1]:
            out[r, :count] = found[:count]
        else:
            out[r, 0] = np.nan


def path_tails(pnl: np.ndarray, keep: int) -> np.ndarray:
    """Return the ``keep`` worst values of every row, ascending: [rows, keep].

    A threshold from a sample says which values to look at; only those are sorted.
    """
    n = pnl.shape[1]
    sample = np.sort(pnl[:, :: max(n // 250, 1)], axis=1)
    at = min(int(sample.shape[1] * keep / n * 1.6) + 3, sample.shape[1] - 1)
    found = np.empty((len(pnl), min(n, 4 * keep + 64)), pnl.dtype)
    _collect(pnl, np.ascontiguousarray(sample[:, at]), keep, found)
    for r in np.flatnonzero(np.isnan(found[:, 0])).tolist():
        found[r, :keep] = np.sort(pnl[r])[:keep]
    return np.sort(found, axis=1)[:, :keep]


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
