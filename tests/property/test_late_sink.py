"""R3 of the sink: one that starts late, or again, after any compaction, ends with the rows of one that was there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.settings import Settings
from app.sink import runner
from app.sink.clickhouse import RowsRefused
from app.sink.tables import SinkTable, sink_tables
from schemas.reasons import QuarantineReason
from tables.records import RecordBatch
from tests.property.test_every_topic_is_fuzzed import GOOD, TRADE

T0 = 1_795_000_000_000_000_000
TABLES = {t.topic: t for t in sink_tables(1)}
#: what is one fact of each topic
KEY = {"trades": "trade_id", "positions": "instrument", "risk": "node", "decisions": "order_id", "alerts": "alert_id",
       "corporate.actions": "action_id"}
Log = list[tuple[int, str, bytes]]


class Store:
    """Tables of which the newest row of an offset counts, as ReplacingMergeTree has it."""

    def __init__(self, refused: str = "") -> None:
        self.rows: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        self._refused = refused

    def insert(self, table: str, columns: Sequence[str], rows: list[tuple[Any, ...]]) -> None:
        if self._refused and any(self._refused in row for row in rows):
            raise RowsRefused(f"cannot write {self._refused}")
        self.rows |= {row[:3]: row for row in rows}


def sink(table: SinkTable, store: Store, quarantine: Any = None) -> runner.Sink:
    counters: Any = SimpleNamespace(add=lambda *_, **__: None, observe=lambda *_, **__: None)
    return runner.Sink(Settings(), table, cast(Any, store), counters, quarantine)


def follow(one: runner.Sink, log: Log, size: int) -> None:
    """Have a sink read what it has not written yet, in slices."""
    done = max((row[1] for row in one._store.rows.values()), default=-1)  # type: ignore[attr-defined]
    left = [entry for entry in log if entry[0] > done]
    for start in range(0, len(left), size):
        part = left[start : start + size]
        one._on_batch(RecordBatch(one.table.topic, 0, np.array([o for o, _, _ in part]), [v for _, _, v in part],
                                  [k.encode() for _, k, _ in part], {}, np.full(len(part), T0 // 10**6), len(log)))
        asyncio.run(one.flush())


def record(topic: str, key: str, value: int) -> bytes:
    good = TRADE | {"account": "A1"} if topic == "trades" else GOOD[topic]
    moving = {"trades": {"price": str(1 + value)}, "positions": {"quantity": str(value)}, "corporate.actions": {
        "ratio": str(2 + value)}, "risk": {"snapshot_id": value}, "decisions": {"snapshot_id": value},
        "alerts": {"snapshot_id": value, "note": str(value)}}[topic]
    return json.dumps(good | {KEY[topic]: key} | moving).encode()


@pytest.fixture(autouse=True)
def no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "client", lambda self: None)


@pytest.mark.parametrize("topic", KEY)
@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.booleans()), min_size=1, max_size=20),
       st.sampled_from([1, 3, 100]), st.integers(0, 20), st.data())
def test_a_late_sink_ends_with_what_an_early_one_has(topic: str, said: list[tuple[str, int, bool]], size: int, stop: int,
                                                     data: st.DataObject) -> None:
    table = TABLES[topic]
    log = [(k, name, record(topic, name, value) if good else b"{") for k, (name, value, good) in enumerate(said)]
    early, again, late = Store(), Store(), Store()
    follow(sink(table, early), log, 1)
    follow(sink(table, again), log[:stop], size)
    follow(sink(table, again), log, size)  # started again: it goes on after what the store has
    newest = {name: (o, name, v) for o, name, v in log}
    kept = sorted({*newest.values(), *[e for e in log if data.draw(st.booleans())]}) if topic in (
        "positions", "risk", "corporate.actions") else log
    follow(sink(table, late), kept, size)

    def ends(store: Store) -> dict[str, tuple[Any, ...]]:
        at = table.columns.index(KEY[topic])
        return {row[at]: row for _, row in sorted(store.rows.items())}

    for other in (again, late):
        if table.thin_key is None and topic != "corporate.actions":
            assert other.rows == early.rows
        if all(v != b"{" for _, _, v in newest.values()):  # what cannot be read states nothing
            assert ends(other) == ends(early)


def test_a_row_that_the_store_refuses_is_in_quarantine_by_its_place_and_an_unreadable_trade_once() -> None:
    put: list[tuple[Any, ...]] = []
    quarantine = SimpleNamespace(put=lambda *x: put.append(x[:4]))
    log = [(k, "a", record("alerts", f"a{k}", k)) for k in range(5)] + [(5, "a", b"{")]
    follow(sink(TABLES["alerts"], Store("a3"), quarantine), log, 100)
    assert [(o, reason) for _, _, o, reason in put] == [(5, QuarantineReason.NOT_JSON), (3, QuarantineReason.NOT_STORED)]
    put.clear()
    follow(sink(TABLES["trades"], Store(), quarantine), [(0, "a", b"{"), (1, "b", record("trades", "b", 1))], 100)
    assert put == []
