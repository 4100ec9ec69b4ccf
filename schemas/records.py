"""The records of contract v1, one frozen struct each. Unknown fields are ignored; new fields get defaults.

Decimals come as JSON strings or numbers and are read exactly (`msgspec` keeps a number's digits in `Decimal`).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec

from schemas.instruments import MARGIN_TIERS_MAX as MARGIN_TIERS_MAX
from schemas.instruments import Instrument as Instrument
from schemas.instruments import MarginTier as MarginTier
from schemas.numbers import Amount, Currency, FiniteNumbers, Name, Revision, Said, StampNs, Timestamp, check_decimal
from schemas.numbers import Number as Number
from schemas.numbers import Text as Text
from schemas.numbers import Whole as Whole
from schemas.statements import External as External


class Fee(msgspec.Struct, frozen=True, gc=False):
    """One fee of a fill; ``amount`` > 0 is a cost, < 0 a rebate, in ``currency``."""

    amount: Number
    currency: Currency

    def __post_init__(self) -> None:
        """Check the amount."""
        check_decimal(self.amount, "fees.amount")


class Trade(FiniteNumbers, frozen=True, kw_only=True):
    """One execution as booked. Never changed: a correction is a new trade that names the old one.

    ``action`` funding books the funding of a perpetual: quantity 0, what was paid (> 0) or received as ``fees``. A
    receipt is at no cost (bonus shares, airdrops): its price is 0. Fees never change a quantity: a commission taken in
    the base currency of a pair is a fee in that currency, and what its venue states as held is less by it.
    """

    trade_id: Text
    account: Text
    instrument: Text
    side: Literal["buy", "sell", "BUY", "SELL"]
    quantity: Number
    price: Number
    ts_event: Timestamp
    action: Literal["new", "correct", "bust", "funding", "receipt"] | None = "new"
    ref_trade_id: str | None = None
    order_id: str | None = None
    trader: str | None = None
    counterparty: str | None = None
    venue: str | None = None
    fees: list[Fee] | None = None


class Tick(FiniteNumbers, frozen=True, kw_only=True):
    """One quote, or the print of a trade (``last``). A side that is missing, or null alone, leaves it as it was.

    ``bid`` and ``ask`` both given as null: the quotes are withdrawn. The prices stay, stale until the next one.
    """

    instrument: Text
    ts_event: Timestamp
    bid: Number | None = None
    ask: Number | None = None
    last: Number | None = None
    bid_size: Number | None = None
    ask_size: Number | None = None
    source: str | None = None


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A request to trade, to replace or to cancel, checked before it leaves.

    ``quantity`` is what the order is for in all: a replace of one that is executed in part states the sum of what is
    done and what is still to do. Any id of an order that was replaced names it, in executions and cancels too. What a
    type, an end or an action has no use for is refused: the price of a market order, ``expire_ts`` of another end than
    gtd, ``ref_order_id`` of a new order. A cancel may repeat whatever the order said that it cancels.
    """

    order_id: Text
    account: Text
    trader: Text
    instrument: Text
    side: Literal["buy", "sell"]
    #: a stop waits until its ``stop_price`` is reached: then it is a market order, a stop_limit a limit order
    type: Literal["limit", "market", "stop", "stop_limit"]
    ts_event: Timestamp
    #: of a cancel it may be absent: what it names is cancelled whole
    quantity: Number | None = None
    price: Number | None = None
    stop_price: Number | None = None
    #: it may only reduce what is left of the position after what already works, for as long as it works
    reduce_only: bool = False
    action: Literal["new", "replace", "cancel"] = "new"
    ref_order_id: str | None = None
    venue: str | None = None
    counterparty: str | None = None
    locate_id: str | None = None
    short_exempt: bool = False
    algo_id: str | None = None
    #: until when it may trade: the end of the trading day, until it is cancelled, until ``expire_ts``, or at once
    time_in_force: Literal["day", "gtc", "gtd", "ioc", "fok"] = "day"
    #: of gtd alone
    expire_ts: Timestamp | None = None

    def __post_init__(self) -> None:
        """Check that what is to trade says how much.

        Raises
        ------
        ValueError
            If it has no quantity, and is no cancel.
        """
        if self.quantity is None and self.action != "cancel":
            raise ValueError(f"quantity: expected one with action {self.action}, was absent")

    @property
    def whole(self) -> Decimal:
        """Quantity in all; 0 of a cancel that states none, which trades nothing."""
        return Decimal(0) if self.quantity is None else self.quantity


