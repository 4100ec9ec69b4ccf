"""One worker process of one role: a Faust app on the batch transport, its stage, and what surrounds them."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import time
from collections.abc import Callable
from typing import Any

import faust
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from faust.types import TP

from agents.quarantine import Quarantine
from agents.read_report import ReadReport
from agents.reference_tail import ReferenceTail
from agents.stage import Stage
from app.collector import settle_collector
from app.metrics import PrometheusCounters
from app.publisher import BatchingPublisher
from app.settings import Role, Settings
from app.stages import PARTS, Built, Surroundings
from app.unreadable import take_passed_over
from app.warm import warm_kernels
from models.reference import Reference
from schemas.topics import TOPICS, topic_name
from tables import store, transport
from tables.column_table import ColumnTable, declare
from tables.exit_codes import ExitCode
from tables.kafka import check_topics, create_topics, owner_partition
from tables.lease import Lease
from tables.manager import EngineTableManager
from tables.records import reader_error
from tables.tasks import process, turned
from tables.watchdog import BEAT_S, LATE_SHARE, Watchdog, waiting_tasks

log = logging.getLogger(__name__)
#: how often a running worker looks whether the topics still have their partitions
TOPICS_CHECK_S = 15.0
TRIM_BEATS = 10


class EngineWorker(faust.Worker):
    """Faust's runner of an app; once all has stopped it ends at once, where Faust would sleep for a second."""

    async def _sentinel_task(self) -> None:
        await asyncio.sleep(0)  # what was cancelled just now gets its turn


