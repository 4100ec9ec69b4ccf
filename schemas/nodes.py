"""Nodes of the tree as they are published: figures, and what each of them leaves out."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.numbers import StampNs
from schemas.records import AsOf, Whole


class Pnl(msgspec.Struct, frozen=True, gc=False):
    """P&L of a node in its base currency; ``None`` where it cannot be computed."""

    realised: float | None
    unrealised: float | None
    day: float | None
    price: float | None
    fx: float | None
    fees: float | None
    total: float | None
    #: of the day, a part of ``day`` as ``price`` and ``fx`` are: funding received less paid, and ``interest``
    carry: float | None = None
    #: funding paid (> 0) or received since inception, and the interest of paper held on the days before
    funding: float | None = None
    #: what paper held overnight has earned since the day began; the roll books it as funding received.
    #: ``total`` is realised + unrealised - fees - funding + interest
    interest: float | None = None


class Exposure(msgspec.Struct, frozen=True, gc=False):
    """Market values of a node in its base currency; ``positions`` counts what is not flat."""

    gross: float | None
    net: float | None
    long: float | None
    short: float | None
    positions: Whole


class Quality(msgspec.Struct, frozen=True, gc=False):
    """What a number leaves out: ``excluded`` names up to ten unpriced positions.

    Every figure has its own validity: a position whose cost, or a fee of it, is unknown has an exposure and no P&L.
    """

    #: positions without a value: no price, or no exchange rate
    unpriced: Whole = 0
    #: positions whose value or Greeks rest on a stale price or rate; surfaces and curves hold until stated anew
    stale: Whole = 0
    excluded: list[str] = msgspec.field(default_factory=list)
    #: positions whose P&L is unknown, and up to ten of them that have a value
    pnl_unknown: Whole = 0
    without_pnl: list[str] = msgspec.field(default_factory=list)
    #: positions whose P&L of the day is unknown
    day_unknown: Whole = 0
    #: the currency that the node is stated in, where it has no exchange rate: then all money of it is null
    without_rate: str | None = None


#: a node's eight models are published beside it, under its key with this suffix, at their own pace
MODELS_SUFFIX = "#models"


class Risk(msgspec.Struct, frozen=True, kw_only=True):
    """One node on one snapshot. ``snapshot_id`` is the end of the mark window included, in ns."""

    node: str
    snapshot_id: Whole
    ts: StampNs
    as_of: list[AsOf]
    quality: Quality
    base_currency: str
    pnl: Pnl
    exposure: Exposure
    quantity: float | None = None
    ts_source: Whole = 0
    greeks: dict[str, float | None] | None = None
    models: dict[str, Any] | None = None
    top: dict[str, Any] | None = None
    #: what was not known then is null
    prior_day: dict[str, float | None] | None = None
