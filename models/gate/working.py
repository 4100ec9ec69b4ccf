"""An order that was let through: where it lies, what it may still trade, and until when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

import numpy as np

from models.gate.recent_orders import OrderKey
from models.trading_day import TradingDay
from schemas.records import Instrument, Order
from schemas.units import parse_ts_ns

#: what is not executed at once of an order that is to be is gone; its executions are here within so long
AT_ONCE_NS = 5_000_000_000
ENDS_IN_THE_DAY = frozenset(("ioc", "fok", "gtd"))
#: account, instrument, trader, counterparty, venue: places in the gate's columns, -1 where there is none
DayKey = tuple[int, int, int, int, int]
NEVER_NS = np.iinfo(np.int64).max


def end_of(order: Order, now_ns: int, day: TradingDay) -> int:
    """Return until when an order that is let through now may trade, UTC ns.

    Raises
    ------
    ValueError
        It is to trade until a time that it does not state.
    """
    if order.time_in_force in ("ioc", "fok"):
        return now_ns + AT_ONCE_NS
    if order.time_in_force == "gtc":
        return NEVER_NS
    if order.time_in_force == "day":
        return day.end_ns(now_ns)
    if order.expire_ts is None:
        raise ValueError("expire_ts: expected a time with time_in_force gtd, was absent")
    return parse_ts_ns(order.expire_ts)


def last_trading_day(instrument: Instrument) -> date:
    """Return the day an instrument expires or matures, where it states one as a date; far away otherwise."""
    stated = instrument.expiry or instrument.maturity
    try:
        return date.max if stated is None else date.fromisoformat(stated[:10])
    except ValueError:  # a month, a code: the venue knows the day
        return date.max


class Asked(NamedTuple):
    """Where the order at the first place of the ring belongs: places in the gate's columns, -1 where there is none."""

    account: int
    instrument: int
    side: float
    quantity: float
    price: float | None
    trader: int
    counterparty: int
    venue: int
    #: of a stop: its price and its stop price
    stop: tuple[float | None, float | None] | None = None

    def day_key(self) -> DayKey:
        """Return what the day's sums of it are kept by."""
        return self.account, self.instrument, self.trader, self.counterparty, self.venue

    def order_key(self) -> OrderKey:
        """Return what an order like it shares with it."""
        return self.account, self.instrument, self.side, self.quantity, self.price if self.stop is None else self.stop

    def own_nodes(self) -> list[int]:
        """Return the nodes that it alone is under, its position is not."""
        return [n for n in (self.trader, self.counterparty, self.venue) if n >= 0]


@dataclass(slots=True)
class Working:
    """An accepted order that may still trade."""

    order: Order
    account: int
    instrument: int
    #: of its position
    row: int
    side: float
    #: that it rests at; None: of a market order, and of a stop
    price: float | None
    left: float
    #: of one unit, in the firm's base currency; what is not known of Greeks and VaR is 0: where it is limited the order
    #: is refused
    gross: float
    net: float
    delta: float
    vega: float
    var: float
    trader: int
    counterparty: int
    venue: int
    expires_ns: int
    #: of its quantity, under this id or under one before
    executed: float
    #: ids of the orders that it replaced, the first one first
    earlier: tuple[str, ...]
    #: all that it lies under, each once, and of them its trader, counterparty and venue
    nodes: np.ndarray
    own: np.ndarray
    decided_ns: int
    #: the session of a local gate whose end cancels it
    session: str | None = None
