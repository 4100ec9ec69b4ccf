"""Order statistics of P&L vectors: which rank a confidence level means, exactly, and what lies beyond it.

Confidence levels are taken as decimal fractions (975 of 1000), never as 1 - 0.975 in doubles: in binary that
difference is a hair too large or too small and moves the rank by one.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import numpy as np

from models.jit import allocating_kernel, inline_kernel

#: every so-manieth value is looked at first
SAMPLED = 8

#: quantile rules, by name; "default" is the (floor(n(1-a)) + 1)-th worst loss
RULES = ("default", "ceil", "linear", "midpoint", "sample", "excel", "exclusive", "centred")


def tail_count(n: int, level: float | str | Decimal) -> Decimal:
    """Return n(1 - level) exactly, the level read as it is printed (0.99 is 99/100)."""
    p = 1 - Decimal(str(level))
    if not 0 < p < 1:
        raise ValueError(f"level: expected between 0 and 1, was {level!r}")
    return n * p


def worst_rank(n: int, level: float | str | Decimal) -> int:
    """Return the rank of the default rule: with 500 values and 0.99 the 6th worst loss."""
    return min(int(tail_count(n, level).to_integral_value(ROUND_FLOOR)) + 1, n)


def quantile_loss(pnl: np.ndarray, level: float | str | Decimal, rule: str = "default") -> float:
    """Return the VaR of a P&L vector as a positive loss.

    Parameters
    ----------
    pnl : one number a scenario, gains positive
    rule : ``default``: (floor(n(1-a))+1)-th worst; ``ceil``: ceil(n(1-a))-th worst (lower empirical quantile);
        ``linear``: Hyndman-Fan 7, rank 1+(n-1)(1-a), the default of NumPy, R and ClickHouse's inclusive quantile;
        ``excel``: the same; ``sample``: Hyndman-Fan 4, rank n(1-a); ``midpoint`` and ``centred``: Hyndman-Fan 5,
        rank n(1-a)+1/2; ``exclusive``: Hyndman-Fan 6, rank (n+1)(1-a)

    Raises
    ------
    ValueError
        The vector is empty or not finite, or the rule or level is none of those that exist.
    """
    losses = sorted_losses(pnl)
    n = len(losses)
    if rule == "default":
        return float(losses[worst_rank(n, level) - 1])
    at = tail_count(n, level)
    if rule == "ceil":
        return float(losses[max(int(at.to_integral_value(ROUND_CEILING)), 1) - 1])
    p = at / n
    if rule in ("linear", "excel"):
        rank = 1 + (n - 1) * p
    elif rule == "sample":
        rank = at
    elif rule in ("midpoint", "centred"):
        rank = at + Decimal("0.5")
    elif rule == "exclusive":
        rank = (n + 1) * p
    else:
        raise ValueError(f"rule: expected one of {', '.join(RULES)}, was {rule!r}")
    rank = min(max(rank, Decimal(1)), Decimal(n))
    low = int(rank)
    share = float(rank - low)
    if low >= n:
        return float(losses[n - 1])
    return float(losses[low - 1] + share * (losses[low] - losses[low - 1]))


def expected_shortfall(pnl: np.ndarray, level: float | str | Decimal, rule: str = "fractional") -> float:
    """Return the mean loss of the tail, positive.

    Parameters
    ----------
    rule : ``fractional``: the worst n(1-a) with a fractional last weight; ``ceil``: the ceil(n(1-a)) worst, equally;
        ``beyond_linear``: all losses at or beyond the linear-interpolated VaR
    """
    losses = sorted_losses(pnl)
    at = tail_count(len(losses), level)
    if rule == "beyond_linear":
        var = quantile_loss(pnl, level, "linear")
        return float(losses[losses >= var].mean())
    if rule == "ceil":
        return float(losses[: max(int(at.to_integral_value(ROUND_CEILING)), 1)].mean())
    if rule != "fractional":
        raise ValueError(f"es_rule: expected fractional, ceil or beyond_linear, was {rule!r}")
    if at < 1:
        return float(losses[0])
    whole = int(at)
    rest = float(at - whole)
    total = float(losses[:whole].sum()) + (rest * float(losses[whole]) if rest else 0.0)
    return total / float(at)


def sorted_losses(pnl: np.ndarray) -> np.ndarray:
    """Return losses, the worst first."""
    vector = np.asarray(pnl, np.float64)
    if vector.ndim != 1 or not len(vector):
        raise ValueError(f"pnl: expected at least one number, was {vector.shape}")
    if not np.isfinite(vector).all():
        raise ValueError(f"pnl: expected finite numbers, was {vector[~np.isfinite(vector)][0]!r}")
    return np.sort(-vector)[::-1]


def age_weights(n: int, decay: float) -> np.ndarray:
    """Return weights of n scenarios, the newest first, that sum to one: (1-l) l^(i-1) / (1-l^n)."""
    if not 0.0 < decay <= 1.0:
        raise ValueError(f"decay: expected above 0 and at most 1, was {decay!r}")
    weights = decay ** np.arange(n)
    return weights / weights.sum()


def weighted_tail(pnl: np.ndarray, weights: np.ndarray, level: float | str | Decimal) -> tuple[float, float]:
    """Return (VaR, ES) of a weighted P&L vector.

    Losses are sorted and their weights added up, each loss at the middle of its weight; the quantile is linear between
    the two losses around a probability, flat beyond. VaR is the quantile at the tail probability, ES the mean of the
    same quantile over the tail: it is never below VaR.
    """
    p = float(1 - Decimal(str(level)))
    order = np.argsort(pnl, kind="stable")
    losses, w = -pnl[order], weights[order]
    middle = np.cumsum(w) - 0.5 * w
    var = float(np.interp(p, middle, losses))
    inside = middle < p
    at = np.concatenate([[0.0], middle[inside], [p]])
    quantile = np.concatenate([[losses[0]], losses[inside], [var]])
    return var, float(np.trapezoid(quantile, at)) / p


def volatility_scale(returns: np.ndarray, decay: float = 0.94) -> np.ndarray:
    """Return factor returns scaled to today's EWMA volatility (filtered historical simulation).

    Parameters
    ----------
    returns : float64[days, factors], the oldest first; every day is divided by the volatility known before it
    """
    variance = np.empty_like(returns)
    seed = np.maximum((returns ** 2).mean(axis=0), 1e-300)
    current = seed
    for i in range(len(returns)):
        variance[i] = current
        current = decay * current + (1.0 - decay) * returns[i] ** 2
    return returns * np.sqrt(current / variance)


@inline_kernel
def _keep_worst(values: np.ndarray, count: int, k: int, heap: np.ndarray) -> None:
    """Fill ``heap[:k]`` with the k smallest of the first ``count`` values, ascending."""
    for i in range(k):
        x = values[i]
        j = i
        while j > 0 and heap[j - 1] > x:
            heap[j] = heap[j - 1]
            j -= 1
        heap[j] = x
    limit = heap[k - 1]
    for i in range(k, count):
        x = values[i]
        if x < limit:
            j = k - 1
            while j > 0 and heap[j - 1] > x:
                heap[j] = heap[j - 1]
                j -= 1
            heap[j] = x
            limit = heap[k - 1]


@allocating_kernel
def worst_k(vector: np.ndarray, k: int, heap: np.ndarray) -> None:
    """Fill ``heap[:k]`` with the k smallest values of a vector, ascending.

    A threshold from every eighth value says which ones to look at; where they are too few, all are.
    """
    n = vector.shape[0]
    few = n // SAMPLED
    rank = int(1.5 * k * few / n) + 2
    if rank > few or rank > k:
        _keep_worst(vector, n, k, heap)
        return
    _keep_worst(vector[::SAMPLED], few, rank, heap)
    limit, count = heap[rank - 1], 0
    found = np.empty(n + 1)
    for i in range(n):  # every value is written, the place moves on behind those that count: no branches
        found[count] = vector[i]
        count += vector[i] <= limit
    if count < k:
        _keep_worst(vector, n, k, heap)
    else:
        _keep_worst(found, count, k, heap)


@allocating_kernel
def node_tails(vectors: np.ndarray, which: np.ndarray, ranks: np.ndarray, tails: np.ndarray, var: np.ndarray,
               es: np.ndarray) -> None:
    """Fill exact VaR and ES of nodes at several levels by keeping only the worst values.

    Parameters
    ----------
    vectors : float64[nodes, scenarios], P&L
    which : nodes to do
    ranks : int64[levels], the rank of each level's VaR (`worst_rank`)
    tails : float64[levels], n(1-a) of each level (`tail_count`)
    var, es : float64[nodes, levels], positive losses
    """
    most = 0
    for level in range(ranks.shape[0]):
        most = max(most, ranks[level], int(np.ceil(tails[level])))
    heap = np.empty(most)
    for w in range(which.shape[0]):
        node = which[w]
        worst_k(vectors[node], most, heap)
        for level in range(ranks.shape[0]):
            var[node, level] = -heap[ranks[level] - 1]
            tail = tails[level]
            if tail < 1.0:
                es[node, level] = -heap[0]
                continue
            whole = int(tail)
            total = 0.0
            for i in range(whole):
                total += heap[i]
            if tail > whole:
                total += (tail - whole) * heap[whole]
            es[node, level] = -total / tail
