"""What the roles publish, as a reader of the topics keeps it: the newest row of a key, and every fact."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiokafka.structs import TopicPartition

from app.settings import Settings
from schemas.addresses import GateAddress, ReadSoFar
from schemas.codec import decoder_of
from tables.records import RecordBatch
from tables.tail import Tail

#: read here: rows by key, facts in order, and how far the roles are
ROWS = ("positions", "risk", "marks")
FACTS = ("decisions", "alerts", "quarantine")
OUTPUTS = (*ROWS, *FACTS, "reads", "gates")
REACH_S = 60.0
_reads, _gate = decoder_of(ReadSoFar), decoder_of(GateAddress)


@dataclass
class Read:
    """How far a role is."""

    ts: int
    #: topic on the broker, partition, next offset
    offsets: list[tuple[str, int, int]]


@dataclass(frozen=True)
class Fact:
    """A record that is never replaced, with where it stands."""

    partition: int
    offset: int
    value: bytes

    def fields(self) -> Any:
        """Return what it says."""
        return msgspec.json.decode(self.value)


@dataclass
class _Rows:
    by_key: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def take(self, key: str, partition: int, value: bytes | None) -> None:
        if value is not None:
            self.by_key[key] = (partition, value)
        elif key in self.by_key and self.by_key[key][0] == partition:
            del self.by_key[key]  # withdrawn from here; it may have been published elsewhere


class Outputs:
    """Follows the output topics of one installation."""

    def __init__(self, settings: Settings) -> None:
        topics = settings.topics()
        self._topics, self._names = topics, {v: k for k, v in topics.items()}
        self._tail = Tail(settings.client(), [topics[t] for t in OUTPUTS], self._on_batch,
                          isolation_level="read_uncommitted", wait_ms=50)
        self._task: asyncio.Task[None] | None = None
        self._rows = {name: _Rows() for name in ROWS}
        self.facts: dict[str, list[Fact]] = {name: [] for name in FACTS}
        self.read: dict[str, Read] = {}
        self.gates: dict[int, GateAddress] = {}

    async def start(self) -> None:
        """Read what there is, then follow."""
        await self._tail.start()
        await self._tail.read_to_end()
        self._task = self._tail.follow("outputs of a rehearsal")

    async def stop(self) -> None:
        """Disconnect."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._tail.stop()

    def _on_batch(self, batch: RecordBatch) -> None:
        name = self._names[batch.topic]
        for key, value, offset in zip(batch.keys, batch.values, batch.offsets.tolist(), strict=True):
            if name in ROWS:
                self._rows[name].take((key or b"").decode(errors="replace"), batch.partition, value)
            elif value is None:
                continue
            elif name in FACTS:
                self.facts[name].append(Fact(batch.partition, int(offset), value))
            elif name == "reads":
                said = _reads.decode(value)
                self.read[said.role] = Read(int(said.ts), [(self._topics[t], p, at) for t, parts in said.read.items()
                                                           for p, at in parts])
            else:
                gate = _gate.decode(value)
                self.gates[gate.partition] = gate

    def row(self, topic: str, key: str) -> Any:
        """Return the newest record of a key, or None."""
        held = self._rows[topic].by_key.get(key)
        return None if held is None else msgspec.json.decode(held[1])

    def facts_of(self, topic: str) -> Iterable[Fact]:
        """Return every record of a topic of facts, the oldest first."""
        return list(self.facts[topic])

    async def reach(self, ends: dict[TopicPartition, int]) -> None:
        """Wait until these ends are read here."""
        deadline = time.monotonic() + REACH_S
        while not self._tail.reached(ends):
            if time.monotonic() > deadline or (self._task is not None and self._task.done()):
                raise TimeoutError("the outputs of the installation could not be read")
            await asyncio.sleep(0.01)
