"""Own working orders that an order could trade against, beyond the best ones of its own position."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from models.gate.working import Asked

if TYPE_CHECKING:
    from models.gate.reservations import Reservations


class OwnOrders:
    """Finds the nearest order on the other side: of the owner's other accounts, and behind a stop price.

    Only orders that rest at a price are there to be met: a market order is gone, a stop waits.
    """

    def __init__(self, held: Reservations) -> None:
        self._held = held
        #: whether all accounts of an owner count as one
        self.by_owner = False
        self._owner: dict[int, str] = {}
        self._accounts: dict[str, set[int]] = {}

    def add(self, account: int, owner: str | None) -> None:
        """Note whose an account is."""
        before = self._owner.pop(account, None)
        if before is not None:
            self._accounts[before].discard(account)
        if owner is not None:
            self._owner[account] = owner
            self._accounts.setdefault(owner, set()).add(account)

    def nearest(self, asked: Asked) -> float:
        """Return the price of the nearest order that the position of an order does not have among its best; NaN: none.

        For a stop it is the nearest at or beyond its stop price: what lies before is traded when that is reached.
        """
        if asked.stop is None and not self.by_owner:
            return math.nan
        others = self._accounts.get(self._owner.get(asked.account, ""), set()) if self.by_owner else set[int]()
        if asked.stop is None:
            prices = self._best(asked, others)
        else:
            at = asked.stop[1]
            prices = self._behind(asked, math.nan if at is None else at, {asked.account, *others})
        if not prices:
            return math.nan
        return min(prices) if asked.side > 0.0 else max(prices)

    def _best(self, asked: Asked, accounts: set[int]) -> list[float]:
        """Return the best prices on the other side of some accounts, its own left out."""
        best = self._held.state.positions["best_sell" if asked.side > 0.0 else "best_buy"]
        works = (self._held.of_position.get((k, asked.instrument)) for k in accounts if k != asked.account)
        prices = [best.item(next(iter(orders.values())).row) for orders in works if orders]
        return [price for price in prices if math.isfinite(price)]

    def _behind(self, asked: Asked, stop: float, accounts: set[int]) -> list[float]:
        """Return the prices on the other side that a stop comes to once it is reached."""
        return [w.price for k in accounts for w in self._held.of_position.get((k, asked.instrument), {}).values()
                if w.price is not None and w.side != asked.side and (w.price - stop) * asked.side >= 0.0]
