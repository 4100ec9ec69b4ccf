"""A limit that is reached is not exceeded, and one that is exceeded lets pass what lowers the worse side, and nothing that opens another one."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from models.gate.book import GateBook
from schemas.records import Account, AsOf, Fifo, Instrument, Mark, Position
from tests.unit.test_gate_book import LEVELS, T0, limit, order

S = 1_000_000_000


def holding(quantity: str, price: float = 100.0, tick: float = 0.1, **more: Any) -> GateBook:
    """Return a gate whose account A holds so much of X."""
    g = GateBook("USD", LEVELS)
    g.positions_hold(9 * 10**18)
    g.add_instrument(Instrument(instrument="X", asset_class="future", currency="USD", **more))
    for a in ("A", "B"):
        g.add_account(Account(account=a, book=f"B{a}", desk="D", strategy="S", fund="F", nav=Decimal(10**6)))
    g.book.add_mark(Mark(instrument="X", window_end=T0, ts_event=T0, bid=price, ask=price, mid=price, last=None, quality="good"))
    g.set_price("X", price, price, price, None, T0, True)
    g.add_limit(limit("Q", "firm", "order_quantity", 1e6))
    g.add_limit(limit("V", "firm", "order_value", 1e9))
    g.add_position(Position(account="A", instrument="X", quantity=quantity, average_price=price, realised_pnl=0.0, fees={}, currency="USD", trades=1, last_ts_event=1,
                            fifo=Fifo(0.0, None, 0), break_even_price=None, as_of=AsOf(0, 1)))
    g.refresh(T0)
    return g


def says(g: GateBook, order_id: str, side: str, quantity: float | str, price: float = 100.0, **more: Any) -> list[str]:
    return [f"{r.code} {r.measured} of {r.limit}" for r in g.decide(order(order_id, side=side, quantity=quantity, price=price, **more), T0 + len(order_id) * S).reasons]  # type: ignore[arg-type]


def replace(g: GateBook, order_id: str, ref: str, quantity: float, price: float = 99.9, side: str = "buy", **more: Any) -> list[str]:
    return says(g, order_id, side, quantity, price, action="replace", ref_order_id=ref, **more)


def test_what_is_exactly_at_its_limit_passes_whatever_its_decimals_are_in_binary() -> None:
    g = holding("0", 1.1)
    for metric in ("order_value", "gross", "long", "net", "daily_value"):
        g.add_limit(limit(metric, "desk:D", metric, 3.3))
    g.add_limit(limit("P", "account:A", "position_long", 3, instrument="X"))
    assert says(g, "a", "buy", 3, 1.1) == []
    assert says(g, "bb", "buy", "0.0000001", 1.1) != []
    g = holding("-0.3")
    for metric, value in (("daily_quantity", 0.3), ("message_value", 30)):
        g.add_limit(limit(metric, "desk:D", metric, value, window_ms=60_000 if metric == "message_value" else None))
    g.add_limit(limit("P", "account:A", "position_long", 0, instrument="X"))
    assert says(g, "a", "buy", "0.1") == says(g, "bb", "buy", "0.2", 99.9) == []
    assert says(g, "ccc", "buy", "0.0001", 99.8) != []
    g = holding("0.3")  # and closes to the last tenth, an order after the other
    for k, quantity in enumerate(("0.1", "0.1", "0.1")):
        assert says(g, "a" * (k + 1), "sell", quantity, 100 + k / 10, reduce_only=True) == []
    assert says(g, "dddd", "sell", "0.1", 100.5, reduce_only=True) != []


def test_what_closes_passes_beside_what_closes_already_only_as_far_as_it_opens_nothing_beyond_a_limit() -> None:
    for sold, found in ((100, ["GROSS_EXPOSURE 10000 of 9000"]), (95, ["GROSS_EXPOSURE 9500 of 9000"]), (90, []), (110, ["GROSS_EXPOSURE 11000 of 9000"])):
        for side, sign in (("sell", ""), ("buy", "-")):
            g = holding(f"{sign}100")
            g.add_limit(limit("G", "desk:D", "gross", 9_000))
            assert says(g, "a", side, 100) == []
            assert says(g, "bb", side, sold, 100.1 if side == "sell" else 99.9) == found
    g = holding("100")
    g.add_limit(limit("G", "desk:D", "gross", 9_000))
    assert says(g, "a", "sell", 150) == []  # nearer to flat
    assert says(g, "bb", "sell", 45, 100.1) == ["GROSS_EXPOSURE 9500 of 9000"]
    g = holding("100", margin_initial=Decimal("0.1"))
    g.add_limit(limit("M", "account:A", "margin", 500))
    assert says(g, "a", "sell", 100) == []
    assert says(g, "bb", "sell", 60, 100.1) == ["MARGIN 600 of 500"] and says(g, "cc", "sell", 50, 100.1) == []


@pytest.mark.parametrize(("metric", "value", "node"), [("gross", 1_000, "desk:D"), ("long", 1_000, "desk:D"), ("net", 1_000, "desk:D"), ("credit", 1_000, "firm"), ("margin", 100, "account:A"),
                                                       ("position_long", 10, "account:A"), ("order_quantity", 10, "desk:D"), ("order_value", 1_000, "desk:D"), ("daily_quantity", 10, "desk:D"),
                                                       ("daily_value", 1_000, "desk:D"), ("gross", 1_000, "venue:V")])
def test_a_replace_that_makes_an_order_smaller_passes_every_limit_that_it_comes_nearer_to(metric: str, value: float, node: str) -> None:
    g = holding("0", margin_initial=Decimal("0.1"))
    assert says(g, "a", "buy", 15, venue="V") == []
    g.add_limit(limit("L", node, metric, value, instrument="X" if metric == "position_long" else None))
    assert replace(g, "bb", "a", 16, venue="V") != [] and replace(g, "bb", "a", 12, venue="V") == []
    assert g.working["bb"].left == 12 and (metric.startswith("daily") or replace(g, "ccc", "bb", 14, venue="V") != [])
    if node == "venue:V":  # what makes it smaller here makes it larger elsewhere
        g.add_limit(limit("W", "venue:W", metric, value))
        assert replace(g, "ccc", "bb", 11, venue="W") == ["GROSS_EXPOSURE 1100 of 1000"]


def test_held_and_working_beyond_a_limit_that_was_tightened_comes_down() -> None:
    g = holding("10")
    g.add_limit(limit("P", "account:A", "position_long", 20, instrument="X"))
    assert says(g, "a", "buy", 5) == []
    g.add_limit(limit("P", "account:A", "position_long", 12, version=2, instrument="X"))
    assert replace(g, "bb", "a", 3) == []
