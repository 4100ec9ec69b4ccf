"""What a gate measures of its nodes, against the obvious sums: margin, shares, windows, drift, credit, as new as what has come."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.gate import state as gs
from models.gate.book import GateBook
from models.gate.explain import explain
from models.reference import Reference
from schemas.codec import encode
from schemas.controls import Check
from schemas.nodes import Exposure, Pnl, Quality, Risk
from schemas.records import Account, AsOf, Fifo, Instrument, Limit, MarginTier, Mark, Order, Position

DAY_NS, S = 86_400_000_000_000, 1_000_000_000
T0 = 1_795_000_000_000_000_000
PRICES = {"X": 100.0, "Y": 50.0, "Z": 20.0}
TIERS = [MarginTier(up_to=Decimal(5_000), initial=Decimal("0.05"), maintenance=Decimal("0.03")),
         MarginTier(initial=Decimal("0.2"), maintenance=Decimal("0.1"))]
number = itertools.count()


def limit(node: str, metric: str, value: float, **more: Any) -> Limit:
    more = {"limit_id": f"{node}.{metric}.{more.get('window_ms', '')}", "version": 1} | more
    return Limit(node=node, metric=metric, limit=Decimal(str(value)), by="r", reason="test of figures", **more)


def priced(g: GateBook, prices: dict[str, float], ts_ns: int = T0) -> None:
    for name, p in prices.items():
        g.book.add_mark(Mark(instrument=name, window_end=ts_ns, ts_event=ts_ns, bid=p - 0.1, ask=p + 0.1, mid=p, last=None, quality="good"))
        g.set_price(name, p - 0.1, p + 0.1, p, None, ts_ns, True)
    g.refresh(ts_ns)


@pytest.fixture
def gate() -> GateBook:
    g = GateBook("USD", ("book", "desk", "strategy", "fund", "firm"), accounts=8, instruments=16, positions=64, nodes=256, rates=16, ring=4)
    g.positions_hold(9 * 10**18)
    for name, issuer, margin in (("X", "I", {"margin_initial": Decimal("0.1")}), ("Y", "I", {"margin_tiers": TIERS}), ("Z", "J", {})):
        g.add_instrument(Instrument(instrument=name, asset_class="future", currency="USD", prior_close=Decimal(100), issuer=issuer, sector="tech", **margin))  # type: ignore[arg-type]
    for a in ("A", "B"):
        g.add_account(Account(account=a, book=f"B{a}", desk="D", strategy="S", fund=f"F{a}", nav=Decimal(10**6)))
    for metric, value in (("order_quantity", 1e6), ("order_value", 1e9)):
        g.add_limit(limit("firm", metric, value))
    priced(g, PRICES)
    return g


def order(side: str = "buy", quantity: float = 10, instrument: str = "X", account: str = "A", **more: Any) -> Order:
    k = next(number)
    price = PRICES[instrument] * (1.0 - k % 97 * 1e-5 if side == "buy" else 1.001 + k % 97 * 1e-5)
    return Order(order_id=more.pop("order_id", f"o{k}"), account=account, trader="t", instrument=instrument, side=side, type="limit",  # type: ignore[arg-type]
                 quantity=Decimal(str(quantity)), price=Decimal(str(round(price, 6))), ts_event=T0, **more)


def held(quantity: float, instrument: str = "X", account: str = "A") -> Position:
    rev = next(number)
    return Position(account=account, instrument=instrument, quantity=str(quantity), average_price=PRICES[instrument], realised_pnl=0.0, fees={}, currency="USD", trades=rev,
                    last_ts_event=rev, fifo=Fifo(0.0, None, 0), break_even_price=None, as_of=AsOf(0, rev), revision=rev)


def codes(g: GateBook, o: Order, now: int = T0) -> list[str]:
    return [r.code for r in g.decide(o, now).reasons]


def value(g: GateBook, node: str, metric: int) -> float:
    return float(g.state.nodes["value"][g.state.node_index[node], metric])


def test_what_was_executed_counts_before_the_next_mark_window(gate: GateBook) -> None:
    """An order is filled and its position row comes: until the next refresh it counted nowhere, and the limit was open."""
    gate.add_limit(limit("account:A", "gross", 1_500))
    first = order(quantity=10)
    assert codes(gate, first) == []
    gate.add_position(held(10))
    gate.fill(first.order_id, 10)
    assert value(gate, "account:A", gs.GROSS) == pytest.approx(1_000)
    assert codes(gate, order(quantity=10)) == ["GROSS_EXPOSURE"]


def test_a_slice_of_positions_counts_at_once_too(gate: GateBook) -> None:
    gate.add_limit(limit("desk:D", "margin", 1e9))
    gate.add_positions([encode(held(10)), encode(held(-100, "Y", "B"))])
    assert value(gate, "desk:D", gs.GROSS) == pytest.approx(6_000) and value(gate, "desk:D", gs.MARGIN) == pytest.approx(350)


def test_margin_is_of_what_is_held_and_of_what_works_on_its_worse_side(gate: GateBook) -> None:
    gate.add_limit(limit("account:A", "margin", 500))
    gate.add_position(held(30))  # 300
    assert codes(gate, order(quantity=15)) == []  # 450
    assert codes(gate, order(quantity=5.1)) == ["MARGIN"]
    assert codes(gate, order("sell", quantity=75)) == [], "sells net the long first: 45 short at worst, as 45 are long"
    verdict = gate.decide(order("sell", quantity=6), T0)
    assert [r.code for r in verdict.reasons] == ["MARGIN"]
    assert (verdict.reasons[0].measured, verdict.reasons[0].limit_id) == ("510", "account:A.margin.")
    assert codes(gate, order(quantity=90, account="B")) == []


def test_margin_of_tiers_sums_over_instruments_up_the_tree(gate: GateBook) -> None:
    gate.add_position(held(-150, "Y"))  # 7,500: 5,000 at 5 %, 2,500 at 20 %
    gate.add_position(held(20, "X", "B"))
    gate.add_limit(limit("desk:D", "margin", 1_150))  # takes force on what is held already
    assert value(gate, "desk:D", gs.MARGIN) == pytest.approx(750 + 200)
    assert codes(gate, order("sell", quantity=20, instrument="Y", account="A")) == []
    assert codes(gate, order("sell", quantity=1, instrument="Y", account="A")) == ["MARGIN"]
    assert codes(gate, order("buy", quantity=150, instrument="Y", account="A")) == []


def test_margin_without_a_rate_is_not_known_and_only_stops_what_opens(gate: GateBook) -> None:
    gate.add_limit(limit("account:A", "margin", 1e9))
    gate.add_position(held(10, "Z"))
    assert math.isnan(value(gate, "account:A", gs.MARGIN))
    assert codes(gate, order()) == ["MARGIN"] and codes(gate, order("sell", quantity=10, instrument="Z")) == []
    gate.add_position(held(0, "Z"))
    assert codes(gate, order()) == []


def test_margin_of_what_has_no_price_is_not_known(gate: GateBook) -> None:
    gate.add_limit(limit("account:A", "margin", 1e9))
    gate.add_instrument(Instrument(instrument="W", asset_class="future", currency="USD", margin_initial=Decimal("0.1")))
    gate.add_position(msgspec.structs.replace(held(1), instrument="W"))
    gate.refresh(T0)
    assert math.isnan(value(gate, "account:A", gs.MARGIN)) and codes(gate, order()) == ["MARGIN"]


def test_margin_follows_prices_and_exchange_rates(gate: GateBook) -> None:
    gate.add_limit(limit("account:A", "margin", 1e9))
    gate.add_instrument(Instrument(instrument="EURUSD", asset_class="fx", currency="USD"))
    gate.add_instrument(Instrument(instrument="E", asset_class="future", currency="EUR", margin_tiers=TIERS))
    priced(gate, {"EURUSD": 1.2, "E": 100.0})
    PRICES["E"] = 100.0
    row = msgspec.structs.replace(held(60, "E"), currency="EUR")
    gate.add_position(row)
    assert value(gate, "account:A", gs.MARGIN) == pytest.approx((250 + 200) * 1.2), "tiers are in euros"
    priced(gate, {"EURUSD": 1.1, "E": 90.0})
    assert value(gate, "account:A", gs.MARGIN) == pytest.approx((250 + 80) * 1.1)


def test_a_share_of_one_issuer_in_a_fund_counts_what_is_held_and_works(gate: GateBook) -> None:
    gate.add_position(held(300))  # 30,000 of issuer I
    gate.add_position(held(900, "Z"))  # of J
    assert codes(gate, order(quantity=100, instrument="Y")) == []  # 5,000 of I works
    gate.add_limit(limit("fund:FA", "concentration", 0.05))
    asked = order(quantity=160)
    verdict = gate.decide(asked, T0)
    assert [(r.code, r.node, r.measured) for r in verdict.reasons] == [("CONCENTRATION", "fund:FA/issuer:I", "0.051")]
    assert explain(msgspec.json.decode(encode(verdict.inputs)), asked)[0] == 1 << Check.CONCENTRATION
    assert codes(gate, order(quantity=150)) == []
    assert codes(gate, order(quantity=1, instrument="Z")) == [] and codes(gate, order(quantity=160, account="B")) == []
    assert codes(gate, order("sell", quantity=50)) == []
    gate.remove_limit("fund:FA.concentration.")
    assert codes(gate, order(quantity=160)) == []


def test_shares_of_sectors_have_their_own_limit_and_of_an_issuer_the_firms(gate: GateBook) -> None:
    gate.add_limit(limit("firm", "sector_concentration", 0.04))
    gate.add_position(held(300))
    gate.add_position(held(2_000, "Z", "B"))
    assert codes(gate, order(quantity=90)) == [] and codes(gate, order(quantity=20)) == ["CONCENTRATION"]
    gate.add_limit(limit("issuer:J", "concentration", 0.02, mode="soft"))
    verdict = gate.decide(order(quantity=1, instrument="Z", account="B"), T0)
    assert verdict.outcome == "accept" and [(r.code, r.node) for r in verdict.warnings] == [("CONCENTRATION", "issuer:J")]


def test_leverage_of_an_account_is_of_its_own_nav(gate: GateBook) -> None:
    gate.add_limit(limit("account:A", "leverage", 0.01))
    assert codes(gate, order(quantity=100)) == [] and codes(gate, order(quantity=1)) == ["LEVERAGE"]


def test_a_node_has_windows_of_several_lengths_at_once(gate: GateBook) -> None:
    gate.add_limit(limit("account:A", "message_count", 3, window_ms=1_000))
    gate.add_limit(limit("account:A", "message_count", 5, window_ms=60_000))
    gate.add_limit(limit("account:A", "message_value", 1e9, window_ms=60_000, limit_id="V", mode="soft"))
    found = [gate.decide(order(), T0 + k * S // 10).reasons for k in range(4)]
    assert [[r.code for r in x] for x in found] == [[], [], [], ["MESSAGE_RATE"]] and found[3][0].limit_id == "account:A.message_count.1000"
    priced(gate, PRICES, T0 + 10 * S)
    late = [gate.decide(order(), T0 + (10 + k) * S).reasons for k in range(2)]
    assert [[(r.code, r.limit_id, r.measured) for r in x] for x in late] == [[], [("MESSAGE_RATE", "account:A.message_count.60000", "6")]]
    gate.add_limit(limit("account:A", "message_value", 10, window_ms=60_000, limit_id="V", version=2, mode="soft"))
    priced(gate, PRICES, T0 + 200 * S)
    verdict = gate.decide(order(), T0 + 200 * S)
    assert verdict.outcome == "accept" and [(w.code, w.limit_id) for w in verdict.warnings] == [("VALUE_RATE", "V")]


def test_windows_of_a_node_are_few_and_one_that_limits_nothing_makes_room(gate: GateBook) -> None:
    for ms in (1_000, 2_000, 3_000, 4_000):
        gate.add_limit(limit("account:A", "message_count", 1, window_ms=ms))
    with pytest.raises(ValueError, match="window_ms: expected 4 windows"):
        gate.add_limit(limit("account:A", "message_count", 1, window_ms=5_000))
    gate.remove_limit("account:A.message_count.2000")
    gate.add_limit(limit("account:A", "message_count", 1, window_ms=5_000))
    assert codes(gate, order()) == [] and codes(gate, order(), T0 + 4 * S + S // 2) == ["MESSAGE_RATE"]


def test_a_newer_version_elsewhere_leaves_nothing_behind(gate: GateBook) -> None:
    gate.add_limit(limit("account:A", "order_quantity", 5, limit_id="L"))
    gate.add_limit(limit("account:B", "order_quantity", 5, limit_id="L", version=2))
    assert codes(gate, order()) == [] and codes(gate, order(account="B")) == ["MAX_QUANTITY"]
    gate.add_limit(limit("account:A", "position_long", 5, limit_id="P", instrument="X"))
    assert codes(gate, order()) == ["POSITION_LONG"]
    gate.remove_limit("P")
    assert codes(gate, order()) == []


def test_a_price_that_ran_too_far_within_its_window_closes_the_gate_until_it_is_old(gate: GateBook) -> None:
    gate.add_limit(limit("asset_class:future", "price_drift", 100, window_ms=60_000))
    for k, p in enumerate((100.0, 100.5, 101.0)):
        priced(gate, {"X": p}, T0 + k * 10 * S)
    assert codes(gate, order(), T0 + 20 * S) == [], "1 in 101 is 99 basis points"
    priced(gate, {"X": 101.5}, T0 + 30 * S)
    verdict = gate.decide(order(), T0 + 30 * S)
    assert [(r.code, r.measured, r.limit) for r in verdict.reasons] == [("PRICE_DRIFT", f"{1.5 / 101.5 * 1e4:.10g}", "100")]
    priced(gate, {"X": 101.5}, T0 + 75 * S)  # 100.0 is older than a minute, 100.5 is not yet
    assert codes(gate, order(), T0 + 75 * S) == []
    gate.add_limit(limit("instrument:X", "price_drift", 20, window_ms=60_000))  # the nearest holds
    priced(gate, {"X": 101.5}, T0 + 76 * S)
    assert codes(gate, order(), T0 + 76 * S) == ["PRICE_DRIFT"]
    gate.remove_limit("instrument:X.price_drift.60000")
    assert codes(gate, order(), T0 + 76 * S) == []


def test_collars_are_limits_of_the_nearest_of_instrument_class_and_firm(gate: GateBook) -> None:
    far = {"price": Decimal("100.8")}
    assert codes(gate, msgspec.structs.replace(order(), **far)) == []
    gate.add_limit(limit("firm", "collar_bps", 50))
    assert codes(gate, msgspec.structs.replace(order(quantity=11), **far)) == ["PRICE_COLLAR"]
    gate.add_limit(limit("asset_class:future", "collar_bps", 90))
    assert codes(gate, msgspec.structs.replace(order(quantity=12), **far)) == []
    gate.add_limit(limit("instrument:X", "collar_bps", 70))
    gate.add_instrument(msgspec.structs.replace(gate.book.reference.instrument_records["X"], prior_close=Decimal(99)))
    assert codes(gate, msgspec.structs.replace(order(quantity=13), **far)) == ["PRICE_COLLAR"]
    for name in ("instrument:X", "asset_class:future", "firm"):
        gate.remove_limit(f"{name}.collar_bps.")
    assert codes(gate, msgspec.structs.replace(order(quantity=14), **far)) == []
    for node, metric in (("desk:D", "collar_bps"), ("asset_class:futur", "price_drift"), ("issuer:I", "sector_concentration")):
        with pytest.raises(ValueError, match=f"node: expected .* for {metric}, was '{node}'"):
            gate.add_limit(limit(node, metric, 1))


def test_what_has_expired_is_not_traded(gate: GateBook) -> None:
    today, later = T0, T0 + 2 * DAY_NS
    for name, more in (("F", {"expiry": "2026-11-18"}), ("M", {"expiry": "2026-12"}), ("N", {"maturity": "2026-11-17"})):
        gate.add_instrument(Instrument(instrument=name, asset_class="future", currency="USD", **more))  # type: ignore[arg-type]
        PRICES[name] = 100.0
    priced(gate, PRICES, today)
    found = {name: codes(gate, order(instrument=name), today) for name in "FMN"}
    assert found == {"F": [], "M": [], "N": ["RESTRICTED"]}, "the last day is one to trade on; a month is no day"
    priced(gate, PRICES, later)
    assert codes(gate, order(instrument="F"), later) == ["RESTRICTED"] and codes(gate, order(), later) == []
    gate.add_instrument(Instrument(instrument="F", asset_class="future", currency="USD", expiry="2027-03-19"))  # it was wrong
    assert codes(gate, order(instrument="F"), later) == []
    for name in "FMN":
        del PRICES[name]


def test_greeks_and_var_count_what_works(gate: GateBook) -> None:
    gate.add_limit(limit("desk:D", "delta", 2_500))
    assert codes(gate, order()) == [] and codes(gate, order(account="B")) == [] and codes(gate, order()) == ["DELTA"]
    gate.remove_limit("desk:D.delta.")
    gate.add_limit(limit("fund:FB", "var_hist", 99))
    gate.set_var("fund:FB", 50.0, T0)
    gate.set_unit_var(["X"], [5.0], T0)
    assert codes(gate, order(account="A")) == [], "of another fund"
    assert codes(gate, order(account="B")) == ["VAR"], "50 held and 50 more at most"
    assert codes(gate, order(quantity=9.7, account="B")) == []
    assert codes(gate, order(quantity=0.1, account="B")) == ["VAR"], "what works counts, what worked before its VaR was known too"
    gate.remove_limit("fund:FB.var_hist.")


def test_what_works_on_one_side_is_no_hedge_of_the_other(gate: GateBook) -> None:
    """Of orders on both sides those of one may be executed, and those of the other not."""
    gate.add_limit(limit("desk:D", "net", 2_500))
    gate.add_limit(limit("desk:D", "delta", 2_600))
    assert codes(gate, order("buy", 20)) == [] and codes(gate, order("sell", 20, "Y")) == []
    assert codes(gate, order("sell", 10, "Z", "B")) == [] and codes(gate, order("buy", 7)) == ["NET_EXPOSURE", "DELTA"], "2,000 and 700 may be executed alone"
    assert codes(gate, order("buy", 4)) == []
    o = order("sell", 8)
    assert codes(gate, o) == [], "1,000, 200 and 800 on the other side"
    assert codes(gate, order("sell", 6)) == ["NET_EXPOSURE"], "2,600 may be executed alone; so much delta may be"
    gate.add_position(held(-8))
    gate.fill(o.order_id, 8)
    assert value(gate, "desk:D", gs.NET) == pytest.approx(-800 + 2_400 - 1_200)
    assert [value(gate, "desk:D", m) for m in (gs.NET_UP, gs.NET_DOWN, gs.DELTA_UP, gs.DELTA_DOWN)] == pytest.approx([2_400, 1_200] * 2)
    assert codes(gate, order("buy", 8)) == [], "800 are held short: all that is bought comes to 2,400"
    for order_id in list(gate.working):
        gate.release(order_id)
    assert abs(gate.reserved).max() < 1e-6


def test_a_hedged_book_has_no_room_for_what_is_not_hedged(gate: GateBook) -> None:
    """VaR per gross of a node that is hedged is next to nothing: an order's own is what it may add."""
    gate.add_limit(limit("fund:FA", "var_hist", 100))
    gate.add_position(held(1_000, account="A"))
    gate.set_var("fund:FA", 0.5, T0)
    gate.set_unit_var(["X", "Y"], [5.0, 80.0], T0)
    assert codes(gate, order(quantity=1, instrument="Y")) == [] and codes(gate, order(quantity=1, instrument="Y")) == ["VAR"]
    assert codes(gate, order("sell", quantity=900)) == [], "what closes a position adds nothing"
    assert codes(gate, order(quantity=1, instrument="Z")) == ["VAR"], "nobody knows what it has"


