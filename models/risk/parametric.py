"""VaR from moments: Gaussian, modified (Cornish-Fisher), delta-gamma-normal, and its components."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

_N = NormalDist()


def z_of(level: float) -> float:
    """Return the normal quantile of a confidence level (0.99 gives 2.326)."""
    return _N.inv_cdf(level)


def gaussian(mean: float, sd: float, level: float) -> tuple[float, float]:
    """Return (VaR, ES) as positive losses."""
    z = z_of(level)
    return -mean + z * sd, -mean + sd * math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi) / (1.0 - level)


def sample_moments(returns: np.ndarray) -> tuple[float, float, float]:
    """Return population standard deviation, skewness and excess kurtosis."""
    centred = returns - returns.mean()
    variance = float((centred ** 2).mean())
    if variance == 0.0:
        return 0.0, 0.0, 0.0
    sd = math.sqrt(variance)
    return sd, float((centred ** 3).mean()) / sd ** 3, float((centred ** 4).mean()) / variance ** 2 - 3.0


def cornish_fisher(z: float, skew: float, excess_kurtosis: float) -> float:
    """Return a normal quantile corrected for skewness and kurtosis."""
    return (z + (z * z - 1.0) * skew / 6.0 + (z ** 3 - 3.0 * z) * excess_kurtosis / 24.0
            - (2.0 * z ** 3 - 5.0 * z) * skew * skew / 36.0)


def cornish_fisher_slope(low: float, high: float, skew: float, excess_kurtosis: float) -> float:
    """Return the least derivative of the corrected quantile to the normal one, over the tails of two levels.

    Where it is not above 0 a higher level has a smaller loss: the moments are outside the domain of the correction.
    """
    near, far = _N.inv_cdf(1.0 - low), _N.inv_cdf(1.0 - high)
    a = excess_kurtosis / 8.0 - skew * skew / 6.0
    b, c = skew / 3.0, 1.0 - excess_kurtosis / 8.0 + 5.0 * skew * skew / 36.0
    turn = -b / (2.0 * a) if a > 0.0 else near
    return min(a * z * z + b * z + c for z in (near, far, min(max(turn, far), near)))


def modified(returns: np.ndarray, level: float) -> float:
    """Return the modified VaR of simple returns, a positive loss."""
    sd, skew, kurtosis = sample_moments(returns)
    return -(float(returns.mean()) + cornish_fisher(_N.inv_cdf(1.0 - level), skew, kurtosis) * sd)


def delta_gamma(delta: np.ndarray, gamma: np.ndarray | None, covariance: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation of delta-gamma-normal P&L.

    Parameters
    ----------
    delta, gamma : P&L per unit of each factor and, second order, per product of two (None: delta-normal)
    covariance : of the factor moves in the same units
    """
    variance = float(delta @ covariance @ delta)
    if gamma is None:
        return 0.0, math.sqrt(max(variance, 0.0))
    gc = gamma @ covariance
    return 0.5 * float(np.trace(gc)), math.sqrt(max(variance + 0.5 * float((gc * gc.T).sum()), 0.0))


def _volatility(values: np.ndarray, covariance: np.ndarray) -> float:
    """Return the deviation of a portfolio; what is rounding beside the terms that cancel in it is none."""
    terms = covariance * np.outer(values, values)
    variance = float(values @ covariance @ values)
    return math.sqrt(variance) if variance > 1e-14 * float(np.abs(terms).sum()) else 0.0


def components(values: np.ndarray, covariance: np.ndarray, z: float) -> dict[str, np.ndarray | float]:
    """Return the VaR of linear positions and how it divides.

    Parameters
    ----------
    values : market value of each position
    covariance : of returns

    Returns
    -------
    dict
        ``portfolio``; per position ``individual`` (alone), ``marginal`` (dVaR/dvalue, NaN where nothing varies),
        ``component`` (value times marginal, sums to the portfolio) and ``incremental`` (portfolio less portfolio
        without it).
    """
    volatility = _volatility(values, covariance)
    marginal = z * (covariance @ values) / volatility if volatility > 0.0 else np.full(len(values), math.nan)
    incremental = np.empty(len(values))
    for i in range(len(values)):
        without = values.copy()
        without[i] = 0.0
        incremental[i] = z * (volatility - _volatility(without, covariance))
    return {"portfolio": z * volatility, "individual": z * np.abs(values) * np.sqrt(np.diag(covariance)),
            "marginal": marginal, "component": values * marginal, "incremental": incremental}


def salvaged(covariance: np.ndarray) -> np.ndarray:
    """Return the nearest covariance with no negative eigenvalue that keeps the variances (spectral salvage)."""
    sd = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    safe = np.where(sd > 0.0, sd, 1.0)
    correlation = covariance / np.outer(safe, safe)
    values, vectors = np.linalg.eigh(0.5 * (correlation + correlation.T))
    if values.min() >= 0.0:
        return covariance
    fixed = (vectors * np.maximum(values, 0.0)) @ vectors.T
    scale = np.sqrt(np.maximum(np.diag(fixed), 1e-300))
    return fixed / np.outer(scale, scale) * np.outer(sd, sd)


def factor_root(covariance: np.ndarray) -> np.ndarray:
    """Return A with A A' = covariance, also where it is only semi-definite."""
    values, vectors = np.linalg.eigh(salvaged(covariance))
    return vectors * np.sqrt(np.maximum(values, 0.0))
