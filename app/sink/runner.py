"""The sink process: follows topics, writes each slice as one block, goes on after what ClickHouse already has.

A block is inserted whole or not at all (the tables are not partitioned, so one block is one part), and blocks are
inserted in order; so the largest offset of each partition in the table says where to go on, also when a reply was
lost. `ReplacingMergeTree` makes a doubled block harmless as well.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from typing import Any

from aiokafka.structs import TopicPartition

from agents.quarantine import Quarantine
from app.metrics import PrometheusCounters
from app.put_aside import quarantine_of
from app.settings import Settings
from app.sink.clickhouse import ClickHouse, RowsRefused, StoreUnavailable, connect
from app.sink.tables import DDL, Row, SinkTable, sink_tables
from app.unreadable import take_passed_over
from schemas.addresses import ReadSoFar
from schemas.codec import encode
from schemas.reasons import QuarantineReason
from schemas.refusal import reason_of
from schemas.units import latest_of
from tables.records import RecordBatch
from tables.tail import Tail
from tables.tasks import process
from tables.watchdog import LATE_SHARE, watch

log = logging.getLogger(__name__)
#: from one block of a table to the next; where somebody waits for what was written
PERIOD_S, WAITED_FOR_S = 2.0, 0.2
#: how often it is said how far the tables are, where somebody waits for it
SAY_S = 0.1
BATCH_ROWS_MAX = 50_000
RETRY_S_MIN, RETRY_S_MAX = 0.5, 15.0


class Sink:
    """One table's follower."""

    def __init__(self, settings: Settings, table: SinkTable, store: ClickHouse, counters: PrometheusCounters,
                 quarantine: Quarantine | None = None) -> None:
        self._quarantine = quarantine
        self.table, self._store, self._counters = table, store, counters
        self._future_ns = settings.future_ns
        self._topic = settings.topics()[table.topic]
        self._period_s = WAITED_FOR_S if settings.say_reads else PERIOD_S
        self._tail = Tail(settings.client(), [self._topic], self._on_batch, gather_ms=0 if settings.say_reads else 500)
        #: next offset of each partition, behind what the table has
        self.written: dict[TopicPartition, int] = {}
        self._pending: dict[int, list[Row]] = {}
        self._count = 0

    def _on_batch(self, batch: RecordBatch) -> None:
        rows = self._pending.setdefault(batch.partition, [])
        latest = latest_of(batch.timestamps_ms, self._future_ns)
        for offset, until, value in zip(batch.offsets.tolist(), latest.tolist(), batch.values, strict=True):
            if value is None:
                continue
            try:
                found = self.table.rows_of(batch.partition, offset, value, until)
            except Exception as error:
                log.error("%s %s@%s: not written: %s: %s", self._topic, batch.partition, offset, type(error).__name__,
                          error, exc_info=not isinstance(error, ValueError))
                self._put_aside(batch.partition, offset, *reason_of(error, value, None), bytes(value), until)
                continue
            rows += found
            self._count += len(found)

    async def run(self) -> None:
        """Follow until cancelled."""
        loop = asyncio.get_running_loop()
        done = await self._retry(lambda: self._store.query(
            f"SELECT partition, max(offset) FROM {self.table.name} GROUP BY partition"))
        await self._tail.start({TopicPartition(self._topic, int(p)): int(o) + 1 for p, o in done})
        due = loop.time()
        while True:
            due = max(due + self._period_s, loop.time())
            while loop.time() < due and self._count < BATCH_ROWS_MAX:
                await self._tail.poll(max(0.0, due - loop.time()))
            read = dict(self._tail.positions)
            await self.flush()
            self.written = read

    async def flush(self) -> None:
        """Write what has been read; returns once ClickHouse has it, however long that takes."""
        pending, self._pending, self._count = self._pending, {}, 0
        rows = [row for part in pending.values() for row in part]
        if self.table.thin_key is not None:
            rows = list({self.table.thin_key(row): row for row in rows}.values())
        if rows:
            started = time.monotonic()
            written = await self._insert(rows)
            self._counters.add("sink_rows", written, table=self.table.name)
            self._counters.observe("sink_insert_seconds", time.monotonic() - started, table=self.table.name)

    async def _insert(self, rows: list[Row]) -> int:
        """Write rows, in order; leave out the ones that the store refuses. Return how many were written."""
        try:
            await self._retry(lambda: self._store.insert(self.table.name, self.table.columns, rows))
        except RowsRefused as error:
            if len(rows) > 1:  # halves, down to the row that it is
                half = len(rows) // 2
                return await self._insert(rows[:half]) + await self._insert(rows[half:])
            partition, offset = rows[0][:2]
            log.error("%s %s@%s: not written: %s", self._topic, partition, offset, error)
            self._put_aside(partition, offset, QuarantineReason.NOT_STORED, f"{self.table.name}: {error}", b"")
            return 0
        return len(rows)

    def _put_aside(self, partition: int, offset: int, reason: QuarantineReason, detail: str, raw: bytes,
                   latest_ns: int | None = None) -> None:
        """Count a record that the table will not have, and send it to quarantine by its place."""
        self._counters.add("sink_refused", table=self.table.name)
        if self._quarantine is not None and (reason is QuarantineReason.NOT_STORED or self.table.topic != "trades"):
            # what cannot be read of `trades` was put aside by the stage that owns it
            now = time.time_ns() if latest_ns is None else min(latest_ns - self._future_ns, time.time_ns())
            self._quarantine.put(self._topic, partition, offset, reason, detail, raw, now // 1_000_000)

    async def _retry(self, call: Any) -> Any:
        wait = RETRY_S_MIN
        while True:
            try:
                return await asyncio.get_running_loop().run_in_executor(None, call)
            except StoreUnavailable as error:
                self._counters.add("sink_retries", table=self.table.name)
                log.warning("%s: ClickHouse is not there, trying again in %.1f s: %s", self.table.name, wait, error)
                await asyncio.sleep(wait)
                wait = min(2 * wait, RETRY_S_MAX)

    async def stop(self) -> None:
        """Disconnect from Kafka."""
        await self._tail.stop()


class Written:
    """Says on the topic `reads` how far every table is, for whoever rehearses and waits by it."""

    def __init__(self, settings: Settings, sinks: Sequence[Sink]) -> None:
        self._sinks, self._producer = sinks, settings.client().producer(linger_ms=0)
        self._topic, self._process = settings.topics()["reads"], f"{os.getpid()}.{time.time_ns()}"

    async def run(self) -> None:
        """Say it until cancelled."""
        await self._producer.start()
        said: dict[str, list[tuple[int, int]]] = {}
        try:
            while True:
                await asyncio.sleep(SAY_S)
                read = {sink.table.topic: sorted((tp.partition, offset) for tp, offset in sink.written.items())
                        for sink in self._sinks}
                if read != said and all(read.values()):
                    record = ReadSoFar(role="sink", process=self._process, read=read, ts=time.time_ns())
                    await self._producer.send_and_wait(self._topic, encode(record), b"sink", 0)
                    said = read
        finally:
            await self._producer.stop()


async def run_sink(settings: Settings) -> None:
    """Fill every table until cancelled."""
    url = settings.clickhouse_url.get_secret_value() if settings.clickhouse_url else None
    counters = process.counters = PrometheusCounters()
    process.role = "sink"
    first = connect(url, settings.data_dir / "clickhouse")
    tables = sink_tables(settings.partitions)
    # a server connection serves one call at a time: one each; the embedded store is one object that locks itself
    stores = [connect(url, settings.data_dir) for _ in tables] if url else [first] * len(tables)
    aside, quarantine = quarantine_of(settings, counters)
    sinks = [Sink(settings, table, store, counters, quarantine) for table, store in zip(tables, stores, strict=True)]
    for statement in DDL:
        await sinks[0]._retry(lambda statement=statement: first.execute(statement))
    await take_passed_over(settings)
    if settings.metrics_port is not None:
        counters.serve(settings.metrics_port, lambda: process.unready(time.monotonic(), LATE_SHARE))
    counters.set("process_restarts", settings.restarts)
    watch("sink")
    aside.start()
    print(f"READY sink {first.name}", flush=True)
    try:
        tasks = [process.start(f"sink of {sink.table.topic}", sink.run) for sink in sinks]
        if settings.say_reads:
            tasks.append(process.start("how far tables are", Written(settings, sinks).run))
        await asyncio.gather(*tasks)
    finally:
        for sink in sinks:
            await sink.stop()
        await aside.stop()
        for store in {id(s): s for s in (first, *stores)}.values():
            store.close()
