"""Ladder lines: the accounts of one book in one instrument, added up in one pass over the position matrix."""

from __future__ import annotations

import numpy as np

from models import rollup as ru
from models.jit import kernel

#: columns of a line: quantity, net, unrealised and realised P&L in its currency, unpriced, stale, fees, latest trade,
#: cash Greeks, and how many of its positions have none
QUANTITY, NET, UNREALISED, REALISED, UNPRICED, STALE, FEES, LATEST, DELTA = range(9)
NO_GREEKS = DELTA + 5
COLUMNS = NO_GREEKS + 1


@kernel
def ladder_lines(rows: np.ndarray, count: int, own: np.ndarray, contribution: np.ndarray, group: np.ndarray,
                 trade_t: np.ndarray, out: np.ndarray) -> None:
    """Add live rows up by line.

    Parameters
    ----------
    own : float64[rows, 3], figures in the instrument's own currency; the last one is unrealised P&L
    contribution : float64[rows, metrics], in the firm's base currency
    group : int64[rows], line by row; -1: none
    trade_t : int64[rows], ms, when the last trade reached the broker
    out : float64[lines, COLUMNS], zeroed here; unrealised P&L leaves out what is unpriced
    """
    out[:] = 0.0
    for r in range(count):
        g = group[r]
        if rows[r].live == 0 or g < 0:
            continue
        line, c = out[g], contribution[r]
        line[QUANTITY] += rows[r].quantity
        line[NET] += c[ru.NET]
        if c[ru.UNPRICED] > 0.0:
            line[UNPRICED] += 1.0
        else:
            line[UNREALISED] += own[r, 2]
        if rows[r].realised_pnl == rows[r].realised_pnl:
            line[REALISED] += rows[r].realised_pnl
        line[STALE] += c[ru.STALE]
        line[FEES] += c[ru.FEES]
        for k in range(5):
            line[DELTA + k] += c[ru.DELTA + k]
        line[NO_GREEKS] += c[ru.NO_GREEKS]
        line[LATEST] = max(line[LATEST], trade_t[r])
