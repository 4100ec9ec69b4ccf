"""Terms that are put right reach what works at the gate at once, and a gate that starts later holds the same."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.gate import state as gs
from models.gate.book import GateBook
from schemas.market import Surface, VolSlice
from schemas.records import Instrument
from tests.property.test_gate_relations import ORDER, T0, firm, limit, mark, order_of

#: terms of an instrument that a plain record puts right
TERMS = st.sampled_from([
    {"multiplier": Decimal(10)}, {"multiplier": Decimal("0.5")}, {"quanto_rate": Decimal(3)}, {"asset_class": "equity", "inverse": False}, {"asset_class": "future"},
    {"margin_initial": Decimal("0.1")}, {"issuer": "J", "sector": "S"}, {"issuer": None}, {"prior_close": Decimal(90)}, {"quantity_increment": Decimal("0.01")}, {"inverse": True, "asset_class": "future"},
    {"underlying": "Y"}])


def terms(g: GateBook, name: str) -> Instrument:
    return g.book.reference.instrument_records[name]


def held(g: GateBook) -> dict[str, list[float]]:
    """Return by node what is reserved, and what comes to its figures with that."""
    figures = [*range(gs.CREDIT + 1), *range(gs.NM, gs.NF)]  # the day's sums are what decisions said
    return {name: np.round([*g.reserved[k][figures], *np.nan_to_num(g.state.nodes["value"][k][figures])], 5).tolist()
            for name, k in g.state.node_index.items() if np.abs(g.reserved[k]).max() > 1e-6}


@settings(max_examples=40, deadline=None)
@given(st.lists(ORDER, min_size=2, max_size=10), st.lists(st.tuples(st.integers(0, 9), st.sampled_from("XYE"), TERMS), min_size=1, max_size=3), st.sampled_from(["", "mark of X"]))
def test_what_works_is_held_by_the_terms_of_now(asked: list[dict[str, Any]], changes: list[tuple[int, str, dict[str, Any]]], without: str) -> None:
    margined = (limit("M", "firm", "margin", 1e9), limit("L", "fund:F", "leverage", 1e9))
    g = firm(without, extra=margined)
    for k, a in enumerate(asked):
        g.decide(order_of(k, a), T0 + k)
        for at, name, changed in changes:
            if at == k:
                g.add_instrument(msgspec.structs.replace(terms(g, name), **changed))
    later = firm(without, extra=margined)
    for name in "XYE":
        later.add_instrument(terms(g, name))
    later.refresh(T0)
    for w in g.working.values():
        later.place(w.order, w.decided_ns, T0, w.earlier, w.executed)
    at_once = held(g)
    g.refresh(T0)
    assert at_once == held(g) == held(later)


def test_what_works_counts_by_a_multiplier_that_is_put_right_before_the_next_order() -> None:
    g = firm(extra=(limit("G", "desk:D", "gross", 20_000),))
    # 4,000 of X, 2,000 of Y and 800 of E are held
    for k, quantity in enumerate(("10", "1")):
        g.decide(order_of(k, BUY | {"quantity": quantity, "off": -0.1 * k}), T0)
    node = g.state.node("desk:D")
    assert len(g.working) == 2 and g.state.nodes["value"][node][0] == 6_800 + 1_100
    g.add_instrument(msgspec.structs.replace(terms(g, "X"), multiplier=Decimal(10)))
    assert g.state.nodes["value"][node][0] == 2_800 + 40_000 + 11_000
    assert [r.code for r in g.decide(order_of(2, BUY | {"off": -0.3}), T0).reasons] == ["GROSS_EXPOSURE"]
    g.add_instrument(msgspec.structs.replace(terms(g, "X"), multiplier=Decimal(1)))
    assert g.decide(order_of(3, BUY | {"off": -0.3}), T0).outcome == "accept"


BUY = {"account": "A", "instrument": "X", "side": "buy", "type": "limit", "quantity": "1", "off": 0.0, "action": "new", "ref": 0, "venue": "V", "locate_id": None}


def test_credit_at_a_venue_and_var_follow_the_multiplier() -> None:
    g = firm()
    g.set_unit_var(["X"], [2.0], T0)
    g.decide(order_of(0, BUY | {"quantity": "10"}), T0)
    g.fill("o0", 4.0)
    g.add_instrument(msgspec.structs.replace(terms(g, "X"), multiplier=Decimal(10)))
    w = g.working["o0"]
    assert (w.gross, w.var, g.state.unit_var[w.instrument]) == (1_000, 20, 20)
    venue = g.state.node("venue:V")
    assert g.at_venue[venue, w.account, w.instrument] == (4.0, 4_000.0)
    g.release("o0")
    assert np.abs(g.reserved).max() < 1e-9


def test_options_on_what_is_put_right_are_held_by_their_new_greeks() -> None:
    g = firm()
    option = Instrument(instrument="O", asset_class="option", currency="USD", underlying="X", strike=Decimal(100), right="call", expiry="2026-12-30", style="european", multiplier=Decimal(1))
    g.add_instrument(option)
    g.book.add_surface(Surface(underlying="USD", ts_event=T0, rates=[(1.0, 0.0)]))
    g.book.add_surface(Surface(underlying="X", ts_event=T0, dividends=[(1.0, 0.0)], vols=[VolSlice(expiry="2026-12-30", strikes=[90.0, 110.0], vols=[0.3, 0.3])]))
    mark(g, "O", 5.0)
    g.refresh(T0)
    g.decide(msgspec.structs.replace(order_of(0, BUY), instrument="O", price=Decimal(5)), T0)
    (w,) = g.working.values()
    before = w.delta
    assert before > 0.0
    g.add_instrument(msgspec.structs.replace(option, strike=Decimal(101), multiplier=Decimal(7)))
    assert w.delta == before * 7  # its Greeks are measured anew with the next window
    g.refresh(T0)
    assert w.delta == g.state.unit_delta[w.instrument] and w.delta < before * 7
