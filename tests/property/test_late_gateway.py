"""R1 and R3 of a gateway: one that starts late, on what compaction left, knows what one knows that was there all along."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from app.gateway.state import GatewayState
from app.gateway.stream import Frames
from models.limits import STILL
from schemas.codec import encode
from schemas.records import Alert, Control, Instrument, Limit
from schemas.topics import TOPICS
from tests.property.test_rollup import INSTRUMENTS, LEVELS, account, mark, position
from tests.property.test_stream import NAMES, Client, node

COMPACTED = {t.name for t in TOPICS if t.compact}
#: in this order a gateway that starts reads them
READ = ("reference.instruments", "reference.accounts", "marks", "positions", "risk", "limits", "controls", "alerts")
NODES = st.sampled_from(["firm", "desk:D0", "book:B1", "account:A1"])
STEP = st.one_of(
    st.tuples(st.just("positions"), st.integers(0, 5), st.sampled_from(NAMES), st.integers(-500, 500)),
    st.tuples(st.just("marks"), st.sampled_from(NAMES), st.one_of(st.none(), st.floats(0.5, 5e4))),
    st.tuples(st.just("reference.accounts"), st.integers(0, 5), st.integers(0, 5)),
    st.tuples(st.just("reference.instruments"), st.sampled_from(INSTRUMENTS), st.integers(0, 2)),
    st.tuples(st.just("risk"), NODES, st.booleans()),
    st.tuples(st.just("limits"), st.integers(0, 3), st.integers(1, 9), st.booleans()),
    st.tuples(st.just("controls"), NODES, st.sampled_from(["active", "reducing", "halted"])),
    st.tuples(st.just("alerts"), st.integers(0, 3), NODES, st.sampled_from(["approach", "breach", "clear", "still", "stale", "barrier"]), st.booleans()))


def record(step: tuple[Any, ...], rev: int) -> tuple[str, str, Any]:
    """Return a step's topic, key and record (None: it is withdrawn)."""
    match step:
        case topic, int(a), str(name), int(quantity):
            return topic, f"A{a}|{name}", position(f"A{a}", name, float(quantity), 50.0 + a, quantity / 3, rev, ts_source=rev)
        case "marks", name, mid:
            return "marks", name, mark(name, mid)
        case "reference.accounts", a, book:
            return "reference.accounts", f"A{a}", account(f"A{a}", book)
        case "reference.instruments", Instrument() as held, k:
            return "reference.instruments", held.instrument, msgspec.structs.replace(held, issuer=f"I{k}")
        case "risk", name, there:
            return "risk", name, node(name, rev) if there else None
        case "limits", k, value, there:
            limit = Limit(limit_id=f"L{k}", node="desk:D0", metric="gross", limit=value, version=rev, by="ann", reason="of a test")  # type: ignore[arg-type]
            return "limits", f"L{k}", limit if there else None
        case "controls", name, state:
            return "controls", name, Control(scope=name, state=state, reason="of a test", by="ann", ts=rev, rev=rev)
        case "alerts", k, name, kind, seen:
            note = (STILL + ": seen" if seen else STILL) if kind == "still" else None
            return "alerts", name, Alert(alert_id=f"L{k}.{rev}", kind="clear" if kind == "still" else kind, node=name, metric="gross", value=1.0, limit=1.0, utilisation=1.0,
                                         cause_ts=rev, raised_ts=rev, snapshot_id=1, limit_id=f"L{k}", note=note, ack_by="bob" if seen else None)
    raise AssertionError(step)


def take(house: GatewayState, topic: str, key: str, value: Any) -> None:
    """Hand one record to a gateway as its tails do."""
    match topic:
        case "positions":
            assert house.add_positions([encode(value)], 0) == []
        case "marks":
            house.book.add_mark(value)
        case "reference.accounts":
            house.add_account(value)
        case "reference.instruments":
            house.add_instrument(value)
        case "risk":
            house.end_node(key) if value is None else house.take_risk(key, encode(value))
        case "limits":
            house.limits.pop(key, None) if value is None else house.add_limit(value)
        case "controls":
            house.controls[key] = value
        case "alerts":
            house.add_alert(value)


def compacted(log: list[tuple[str, str, Any]]) -> list[tuple[str, str, Any]]:
    """Return what a reader from the beginning finds: topic by topic, of compacted ones the newest record of each key."""
    newest = {(topic, key): k for k, (topic, key, _) in enumerate(log)}
    kept = [r for k, r in enumerate(log) if r[0] not in COMPACTED or newest[r[0], r[1]] == k]
    return [r for topic in READ for r in kept if r[0] == topic]


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, max_size=30), st.integers(1, 5), st.sampled_from(["firm", "book:B1", "account:A1", "dealer:X0", "issuer:I1"]))
def test_a_gateway_that_starts_late_knows_what_an_early_one_does(steps: list[Any], every: int, scope: str) -> None:
    begin: list[tuple[str, str, Any]] = [("reference.instruments", i.instrument, i) for i in INSTRUMENTS]
    begin += [("reference.accounts", f"A{k}", account(f"A{k}", k)) for k in range(6)]
    log = begin + [record(step, rev) for rev, step in enumerate(steps, 1)]
    houses = early, late = GatewayState("USD", LEVELS), GatewayState("USD", LEVELS)
    watching = Client(Frames(early, lambda: 1), scope, 20)
    for k, entry in enumerate(log):
        take(early, *entry)
        if k % every == 0:
            early.turn()
        watching.step(0.05 * k)
    for entry in compacted(log):
        take(late, *entry)
    for house in houses:
        house.turn()
    assert early.state_hash() == late.state_hash()
    watching.step(0.05 * len(log) + 10.0)
    joining = Client(Frames(late, lambda: 1), scope, 20)
    joining.step(0.0)
    assert as_seen(watching) == as_seen(joining)
    assert {k: a.kind for k, a in early._open.items()} == {k: a.kind for k, a in late._open.items()}


def as_seen(client: Client) -> dict[str, Any]:
    """Return what a client holds; sums of lines that came in another order to ten digits."""
    return {table: {name: [float(f"{v:.10g}") if isinstance(v, float) else v for v in row] for name, row in rows.items()}
            for table, rows in client.tables.items()}


def test_a_fact_that_was_not_sent_at_first_is_found_by_paging_and_none_is_lost_in_silence() -> None:
    house = GatewayState("USD", LEVELS)
    for k in range(2_500):
        house.add_fact("reject", {"rid": k})
    client = Client(Frames(house, lambda: 1), "firm", 20)
    client.step(0.0)
    assert len(client.facts) == 1_000 and client.said == {"seq": house.seq, "sent": 1_000, "before": min(client.facts), "earlier": 1_500, "more": True, "forgotten": False}
    found, before, more = set(client.facts), min(client.facts), True
    while more:
        page, more = house.facts_before(before, 600)
        found |= {f.seq for f in page}
        before = page[0].seq
    assert found == {f.seq for f in house.facts}
