"""Figures of every node in one pass: what the models take from grids of (node, instrument) and scenario vectors."""

from __future__ import annotations

import numpy as np

from models.jit import allocating_kernel, inline_kernel, kernel
from models.risk.node_cells import Held

#: so many of the worst scenarios hold any tail that is asked for here; a node that needs more is sorted whole
TAIL_KEPT = 64
#: columns of `liquidity_nodes`: shares of gross value by days to leave, then days, cost, and what is not known
WITHIN_1, WITHIN_5, WITHIN_20, BEYOND, UNKNOWN, DAYS_MAX, COST, MISSING, GROSS = range(9)
BUCKET_NAMES = ("within_1d", "within_5d", "within_20d", "beyond", "unknown")


@inline_kernel
def worst_places(vector: np.ndarray, k: int, values: np.ndarray, at: np.ndarray) -> None:
    """Fill the k smallest values of a vector, ascending, and where they are; equal ones in their order."""
    count = 0
    for i in range(vector.shape[0]):
        x = vector[i]
        if count == k and not x < values[k - 1]:
            continue
        j = count if count < k else k - 1
        while j > 0 and values[j - 1] > x:
            values[j], at[j] = values[j - 1], at[j - 1]
            j -= 1
        values[j], at[j] = x, i
        if count < k:
            count += 1


@kernel
def turn(unit: np.ndarray, out: np.ndarray) -> None:
    """Fill ``out`` with unit vectors by scenario, nothing in place of those that are missing.

    Parameters
    ----------
    unit : float64[at least instruments, scenarios]
    out : float64[scenarios, instruments]
    """
    for begin in range(0, out.shape[1], 8):  # what eight instruments have in a scenario is one line of the cache
        end = min(begin + 8, out.shape[1])
        for s in range(out.shape[0]):
            for i in range(begin, end):
                out[s, i] = unit[i, s] if unit[i, 0] == unit[i, 0] else 0.0


@allocating_kernel
def var_components(vectors: np.ndarray, nodes: np.ndarray, rank: int, var: np.ndarray, quantity: np.ndarray,
                   of: Held, by_scenario: np.ndarray, out: np.ndarray) -> None:
    """Fill each instrument's part of each node's VaR; the parts of a node sum to it.

    The estimator is the mean P&L over the scenarios around the VaR scenario (two ranks either side), scaled to VaR.

    Parameters
    ----------
    vectors : float64[all nodes, scenarios], P&L
    nodes : rows of ``vectors`` and ``var``
    rank : of the VaR scenario, 1: the worst
    var : float64[all nodes], positive
    quantity, out : float64[held]
    of : which instruments each of ``nodes`` holds
    by_scenario : float64[scenarios, instruments], P&L of one unit
    """
    first, last = max(rank - 3, 0), min(rank + 2, vectors.shape[1])
    values, at = np.empty(last), np.empty(last, np.int64)
    for w in range(nodes.shape[0]):
        worst_places(vectors[nodes[w]], last, values, at)
        total = 0.0
        for h in range(of.start[w], of.start[w + 1]):
            mine = 0.0
            for r in range(first, last):
                mine += by_scenario[at[r], of.columns[h]]
            out[h] = mine * quantity[h]
            total += out[h]
        scale = var[nodes[w]] / total if total != 0.0 else 0.0
        for h in range(of.start[w], of.start[w + 1]):
            out[h] *= scale


