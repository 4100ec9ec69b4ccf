"""What comes of a node's orders over a window of time: how many, how many refused, in buckets of event time.

The window is counted in 32 buckets: what is said of it is exact to one bucket, a 32nd of the window.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from schemas.records import Limit

BUCKETS = 32
#: a share of very few orders says nothing
ORDERS_MIN = 20
WINDOW_NS_DEFAULT = 60_000_000_000
METRICS = ("reject_rate", "reject_count", "message_count")


def window_of(limit: Limit) -> int:
    """Return the window that a limit on orders looks at, ns."""
    return WINDOW_NS_DEFAULT if limit.window_ms is None else limit.window_ms * 1_000_000


@dataclass
class Ring:
    """Orders and refusals of one node in one window."""

    window_ns: int
    orders: np.ndarray = field(default_factory=lambda: np.zeros(BUCKETS, np.int64))
    rejects: np.ndarray = field(default_factory=lambda: np.zeros(BUCKETS, np.int64))
    stamp: np.ndarray = field(default_factory=lambda: np.full(BUCKETS, -1, np.int64))

    def add(self, ts_ns: int, rejected: bool) -> None:
        """Count one order."""
        tick = ts_ns * BUCKETS // self.window_ns
        k = tick % BUCKETS
        if self.stamp[k] < tick:
            self.stamp[k], self.orders[k], self.rejects[k] = tick, 0, 0
        elif self.stamp[k] > tick:
            return  # older than the window
        self.orders[k] += 1
        self.rejects[k] += rejected

    def sums(self, now_ns: int) -> tuple[int, int]:
        """Return (orders, refusals) of the window that ends now."""
        live = self.stamp > now_ns * BUCKETS // self.window_ns - BUCKETS
        return int(self.orders[live].sum()), int(self.rejects[live].sum())


@dataclass
class OrderFlow:
    """The windows of every node that has a limit on what comes of its orders."""

    rings: dict[tuple[str, int], Ring] = field(default_factory=dict)

    def watch(self, node: str, window_ns: int) -> None:
        """Begin to count a node."""
        self.rings.setdefault((node, window_ns), Ring(window_ns))

    def add(self, nodes: list[str], ts_ns: int, rejected: bool) -> None:
        """Count one decision under all nodes it lies under."""
        named = set(nodes)
        for (node, _), ring in self.rings.items():
            if node in named:
                ring.add(ts_ns, rejected)

    def values(self, node: str, window_ns: int, now_ns: int) -> dict[str, float]:
        """Return the figures of a node; a rate of too few orders is not there."""
        ring = self.rings.get((node, window_ns))
        if ring is None:
            return {}
        orders, rejects = ring.sums(now_ns)
        out = {"reject_count": float(rejects), "message_count": float(orders)}
        if orders >= ORDERS_MIN:
            out["reject_rate"] = rejects / orders
        return out
