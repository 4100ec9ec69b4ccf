"""Drawdowns, return statistics, regressions: of equity curves and of series of simple returns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.jit import kernel

#: what is smaller than this part of the numbers it is the rest of is rounding
ROUNDING = 1e-12


def varies(values: np.ndarray) -> bool:
    """Whether numbers differ by more than rounding."""
    return len(values) > 1 and float(np.ptp(values)) > ROUNDING * float(np.abs(values).max())


def ruin(returns: np.ndarray) -> int | None:
    """Return the first return after which no wealth exists: one below -100 %, or any after a loss of all."""
    bad = returns < -1.0
    bad[1:] |= np.maximum.accumulate(returns <= -1.0)[:-1]
    return int(bad.argmax()) if bad.any() else None


def wealth(returns: np.ndarray) -> np.ndarray:
    """Return compounded wealth, starting with 1 before the first return."""
    return np.concatenate([[1.0], np.cumprod(1.0 + returns)])


def max_drawdown(values: np.ndarray) -> float:
    """Return the deepest fall from a peak as a negative fraction (0 where there is none)."""
    if not len(values):
        raise ValueError("values: expected at least one number")
    peak = np.maximum.accumulate(values)
    return float((values / peak - 1.0).min())


@dataclass(frozen=True)
class Episode:
    """One drawdown: indices of the first period below the peak, the deepest, the first back at it (or None)."""

    start: int
    trough: int
    end: int | None
    depth: float
    length: int
    to_trough: int
    recovery: int | None


def drawdown_episodes(returns: np.ndarray) -> list[Episode]:
    """Return every drawdown of a return series, the deepest first; lengths count periods inclusively."""
    return episodes_of(wealth(returns)[1:], 1.0)


def episodes_of(level: np.ndarray, before: float) -> list[Episode]:
    """Return every drawdown of a series of values, the deepest first; its indices are those of the values.

    Parameters
    ----------
    before : the first peak: what there was before the first value
    """
    peak = np.maximum.accumulate(np.concatenate([[before], level]))[1:]
    below = level / peak - 1.0
    found: list[Episode] = []
    i, n = 0, len(level)
    while i < n:
        if below[i] >= 0.0:
            i += 1
            continue
        j = i
        while j < n and below[j] < 0.0:
            j += 1
        trough = i + int(np.argmin(below[i:j]))
        end = j if j < n else None
        last = j if j < n else n - 1
        found.append(Episode(i, trough, end, float(below[trough]), last - i + 1, trough - i + 1,
                             None if end is None else end - trough))
        i = j
    return sorted(found, key=lambda e: e.depth)


def longest_recovery(equity: np.ndarray) -> int:
    """Return the most periods from a peak to the first period back at or above it; open drawdowns do not count."""
    peak_at, longest = 0, 0
    for i in range(1, len(equity)):
        if equity[i] >= equity[peak_at]:
            if i - peak_at > 1:
                longest = max(longest, i - peak_at)
            peak_at = i
    return longest


def deviation(returns: np.ndarray) -> float:
    """Return the sample standard deviation; NaN of one return."""
    return float(returns.std(ddof=1)) if len(returns) > 1 else math.nan


def annual_volatility(returns: np.ndarray, periods: float) -> float:
    """Return the sample standard deviation times the root of periods a year."""
    return deviation(returns) * math.sqrt(periods)


def downside_deviation(returns: np.ndarray, mar: float = 0.0) -> float:
    """Return the root mean square of what falls short of a minimum acceptable return, a period."""
    return math.sqrt(float((np.minimum(returns - mar, 0.0) ** 2).mean()))


def semi_deviation(returns: np.ndarray) -> float:
    """Return the root mean square of what falls short of the mean."""
    return downside_deviation(returns, float(returns.mean()))


def sharpe(returns: np.ndarray, periods: float, risk_free: float = 0.0) -> float:
    """Return annualised mean excess return over its sample deviation; NaN where returns do not vary."""
    if not varies(returns):
        return math.nan
    return float((returns - risk_free).mean()) / deviation(returns) * math.sqrt(periods)


def sortino(returns: np.ndarray, periods: float, mar: float = 0.0) -> float:
    """Return annualised mean excess return over annualised downside deviation; NaN where none falls short of it."""
    short = mar - float(returns.min())
    if not short > ROUNDING * max(abs(mar), float(np.abs(returns).max())):
        return math.nan
    return float((returns - mar).mean()) * periods / (downside_deviation(returns, mar) * math.sqrt(periods))


def annual_return(returns: np.ndarray, periods: float) -> float:
    """Return the geometric annual return; NaN where wealth falls below zero, or returns follow a loss of all."""
    if ruin(returns) is not None:
        return math.nan
    growth = float(np.log1p(returns).sum()) if returns.min() > -1.0 else -math.inf
    year = growth * periods / len(returns)
    return math.expm1(year) if year < 700.0 else math.inf


def paired(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both series without the periods in which either is missing."""
    both = np.isfinite(a) & np.isfinite(b)
    return a[both], b[both]