class EngineApp(faust.App):
    """A Faust app that brings its stage up before the consumer joins the group."""

    engine: Engine
    reading: transport.Reading

    async def on_start(self) -> None:
        """Start what the stage needs, then Faust."""
        await self.engine.start()
        await super().on_start()

    async def on_stop(self) -> None:
        """Let the stage commit what only the consumer can commit, then stop the consumer."""
        self.engine.watchdog.stopping()
        if (stage := self.engine.stage) is not None:
            await (stage.stop() if stage.stops_before_consumer else stage.pause())
        await super().on_stop()

    async def _on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Let what is in work end, as Faust does, and have what was decided on the log before others may own it."""
        await super()._on_partitions_revoked(revoked)
        if self.engine.stage is not None:
            await self.engine.stage.pause()

    async def on_shutdown(self) -> None:
        """Flush and disconnect after Faust has stopped its consumer."""
        await super().on_shutdown()
        await self.engine.stop()


class Engine:
    """Builds the app of a role and owns its parts."""

    def __init__(self, settings: Settings, role: Role) -> None:
        self.settings, self.role, self.parts = settings, role, PARTS[role]
        self.client = settings.client()
        self.topics = settings.topics()
        self.counters = process.counters = PrometheusCounters()
        process.role = role
        self.lease = Lease(settings.session_timeout_s) if self.parts.leased else None
        self.watchdog = Watchdog(role, describe=lambda: waiting_tasks(self._loops()))
        self.app = self._app()
        self.built: Built | None = None
        self.ready = asyncio.Event()
        self._beat: asyncio.Task[None] | None = None
        self._topics_check: asyncio.Task[None] | None = None
        self._report: asyncio.Task[None] | None = None

    @property
    def stage(self) -> Stage | None:
        """Return the stage, once it is built."""
        return self.built.stage if self.built is not None else None

    def unready(self) -> str | None:
        """Return why this worker is not ready, or None; safe to ask from another thread."""
        if not self.ready.is_set():
            return "partitions are being taken over"
        return process.unready(time.monotonic(), LATE_SHARE)

    def _app(self) -> EngineApp:
        transport.register()
        store.register()
        s = self.settings
        # one folder per role and instance: Faust creates the last level only
        home = s.data_dir / "faust" / (s.instance or "default") / self.role
        home.parent.mkdir(parents=True, exist_ok=True)
        app = EngineApp(
            s.group(self.role), broker=f"{transport.ALIAS}://{s.brokers}", store=f"{store.ALIAS}://",
            datadir=str(home), web_enabled=False, autodiscover=False, topic_partitions=s.partitions,
            topic_allow_declare=False, topic_disable_leader=True, processing_guarantee="at_least_once",
            TableManager=EngineTableManager, broker_session_timeout=s.session_timeout_s,
            broker_heartbeat_interval=min(2.0, s.session_timeout_s / 3), broker_request_timeout=30.0,
            broker_rebalance_timeout=20.0, broker_max_poll_interval=300.0, broker_commit_interval=60.0,
            consumer_group_instance_id=self._member(), consumer_max_fetch_size=2 << 20,
            consumer_auto_offset_reset="earliest", stream_recovery_delay=0.0, stream_wait_empty=True,
            broker_credentials=self._credentials(), table_standby_replicas=0,
            recovery_consistency_check=False)  # the mark stage publishes before Faust looks at the changelog
        app.engine = self
        app.reading = transport.Reading(self.parts.pace_s, self.lease)
        sources = [self.topics[name] for name in self.parts.sources]
        schema = transport.BatchSchema(key_type=bytes, value_type=bytes)
        topic = app.topic(*sources, schema=schema, partitions=s.partitions)
        topic.maxsize = s.partitions  # the argument of app.topic() is dropped by Faust; this bounds memory
        self.table: ColumnTable | None = None
        if self.parts.table is not None:
            name, changelog, text = self.parts.table
            self.table = declare(app, name, self.topics[changelog], s.partitions, text)
        app.agent(topic, name=self.role, concurrency=1)(self._agent)
        return app

    def _member(self) -> str | None:
        """Return the static membership; none where a standby takes over at once what a worker that stops gives back."""
        return None if self.settings.standby and self.role == "positions" else self.settings.instance

    def _credentials(self) -> Any:
        s = self.settings
        if s.security_protocol == "PLAINTEXT":
            return None
        context = self.client.ssl_context()
        if s.security_protocol == "SSL":
            return faust.SSLCredentials(context=context)
        return faust.SASLCredentials(username=s.sasl_username, password=self.client.sasl_password,
                                     mechanism=s.sasl_mechanism, ssl_context=context)

    async def _agent(self, stream: Any) -> None:
        async for event in stream.noack().events():
            try:
                assert self.built is not None
                await self.built.stage.process(event.value, event.ack)
                event.value.release()
            except Exception as error:  # noqa: BLE001 - Faust would go on with the next slice: a silent loss
                process.failed(f"stage {self.role}", error, ExitCode.STAGE)

    async def start(self) -> None:
        """Compile or load the kernels, connect, read the reference data, build the stage: all before joining."""
        s = self.settings
        warm_kernels(self.role)
        settle_collector()
        await create_topics(self.client, s.prefix, s.partitions, s.horizon_ms, s.replication)
        await take_passed_over(s)
        counts = {topic_name(s.prefix, t): s.partitions if t.partitions == "data" else 1 for t in TOPICS}
        self.publisher = BatchingPublisher(self.client, counts, self.parts.linger_s, self.lease)
        await self.publisher.start()
        reference = Reference(lambda account: owner_partition(account, s.partitions))
        self.reference = ReferenceTail(self.client, self.topics, reference, self.counters,
                                       Quarantine(self.topics, self.publisher, self.counters).send)
        await self.reference.start()
        self.built = await self.parts.build(Surroundings(s, self.client, self.topics, self.reference, self.publisher,
                                                         self.counters, steady_clock(), self._commit, self.lease))
        tables: EngineTableManager = self.app.tables
        tables.stage = self.built.stage
        tables.source_topic = self.topics[self.parts.sources[0]]
        tables.on_ready = self._on_ready
        if self.table is not None:
            self.table.lookup = self.built.lookup
        self.watchdog.bound("in rebalance or restore", 60.0, lambda: tables.rebalancing_since)
        for bound in self.built.stage.watched():
            self.watchdog.bound(bound.what, bound.seconds, bound.since)
        self.watchdog.start()
        self._beat = process.start("beats", self._beats, bound_s=30.0)
        self._topics_check = process.start("topics check", self._check_topics)
        if s.say_reads and self.stage is not None:
            report = ReadReport(self.role, self.stage, self.reference, self.topics, self.publisher, steady_clock())
            self._report = process.start("read report", report.run)
        if s.metrics_port is not None:
            self.counters.serve(s.metrics_port, self.unready)
        self.counters.set("process_restarts", s.restarts)

    def _loops(self) -> list[asyncio.AbstractEventLoop]:
        consumer = getattr(self.app, "_consumer", None)
        thread = getattr(consumer, "_thread", None)
        return [x for x in (self.app.loop, getattr(thread, "thread_loop", None)) if x is not None]

    async def _commit(self, offsets: dict[TopicPartition, int]) -> bool:
        """Commit positions of a stage without transactions, for the partitions still held."""
        held = self.app.consumer.assignment()
        return await self.app.consumer._thread.commit({TP(*tp): o for tp, o in offsets.items() if TP(*tp) in held})

    async def _on_ready(self, partitions: set[int]) -> None:
        log.info("owns partitions %s", sorted(partitions))
        if not partitions and (gone := self._missing_topics()):
            log.critical("leaving: topics gone: %s; what a topic made anew has is not taken for what was there", gone)
            process.leave(int(ExitCode.TOPICS))
        if self.built is not None:
            self.built.announce(partitions)
        self.ready.set()
        print(f"READY {self.role} {','.join(map(str, sorted(partitions)))}", flush=True)

    async def _beats(self) -> None:
        loop, turn = asyncio.get_running_loop(), 0
        # whoever waits for an answer would wait for the heap's lock, too: milliseconds
        trim = None if self.settings.goes_first(self.role) else getattr(ctypes.CDLL(None), "malloc_trim", None)
        while True:
            self.watchdog.beat()
            turned()
            await asyncio.sleep(BEAT_S)
            turn += 1
            reader = self._reader()
            if reader is not None and (error := reader_error(reader)) is not None:  # nobody else is told
                process.failed("reader", error, ExitCode.STAGE)
            for name, age in process.ages(time.monotonic()).items():
                self.counters.set("turn_age_seconds", age, task=name)
            if self.role == "gate" and turn % TRIM_BEATS == 0:
                gc.freeze()  # working orders live long: a full collection would scan them all while an answer waits
            if trim is not None and turn % TRIM_BEATS == 0:  # give back what bursts of slices left
                await loop.run_in_executor(None, trim, 0)

    def _reader(self) -> Any:
        """Return the aiokafka consumer of the sources, once there is one."""
        thread = getattr(getattr(self.app, "_consumer", None), "_thread", None)
        return getattr(thread, "_consumer", None)

    def _missing_topics(self) -> list[str]:
        """Return the source topics that the consumer's metadata does not have."""
        known = self.app.consumer._thread._consumer._client.cluster.topics()
        return sorted({self.topics[name] for name in self.parts.sources} - known)

    async def _check_topics(self) -> None:
        """Leave when a topic is gone or has other partitions: keys would belong to other owners."""
        while True:
            await asyncio.sleep(TOPICS_CHECK_S)
            try:
                wrong = await check_topics(self.client, self.settings.prefix, self.settings.partitions)
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("topics cannot be checked now: %r", error)
                continue
            if wrong:
                log.critical("leaving: %s; a partition count is changed by `deskrisk repartition`", "; ".join(wrong))
                process.leave(int(ExitCode.TOPICS))

    async def stop(self) -> None:
        """Flush and disconnect."""
        for task in (self._beat, self._topics_check, self._report):
            if task is not None:
                task.cancel()
        if self.built is not None:
            for close in self.built.doors:
                await close()
            if not self.built.stage.stops_before_consumer:
                await self.built.stage.stop()
            await self.reference.stop()
            await self.publisher.stop()
            self.built.close()
        self.watchdog.stopping()


def steady_clock() -> Callable[[], int]:
    """Return a clock that starts at the wall's time and then only goes on.

    A wall clock that jumps makes no price stale, closes no gate and moves no window; labels follow it at a restart.
    """
    begin, since = time.time_ns(), time.monotonic_ns()
    return lambda: begin + time.monotonic_ns() - since


def run_worker(settings: Settings, role: Role) -> None:
    """Run one role in this process until it is told to stop."""
    engine = Engine(settings, role)
    worker = EngineWorker(engine.app, loglevel="ERROR", redirect_stdouts=False, quiet=True, override_logging=False)
    worker.spinner = None  # it writes to standard output, where the supervisor reads
    worker.execute_from_commandline()
