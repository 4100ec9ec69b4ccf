"""Helpers: a partition fed with trades as JSON, and its comparison with the naive book."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from models import trade_columns as tc
from models.naive_fold import NaiveBook
from models.reference import Reference, quantity_decimals, unit_value
from models.trade_decode import decode_trades
from schemas.codec import trade_decoder
from schemas.records import Account, Instrument
from tables.position_partition import PositionPartition
from tables.trade_fees import other_fees, settlement_fees

INSTRUMENTS = {
    "EURUSD": Instrument(instrument="EURUSD", asset_class="fx", currency="USD", quantity_increment=Decimal(1)),
    "ACME": Instrument(instrument="ACME", asset_class="equity", currency="USD", quantity_increment=Decimal("0.01")),
    "FUT": Instrument(instrument="FUT", asset_class="future", currency="EUR", quantity_increment=Decimal(1),
                      multiplier=Decimal(50)),
    "INV": Instrument(instrument="INV", asset_class="perpetual", currency="USD", quantity_increment=Decimal(1),
                      multiplier=Decimal(10), inverse=True, settlement="BTC"),
    "QUANTO": Instrument(instrument="QUANTO", asset_class="perpetual", currency="USD", quantity_increment=Decimal(1),
                         quanto_rate=Decimal("0.0001"), settlement="BTC"),
}
ACCOUNTS = ("A1", "A2")


def reference() -> Reference:
    """Return reference data of two accounts and five instruments."""
    out = Reference(lambda account: 0)
    for instrument in INSTRUMENTS.values():
        out.add_instrument(instrument)
    for name in ACCOUNTS:
        out.add_account(Account(account=name, book="B", desk="D", strategy="S", fund="F"))
    return out


def trade(trade_id: str, side: str, quantity: str, price: str, ts: int, **more: Any) -> dict[str, Any]:
    """Return a trade as upstream sends it."""
    return {"trade_id": trade_id, "account": "A1", "instrument": "EURUSD", "side": side, "quantity": quantity,
            "price": price, "ts_event": ts} | more


def feed(part: PositionPartition, trades: Sequence[dict[str, Any]], batch: int | None = None,
         first_offset: int = 0) -> list[int]:
    """Fold trades in batches; return the status of each."""
    statuses: list[int] = []
    values = [json.dumps(t).encode() for t in trades]
    size = batch or max(len(values), 1)
    for start in range(0, len(values), size):
        chunk = values[start : start + size]
        decoded = decode_trades(list(chunk))
        decoded.rows["offset"] = first_offset + start + decoded.messages
        tc.resolve_trades(decoded.buffer, decoded.rows, part.reference.arrays())
        settlement_fees(decoded, part.reference)
        part.follow_terms()
        part.positions.apply(decoded.rows, part.reference.arrays())
        other_fees(decoded, part)
        statuses += decoded.rows["status"].tolist()
    return statuses


def new_partition(fills_max: int = 262_144, lateness_ns: int = 2_000_000_000) -> PositionPartition:
    """Return an empty partition that owns every account."""
    return PositionPartition(0, reference(), fills_max, lateness_ns)


def empty_book(lateness_ns: int = 2_000_000_000) -> NaiveBook:
    """Return the naive book without trades; it refuses what the stage refuses."""
    return NaiveBook({n: i.inverse for n, i in INSTRUMENTS.items()}, lateness_ns,
                     {n: quantity_decimals(i) for n, i in INSTRUMENTS.items()},
                     any_sign={n: i.price_any_sign for n, i in INSTRUMENTS.items()})


def naive(trades: Sequence[dict[str, Any]], lateness_ns: int = 2_000_000_000) -> NaiveBook:
    """Return the naive book of the same trades."""
    book = empty_book(lateness_ns)
    for t in trades:
        book.apply(trade_decoder.decode(json.dumps(t).encode()))
    return book


def assert_equal(part: PositionPartition, book: NaiveBook) -> None:
    """Assert that every position agrees: quantities exactly, money within 1e-9 of what was traded."""
    records = {(r.account, r.instrument): r for r in part.records(np.arange(len(part.positions)))}
    for key, fills in book.fills.items():
        want, got = book.position(*key), records[key]
        instrument = INSTRUMENTS[key[1]]
        value = unit_value(instrument) * 10 ** quantity_decimals(instrument)
        scale = float(sum(abs(f.quantity / f.price if instrument.inverse else f.quantity * f.price)
                          for f in fills)) * value
        assert Decimal(got.quantity) == want.quantity, key
        close(got.realised_pnl, float(want.realised) * value, scale)
        close(got.fifo.realised_pnl, float(want.fifo_realised) * value, scale)
        assert got.fifo.lots == len(want.lots)
        assert got.trades == want.trades
        for kept, expected in ((got.fees, want.fees), (got.funding, want.funding)):
            for currency in kept.keys() | expected.keys():
                close(kept.get(currency, 0.0), float(expected.get(currency, 0)), 1e4)
        if want.quantity:
            assert got.average_price is not None
            close(got.average_price, float(want.average), abs(float(want.average)))
            per_unit = scale / abs(float(want.quantity) * value)
            size = sum(abs(lot[0]) for lot in want.lots)
            spent = sum(abs(q) / p if instrument.inverse else abs(q) * p for q, p in want.lots)
            fifo = size / spent if instrument.inverse else spent / size
            assert got.fifo.average_price is not None
            close(got.fifo.average_price, float(fifo), abs(float(fifo)))
            if want.cost or not instrument.inverse:  # an inverse position that cost nothing has no such price
                break_even = want.quantity / want.cost if instrument.inverse else want.cost / want.quantity
                assert got.break_even_price is not None
                close(got.break_even_price, float(break_even), per_unit + abs(float(break_even)))
        else:
            assert got.average_price is None


def close(got: float, want: float, scale: float) -> None:
    """Assert equality within 1e-9, relative to what went into the sum."""
    assert abs(got - want) <= 1e-9 * max(abs(want), scale, 1e-12), (got, want)
