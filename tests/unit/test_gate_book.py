"""The book around the kernel: reservations, temporary limits, states, expiry, and errors that refuse."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest

from agents.gate import GateStage
from models.gate import state as gs
from models.gate.book import GateBook
from models.gate.explain import explain
from schemas.codec import encode
from schemas.controls import Check
from schemas.records import (
    Account,
    AsOf,
    Control,
    Counterparty,
    Decision,
    Fifo,
    Instrument,
    Limit,
    Mark,
    Order,
    Position,
)

DAY_NS = 86_400_000_000_000

T0 = 1_795_000_000_000_000_000
LEVELS = ("book", "desk", "strategy", "fund", "firm")


def limit(limit_id: str, node: str, metric: str, value: float, version: int = 1, **more: Any) -> Limit:
    return Limit(limit_id=limit_id, node=node, metric=metric, limit=Decimal(str(value)), version=version, by="r", reason="test of limits", **more)


@pytest.fixture
def gate() -> GateBook:
    g = GateBook("USD", LEVELS)
    g.positions_hold(9 * 10**18)
    g.add_instrument(Instrument(instrument="X", asset_class="future", currency="USD", prior_close=Decimal(100), issuer="I"))
    for a in ("A", "B"):
        g.add_account(Account(account=a, book=f"B{a}", desk="D", strategy="S", fund="F", nav=Decimal(10**6)))
    g.book.add_mark(Mark(instrument="X", window_end=T0, ts_event=T0, bid=99.9, ask=100.1, mid=100.0, last=None, quality="good"))
    g.set_price("X", 99.9, 100.1, 100.0, None, T0, True)
    g.add_limit(limit("Q", "firm", "order_quantity", 1e6))
    g.add_limit(limit("V", "firm", "order_value", 1e9))
    g.refresh(T0)
    return g


def order(order_id: str, account: str = "A", side: str = "buy", quantity: float = 10, price: float = 100, **more: Any) -> Order:
    return Order(order_id=order_id, account=account, trader="t", instrument="X", side=side, type="limit", quantity=Decimal(str(quantity)),  # type: ignore[arg-type]
                 price=Decimal(str(price)), ts_event=T0, **more)


def as_recorded(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs of a decision as they come off the log."""
    return msgspec.json.decode(encode(inputs))  # type: ignore[no-any-return]


def codes(g: GateBook, o: Order, now: int = T0) -> list[str]:
    return [r.code for r in g.decide(o, now).reasons]


def test_what_is_let_through_counts_in_every_node_until_it_ends(gate: GateBook) -> None:
    gate.add_limit(limit("G", "desk:D", "gross", 2_500))
    assert codes(gate, order("1", "A", price=99)) == [] and codes(gate, order("2", "B", price=99)) == []
    assert codes(gate, order("3", "A", price=98)) == ["GROSS_EXPOSURE"]
    gate.release("2")
    assert codes(gate, order("4", "A", price=98.5)) == []
    gate.fill("1", 10)  # filled: its position row carries it from here on
    assert codes(gate, order("5", "A", price=97)) == []
    assert gate.reserved[gate.state.node("desk:D"), 0] == pytest.approx(2_000)
    for w in list(gate.working):
        gate.release(w)
    assert gate.reserved[gate.state.node("desk:D"), 0] == pytest.approx(0)
    assert gate.state.positions["working_buy"].sum() == 0 and gate.state.positions["best_buy"].max() == -math.inf


