"""The real publisher: records are gathered per partition and sent as whole batches, in order."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from tables.exit_codes import ExitCode
from tables.kafka import KafkaClient, owner_partition
from tables.lease import Lease
from tables.tasks import process

log = logging.getLogger(__name__)
LINGER_S = 0.006


class BatchingPublisher:
    """Sends without waiting; a batch that cannot be delivered ends the process (a fresh one publishes anew).

    With a ``lease`` nothing is sent by who may no longer own what it writes about.
    """

    def __init__(self, client: KafkaClient, partition_counts: dict[str, int], linger_s: float = LINGER_S,
                 lease: Lease | None = None) -> None:
        self._lease = lease
        self._linger_s = linger_s
        self._producer = client.producer(max_batch_size=900_000, linger_ms=0, enable_idempotence=True)
        self._partition_counts = partition_counts
        self._open: dict[tuple[str, int], tuple[Any, asyncio.Future[Any]]] = {}
        self._full: list[tuple[tuple[str, int], Any, asyncio.Future[Any]]] = []
        self._sending: set[asyncio.Future[Any]] = set()
        self._flying: dict[tuple[str, int], int] = {}
        #: the newest batch of each partition
        self._last: dict[tuple[str, int], tuple[Any, asyncio.Future[Any]]] = {}
        #: what was due while a batch of its partition was on its way
        self._due: set[tuple[str, int]] = set()
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._lock = asyncio.Lock()
        self._stopped = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect."""
        await self._producer.start()
        self._task = process.start("publisher", self._run, code=ExitCode.PUBLISHER,
                                   may_return=lambda: self._stopped)

    def send(self, topic: str, key: bytes | None, value: bytes | None, partition: int | None = None,
             headers: list[tuple[str, bytes]] | None = None, timestamp_ms: int | None = None, *,
             linger_s: float = 0.0) -> asyncio.Future[Any]:
        """Send one record (stamped now, or as given); the future is done when the broker has it.

        ``linger_s``: how long it may be gathered with others, beside what all records are; whatever is sent without
        goes out with all that wait.
        """
        if partition is None:
            partition = owner_partition((key or b"").decode(), self._partition_counts[topic])
        target = (topic, partition)
        entry = self._open.get(target)
        if entry is not None and entry[0].append(key=key, value=value, timestamp=timestamp_ms,
                                                 headers=headers or []) is not None:
            self._wake_after(linger_s)
            return entry[1]
        if entry is not None:
            self._full.append((target, *entry))
        batch = self._producer.create_batch()
        batch.append(key=key, value=value, timestamp=timestamp_ms, headers=headers or [])
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._open[target] = self._last[target] = (batch, future)
        self._wake_after(linger_s)
        return future

    def cut(self, topic: str, partition: int) -> asyncio.Future[int | None]:
        """Return, once the broker has it, the offset behind all that was sent to a partition so far.

        None: nothing was sent to it. Below 0: the broker has it, and has not said where (a batch that was sent twice).
        """
        target = (topic, partition)
        found: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        if target not in self._last:
            found.set_result(None)
            return found
        if (entry := self._open.pop(target, None)) is not None:  # what is sent from now on is another batch
            self._full.append((target, *entry))
            self._wake.set()
        batch, sent = self._last[target]
        count = batch.record_count()

        def known(done: asyncio.Future[Any]) -> None:
            if not found.done():
                offset = done.result().offset
                found.set_result(offset + count if offset >= 0 else -1)

        sent.add_done_callback(known)
        return found

    def _wake_after(self, linger_s: float) -> None:
        if linger_s == 0.0:
            self._wake.set()
        elif self._timer is None and not self._wake.is_set():
            self._timer = asyncio.get_running_loop().call_later(linger_s, self._wake.set)

    async def _run(self) -> None:
        while not self._stopped:
            await self._wake.wait()
            self._wake.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            await asyncio.sleep(self._linger_s)
            await self._send_all()

    async def _send_all(self, everything: bool = False) -> None:
        """Send what is gathered; what follows a batch that is on its way waits for it, and is one batch then."""
        if self._lease is not None:
            await self._lease.sure()
        async with self._lock:  # whoever flushes waits for what another turn has taken and not yet sent
            full, self._full = self._full, []
            going = [k for k in self._open if everything or not self._flying.get(k)]
            self._due.update(self._open.keys() - going)
            for target, batch, future in [*full, *((k, *self._open.pop(k)) for k in going)]:
                self._flying[target] = self._flying.get(target, 0) + 1
                sent = await self._producer.send_batch(batch, target[0], partition=target[1])
                self._sending.add(sent)
                sent.add_done_callback(
                    lambda done, future=future, target=target: self._done(done, future, target))

    def _done(self, sent: asyncio.Future[Any], future: asyncio.Future[Any], target: tuple[str, int]) -> None:
        self._sending.discard(sent)
        self._flying[target] -= 1
        if target in self._due:  # what is not due yet goes on being gathered
            self._due.remove(target)
            self._wake.set()
        if sent.cancelled():
            future.cancel()
        elif sent.exception() is not None:
            process.failed("publisher", sent.exception(), ExitCode.PUBLISHER)
        elif not future.done():
            future.set_result(sent.result())

    async def flush(self) -> None:
        """Wait until everything sent so far is with the broker."""
        await self._send_all(everything=True)
        if self._sending:
            await asyncio.wait(set(self._sending))

    async def stop(self) -> None:
        """Send what is left and disconnect."""
        self._stopped = True  # not cancelled: what it has taken and not yet sent would be gone
        self._wake.set()
        if self._task is not None:
            await self._task
        await self.flush()
        await self._producer.stop()
