"""Ids of orders that were executed: one that comes with such an id again would be done twice."""

from __future__ import annotations

from models.gate.other_gates import GateAmongOthers
from models.gate.state import GateState
from models.trading_day import TradingDay
from models.valued_book import ValuedBook
from schemas.records import Order

#: so many ids of executed orders are remembered, and of those that executions named and the gate does not know
EXECUTED_IDS, NAMED_IDS = 1 << 18, 1 << 16
#: between an account and an id of its
OF_ACCOUNT = "\x1f"


def named_by_execution(account: str, order_id: str) -> str:
    """Return how an order is remembered that an execution named and that its gate does not know."""
    return f"{account}{OF_ACCOUNT}{order_id}"


class ExecutedOrders(GateAmongOthers):
    """Remembers which orders were executed, its own and those of others that executions name."""

    def __init__(self, book: ValuedBook, state: GateState, day: TradingDay) -> None:
        super().__init__(book, state, day)
        #: ids that were executed, wholly or in part
        self.executed: dict[str, None] = {}
        #: account and id of orders that this gate does not know and that were executed: `named_by_execution`
        self.executed_elsewhere: dict[str, None] = {}

    def fill(self, order_id: str, quantity: float) -> None:
        """Take an execution of an order in (below 0: take it back), and remember that its id was executed."""
        if (w := self.known(order_id)) is not None and quantity > 0.0:
            self.executed[order_id] = None
            self._note_executed(self.executed, order_id, w.account, EXECUTED_IDS)
        super().fill(order_id, quantity)

    def _note_executed(self, ids: dict[str, None], order_id: str, account: int, most: int) -> None:
        self.changes.executed[order_id] = account
        if len(ids) > most:
            oldest = next(iter(ids))
            del ids[oldest]
            self.changes.executed.pop(oldest, None)  # where nobody writes down, nothing grows for ever

    def executed_before(self, account: str, order_id: str) -> None:
        """Remember an execution of an order that this gate does not know: one that comes with its id is done."""
        place, name = self.state.account_index.get(account), named_by_execution(account, order_id)
        if place is not None and name not in self.executed_elsewhere:
            self.executed_elsewhere[name] = None
            self._note_executed(self.executed_elsewhere, name, place, NAMED_IDS)

    def not_executed_before(self, account: str, order_id: str) -> None:
        """Forget an execution of an order that this gate does not know: positions refused it."""
        name = named_by_execution(account, order_id)
        self.executed_elsewhere.pop(name, None)
        self.changes.executed.pop(name, None)

    def _was_executed(self, order: Order) -> bool:
        return order.order_id in self.executed or (
            named_by_execution(order.account, order.order_id) in self.executed_elsewhere)
