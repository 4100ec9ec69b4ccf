"""Sums of a valued book by (node, instrument): what attribution, concentration, liquidity and leverage start from."""

from __future__ import annotations

import numpy as np

from models import rollup as ru
from models.jit import kernel

#: per row sums kept by node and instrument; the last one adds up absolute deltas, position by position
CELL = ("quantity", "net", "gross", "day", "unrealised", "delta", "gamma", "vega", "gross_delta")
CELL_METRICS = np.array([ru.NET, ru.GROSS, ru.DAY, ru.UNREALISED, ru.DELTA, ru.GAMMA, ru.VEGA])


@kernel
def cells(count: int, rows: np.ndarray, contribution: np.ndarray, ancestors: np.ndarray, place: np.ndarray,
          metrics: np.ndarray, chains: np.ndarray, out: np.ndarray) -> None:
    """Sum rows by (node, instrument): into their book, and from books into what lies above.

    Parameters
    ----------
    place : by node, its row in ``out``, -1: none
    chains : int64[books, levels], the place of every book and of the nodes above it
    out : float64[9, nodes, instruments], zeroed here
    """
    out[:] = 0.0
    for r in range(count):
        if rows[r].live == 0 or ancestors[r, 0] < 0:
            continue
        i, n = rows[r].instrument, place[ancestors[r, 0]]
        if contribution[r, ru.UNPRICED] == 0.0:
            out[0, n, i] += rows[r].quantity
        for m in range(metrics.shape[0]):
            out[m + 1, n, i] += contribution[r, metrics[m]]
        out[metrics.shape[0] + 1, n, i] += abs(contribution[r, ru.DELTA])
    for c in range(chains.shape[0]):
        for k in range(1, chains.shape[1]):
            n = chains[c, k]
            if n >= 0:
                for m in range(out.shape[0]):
                    for i in range(out.shape[2]):
                        out[m, n, i] += out[m, chains[c, 0], i]


@kernel
def group_shares(values: np.ndarray, group: np.ndarray, out: np.ndarray) -> None:
    """Fill each group's share of the gross of every row: float64[rows, groups + 1], the last one without a group."""
    last = out.shape[1] - 1
    for r in range(values.shape[0]):
        total = 0.0
        out[r, :] = 0.0
        for i in range(values.shape[1]):
            a = abs(values[r, i])
            total += a
            out[r, group[i] if group[i] >= 0 else last] += a
        if total > 0.0:
            for g in range(last + 1):
                out[r, g] /= total
