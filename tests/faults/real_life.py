"""The writer and its restore on a real broker, one life after the other, in this process: as fast as the broker is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewTopic
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from tables.changelog import Batches, read_batches
from tables.kafka import KafkaClient
from tables.restore import RestoreStalled
from tables.transactions import owner_id
from tables.writer import PartitionWriter, TornTransaction
from tests.faults.fake_broker import Disk
from tests.faults.lives import Life
from tests.folding import new_partition

#: what ends a life that a broker does not answer, or answers badly
ENDS = (KafkaError, OSError, RestoreStalled, TornTransaction)
STALL_S = 6.0


@dataclass(frozen=True)
class Impatient(KafkaClient):
    """A client that does not wait long: tests that lose requests would wait 40 s for each."""

    request_s: float = 1.5

    def options(self) -> dict[str, Any]:
        """Return the options with another patience."""
        return super().options() | {"request_timeout_ms": int(self.request_s * 1000)}


class Uncured(Impatient):
    """A client whose transactions are aiokafka's own: a request without an answer is sent again."""

    def producer(self, **options: Any) -> AIOKafkaProducer:
        """Return aiokafka's producer."""
        return AIOKafkaProducer(**{"acks": "all", "retry_backoff_ms": 5} | self.options() | options)


class RealLife(Life):
    """One process's life on one partition of a changelog.

    Parameters
    ----------
    client : of the broker, or of the proxy before it
    changelog, partition : on which the state is
    disk : what survives the process
    """

    def __init__(self, client: KafkaClient, changelog: str, partition: int, disk: Disk, rng: np.random.Generator) -> None:
        self.client, self.disk, self.rng = client, disk, rng
        self.at = TopicPartition(changelog, partition)
        self.source = changelog  # offsets are committed of topics that exist
        self.part = new_partition()
        self.part.partition = partition  # of the changelog alone: whose account it is does not matter here
        self.writer = PartitionWriter(client, changelog, owner_id(changelog, partition), self.part, changelog, disk)  # type: ignore[arg-type]
        self.acked = self.left_out = self.adds_up_to = 0
        self.from_store = False
        #: where it went on; None: it has not come so far
        self.began: int | None = None

    async def read(self, into: Batches) -> None:
        """Read what is committed."""
        await read_batches(self.client, {self.at: into}, STALL_S)

    async def restore(self) -> int:
        """Fence and read."""
        self.began = await super().restore()
        return self.began

    async def die(self) -> None:
        """Be gone as a process is: connections close, nothing more is sent."""
        producer, self.writer._producer = self.writer._producer, None
        if producer is None:
            return
        producer._closed = True
        task = producer._sender.sender_task
        if task is not None:
            task.cancel()
        await producer.client.close()
        if task is not None:
            await asyncio.wait([task], timeout=0.2)
            if task.done() and not task.cancelled():
                task.exception()


async def make_topic(address: str, name: str, partitions: int) -> None:
    """Create a topic."""
    admin = KafkaClient(address).admin()
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, partitions, 1, topic_configs={"cleanup.policy": "compact"})])
    finally:
        await admin.close()
