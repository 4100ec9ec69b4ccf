"""Capital that is paid in or out is no drawdown; the currency of a node follows from what lies under it."""

from __future__ import annotations

import itertools
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from app.roll import with_closes, with_dates
from models.risk.limit_values import limit_values
from models.risk.live import RiskModels
from models.valued_book import INSTRUMENT_GROUPINGS, ValuedBook
from schemas.records import Account, AsOf, Fifo, Instrument, Mark, Position

LEVELS = ("book", "desk", "strategy", "fund", "firm")
X = Instrument(instrument="X", asset_class="future", currency="USD")
PAIR = Instrument(instrument="EURUSD", asset_class="fx", currency="USD")


def account(name: str, **more: Any) -> Account:
    return Account(**({"account": name, "book": "B", "desk": "D", "strategy": "S", "fund": "F", "base_currency": "USD",
                       "nav": Decimal(10_000_000)} | more))


def mark(name: str, mid: float) -> Mark:
    return Mark(instrument=name, window_end=1, ts_event=1, bid=mid, ask=mid, mid=mid, last=None, quality="good")


def position(name: str, quantity: int = 10_000) -> Position:
    return Position(account=name, instrument="X", quantity=str(quantity), average_price=100.0, realised_pnl=0.0, fees={}, currency="USD",
                    trades=1, last_ts_event=1, fifo=Fifo(0.0, None, 0), break_even_price=None, as_of=AsOf(0, 1))


def models_of(*accounts: Account) -> RiskModels:
    book = ValuedBook("USD", LEVELS)
    for record in (X, PAIR):
        book.add_instrument(record)
    for record in accounts:
        book.add_account(record)
    book.add_mark(mark("X", 100.0))
    book.add_mark(mark("EURUSD", 1.10))
    return RiskModels(book, book.contracts, None, INSTRUMENT_GROUPINGS)


def drawdown(models: RiskModels, price: float, at: int, node: str = "desk:D") -> Any:
    models.book.add_mark(mark("X", price))
    models.book.revalue(at)
    return models.run(at).models[node]["drawdown"].get("current")


def test_capital_is_neither_a_gain_nor_a_loss() -> None:
    models = models_of(account("A"))
    models.book.add_position(position("A"))
    assert drawdown(models, 100.0, 1) == 0.0
    models.book.add_account(account("A", nav=Decimal(5_000_000)))
    assert drawdown(models, 100.0, 2) == 0.0, "5m were paid out, nothing was lost"
    assert drawdown(models, 80.0, 3) == pytest.approx(-0.04), "200,000 of 5m"
    models.book.add_account(account("A", nav=Decimal(15_000_000)))
    assert drawdown(models, 80.0, 4) == pytest.approx(-200_000 / 15_000_000), "10m that come in make nothing good"
    # a worker that starts goes on, also where capital moved meanwhile
    kept = models.run(4).models["desk:D"]
    other = models_of(account("A", nav=Decimal(10_000_000)))
    other.book.add_position(position("A"))
    other.resume("desk:D", 4, msgspec.json.decode(msgspec.json.encode(kept)), None)
    assert drawdown(other, 80.0, 5) == pytest.approx(-0.02)
    models.book.add_account(account("A", nav=Decimal(10_000_000)))
    assert drawdown(models, 80.0, 5) == pytest.approx(-0.02)


def test_an_exchange_rate_is_no_capital_and_a_moved_account_brings_no_gain() -> None:
    models = models_of(account("E", base_currency="EUR"))
    models.book.add_position(position("E"))
    assert drawdown(models, 100.0, 1) == 0.0
    models.book.add_mark(mark("EURUSD", 0.99))
    assert drawdown(models, 100.0, 2) == pytest.approx(-0.1)
    models = models_of(account("A"), account("C", desk="OTHER"))
    models.book.add_position(position("A"))
    models.book.add_position(position("C", 0))
    assert drawdown(models, 120.0, 1, "desk:OTHER") == 0.0
    models.book.add_account(account("A", desk="OTHER"))
    assert drawdown(models, 120.0, 2, "desk:OTHER") == 0.0
    assert drawdown(models, 100.0, 3, "desk:OTHER") == pytest.approx(-200_000 / 20_200_000)


def test_leverage_of_no_capital_is_beyond_every_limit() -> None:
    models = models_of(account("A", nav=Decimal(-1000)))
    models.book.add_position(position("A"))
    models.book.revalue(1)
    leverage = models.run(1).models["desk:D"]["leverage"]
    assert leverage["gross"] is None and leverage["quality"] == "missing"
    assert limit_values(models, {"desk:D"})["desk:D", "leverage"] == float("inf")


def test_the_currency_of_a_node_follows_from_what_lies_under_it() -> None:
    accounts = [account("A", base_currency="EUR"), account("C", base_currency="EUR", desk="E"),
                account("G", desk="E"), account("H", desk="H", fund="G")]
    for order in itertools.permutations(accounts):
        book = ValuedBook("USD", LEVELS)
        book.add_instrument(X)
        for record in order:
            book.add_position(position(record.account))
            book.add_account(record)
        found = {name: book.currency_of(k) for name, k in book.rollup.node_index.items()}
        assert [found[n] for n in ("desk:D", "desk:E", "desk:H", "fund:F", "firm")] == ["EUR", "USD", "USD", "USD", "USD"]
    book.rollup.take_touched()
    book.add_account(account("G", desk="E", base_currency="EUR"))
    assert book.currency_of(book.rollup.node_index["fund:F"]) == "EUR"
    assert book.rollup.touched[book.rollup.node_index["fund:F"]] == 1, "it is published anew"


def test_a_roll_dates_the_closes_and_a_missed_one_those_of_before() -> None:
    records = {"X": msgspec.structs.replace(X, prior_close=Decimal(100)), "EURUSD": PAIR}
    (closed,) = with_closes(records, {"X": Decimal(110)}, date(2025, 11, 24))
    assert (closed.prior_close, closed.prior_close_date) == (Decimal(110), "2025-11-24")
    # two days later: the close of before the last opening is none of the day before this one
    (old,) = with_dates(records, date(2025, 11, 23))
    assert (old.prior_close, old.prior_close_date) == (Decimal(100), "2025-11-23")
    assert with_dates({"X": closed}, date(2025, 11, 25)) == []
