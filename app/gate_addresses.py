"""Where the gate of each partition answers: a record on the topic `gates`, so that any gate can name the right one."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from agents.ports import Publisher
from schemas.addresses import GateAddress
from schemas.codec import decoder_of, encode
from tables.kafka import KafkaClient
from tables.records import RecordBatch
from tables.tail import Tail

_address = decoder_of(GateAddress)


class GateAddresses:
    """Where the gate of every partition answers: tailed, and written for the partitions of this worker."""

    def __init__(self, client: KafkaClient, topic: str, publisher: Publisher) -> None:
        self._topic, self._publisher = topic, publisher
        self._tail = Tail(client, [topic], self._on_batch, wait_ms=500)
        self._task: asyncio.Task[None] | None = None
        self.of_partition: dict[int, GateAddress] = {}

    def _on_batch(self, batch: RecordBatch) -> None:
        for value in batch.values:
            if value is not None:
                found = _address.decode(value)
                self.of_partition[found.partition] = found

    async def start(self) -> None:
        """Read what there is, then follow."""
        await self._tail.start()
        await self._tail.read_to_end()
        self._task = self._tail.follow("gate addresses tail")

    def announce(self, partitions: set[int], address: str | None, path: Path | None, now_ns: int) -> None:
        """Say that this worker's gate answers for some partitions, at an address and on a socket of this machine."""
        for p in sorted(partitions):
            self._publisher.send(self._topic, str(p).encode(), encode(GateAddress(
                partition=p, address=address, socket=None if path is None else str(path.absolute()),
                host=socket.gethostname(), ts=now_ns)), 0)

    async def stop(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._tail.stop()
