"""The start-of-day roll: whatever arrives when, the opening is what was traded before the day, and nothing else moves."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.naive_fold import NaiveBook
from models.reference import unit_value
from models.trading_day import TradingDay
from tables.position_partition import PositionPartition
from tests.folding import ACCOUNTS, INSTRUMENTS, assert_equal, close, feed, naive, new_partition, trade
from tests.property.test_position_fold import sequences

T0 = 1_800_000_000_000_000_000
S = 1_000_000_000
HOUR = 3600 * S


def restarted(part: PositionPartition) -> PositionPartition:
    """Return the partition as a new owner restores it."""
    out = PositionPartition(0, part.reference, 262_144, 2 * S)
    out.restore({k: v for k, v in part.whole() if v is not None})
    return out


def assert_openings(part: PositionPartition, book: NaiveBook, at: int, mark: float) -> None:
    """Assert that openings hold the fills before ``at``: their quantity, and their total P&L at any price."""
    records = {(r.account, r.instrument): r for r in part.records(np.arange(len(part.positions)))}
    for key, fills in book.fills.items():
        record, instrument = records[key], INSTRUMENTS[key[1]]
        before = [f for f in fills if f.ts < at and not f.busted]
        quantity = sum((f.quantity for f in before), Decimal(0))
        assert Decimal(record.opening_quantity) == quantity, key
        assert (record.opening_kind, record.opening_ts, record.stated) == ("roll", at, False)
        value = float(unit_value(instrument)) * 10 ** (2 if key[1] == "ACME" else 0)
        if instrument.inverse:
            want = sum(float(f.quantity) * (1 / float(f.price) - 1 / mark) for f in before) * value
            held = 0.0 if record.opening_price is None else 1 / record.opening_price - 1 / mark
            scale = sum(abs(float(f.quantity / f.price)) for f in before) * value
        else:
            want = sum(float(f.quantity) * (mark - float(f.price)) for f in before) * value
            held = 0.0 if record.opening_price is None else mark - record.opening_price
            scale = sum(abs(float(f.quantity * f.price)) for f in before) * value
        settled = instrument.settlement or instrument.currency
        want -= sum(float(f.fees.get(settled, 0)) for f in before)
        close(record.opening_realised_pnl + float(quantity) * held * value, want, scale + 1e4)
        for kept, of in ((record.opening_fees, "fees"), (record.opening_funding, "funding")):
            paid: dict[str, float] = {}
            for f in before:
                for currency, amount in getattr(f, of).items():
                    if of == "funding" or currency != settled:
                        paid[currency] = paid.get(currency, 0.0) + float(amount)
            for currency in kept.keys() | paid.keys():
                close(kept.get(currency, 0.0), paid.get(currency, 0.0), 1e4)


@given(sequences(), st.integers(0, 40), st.integers(-3, 30), st.integers(0, 40), st.floats(0.5, 300))
def test_late_trades_corrections_and_busts_land_in_the_day_they_belong_to(
        trades: list[dict[str, Any]], cut: int, day: int, restart: int, mark: float) -> None:
    at = T0 + day * S
    part = new_partition()
    feed(part, trades[:cut])
    assert all(part.roll(account, at) for account in ACCOUNTS)
    rest = trades[cut:]
    feed(part, rest[:restart], 3, cut)
    part = restarted(part)
    feed(part, rest[restart:], 7, cut + restart)
    book = naive(trades)
    assert_equal(part, book)
    assert_openings(part, book, at, mark)


@given(sequences(), st.integers(0, 40))
def test_two_days_in_a_row(trades: list[dict[str, Any]], cut: int) -> None:
    part = new_partition()
    feed(part, trades[:cut])
    for account in ACCOUNTS:
        part.roll(account, T0 + S)
    feed(part, trades[cut:])
    for account in ACCOUNTS:
        assert part.roll(account, T0 + 9 * S)
        assert not part.roll(account, T0 + 5 * S), "a day that was begun is not begun again"
    book = naive(trades)
    assert_equal(part, book)
    assert_openings(part, book, T0 + 9 * S, 100.0)


def test_a_bust_of_yesterdays_trade_after_the_roll_is_no_pnl_of_today() -> None:
    part = new_partition()
    feed(part, [trade("a", "buy", "100", "50", T0), trade("b", "sell", "50", "60", T0 + S)])
    part.roll("A1", T0 + HOUR)
    feed(part, [trade("c", "sell", "10", "61", T0 + 2 * HOUR)])
    feed(part, [trade("x", "sell", "50", "60", T0 + 2 * HOUR, action="bust", ref_trade_id="b")])
    got = part.records(np.array([0]))[0]
    assert (got.quantity, got.opening_quantity) == ("90", "100")
    # at a close of 62 yesterday ended with 100 x 12; today 10 were sold at 61 and 90 stand at 62
    yesterday = got.opening_realised_pnl + 100 * (62 - got.opening_price)
    assert yesterday == pytest.approx(1200)
    total = got.realised_pnl + 90 * (62 - got.average_price)
    assert total - yesterday == pytest.approx(-10)


def test_a_roll_over_a_statement_keeps_what_it_stated_and_absorbs_what_it_included() -> None:
    part = new_partition()
    part.open(part.reference.intern_key("A1", "EURUSD"), "PB1", 100, 1.10, T0, 0)
    feed(part, [trade("a", "buy", "10", "1.20", T0 + S)])
    part.roll("A1", T0 + HOUR)
    feed(part, [trade("early", "buy", "7", "1.0", T0 - S), trade("late", "buy", "5", "1.2", T0 + 2 * S)])
    got = part.records(np.array([0]))[0]
    assert (got.quantity, got.opening_quantity, got.stated) == ("115", "115", True)
    again = restarted(part)
    feed(again, [trade("earlier", "buy", "9", "1.0", T0 - 2 * S)], first_offset=9)
    assert again.records(np.array([0]))[0].quantity == "115"


def test_a_statement_of_before_the_roll_that_comes_late_is_no_new_day() -> None:
    part = new_partition()
    feed(part, [trade("a", "buy", "10", "1.20", T0 + 2 * HOUR)])
    part.roll("A1", T0 + HOUR)
    part.open(part.reference.intern_key("A1", "EURUSD"), "PB1", 100, 1.10, T0, 0)
    got = part.records(np.array([0]))[0]
    assert (got.quantity, got.opening_quantity, got.opening_ts, got.opening_kind) == ("110", "100", T0 + HOUR, "roll")


def test_a_position_that_opens_after_the_roll_knows_its_day_also_after_a_restart() -> None:
    part = new_partition()
    part.roll("A1", T0 + HOUR)
    part = restarted(part)
    feed(part, [trade("a", "buy", "10", "50", T0), trade("b", "buy", "3", "51", T0 + HOUR)])
    got = part.records(np.array([0]))[0]
    assert (got.quantity, got.opening_quantity, got.opening_price) == ("13", "10", 50.0)


@pytest.mark.parametrize(("start", "zone", "when", "begins"), [
    ("00:00", "UTC", "2026-11-20T00:00:00", "2026-11-20T00:00:00"),
    ("00:00", "UTC", "2026-11-19T23:59:59", "2026-11-19T00:00:00"),
    ("17:00", "America/New_York", "2026-11-20T21:59:59", "2026-11-19T22:00:00"),
    ("17:00", "America/New_York", "2026-11-20T22:00:00", "2026-11-20T22:00:00"),
    ("17:00", "America/New_York", "2026-07-20T21:00:00", "2026-07-20T21:00:00"),
    ("06:00", "Asia/Tokyo", "2026-11-20T20:59:59", "2026-11-19T21:00:00"),
])
def test_trading_days(start: str, zone: str, when: str, begins: str) -> None:
    def ns(text: str) -> int:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * S

    day = TradingDay(start, zone)
    assert day.begin_ns(ns(when)) == ns(begins)
    assert day.index(ns(begins)) == day.index(ns(when)) == day.index(day.end_ns(ns(when))) - 1


def test_a_day_that_daylight_saving_makes_longer_is_one_day() -> None:
    day = TradingDay("17:00", "America/New_York")
    begin = int(datetime(2026, 10, 31, 21, tzinfo=UTC).timestamp()) * S
    assert day.end_ns(begin) - day.begin_ns(begin) == 25 * HOUR
    with pytest.raises(ValueError, match=r"day: expected HH:MM"):
        TradingDay("5pm", "UTC")
