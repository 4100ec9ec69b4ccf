"""How far a stage has read: said on the topic `reads`, once what follows of it is on the log."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from aiokafka.structs import TopicPartition

from agents.ports import Clock, until
from agents.reference_tail import ReferenceTail
from agents.reload import KeyReloads
from agents.stage import Stage
from schemas.addresses import ReadSoFar
from schemas.codec import encode
from tables.tail import Tail
from tables.writer import PartitionWriter

#: a stage is looked at this often; it says something where it has read on
PERIOD_S = 0.08


class PositionReading:
    """What a position stage has read: what its positions include."""

    def __init__(self, writers: Mapping[int, PartitionWriter], topics: Mapping[str, str], wake: asyncio.Event,
                 reloads: KeyReloads) -> None:
        self._writers, self._wake, self._reloads = writers, wake, reloads
        self._topics = (topics["trades"], topics["positions.external"])
        #: how often the rows that changed were sent
        self.turns = 0

    def reads(self) -> dict[TopicPartition, int]:
        """Return the next offset of every source partition."""
        return {TopicPartition(topic, p): writer.marker.offsets.get(topic, 0)
                for p, writer in self._writers.items() for topic in self._topics}

    async def acted(self) -> None:
        """Wait until the rows that changed so far are out, and no position is being folded again."""
        turns = self.turns

        def done() -> bool:
            self._wake.set()
            return self.turns >= turns + 2 and not self._reloads.busy
        await until(done)


class GateReading:
    """What a gate has read: of its tails, and of the orders and executions that it follows by itself."""

    def __init__(self, tail: Tail, rules: Tail, own: Mapping[TopicPartition, int],
                 waiting: Mapping[bytes | None, bytes]) -> None:
        self._tail, self._rules, self._own, self._waiting = tail, rules, own, waiting
        #: how often exposures were measured
        self.refreshes = 0

    def reads(self) -> dict[TopicPartition, int]:
        """Return the next offset of every partition that decisions rest on."""
        return {**self._tail.positions, **self._rules.positions, **self._own}

    async def acted(self) -> None:
        """Wait until the marks that were read are taken in, and exposures measured anew."""
        refreshes = self.refreshes
        await until(lambda: not self._waiting and self.refreshes != refreshes)


class ReadReport:
    """Says how far one stage of one process is, for whoever waits for the consequences of a record."""

    def __init__(self, role: str, stage: Stage, reference: ReferenceTail, topics: Mapping[str, str],
                 publisher: Any, clock: Clock) -> None:
        self._role, self._stage, self._reference = role, stage, reference
        self._names = {name: topic for topic, name in topics.items()}
        self._topic, self._publisher, self._clock = topics["reads"], publisher, clock
        self._process = f"{os.getpid()}.{clock()}"

    async def run(self) -> None:
        """Say it until cancelled."""
        said: dict[TopicPartition, int] = {}
        while True:
            await asyncio.sleep(PERIOD_S)
            read = {**self._reference.positions(), **self._stage.reads()}
            if read == said:
                continue
            await self._stage.acted()
            await self._publisher.flush()
            found: dict[str, list[tuple[int, int]]] = {}
            for tp, offset in sorted(read.items()):
                found.setdefault(self._names[tp.topic], []).append((tp.partition, offset))
            record = ReadSoFar(role=self._role, process=self._process, read=found, ts=self._clock())
            self._publisher.send(self._topic, self._role.encode(), encode(record), 0)
            said = read
