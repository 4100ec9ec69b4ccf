"""Make a partition's changes durable, once: Kafka first, disk second, then the ack.

A flush cuts the changed rows and the source offsets they include out of the columns (no await in between), writes
both in one Kafka transaction, and acknowledges the source records after the commit. Any failure leaves the process:
the transaction is aborted by the next owner's fence, and a supervisor starts a fresh process that restores.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka.structs import TopicPartition

from tables.exit_codes import ExitCode
from tables.kafka import KafkaClient
from tables.partition import Marker, Rows, TablePartition
from tables.store import DiskPartition
from tables.tasks import process

log = logging.getLogger(__name__)
BATCH_BYTES = 900_000
#: aiokafka wraps a producer's sequence number wrongly at 2**31: a producer is replaced long before
SEQUENCE_MAX = 1_000_000_000
#: nothing waits for a commit but the acknowledgement: rows are published right after the fold
FLUSH_S_MIN, FLUSH_S_MAX = 0.25, 2.0
#: the store only shortens a restore; a write of it stops all threads for as long as it takes
DISK_S = 15.0
#: where in that time a partition has its turn, and what others get after each slice of its rows
GOLDEN_RATIO, DISK_PAUSE_S = 0.618_033_988_749, 0.005
#: rows above this are written at once: they never repeat, holding them back would only cost memory
STAGED_BYTES_MAX = 16_384
FAULT_ENV = "DESKRISK_FAULT"


@dataclass
class FlushStats:
    """What the writer did, for metrics."""

    commits: int = 0
    rows: int = 0
    last_commit_s: float = 0.0
    durations: list[float] = field(default_factory=list)


class TornTransaction(RuntimeError):
    """Between two transactions of this process lies what none of them wrote, or not what ends the first."""


class PartitionWriter:
    """The transactional writer of one source partition.

    Parameters
    ----------
    client, group, transactional_id : whose offsets are committed, and the zombie fence
    state : the partition whose changes are written
    changelog : topic the rows go to
    disk : local store
    sequence_max : records after which the producer is replaced
    """

    def __init__(self, client: KafkaClient, group: str, transactional_id: str, state: TablePartition, changelog: str,
                 disk: DiskPartition, sequence_max: int = SEQUENCE_MAX) -> None:
        self._client, self._group, self._transactional_id = client, group, transactional_id
        self.state = state
        self._changelog = changelog
        self.disk = disk
        self._sequence_max = sequence_max
        self._producer: Any = None
        self._produced = 0
        self.marker = Marker()
        self.changelog_position = 0
        self._acks: list[Callable[[], None]] = []
        self._sends: list[Awaitable[Any]] = []
        self._staged: dict[bytes, bytes | None] = {}
        self._again: dict[bytes, bytes | None] = {}
        #: whether the transaction before was of this producer
        self._committed = False
        self._disk_due = 0.0
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._advanced = False
        self.stats = FlushStats()
        self.oldest_unflushed: float | None = None

    async def fence(self) -> None:
        """Take the partition: from now on an older owner can write nothing more."""
        self._producer = self._client.producer(transactional_id=self._transactional_id, max_batch_size=BATCH_BYTES,
                                               linger_ms=0, transaction_timeout_ms=30_000)
        await self._producer.start()
        await self._producer._txn_manager.wait_for_pid()
        self._produced, self._committed = 0, False

    def start(self) -> None:
        """Begin to flush in the background."""
        # one partition after the other: all of them at once would hold the trades of all of them up
        self._disk_due = time.monotonic() + DISK_S * (self.state.partition * GOLDEN_RATIO % 1.0)
        # a half-written state must never be acknowledged: a flush that fails ends the process
        self._task = process.start(f"writer of partition {self.state.partition}", self._run, code=ExitCode.WRITER)

    def advance(self, topic: str, next_offset: int, ack: Callable[[], None] | None = None,
                sends: list[Awaitable[Any]] | None = None) -> None:
        """Say that the state now includes ``topic`` up to ``next_offset``; ``ack`` once that is durable."""
        self.marker.offsets[topic] = next_offset
        self._advanced = True
        if ack is not None:
            self._acks.append(ack)
        if sends:
            self._sends += sends
        if self.oldest_unflushed is None:
            self.oldest_unflushed = time.monotonic()
        self._wake.set()

    def write_again(self, rows: Mapping[bytes, bytes | None]) -> None:
        """Have these rows, as the state has them, in the next batch: what lies behind them on the log is not of it."""
        self._again |= rows
        self._advanced = True
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            # wider when the last flush was dear: coalesces more rows under load
            last = self.stats.last_commit_s
            await asyncio.sleep(min(max(FLUSH_S_MIN, 8 * last), FLUSH_S_MAX))
            await self.flush()

    async def flush(self) -> None:
        """Write what changed and commit it; returns once it is durable."""
        async with self._lock:
            if not self._advanced:
                return
            started = time.monotonic()
            sends, self._sends = self._sends, []
            acks, self._acks = self._acks, []
            again, self._again = self._again, {}
            cut = self.state.cut()
            first = self.marker.open_log()
            offsets = dict(self.marker.offsets)
            rows = self.marker.close(list((again | dict(cut)).items()) if again else cut)
            self._advanced = False
            self.oldest_unflushed = None
            for send in sends:  # quarantined and forwarded records are on the log before their source is committed
                await send
            fault("before_begin")
            if first:
                await self._transaction(first, {})
            await self._transaction(rows, offsets)
            fault("after_commit")
            large = {k: v for k, v in rows if v is not None and len(v) > STAGED_BYTES_MAX}
            self.stats.last_commit_s = time.monotonic() - started
            if large:
                await self._write(large, whole=False)
                for key in large:  # what waits of it is older
                    self._staged.pop(key, None)
            self._staged.update((k, v) for k, v in rows if k not in large)
            await self._to_disk(force=False)
            for ack in acks:
                ack()
            self.stats.commits += 1
            self.stats.rows += len(rows)
            self.stats.durations.append(time.monotonic() - started)
            del self.stats.durations[:-1000]

    async def _transaction(self, rows: Rows, offsets: dict[str, int]) -> None:
        if self._produced + len(rows) > self._sequence_max:
            await self._producer.stop()
            await self.fence()
        producer = self._producer
        await producer.begin_transaction()
        sent: list[tuple[Any, int]] = []  # of each part of the batch: future of its first offset, records
        batch = producer.create_batch()
        for key, value in rows:
            if batch.append(key=key, value=value, timestamp=None) is None:
                sent.append((await self._send(batch), batch.record_count()))
                batch = producer.create_batch()
                batch.append(key=key, value=value, timestamp=None)
        sent.append((await self._send(batch), batch.record_count()))
        fault("mid_batch")
        end = self._check_offsets([((await future).offset, count) for future, count in sent])
        if offsets:
            await producer.send_offsets_to_transaction(
                {TopicPartition(topic, self.state.partition): offset for topic, offset in offsets.items()}, self._group)
        fault("before_commit")
        await producer.commit_transaction()
        self._produced += len(rows)
        self.changelog_position, self._committed = end, True

    async def _send(self, batch: Any) -> Any:
        return await self._producer.send_batch(batch, self._changelog, partition=self.state.partition)

    def _check_offsets(self, parts: list[tuple[int, int]]) -> int:
        """Return the offset behind a batch; nothing but the end of the transaction before lies before and within it."""
        expected = self.changelog_position + 1 if self._committed else parts[0][0]
        for first, count in parts:
            if first != expected:
                raise TornTransaction(
                    f"{self._changelog} {self.state.partition}: expected the next records at offset {expected}, "
                    f"were at {first}: the transaction before has not ended once; a fresh process reads what is there")
            expected += count
        return expected

    async def _to_disk(self, force: bool) -> None:
        now = time.monotonic()
        if not self._staged or (now < self._disk_due and not force):
            return
        self._disk_due = now + DISK_S
        staged, self._staged = self._staged, {}
        if force:
            self.disk.write(staged, self.changelog_position)
        else:
            await self._write(staged)

    async def _write(self, rows: Mapping[bytes, bytes | None], whole: bool = True) -> None:
        for _ in self.disk.write_slices(rows, self.changelog_position, whole):
            await asyncio.sleep(DISK_PAUSE_S)  # trades have their turns in between

    async def stop(self, flush: bool = True) -> None:
        """Flush, write the disk, disconnect."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if flush and self._producer is not None:
            await self.flush()
            await self._to_disk(force=True)
        if self._producer is not None:
            await self._producer.stop()
        self.disk.close()


def fault(point: str) -> None:
    """Die or block here if a test asks for it.

    ``DESKRISK_FAULT=point:N`` kills the process at the N-th passage, ``point:N:SECONDS`` blocks its loop there.
    """
    wanted = os.environ.get(FAULT_ENV)
    if wanted and wanted.partition(":")[0] == point:
        count = _passages[point] = _passages.get(point, 0) + 1
        passage, _, seconds = wanted.partition(":")[2].partition(":")
        if seconds and count == int(passage):
            time.sleep(float(seconds))
        elif not seconds and count >= int(passage or 1):
            os.kill(os.getpid(), 9)


_passages: dict[str, int] = {}
