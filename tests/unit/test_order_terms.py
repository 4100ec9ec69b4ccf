"""What an order says of itself: ticks and lots, stops, reduce_only, whose orders it may not trade against."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.gate.book import GateBook
from models.gate.explain import explain
from models.gate.order_terms import wrong_terms
from models.gate.reduce_only import beyond_position
from schemas.codec import decoder_of, encode
from schemas.records import Account, AsOf, Decision, Fifo, Instrument, Order, Position
from tests.unit.test_gate_book import T0, as_recorded, codes, gate, limit, order

assert gate  # the fixture


def stop(order_id: str, side: str = "buy", quantity: float = 2, at: str = "100.5", price: str | None = None, **more: Any) -> Order:
    made = order(order_id, side=side, quantity=quantity, **more)
    return msgspec.structs.replace(made, type="stop" if price is None else "stop_limit", price=None if price is None else Decimal(price), stop_price=Decimal(at))


def hold(g: GateBook, quantity: int, account: str = "A", offset: int = 1) -> None:
    g.add_position(Position(account=account, instrument="X", quantity=str(quantity), average_price=100.0, realised_pnl=0.0, fees={}, currency="USD", trades=1, last_ts_event=1,
                            fifo=Fifo(0.0, None, 0), break_even_price=None, as_of=AsOf(0, offset)))


# ---- ticks and lots
@settings(max_examples=200, deadline=None)
@given(st.decimals("-1e9", "1e9", places=6), st.decimals("1e-6", "1e9", places=6), st.sampled_from(["0.01", "0.25", "1", "0.00001", "7", "1E-12"]), st.sampled_from(["1", "0.001", "100", "0.3"]))
def test_price_and_quantity_are_multiples_of_tick_and_lot(price: Decimal, quantity: Decimal, tick: str, lot: str) -> None:
    instrument = Instrument(instrument="X", asset_class="future", currency="USD", price_increment=Decimal(tick), quantity_increment=Decimal(lot))
    found = wrong_terms(msgspec.structs.replace(order("1"), price=price, quantity=quantity), instrument)
    off = [name for name, value, step in (("price", price, tick), ("quantity", quantity, lot)) if (value * 10**12) % (Decimal(step) * 10**12)]
    assert (found is None) == (not off)
    for name, value, step in (("price", price, tick), ("quantity", quantity, lot)):
        assert found is None or (f"{name} {value}" in found[0] and f"{name}: a multiple of {step}" in found[1]) == (name in off)


def test_what_is_off_the_tick_is_refused_with_both_figures_and_reproduces(gate: GateBook) -> None:
    gate.add_instrument(msgspec.structs.replace(gate.book.reference.instrument_records["X"], price_increment=Decimal("0.01"), quantity_increment=Decimal(1)))
    o = order("1", quantity=0.5, price=100.005)
    verdict = gate.decide(o, T0)
    (reason,) = verdict.reasons
    assert (reason.code, reason.measured, reason.limit) == ("INVALID_ORDER", "price 100.005, quantity 0.5", "price: a multiple of 0.01, quantity: a multiple of 1")
    decision = Decision(order_id="1", account="A", instrument="X", outcome="reject", reasons=verdict.reasons, effect=verdict.effect, snapshot_id=0, limits_version=1, ts_event=T0,
                        ts_decision=T0, service_ns=1, order=o, warnings=verdict.warnings)
    assert explain(as_recorded(verdict.inputs), o).differs_from(decision) == []
    assert codes(gate, order("2", quantity=1, price=100.01)) == []
    assert codes(gate, order("3", action="cancel", ref_order_id="2", quantity=0.5)) == []  # a cancel has no price
    assert codes(gate, stop("4", at="100.505")) == ["INVALID_ORDER"]


# ---- stops
def test_a_stop_is_measured_at_its_stop_price_or_at_its_limit(gate: GateBook) -> None:
    v = gate.decide(stop("1"), T0)
    assert v.outcome == "accept" and v.effect["value"] == 201 and v.effect["gross"] == pytest.approx(201)
    v = gate.decide(stop("2", price="100.6"), T0)
    assert v.outcome == "accept" and v.effect["value"] == pytest.approx(201.2)
    v = gate.decide(stop("3", "sell", at="99", quantity=1), T0)
    assert v.outcome == "accept" and v.effect["value"] == 99 and v.effect["net"] == pytest.approx(-99)


@pytest.mark.parametrize(("more", "says"), [
    ({"type": "stop", "price": None}, "stop_price none"), ({"type": "stop_limit"}, "stop_price none"), ({"type": "stop", "stop_price": Decimal(101)}, "type stop, price 100"),
    ({"stop_price": Decimal(101)}, "type limit, stop_price 101"), ({"type": "market", "price": None, "stop_price": Decimal(101)}, "type market, stop_price 101"),
    ({"type": "stop", "price": None, "stop_price": Decimal("nan")}, "stop_price NaN"), ({"type": "stop_limit", "price": None, "stop_price": Decimal(101)}, "price none")])
def test_terms_that_contradict_each_other_are_refused_with_them(gate: GateBook, more: dict[str, Any], says: str) -> None:
    (reason,) = gate.decide(msgspec.structs.replace(order("1"), **more), T0).reasons
    assert reason.code == "INVALID_ORDER" and says in reason.measured


@pytest.mark.parametrize("value", ["1e400", "-1e400", "1e-400", "1e999999999999", "NaN", "sNaN", "-Infinity"])
@pytest.mark.parametrize("field", ["quantity", "price", "stop_price"])
def test_a_number_that_nothing_is_measured_by_is_refused_by_its_field(gate: GateBook, field: str, value: str) -> None:
    gate.add_instrument(msgspec.structs.replace(gate.book.reference.instrument_records["X"], price_increment=Decimal("0.01"), quantity_increment=Decimal(1)))
    sent = {"type": "stop_limit", "stop_price": "100.5"} | {field: value}
    (reason,) = gate.decide(decoder_of(Order).decode(msgspec.json.encode(msgspec.to_builtins(order("1")) | sent)), T0).reasons
    assert (reason.code, reason.limit) == ("INVALID_ORDER", f"{field}: expected a finite number of at most 30 digits") and reason.measured.startswith(f"{field} ")


@pytest.mark.parametrize(("more", "says"), [
    ({"type": "market"}, "price"), ({"expire_ts": T0 + 10**9}, "expire_ts"), ({"expire_ts": T0 - 1, "time_in_force": "ioc"}, "expire_ts"), ({"ref_order_id": "w"}, "ref_order_id"),
    ({"action": "replace", "ref_order_id": "w", "expire_ts": "soon"}, "expire_ts"), ({"action": "replace", "ref_order_id": "w", "type": "market"}, "price")])
def test_what_a_type_an_end_or_an_action_has_no_use_for_is_refused_and_what_works_stays(gate: GateBook, more: dict[str, Any], says: str) -> None:
    assert codes(gate, order("w", quantity=3)) == []
    (reason,) = gate.decide(msgspec.structs.replace(order("1"), **more), T0).reasons
    assert (reason.code, reason.limit.partition(":")[0]) == ("INVALID_ORDER", says) and says in reason.measured
    assert list(gate.working) == ["w"]


def test_a_cancel_needs_no_quantity_and_may_repeat_what_its_order_said(gate: GateBook) -> None:
    sent = {k: v for k, v in msgspec.to_builtins(order("c")).items() if k != "quantity"}
    bare = decoder_of(Order).decode(msgspec.json.encode(sent | {"action": "cancel", "ref_order_id": "w", "price": None}))
    repeats = order("d", action="cancel", ref_order_id="w", expire_ts=T0 - 1)
    assert bare.quantity is None and codes(gate, order("w")) == [] and codes(gate, bare) == [] and list(gate.working) == [] and codes(gate, repeats) == []
    assert decoder_of(Order).decode(encode(bare)) == bare
    for action in ("new", "replace"):
        with pytest.raises(msgspec.ValidationError, match=f"quantity: expected one with action {action}, was absent"):
            decoder_of(Order).decode(msgspec.json.encode(sent | {"action": action}))


@pytest.mark.parametrize("kind", ["trailing_stop", "STOP", "iceberg", ""])
def test_a_type_that_is_not_offered_is_refused_with_those_that_are(kind: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="type"):
        decoder_of(Order).decode(msgspec.json.encode(msgspec.to_builtins(order("1")) | {"type": kind}))


def test_a_stop_at_a_price_of_zero_meets_what_lies_behind_it(gate: GateBook) -> None:
    assert codes(gate, order("b", quantity=1, price=-1)) == []
    assert codes(gate, stop("1", "sell", at="0", quantity=1)) == ["SELF_MATCH"]


def test_a_stop_rests_nowhere_and_meets_what_lies_behind_it(gate: GateBook) -> None:
    assert codes(gate, order("s", side="sell", quantity=1, price=100.4)) == []
    assert codes(gate, stop("1", at="100.5")) == []  # what is offered at 100.4 is traded before it is reached
    assert codes(gate, order("s2", side="sell", quantity=2, price=100.5)) == []  # a stop that waits is not there to be met
    assert codes(gate, stop("2", at="100.5", quantity=3)) == ["SELF_MATCH"]
    assert codes(gate, stop("3", at="100.45", price="100.49", quantity=3)) == [] and codes(gate, stop("4", at="100.45", price="100.5", quantity=4)) == ["SELF_MATCH"]
    assert codes(gate, stop("5", at="100.5", quantity=2)) == ["DUPLICATE_ORDER", "SELF_MATCH"]


# ---- reduce_only
def test_reduce_only_is_held_against_what_is_left_after_what_works(gate: GateBook) -> None:
    assert codes(gate, order("1", quantity=1, reduce_only=True)) == ["REDUCING_ONLY"]
    hold(gate, 10)
    assert codes(gate, order("2", side="sell", quantity=6, reduce_only=True, price=100.1)) == []
    assert codes(gate, order("3", side="sell", quantity=5, reduce_only=True, price=100.2)) == ["REDUCING_ONLY"]
    assert codes(gate, order("4", side="sell", quantity=4, reduce_only=True, price=100.3)) == []
    assert codes(gate, order("5", side="sell", quantity=5, price=100.4)) == []  # an order that may open may
    assert codes(gate, order("6", side="sell", quantity=7, reduce_only=True, action="replace", ref_order_id="2", price=100.1)) == ["REDUCING_ONLY"]


@settings(max_examples=60, deadline=None)
@given(st.integers(-12, 12), st.lists(st.tuples(st.sampled_from(["buy", "sell"]), st.integers(1, 9), st.booleans()), max_size=6), st.lists(st.integers(-12, 12), max_size=4))
def test_whatever_becomes_of_the_position_reduce_only_orders_reduce_it_at_most_to_flat(first: int, asked: list[tuple[str, int, bool]], then: list[int]) -> None:
    g = GateBook("USD", ("book", "desk", "strategy", "fund", "firm"), accounts=8, instruments=8, positions=64, nodes=128, rates=16)
    g.positions_hold(9 * 10**18)
    g.add_instrument(Instrument(instrument="X", asset_class="future", currency="USD", prior_close=Decimal(100)))
    g.add_account(Account(account="A", book="B", desk="D", strategy="S", fund="F"))
    g.set_price("X", 99.9, 100.1, 100.0, None, T0, True)
    for metric in ("order_quantity", "order_value"):
        g.add_limit(limit(metric, "firm", metric, 1e9))
    hold(g, first)
    g.refresh(T0)
    for k, (side, quantity, reduces) in enumerate(asked):
        g.decide(order(f"o{k}", side=side, quantity=quantity, price=99 - k / 100 if side == "buy" else 101 + k / 100, reduce_only=reduces), T0 + k)
    for k, quantity in enumerate((first, *then)):
        hold(g, quantity, offset=2 + k)
        assert beyond_position(g, lambda _: False) == []  # executions that the position has may still count in orders
        before = set(g.reduce_only)
        gone = beyond_position(g, lambda _: True)
        for w in gone:
            g.release(w.order.order_id)
        for side, room in ((1.0, max(-quantity, 0)), (-1.0, max(quantity, 0))):
            assert sum(w.left for w in g.reduce_only.values() if w.side == side) <= room
        assert before - set(g.reduce_only) == {w.order.order_id for w in gone} and all(w.order.reduce_only for w in gone)
        assert set(g.reduce_only) == {k for k, w in g.working.items() if w.order.reduce_only}


# ---- self-match across accounts
def test_orders_of_one_owners_accounts_do_not_trade_against_each_other_where_it_is_set(gate: GateBook) -> None:
    for name, owner in (("A", "O"), ("B", "O"), ("C", None)):
        gate.add_account(Account(account=name, book=f"B{name}", desk="D", strategy="S", fund="F", owner=owner))
    assert codes(gate, order("1", "A", price=100)) == []
    assert codes(gate, order("2", "B", side="sell", price=100, quantity=1)) == []  # by account, which is the default
    gate.own.by_owner = True
    assert codes(gate, order("3", "B", side="sell", price=100, quantity=2)) == ["SELF_MATCH"]
    assert codes(gate, order("4", "B", side="sell", price=100.5, quantity=2)) == [] and codes(gate, order("5", "C", side="sell", price=100, quantity=2)) == []
    assert codes(gate, msgspec.structs.replace(stop("6", "sell", at="99.9"), account="B")) == []  # what is bid at 100 is traded before
    assert codes(gate, msgspec.structs.replace(order("7", "A", quantity=1), type="market", price=None)) == ["SELF_MATCH"]
    gate.decide(order("8", "A", action="cancel", ref_order_id="1"), T0)
    gate.add_account(Account(account="B", book="BB", desk="D", strategy="S", fund="F"))  # another owner's by now
    assert codes(gate, order("9", "A", price=100.5, quantity=7)) == []


def test_fields_of_orders_are_on_the_log_as_they_came(gate: GateBook) -> None:
    asked = {"order_id": "1", "account": "A", "trader": "t", "instrument": "X", "side": "sell", "type": "stop_limit", "quantity": "2", "price": "99.9", "stop_price": "100", "ts_event": T0, "reduce_only": True}
    again = decoder_of(Order).decode(encode(decoder_of(Order).decode(msgspec.json.encode(asked))))
    assert again.reduce_only and again.stop_price == Decimal(100) and again.type == "stop_limit"