def beta(returns: np.ndarray, benchmark: np.ndarray) -> float:
    """Return cov(r, b) / var(b) over the periods both have; NaN where the benchmark does not vary."""
    r, b = paired(returns, benchmark)
    if not varies(b):
        return math.nan
    centred = b - b.mean()
    return float(centred @ (r - r.mean())) / float(centred @ centred)


def rolling(function: Any, window: int, *series: np.ndarray) -> np.ndarray:
    """Return a function of every full window of the series."""
    n = len(series[0])
    return np.array([function(*(s[i: i + window] for s in series)) for i in range(n - window + 1)])


def regression(y: np.ndarray, x: np.ndarray, intercept: bool = True) -> dict[str, Any]:
    """Return an ordinary least squares fit with standard errors.

    Columns are centred (with an intercept) and scaled before they are decomposed, which keeps the digits that nearly
    collinear columns would cost.

    Returns
    -------
    dict
        ``coefficients`` in column order, ``intercept``, ``standard_errors`` (intercept last), ``t_values``,
        ``r_squared``, ``residual_sd``, ``degrees_of_freedom``
    """
    y, x = np.asarray(y, float), np.asarray(x, float)
    if x.ndim == 1:
        x = x[:, None]
    n, k = x.shape
    shift = x.mean(axis=0) if intercept else np.zeros(k)
    y_shift = float(y.mean()) if intercept else 0.0
    centred = x - shift
    scale = np.sqrt((centred ** 2).sum(axis=0))
    constant = scale <= ROUNDING * np.sqrt((x ** 2).sum(axis=0))
    if n <= k + intercept or constant.any():
        raise ValueError(f"x: expected more rows than columns and no constant column, was {n} x {k}")
    q, r = np.linalg.qr(centred / scale)
    if np.abs(np.diag(r)).min() <= ROUNDING:
        raise ValueError(f"x: expected columns that are linearly independent, was {n} x {k}")
    solved = np.linalg.solve(r, q.T @ (y - y_shift))
    coefficients = solved / scale
    offset = y_shift - float(shift @ coefficients) if intercept else 0.0
    residual = y - y_shift - centred @ coefficients
    freedom = n - k - int(intercept)
    variance = float(residual @ residual) / freedom
    inverse = np.linalg.inv(r)
    cov = inverse @ inverse.T / np.outer(scale, scale) * variance
    errors = np.sqrt(np.diag(cov))
    if intercept:
        errors = np.append(errors, math.sqrt(variance / n + float(shift @ cov @ shift)))
    total = float(((y - y_shift) ** 2).sum())
    all_coefficients = np.append(coefficients, offset) if intercept else coefficients
    with np.errstate(divide="ignore", invalid="ignore"):  # an exact fit has no t-values
        t_values = all_coefficients / errors
    r_squared = 1.0 - float(residual @ residual) / total if varies(y) or (total and not intercept) else math.nan
    return {"coefficients": coefficients, "intercept": offset, "standard_errors": errors,
            "t_values": t_values, "r_squared": r_squared,
            "residual_sd": math.sqrt(variance), "residual_sum_squares": float(residual @ residual),
            "degrees_of_freedom": freedom}


@kernel
def update_drawdown(value: np.ndarray, flow: np.ndarray, which: np.ndarray, t_ns: int, day_ns: int,
                    state: np.ndarray) -> None:
    """Move live drawdown states on by one observation.

    Parameters
    ----------
    value : float64[nodes], equity now (start capital plus P&L), in the node's currency; NaN leaves the state alone
    flow : float64[nodes], money paid in since the last observation: it moves the peaks, not the drawdown
    which : nodes to do
    day_ns : start of the running day
    state : float64[nodes, 8]: peak, its time, worst drawdown ever, intraday peak, start of that day, worst of the
        day, current drawdown, 1 once started
    """
    for w in range(which.shape[0]):
        i = which[w]
        v = value[i]
        if v != v:
            continue
        s = state[i]
        if s[7] == 0.0:
            s[0], s[1], s[3], s[4], s[7] = v, t_ns, v, day_ns, 1.0
        s[0] += flow[i]
        s[3] += flow[i]
        if s[4] != day_ns:
            s[3], s[4], s[5] = v, day_ns, 0.0
        if v >= s[0]:
            s[0], s[1] = v, t_ns
        s[3] = max(s[3], v)
        s[6] = v / s[0] - 1.0 if s[0] > 0.0 else np.nan
        if s[6] == s[6]:
            s[2] = min(s[2], s[6])
        day = v / s[3] - 1.0 if s[3] > 0.0 else np.nan
        if day == day:
            s[5] = min(s[5], day)