def test_a_desk_without_positions_has_no_var_and_may_open_its_first(gate: GateBook) -> None:
    gate.add_limit(limit("fund:FB", "var_hist", 100))
    gate.set_unit_var(["X"], [5.0], T0)
    assert codes(gate, order(quantity=2, account="B")) == ["VAR"], "until it has been looked at"
    gate.refresh(T0)
    assert codes(gate, order(quantity=2, account="B")) == []
    gate.add_position(held(3, account="B"))
    gate.set_var("fund:FB", math.nan, T0)
    assert codes(gate, order(quantity=1, account="B")) == ["VAR"]


def test_var_of_a_node_is_taken_in_the_firms_currency_and_only_where_nothing_is_left_out(gate: GateBook) -> None:
    gate.add_instrument(Instrument(instrument="EURUSD", asset_class="fx", currency="USD"))
    gate.book.add_mark(Mark(instrument="EURUSD", window_end=T0, ts_event=T0, bid=1.09, ask=1.11, mid=1.1, last=None, quality="good"))
    gate.refresh(T0)

    def says(**model: Any) -> float:
        model = {"quality": "good", "var_99": 100.0} | model
        gate.take_var(Risk(node="fund:FA", snapshot_id=T0, ts=T0, as_of=[], quality=Quality(0, 0), base_currency=str(model.pop("currency", "USD")), pnl=Pnl(*[None] * 7),
                           exposure=Exposure(*[None] * 4, 1),
                           models={"var_hist": model}))
        return value(gate, "fund:FA", gs.VAR_HIST)

    assert says() == 100.0 and says(currency="EUR") == pytest.approx(110.0)
    assert math.isnan(says(quality="partial")) and math.isnan(says(quality="missing", var_99=None)) and math.isnan(says(currency="JPY"))