def test_reservations_are_given_back_as_they_were_taken_whatever_the_position_did_meanwhile(gate: GateBook) -> None:
    def row(quantity: float, rev: int) -> Position:
        return Position(account="A", instrument="X", quantity=str(quantity), average_price=100.0, realised_pnl=0.0, fees={}, currency="USD", trades=rev,
                        last_ts_event=rev, fifo=Fifo(0.0, None, 0), break_even_price=None, as_of=AsOf(0, rev), revision=rev)

    desk = gate.state.node("desk:D")
    gate.add_position(row(100, 1))
    gate.refresh(T0)
    gate.decide(order("1", price=99), T0)
    gate.decide(order("2", side="sell", quantity=250, price=101), T0)
    assert gate.reserved[desk, 0] == pytest.approx(5_000)  # 250 sold from 100 long: 150 short at worst, 50 more than 100
    gate.add_position(row(-500, 2))
    gate.refresh(T0)
    assert gate.reserved[desk, 0] == pytest.approx(25_000)
    gate.add_account(Account(account="A", book="BA", desk="E", strategy="S", fund="F", nav=Decimal(10**6)))  # moved meanwhile
    gate.fill("2", 100)
    assert gate.reserved[desk, 0] == pytest.approx(0.0)  # what still works counts where the account is now
    assert gate.reserved[gate.state.node("desk:E"), 0] == pytest.approx(15_000)
    for order_id in ("1", "2"):
        gate.release(order_id)
    assert np.abs(gate.reserved).max() < 1e-6 and not gate._held


def test_an_account_that_comes_under_a_halted_desk_is_halted_at_once(gate: GateBook) -> None:
    gate.add_control(Control(scope="desk:Z", state="halted", reason="test", by="p", ts=T0, rev=1))
    gate.add_account(Account(account="N", book="BN", desk="Z", strategy="S", fund="F", nav=Decimal(10**6)))
    assert codes(gate, order("1", "N")) == ["HALTED"]


def test_the_price_test_ends_after_the_next_day(gate: GateBook) -> None:
    gate.add_instrument(Instrument(instrument="S", asset_class="equity", currency="USD", prior_close=Decimal(100)))
    gate.set_price("S", 89.0, 89.2, 89.1, None, T0, True)
    k, day = gate.state.instrument("S"), T0 // DAY_NS
    gate.refresh((day + 1) * DAY_NS + 5)
    assert gate.state.instruments["price_test"][k] == 1
    gate.refresh((day + 2) * DAY_NS)
    assert gate.state.instruments["price_test"][k] == 0


def test_a_check_without_effect_says_the_same_and_leaves_no_trace(gate: GateBook) -> None:
    gate.add_limit(limit("M", "account:A", "message_count", 2, window_ms=1000))
    gate.add_limit(limit("G", "desk:D", "gross", 2_500))
    gate.check(order("c", price=99), T0)  # the trader is known from here on
    before = (gate.state.nodes.tobytes(), gate.state.rates.tobytes(), gate.reserved.tobytes())
    for k in range(5):
        assert gate.check(order(f"c{k}", price=99), T0).outcome == "accept"
        assert [r.code for r in gate.check(order(f"d{k}", quantity=100, price=98), T0).reasons] == ["GROSS_EXPOSURE"]
    assert (gate.state.nodes.tobytes(), gate.state.rates.tobytes(), gate.reserved.tobytes()) == before and not gate.working
    assert codes(gate, order("1", price=99)) == []


def test_a_temporary_limit_ends_by_itself(gate: GateBook) -> None:
    gate.add_limit(limit("Q2", "fund:F", "order_quantity", 5))
    assert codes(gate, order("1")) == ["MAX_QUANTITY"]
    gate.add_limit(limit("Q2~override", "fund:F", "order_quantity", 50, until=T0 + 10**9, approved_by="p2"))
    gate.refresh(T0)
    assert codes(gate, order("2", price=99)) == []
    gate.refresh(T0 + 2 * 10**9)
    assert codes(gate, order("3", price=98), T0 + 2 * 10**9) == ["MAX_QUANTITY"]


def test_the_tightest_of_two_limits_holds_and_removal_brings_the_other_back(gate: GateBook) -> None:
    gate.add_limit(limit("L1", "book:BA", "order_quantity", 50))
    gate.add_limit(limit("L2", "book:BA", "order_quantity", 5))
    verdict = gate.decide(order("1"), T0)
    assert verdict.reasons[0].limit_id == "L2"
    gate.remove_limit("L2")
    assert codes(gate, order("2", price=99)) == []
    gate.add_limit(limit("L1", "book:BA", "order_quantity", 1, version=0))  # an older version changes nothing
    assert codes(gate, order("3", price=98)) == []


