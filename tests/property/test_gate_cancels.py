"""A cancel passes for whatever was ever let through for its account, and for nothing else; it releases what works of it."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.gate.accepted_orders import AcceptedOrders
from schemas.records import Control
from tests.property.test_gate_relations import MS, ORDER, T0, firm, order_of, reserved

ENDS = st.sampled_from(["", "executed", "halted", "killed", "expired", "cancelled", "full"])
DAY_NS = 86_400_000_000_000


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(ORDER, ENDS), max_size=14), st.integers(0, 15), st.sampled_from("AB"))
def test_a_cancel_passes_for_all_that_was_let_through_whatever_became_of_it(history: list[tuple[dict[str, Any], str]], named: int, asks: str) -> None:
    g, now, accepted = firm(), T0, set[tuple[str, str]]()
    for k, (asked, end) in enumerate(history):
        now += asked["gap"] * MS
        order = order_of(k, asked)
        verdict = g.decide(order, now)
        if order.action == "cancel":
            assert (verdict.outcome == "accept") == ((order.account, order.ref_order_id) in accepted)
        elif verdict.outcome == "accept":
            accepted.add((order.account, order.order_id))
        if end == "executed":
            g.fill(f"o{asked['ref']}", 1e6)
        elif end in ("halted", "killed"):
            for w in g.add_control(Control(scope="all", state=end, reason="a relation", by="p", ts=now, rev=k)):  # type: ignore[arg-type]
                g.release(w.order.order_id)
        elif end == "expired":
            now += DAY_NS
            g.refresh(now)
        elif end == "cancelled":
            g.release(f"o{asked['ref']}")
    before, works = reserved(g), g.find(f"o{named}")
    cancel = order_of(99, {"account": asks, "instrument": "X", "side": "buy", "type": "market", "quantity": "1", "off": 0, "action": "cancel", "ref": named, "venue": None, "locate_id": None})
    assert g.check(cancel, now).outcome == g.decide(cancel, now).outcome == ("accept" if (asks, f"o{named}") in accepted else "reject")
    if works is None or works.order.account != asks:  # it releases what works of its own account alone
        assert reserved(g) == before
    else:
        assert g.find(f"o{named}") is None


def test_a_refused_order_makes_no_duplicate_of_the_next_and_a_let_through_one_does() -> None:
    """15c3-5(c)(1)(ii): a duplicative order repeats one that was entered; what was refused never was."""
    g = firm()
    base: dict[str, Any] = {"account": "A", "instrument": "X", "side": "buy", "type": "limit", "quantity": "10", "off": -0.1, "action": "new", "ref": 0, "venue": None, "locate_id": None}
    g.add_control(Control(scope="desk:D", state="halted", reason="a relation", by="p", ts=T0, rev=1))
    assert g.decide(order_of(1, base), T0).outcome == "reject"
    g.add_control(Control(scope="desk:D", state="active", reason="a relation", by="p", ts=T0, rev=2))
    assert g.decide(order_of(1, base), T0 + MS).outcome == "accept"
    assert [r.code for r in g.decide(order_of(2, base), T0 + 2 * MS).reasons] == ["DUPLICATE_ORDER"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60)), max_size=200), st.integers(1, 12))
def test_ids_are_bounded_and_no_account_takes_the_place_of_another(added: list[tuple[int, int]], most: int) -> None:
    ids, newest = AcceptedOrders(most), OrderedDict[tuple[int, int], None]()
    for account, k in added:
        ids.add(account, str(k))
        newest.pop((account, k), None)
        newest[account, k] = None
    assert len(ids) == len(list(ids)) == min(most, len(newest))
    held = Counter(account for account, _ in ids)
    for account, n in held.items():  # of each the newest, the oldest first
        assert [k for a, k in ids if a == account] == [str(k) for a, k in newest if a == account][-n:]
    share = most // max(len({a for a, _ in added}), 1)
    for account in {a for a, _ in added}:
        assert held[account] >= min(share, sum(a == account for a, _ in newest))
    ids.forget({0, 1, 2, 3})
    assert len(ids) == 0 and not list(ids) and not ids.unwritten() and np.isfinite(most)
