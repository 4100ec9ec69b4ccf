"""Whatever comes in at the doors of the gate: every line and every record gets one answer, and the next order its verdict."""

from __future__ import annotations

import json
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.gate import GateStage
from agents.quarantine import Quarantine
from app.gate_socket import Connection, GateSocket
from models.gate.book import GateBook
from schemas.records import Account, Decision, Instrument, Limit, Mark, Order, Quarantined
from tables.records import RecordBatch
from tests.support.examples import scaled

T0 = 1_795_000_000_000_000_000
TOPICS = {"trades": "trades", "decisions": "decisions"}
ANY = st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8), st.just([]), st.just({}),
                st.sampled_from(["", "NaN", "sNaN", "-Infinity", "1e400", "1e-400", "-0", "0x10", "1_000", "9" * 400, "\u0000", "é", "2026-13-45T99:99:99Z"]))
GOOD: dict[str, list[Any]] = {
    "order_id": ["O1", "O2", "O3"], "account": ["A", "B", "NOBODY"], "trader": ["t", "u"], "instrument": ["X", "Y", "?"], "side": ["buy", "sell"],
    "type": ["limit", "market"], "quantity": ["1", "10", 5, "0.000001", "1e15", "-3", 0], "price": ["100", 99.9, "1e-300", "1e300", "-5", None],
    "ts_event": [T0, "2026-11-18T09:46:40Z", 1, 0], "action": ["new", "replace", "cancel"], "ref_order_id": ["O1", "O2", "", None],
    "time_in_force": ["day", "gtc", "gtd", "ioc", "fok"], "expire_ts": [T0 + 10**9, T0 - 1, None], "venue": ["V", "", None], "counterparty": ["C", None],
    "algo_id": ["a", None], "locate_id": ["L", None], "short_exempt": [True, False], "dry_run": [True, False]}
ORDERS = st.fixed_dictionaries({f: st.sampled_from(values) for f, values in GOOD.items()})
BENT = st.builds(lambda order, bent, without: {k: v for k, v in (order | bent).items() if k not in without}, ORDERS,
                 st.dictionaries(st.sampled_from([*GOOD, "more"]), ANY, max_size=3), st.sets(st.sampled_from([*GOOD]), max_size=2))
#: JSON that is nested too deep, alone and where nobody looks
DEEP = st.tuples(ORDERS.map(lambda o: json.dumps(o).encode()), st.sampled_from([b"[", b'{"a":']), st.sampled_from([500, 3_000])).map(
    lambda x: x[0][:-1] + b',"more":' + x[1] * x[2] + (b"1" if x[1] != b"[" else b"") + (b"]" if x[1] == b"[" else b"}") * x[2] + b"}")
LINES = st.one_of(st.binary(max_size=60), DEEP, st.just(b"[" * 3_000 + b"]" * 3_000), ORDERS.map(lambda o: json.dumps(o).encode()), BENT.map(lambda o: json.dumps(o).encode()),
                  st.tuples(ORDERS.map(lambda o: json.dumps(o).encode()), st.integers(0, 300), st.binary(max_size=3)).map(lambda x: x[0][: x[1]] + x[2] + x[0][x[1] + 1 :])
                  ).map(lambda line: line.replace(b"\n", b" "))