@pytest.mark.parametrize("scope", ["all", "fund:F", "desk:D", "account:A", "instrument:X", "trader:t"])
def test_halts_of_every_scope_and_the_strictest_wins(gate: GateBook, scope: str) -> None:
    assert codes(gate, order("x", price=98)) == []
    gate.add_control(Control(scope=scope, state="halted", reason="test", by="p", ts=T0, rev=2))
    assert codes(gate, order("1")) == ["HALTED"]
    gate.add_control(Control(scope=scope, state="active", reason="older", by="p", ts=T0, rev=1))
    assert codes(gate, order("2", quantity=11)) == ["HALTED"]
    assert gate.decide(order("3", action="cancel", ref_order_id="x"), T0).outcome == "accept"
    gate.add_control(Control(scope=scope, state="active", reason="over", by="p", ts=T0, rev=3))
    assert codes(gate, order("4", price=99)) == []


def test_a_kill_names_the_orders_to_cancel(gate: GateBook) -> None:
    assert codes(gate, order("1", "A")) == [] and codes(gate, order("2", "B")) == []
    found = gate.add_control(Control(scope="account:A", state="killed", reason="test", by="p", ts=T0, rev=1))
    assert [w.order.order_id for w in found] == ["1"]


def test_orders_of_the_day_end_with_it(gate: GateBook) -> None:
    assert codes(gate, order("1")) == []
    gate.refresh((T0 // DAY_NS + 1) * DAY_NS)
    assert not gate.working


def test_a_cancel_counts_as_a_message_and_no_limit_refuses_it(gate: GateBook) -> None:
    for k in range(5):
        assert codes(gate, order(f"w{k}", price=98 + k / 10)) == []
    gate.add_limit(limit("M", "account:A", "message_count", 3, window_ms=1000))
    for k in range(4):
        assert gate.decide(order(f"c{k}", action="cancel", ref_order_id=f"w{k}"), T0).outcome == "accept"
    assert codes(gate, order("c4", action="cancel", ref_order_id="none")) == ["UNKNOWN_ORDER"]  # decision 0040
    assert codes(gate, order("1")) == ["MESSAGE_RATE"]
    assert codes(gate, order("2", price=99), T0 + 3 * 10**9) == []


def test_an_error_inside_a_check_refuses_the_order() -> None:
    class Broken:
        book = type("B", (), {"snapshot_id": 0})()
        limits_version = 0

        def decide(self, *_: Any) -> Any:
            raise ZeroDivisionError("inside a check")

    stage = GateStage.__new__(GateStage)
    sent: list[Any] = []
    stage.watch = type("W", (), {"recorded": lambda *a: None})()  # type: ignore[assignment]
    stage.gate = Broken()  # type: ignore[assignment]
    stage._clock, stage._partitions, stage._next, stage._topics = (lambda: T0), 1, {}, {"trades": "t", "decisions": "d"}
    stage._counters = type("C", (), {"add": lambda *a, **k: None, "observe": lambda *a, **k: None})()  # type: ignore[assignment]
    stage._publisher = type("P", (), {"send": lambda *a, **k: sent.append(a)})()  # type: ignore[assignment]
    decision = stage.decide(order("1"), None)
    assert decision.outcome == "reject" and decision.reasons[0].code == "INTERNAL_ERROR" and sent


def test_only_the_named_traders_may_trade_an_account(gate: GateBook) -> None:
    gate.add_account(Account(account="A", book="BA", desk="D", strategy="S", fund="F", traders=["other"]))
    assert codes(gate, order("1")) == ["TRADER_NOT_PERMITTED"] and codes(gate, order("2", account="B")) == []
    gate.add_account(Account(account="A", book="BA", desk="D", strategy="S", fund="F", traders=["other", "t"]))
    assert codes(gate, order("3", price=99)) == []


def test_a_counterparty_nobody_rated_is_within_no_limit_on_ratings(gate: GateBook) -> None:
    gate.add_limit(limit("R", "counterparty:BANK", "rating", 3))
    assert codes(gate, order("1", counterparty="BANK")) == ["COUNTERPARTY_RATING"]
    gate.add_counterparty(Counterparty(counterparty="BANK", rating=3))
    assert codes(gate, order("2", counterparty="BANK", price=99)) == []
    gate.add_counterparty(Counterparty(counterparty="BANK", rating=4))
    assert codes(gate, order("3", counterparty="BANK", price=98)) == ["COUNTERPARTY_RATING"]


def test_a_strategy_is_applied_so_often_until_a_person_looks(gate: GateBook) -> None:
    gate.add_limit(limit("R", "trader:t", "repeated_executions", 2))
    found = [codes(gate, order(f"a{k}", quantity=k + 1, price=99, algo_id="algo")) for k in range(3)]
    assert found == [[], [], ["REPEATED_EXECUTION"]] and codes(gate, order("m", quantity=9, price=98)) == []
    gate.add_control(Control(scope="trader:t", state="active", reason="looked at it", by="risk-1", ts=T0, rev=1))
    assert codes(gate, order("b", quantity=5, price=97, algo_id="algo")) == []


def test_two_people_let_one_order_pass_its_limits_but_no_halt(gate: GateBook) -> None:
    gate.add_limit(limit("G", "desk:D", "gross", 100))
    assert codes(gate, order("1")) == ["GROSS_EXPOSURE"]
    gate.add_limit(limit("order:1~override", "order:1", "override", 1_000, until=T0 + 60_000_000_000, approved_by="risk-2"))
    verdict = gate.decide(order("1"), T0 + 10**9)
    assert verdict.outcome == "accept" and [r.code for r in verdict.warnings] == ["GROSS_EXPOSURE"]
    assert verdict.inputs["override"] == "order:1~override"
    assert codes(gate, order("2", price=99)) == ["GROSS_EXPOSURE"], "no other order passes"
    gate.add_limit(limit("order:3~override", "order:3", "override", 900, until=T0 + 60_000_000_000))
    assert codes(gate, order("3", price=98)) == ["GROSS_EXPOSURE"], "worth more than what was approved"
    gate.add_limit(limit("order:4~override", "order:4", "override", 10**6, until=T0 - 1))
    assert codes(gate, order("4", price=97)) == ["GROSS_EXPOSURE"], "it has ended"
    gate.add_control(Control(scope="all", state="halted", reason="a test", by="risk-1", ts=T0, rev=1))
    gate.add_limit(limit("order:5~override", "order:5", "override", 10**6, until=T0 + 60_000_000_000))
    assert codes(gate, order("5", price=96)) == ["HALTED", "GROSS_EXPOSURE"]
    gate.refresh(T0 + 61_000_000_000)  # nothing breaks when it ends


def test_a_temporary_limit_on_a_position_ends_by_itself(gate: GateBook) -> None:
    gate.add_limit(limit("P", "account:A", "position_long", 5, instrument="X"))
    assert codes(gate, order("1")) == ["POSITION_LONG"]
    gate.add_limit(limit("P~override", "account:A", "position_long", 50, instrument="X", until=T0 + 10**9, approved_by="p2"))
    assert codes(gate, order("2", quantity=9)) == []
    gate.refresh(T0 + 2 * 10**9)
    assert codes(gate, order("3", quantity=1)) == ["POSITION_LONG"]


def test_a_restarted_gate_counts_what_its_log_says(gate: GateBook) -> None:
    """Message windows, the day's sums and unattended executions go on where the gate before was killed."""
    rules = [limit("M", "desk:D", "message_count", 4, window_ms=10_000), limit("D", "book:BA", "daily_value", 3_000),
             limit("R", "trader:t", "repeated_executions", 2)]
    for rule in rules:
        gate.add_limit(rule)
    log = []
    for k in range(3):
        o = order(f"a{k}", quantity=5 + k, price=99 - k, algo_id="algo" if k < 2 else None)
        v = gate.decide(o, T0 + k)
        log.append(Decision(order_id=o.order_id, account="A", instrument="X", outcome=v.outcome, reasons=[], effect=v.effect, snapshot_id=0,  # type: ignore[arg-type]
                            limits_version=1, ts_event=T0 + k, ts_decision=T0 + k, service_ns=1, order=o))
    after = _like(gate)
    for rule in rules:
        after.add_limit(rule)
    after.set_price("X", 109.9, 110.1, 110.0, None, T0, True)
    after.recount(log, T0 + 3, {})
    day = [float(g.state.nodes["value"][g.state.node("book:BA"), gs.DAILY_VALUE]) for g in (gate, after)]
    assert day[0] == day[1] == 5 * 99 + 6 * 98 + 7 * 97, "at their own prices, whatever the market did meanwhile"
    after.set_price("X", 99.9, 100.1, 100.0, None, T0, True)
    for d in log:
        after.place(d.order, d.ts_decision, T0 + 3)  # type: ignore[arg-type]
    for k, o in enumerate((order("x", quantity=1, price=90, algo_id="algo"), order("y", quantity=2, price=89), order("z", quantity=30, price=91))):
        assert codes(after, o, T0 + 10 + k) == codes(gate, o, T0 + 10 + k) != []


def _like(gate: GateBook) -> GateBook:
    g = GateBook("USD", LEVELS)
    g.positions_hold(9 * 10**18)
    for i in gate.book.reference.instrument_records.values():
        g.add_instrument(i)
    for a in gate.book.reference.account_records.values():
        g.add_account(a)
    g.book.add_mark(Mark(instrument="X", window_end=T0, ts_event=T0, bid=99.9, ask=100.1, mid=100.0, last=None, quality="good"))
    g.set_price("X", 99.9, 100.1, 100.0, None, T0, True)
    g.add_limit(limit("Q", "firm", "order_quantity", 1e6))
    g.add_limit(limit("V", "firm", "order_value", 1e9))
    g.refresh(T0)
    return g


def test_credit_at_a_counterparty_counts_what_is_held_there_and_what_works(gate: GateBook) -> None:
    for a in ("A", "B"):
        gate.add_account(Account(account=a, book=f"B{a}", desk="D", strategy="S", fund="F", nav=Decimal(10**6), counterparty="PB1"))
    gate.add_limit(limit("C", "counterparty:PB1", "credit", 5_500))
    gate.add_position(Position(account="B", instrument="X", quantity="-30", average_price=100.0, realised_pnl=0.0, fees={}, currency="USD", trades=1,
                               last_ts_event=1, fifo=Fifo(0.0, 100.0, 1), break_even_price=100.0, as_of=AsOf(0, 1), book="BB", desk="D", strategy="S", fund="F"), 0)
    gate.refresh(T0)
    assert codes(gate, order("1", quantity=20, price=99)) == []  # 3,000 are held, 2,000 work from here on
    assert codes(gate, order("2", quantity=10, price=98)) == ["CREDIT"]
    assert codes(gate, order("3", "B", "buy", quantity=10, price=97)) == [], "what closes is not blocked"
    assert codes(gate, order("4", quantity=10, price=96, counterparty="PB2")) == [], "an order may name another one"


def test_long_and_short_count_what_works_on_each_side(gate: GateBook) -> None:
    gate.add_limit(limit("L", "desk:D", "long", 3_500))
    gate.add_limit(limit("S", "desk:D", "short", 1_500))
    assert codes(gate, order("1", quantity=30, price=99)) == []
    assert codes(gate, order("2", "B", quantity=10, price=98)) == ["LONG_EXPOSURE"]
    assert codes(gate, order("3", "B", "sell", quantity=10, price=103)) == [], "the other side has a limit of its own"
    assert codes(gate, order("4", "B", "sell", quantity=10, price=104)) == ["SHORT_EXPOSURE"]
    gate.release("1")
    assert codes(gate, order("5", "B", quantity=30, price=97)) == []
    for w in list(gate.working):
        gate.release(w)
    assert np.abs(gate.reserved).max() < 1e-6 and not gate._held


def test_the_best_working_prices_are_those_of_the_orders_that_work(gate: GateBook) -> None:
    rng = np.random.default_rng(7)
    for k in range(400):
        side, account = ("buy", "sell")[int(rng.integers(2))], "AB"[int(rng.integers(2))]
        working = [w for w in gate.working.values() if w.order.account == account]
        if working and rng.random() < 0.55:
            w = working[int(rng.integers(len(working)))]
            gate.fill(w.order.order_id, float(rng.choice([1, 10]))) if rng.random() < 0.5 else gate.release(w.order.order_id)
        else:  # few prices: the best is often another order's, too; some orders have none
            price = None if rng.random() < 0.1 else Decimal(int(rng.integers(97, 100) if side == "buy" else rng.integers(101, 104)))
            gate.place(msgspec.structs.replace(order(str(k), account, side), price=price, type="limit" if price else "market"), T0, T0)
        for name in "AB":
            row = gate.state.position_row(gate.state.account(name), gate.state.instrument("X"))
            prices = {s: [w.price for w in gate.working.values() if w.order.account == name and w.side == s and w.price is not None] for s in (1.0, -1.0)}
            assert gate.state.positions["best_buy"][row] == max(prices[1.0], default=-math.inf)
            assert gate.state.positions["best_sell"][row] == min(prices[-1.0], default=math.inf)


def test_an_id_that_works_or_was_executed_is_not_taken_again_and_the_log_says_so_bit_for_bit(gate: GateBook) -> None:
    def again(order_id: str, k: int) -> list[tuple[str, str]]:
        asked = order(order_id, quantity=20 + k)  # not alike: only its id is the same
        verdict = gate.decide(asked, T0)
        assert {c.name for c in Check if explain(as_recorded(verdict.inputs), asked)[0] >> c & 1} == {r.code for r in verdict.reasons}
        return [(r.code, r.measured) for r in verdict.reasons]

    for k, name in enumerate(("works", "done", "partly", "cancelled")):
        assert gate.decide(order(name, quantity=10 + k), T0).outcome == "accept"
    gate.fill("done", 11)
    gate.fill("partly", 1)
    gate.release("partly")
    gate.release("cancelled")
    assert [again(name, k) for k, name in enumerate(("works", "done", "partly"))] == [[("DUPLICATE_ORDER", name)] for name in ("works", "done", "partly")]
    assert again("cancelled", 4) == [], "nothing was done of it"


def test_only_so_many_executed_ids_are_remembered(gate: GateBook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.gate.executed_orders.EXECUTED_IDS", 3)
    for k in range(5):
        gate.decide(order(f"o{k}", quantity=10 + k), T0)
        gate.fill(f"o{k}", 10 + k)
    gate.fill("nobody's", 1)
    assert list(gate.executed) == ["o2", "o3", "o4"]


def test_exposures_are_of_now_while_some_price_is_within_the_bound_of_its_class(gate: GateBook) -> None:
    gate.add_limit(limit("G", "desk:D", "gross", 1e6))
    for seconds, expected in ((20, []), (31, ["STALE_PRICE", "STALE_EXPOSURE"])):  # a future is good for 30
        now = T0 + seconds * 10**9
        gate.refresh(now)
        assert codes(gate, order(f"O{seconds}", quantity=seconds), now) == expected


@pytest.mark.parametrize("ts", [0, T0 // 10**6, T0 // 10**3, T0 + 61 * 10**9, "9999-12-31T23:59:59-05:00", "20 November", "", 2**63])
def test_an_order_of_no_time_or_of_another_unit_is_refused_with_it(gate: GateBook, ts: Any) -> None:
    dated = msgspec.structs.replace(order("o"), ts_event=ts)
    verdict = gate.decide(dated, T0)
    assert [r.code for r in verdict.reasons] == ["INVALID_ORDER"] and str(ts) in verdict.reasons[0].measured
    assert not gate.working and gate.check(dated, T0).outcome == "reject"
    assert gate.decide(order("o", quantity=1), T0).reasons == []