def test_credit_at_a_venue_is_what_works_there_and_the_net_of_the_days_executions(gate: GateBook) -> None:
    gate.add_limit(limit("venue:V", "credit", 2_500))
    for side, quantity in (("buy", 20), ("sell", 5)):
        o = order(side, quantity, venue="V")
        assert codes(gate, o) == []
        gate.add_position(held(20 if side == "buy" else 15))
        gate.fill(o.order_id, quantity)
    assert value(gate, "venue:V", gs.CREDIT) == pytest.approx(1_500)
    assert codes(gate, order(quantity=11, venue="V")) == ["CREDIT"] and codes(gate, order(quantity=11, venue="W")) == []
    assert codes(gate, order(quantity=9, venue="V")) == []
    gate.refresh((T0 // DAY_NS + 1) * DAY_NS + 1)
    assert value(gate, "venue:V", gs.CREDIT) == 0.0


STEPS = st.lists(st.tuples(st.sampled_from(["order", "order", "order", "position", "fill", "release", "price"]), st.sampled_from("XYZ"), st.sampled_from("AB"),
                           st.sampled_from(["buy", "sell"]), st.integers(1, 200)), min_size=5, max_size=40)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_margin_and_shares_are_the_obvious_sums_after_any_history(steps: list[tuple[str, str, str, str, int]]) -> None:
    g = gate.__wrapped__()  # type: ignore[attr-defined]
    for o in (limit("account:A", "margin", 1e12), limit("fund:FA", "concentration", 1e12), limit("firm", "sector_concentration", 1e12)):
        g.add_limit(o)
    g.add_instrument(msgspec.structs.replace(g.book.reference.instrument_records["Z"], margin_initial=Decimal("0.5")))
    g.refresh(T0)
    prices, quantities = dict(PRICES), {}
    for kind, name, account, side, n in steps:
        if kind == "order":
            g.decide(order(side, n, name, account), T0)
        elif kind == "position":
            quantities[account, name] = float(n if side == "buy" else -n)
            g.add_position(held(quantities[account, name], name, account))
        elif kind in ("fill", "release") and g.working:
            chosen = list(g.working)[n % len(g.working)]
            g.fill(chosen, n / 2) if kind == "fill" else g.release(chosen)
        elif kind == "price":
            prices[name] = PRICES[name] * (1 + n * 1e-5)
            priced(g, {name: prices[name]})
            for a in "AB":  # what works is valued anew when its position changes next; here, at once
                g.hold_position(g.state.account(a), g.state.instrument(name))
    margin, issuer, sector = 0.0, {"I": 0.0, "J": 0.0}, 0.0
    for account, name in itertools.product("AB", "XYZ"):
        q = quantities.get((account, name), 0.0)
        left = {s: sum(w.left for w in g.working.values() if (w.order.account, w.order.instrument, w.order.side) == (account, name, s)) for s in ("buy", "sell")}
        worst = max(q + left["buy"], left["sell"] - q, 0.0) * prices[name]
        sector += worst
        if account == "A":
            issuer["J" if name == "Z" else "I"] += worst
            margin += {"X": 0.1 * worst, "Z": 0.5 * worst, "Y": 0.05 * min(worst, 5_000) + 0.2 * max(worst - 5_000, 0)}[name]
    assert value(g, "account:A", gs.MARGIN) == pytest.approx(margin, abs=1e-6)
    for node, want in (("fund:FA/issuer:I", issuer["I"]), ("fund:FA/issuer:J", issuer["J"]), ("firm/sector:tech", sector)):
        if node in g.state.node_index:  # a share is opened by the first order that adds to it
            assert value(g, node, gs.GROSS) == pytest.approx(want, abs=1e-6)


def test_tiers_that_cannot_be_counted_with_are_refused() -> None:
    reference = Reference(lambda account: 0)
    one, rest = TIERS
    for tiers, text in (([rest, one], r"margin_tiers\[1\].up_to: expected more than Infinity"), ([one, one], r"margin_tiers\[1\].up_to: expected more than 5000"),
                        ([msgspec.structs.replace(one, initial=Decimal(-1))], r"margin_tiers\[0\]: expected rates of 0 or more, was -1")):
        with pytest.raises(ValueError, match=text):
            reference.add_instrument(Instrument(instrument="T", asset_class="future", currency="USD", margin_tiers=tiers))
    for rate, text in (("-1", "a rate of 0 or more, was -1"), ("NaN", "a finite number of at most 30 digits, was NaN")):
        with pytest.raises(ValueError, match=f"margin_initial: expected {text}"):
            reference.add_instrument(Instrument(instrument="T", asset_class="future", currency="USD", margin_initial=Decimal(rate)))


def test_what_works_is_held_and_given_back_whole_beside_prices_without_bounds(gate: GateBook) -> None:
    """A price of 1e308, and terms put right meanwhile: infinite figures were reserved, and NaN was what they left."""
    works = order(quantity=10)
    assert codes(gate, works) == []
    before = [value(gate, node, gs.GROSS) for node in ("firm", "account:A")]
    record = gate.book.reference.instrument_records["X"]
    for price, multiplier in ((1.7e308, 10), (-1.7e308, 100), (1.7e308, 1)):
        priced(gate, {"X": price})
        assert "NO_REFERENCE_PRICE" in codes(gate, order(quantity=1)), "nobody knows what it is worth"
        gate.add_instrument(msgspec.structs.replace(record, multiplier=Decimal(multiplier)))
        priced(gate, {"X": price})
        assert not any(math.isinf(value(gate, "firm", metric)) for metric in (gs.GROSS, gs.NET, gs.DELTA))
    priced(gate, {"X": 100.0})
    gate.add_instrument(msgspec.structs.replace(record, multiplier=Decimal(2)))
    assert [value(gate, node, gs.GROSS) for node in ("firm", "account:A")] == pytest.approx([2 * x for x in before])
    gate.fill(works.order_id, 10)
    assert value(gate, "firm", gs.GROSS) == pytest.approx(0.0)
