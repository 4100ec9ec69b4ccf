"""Working orders: replaced and executed in part, until their end, and the same after a restart."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from models.gate import state as gs
from models.gate.book import VAR_AGE_MAX_NS, GateBook
from models.gate.explain import explain
from models.gate.working import AT_ONCE_NS
from schemas.codec import encode
from schemas.controls import Check
from schemas.records import Decision
from tests.unit.test_gate_book import DAY_NS, T0, as_recorded, codes, gate, limit, order
from tests.unit.test_gate_figures import held

S = 1_000_000_000
__all__ = ["gate"]


def reserved(g: GateBook, metric: int = gs.GROSS, node: str = "desk:D") -> float:
    return round(float(g.reserved[g.state.node(node), metric]), 9)


def replace(order_id: str, ref: str, quantity: float, **more: Any) -> Any:
    return order(order_id, quantity=quantity, action="replace", ref_order_id=ref, **more)


def test_a_replace_states_the_whole_order_what_is_executed_works_no_more(gate: GateBook) -> None:
    assert codes(gate, order("a", quantity=100)) == []
    gate.fill("a", 40)
    assert reserved(gate) == 6_000
    assert codes(gate, replace("b", "a", 90, price=99.5)) == []
    w = gate.working["b"]
    assert (w.left, w.executed, reserved(gate), gate.working.keys()) == (50, 40, 5_000, {"b"})
    gate.fill("a", 10)  # an execution that crossed the replace at the venue
    assert (w.left, w.executed) == (40, 50)
    assert codes(gate, replace("c", "a", 60)) == []  # the venue refused the first replace: the order is known by that id
    assert gate.working["c"].left == 10 and gate.working["c"].earlier == ("a", "b")
    assert codes(gate, replace("d", "c", 50)) == []  # no more than what is done: nothing works
    assert not gate.working and reserved(gate) == 0 and gate.current_id("a") is None
    assert codes(gate, replace("e", "a", 100)) == ["UNKNOWN_ORDER"]


def test_a_cancel_by_any_id_of_an_order_takes_it_out(gate: GateBook) -> None:
    for k, ref in enumerate(("a", "b", "c")):
        gate.decide(order("a", quantity=10, price=99 - k), T0)
        gate.decide(replace("b", "a", 20, price=99 - k), T0)
        gate.decide(replace("c", "b", 30, price=99 - k), T0)
        gate.decide(order(f"x{k}", action="cancel", ref_order_id=ref), T0)
        assert not gate.working and reserved(gate) == 0
    assert gate.current_id("a") is None


def test_a_replace_that_keeps_its_id_or_comes_twice_changes_nothing_else(gate: GateBook) -> None:
    gate.add_limit(limit("D", "desk:D", "daily_quantity", 25))
    assert codes(gate, order("a", quantity=10)) == []
    for _ in range(2):
        assert codes(gate, replace("a", "a", 25)) == []
    assert gate.working["a"].left == 25 and gate.working["a"].earlier == ()
    for _ in range(2):
        assert codes(gate, replace("b", "a", 25)) == []
    assert gate.working["b"].left == 25 and gate.working["b"].earlier == ("a",)
    assert codes(gate, replace("c", "b", 26)) == ["DAILY_QUANTITY"] and reserved(gate) == 2_500


def test_a_replace_stays_on_its_side_and_account(gate: GateBook) -> None:
    gate.decide(order("a"), T0)
    assert codes(gate, replace("c", "a", 10, account="B")) == [Check.UNKNOWN_ORDER.name]
    asked = replace("b", "a", 10, side="sell", price=101)
    verdict = gate.decide(asked, T0)
    assert Check.INVALID_ORDER.name in [r.code for r in verdict.reasons] and list(gate.working) == ["a"]
    assert explain(as_recorded(verdict.inputs), asked)[0] >> Check.INVALID_ORDER & 1


def test_a_replace_does_not_take_the_id_of_another_order(gate: GateBook) -> None:
    gate.decide(order("a"), T0)
    gate.decide(order("b", price=99), T0)
    assert codes(gate, replace("b", "a", 10)) == ["DUPLICATE_ORDER"]
    assert gate.working.keys() == {"a", "b"} and reserved(gate) == 2_000


def test_orders_end_when_they_are_to(gate: GateBook) -> None:
    ends = {"day": {}, "gtc": {}, "ioc": {}, "fok": {}, "gtd": {"expire_ts": T0 + 60 * S}}
    for k, (kind, more) in enumerate(ends.items()):
        assert codes(gate, order(kind, price=99 - k, time_in_force=kind, **more)) == []

    def left(now: int) -> set[str]:
        gate.refresh(now)
        return set(gate.working)

    assert left(T0 + AT_ONCE_NS - 1) == set(ends)
    assert left(T0 + AT_ONCE_NS) == {"day", "gtc", "gtd"}
    assert left(T0 + 60 * S) == {"day", "gtc"}
    assert left(T0 + DAY_NS) == {"gtc"} and reserved(gate) == 1_000
    assert left(T0 + 100 * DAY_NS) == {"gtc"}


def test_a_replaced_end_counts_from_the_replace(gate: GateBook) -> None:
    gate.decide(order("a", time_in_force="gtd", expire_ts=T0 + 10 * S), T0)
    gate.decide(replace("a", "a", 10, time_in_force="gtd", expire_ts=T0 + 30 * S), T0)
    gate.refresh(T0 + 10 * S)
    assert "a" in gate.working
    gate.refresh(T0 + 30 * S)
    assert not gate.working


@pytest.mark.parametrize("more", [{}, {"expire_ts": T0}, {"expire_ts": T0 - 1}, {"expire_ts": "soon"}])
def test_an_end_that_is_past_or_none_is_refused_and_reproduces(gate: GateBook, more: dict[str, Any]) -> None:
    asked = order("a", time_in_force="gtd", **more)
    verdict = gate.decide(asked, T0)
    assert [r.code for r in verdict.reasons] == ["INVALID_ORDER"] and not gate.working
    assert explain(as_recorded(verdict.inputs), asked)[0] == 1 << Check.INVALID_ORDER


def test_a_gate_that_starts_places_what_still_works_and_nothing_else(gate: GateBook) -> None:
    gate.refresh(T0 + DAY_NS)  # it has begun its day before it reads the log of the day before
    for kind, more in (("day", {}), ("gtc", {}), ("ioc", {}), ("gtd", {"expire_ts": T0 + 2 * DAY_NS})):
        gate.place(order(kind, time_in_force=kind, **more), T0, T0 + DAY_NS)
    assert set(gate.working) == {"gtc", "gtd"}
    gate.refresh(T0 + 2 * DAY_NS)
    assert set(gate.working) == {"gtc"}


def test_a_restart_counts_the_executions_of_all_ids_and_the_day_once(gate: GateBook) -> None:
    chain = [order("a", quantity=100), replace("b", "a", 120)]
    values = [gate.decide(o, T0).effect["value"] for o in chain]
    gate.fill("a", 40)
    before = (gate.working["b"].left, reserved(gate), repr(gate.state.nodes["value"][gate.state.node("desk:D")]))
    gate.release("b")
    gate._begin_day()
    gate.place(chain[1], T0, T0 + 1, earlier=("a",))
    gate.count_day(gate._working(chain[0], gate._fill(chain[0], T0), T0), values[0])
    gate.count_day(gate.working["b"], values[1], replaced=100.0)
    gate.fill("a", 40)
    assert before == (gate.working["b"].left, reserved(gate), repr(gate.state.nodes["value"][gate.state.node("desk:D")]))


def test_what_an_order_adds_is_in_its_verdict(gate: GateBook) -> None:
    gate.set_var("desk:D", 50.0, T0)
    gate.set_unit_var(["X", "gone"], [5.0, 1.0], T0)
    gate.add_limit(limit("VaR", "desk:D", "var_hist", 1_000))
    effect = gate.decide(order("a", quantity=10, price=99), T0).effect
    assert effect == pytest.approx({"value": 990, "gross": 1_000, "net": 1_000, "delta": 1_000, "vega": 0, "var_hist": 50})
    assert gate.decide(order("b", quantity=0), T0).effect == {}


def test_a_var_that_nobody_measures_any_more_is_within_no_limit(gate: GateBook) -> None:
    gate.add_limit(limit("VaR", "desk:D", "var_hist", 1_000))
    gate.add_position(held(1))
    assert codes(gate, order("a")) == ["VAR"]  # never measured
    gate.set_var("desk:D", 100.0, T0)
    gate.set_unit_var(["X"], [1.0], T0)
    gate.refresh(T0)
    assert codes(gate, order("b")) == []  # one like it was refused: it is no duplicate of anything that was sent
    gate.book.snapshot_id = T0 + VAR_AGE_MAX_NS + 1
    gate.set_price("X", 99.9, 100.1, 100.0, None, T0 + VAR_AGE_MAX_NS + 1, True)
    gate.refresh(T0 + VAR_AGE_MAX_NS + 1)
    verdict = gate.decide(order("c", price=98), T0 + VAR_AGE_MAX_NS + 1)
    assert "VAR" in [r.code for r in verdict.reasons] and math.isnan(gate.state.nodes["value"][gate.state.node("desk:D"), gs.VAR_HIST])
    gate.set_var("desk:D", 0.0, T0 + VAR_AGE_MAX_NS + 1)  # flat by now
    gate.refresh(T0 + VAR_AGE_MAX_NS + 2)
    assert "VAR" in codes(gate, order("d0", price=97.4), T0 + VAR_AGE_MAX_NS + 2), "nobody says what one unit has"
    gate.set_unit_var(["X"], [1.0], T0 + VAR_AGE_MAX_NS + 1)
    assert "VAR" not in codes(gate, order("d", price=97.5), T0 + VAR_AGE_MAX_NS + 2)


def test_a_decision_reproduces_bit_for_bit_and_says_where_it_does_not(gate: GateBook) -> None:
    gate.add_limit(limit("G", "desk:D", "gross", 2_500))
    gate.add_limit(limit("N", "desk:D", "net", 500, mode="soft"))
    gate.add_limit(limit("C", "account:A", "message_count", 4, window_ms=60_000))
    gate.set_var("desk:D", 50.0, T0)
    two = limit("order:o4~override", "order:o4", "override", 10**6, until=T0 + 60 * S, approved_by="second")
    gate.add_limit(two)
    seen = set[str]()
    for k, (quantity, more) in enumerate(((10, {}), (10, {"price": 99}), (30, {"price": 98}), (5, {"time_in_force": "gtd"}), (30, {"price": 97}), (10, {"price": 150}), (0, {}))):
        o = order(f"o{k}", quantity=quantity, **more)
        v = gate.decide(o, T0 + k)
        d = Decision(order_id=o.order_id, account="A", instrument="X", outcome=v.outcome, reasons=v.reasons, effect=v.effect, snapshot_id=0, limits_version=1,  # type: ignore[arg-type]
                     ts_event=T0, ts_decision=T0 + k, service_ns=1, warnings=v.warnings, inputs=v.inputs, order=o)
        logged = msgspec.json.decode(encode(d), type=Decision)
        assert explain(logged.inputs, logged.order).differs_from(logged) == [], o.order_id
        seen |= {r.code for r in (*v.reasons, *v.warnings)} | {"override" for _ in v.inputs if "override" in v.inputs}
        other = msgspec.structs.replace(logged, effect=logged.effect | {"gross": 1.0}, reasons=[msgspec.structs.replace(r, measured="7") for r in logged.reasons])
        assert [x.partition(":")[0] for x in explain(other.inputs, other.order).differs_from(other)] == (["reasons"] if logged.reasons else []) + ["effect"]
    assert seen == {"NET_EXPOSURE", "GROSS_EXPOSURE", "INVALID_ORDER", "MESSAGE_RATE", "PRICE_COLLAR", "override"}