@allocating_kernel
def aged_tails(vectors: np.ndarray, nodes: np.ndarray, weights: np.ndarray, p: float, out: np.ndarray) -> None:
    """Fill (VaR, ES) of weighted vectors by the rule of `quantile.weighted_tail`: float64[len(nodes), 2]."""
    n = vectors.shape[1]
    kept = min(TAIL_KEPT, n)
    values, at = np.empty(kept), np.empty(kept, np.int64)
    for w in range(nodes.shape[0]):
        worst_places(vectors[nodes[w]], kept, values, at)
        total = 0.0
        for k in range(kept):
            total += weights[at[k]]
        order, losses = at, values
        if total - 0.5 * weights[at[kept - 1]] <= p and kept < n:
            order = np.argsort(vectors[nodes[w]], kind="mergesort")
            losses = vectors[nodes[w]][order]
        # the quantile is flat up to the middle of the first weight, then linear from middle to middle
        before, middle_before, lost = 0.0, 0.0, 0.0
        var, upper = -losses[0], 0.0
        for k in range(order.shape[0]):
            middle = before + 0.5 * weights[order[k]]
            upper = min(middle, p)
            loss_before = var
            if k > 0:
                share = (upper - middle_before) / (middle - middle_before)
                var = -(losses[k - 1] + (losses[k] - losses[k - 1]) * share)
            lost += 0.5 * (loss_before + var) * (upper - middle_before)
            before += weights[order[k]]
            middle_before = middle
            if middle >= p:
                break
        lost += var * (p - upper)
        out[w, 0], out[w, 1] = var, lost / p


@allocating_kernel
def mean_of_worst(vectors: np.ndarray, k: int, out: np.ndarray) -> None:
    """Fill the mean of the k smallest values of every row."""
    values, at = np.empty(k), np.empty(k, np.int64)
    for r in range(vectors.shape[0]):
        worst_places(vectors[r], k, values, at)
        out[r] = values.mean()


@kernel
def liquidity_nodes(quantity: np.ndarray, net: np.ndarray, of: Held, adv: np.ndarray, spread: np.ndarray,
                    participation: float, out: np.ndarray) -> None:
    """Fill what it takes to leave every node: float64[nodes, 9], see the names of the columns.

    Parameters
    ----------
    quantity, net : float64[held]
    of : which instruments a node holds
    adv, spread : by instrument; average daily volume, relative bid-ask spread; NaN: unknown
    participation : share of the daily volume that leaving may take
    """
    out[:] = 0.0
    for n in range(out.shape[0]):
        row, longest = out[n], np.nan
        for h in range(of.start[n], of.start[n + 1]):
            i, q = of.columns[h], quantity[h]
            if q == 0.0:
                continue
            size = abs(net[h])
            row[GROSS] += size
            if spread[i] == spread[i]:
                row[COST] += 0.5 * spread[i] * size
            else:
                row[MISSING] += 1.0
            if not adv[i] > 0.0:
                row[UNKNOWN] += size
                row[MISSING] += 1.0
                continue
            days = abs(q) / (adv[i] * participation)
            if not days <= longest:
                longest = days
            if days <= 1.0:
                row[WITHIN_1] += size
            elif days <= 5.0:
                row[WITHIN_5] += size
            elif days <= 20.0:
                row[WITHIN_20] += size
            else:
                row[BEYOND] += size
        row[DAYS_MAX] = longest
        if row[GROSS] > 0.0:
            for k in range(UNKNOWN + 1):
                row[k] /= row[GROSS]


@allocating_kernel
def exposures_by_underlying(delta: np.ndarray, gross: np.ndarray, of: Held, underlying: np.ndarray, cash: np.ndarray,
                            out: np.ndarray) -> None:
    """Fill (sum of absolute net deltas by underlying, gross delta) of every node, cash left out: float64[nodes, 2]."""
    net = np.zeros(underlying.shape[0])
    for n in range(out.shape[0]):
        out[n, 0], out[n, 1] = 0.0, 0.0
        for h in range(of.start[n], of.start[n + 1]):
            i = of.columns[h]
            if not cash[i]:
                net[underlying[i]] += delta[h]
                out[n, 1] += gross[h]
        for h in range(of.start[n], of.start[n + 1]):  # each underlying once
            u = underlying[of.columns[h]]
            out[n, 0] += abs(net[u])
            net[u] = 0.0
