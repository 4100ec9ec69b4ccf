"""The gate is bounded by what lives (R18), a repeat changes nothing (R7), names and the order of the unrelated do not matter (R9)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.gate.book import GateBook
from models.gate.changes import cut
from models.gate.ended_names import LOOKED_THROUGH_NS
from models.gate.other_gates import Own
from models.gate.state_hash import state_hash
from schemas.records import Control, Counterparty, Limit
from tests.property.test_fuzzed_orders import T0 as STANDS
from tests.property.test_fuzzed_orders import gate as made_stage
from tests.property.test_gate_relations import LIMITS, MS, ORDER, PRICES, T0, account, firm, limit, mark, order_of

DAY_NS = 86_400_000_000_000


def written_down(g: GateBook) -> None:
    """Have all that changed written down, as the stage does every few seconds."""
    cut(g, lambda _: True, lambda _: {})


def a_day_later(g: GateBook, now: int) -> int:
    """Begin the next day, write down what ended, and let names end that nothing refers to."""
    now += DAY_NS
    g.refresh(now)
    written_down(g)
    for after in LOOKED_THROUGH_NS:
        g.refresh(now + after)
    now += LOOKED_THROUGH_NS[-1]
    for name, price in PRICES.items():
        mark(g, name, price, now)
    g.refresh(now)
    return now


# ---- R18
def test_names_that_orders_came_with_end_when_nothing_refers_to_them() -> None:
    g, now = firm(), T0
    base, blank = set(g.state.node_index), g.state.nodes[len(g.state.node_names)].copy()
    for day in range(25):  # more names than the table of nodes has room for
        for k in range(4):
            o = msgspec.structs.replace(order_of(day * 10 + k, _asked(side="buy", off=-0.1 * k)), trader=f"t{day}-{k}", venue=f"V{day}-{k}", counterparty=f"C{day}-{k}", time_in_force="gtc" if k == 0 and day % 5 == 0 else "day")
            assert g.decide(o, now).outcome == "accept", (day, k)
        assert g.decide(msgspec.structs.replace(order_of(day * 10 + 9, _asked(quantity="1000000")), trader=f"refused{day}"), now).outcome == "reject"
        now = a_day_later(g, now)
        live = {name for w in g.working.values() for name in g._names_of(w.order)}
        assert set(g.state.node_index) == base | live, day
        assert len(g.state.node_names) < len(base) + 4 * 3 + 3 * len(g.working) + 3
    for order_id in list(g.working):
        g.release(order_id)
    written_down(g)
    a_day_later(g, now)
    assert set(g.state.node_index) == base and not g.state.by_orders
    for k in g.state.closed:
        shown = g.state.nodes[k].copy()
        assert not np.nan_to_num(shown["value"]).any()
        shown["exposure_ns"], shown["value"] = blank["exposure_ns"], blank["value"]
        assert all(np.array_equal(shown[f], blank[f], equal_nan=True) for f in shown.dtype.names) and not np.any(g.reserved[k]) and g.state.node_names[k] == ""


@pytest.mark.parametrize("keeps", ["limit", "window", "halt", "rating", "others"])
def test_a_name_that_somebody_limits_halts_or_rates_stays(keeps: str) -> None:
    g, now = firm(), T0
    name = "counterparty:C" if keeps == "rating" else "venue:V"
    assert g.decide(msgspec.structs.replace(order_of(1, _asked()), venue="V", counterparty="C"), now).outcome == "accept"
    if keeps in ("limit", "window"):
        g.add_limit(limit("L", name, "gross" if keeps == "limit" else "message_count", 1e9, window_ms=None if keeps == "limit" else 1000))
    elif keeps == "halt":
        g.add_control(Control(scope=name, state="halted", reason="a relation", by="p", ts=T0, rev=1))
        g._bring_states()
    elif keeps == "rating":
        g.add_counterparty(Counterparty(counterparty="C", rating=2))
    else:
        g.set_other(name, 3, Own({"gross": 5.0}, {}, {}))
    a_day_later(g, now)
    assert name in g.state.node_index and "trader:t" not in g.state.node_index


def test_a_halt_holds_for_a_name_that_takes_the_place_of_one_that_ended() -> None:
    g = firm()
    assert g.decide(msgspec.structs.replace(order_of(1, _asked()), trader="gone"), T0).outcome == "accept"
    now = a_day_later(g, T0)
    assert g.state.closed
    g.add_control(Control(scope="trader:new", state="reducing", reason="a relation", by="p", ts=T0, rev=1))
    reduces = msgspec.structs.replace(order_of(2, _asked(side="sell", quantity="1", off=0.1)), trader="new")
    assert g.decide(reduces, now).outcome == "accept" and "trader:new" in g.state.node_index
    opens = msgspec.structs.replace(order_of(3, _asked(off=-0.1)), trader="new")
    assert [r.code for r in g.decide(opens, now).reasons] == ["REDUCING_ONLY"]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(ORDER, max_size=6), min_size=2, max_size=4))
def test_what_a_gate_keeps_is_of_what_lives(days: list[list[dict[str, Any]]]) -> None:
    g, now, k = firm(), T0, 0
    for asked in days:
        for a in asked:
            g.decide(msgspec.structs.replace(order_of(k, a), trader=f"t{k}", time_in_force="day"), now)
            k += 1
        now = a_day_later(g, now)
    assert not g.working and not g._ends and not g._held and not g._now and not g.reduce_only and not any(g.of_position.values())
    assert not g.day_of and not g.at_venue and not g.changes.orders and not g.changes.written and not g.changes.days
    assert len(g.recent._last) <= len(g.recent._order) and g.state.by_orders == set()
    assert len(g.accepted) <= k


# ---- R7
@settings(max_examples=40, deadline=None)
@given(st.lists(ORDER, max_size=10), LIMITS, st.lists(st.integers(0, 9), max_size=5))
def test_whatever_comes_twice_changes_nothing(asked: list[dict[str, Any]], limits: tuple[Limit, ...], again: list[int]) -> None:
    hashes = []
    for twice in (False, True):
        g = firm(extra=limits)
        for k, a in enumerate(asked):
            for _ in range(1 + (twice and k in again)):
                g.decide(order_of(k, a), T0 + k * MS)
            if twice and k in again:
                for x in limits:
                    g.add_limit(x)
                g.add_account(account("A", "D"))
                g.add_instrument(g.book.reference.instrument_records["X"])
                g.add_position(g.book.positions[g.book.keys["A|X"]])
                mark(g, "X", 100.0)
        g.refresh(T0 + 60_000 * MS)  # messages count what comes twice, too; their windows are over by then
        g.end_limits(T0 + 60_000 * MS)
        hashes.append(state_hash(g))
    assert hashes[0] == hashes[1]


# ---- R9
@settings(max_examples=40, deadline=None)
@given(st.lists(ORDER, max_size=10), LIMITS)
def test_names_are_names(asked: list[dict[str, Any]], limits: tuple[Limit, ...]) -> None:
    said = []
    for renamed in (False, True):
        g = firm(extra=tuple(x for x in limits if not x.node.startswith(("trader:", "venue:"))))
        outcomes = []
        for k, a in enumerate(asked):
            o = order_of(k, a)
            if renamed:
                o = msgspec.structs.replace(o, order_id=f"Z-{o.order_id}", ref_order_id=o.ref_order_id and f"Z-{o.ref_order_id}", trader="somebody else", venue=o.venue and "W")
            v = g.decide(o, T0 + k * MS)
            outcomes.append((v.outcome, [r.code for r in v.reasons], [w.code for w in v.warnings], v.effect))
        said.append(outcomes)
    assert said[0] == said[1]


@settings(max_examples=40, deadline=None)
@given(ORDER, ORDER, LIMITS)
def test_orders_of_accounts_that_no_limit_spans_commute(one: dict[str, Any], other: dict[str, Any], limits: tuple[Limit, ...]) -> None:
    apart = tuple(x for x in limits if x.node in ("account:A", "account:B", "desk:D", "desk:E"))
    orders = [order_of(1, one | {"account": "A", "action": "new"}), order_of(2, other | {"account": "B", "action": "new"})]
    found = []
    for turned in (False, True):
        g = firm(extra=apart)
        said = {o.order_id: [r.code for r in g.decide(o, T0).reasons] for o in (reversed(orders) if turned else orders)}
        found.append((said, state_hash(g)))
    assert found[0] == found[1]


# ---- the border of the topic
@pytest.mark.parametrize("value", [b"{", b"not json", b"[{]", b"\xff\xfe"])
def test_an_order_that_is_no_json_is_put_in_quarantine_as_such_and_the_next_is_decided(value: bytes) -> None:
    stage, sent = made_stage()
    batch = SimpleNamespace(topic="orders", partition=0, offsets=[0], timestamps_ms=[STANDS // 10**6], headers={})
    stage._decide_message(cast(Any, batch), 0, value)
    ((topic, raw),) = sent.records
    assert topic == "quarantine" and msgspec.json.decode(raw)["reason"] == "not_json"


def _asked(**more: Any) -> dict[str, Any]:
    return {"account": "A", "instrument": "X", "side": "buy", "type": "limit", "quantity": "1", "off": 0.0, "action": "new", "ref": 0, "venue": None, "locate_id": None} | more
