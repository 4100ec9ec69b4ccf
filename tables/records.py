"""Whole fetched slices instead of single messages: what the batch transport hands to an agent."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiokafka.consumer.fetcher
import numpy as np
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from models import record_scan as rs
from tables.exit_codes import ExitCode

READ_COMMITTED = 1
#: time between two requests for the same partitions: a few milliseconds of latency save most of the requests, each of
#: which costs this process, and the broker, a millisecond
PACE_S = 0.02
#: a read that brings so many is followed by the next one at once
BEHIND_RECORDS = 2_000


@dataclass(slots=True)
class RecordBatch:
    """Consecutive records of one partition.

    ``first_ts_ms`` and ``last_ts_ms`` are the producers' clocks; ``next_offset`` is where reading goes on (past
    transaction markers and compacted records, which have no record here); ``behind`` is how many records came after it.
    """

    topic: str
    partition: int
    offsets: np.ndarray
    values: Sequence[bytes | None]
    keys: list[bytes | None]
    headers: dict[int, Any]
    timestamps_ms: np.ndarray
    next_offset: int
    behind: int = 0
    fetched_monotonic: float = field(default_factory=time.monotonic)

    def __len__(self) -> int:
        return len(self.values)

    def release(self) -> None:
        """Let the records go; the engine may hold the slice itself until it is acknowledged, and a while longer."""
        self.values, self.keys, self.headers = [], [], {}


class UnreadableBatch(RuntimeError):
    """A batch of the log that cannot be read: its checksum, its codec or its form is wrong."""

    exit_code = ExitCode.UNREADABLE

    def __init__(self, tp: TopicPartition, offset: int, error: BaseException) -> None:
        self.tp, self.offset = tp, offset
        super().__init__(f"{tp.topic} {tp.partition}@{offset}: the batch that begins here cannot be read "
                         f"({type(error).__name__}: {error}); `deskrisk skip` passes over it")


#: first offsets of batches that an operator said to pass over, by topic and partition
passed_over: set[tuple[str, int, int]] = set()
#: single records that an operator said to pass over, by topic, partition and offset
passed_over_records: set[tuple[str, int, int]] = set()


class KeptRecords(MemoryRecords):
    """Fetched records that can also be read as bytes (aiokafka's own keep them to themselves)."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


aiokafka.consumer.fetcher.MemoryRecords = KeptRecords


def drain(result: FetchResult, tp: TopicPartition, with_keys: bool) -> RecordBatch | None:
    """Take all records of one fetched slice; None where the slice is stale (sought away, reassigned)."""
    if not result.check_assignment(tp) or not result.has_more():
        return None
    source = result._partition_records
    data = source._records.data if not with_keys and isinstance(source._records, KeptRecords) else None
    position = source.next_fetch_offset
    begin, batches = 0, []
    bad: tuple[int, BaseException] | None = None
    while source._records.has_next():
        try:
            batch = source._records.next_batch()
        except Exception as error:  # noqa: BLE001 - lengths that lie past the end, an unknown form
            bad = position, error
            break
        if (tp.topic, tp.partition, batch.base_offset) in passed_over:
            data, position = None, batch.next_offset  # its bytes are not counted on
            continue
        if source._check_crcs and not batch.validate_crc():
            bad = batch.base_offset, CorruptRecordException("its checksum is wrong")
            break
        if data is not None:
            length = int.from_bytes(data[begin + rs.LENGTH_AT : begin + rs.LENGTH_AT + 4], "big") + 12
            begin += length
        if not _is_skipped(source, batch):
            batches.append((batch, begin - length if data is not None else 0))
        position = batch.next_offset
    found = None if data is None else _columns(data, batches, source.next_fetch_offset)
    if found is None:
        found, unread = _objects(batches, source.next_fetch_offset, with_keys)
        bad = unread or bad
    if bad is not None:  # what lies before it is handed out first; then it is the first of what is fetched
        if bad[0] <= source.next_fetch_offset or position == source.next_fetch_offset:
            raise UnreadableBatch(tp, bad[0], bad[1])
        position = bad[0]
    offsets, stamps, values, keys, headers = found
    source.next_fetch_offset = position
    result._update_position()
    result._partition_records = None
    source._records_iterator = source._records = None  # a cycle would keep the raw megabytes until the next collection
    return RecordBatch(tp.topic, tp.partition, _joined(offsets), values, keys, headers, _joined(stamps), position)


def _columns(data: bytes, batches: list[tuple[Any, int]], position: int) -> tuple[Any, ...] | None:
    """Return the records as columns; None where a batch is compressed, old, or has headers."""
    buffer = np.frombuffer(data, np.uint8)
    parts: list[np.ndarray] = []
    stamps: list[np.ndarray] = []
    for batch, at in batches:
        if data[at + rs.MAGIC_AT] != 2 or data[at + rs.ATTRIBUTES_AT + 1] & rs.COMPRESSION_MASK:
            return None
        count = int.from_bytes(data[at + rs.HEADER_BYTES - 4 : at + rs.HEADER_BYTES], "big")
        end = at + 12 + int.from_bytes(data[at + rs.LENGTH_AT : at + rs.LENGTH_AT + 4], "big")
        rows = np.empty((4, count), np.int64)
        if not rs.scan_records(buffer, at + rs.HEADER_BYTES, end, *rows):
            return None
        rows[2] += batch.base_offset
        if not count or rows[2, -1] < position:
            continue
        if rows[2, 0] < position:
            rows = rows[:, rows[2] >= position]
        first, last = (int.from_bytes(data[at + k : at + k + 8], "big", signed=True)
                       for k in (rs.FIRST_TS_AT, rs.LAST_TS_AT))
        by_append = data[at + rs.ATTRIBUTES_AT + 1] & rs.APPEND_TIME
        newest = last if by_append else first + max(int(rows[3, 0]), int(rows[3, -1]))
        parts.append(rows[:3])
        stamps.append(np.full(rows.shape[1], newest))
    joined = np.ascontiguousarray(np.concatenate(parts, axis=1)) if parts else np.zeros((3, 0), np.int64)
    return [joined[2]], stamps, rs.ByteRows(buffer, joined[0], joined[1]), [], {}


def _objects(batches: list[tuple[Any, int]], position: int, with_keys: bool,
             ) -> tuple[tuple[Any, ...], tuple[int, BaseException] | None]:
    """Return the records as Python objects, up to a batch that cannot be read: its first offset, and why."""
    values: list[bytes | None] = []
    keys: list[bytes | None] = []
    headers: dict[int, Any] = {}
    offsets: list[np.ndarray] = []
    stamps: list[np.ndarray] = []
    bad: tuple[int, BaseException] | None = None
    for batch, _ in batches:
        try:
            records = list(batch)
        except Exception as error:  # noqa: BLE001 - zlib, codecs and parsers each have classes of their own
            bad = batch.base_offset, error
            break
        base = batch.base_offset
        if records and (len(records) != batch.next_offset - base or base < position):
            records = [r for r in records if r.offset >= position]
            offsets.append(np.fromiter((r.offset for r in records), np.int64, len(records)))
        else:
            offsets.append(np.arange(base, base + len(records)))
        start = len(values)
        values += [r.value for r in records]
        if with_keys:
            keys += [r.key for r in records]
        if (records and records[-1].headers) or any(r.headers for r in records):
            headers.update({start + i: r.headers for i, r in enumerate(records) if r.headers})
        if records:
            stamps.append(np.full(len(records), max(records[0].timestamp or 0, records[-1].timestamp or 0)))
    return (offsets, stamps, values, keys, headers), bad


def reader_error(consumer: Any) -> BaseException | None:
    """Return what ended the reading of an aiokafka consumer, or keeps it out of its group, or None."""
    if consumer._fetcher is None:
        return None  # it is still connecting
    coordinator, fetching = consumer._coordinator, consumer._fetcher._fetch_task
    if fetching.done() and not fetching.cancelled() and not consumer._fetcher._closed:
        return fetching.exception() or RuntimeError("the fetcher returned")
    pending: BaseException | None = getattr(coordinator, "_pending_exception", None)
    return pending


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _is_skipped(source: Any, batch: Any) -> bool:
    """Say whether a batch is a transaction marker, or belongs to an aborted transaction."""
    if source._isolation_level == READ_COMMITTED and batch.producer_id is not None:
        source._consume_aborted_up_to(batch.base_offset)
        if batch.is_control_batch and source._contains_abort_marker(batch):
            source._aborted_producers.discard(batch.producer_id)
        if batch.is_transactional and batch.producer_id in source._aborted_producers:
            return True
    return bool(batch.is_control_batch)


class _NotYet:
    """Stands where a slice would lie unread: nothing is asked for, and nobody waits for it to be taken."""

    @staticmethod
    def calculate_backoff() -> float:
        """Return how long others have to wait for it."""
        return 0.0


def tune_fetcher(fetcher: Any, pace_s: float, every_s: Mapping[str, float] | None = None) -> None:
    """Let the fetcher of an aiokafka consumer ask at a pace of its own, and as soon as that allows.

    It is the requests that wait, not what they brought: a slice is taken at once, and the next request asks for all
    that has come meanwhile. Of itself the fetcher also sleeps 200 ms where a request ends without records in the very
    turn of the loop in which others are taken: it then forgets the request before that has said that its node is free,
    and finds no free node.

    Parameters
    ----------
    pace_s : from one request for a partition to the next one; 0: at once
    every_s : the same by topic, where it is another
    """
    paces = every_s or {}
    fetcher.behind = False  # who has much to read asks at once
    actions_per_node = fetcher._get_actions_per_node
    asked: dict[TopicPartition, float] = {}

    def actions(assignment: Any) -> tuple[Any, ...]:
        now, early = time.monotonic(), {}
        for tp in assignment.tps:
            due = asked.get(tp, -math.inf) + (0.0 if fetcher.behind else paces.get(tp.topic, pace_s))
            if due > now and tp not in fetcher._records:
                early[tp] = due
        fetcher._records.update(dict.fromkeys(early, _NotYet))
        try:
            fetches, resets, timeout, *others = actions_per_node(assignment)
        finally:
            for tp in early:
                del fetcher._records[tp]
        for _, request in fetches:
            for topic, partitions in request.topics:
                asked.update((TopicPartition(topic, p), now) for p, *_ in partitions)
        if len(fetcher._in_flight) > sum(not task.done() for task in fetcher._pending_tasks):
            timeout = 0.0  # a request has ended and its node is free in the next turn
        return fetches, resets, min([timeout, *(due - now for due in early.values())]), *others

    fetcher._get_actions_per_node = actions


async def fetch_slices(fetcher: Any, partitions: set[Any] | None, timeout: float,
                       with_keys: bool, without_keys: frozenset[str] = frozenset(), most: int | None = None,
                       ) -> dict[TopicPartition, RecordBatch]:
    """Return what the fetcher of an aiokafka consumer has, one `RecordBatch` a partition; wait up to ``timeout``.

    ``with_keys``: of all topics but those in ``without_keys``; ``most``: leave further slices for the next call.
    """
    deadline = time.monotonic() + timeout
    if fetcher._fetch_task.done() and not fetcher._closed and not fetcher._fetch_task.cancelled():
        raise RuntimeError("the fetcher has ended") from fetcher._fetch_task.exception()
    await asyncio.sleep(0)  # others get a turn now, not between what is taken and who asked: it might be sought away
    while True:
        if fetcher._subscriptions.reassignment_in_progress:
            await fetcher._subscriptions.wait_for_assignment()
        out: dict[TopicPartition, RecordBatch] = {}
        for tp in list(fetcher._records):
            if partitions is not None and tp not in partitions:
                if not fetcher._subscriptions.is_assigned(tp):
                    del fetcher._records[tp]
                continue
            result = fetcher._records.get(tp)
            if result is None:  # what was drained before it ended the assignment
                continue
            if type(result) is FetchResult:
                batch = drain(result, tp, with_keys and tp.topic not in without_keys)
                # a broker's return can end the assignment meanwhile, which clears this; what was drained is still good:
                # a record delivered again is told by its offset
                fetcher._records.pop(tp, None)
                fetcher._notify(fetcher._wait_consume_future)
                if batch is not None:
                    high = result._assignment.state_value(tp).highwater
                    batch.behind = max(0, high - batch.next_offset) if high else 0
                    out[tp] = batch
                    if len(out) == most:
                        break
            elif not out:
                del fetcher._records[tp]
                fetcher._notify(fetcher._wait_consume_future)
                result.check_raise()
        left = deadline - time.monotonic()
        if out or left <= 0:
            fetcher.behind = sum(map(len, out.values())) >= BEHIND_RECORDS
            return out
        waiter = fetcher._create_fetch_waiter()
        done, pending = await asyncio.wait([waiter], timeout=left)
        if not done or fetcher._closed:
            for future in pending:
                future.cancel()
            return {}
        waiter.result()
