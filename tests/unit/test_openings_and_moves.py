"""Start-of-day positions from outside, changed reference data, corrections and busts, by hand."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from models import trade_columns as tc
from schemas.records import Instrument, Position
from tables.position_partition import PositionPartition
from tests.folding import feed, new_partition, trade

T0 = 1_800_000_000_000_000_000
S = 1_000_000_000
KEY = ("A1", "EURUSD")


def row(part: PositionPartition) -> Position:
    """Return the position of A1 in EURUSD."""
    return part.records(np.array([part.find_slot(*part.reference.intern_key(*KEY))]))[0]


def open_from(part: PositionPartition, source: str, units: int, price: float | None, ts: int) -> None:
    """Apply a start-of-day statement."""
    part.open(part.reference.intern_key(*KEY), source, units, price, ts, 0)


def test_sources_add_up_and_the_newest_statement_of_a_source_counts() -> None:
    part = new_partition()
    open_from(part, "PB1", 100, 1.10, T0)
    open_from(part, "PB2", 300, 1.20, T0)
    assert (row(part).quantity, row(part).average_price) == ("400", pytest.approx(1.175))
    open_from(part, "PB1", 50, 1.00, T0 + S)
    assert (row(part).quantity, row(part).opening_quantity) == ("350", "350")
    open_from(part, "PB1", 999, 1.00, T0)
    assert row(part).quantity == "350", "an older statement changes nothing"


def test_trades_before_the_statement_are_part_of_it_and_later_ones_are_not() -> None:
    part = new_partition()
    feed(part, [trade("a", "buy", "100", "1.10", T0), trade("b", "sell", "40", "1.20", T0 + S),
                trade("c", "buy", "10", "1.30", T0 + 5 * S)])
    open_from(part, "PB1", 60, 1.10, T0 + 3 * S)
    got = row(part)
    assert got.quantity == "70" and got.average_price == pytest.approx((60 * 1.10 + 10 * 1.30) / 70)
    assert got.realised_pnl == pytest.approx(40 * 0.10) and got.opening_realised_pnl == pytest.approx(40 * 0.10)
    feed(part, [trade("late", "buy", "5", "1.10", T0 + 2 * S)])
    assert row(part).quantity == "70", "a late trade from before the statement is in it already"


def test_a_statement_without_price_keeps_the_known_average_or_says_that_there_is_none() -> None:
    part = new_partition()
    feed(part, [trade("a", "buy", "100", "1.10", T0)])
    open_from(part, "PB1", 100, None, T0 + S)
    assert row(part).average_price == pytest.approx(1.10)
    other = new_partition()
    open_from(other, "PB1", 100, None, T0)
    assert row(other).average_price is None and row(other).quantity == "100"


def test_openings_survive_a_restart() -> None:
    part = new_partition()
    open_from(part, "PB1", 100, 1.10, T0)
    feed(part, [trade("a", "sell", "30", "1.20", T0 + S)])
    again = PositionPartition(0, part.reference, 262_144, 2 * S)
    again.restore({k: v for k, v in part.cut() if v is not None})
    open_from(again, "PB2", 10, 1.0, T0)
    assert row(again).quantity == "80" and again.side_of(0).openings.keys() == {"PB1", "PB2"}


def test_a_position_is_counted_in_a_finer_increment_as_soon_as_it_is_published() -> None:
    # it kept the decimals that it was opened with until decision 0039: trades of the new increment went to quarantine
    part = new_partition()
    feed(part, [trade("a", "buy", "100", "1.10", T0)])
    part.reference.add_instrument(Instrument(instrument="EURUSD", asset_class="fx", currency="USD",
                                             quantity_increment=Decimal("0.01")))
    assert feed(part, [trade("b", "buy", "5.25", "1.10", T0 + S)]) == [tc.APPLIED]
    assert row(part).quantity == "105.25"


def test_a_correction_and_a_bust_leave_what_never_was_wrong() -> None:
    part = new_partition()
    feed(part, [trade("a", "buy", "100", "50", T0), trade("b", "sell", "50", "60", T0 + S)])
    assert row(part).realised_pnl == 500
    assert feed(part, [trade("x", "sell", "50", "60", T0 + S, action="bust", ref_trade_id="b")]) == [tc.APPLIED]
    assert (row(part).quantity, row(part).realised_pnl, row(part).average_price) == ("100", 0, 50)
    assert feed(part, [trade("y", "buy", "100", "40", T0, action="correct", ref_trade_id="a")]) == [tc.APPLIED]
    assert (row(part).quantity, row(part).average_price) == ("100", 40)
    assert feed(part, [trade("z", "buy", "1", "1", T0, action="bust", ref_trade_id="nobody")]) == [tc.REF_UNKNOWN]
    assert feed(part, [trade("a", "buy", "100", "51", T0)]) == [tc.ID_REUSED]
    assert feed(part, [trade("q", "buy", "0.5", "1", T0)]) == [tc.NOT_REPRESENTABLE]
    assert feed(part, [trade("r", "buy", "5", "-1", T0)]) == [tc.BAD_PRICE]