class Account(FiniteNumbers, frozen=True, kw_only=True):
    """Where positions belong. A level beyond book, desk, strategy and fund is a field of its own name on the wire.

    Which levels there are, and in which order, the setting ``levels`` says.
    """

    account: Name
    book: Name
    desk: Name
    strategy: Name
    fund: Name
    base_currency: Currency = "USD"
    dealer: str | None = None
    pm: str | None = None
    nav: Number | None = None
    #: with whom its positions are held: prime broker, clearer, custodian
    counterparty: str | None = None
    #: who may trade it; absent: whoever an order names
    traders: list[Text] | None = None
    #: whose it is: with the setting ``self_match`` its orders are held against those of its owner's other accounts
    owner: str | None = None
    #: the node it lies under by level, of levels that are no field of this record
    levels: dict[str, Text] = msgspec.field(default_factory=dict)

    def under(self, level: str) -> str | None:
        """Return the name of the node of a level, or of a grouping beside the tree, that it lies under."""
        return getattr(self, level, None) if level in ACCOUNT_FIELDS else self.levels.get(level)


#: fields of an account that name a node
ACCOUNT_FIELDS = frozenset({"book", "desk", "strategy", "fund", "account", "dealer", "pm", "counterparty"})


class Counterparty(msgspec.Struct, frozen=True, kw_only=True):
    """A bank, broker or clearer that orders name, with its rating: 1 is the best grade, larger is worse."""

    counterparty: Name
    rating: Annotated[int, msgspec.Meta(ge=1, le=99)]


class AsOf(msgspec.Struct, frozen=True, gc=False):
    """The last record of the `trades` topic a row includes."""

    partition: Whole
    offset: Whole


