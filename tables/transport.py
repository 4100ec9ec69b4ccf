"""The batch transport: Faust's aiokafka driver, handing over one message per partition and poll.

Faust pays about 200 microseconds a message; here a message is a whole fetched slice (`RecordBatch`). Assignment,
rebalance, recovery and agents stay Faust's. Offsets of these slices are committed by the table's writer, inside its
transaction, never by Faust; after a rebalance reading goes on at the offset stored with the state.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import faust
import faust.transport.drivers
from aiokafka.errors import IllegalStateError
from aiokafka.protocol.group import JoinGroupRequest
from aiokafka.structs import TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from mode.utils.futures import notify

from schemas.topics import EXTERNAL
from tables.exit_codes import ExitCode
from tables.kafka import FETCH_WAIT_MS, stop_consumer
from tables.lease import Lease
from tables.records import PACE_S, RecordBatch, UnreadableBatch, fetch_slices, tune_fetcher
from tables.tasks import process

UNKNOWN_MEMBER_ID = JoinGroupRequest.UNKNOWN_MEMBER_ID
#: name in the broker URL: ``batch://host:port``
ALIAS = "batch"


@dataclass(frozen=True)
class Reading:
    """How an app reads its sources; found on the app as ``reading``.

    Parameters
    ----------
    pace_s : from one request to the next one
    lease : renewed by heartbeats, where a role needs one
    """

    pace_s: float = PACE_S
    lease: Lease | None = None


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that fetches; it returns slices and reads only what is committed."""

    async def on_start(self) -> None:
        """Start the consumer with sizes that suit slices."""
        self._consumer = consumer = self._create_consumer(loop=self.thread_loop)
        consumer._isolation_level = "read_committed"
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        consumer._fetch_max_bytes = 16 << 20
        consumer.stop = partial(stop_consumer, consumer)
        self.time_started = driver.monotonic()
        await consumer.start()
        reading: Reading = self.app.reading
        if reading.lease is not None:
            self._renew_by_heartbeats(consumer._coordinator, reading.lease)
        tune_fetcher(consumer._fetcher, reading.pace_s)

    def _renew_by_heartbeats(self, coordinator: Any, lease: Lease) -> None:
        """Have every heartbeat that is answered renew a lease, and let its holder send one."""
        send = coordinator._do_heartbeat

        async def heartbeat() -> bool:
            sent_at = time.monotonic()
            known: bool = await send()
            if known:
                lease.renew(sent_at, coordinator.member_id)
            return known

        async def ask() -> bool:
            if coordinator._heartbeat_task is not None:  # while it joins, a heartbeat would be of the generation before
                await heartbeat()
            return bool(coordinator.member_id != UNKNOWN_MEMBER_ID)

        async def ask_in_thread() -> bool:
            return bool(await self.call_thread(ask))

        coordinator._do_heartbeat = heartbeat
        lease.ask = ask_in_thread

    async def pause(self, partitions: set[TP]) -> None:
        """Fetch nothing from these partitions."""
        held = self._ensure_consumer().assignment()
        await self.call_thread(self._pause, [TopicPartition(*tp) for tp in partitions if tp in held])

    async def _pause(self, partitions: list[TopicPartition]) -> None:
        self._ensure_consumer().pause(*partitions)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek to the committed offsets of what is held."""
        found: Mapping[TP, int] = await self.call_thread(self._seek_to_committed)
        return found

    async def _seek_to_committed(self) -> Mapping[TP, int]:
        consumer = self._ensure_consumer()
        try:
            return dict(await consumer.seek_to_committed()) if consumer.assignment() else {}
        except IllegalStateError:  # a partition went meanwhile: the rebalance that follows seeks again
            return {}

    async def _fetch_records(self, consumer: Any, active_partitions: set[TP], timeout: float | None = None,
                             max_records: int | None = None) -> dict[Any, Any]:
        if not self.consumer.flow_active:
            return {}
        fetcher = consumer._fetcher
        if consumer._closed or fetcher._closed:
            raise driver.ConsumerStoppedError()
        with fetcher._subscriptions.fetch_context():
            # of statements the key is looked at: two facts under one key would not survive compaction
            unasked = frozenset(tp.topic for tp in active_partitions if not tp.topic.endswith(EXTERNAL.name))
            try:
                return await fetch_slices(fetcher, active_partitions, timeout or 0.0, True, unasked)
            except UnreadableBatch as error:
                process.failed("reader", error, ExitCode.UNREADABLE)
                return {}


class BatchConsumer(driver.Consumer):
    """Delivers slices; leaves commits to the writers and positions to the tables."""

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _to_message(self, tp: TP, record: RecordBatch) -> ConsumerMessage:
        stamp = float(record.timestamps_ms[-1]) / 1000.0 if len(record) else 0.0
        return ConsumerMessage(record.topic, record.partition, record.next_offset - 1, stamp, 0, None, None, record,
                               None, 0, 0, tp, generation_id=self.app.consumer_generation_id)

    async def getmany(self, timeout: float) -> Any:
        """Yield one message per partition that has something new."""
        records, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if records is None or self.should_stop:
            return
        if not self.flow_active:
            await self.perform_seek()
            return
        for tp, batch in records.items():
            if not self.flow_active or self.app.consumer_generation_id != generation:
                break
            if active is None or tp in active or tp in self._buffered_partitions:
                yield TP(*tp), self._to_message(TP(*tp), batch)

    def ack(self, message: Any) -> bool:
        """Forget a message whose effect is durable; its offset went with the writer's transaction."""
        message.acked = True
        self._unacked_messages.discard(message)
        notify(self._waiting_for_ack)
        return True

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Slices have gaps by design (markers, compaction): nothing to track."""

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit nothing: offsets are committed by the writers."""
        return False

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust's per-message liveness check does not apply; `tables.watchdog` watches progress."""

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Let changelog partitions be: Faust would seek them to read on, but they are restored in bulk already."""
        await self._thread.pause({tp for tp in partitions if self._is_changelog_tp(tp)})
        await super().seek_wait({tp: offset for tp, offset in partitions.items() if not self._is_changelog_tp(tp)})

    async def perform_seek(self) -> None:
        """Go on where the state ends, not where the group last committed."""
        await super().perform_seek()
        for tp in self.assignment():
            stored = self.app.tables.stored_offset(tp)
            if stored is not None:
                try:
                    await self.seek(tp, stored)
                except IllegalStateError:  # gone meanwhile, as above
                    continue
                self._read_offset[tp] = None


class Transport(driver.Transport):
    """Registered as ``batch://``."""

    Consumer = BatchConsumer


class BatchSchema(faust.Schema):
    """Lets slices through undecoded."""

    def loads(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:
        """Return the slice as it is."""
        return None, message.value

    def loads_key(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> None:
        """Slices have no key of their own."""

    def loads_value(self, app: Any, message: Any, *, loads: Any = None, serializer: Any = None) -> Any:
        """Return the slice as it is."""
        return message.value


def register() -> None:
    """Make ``batch://`` known to Faust."""
    faust.transport.drivers.TRANSPORTS.aliases[ALIAS] = f"{__name__}:Transport"
