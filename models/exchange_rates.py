"""Exchange rates of one snapshot, solved at once from all currency pairs: the best path decides, never the order.

A path with fewer stale pairs comes before one with more, then one with fewer pairs. Where several paths are equally
good the rate is their geometric mean. Nothing depends on the order of pairs or on their names.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Pair(NamedTuple):
    """One pair on the snapshot; currencies are indices."""

    base: int
    quote: int
    #: units of ``quote`` per unit of ``base``; what is not above 0 is no rate
    price: float
    stale: bool = False
    #: which moments the price is good for, ns: a prior close is of one day
    begin: int = 0
    end: int = 2**63 - 1


class Solved(NamedTuple):
    """Rates by currency."""

    #: units of the base currency per unit; NaN where no path leads to it
    rate: np.ndarray
    #: pairs on the path that are stale
    stale: np.ndarray
    #: the moments for which all pairs of the path are good
    begin: np.ndarray
    end: np.ndarray


def solve_rates(pairs: Sequence[Pair], base: int, currencies: int) -> Solved:
    """Return what a unit of every currency is worth in the base currency.

    Parameters
    ----------
    base : index of the base currency
    currencies : how many there are
    """
    edges: list[list[tuple[int, Pair]]] = [[] for _ in range(currencies)]
    for pair in pairs:
        if 0.0 < pair.price < math.inf and pair.base != pair.quote:
            edges[pair.base].append((pair.quote, pair))
            edges[pair.quote].append((pair.base, pair))
    out = Solved(np.full(currencies, np.nan), np.zeros(currencies, np.int64), np.zeros(currencies, np.int64),
                 np.full(currencies, 2**63 - 1, np.int64))
    out.rate[base] = 1.0
    cost: dict[int, tuple[int, int]] = {}
    queue = [((0, 0), base)]
    while queue:
        so_far, at = heapq.heappop(queue)
        if at in cost:
            continue
        cost[at] = so_far
        if at != base:
            _settle(at, so_far, [(near, pair) for near, pair in edges[at] if near in cost], cost, out)
        for near, pair in edges[at]:
            if near not in cost:
                heapq.heappush(queue, ((so_far[0] + pair.stale, so_far[1] + 1), near))
    return out


def _settle(at: int, best: tuple[int, int], near: list[tuple[int, Pair]], cost: dict[int, tuple[int, int]],
            out: Solved) -> None:
    """Fill a currency's rate from the neighbours that its best paths come over."""
    over = [(n, p) for n, p in near if (cost[n][0] + p.stale, cost[n][1] + 1) == best]
    found = sorted(p.price * out.rate[n] if p.base == at else out.rate[n] / p.price for n, p in over)
    same = found[0] == found[-1]
    out.rate[at] = found[0] if same else math.exp(sum(math.log(x) for x in found) / len(found))
    out.stale[at] = best[0]
    out.begin[at] = max(max(int(out.begin[n]), p.begin) for n, p in over)
    out.end[at] = min(min(int(out.end[n]), p.end) for n, p in over)
