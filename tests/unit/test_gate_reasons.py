"""What a refusal says where there is no figure to state: the name or the word, and what was expected instead."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from models.gate.book import OVERRIDABLE, GateBook
from models.gate.explain import explain
from models.gate.reasons import _WORDS
from schemas.codec import encode
from schemas.records import Account, Control, Decision, Instrument, Order, Reason
from tests.unit.test_gate_book import LEVELS, T0, gate, order

__all__ = ["gate"]
PRICE = "a mid, last or prior close; its currency's rate; a curve where it is discounted"


def reasons(g: GateBook, asked: Order) -> list[Reason]:
    """Return the reasons of an order; its decision is read off the log and evaluated anew, bit for bit."""
    v = g.decide(asked, T0)
    decision = Decision(order_id=asked.order_id, account=asked.account, instrument=asked.instrument, outcome=v.outcome, reasons=v.reasons, effect=v.effect,  # type: ignore[arg-type]
                        snapshot_id=0, limits_version=1, ts_event=T0, ts_decision=T0, service_ns=1, warnings=v.warnings, inputs=v.inputs, order=asked)
    logged = msgspec.json.decode(encode(decision), type=Decision)
    assert logged.order is not None and explain(logged.inputs, logged.order).differs_from(logged) == []
    return v.reasons


def named(**change: Any) -> Order:
    return msgspec.structs.replace(order("1"), **change)


@pytest.mark.parametrize(("change", "said"), [
    ({"account": "nobody"}, ("UNKNOWN_ACCOUNT", "nobody", "an account of the reference data", None)),
    ({"instrument": "nothing"}, ("UNKNOWN_INSTRUMENT", "nothing", "an instrument of the reference data", None)),
    ({"quantity": Decimal(-5)}, ("INVALID_ORDER", "quantity -5, price 100", "a quantity above 0; a price where it is a limit order; both at most 1e18", None)),
    ({"price": None}, ("INVALID_ORDER", "quantity 10, price none", "a quantity above 0; a price where it is a limit order; both at most 1e18", None)),
    ({"account": "N"}, ("HALTED", "killed", "active or reducing", "desk:Z")),
    ({"account": "T"}, ("TRADER_NOT_PERMITTED", "t", "a trader of T", "trader:t")),
    ({"instrument": "R"}, ("RESTRICTED", "R", "an instrument that is not restricted, expired or matured", "instrument:R")),
    ({"instrument": "P"}, ("NO_REFERENCE_PRICE", "price unknown, value of 1 at a price of 1 1", PRICE, "instrument:P")),
    ({"instrument": "E"}, ("NO_REFERENCE_PRICE", "price 100, value of 1 at a price of 1 unknown", PRICE, "instrument:E")),
])
def test_what_is_no_figure_is_said_by_its_name(gate: GateBook, change: dict[str, Any], said: tuple[str, ...]) -> None:
    for name, more in (("R", {"restricted": True, "prior_close": Decimal(100)}), ("P", {}), ("E", {"currency": "EUR", "prior_close": Decimal(100)})):
        gate.add_instrument(Instrument(**{"instrument": name, "asset_class": "future", "currency": "USD"} | more))
    for account, desk, traders in (("N", "Z", None), ("T", "D", ["u"])):
        gate.add_account(Account(account=account, book=f"B{account}", desk=desk, strategy="S", fund="F", nav=Decimal(10**6), traders=traders))
    gate.add_control(Control(scope="desk:Z", state="killed", reason="test", by="p", ts=T0, rev=1))
    gate.refresh(T0)
    first = reasons(gate, named(**change))[0]
    assert (first.code, first.measured, first.limit, first.node) == said


def test_a_gate_without_limits_says_which_are_missing() -> None:
    g = GateBook("USD", LEVELS)
    g.positions_hold(9 * 10**18)
    g.add_instrument(Instrument(instrument="X", asset_class="future", currency="USD", prior_close=Decimal(100)))
    g.add_account(Account(account="A", book="B", desk="D", strategy="S", fund="F", nav=Decimal(10**6)))
    g.refresh(T0)
    assert [(r.measured, r.limit) for r in reasons(g, order("1")) if r.code == "LIMIT_NOT_SET"] == [("1000", "a maximum order quantity and a maximum order value")]


def test_what_can_be_a_warning_stays_a_figure() -> None:
    assert not any(OVERRIDABLE >> check & 1 for check in _WORDS), "an alert states its value and its limit"
