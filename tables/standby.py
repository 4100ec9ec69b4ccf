"""Standby copies: the changelog partitions of other owners, followed into this worker's local stores.

A takeover then reads the last second of a changelog instead of all of it. A copy is a store like any other (rows and
the changelog offset they include, all or nothing), so a promotion is an ordinary restore that begins further on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from tables.changelog import Batches
from tables.exit_codes import ExitCode
from tables.kafka import KafkaClient
from tables.partition import MARKER_KEY
from tables.records import fetch_slices
from tables.store import DiskPartition
from tables.tasks import process, turned

log = logging.getLogger(__name__)
#: how often a copy is written; a promotion reads this much of the changelog again
WRITE_S = 1.0
ROWS_MAX = 50_000
#: a broker that has nothing new answers after this long: copies are in no hurry
WAIT_MS = 500
RETRY_S = 1.0
#: a turn is a second of reading and a write; a broker that is gone is asked for up to its request timeout
BOUND_S = 120.0


class Standby:
    """Follows some partitions of a changelog into `DiskPartition` stores.

    Parameters
    ----------
    client : KafkaClient
    changelog : name of the topic on the broker
    home : folder of the stores; a worker's own, two workers cannot share it
    """

    def __init__(self, client: KafkaClient, changelog: str, home: Path) -> None:
        self._client, self._changelog, self._home = client, changelog, home
        self._disks: dict[int, DiskPartition] = {}
        self._batches: dict[int, Batches] = {}
        #: up to where the changelog is read; what lies behind the last whole batch is not in a copy yet
        self._positions: dict[int, int] = {}
        #: up to where what was read again from the beginning, as it did not add up, had been read before
        self._doubted: dict[int, int] = {}
        #: behind which offset what was left out has been said
        self._said: dict[int, int] = {}
        self._consumer: AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None
        self._writing: asyncio.Future[None] | None = None
        self._ends: dict[int, int] = {}

    @property
    def partitions(self) -> set[int]:
        """Return the partitions it follows."""
        return set(self._disks)

    def behind(self) -> int:
        """Return how many changelog records are not in the copies yet."""
        return sum(max(0, self._ends.get(p, 0) - position) + self._batches[p].left_out_records
                   for p, position in self._positions.items())

    async def leave(self, partitions: set[int]) -> None:
        """Write and close the copies of these partitions: their stores are free for an owner in this process."""
        await self._pause()
        for p in partitions & self.partitions:
            await self._write(p)
            self._disks.pop(p).close()
            del self._positions[p], self._batches[p]
            self._doubted.pop(p, None)
            self._said.pop(p, None)
        await self._resume()

    async def follow(self, partitions: set[int]) -> None:
        """Follow exactly these partitions."""
        if partitions == self.partitions:
            return
        await self._pause()
        await self.leave(self.partitions - partitions)
        await self._pause()
        for p in sorted(partitions - self.partitions):
            disk = DiskPartition(self._home / f"positions-{p}", self._changelog)
            for _ in disk.check_slices():
                await asyncio.sleep(0)
            marker, offset = disk.row(MARKER_KEY), disk.offset()
            if marker is None or offset is None:
                batches = Batches()
                if not disk.empty:
                    disk.clear()
            else:
                batches = Batches({MARKER_KEY: marker}, offset)
            self._disks[p], self._batches[p], self._positions[p] = disk, batches, batches.begin
        await self._resume()

    async def stop(self) -> None:
        """Write and close everything."""
        await self.follow(set())
        await self._disconnect()

    async def _pause(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._writing is not None:  # a thread is not cancelled with its task
            await self._writing
            self._writing = None

    async def _resume(self) -> None:
        if self._disks:
            self._task = process.start("standby", self._run, code=ExitCode.STANDBY, bound_s=BOUND_S)

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except (KafkaError, OSError, TimeoutError) as error:  # the copies are as they are; a broker comes back
                log.warning("standby of %s: %r; tried again", self._changelog, error)
                await self._disconnect()
                await asyncio.sleep(RETRY_S)
                turned()

    async def _disconnect(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    async def _follow(self) -> None:
        if self._consumer is None:
            consumer = self._client.consumer(check_crcs=False, fetch_max_wait_ms=WAIT_MS)
            try:
                await consumer.start()
            except BaseException:
                await consumer.stop()
                raise
            self._consumer = consumer
        await self._seek(self._consumer)
        due = time.monotonic() + WRITE_S
        while True:
            found = await fetch_slices(self._consumer._fetcher, None, WRITE_S, with_keys=True)
            for tp, batch in found.items():
                self._batches[tp.partition].take(batch)
                self._positions[tp.partition] = batch.next_offset
                self._ends[tp.partition] = batch.next_offset + batch.behind
                if not self._adds_up(tp.partition):
                    self._begin_again(tp.partition)
                    self._consumer.seek(tp, 0)
            if time.monotonic() >= due or sum(len(batches.rows) for batches in self._batches.values()) > ROWS_MAX:
                for p in list(self._disks):
                    await self._write(p)
                due = time.monotonic() + WRITE_S
            turned()

    def _adds_up(self, p: int) -> bool:
        """Say whether a copy can go on; what does not add up is read again, once, from the beginning of the log."""
        batches = self._batches[p]
        if not batches.strayed and not batches.left_out_records:
            if self._positions[p] > self._doubted.get(p, 0):
                self._doubted.pop(p, None)
            return True
        if p not in self._doubted:
            self._doubted[p] = self._positions[p]
            return False
        if self._said.get(p) != batches.position and not batches.strayed:
            self._said[p] = batches.position
            log.error("%s %d: %s: left out of the copy", self._changelog, p, batches.text())
            if process.counters is not None:
                process.counters.add("changelog_records_left_out", batches.left_out_records, partition=str(p))
        return True

    def _begin_again(self, p: int) -> None:
        log.info("standby: the copy of %s %d is made again from the beginning", self._changelog, p)
        self._disks[p].clear()
        self._positions[p], self._batches[p] = 0, Batches()

    async def _seek(self, consumer: AIOKafkaConsumer) -> None:
        """Begin where each copy ends; a copy of another log (it ends further on than the log does) starts over."""
        tps = [TopicPartition(self._changelog, p) for p in self._disks]
        consumer.assign(tps)
        ends, first = await consumer.end_offsets(tps), await consumer.beginning_offsets(tps)
        for tp in tps:
            p = tp.partition
            if self._positions[p] > ends[tp] or (self._batches[p].strayed and self._positions[p] == ends[tp]):
                self._begin_again(p)
            self._positions[p] = max(self._positions[p], first[tp])
            self._ends[p] = ends[tp]
            consumer.seek(tp, self._positions[p])

    async def _write(self, p: int) -> None:
        rows, position = self._batches[p].take_rows(), self._batches[p].position
        if rows:
            self._writing = asyncio.get_running_loop().run_in_executor(None, self._disks[p].write, rows, position)
            await asyncio.shield(self._writing)
            self._writing = None
