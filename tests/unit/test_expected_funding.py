"""What a perpetual is expected to pay: said where its rate is known, and only there."""

from __future__ import annotations

from decimal import Decimal

import pytest

from models.valued_book import ValuedBook
from schemas.market import Surface
from schemas.records import Account, AsOf, Fifo, Instrument, Mark, Position

LEVELS = ("book", "desk", "strategy", "fund", "firm")


def position(instrument: str, quantity: str) -> Position:
    return Position(account="A", instrument=instrument, quantity=quantity, average_price=90.0, realised_pnl=0.0, fees={}, currency="USD",
                    trades=1, last_ts_event=1, fifo=Fifo(0.0, 90.0, 1), break_even_price=90.0, as_of=AsOf(0, 1))


@pytest.mark.parametrize(("quantity", "expected"), [("5", 1.5), ("-5", -1.5)])
def test_the_long_pays_a_positive_rate(quantity: str, expected: float) -> None:
    book = ValuedBook("USD", LEVELS)
    book.add_account(Account(account="A", book="B", desk="D", strategy="S", fund="F"))
    for name, kind in (("PERP", "perpetual"), ("SHARE", "equity"), ("DARK", "perpetual")):
        book.add_instrument(Instrument(instrument=name, asset_class=kind, currency="USD", quantity_increment=Decimal(1)))  # type: ignore[arg-type]
    rows = {name: book.add_position(position(name, quantity)) for name in ("PERP", "SHARE", "DARK")}
    for name in ("PERP", "SHARE"):
        book.add_mark(Mark(instrument=name, window_end=1, ts_event=1, bid=99.0, ask=101.0, mid=100.0, last=100.0, quality="good"))
    book.revalue(10)
    assert book.expected_funding_per_day(rows["PERP"]) is None  # no rate
    for name in rows:
        book.add_surface(Surface(underlying=name, ts_event=1, funding_rate=0.001))
    assert book.expected_funding_per_day(rows["PERP"]) is None  # how often is not known
    for name in rows:
        book.add_surface(Surface(underlying=name, ts_event=1, funding_rate=0.001, funding_interval_hours=8.0))
    # 5 x 100 x 0.1 %, three times a day
    assert book.expected_funding_per_day(rows["PERP"]) == pytest.approx(expected)
    assert book.expected_funding_per_day(rows["SHARE"]) is None and book.expected_funding_per_day(rows["DARK"]) is None
