"""What a process that writes nothing else could not take goes to quarantine, too: gateway and sink."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from aiokafka.errors import KafkaError

from agents.ports import Counters
from agents.quarantine import Quarantine
from app.settings import Settings
from tables.kafka import owner_partition
from tables.tasks import Restart, process

log = logging.getLogger(__name__)
#: what is said while the broker cannot be reached is kept, up to so many records
WAITING_MAX = 1_000


class AsideWriter:
    """A publisher of a few records in the background; it never holds up who sends, whatever the broker does."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._waiting: asyncio.Queue[tuple[str, bytes | None, bytes | None]] = asyncio.Queue(WAITING_MAX)
        self._task: asyncio.Task[None] | None = None
        #: since the broker took one
        self._dropped = 0

    def start(self) -> None:
        """Begin to publish."""
        self._task = process.start("put aside", self._run, restart=Restart())

    def send(self, topic: str, key: bytes | None, value: bytes | None, partition: int | None = None,
             headers: Any = None, *, linger_s: float = 0.0) -> asyncio.Future[Any]:
        """Have a record published; the future that is returned says nothing."""
        if self._waiting.full():
            self._waiting.get_nowait()
            self._waiting.task_done()
            self._drop()
        self._waiting.put_nowait((topic, key, value))
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def cut(self, topic: str, partition: int) -> asyncio.Future[int | None]:
        """Return that it is not known where anything stands."""
        done: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        done.set_result(-1)
        return done

    async def flush(self) -> None:
        """Wait until the broker has everything sent so far."""
        await self._waiting.join()

    async def _run(self) -> None:
        s = self._settings
        producer = s.client().producer(acks="all")
        try:
            await producer.start()
            while True:
                record = topic, key, value = await self._waiting.get()
                try:
                    owner = owner_partition((key or b"").decode(), s.partitions)
                    await producer.send_and_wait(topic, value, key, owner)
                except (KafkaError, asyncio.CancelledError):
                    if self._waiting.full():
                        self._drop()
                    else:
                        self._waiting.put_nowait(record)
                    raise
                else:
                    self._say_dropped()
                finally:
                    self._waiting.task_done()
        finally:
            with contextlib.suppress(KafkaError):
                await producer.stop()

    def _drop(self) -> None:
        self._dropped += 1
        if self._dropped == 1:
            log.error("put aside: %d records wait for the broker, the oldest ones are dropped from now on", WAITING_MAX)

    def _say_dropped(self) -> None:
        if self._dropped:
            log.error("put aside: %d records were dropped while the broker took none", self._dropped)
            self._dropped = 0

    async def stop(self) -> None:
        """Publish nothing any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def quarantine_of(settings: Settings, counters: Counters) -> tuple[AsideWriter, Quarantine]:
    """Return what puts records aside, and what sends them; it is to be started and stopped."""
    writer = AsideWriter(settings)
    return writer, Quarantine(settings.topics(), writer, counters)
