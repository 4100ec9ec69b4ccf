"""A row that the store cannot write is left out, alone; an outage is waited for."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clickhouse_driver.columns.exceptions import StructPackException
from clickhouse_driver.errors import NetworkError, ServerException, TypeMismatchError
from hypothesis import given, settings
from hypothesis import strategies as st

from app.settings import Settings
from app.sink import runner
from app.sink.clickhouse import EmbeddedClickHouse, RowsRefused, ServerClickHouse, StoreUnavailable
from app.sink.tables import sink_tables
from tables.records import RecordBatch

T0 = 1_795_000_000_000_000_000


class Counts:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        self.counts[name] += int(amount)

    def observe(self, name: str, value: float, **labels: str) -> None: ...


class Store:
    """All or nothing, as ClickHouse is; refuses some trade ids, and is away at first."""

    def __init__(self, bad: set[str], outages: int) -> None:
        self.rows, self.bad, self.outages = [], bad, outages

    def insert(self, table: str, columns: Sequence[str], rows: list[tuple[Any, ...]]) -> None:
        if self.outages:
            self.outages -= 1
            raise StoreUnavailable("away")
        if found := [row[3] for row in rows if row[3] in self.bad]:
            raise RowsRefused(f"cannot write {found}")
        self.rows += rows


def sink(store: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[runner.Sink, Counts]:
    monkeypatch.setattr(runner, "RETRY_S_MIN", 0.0)
    monkeypatch.setattr(Settings, "client", lambda self: None)
    counts = Counts()
    return runner.Sink(Settings(), sink_tables(1)[0], store, counts), counts  # type: ignore[arg-type]


def trade(k: int, ts: Any = T0) -> bytes:
    return json.dumps({"trade_id": str(k), "account": "A1", "instrument": "X", "side": "buy", "quantity": "1", "price": "10", "ts_event": ts}).encode()


def batch_of(values: list[bytes | None]) -> RecordBatch:
    n = len(values)
    return RecordBatch("trades", 0, np.arange(n), values, [None] * n, {}, np.full(n, T0 // 1_000_000), n)


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, 19)), st.integers(0, 2))
def test_rows_that_cannot_be_written_are_left_out_and_counted(bad: set[int], outages: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        store = Store({str(k) for k in bad}, outages)
        one, counts = sink(store, patch)
        one._on_batch(batch_of([trade(k) for k in range(20)]))
        asyncio.run(one.flush())
    assert [row[3] for row in store.rows] == [str(k) for k in range(20) if k not in bad]
    assert counts.counts["sink_refused"] == len(bad) and counts.counts["sink_rows"] == 20 - len(bad)


@pytest.mark.parametrize("ts", ["9999-12-31T23:59:59Z", "2555-06-01T00:00:00Z", 2**63 - 1, 1_795_000_000_000, "2027-11-20T10:00:00Z", 10**400])
def test_a_time_outside_its_bounds_gives_no_row(ts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(set(), 0)
    one, _ = sink(store, monkeypatch)
    one._on_batch(batch_of([trade(1, ts), trade(2)]))
    asyncio.run(one.flush())
    assert [row[3] for row in store.rows] == ["2"]


@pytest.mark.parametrize(("raised", "seen"), [
    (TypeMismatchError("date"), RowsRefused), (StructPackException("'H' format requires 0 <= number <= 65535"), RowsRefused), (OverflowError("date value out of range"), RowsRefused),
    (AttributeError("'str' object has no attribute"), RowsRefused), (ServerException("too large", 321), RowsRefused), (ServerException("memory limit", 241), StoreUnavailable),
    (ServerException("no such table", 60), StoreUnavailable), (NetworkError("refused"), StoreUnavailable), (EOFError(), StoreUnavailable), (ConnectionResetError(), StoreUnavailable)])
def test_an_outage_is_told_from_a_row_that_cannot_be_written(raised: Exception, seen: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    store = ServerClickHouse("clickhouse://localhost:1/x")

    def execute(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr(store._client, "execute", execute)
    with pytest.raises(seen):
        store.insert("t", ("a",), [(1,)])


def test_the_embedded_store_says_which_rows_it_cannot_write(tmp_path: Path) -> None:
    store = EmbeddedClickHouse(tmp_path)
    try:
        store.execute("CREATE DATABASE IF NOT EXISTS deskrisk")
        store.execute("CREATE TABLE deskrisk.border (n UInt16, d Decimal(38, 12)) ENGINE = MergeTree ORDER BY n")
        for row in [("x", "1"), (1, "9e60"), (-1, "1")]:
            with pytest.raises(RowsRefused):
                store.insert("deskrisk.border", ("n", "d"), [(2, "2"), row])
        store.insert("deskrisk.border", ("n", "d"), [(7, "1.5")])
        assert store.query("SELECT n FROM deskrisk.border") == [(7,)]
    finally:
        store.close()


