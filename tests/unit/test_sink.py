"""A row that the store cannot write is left out, alone; an outage is waited for."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from clickhouse_driver.columns.exceptions import StructPackException
from clickhouse_driver.errors import NetworkError, ServerException, TypeMismatchError
from hypothesis import given, settings
from hypothesis import strategies as st

from app.settings import Settings
from app.sink import runner
from app.sink.clickhouse import EmbeddedClickHouse, RowsRefused, ServerClickHouse, StoreUnavailable
from app.sink.tables import DDL, UNKNOWN_IS_NULL, sink_tables
from schemas.codec import encode
from schemas.nodes import Exposure, Pnl, Quality, Risk
from schemas.records import Alert, AsOf, Decision, Fifo, Position
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


UNKNOWN_COST = Position(account="A1", instrument="X", quantity="60", average_price=None, realised_pnl=None, fees={}, currency="USD", trades=2, last_ts_event=T0,
                        fifo=Fifo(None, None, 1), break_even_price=None, as_of=AsOf(0, 7), revision=1, opening_price=None, opening_realised_pnl=None, stated=True)
#: one record a table with every figure null that its type lets be null
UNKNOWN: dict[str, Any] = {
    "positions": UNKNOWN_COST,
    "risk": Risk(node="desk:D", snapshot_id=T0, ts=T0, as_of=[], quality=Quality(1, 0, ["A1|Y"], 1, ["A1|X"], 1, "SEK"), base_currency="USD",
                 pnl=Pnl(*[None] * 7), exposure=Exposure(None, None, None, None, 2), greeks=dict.fromkeys(("delta", "gamma", "vega", "theta", "rho")), models={"var_hist": {"var_95": None}}),
    "decisions": Decision(order_id="o", account="A1", instrument="X", outcome="reject", reasons=[], warnings=[], effect={}, snapshot_id=0, limits_version=1, ts_event=T0,
                          ts_decision=T0, service_ns=1),
    "alerts": Alert(alert_id="a", kind="breach", node="firm", metric="gross", value=None, limit=None, utilisation=None, cause_ts=T0, raised_ts=T0, snapshot_id=0)}


@pytest.mark.parametrize("made_by", ["this version", "an earlier one"])
def test_what_is_unknown_is_null_in_every_table_whoever_made_it(made_by: str, tmp_path: Path) -> None:
    store = EmbeddedClickHouse(tmp_path)
    try:
        if made_by != "this version":  # it had no null where a figure could not be unknown
            for statement in DDL[:6]:
                store.execute(statement.replace("Nullable(Float64)", "Float64"))
            earlier = msgspec.structs.replace(UNKNOWN_COST, account="A0", average_price=4.0, realised_pnl=-3.0, fifo=Fifo(-2.0, None, 1), break_even_price=5.0)
            table = sink_tables(1)[1]
            (row,) = table.rows_of(0, 1, encode(earlier), T0)
            store.insert(table.name, table.columns[:-1], [row[:-1]])
        for _ in range(2):  # at every start
            for statement in DDL:
                store.execute(statement)
        for table in (t for t in sink_tables(1) if t.topic in UNKNOWN_IS_NULL):
            rows = table.rows_of(0, 2, encode(UNKNOWN[table.topic]), T0)
            store.insert(table.name, table.columns, rows)
            names = UNKNOWN_IS_NULL[table.topic]
            assert store.query(f"SELECT {', '.join(names)} FROM {table.name} WHERE offset = 2") == [(None,) * len(names)], table.name
            kinds = dict(store.query(f"SELECT name, type FROM system.columns WHERE database = 'deskrisk' AND table = '{table.topic}'"))
            for name, value in zip(table.columns, rows[0], strict=True):
                assert value is not None or kinds[name].startswith("Nullable("), f"{table.name}.{name}"
        synced = dict(store.query("SELECT name, engine_full LIKE '%fsync_after_insert = 1%' AND engine_full LIKE '%fsync_part_directory = 1%' "
                                  "FROM system.tables WHERE database = 'deskrisk'"))
        assert synced == dict.fromkeys((t.name.partition(".")[2] for t in sink_tables(1)), 1), "a block counts once it is on the disk"
        assert store.query("SELECT pnl_unknown, day_unknown, without_rate FROM deskrisk.risk") == [(1, 1, "SEK")]
        if made_by != "this version":
            assert store.query("SELECT realised_pnl, fifo_realised_pnl FROM deskrisk.positions WHERE offset = 1") == [(-3.0, -2.0)], "what was known stays"
    finally:
        store.close()


def test_every_figure_of_a_record_that_may_be_null_has_a_column_that_may() -> None:
    """The records themselves say what may be null: a new field of theirs is not forgotten here."""
    def floats(cls: type, prefix: str = "") -> set[str]:
        return {prefix + f.encode_name for f in msgspec.structs.fields(cls) if f.type == float | None}

    stated = floats(Position) | floats(Fifo, "fifo_")
    assert stated & set(sink_tables(1)[1].columns) == set(UNKNOWN_IS_NULL["positions"])
    assert (floats(Pnl) | floats(Exposure)) <= set(UNKNOWN_IS_NULL["risk"])
    assert {"limit_value" if name == "limit" else name for name in floats(Alert)} <= set(UNKNOWN_IS_NULL["alerts"])
