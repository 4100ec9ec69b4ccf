"""What a gate writes down of itself, so that who takes a partition over reads little of its logs.

Keys on `gate-changelog`: ``m`` and ``b`` (marks), ``o|order``, ``d|...``, ``v|...``, ``x|chunk``, ``k|chunk``. What
lies before a mark counts with it; what lies behind the last one was not finished. On partition 0 beside them
``p|instrument``, which stand by themselves.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from schemas.numbers import Whole
from schemas.records import Order


class GateMark(msgspec.Struct, frozen=True, kw_only=True, tag="mark"):
    """Where the logs stood when all since the mark before was written down."""

    #: ``begin``: another process goes on, what lies behind the mark before is nobody's; ``anew``: nor is all before
    kind: Literal["state", "begin", "anew"]
    ts: Whole
    #: first offsets that are not included
    decisions: Whole = 0
    orders: Whole = 0
    trades: Whole = 0
    #: number of the trading day that sums are of
    day: Whole = 0
    #: number of the chunk of executed ids that is being filled
    chunk: Whole = 0
    #: the same of ids of orders that were let through
    accepted: Whole = 0
    #: (offset, order) of a batch of orders that is decided in part
    half_done: list[tuple[int, str]] = msgspec.field(default_factory=list)


class GateTrade(msgspec.Struct, frozen=True):
    """A trade of orders with its corrections: under which ids, and what of which order it executes by now."""

    ids: list[str]
    #: the last one that it named
    order_id: str
    #: 0: nothing
    quantity: float
    #: hashes of the records that counted
    counted: list[str]
    busted: bool = False


class GateOrder(msgspec.Struct, frozen=True, kw_only=True, tag="order"):
    """An order that works."""

    order: Order
    decided_ns: Whole
    #: the session whose end cancels it
    session: str | None = None
    #: ids that it replaced, the first one first
    earlier: tuple[str, ...] = ()
    executed: float = 0.0
    #: by id: the trades that are in ``executed``, as a gate wrote them that did not follow their corrections
    trades: dict[str, list[str]] = msgspec.field(default_factory=dict)
    #: the trades that name it, as far as positions include them
    chains: list[GateTrade] = msgspec.field(default_factory=list)


class GateDay(msgspec.Struct, frozen=True, kw_only=True, tag="day"):
    """What was ordered today under an account and whatever else its orders named; nodes by name."""

    account: str
    instrument: str
    #: None, as the others: every node was taken
    trader: str | None
    counterparty: str | None
    venue: str | None
    quantity: float
    value: float
    executions: float


class GateVenueDay(msgspec.Struct, frozen=True, kw_only=True, tag="venue"):
    """What was executed today at a venue, net, and how much credit it takes there."""

    venue: str
    account: str
    instrument: str
    quantity: float
    credit: float


class GateExecuted(msgspec.Struct, frozen=True, kw_only=True, tag="executed"):
    """Ids of orders that were executed, wholly or in part."""

    ids: list[str]


class GateAccepted(msgspec.Struct, frozen=True, kw_only=True, tag="accepted"):
    """Orders that were let through, the oldest first: (account, id)."""

    ids: list[tuple[str, str]]


class GateWindow(msgspec.Struct, frozen=True, kw_only=True):
    """How far a price has moved within a window: (stamp, lowest, highest) of each of its buckets."""

    #: of the soft limit
    soft: bool
    window_ns: Whole
    buckets: list[tuple[int, float, float]]


class GatePrice(msgspec.Struct, frozen=True, kw_only=True, tag="price"):
    """What is remembered of an instrument's prices; it stands by itself, whatever mark it lies before."""

    instrument: str
    #: end of the short-sale price test it is under, UTC ns; 0: it is under none
    test_ends: Whole = 0
    windows: list[GateWindow] = msgspec.field(default_factory=list)


GateEntry = GateMark | GateOrder | GateDay | GateVenueDay | GateExecuted | GateAccepted | GatePrice
