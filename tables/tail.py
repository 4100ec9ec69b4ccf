"""Follow whole topics without a group: compacted topics, read from the beginning, then as they grow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from tables.kafka import FETCH_WAIT_MS, KafkaClient
from tables.records import PACE_S, RecordBatch, fetch_slices, tune_fetcher
from tables.tasks import process, turned

#: a turn is a read of a second at most, and what follows from it
BOUND_S = 30.0


class Tail:
    """Reads every partition of some topics and hands each slice to a callback, in order within a partition.

    Parameters
    ----------
    client : KafkaClient
    topics : names on the broker
    on_batch : called with each slice; must not block
    from_end : start at the end instead of the beginning
    gather_ms : let the broker gather for so long; 0: answer at once
    wait_ms : how long the broker may wait where there is nothing; long for what rarely changes
    without_keys : topics whose keys nobody asks for: their values come as rows of one buffer
    pace_s : from one request to the next one: what nobody waits for by the millisecond costs fewer requests so
    most : slices taken in before others get a turn; None: all there are
    every_s : from one request to the next one by topic, where it is another than ``pace_s``
    """

    def __init__(self, client: KafkaClient, topics: Iterable[str], on_batch: Callable[[RecordBatch], None],
                 from_end: bool = False, isolation_level: str = "read_committed", gather_ms: int = 0,
                 wait_ms: int = FETCH_WAIT_MS, pace_s: float = PACE_S,
                 without_keys: Iterable[str] = (), most: int | None = None,
                 every_s: Mapping[str, float] | None = None) -> None:
        self._client = client
        self._topics = list(topics)
        self._on_batch = on_batch
        self._from_end = from_end
        self._isolation_level = isolation_level
        # requests are what a small installation pays for: who is in no hurry, or rarely gets anything, asks less often
        self._fetch = {"fetch_max_wait_ms": gather_ms or wait_ms, "fetch_min_bytes": 1 << 20 if gather_ms else 1}
        self._pace_s, self._every_s = pace_s, every_s
        self._without_keys, self._most = frozenset(without_keys), most
        self._consumer: AIOKafkaConsumer | None = None
        self._advanced = asyncio.Event()
        self.positions: dict[TopicPartition, int] = {}

    async def start(self, start_at: dict[TopicPartition, int] | None = None,
                    only: Iterable[TopicPartition] | None = None) -> None:
        """Connect and take every partition, or ``only`` these; ``start_at`` overrides where some of them start."""
        consumer = self._client.consumer(isolation_level=self._isolation_level, **self._fetch)
        await consumer.start()
        tune_fetcher(consumer._fetcher, self._pace_s, self._every_s)
        self._consumer = consumer
        tps = []
        for topic in self._topics:
            partitions = await self._partitions(topic)
            tps += [TopicPartition(topic, p) for p in partitions]
        if only is not None:
            tps = list(only)
        consumer.assign(tps)
        if self._from_end:
            await consumer.seek_to_end(*tps)
        else:
            await consumer.seek_to_beginning(*tps)
        for tp, offset in (start_at or {}).items():
            consumer.seek(tp, offset)
        self.positions = {tp: await consumer.position(tp) for tp in tps}

    def also(self, starts: Mapping[TopicPartition, int]) -> None:
        """Follow these partitions of other topics from these offsets, and no others of a call before."""
        assert self._consumer is not None
        self.positions = {tp: at for tp, at in self.positions.items() if tp.topic in self._topics} | dict(starts)
        self._consumer.assign(list(self.positions))
        for tp, offset in self.positions.items():
            self._consumer.seek(tp, offset)

    async def _partitions(self, topic: str) -> list[int]:
        assert self._consumer is not None
        for _ in range(100):
            await self._consumer._client.set_topics(self._topics)
            found = self._consumer.partitions_for_topic(topic)
            if found:
                return sorted(found)
            await asyncio.sleep(0.1)
        raise TimeoutError(f"topic {topic} does not exist: run `deskrisk topics create`")

    async def poll(self, timeout: float = 1.0) -> int:
        """Read once; return how many records came."""
        assert self._consumer is not None
        count = 0
        found = await fetch_slices(self._consumer._fetcher, None, timeout, True, self._without_keys, self._most)
        for tp, batch in found.items():
            if len(batch):
                self._on_batch(batch)
                count += len(batch)
            self.positions[tp] = batch.next_offset
        self._advanced.set()
        self._advanced.clear()
        return count

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            await self.poll()
            turned()

    def follow(self, name: str) -> asyncio.Task[None]:
        """Follow in the background under a name, until that is cancelled; return the task."""
        return process.start(name, self.run, bound_s=BOUND_S)

    async def ends(self) -> dict[TopicPartition, int]:
        """Return where each partition ends now, for a reader of what is committed."""
        assert self._consumer is not None
        return dict(await self._consumer.end_offsets(list(self.positions)))

    def reached(self, ends: dict[TopicPartition, int]) -> bool:
        """Return whether everything before these ends has been read."""
        return all(self.positions.get(tp, 0) >= end for tp, end in ends.items())

    async def read_to_end(self, timeout: float = 60.0) -> None:
        """Read until every partition's present end; only while `run` is not running."""
        ends = await self.ends()
        deadline = asyncio.get_running_loop().time() + timeout
        while not self.reached(ends):
            await self.poll(0.2)
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"topics {self._topics}: not at their end after {timeout} s")

    async def wait_until(self, ends: dict[TopicPartition, int], timeout: float = 10.0) -> bool:
        """Wait until a running tail has read to these ends; False where it did not in time."""
        deadline = asyncio.get_running_loop().time() + timeout
        while not self.reached(ends):
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(0.005)
        return True

    async def stop(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            await self._consumer.stop()
