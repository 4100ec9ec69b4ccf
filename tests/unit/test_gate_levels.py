"""Levels by any name and groupings beside the tree: every node that positions have holds limits, halts and reservations."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.settings import Settings
from models.gate import state as gs
from models.gate.book import GateBook
from schemas.codec import decoder_of, encode_account
from schemas.records import Account, AsOf, Control, Fifo, Instrument, Mark, Position
from tests.unit.test_gate_book import T0, codes, limit, order

LEVELS = ("book", "desk", "region", "fund", "firm")
NODES = ("book:BA", "desk:D", "region:EMEA", "fund:F", "firm", "account:A", "dealer:DA", "pm:P", "asset_class:future", "currency:USD", "issuer:I", "sector:S", "instrument:X")


def account(name: str, region: str | None, **more: Any) -> Account:
    fields = {"account": name, "book": f"B{name}", "desk": "D" if name == "A" else "E", "strategy": "S", "fund": "F", "dealer": f"D{name}", "pm": "P", "nav": "1000000"} | more
    return decoder_of(Account).decode(msgspec.json.encode(fields | ({} if region is None else {"region": region})))


def firm() -> GateBook:
    g = GateBook("USD", LEVELS, accounts=8, instruments=8, positions=64, nodes=128, rates=16)
    g.positions_hold(9 * 10**18)
    for name, asset_class in (("X", "future"), ("EURUSD", "fx"), ("E", "equity")):
        g.add_instrument(Instrument(instrument=name, asset_class=asset_class, currency="USD", prior_close=Decimal(100), issuer="I", sector="S"))  # type: ignore[arg-type]
        g.book.add_mark(Mark(instrument=name, window_end=T0, ts_event=T0, bid=99.9, ask=100.1, mid=100.0, last=None, quality="good"))
        g.set_price(name, 99.9, 100.1, 100.0, None, T0, True)
    g.add_account(account("A", "EMEA"))
    g.add_account(account("B", "APAC"))
    g.add_limit(limit("Q", "firm", "order_quantity", 1e6))
    g.add_limit(limit("V", "firm", "order_value", 1e9))
    g.refresh(T0)
    return g


def held(g: GateBook, name: str, instrument: str, quantity: int) -> None:
    g.add_position(Position(account=name, instrument=instrument, quantity=str(quantity), average_price=100.0, realised_pnl=0.0, fees={}, currency="USD", trades=1, last_ts_event=1,
                            fifo=Fifo(0.0, None, 0), break_even_price=None, as_of=AsOf(0, 1)))


def test_a_level_is_a_field_of_its_own_name_on_the_wire_and_stays_one() -> None:
    a = account("A", "EMEA")
    assert a.levels == {"region": "EMEA"} and a.under("region") == "EMEA" and a.under("desk") == "D" and a.under("nav") is None
    again = msgspec.json.decode(encode_account(a))
    assert again["region"] == "EMEA" and "levels" not in again
    assert decoder_of(Account).decode(encode_account(a)) == a and account("A", None).under("region") is None


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("metric", ["gross", "net", "long", "order_quantity", "daily_quantity", "margin", "var_hist"])
def test_a_hard_limit_holds_on_every_kind_of_node_or_is_refused_when_it_is_set(node: str, metric: str) -> None:
    g = firm()
    bound = {"order_quantity": 9, "daily_quantity": 9}.get(metric, 999)
    try:
        g.add_limit(limit("L", node, metric, bound))
    except ValueError as error:
        assert "node: expected" in str(error) and node == "instrument:X"
        return
    assert codes(g, order("1", quantity=10))  # it says so; what VaR and margin are nobody has said
    if metric not in ("margin", "var_hist"):
        assert codes(g, order("2", quantity=9)) == []
        assert codes(g, order("3", "A", quantity=1, price=99.9)) == ([] if metric == "order_quantity" else [{"gross": "GROSS_EXPOSURE", "net": "NET_EXPOSURE", "long": "LONG_EXPOSURE",
                                                                                                             "daily_quantity": "DAILY_QUANTITY"}[metric]])


@pytest.mark.parametrize("node", [n for n in NODES if n != "firm"])
def test_a_halt_stops_every_kind_of_node_and_a_kill_names_what_works_there(node: str) -> None:
    g = firm()
    assert codes(g, order("1", quantity=1)) == []
    assert [w.order.order_id for w in g.add_control(Control(scope=node, state="killed", reason="r", by="p", ts=T0, rev=1))] == ["1"]
    assert codes(g, order("2", quantity=2)) == ["HALTED"]


def test_limits_of_a_region_follow_what_is_held_and_an_account_that_moves() -> None:
    g = firm()
    g.add_limit(limit("L", "region:EMEA", "gross", 1_500))
    held(g, "A", "X", 10)
    assert codes(g, order("1", quantity=6)) == ["GROSS_EXPOSURE"] and codes(g, order("2", "B", quantity=20)) == []
    g.add_account(account("B", "EMEA"))  # its working order of 2,000 comes with it
    assert codes(g, order("3", "B", quantity=1, price=99)) == ["GROSS_EXPOSURE"]
    g.add_account(account("A", None))
    g.add_account(account("B", "APAC"))
    assert codes(g, order("4", quantity=6)) == [] and "region:" not in g.state.node_index
    assert g.book.rollup.nodes[g.book.rollup.node_index["region:EMEA"], 0] == 0.0


def test_pairs_and_currencies_hold_what_settles_in_them() -> None:
    g = firm()
    g.add_limit(limit("P", "pair:EURUSD", "net", 1_000))
    g.add_limit(limit("C", "currency:USD", "gross", 5_000))
    fx = msgspec.structs.replace(order("1", quantity=11), instrument="EURUSD")
    assert codes(g, fx) == ["NET_EXPOSURE"] and codes(g, order("2", quantity=11)) == []
    held(g, "B", "E", 30)
    assert codes(g, order("3", quantity=10, price=99)) == ["GROSS_EXPOSURE"]


def test_leverage_counts_delta_equivalents_of_all_that_is_held_but_cash_in_the_base_currency() -> None:
    g = firm()
    g.add_instrument(Instrument(instrument="CASH", asset_class="cash", currency="USD"))
    g.add_limit(limit("L", "pm:P", "leverage", 0.0015))  # 3,000 of the two accounts' 2,000,000
    held(g, "A", "X", -10)
    held(g, "B", "X", 10)
    held(g, "A", "CASH", 10**6)
    g.refresh(T0)
    assert codes(g, order("1", "B", quantity=11)) == ["LEVERAGE"] and codes(g, order("2", "B", quantity=10)) == []
    assert codes(g, order("3", "B", quantity=1, price=99)) == ["LEVERAGE"]  # what works counts
    assert codes(g, order("4", "A", quantity=5, price=99)) == []  # it closes a short


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("AB"), st.sampled_from(["X", "E", "EURUSD"]), st.integers(-9, 9), st.sampled_from(["EMEA", "APAC", None])), max_size=12))
def test_levels_add_up_and_an_account_that_moved_is_as_if_it_had_always_been_there(steps: list[tuple[str, str, int, str | None]]) -> None:
    g, homes, last = firm(), {"A": "EMEA", "B": "APAC"}, dict[tuple[str, str], int]()
    for k, (name, instrument, quantity, region) in enumerate(steps):
        held_now = last[name, instrument] = quantity
        g.add_position(Position(account=name, instrument=instrument, quantity=str(held_now), average_price=100.0, realised_pnl=0.0, fees={}, currency="USD", trades=1, last_ts_event=1,
                                fifo=Fifo(0.0, None, 0), break_even_price=None, as_of=AsOf(0, k + 1)))
        homes[name] = region  # type: ignore[assignment]
        g.add_account(account(name, region))
        g.decide(msgspec.structs.replace(order(f"o{k}", name, quantity=1 + k, price=99 - k), instrument=instrument), T0)
    anew = firm()
    for name, region in homes.items():
        anew.add_account(account(name, region))
    for (name, instrument), quantity in last.items():
        held(anew, name, instrument, quantity)
    for w in g.working.values():
        anew.place(w.order, w.decided_ns, T0)
    g.refresh(T0)
    anew.refresh(T0)
    for metric in (gs.GROSS, gs.NET, gs.LONG, gs.SHORT):
        for node in NODES:
            a, b = ((x.state.nodes["value"][x.state.node_index[node], metric] if node in x.state.node_index else 0.0) for x in (g, anew))
            assert a == pytest.approx(b), (node, metric)
    placed = [f"region:{r}" for r in set(homes.values()) if r]
    in_regions = sum(g.state.nodes["value"][g.state.node_index[n], gs.GROSS] for n in placed)
    outside = sum(g.state.nodes["value"][g.state.node_index[f"account:{a}"], gs.GROSS] for a, r in homes.items() if r is None)
    assert in_regions + outside == pytest.approx(g.state.nodes["value"][g.state.node_index["firm"], gs.GROSS])


def test_levels_that_there_is_no_room_or_no_name_for_are_refused() -> None:
    for wrong in ("a,b,c,d,e,f,fund,firm", "fund,pm,firm", "fund,account,firm", "fund,a b,firm"):
        with pytest.raises(ValueError, match="levels: expected"):
            Settings(levels=wrong)  # type: ignore[arg-type]
    assert Settings(levels="a,b,c,d,e,fund,firm").levels[0] == "a"  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="levels: expected at most 6"):
        GateBook("USD", ("a", "b", "c", "d", "e", "f", "g", "firm"), accounts=2, instruments=2, positions=2, nodes=16, rates=2)