class Sent:
    """A publisher that keeps what it was given."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes]] = []

    def send(self, topic: str, key: bytes, value: bytes, *_: Any, **__: Any) -> None:
        self.records.append((topic, value))


def gate() -> tuple[GateStage, Sent]:
    """Return a gate of two accounts that stands at `T0`, without a broker."""
    book, sent = GateBook("USD", ("book", "desk", "strategy", "fund", "firm")), Sent()
    book.positions_hold(T0)
    for name in ("X", "Y"):
        book.add_instrument(Instrument(instrument=name, asset_class="equity" if name == "Y" else "future", currency="USD", prior_close=Decimal(100)))
        book.book.add_mark(Mark(instrument=name, window_end=T0, ts_event=T0, bid=99.9, ask=100.1, mid=100.0, last=None, quality="good"))
        book.set_price(name, 99.9, 100.1, 100.0, None, T0, True)
    for a in ("A", "B", "OTHER"):
        book.add_account(Account(account=a, book=f"B{a}", desk="D", strategy="S", fund="F", nav=Decimal(10**6)))
    for metric, value in {"order_quantity": 1e6, "order_value": 1e9, "gross": 1e12, "message_count": 1e6}.items():
        book.add_limit(Limit(limit_id=metric, node="firm", metric=metric, limit=Decimal(value), version=1, by="r", reason="test", window_ms=1000 if metric == "message_count" else None))
    book.refresh(T0)
    stage, nothing = cast(Any, GateStage.__new__(GateStage)), SimpleNamespace(add=lambda *a, **k: None, observe=lambda *a, **k: None)
    stage.gate, stage.watch, stage._clock, stage._counters, stage._publisher = book, SimpleNamespace(recorded=lambda d: None), lambda: T0, nothing, sent
    stage._partitions, stage._next, stage._topics, stage._journal = 1, {}, TOPICS, None
    stage._half_done, stage._owned, stage._paused, stage._lease = set(), {0}, False, SimpleNamespace(held=lambda: True)
    stage._quarantine = Quarantine({"quarantine": "quarantine", "alerts": "alerts"}, cast(Any, sent), cast(Any, nothing))
    stage._quarantine._alerts = SimpleNamespace(refused=lambda record: None)
    return cast(GateStage, stage), sent


def goes_on(stage: GateStage) -> bool:
    """Whether an order of an account that none of them named is let through, as at a gate that has seen nothing."""
    order = Order(order_id="next", account="OTHER", trader="somebody", instrument="X", side="buy", type="limit", quantity=Decimal(1), price=Decimal("98.7"), ts_event=T0)
    return stage.judge(order, None).outcome == "accept"


@settings(max_examples=scaled(100), deadline=None)
@given(st.lists(LINES, min_size=1, max_size=12), st.integers(1, 400))
def test_every_line_at_the_socket_is_answered_in_its_order(lines: list[bytes], piece: int) -> None:
    stage, sent = gate()
    written: list[bytes] = []
    connection = Connection(GateSocket(stage, cast(Any, SimpleNamespace(of_partition={})), cast(Any, None), 1))
    connection.connection_made(cast(Any, SimpleNamespace(write=written.append, close=lambda: written.append(b"closed"))))
    stream = b'{"session":"s","cancel_on_disconnect":true}\n' + b"\n".join([*lines, b""])
    for at in range(0, len(stream), piece):
        connection.data_received(stream[at : at + piece])
    answers = [msgspec.json.decode(line) for line in b"".join(written).splitlines()]
    assert len(answers) == len(lines) + 1 and b"closed" not in written
    decided = [a for a in answers if "outcome" in a]
    assert all("error" in a or "outcome" in a for a in answers[1:])
    assert [r for a in decided for r in a["reasons"] if r["code"] == "INTERNAL_ERROR"] == []
    assert len(sent.records) <= len(decided)  # the others were to leave no trace
    assert goes_on(stage)
    connection.connection_lost(None)
    assert {w.order.order_id for w in stage.gate.working.values()} <= {"next"}


@settings(max_examples=scaled(100), deadline=None)
@given(st.lists(LINES, min_size=1, max_size=6), st.booleans())
def test_every_record_of_the_topic_is_decided_or_put_in_quarantine(lines: list[bytes], as_batch: bool) -> None:
    stage, sent = gate()
    values = [b"[" + b",".join(lines) + b"]"] if as_batch else lines
    batch = SimpleNamespace(topic="orders", partition=0, offsets=list(range(len(values))), timestamps_ms=[T0 // 10**6] * len(values), headers={})
    for m, value in enumerate(values):
        before = len(sent.records)
        stage._decide_message(cast(RecordBatch, batch), m, value)
        assert len(sent.records) > before or value.strip() == b"[]"
    decisions: list[Decision] = []
    for topic, value in sent.records:
        found = msgspec.json.decode(value, type=Decision if topic == "decisions" else Quarantined)
        if isinstance(found, Decision):
            assert [r for r in found.reasons if r.code == "INTERNAL_ERROR"] == []
            decisions.append(found)
    assert goes_on(stage)
    heir, _ = gate()  # reads what was decided before it decides anything
    heir.gate.recount(decisions, T0 + 1, {})
    for d in decisions:
        if d.outcome == "accept" and d.order is not None and d.order.action != "cancel":
            heir.gate.place(d.order, d.ts_decision, T0 + 1)
    assert goes_on(heir)