class Fifo(msgspec.Struct, frozen=True, gc=False):
    """The same fills matched first in, first out; ``None``: what was closed had no known cost."""

    realised_pnl: float | None
    average_price: float | None
    lots: Whole
    exact: bool = True


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """Absolute state of one account and instrument; the highest (``as_of``, ``revision``) wins.

    P&L is in ``currency``; of an option with ``premium_in_underlying`` in units of the underlying, like its prices.
    What works is no part of it: ``working_buy`` and ``working_sell`` are null, which is not 0.
    """

    account: str
    instrument: str
    quantity: Amount
    average_price: float | None
    #: unknown where what was closed had no cost
    realised_pnl: float | None
    fees: dict[str, float]
    currency: str
    trades: Whole
    last_ts_event: StampNs
    fifo: Fifo
    break_even_price: float | None
    as_of: AsOf
    revision: Whole = 0
    #: not known to who folds trades: null. What works is the gates' to say (the log of decisions, `limits used`)
    working_buy: Amount | None = None
    working_sell: Amount | None = None
    opening_quantity: Amount = "0"
    opening_price: float | None = None
    #: less fees in the settlement currency; others are in ``opening_fees``
    opening_realised_pnl: float | None = 0.0
    opening_fees: dict[str, float] = {}
    #: funding paid (> 0) or received, by currency, and what of it belongs to the days before; not part of ``fees``
    funding: dict[str, float] = {}
    opening_funding: dict[str, float] = {}
    #: when the day of the position began, and by what
    opening_ts: StampNs = 0
    opening_kind: Literal["none", "statement", "roll"] = "none"
    #: an outside source said once what it was: its trades alone do not add up to it
    stated: bool = False
    late_trades: Whole = 0
    book: str = ""
    desk: str = ""
    strategy: str = ""
    fund: str = ""
    ts_source: Whole = 0


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """What the mark stage goes on from after a restart: times of receipt and events, sources, and what was refused."""

    received_ns: Whole
    bid_ns: Whole
    ask_ns: Whole
    last_ts: Whole
    #: hashes of names, up to 2**64: no bound of msgspec reaches so far
    source: int
    other_source: int
    wild_count: Whole
    refused: Whole
    printed: Whole
    wild_mid: float | None
    withdrawn: Whole = 0


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Last good prices of one instrument at the end of a 100 ms window.

    ``quality`` is that of the mark, not of the last quote. stale: the last good price is too old, whatever came after
    it, or its quotes were withdrawn; crossed, wild, stub (no price, or a spread of no use): the newest quote was
    refused, the prices are the last good ones; one_sided: only one side is quoted; last: nobody quotes, it is the price
    of the last trade; none.
    """

    instrument: str
    window_end: StampNs
    ts_event: StampNs
    bid: float | None
    ask: float | None
    mid: float | None
    last: float | None
    quality: Literal["good", "stale", "crossed", "wild", "none", "stub", "one_sided", "last"]
    sources: Whole = 1
    rejected: Whole = 0
    ts_source: Whole = 0
    kept: Kept | None = None


#: what alerts that are about no limit are told by; a limit of such a name could not be told from them
RESERVED_LIMIT_NAMES = ("unknown.", "feed.", "recon.", "nobody.")


class Limit(FiniteNumbers, frozen=True, kw_only=True):
    """A limit on one metric of one node, versioned with who and why."""

    limit_id: Text
    node: Text
    metric: Text
    #: at least 0: of what has a sign it bounds the size, of a loss what is lost; 0 lets nothing of it be
    limit: Number
    version: Revision
    by: Said
    reason: Said
    #: the share of the limit from which on an alert says that it is approached
    warn: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.8
    mode: Literal["hard", "soft"] = "hard"
    window_ms: Whole | None = None
    instrument: str | None = None
    #: what a breach of a measured metric does to the node beside the alert
    action: Literal["alert", "reduce", "halt"] = "alert"
    #: a temporary limit ends by itself; the one it replaced comes back
    until: Timestamp | None = None
    #: the second person of the newest version that needed one; raises need one from then on
    approved_by: str | None = None

    def __post_init__(self) -> None:
        """Check every number, and that the name is not one of those that alerts use.

        Raises
        ------
        ValueError
            If one cannot be counted with, the limit is below 0, or the name is taken.
        """
        super().__post_init__()
        if self.limit < 0:
            raise ValueError(f"limit: expected a number of at least 0, was {self.limit}")
        if self.limit_id.startswith(RESERVED_LIMIT_NAMES):
            raise ValueError(f"limit_id: expected a name that begins with none of {', '.join(RESERVED_LIMIT_NAMES)}, "
                             f"was {self.limit_id!r}")


class Control(FiniteNumbers, frozen=True, kw_only=True):
    """The trading state of a scope; the strictest scope wins, only a named person lifts it."""

    scope: Text
    state: Literal["active", "reducing", "halted", "killed"]
    reason: Said
    by: Said
    ts: Timestamp
    rev: Revision


class Approval(FiniteNumbers, frozen=True, kw_only=True):
    """A write to limits that waits for a second person; it is withdrawn once somebody has decided, and lapses."""

    approval_id: Text
    kind: Literal["override", "limit"]
    #: what was asked for
    fields: dict[str, Any]
    by: Text
    asked_ts: Timestamp
    lapses_ts: Timestamp


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why an order was refused: what was measured against which limit."""

    code: str
    measured: str
    limit: str
    limit_id: str | None = None
    node: str | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on one order."""

    order_id: str
    account: str
    instrument: str
    outcome: Literal["accept", "reject", "cancel"]
    reasons: list[Reason]
    #: in the firm's base currency: ``value`` of the order, and what it adds to gross, net, delta, vega and, at most, to
    #: historical VaR; what is not known is absent
    effect: dict[str, float]
    snapshot_id: Whole
    limits_version: Whole
    ts_event: StampNs
    ts_decision: StampNs
    service_ns: Whole
    #: soft limits exceeded by an accepted order
    warnings: list[Reason] = msgspec.field(default_factory=list)
    #: the order, and the state of its account, instrument, position and nodes as the gate saw them
    inputs: dict[str, Any] = msgspec.field(default_factory=dict)
    #: the record of the `orders` topic that was decided; none: it came through a local door
    as_of: AsOf | None = None
    #: the record that was decided, where it is a batch and this is not its last order: `as_of` is the record before it
    batch: Whole | None = None
    #: executions of the order are on the `trades` topic from here on
    fills_from: Whole = 0
    order: Order | None = None
    #: of an accepted order: the session of a local gate whose end cancels it
    session: str | None = None


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """A fact that wants a person. ``alert_id`` is the identity a re-detection repeats."""

    alert_id: str
    kind: Literal["approach", "breach", "clear", "stale", "reconciliation", "halt", "override", "soft", "drift",
                  "rewind", "rebuild", "adopt", "roll", "barrier", "worker_down", "quarantine", "corporate_action",
                  "torn_transaction"]
    node: str
    metric: str
    value: float | None
    limit: float | None
    utilisation: float | None
    cause_ts: StampNs
    raised_ts: StampNs
    snapshot_id: Whole
    limit_id: str | None = None
    limits_version: Whole = 0
    #: raised again because nobody acknowledged it
    escalated: bool = False
    #: who has seen it, and what they noted; a record with ``ack_by`` repeats the alert it acknowledges
    ack_by: str | None = None
    note: str | None = None


class Quarantined(msgspec.Struct, frozen=True, kw_only=True):
    """A record that was not applied, with the reason and the bytes as they came."""

    topic: str
    partition: Whole
    offset: Whole
    reason: str
    detail: str
    raw_base64: str
    ts: Whole
    index: Whole = 0
    #: of a record that was brought back and refused again: which one it was first, topic-partition-offset.index
    retry_of: str | None = None
    #: it was brought back: by whom, why, when, and where it stands on its topic now (partition@offset)
    retried_by: str | None = None
    retried_why: str | None = None
    retried_ts: Whole | None = None
    retried_as: str | None = None
