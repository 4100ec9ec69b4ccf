"""Orders of the last moments: one that is like another of them is a duplicate, whatever came between."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

#: remembered for so long: longer than any window of duplicates
KEPT_NS = 5_000_000_000
#: account, instrument, side, quantity, price; a market order has none, a stop two
OrderKey = tuple[int, int, float, float, float | tuple[float | None, float | None] | None]


@dataclass
class RecentOrders:
    """When an order of some account, instrument, side, quantity and price came last."""

    _last: dict[OrderKey, int] = field(default_factory=dict)
    _order: deque[tuple[int, OrderKey]] = field(default_factory=deque)

    def last_ns(self, key: OrderKey) -> int:
        """Return when one came last; 0: not lately."""
        return self._last.get(key, 0)

    def add(self, key: OrderKey, ts_ns: int) -> None:
        """Remember one."""
        self._last[key] = ts_ns
        self._order.append((ts_ns, key))
        while self._order[0][0] < ts_ns - KEPT_NS:
            old_ns, old = self._order.popleft()
            if self._last.get(old) == old_ns:
                del self._last[old]
