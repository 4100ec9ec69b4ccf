"""What a gate counts of a day: sums of orders under nodes, executions at venues; and what is summed up in a node."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import numpy as np

from models.gate import state as gs
from models.gate.state import GateState
from models.gate.working import DayKey
from models.jit import inline_kernel, kernel
from models.trading_day import TradingDay

_CREDIT, _REPEATED = gs.CREDIT, gs.REPEATED
_DAY_QUANTITY, _DAY_VALUE = gs.DAILY_QUANTITY, gs.DAILY_VALUE
NOWHERE = np.zeros(0, np.int64)
#: venue, account, instrument
VenueKey = tuple[int, int, int]


@inline_kernel
def sum_nodes(nodes: np.ndarray, base: np.ndarray, reserved: np.ndarray, others: np.ndarray,
              which: np.ndarray) -> None:
    """Fill what nodes come to: as measured, and what is reserved here and by other gates."""
    for n in which:
        for m in range(base.shape[1]):
            nodes[n].value[m] = base[n, m] + reserved[n, m] + others[n, m]


@kernel
def add_to_day(which: np.ndarray, quantity: float, value: float, nodes: np.ndarray, base: np.ndarray,
               reserved: np.ndarray, others: np.ndarray) -> None:
    """Add an accepted order to the day's sums of nodes."""
    for n in which:
        base[n, _DAY_QUANTITY] += quantity
        base[n, _DAY_VALUE] += value
    sum_nodes(nodes, base, reserved, others, which)


@dataclass
class Changes:
    """What is not as it was written down last."""

    #: by id of orders, and of orders that were executed: the place of their account
    orders: dict[str, int] = field(default_factory=dict)
    executed: dict[str, int] = field(default_factory=dict)
    #: the same of orders that may be written down as working: one that ends before it ever was leaves no trace
    written: dict[str, int] = field(default_factory=dict)
    days: set[DayKey] = field(default_factory=set)
    venues: set[VenueKey] = field(default_factory=set)

    def ended(self, order_id: str, account: int) -> None:
        """Note that an order works no more."""
        if order_id in self.written:
            self.orders[order_id] = account
        else:
            self.orders.pop(order_id, None)


class DaySums:
    """The sums of one gate's day, each with what it consists of, so that a part can be handed over."""

    def __init__(self, state: GateState, day: TradingDay) -> None:
        self.state, self.day = state, day
        #: nodes, and the quantity, value and unattended executions of the day
        self.day_of: dict[DayKey, tuple[np.ndarray, float, float, float]] = {}
        #: net quantity executed today, and what of its value counts as credit
        self.at_venue: dict[VenueKey, tuple[float, float]] = {}
        self.changes = Changes()
        #: by node and metric: held for what works here, and what other gates hold and have counted
        self.reserved, self.others = np.zeros((2, len(state.nodes), gs.NF))
        self._base = np.zeros((len(state.nodes), gs.NF))
        self._base[:, [gs.RATING, gs.VAR_HIST]] = np.nan  # nobody has said anything of them

    def _sum_node(self, node: int) -> None:
        sum_nodes(self.state.nodes, self._base, self.reserved, self.others, np.array([node]))

    def count_ordered(self, key: DayKey, nodes: np.ndarray, quantity: float, value: float, executions: float) -> None:
        """Add to the day's sums of nodes, and to a trader's unattended executions."""
        if key[2] >= 0:
            self._base[key[2], _REPEATED] += executions
        _, before, worth, times = self.day_of.get(key, (NOWHERE, 0.0, 0.0, 0.0))
        self.day_of[key] = (nodes, before + quantity, worth + value, times + executions)
        self.changes.days.add(key)
        add_to_day(nodes, quantity, value, self.state.nodes, self._base, self.reserved, self.others)

    def attended(self, trader: int) -> None:
        """Count a trader's executions anew: a person has looked at them."""
        self._base[trader, _REPEATED] = 0.0
        self._sum_node(trader)
        for key in [k for k, day in self.day_of.items() if k[2] == trader and day[3]]:
            self.day_of[key] = (*self.day_of[key][:3], 0.0)
            self.changes.days.add(key)

    def hold_at_venue(self, key: VenueKey, net: float, credit: float) -> None:
        """State what was executed of a position at a venue today, and the credit that takes there."""
        _, before = self.at_venue.get(key, (0.0, 0.0))
        self.at_venue[key] = (net, credit)
        self.changes.venues.add(key)
        self._base[key[0], _CREDIT] += credit - before
        self._sum_node(key[0])

    def _begin_day(self) -> None:
        """Begin the sums of a day; what was executed at venues before has been settled, or margined."""
        self.changes.days.update(self.day_of)
        self.changes.venues.update(self.at_venue)
        self._base[:, [_DAY_QUANTITY, _DAY_VALUE, _REPEATED]] = 0.0
        self.day_of.clear()
        if self.at_venue:
            self._base[[venue for venue, *_ in self.at_venue], _CREDIT] = 0.0
            self.at_venue.clear()

    def _forget_day(self, accounts: AbstractSet[int]) -> None:
        """Take back what accounts have added: another gate counts it."""
        for key in [k for k in self.day_of if k[0] in accounts]:
            nodes, quantity, value, executions = self.day_of.pop(key)
            trader = key[2]
            if trader >= 0:
                self._base[trader, _REPEATED] = max(self._base[trader, _REPEATED] - executions, 0.0)
            add_to_day(nodes, -quantity, -value, self.state.nodes, self._base, self.reserved, self.others)
        for venue, account, instrument in [k for k in self.at_venue if k[1] in accounts]:
            self._base[venue, _CREDIT] -= self.at_venue.pop((venue, account, instrument))[1]
            self._sum_node(venue)
        c = self.changes  # the new owner writes down what it has
        c.orders = {k: a for k, a in c.orders.items() if a not in accounts}
        c.executed = {k: a for k, a in c.executed.items() if a not in accounts}
        c.written = {k: a for k, a in c.written.items() if a not in accounts}
        c.days = {k for k in c.days if k[0] not in accounts}
        c.venues = {k for k in c.venues if k[1] not in accounts}
