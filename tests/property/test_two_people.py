"""R12: over all sequences of writes by one person no order passes that a limit of two people refused before."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.control import NeedsSecond, Refused, check_minutes, limit_to_remove, new_limit, next_version
from app.gateway.standing import standings
from app.gateway.state import GatewayState
from app.gateway.used_limits import UsedLimits
from app.limit_files import changes
from models.gate.book import GateBook
from models.limit_changes import needs_second
from models.limits import LimitMonitor, key_of
from models.limits_in_force import same_person
from models.trading_states import replaces
from schemas.records import Account, Control, Instrument, Limit, Mark, Order
from schemas.units import parse_ts_ns

T0, MIN, DAY = 1_795_000_000_000_000_000, 60 * 10**9, 86_400 * 10**9
REASON = "because I want it so"
LEVELS = ("book", "desk", "strategy", "fund", "firm")
#: what two people set: an order of 150 at 100 is refused by each
PAIRS = st.sampled_from([("desk:D", "gross", 10_000, {}), ("firm", "order_quantity", 100, {}), ("fund:F", "order_value", 10_000, {}), ("desk:D", "net", 10_000, {}),
                         ("account:A", "position_long", 100, {"instrument": "FU"}), ("firm", "collar_bps", 10, {}), ("asset_class:future", "collar_ticks", 1, {}),
                         ("account:A", "daily_value", 10_000, {}), ("desk:D", "daily_quantity", 100, {}), ("trader:t", "message_value", 10_000, {"window_ms": 60_000})])
NAMES = st.sampled_from(["L1", "L1", "L1~temporary", "L1~override", "L2", "L3"])
WRITE = st.fixed_dictionaries({"limit_id": NAMES}, optional={
    "limit": st.sampled_from([1, 50, 10_000, 9_999, 1e12]), "mode": st.sampled_from(["hard", "soft"]), "action": st.sampled_from(["alert", "halt"]), "warn": st.sampled_from([0.1, 0.8, 0.99]),
    "minutes": st.sampled_from([0.001, 1, 600, 10_080]), "window_ms": st.sampled_from([1_000, 60_000]), "instrument": st.sampled_from(["FU", "G"]),
    "node": st.sampled_from(["desk:D", "desk:E", "firm", "fund:F", "account:A", "instrument:FU", "asset_class:future", "trader:t"]),
    "metric": st.sampled_from(["gross", "net", "order_quantity", "order_value", "position_long", "collar_bps", "collar_ticks", "daily_value", "message_value"])})
STEP = st.one_of(WRITE, WRITE, WRITE, WRITE.map(lambda w: w | {"same_place": True}), NAMES.map(lambda k: {"limit_id": k, "remove": True}),
                 st.sampled_from([2 * MIN, 700 * MIN, 8 * DAY]), st.lists(WRITE, max_size=2).map(lambda rows: {"rows": rows}))


def book(now: int) -> GateBook:
    g = GateBook("USD", LEVELS, accounts=4, instruments=4, positions=16, nodes=64, rates=32, ring=4)
    g.positions_hold(9 * 10**18)
    g.add_instrument(Instrument(instrument="FU", asset_class="future", currency="USD", prior_close=Decimal(100), price_increment=Decimal("0.01")))
    g.add_account(Account(account="A", book="B", desk="D", strategy="S", fund="F", nav=Decimal(10**7)))
    g.book.add_mark(Mark(instrument="FU", window_end=now, ts_event=now, bid=99.99, ask=100.01, mid=100.0, last=None, quality="good"))
    g.set_price("FU", 99.99, 100.01, 100.0, None, now, True)
    for metric, value in (("order_quantity", 10**9), ("order_value", 10**12)):
        g.add_limit(Limit(limit_id=metric, node="firm", metric=metric, limit=Decimal(value), version=1, by="ann", reason=REASON, mode="hard"))
    return g


def refuses(standing: dict[str, Limit], now: int, price: float) -> bool:
    """Whether a gate that reads the limits as they stand now refuses the order."""
    g = book(now)
    for limit in standing.values():
        g.add_limit(limit)
    g.refresh(now)
    order = Order(order_id="O", account="A", trader="t", instrument="FU", side="buy", type="limit", quantity=Decimal(150), price=Decimal(str(price)), ts_event=now)
    return g.check(order, now).outcome == "reject"


def write(standing: dict[str, Limit], step: dict[str, Any], now: int) -> None:
    """Do what one person asks for, as each door does it."""
    fields = {"reason": REASON} | {k: v for k, v in step.items() if k != "same_place"}
    try:
        if "rows" in step:
            rows = {r["limit_id"]: {"reason": REASON} | {k: v for k, v in r.items() if k != "minutes"} for r in step["rows"]}
            found = changes(rows, standing, "ann", False, now)
            made, gone = found.set, found.removed
        else:
            made, gone = ([], [limit_to_remove(standing, fields, "ann", now)]) if step.get("remove") else ([new_limit(standing, fields, "ann", now)], [])
    except Refused:
        return
    for limit in (*made, *gone):
        standing.pop(limit.limit_id, None)
        if limit in made:
            standing[limit.limit_id] = limit


@settings(max_examples=120, deadline=None)
@given(pair=PAIRS, steps=st.lists(STEP, min_size=1, max_size=6))
def test_no_sequence_of_writes_by_one_person_lets_an_order_pass(pair: tuple[str, str, float, dict[str, Any]], steps: list[Any]) -> None:
    node, metric, value, more = pair
    place = {"node": node, "metric": metric, "instrument": None} | more
    standing = {"L1": new_limit({}, {"limit_id": "L1", "limit": value, "reason": REASON, "approved_by": "bob", **{k: v for k, v in place.items() if v is not None}}, "ann", T0)}
    price = 102.0 if metric.startswith("collar") else 100.0
    now = T0
    assert refuses(standing, now, price)
    for step in steps:
        if isinstance(step, int):
            now += step
        else:
            write(standing, step | {k: v for k, v in place.items() if v is not None} if step.get("same_place") else step, now)
        assert refuses(standing, now, price), standing


def test_what_asks_for_the_second_person_and_what_one_may_do() -> None:
    two = new_limit({}, {"limit_id": "L1", "node": "desk:D", "metric": "gross", "limit": 10_000, "reason": REASON, "approved_by": "bob"}, "ann", T0)
    standing = {"L1": two}
    for wrong in ({"mode": "soft"}, {"minutes": 0.001}, {"minutes": 5, "limit": 20_000}, {"node": "desk:E"}, {"metric": "net"}, {"warn": 0.9}, {"limit": 10_001},
                  {"limit_id": "L2", "node": "desk:D", "metric": "gross", "limit": 1e12, "minutes": 600},
                  {"limit_id": "L2", "node": "desk:D", "metric": "gross", "mode": "soft", "limit": 1, "minutes": 600}):
        if wrong == {"minutes": 0.001}:  # stands beside it, as strict: what it stands in for comes back
            beside = new_limit(standing, {"limit_id": "L1", "reason": REASON} | wrong, "ann", T0)
            assert (beside.limit_id, beside.approved_by) == ("L1~temporary", None) and beside.until is not None
            continue
        with pytest.raises(NeedsSecond, match="approved_by: expected a second person: two people set L1"):
            new_limit(standing, {"limit_id": "L1", "reason": REASON} | wrong, "ann", T0)
        assert new_limit(standing, {"limit_id": "L1", "reason": REASON, "approved_by": "bob"} | wrong, "ann", T0).approved_by == "bob"
    halts = {"L1": new_limit(standing, {"limit_id": "L1", "reason": REASON, "action": "halt"}, "ann", T0)}
    with pytest.raises(NeedsSecond):
        new_limit(halts, {"limit_id": "L1", "reason": REASON, "action": "alert"}, "ann", T0)
    for may in ({"limit": 9_000}, {"warn": 0.5}, {"action": "halt"}, {"limit_id": "L2", "node": "desk:D", "metric": "gross", "limit": 1e12}, {"limit_id": "L2", "node": "desk:E", "metric": "gross", "limit": 1}):
        new_limit(standing, {"limit_id": "L1", "reason": REASON} | may, "ann", T0)
    with pytest.raises(NeedsSecond):
        limit_to_remove(standing, {"limit_id": "L1", "reason": REASON}, "ann", T0)
    raised = standing | {"L1~override": next_version(two, {"limit_id": "L1~override", "limit": 20_000, "minutes": 5, "reason": REASON, "approved_by": "bob"}, "ann", T0)}
    assert needs_second(raised, "L1~override", None, T0) is None, "one person ends an override early"


def test_an_order_passes_its_limits_by_two_people_only_and_nothing_lasts_beyond_a_bound() -> None:
    asked = {"limit_id": "order:O~override", "node": "order:O", "metric": "override", "limit": 1e12, "minutes": 5, "reason": REASON}
    with pytest.raises(NeedsSecond, match="by two people only"):
        new_limit({}, asked, "ann", T0)
    for wrong in ({"node": "firm", "metric": "gross"}, {"limit_id": "X"}):  # a name that a gate takes for an override
        with pytest.raises(Refused, match="metric: expected override for an order and for nothing else"):
            new_limit({}, asked | wrong, "ann", T0)
    g = book(T0)
    g.add_limit(Limit(limit_id="G", node="firm", metric="gross", limit=Decimal(1), version=1, by="ann", reason=REASON))
    g.refresh(T0)
    for more in ({"metric": "gross", "node": "desk:D"}, {"metric": "override", "node": "order:O"}, {"metric": "override", "node": "order:O", "approved_by": " ANN"}):
        written = Limit(limit_id="order:O~override", limit=Decimal(10**9), version=1, by="ann", reason=REASON, until=T0 + MIN, **more)  # type: ignore[arg-type]
        if more["metric"] == "override":
            g.add_limit(written)
        else:
            with pytest.raises(ValueError, match="metric: expected override for an order and for nothing else"):
                g.add_limit(written)
        order = Order(order_id="O", account="A", trader="t", instrument="FU", side="buy", type="limit", quantity=Decimal(1), price=Decimal(100), ts_event=T0)
        assert [r.code for r in g.check(order, T0).reasons] == ["GROSS_EXPOSURE"], more
    for minutes in (0, -1, 10_081, float("nan"), float("inf"), 1e300, "5", True, [5]):
        with pytest.raises(Refused, match="minutes: expected above 0 and at most 10080"):
            new_limit({}, {"limit_id": "L", "node": "firm", "metric": "gross", "limit": 1, "reason": REASON, "minutes": minutes}, "ann", T0)
        with pytest.raises(Refused, match="at most 60"):
            check_minutes(minutes, 60)
    with pytest.raises(Refused, match="minute: expected one of action, "):
        new_limit({}, {"limit_id": "L", "node": "firm", "metric": "gross", "limit": 1, "reason": REASON, "minute": 5}, "ann", T0)
    for twice in ("Ann", " ann ", "ＡＮＮ"):
        assert same_person("ann", twice)
        with pytest.raises(Refused, match="expected a second person"):
            new_limit({}, asked | {"approved_by": twice}, "ann", T0)


def test_the_newest_of_several_temporary_limits_is_in_force_for_monitor_and_gate_alike() -> None:
    until = datetime.fromtimestamp(T0 / 1e9 + 600, UTC).isoformat()
    one, two = (Limit(limit_id=k, node="desk:D", metric="gross", limit=Decimal(v), version=1, by="ann", approved_by="bob", reason=REASON, until=until) for k, v in (("T1", 100), ("T2", 200)))
    again = Limit(limit_id="T1", node="desk:D", metric="gross", limit=Decimal(150), version=2, by="ann", approved_by="bob", reason=REASON, until=until)
    lived, started, g = LimitMonitor(), LimitMonitor(), book(T0)
    for limit in (one, two, again):
        lived.add(limit)
        g.add_limit(limit)
    for limit in (two, again):  # what compaction leaves
        started.add(limit)
    assert [[w.limit.limit_id for w in m._by_key[next(iter(m._by_key))]] for m in (lived, started)] == [["T2", "T1"]] * 2
    assert g.state.nodes["limit"][g.state.node("desk:D"), 0] == 150
    with pytest.raises(ValueError, match="until: expected"):
        lived.add(Limit(limit_id="T1", node="desk:D", metric="gross", limit=Decimal(1), version=3, by="ann", reason=REASON, until="soon"))
    assert lived.watches["T1"].limit == again


KEPT = st.lists(st.tuples(st.integers(0, 4), st.sampled_from([10, 20, 30, 40]), st.sampled_from(["hard", "soft"]), st.sampled_from([None, "bob", " ANN"]), st.sampled_from([None, 1, 3])), max_size=8)


@settings(max_examples=150, deadline=None)
@given(KEPT, st.sampled_from([0, 2, 4]))
def test_gate_monitor_and_page_hold_the_same_limits(kept: list[tuple[int, int, str, str | None, int | None]], minutes: int) -> None:
    """The tightest in force: lasting ones, unless the newest temporary one of two people is there; any other beside them."""
    g, monitor, page, now = book(T0), LimitMonitor(), GatewayState("USD", LEVELS), T0 + minutes * MIN
    newest: dict[str, Limit] = {}
    for version, (k, value, mode, approved, until) in enumerate(kept):
        x = Limit(limit_id=f"L{k}", node="desk:D", metric="gross", limit=Decimal(value), mode=mode, version=version, by="ann", approved_by=approved, reason=REASON,  # type: ignore[arg-type]
                  until=None if until is None else datetime.fromtimestamp(T0 / 1e9 + 60 * until, UTC).isoformat())
        newest.pop(x.limit_id, None)
        newest[x.limit_id] = x
        for take in (g.add_limit, monitor.add, page.add_limit):
            take(x)
    g.refresh(now)
    shown = [x for x, s in zip(page.limits.values(), standings(page, UsedLimits(1, page.book.reference, LEVELS), list(page.limits.values()), now), strict=True) if s.in_force]
    monitor.measure({key_of(x): 5.0 for x in newest.values()}, now, 1)
    for mode, column in (("hard", "limit"), ("soft", "soft")):
        here = [x for x in newest.values() if x.mode == mode and (x.until is None or parse_ts_ns(x.until) > now)]
        pairs = [x for x in here if x.until is not None and x.approved_by == "bob"]
        held = {float(x.limit) for x in here if x in pairs[-1:] or (x not in pairs and (x.until is not None or not pairs))}
        assert {float(x.limit) for x in shown if x.mode == mode} == held
        assert {float(w.held.limit) for w in monitor.watches.values() if w.value is not None and w.limit.mode == mode} == held
        assert np.array_equal(g.state.nodes[column][g.state.node("desk:D"), 0], min(held, default=np.nan), equal_nan=True)


def test_of_two_states_that_were_written_at_once_the_stricter_stands() -> None:
    halted, reducing, later = (Control(scope="desk:D", state=s, reason=REASON, by="ann", ts=T0, rev=rev) for s, rev in (("halted", 2), ("reducing", 2), ("active", 3)))  # type: ignore[arg-type]
    for order in ([halted, reducing], [reducing, halted]):
        g, held = book(T0), None
        for control in order:
            g.add_control(control)
            held = control if replaces(control, held) else held
        assert held == halted == g.controls["desk:D"]
    assert replaces(later, halted) and not replaces(halted, later)
