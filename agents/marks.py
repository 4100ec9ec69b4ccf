"""The mark stage: ticks in, last good prices of every instrument out, at the end of each 100 ms window."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from aiokafka.structs import TopicPartition

from agents.ports import Clock, Counters, Publisher, until
from agents.quarantine import Quarantine
from agents.reference_tail import ReferenceTail
from agents.stage import Stage
from models import marks as mk
from models.columns import grown
from models.quote_columns import UNKNOWN, decode_quotes
from schemas.asset_classes import STALE_MS_BY_CLASS
from schemas.codec import decoder_of, encode
from schemas.reasons import QuarantineReason
from schemas.records import Mark
from schemas.units import FUTURE_NS
from tables.kafka import KafkaClient
from tables.manager import EVERYTHING
from tables.records import RecordBatch
from tables.restore import read_changelogs
from tables.tasks import process, turned

log = logging.getLogger(__name__)
WINDOW_NS = 100_000_000
CLOSE_AFTER_S = 0.001
COMMIT_EVERY_WINDOWS = 10
#: unknown instruments are reported once per this many windows, not once per tick
UNKNOWN_REPORT_WINDOWS = 100
_mark = decoder_of(Mark)
#: of an instrument that is not known (yet)
STALE_NS_DEFAULT = 10_000_000_000


class MarkStage(Stage):
    """Owns some partitions of `ticks` and the marks of their instruments."""

    stops_before_consumer = True

    def __init__(self, client: KafkaClient, topics: dict[str, str], reference: ReferenceTail, publisher: Publisher,
                 clock: Clock, counters: Counters, lateness_ns: int,
                 commit: Callable[[dict[TopicPartition, int]], Awaitable[Any]], future_ns: int = FUTURE_NS) -> None:
        self._client, self._topics, self._reference = client, topics, reference
        self._publisher, self._clock, self._counters = publisher, clock, counters
        # many a bad quote is like the next: its beginning says enough
        self._quarantine = Quarantine(topics, publisher, counters, raw_bytes=4096)
        self._lateness_ns, self._future_ns = lateness_ns, future_ns
        self._commit = commit
        self._marks = mk.empty_marks(256)
        self._home = np.full(256, -1, np.int32)
        self._ts_source = np.zeros(256, np.int64)
        self._terms, self._splits = np.zeros(0, mk.TERMS_DTYPE), np.zeros(0, mk.SPLIT_DTYPE)
        self._terms_version = -1
        self._owned: set[int] = set()
        self._offsets: dict[TopicPartition, int] = {}
        self._window_end = 0
        self._windows = 0
        self._reported: dict[bytes, int] = {}
        self._task: asyncio.Task[None] | None = None

    async def take(self, partitions: set[int]) -> None:
        """Own these partitions: last good prices come back from the `marks` topic."""
        topic = self._topics["marks"]
        restored = await read_changelogs(self._client, {TopicPartition(topic, p): 0 for p in partitions})
        for tp, found in restored.items():
            for value in found.rows.values():
                if value is None:
                    continue
                try:
                    self._restore(_mark.decode(value), tp.partition)
                except ValueError as error:  # its next quote makes it anew
                    self._counters.add("marks_refused")
                    log.error("%s %s: a mark refused: %s", topic, tp.partition, error)
            self._counters.add("restored_rows", found.records)
        self._owned |= partitions
        if self._task is None:
            self._task = process.start("mark windows", self._close_windows, bound_s=30.0)

    def _restore(self, mark: Mark, partition: int) -> None:
        reference = self._reference.reference
        k = reference.instruments.index.get(mark.instrument)
        if k is None:
            _, k = reference.intern_key("", mark.instrument)
        self._room(k + 1)
        mk.from_record(self._marks[k], mark, self._clock())
        self._home[k] = partition

    def _room(self, n: int) -> None:
        if n > len(self._marks):
            size = max(n, 2 * len(self._marks))
            self._marks = np.concatenate([self._marks, mk.empty_marks(size - len(self._marks))])
            self._home = grown(self._home, size, -1)
            self._ts_source = grown(self._ts_source, size)

    async def release(self, partitions: set[int]) -> None:
        """Publish what is open, commit, let go."""
        self._close()
        await self._commit_offsets()
        self._owned -= partitions
        self._marks["changed"][np.isin(self._home, list(partitions))] = 0
        for tp in [tp for tp in self._offsets if tp.partition in partitions]:
            del self._offsets[tp]

    def stored_offset(self, topic: str, partition: int) -> int | None:
        """Reading goes on at the committed offset: quotes are absolute, a repeated one changes nothing."""
        return self._offsets.get(TopicPartition(topic, partition))

    def restored_position(self, topic: str, partition: int) -> int | None:
        """Say that an owned partition of `marks` is included to its end; later rows are our own."""
        return EVERYTHING if topic == self._topics["marks"] and partition in self._owned else None

    def reads(self) -> dict[TopicPartition, int]:
        """Return the next offset of every partition of quotes that was read."""
        return dict(self._offsets)

    async def acted(self) -> None:
        """Wait for the end of a window that begins now or has begun."""
        windows = self._windows
        await until(lambda: self._windows != windows)

    async def process(self, batch: RecordBatch, ack: Callable[[], None]) -> None:
        """Fold one slice of `ticks`."""
        if len(batch):
            reference = self._reference.reference
            arrays = reference.arrays()
            now = self._clock()
            decoded = decode_quotes(batch.values, arrays.instruments, arrays.instrument_known, now + self._future_ns)
            if decoded.unknown:
                await self._reference.catch_up()
                arrays = reference.arrays()
                decoded = decode_quotes(batch.values, arrays.instruments, arrays.instrument_known,
                                        now + self._future_ns)
            self._room(len(reference.instruments))
            rows, terms = decoded.rows, self._known_terms()
            mk.restate(self._marks, self._splits, now)
            used = mk.apply_quotes(self._marks, rows, terms, now, self._lateness_ns)
            touched = rows["instrument_index"][rows["status"] == 1]
            self._home[touched] = batch.partition
            self._ts_source[touched] = batch.timestamps_ms[-1]
            self._counters.add("ticks", float(len(rows)))
            self._counters.add("ticks_used", float(used))
            if decoded.unknown or decoded.poison:
                self._refuse(batch, decoded)
        self._offsets[TopicPartition(batch.topic, batch.partition)] = batch.next_offset
        ack()

    def _refuse(self, batch: RecordBatch, decoded: Any) -> None:
        for m, reason, detail, raw in decoded.poison:
            self._quarantine.send(batch, min(m, len(batch) - 1), reason, detail, raw)
        if decoded.unknown:
            self._counters.add("ticks_unknown", float((decoded.rows["status"] == UNKNOWN).sum()))
            if self._reported.get(b"", -UNKNOWN_REPORT_WINDOWS) + UNKNOWN_REPORT_WINDOWS <= self._windows:
                self._reported[b""] = self._windows
                first = next((v for v in batch.values if v), b"")
                self._quarantine.send(batch, 0, QuarantineReason.UNKNOWN_INSTRUMENT,
                                 "instrument: expected a known instrument (first record of the slice shown)", first)

    async def _close_windows(self) -> None:
        while True:
            # at its end, not at any time of the next one: what a window says would be older by up to its length
            await asyncio.sleep((WINDOW_NS - self._clock() % WINDOW_NS) / 1e9 + CLOSE_AFTER_S)
            self._close()
            self._windows += 1
            if self._windows % COMMIT_EVERY_WINDOWS == 0:
                await self._commit_offsets()
            turned()

    def _close(self) -> None:
        now = self._clock()
        self._window_end = max(self._window_end + WINDOW_NS, now // WINDOW_NS * WINDOW_NS)
        out, terms = np.zeros(len(self._marks), np.int64), self._known_terms()
        mk.restate(self._marks, self._splits, now)
        n = mk.close_window(self._marks, self._window_end, now, terms, out)
        names, topic = self._reference.reference.instruments.names, self._topics["marks"]
        stale = 0
        for k, row in zip(out[:n].tolist(), self._marks[out[:n]], strict=True):
            home = int(self._home[k])
            if home in self._owned:
                record = mk.to_record(names[k], row, int(self._ts_source[k]))
                stale += record.quality == "stale"
                self._publisher.send(topic, names[k].encode(), encode(record), home)
        self._counters.set("marks_stale", float((self._marks["quality"] == mk.STALE).sum()))

    def _known_terms(self) -> np.ndarray:
        """Return what marks are judged by, by instrument; looked up, with splits, when reference data change."""
        reference = self._reference.reference
        if self._terms_version != reference.version or len(self._terms) != len(self._marks):
            self._terms_version = reference.version
            self._terms = np.zeros(len(self._marks), mk.TERMS_DTYPE)
            self._terms["stale_ns"] = STALE_NS_DEFAULT
            any_sign = reference.arrays().price_any_sign
            for name, record in reference.instrument_records.items():
                k = reference.instruments.index[name]
                if k < len(self._terms):
                    self._terms[k] = (STALE_MS_BY_CLASS[record.asset_class] * 1_000_000,
                                      float(record.price_increment or 0), any_sign[k])
            places = ((reference.instruments.index.get(name, len(self._marks)), at, ratio)
                      for at, name, ratio in reference.actions.splits())
            self._splits = np.array([x for x in places if x[0] < len(self._marks)], mk.SPLIT_DTYPE)
        return self._terms

    async def _commit_offsets(self) -> None:
        if self._offsets:
            await self._publisher.flush()
            await self._commit(dict(self._offsets))

    async def stop(self) -> None:
        """Publish what is open and commit."""
        if self._task is not None:
            self._task.cancel()
        await self.release(set(self._owned))


