"""An order is judged whole before anything changes, and releases what is its own account's alone."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from agents.decision_log import DecisionLog
from models.gate.book import GateBook
from schemas.asset_classes import STALE_MS_BY_CLASS
from schemas.records import Account, Control, Instrument
from tests.unit.test_decision_log import decision
from tests.unit.test_gate_book import T0, codes, gate, limit, order

assert gate  # the fixture


def held(g: GateBook) -> tuple[Any, ...]:
    s = g.state
    columns = [a.tobytes() for a in (s.nodes, g.reserved, g._base, s.positions["working_buy"], s.positions["working_sell"], s.positions["best_buy"])]
    return (*columns, sorted(g.working), {k: (v[0].tobytes(), v[1].tolist()) for k, v in g._held.items()}, sorted(g.day_of), {k: w.left for k, w in g.working.items()})


@pytest.mark.parametrize("breaks", ["_beside", "_fill", "_working"])
def test_a_replace_that_raises_anywhere_changes_nothing(gate: GateBook, monkeypatch: pytest.MonkeyPatch, breaks: str) -> None:
    gate.add_limit(limit("G", "desk:D", "gross", 15_000))
    assert codes(gate, order("1", quantity=100)) == []
    before = held(gate)

    def fail(*_: Any, **__: Any) -> None:
        raise OverflowError("injected")

    for k in range(3):
        with monkeypatch.context() as m, pytest.raises(OverflowError):
            m.setattr(gate, breaks, fail)
            gate.decide(order(f"r{k}", quantity=120, action="replace", ref_order_id="1"), T0)
        assert held(gate) == before
    assert codes(gate, order("2", quantity=100, price=99.5)) == ["GROSS_EXPOSURE"]  # 10,000 still work


def test_a_refused_replace_leaves_every_bit_as_it_was(gate: GateBook) -> None:
    gate.add_limit(limit("G", "desk:D", "gross", 1_300.1))
    assert codes(gate, order("1", quantity=3.1, price=99.3)) == [] and codes(gate, order("2", quantity=7.7, price=100.7, side="sell")) == []
    before = held(gate)
    assert codes(gate, order("3", quantity=31.7, action="replace", ref_order_id="1")) == ["GROSS_EXPOSURE"]
    assert codes(gate, order("4", quantity=1, action="replace", ref_order_id="1", time_in_force="gtd")) == ["INVALID_ORDER"]
    assert gate.check(order("5", quantity=2, action="replace", ref_order_id="1"), T0).outcome == "accept"
    assert held(gate) == before


def test_a_cancel_or_replace_of_another_accounts_order_is_of_an_unknown_order(gate: GateBook) -> None:
    gate.add_limit(limit("G", "desk:D", "gross", 15_000))
    assert codes(gate, order("1", "A", quantity=100)) == []
    assert codes(gate, order("x", "B", action="cancel", ref_order_id="1")) == ["UNKNOWN_ORDER"]
    assert codes(gate, order("1", "B", action="cancel")) == ["UNKNOWN_ORDER"]
    assert codes(gate, order("r", "B", action="replace", ref_order_id="1")) == ["UNKNOWN_ORDER"]
    assert codes(gate, order("2", "B", quantity=100)) == ["GROSS_EXPOSURE"]
    assert codes(gate, order("y", "A", action="cancel", ref_order_id="1")) == [] and codes(gate, order("2", "B", quantity=100, price=99)) == []


def test_who_takes_over_ends_no_order_of_another_account() -> None:
    log = DecisionLog({0}, T0)
    log.add(decision("a", 0, "accept"))
    other = decision("b", 1, "accept", "cancel", ref_order_id="a")  # accepted by a version that asked for no owner
    assert other.order is not None
    log.add(msgspec.structs.replace(other, account="B", order=msgspec.structs.replace(other.order, account="B")))
    assert list(log.accepted) == ["a"]


def test_states_hold_although_one_of_them_has_no_place(gate: GateBook, monkeypatch: pytest.MonkeyPatch) -> None:
    gate.add_control(Control(scope="desk:D", state="halted", reason="test of it", by="p", ts=T0, rev=1))
    gate.add_control(Control(scope="instrument:of nobody", state="halted", reason="test of it", by="p", ts=T0, rev=1))
    gate.add_control(Control(scope="desk:of nobody", state="killed", reason="test of it", by="p", ts=T0, rev=1))
    assert "HALTED" in codes(gate, order("1"))
    assert "desk:of nobody" not in gate.state.node_index and "of nobody" not in gate.state.instrument_index
    gate.add_account(Account(account="N", book="BN", desk="of nobody", strategy="S", fund="F"))
    assert "HALTED" in codes(gate, order("2", "N"))


def test_a_price_is_as_old_as_its_asset_class_allows(gate: GateBook) -> None:
    gate.add_instrument(Instrument(instrument="BND", asset_class="bond", currency="USD"))
    k = gate.state.instrument("BND")
    assert gate.state.instruments["age_max_ns"][k] == STALE_MS_BY_CLASS["bond"] * 1_000_000 == 300_000_000_000
    ages = {c: STALE_MS_BY_CLASS[c] for c in ("fx", "future")}
    assert gate.state.instruments["age_max_ns"][gate.state.instrument("X")] == ages["future"] * 1_000_000 and np.isfinite(list(ages.values())).all()


def test_what_comes_under_a_killed_scope_is_to_be_cancelled(gate: GateBook) -> None:
    gate.add_control(Control(scope="desk:K", state="killed", reason="test of it", by="p", ts=T0, rev=1))
    gate.add_control(Control(scope="trader:gone", state="killed", reason="test of it", by="p", ts=T0, rev=1))
    assert codes(gate, order("1")) == [] and codes(gate, order("2", "B")) == [] and gate.killed() == []
    gate.add_account(Account(account="A", book="BA", desk="K", strategy="S", fund="F"))  # it moves
    assert [w.order.order_id for w in gate.killed()] == ["1"]
    gate.release("1")
    gate.place(order("3", "A"), T0, T0)  # accepted before a gate was gone, killed while none ran
    gate.place(msgspec.structs.replace(order("4", "B"), trader="gone"), T0, T0)
    assert [w.order.order_id for w in gate.killed()] == ["3", "4"]
