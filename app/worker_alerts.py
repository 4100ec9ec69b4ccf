"""Says on `alerts` that a process of this machine is down or makes no progress, and that it is back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time

import msgspec
from aiokafka.errors import KafkaError

from agents.limit_alerts import newest_alerts
from app.settings import Settings
from models.reference import FIRM
from schemas.codec import decoder_of, encode
from schemas.records import Alert
from tables.kafka import owner_partition
from tables.records import RecordBatch
from tables.restore import read_range
from tables.tasks import Restart, process

log = logging.getLogger(__name__)
KIND = "worker_down"
#: what is said while the broker cannot be reached is kept, up to so many alerts
WAITING_MAX = 1_000
_alert = decoder_of(Alert)


class WorkerAlerts:
    """Publishes alerts about the children of a supervisor; never holds it up, whatever the broker does."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._topic = settings, settings.topics()["alerts"]
        self._where = settings.instance or socket.gethostname()
        self._waiting: asyncio.Queue[Alert] = asyncio.Queue(WAITING_MAX)
        #: what stands, by child
        self._standing: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to publish in the background."""
        self._task = process.start("worker alerts", self._run, restart=Restart())

    def down(self, name: str, why: str, restarts: int) -> None:
        """Say that a child is down or does not get on."""
        self._standing.add(name)
        self._say(name, KIND, why, restarts)

    def up(self, name: str, restarts: int) -> None:
        """Say that a child is back, where it was said to be down."""
        if name in self._standing:
            self._standing.discard(name)
            self._say(name, "clear", "it is back", restarts)

    def _say(self, name: str, kind: str, note: str, restarts: int) -> None:
        now = time.time_ns()
        alert = Alert(alert_id=f"worker.{self._where}.{name}", kind=kind,  # type: ignore[arg-type]
                      node=FIRM, metric=f"{name} on {self._where}", value=float(restarts), limit=None, utilisation=None,
                      cause_ts=now, raised_ts=now, snapshot_id=0, note=note)
        if self._waiting.full():
            self._waiting.get_nowait()
            log.error("worker alerts: %d wait for the broker, the oldest is dropped", WAITING_MAX)
        self._waiting.put_nowait(alert)

    async def _run(self) -> None:
        s = self._settings
        await self._read_standing()
        producer = s.client().producer(acks="all")
        try:
            await producer.start()
            while True:
                alert = await self._waiting.get()
                try:
                    await producer.send_and_wait(self._topic, encode(alert), alert.node.encode(),
                                                 owner_partition(alert.node, s.partitions))
                except (KafkaError, asyncio.CancelledError):
                    if not self._waiting.full():  # what came after it says more; else it is told when this runs again
                        self._waiting.put_nowait(alert)
                    raise
        finally:
            with contextlib.suppress(KafkaError):
                await producer.stop()

    async def _read_standing(self) -> None:
        """Read what a supervisor before this one said and did not take back."""
        client, p = self._settings.client(), owner_partition(FIRM, self._settings.partitions)
        starts = await newest_alerts(client, self._topic, self._settings.partitions)
        newest: dict[str, Alert] = {}
        mine = f"worker.{self._where}."

        def take(batch: RecordBatch) -> None:
            for value in batch.values:
                if value is None or mine.encode() not in value:
                    continue
                with contextlib.suppress(msgspec.DecodeError, ValueError):
                    alert = _alert.decode(value)
                    if alert.alert_id.startswith(mine):
                        newest[alert.alert_id.removeprefix(mine)] = alert

        await read_range(client, {tp: at for tp, at in starts.items() if tp.partition == p}, take)
        self._standing |= {name for name, alert in newest.items() if alert.kind == KIND}

    async def stop(self) -> None:
        """Publish nothing any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
