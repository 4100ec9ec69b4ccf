"""Orders that may only reduce, held to that as their position shrinks by other hands."""

from __future__ import annotations

from collections.abc import Callable

from models.gate.reservations import Reservations
from models.gate.working import Working

#: the rest of sums of quantities
ROUNDED = 1e-9


def beyond_position(held: Reservations, is_settled: Callable[[Working], bool]) -> list[Working]:
    """Return the orders that would open by now: the newest of those that together are more than what is left.

    Parameters
    ----------
    is_settled : whether all executions that the position of an order includes are taken out of working orders
    """
    of: dict[tuple[int, int], list[Working]] = {}
    for w in held.reduce_only.values():
        of.setdefault((w.account, w.instrument), []).append(w)
    beyond = []
    for orders in of.values():
        if not is_settled(orders[0]):
            continue
        quantity = held.state.positions["quantity"].item(orders[0].row)
        room = {1.0: max(-quantity, 0.0), -1.0: max(quantity, 0.0)}
        for w in sorted(orders, key=lambda w: w.decided_ns):
            if w.left > room[w.side] + ROUNDED:
                beyond.append(w)
            else:
                room[w.side] -= w.left
    return beyond
