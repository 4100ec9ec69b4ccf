"""What comes of a node's orders over a window of time: how many, how many refused, in buckets of event time.

All that lies within the window counts, and what is older by less than one bucket, a 31st of it, may.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from models.gate.state import BUCKETS, bucket_ns

#: a share of very few orders says nothing
ORDERS_MIN = 20
METRICS = ("reject_rate", "reject_count")


class Outcomes(NamedTuple):
    """How many orders were decided, and how many of them refused."""

    orders: int
    rejects: int


@dataclass
class Ring:
    """Orders and refusals of one node in one window."""

    window_ns: int
    orders: np.ndarray = field(default_factory=lambda: np.zeros(BUCKETS, np.int64))
    rejects: np.ndarray = field(default_factory=lambda: np.zeros(BUCKETS, np.int64))
    stamp: np.ndarray = field(default_factory=lambda: np.full(BUCKETS, -1, np.int64))

    def add(self, ts_ns: int, rejected: bool) -> None:
        """Count one order."""
        tick = ts_ns // bucket_ns(self.window_ns)
        k = tick % BUCKETS
        if self.stamp[k] < tick:
            self.stamp[k], self.orders[k], self.rejects[k] = tick, 0, 0
        elif self.stamp[k] > tick:
            return  # older than the window
        self.orders[k] += 1
        self.rejects[k] += rejected

    def sums(self, now_ns: int) -> Outcomes:
        """Return what came of the orders of the window that ends now."""
        live = self.stamp > now_ns // bucket_ns(self.window_ns) - BUCKETS
        return Outcomes(int(self.orders[live].sum()), int(self.rejects[live].sum()))


@dataclass
class OrderFlow:
    """The windows of every node that has a limit on what comes of its orders, by the partition they came in.

    A partition is another gate's tomorrow: what came in it is counted there then.
    """

    #: node -> lengths of its windows
    watched: dict[str, set[int]] = field(default_factory=dict)
    #: partition -> node -> length -> window
    _rings: dict[int, dict[str, dict[int, Ring]]] = field(default_factory=dict)

    def watch(self, node: str, window_ns: int) -> None:
        """Begin to count a node."""
        self.watched.setdefault(node, set()).add(window_ns)

    def add(self, partition: int, nodes: list[str], ts_ns: int, rejected: bool) -> None:
        """Count one decision under all nodes it lies under, each named once."""
        for node in nodes:
            for window_ns in self.watched.get(node, ()):
                rings = self._rings.setdefault(partition, {}).setdefault(node, {})
                ring = rings.get(window_ns)
                if ring is None:
                    ring = rings[window_ns] = Ring(window_ns)
                ring.add(ts_ns, rejected)

    def forget(self, partitions: set[int]) -> None:
        """Drop what came in partitions that are another gate's now."""
        for partition in partitions:
            self._rings.pop(partition, None)

    def outcomes(self, node: str, window_ns: int, now_ns: int) -> Outcomes:
        """Return what came of a node's orders within the window that ends now."""
        held = (rings.get(node, {}).get(window_ns) for rings in self._rings.values())
        sums = [ring.sums(now_ns) for ring in held if ring is not None]
        return Outcomes(sum(s.orders for s in sums), sum(s.rejects for s in sums))

    def by_length(self, node: str, now_ns: int) -> dict[str, Outcomes]:
        """Return what came of a node's orders, by length of the window in ms, where there were any."""
        found = {str(w // 1_000_000): self.outcomes(node, w, now_ns) for w in sorted(self.watched.get(node, ()))}
        return {length: outcomes for length, outcomes in found.items() if outcomes.orders}


def figure(metric: str, outcomes: Outcomes) -> float:
    """Return what a limit is held against; NaN: of so few orders a share says nothing."""
    if metric == "reject_count":
        return float(outcomes.rejects)
    return outcomes.rejects / outcomes.orders if outcomes.orders >= ORDERS_MIN else math.nan
