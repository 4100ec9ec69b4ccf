"""Premiums for early exercise, tabulated by moneyness: what American options are worth beyond European ones."""

from __future__ import annotations

import numpy as np

from models.jit import inline_kernel, kernel

#: an option's premium for early exercise is tabulated over these spots, relative to the strike
MONEYNESS = np.concatenate([np.linspace(0.3, 0.7, 5)[:-1], np.linspace(0.7, 1.3, 25), np.linspace(1.3, 2.0, 8)[1:]])


@inline_kernel
def premium_at(x: float, moneyness: np.ndarray, table: np.ndarray) -> float:
    """Return a tabulated early-exercise premium at a moneyness; linear, flat beyond the ends."""
    n = moneyness.shape[0]
    if x <= moneyness[0]:
        return table[0]
    if x >= moneyness[n - 1]:
        return table[n - 1]
    j = np.searchsorted(moneyness, x)
    share = (x - moneyness[j - 1]) / (moneyness[j] - moneyness[j - 1])
    return table[j - 1] + share * (table[j] - table[j - 1])


@kernel
def add_premiums(tables: np.ndarray, which: np.ndarray, table_t: np.ndarray, american: np.ndarray,
                 moneyness: np.ndarray, spot: np.ndarray, strike: np.ndarray, price: np.ndarray, delta: np.ndarray,
                 gamma: np.ndarray) -> None:
    """Add the early-exercise premium, its slope and its curvature to European prices, deltas and gammas."""
    h = 0.0125
    for j in range(which.shape[0]):
        k = which[j]
        if american[j] == 0 or table_t[k] != table_t[k]:
            continue
        x = spot[j] / strike[j]
        mid = premium_at(x, moneyness, tables[k])
        up, down = premium_at(x + h, moneyness, tables[k]), premium_at(x - h, moneyness, tables[k])
        price[j] += mid * strike[j]
        delta[j] += (up - down) / (2.0 * h)
        gamma[j] = max(gamma[j] + (up - 2.0 * mid + down) / (h * h) / strike[j], 0.0)
