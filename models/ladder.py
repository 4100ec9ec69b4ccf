"""Ladder lines: the accounts of one book in one instrument, added up from the position matrix."""

from __future__ import annotations

import numpy as np

from models import rollup as ru
from models.columns import grown
from models.jit import kernel

#: columns of a line: quantity, net, unrealised and realised P&L in its currency, unpriced, stale, fees, latest trade,
#: cash Greeks, how many of its positions have none, their average price, the price they are valued
#: at (both NaN where unknown), and how many rows there are
QUANTITY, NET, UNREALISED, REALISED, UNPRICED, STALE, FEES, LATEST, DELTA = range(9)
NO_GREEKS = DELTA + 5
AVERAGE, PRICE, ROWS = range(NO_GREEKS + 1, NO_GREEKS + 4)
COLUMNS = ROWS + 1


class LadderLines:
    """Which rows of a matrix make which line, and what each line comes to."""

    def __init__(self) -> None:
        #: float64[>= count, COLUMNS]; a line that was never added up is NaN
        self.values = np.full((64, COLUMNS), np.nan)
        self.count = 0
        #: ms, by row, when the last trade reached the broker
        self.trade_t = np.zeros(1024, np.int64)
        self._line_of = np.full(1024, -1, np.int64)
        self._left: set[int] = set()
        self._order: np.ndarray | None = None
        self._start = np.zeros(1, np.int64)

    def put(self, row: int, line: int, trade_t: int) -> None:
        """Put a row into a line; lines are numbered from 0 in the order they come."""
        if row >= len(self._line_of):
            self._line_of, self.trade_t = grown(self._line_of, 2 * row, -1), grown(self.trade_t, 2 * row)
        before = int(self._line_of[row])
        if before != line:
            self._left.add(before)
            self._line_of[row], self._order = line, None
        self.count = max(self.count, line + 1)
        if line >= len(self.values):
            self.values = grown(self.values, 2 * line, np.nan)
        self.trade_t[row] = trade_t

    def line_of(self, row: int) -> int:
        """Return the line that a row lies in."""
        return int(self._line_of[row])

    def add_up(self, rows: np.ndarray, rollup: ru.RollUp) -> tuple[np.ndarray, np.ndarray]:
        """Add up the lines of rows that have changed.

        Returns
        -------
        (int64[n], bool[n])
            The lines that are not what they were, and whether a trade did that
        """
        if self._order is None:
            line_of = self._line_of[: rollup.count]
            self._order = np.argsort(line_of, kind="stable")
            self._start = np.searchsorted(line_of[self._order], np.arange(self.count + 1))
        hit = np.zeros(self.count + 1, np.uint8)  # the last one: rows in no line
        hit[self._line_of[rows]] = 1
        hit[list(self._left)] = 1
        self._left.clear()
        which = np.flatnonzero(hit[:-1])
        new = np.empty((len(which), COLUMNS))
        ladder_lines(rollup.rows, rollup.own, rollup.contribution, self.trade_t, self._order, self._start, which, new)
        old = self.values[which]
        moved = ((new != old) & ~(np.isnan(new) & np.isnan(old))).any(axis=1)
        self.values[which] = new
        return which[moved], new[moved, LATEST] != old[moved, LATEST]


@kernel
def ladder_lines(rows: np.ndarray, own: np.ndarray, contribution: np.ndarray, trade_t: np.ndarray, order: np.ndarray,
                 start: np.ndarray, which: np.ndarray, out: np.ndarray) -> None:
    """Add live rows up by line.

    Parameters
    ----------
    own : float64[rows, 3], figures in the instrument's own currency; the last one is unrealised P&L
    contribution : float64[rows, metrics], in the firm's base currency
    trade_t : int64[rows], ms, when the last trade reached the broker
    order, start : rows line by line, and where each line's begin
    which : int64[n], lines
    out : float64[n, COLUMNS], zeroed here; unrealised P&L leaves out what is unpriced. It is NaN where a cost is
        unknown, as realised P&L is, and as fees are where one has no exchange rate
    """
    out[:] = 0.0
    for w in range(len(which)):
        first, spread, inverse = np.nan, 0.0, False
        out[w, PRICE] = np.nan
        for at in range(start[which[w]], start[which[w] + 1]):
            r = order[at]
            if rows[r].live == 0:
                continue
            out[w, ROWS] += 1.0
            out[w, PRICE] = own[r, 0]
            out[w, QUANTITY] += rows[r].quantity
            if rows[r].quantity != 0.0:
                # of an inverse contract the units of a unit of price are what adds up
                cost = 1.0 / rows[r].average_price if rows[r].inverse != 0 else rows[r].average_price
                if first != first:
                    first = cost
                spread += rows[r].quantity * (cost - first)
                inverse = rows[r].inverse != 0
            out[w, NET] += contribution[r, ru.NET]
            if contribution[r, ru.UNPRICED] > 0.0:
                out[w, UNPRICED] += 1.0
            else:
                out[w, UNREALISED] += own[r, 2]
            out[w, REALISED] += rows[r].realised_pnl
            out[w, STALE] += contribution[r, ru.STALE]
            out[w, FEES] += contribution[r, ru.FEES] if contribution[r, ru.COSTS_UNKNOWN] == 0.0 else np.nan
            for k in range(5):
                out[w, DELTA + k] += contribution[r, ru.DELTA + k]
            out[w, NO_GREEKS] += contribution[r, ru.NO_GREEKS]
            out[w, LATEST] = max(out[w, LATEST], trade_t[r])
        mean = first + spread / out[w, QUANTITY] if out[w, QUANTITY] != 0.0 else np.nan
        out[w, AVERAGE] = 1.0 / mean if inverse else mean
