"""Waiting by offsets: until all that was published is read by every role, and what follows of it is published.

A role says on the topic `reads` how far it has read, once what follows of that is on the log. A round takes the ends of
all topics, and waits until every role has read that far. What comes of a record passes through at most three roles, so
three rounds have all of it: positions and marks; nodes, decisions and alerts; what trips of them, and the page.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Set
from typing import Any

import aiohttp
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from app.rehearse.installation import Installation
from app.rehearse.outputs import OUTPUTS, Outputs
from schemas.topics import TOPICS

STEP_S = 0.02
#: a role that has not read on for so long stands still, also where other work has the processors
ROUND_S = 60.0
ROUNDS = 3
#: whose answers come from where the worker roles publish
GATEWAY = "gateway"
STAGES = frozenset(("positions", "marks", "risk", "gate"))


class NotSettled(TimeoutError):
    """A role has not read in time what was published before: it has ended, or stands still."""


class Waiting:
    """Knows how far everybody is, for all scenarios of an installation at once."""

    def __init__(self, installation: Installation, outputs: Outputs, session: aiohttp.ClientSession) -> None:
        self._installation, self._outputs, self._session = installation, outputs, session
        s = installation.settings
        self._names = {v: k for k, v in s.topics().items()}
        self._tps = [TopicPartition(s.topics()[t.name], p) for t in TOPICS
                     for p in range(s.partitions if t.partitions == "data" else 1)]
        self._consumer: AIOKafkaConsumer | None = None
        self._lock = asyncio.Lock()
        self._gateway_lock = asyncio.Lock()
        self._ends: tuple[float, dict[TopicPartition, int]] = (0.0, {})
        self._gateway: tuple[float, dict[TopicPartition, int]] = (0.0, {})

    async def start(self) -> None:
        """Connect."""
        self._consumer = self._installation.settings.client().consumer()
        await self._consumer.start()
        self._consumer.assign(self._tps)

    async def stop(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            await self._consumer.stop()

    async def ends(self) -> dict[TopicPartition, int]:
        """Return where every partition ends, looked up after the call; those who ask at once share an answer."""
        asked = time.monotonic()
        async with self._lock:
            if self._ends[0] < asked:
                began = time.monotonic()
                assert self._consumer is not None
                self._ends = (began, dict(await self._consumer.end_offsets(self._tps)))
        return self._ends[1]

    async def settle(self, rounds: int = ROUNDS, store: bool = False) -> None:
        """Wait until all that was published is folded and what follows is published, with ``store`` also written.

        Raises
        ------
        NotSettled
            With who has not read what.
        """
        for _ in range(rounds):
            ends = await self.ends()
            await self._all_read(ends, STAGES, page=rounds == ROUNDS)
        ends = await self.ends()
        if store:
            await self._all_read(ends, {"sink"}, page=False)
        await self._outputs.reach({tp: end for tp, end in ends.items() if self._names[tp.topic] in OUTPUTS})

    async def _all_read(self, ends: dict[TopicPartition, int], roles: Set[str], page: bool) -> None:
        deadline = time.monotonic() + ROUND_S
        while True:
            behind = list(self._behind(ends, roles))
            if not behind and page and GATEWAY in self._installation.running():
                read = await self._gateway_reads(deadline)
                behind = [f"{GATEWAY} has read {self._names[tp.topic]}-{tp.partition} to {offset} of {ends[tp]}"
                          for tp, offset in read.items() if offset < ends[tp]]
            if not behind:
                return
            if time.monotonic() > deadline:
                raise NotSettled("; ".join(behind[:4]) + self._ended())
            await asyncio.sleep(STEP_S)

    def _ended(self) -> str:
        ended = self._installation.restarts()
        return "".join(f"; {role} ended by itself {n} times" for role, n in ended.items())

    def _behind(self, ends: dict[TopicPartition, int], roles: Set[str]) -> Iterable[str]:
        for role in self._installation.running() & roles:
            read = self._outputs.read.get(role)
            if read is None or read.ts < self._installation.changed_ns.get(role, 0):
                yield f"{role} has said nothing yet"
                continue
            for topic, partition, offset in read.offsets:
                tp = TopicPartition(topic, partition)
                if offset < ends.get(tp, 0):
                    yield f"{role} has read {self._names[topic]}-{partition} to {offset} of {ends[tp]}"

    async def _gateway_reads(self, deadline: float) -> dict[TopicPartition, int]:
        """Return what the gateway has read, asked after the call; who asks at once shares an answer."""
        asked = time.monotonic()
        async with self._gateway_lock:
            if self._gateway[0] < asked:
                began = time.monotonic()
                topics = self._installation.settings.topics()
                try:
                    limit = aiohttp.ClientTimeout(total=max(deadline - time.monotonic(), 0.5))
                    async with self._session.get(f"{self._installation.url}/health/read", timeout=limit) as reply:
                        body: dict[str, Any] = await reply.json()
                except (OSError, TimeoutError, aiohttp.ClientError, ValueError) as error:
                    raise NotSettled(f"{GATEWAY} does not say what it has read: {error!r}{self._ended()}") from error
                self._gateway = (began, {TopicPartition(topics[name], int(p)): int(offset)
                                         for name, parts in body["read"].items() for p, offset in parts})
        return self._gateway[1]
