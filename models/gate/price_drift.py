"""How far the reference price of an instrument has moved within a window: its lowest and highest, in buckets of time.

The window is kept in 16 buckets, each a 15th of it: all that lies within it counts, and what is older by less than one
bucket may.
"""

from __future__ import annotations

import math

import numpy as np

from models.jit import kernel

BUCKETS = 16
DRIFT_WINDOW_NS = 300_000_000_000


@kernel
def follow(low: np.ndarray, high: np.ndarray, stamp: np.ndarray, window_ns: int, ts_ns: int, price: float,
           out: np.ndarray) -> None:
    """Take a price in; fill ``out`` with the lowest and the highest of the window that ends with it.

    Parameters
    ----------
    low, high, stamp : float64[BUCKETS], float64[BUCKETS], int64[BUCKETS] of one instrument
    """
    now = ts_ns // ((window_ns + BUCKETS - 2) // (BUCKETS - 1))
    k = now % BUCKETS
    if stamp[k] < now:
        stamp[k], low[k], high[k] = now, price, price
    elif stamp[k] == now:
        low[k], high[k] = min(low[k], price), max(high[k], price)
    out[0], out[1] = price, price
    for b in range(BUCKETS):
        if now - BUCKETS < stamp[b] <= now:
            out[0], out[1] = min(out[0], low[b]), max(out[1], high[b])


class PriceDrift:
    """The windows of all instruments; one that nobody limits costs nothing."""

    def __init__(self, instruments: int) -> None:
        self.window_ns = np.full(instruments, DRIFT_WINDOW_NS)
        self._low, self._high = np.full((2, instruments, BUCKETS), math.nan)
        self._stamp = np.full((instruments, BUCKETS), -1)
        self._held_ns = self.window_ns.copy()
        self._out = np.zeros(2)

    def follow(self, k: int, price: float, ts_ns: int) -> tuple[float, float]:
        """Take a price of an instrument in; return the lowest and the highest within its window."""
        if self._held_ns[k] != self.window_ns[k]:  # of another length: buckets begin anew
            self._held_ns[k], self._stamp[k] = self.window_ns[k], -1
        follow(self._low[k], self._high[k], self._stamp[k], int(self.window_ns[k]), ts_ns, price, self._out)
        return float(self._out[0]), float(self._out[1])

    def forget(self, k: int, until_ns: int) -> None:
        """Forget an instrument's buckets up to the one of a time: what they hold is in other units."""
        length = (int(self.window_ns[k]) + BUCKETS - 2) // (BUCKETS - 1)
        self._stamp[k][self._stamp[k] <= until_ns // length] = -1

    def kept(self, k: int) -> list[tuple[int, float, float]]:
        """Return (stamp, lowest, highest) of an instrument's buckets within its window, the newest last."""
        if self._held_ns[k] != self.window_ns[k]:
            return []
        stamps, low, high = (column[k].tolist() for column in (self._stamp, self._low, self._high))
        newest = max(stamps)
        return sorted(x for x in zip(stamps, low, high, strict=True) if 0 <= x[0] > newest - BUCKETS)

    def put(self, k: int, window_ns: int, kept: list[tuple[int, float, float]]) -> tuple[float, float] | None:
        """Take in what was kept of an instrument's window; return its lowest and highest then.

        None: it was of a window of another length, or there is nothing within it.
        """
        if window_ns != self.window_ns[k]:
            return None
        if self._held_ns[k] != window_ns:
            self._held_ns[k], self._stamp[k] = window_ns, -1
        for stamp, low, high in kept:
            b = stamp % BUCKETS
            if self._stamp[k, b] < stamp:
                self._stamp[k, b], self._low[k, b], self._high[k, b] = stamp, low, high
            elif self._stamp[k, b] == stamp:
                self._low[k, b], self._high[k, b] = min(self._low[k, b], low), max(self._high[k, b], high)
        now = self.kept(k)
        return (min(x[1] for x in now), max(x[2] for x in now)) if now else None
