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

from agents.gate import GateStage
from agents.kept_decisions import send_missing
from agents.marks import MarkStage
from agents.positions import PositionStage
from agents.quarantine import Quarantine
from agents.reference_tail import ReferenceTail
from agents.risk import RiskStage
from app.collector import settle_collector
from app.gate_addresses import GateAddresses
from app.gate_http import GateHttp
from app.gate_socket import GateSocket
from app.gateway.access import parse_tokens
from app.history import load_history
from app.metrics import PrometheusCounters
from app.publisher import BatchingPublisher
from app.settings import Role, Settings
from app.warm import warm_kernels
from models.reference import Reference
from models.risk.factor_history import History
from schemas.topics import TOPICS, topic_name
from tables import store, transport
from tables.column_table import ColumnTable, declare
from tables.exit_codes import ExitCode
from tables.journal import Journal
from tables.kafka import check_topics, create_topics, owner_partition
from tables.lease import Lease
from tables.manager import EngineTableManager
from tables.standby import Standby
from tables.tasks import process, turned
from tables.watchdog import Watchdog, waiting_tasks

log = logging.getLogger(__name__)
#: how often a running worker looks whether the topics still have their partitions
TOPICS_CHECK_S = 15.0
TRIM_BEATS = 10
#: a decision waits for no other: the order path trades requests for time; nodes and alerts come in one go anyhow
LINGER_S: dict[Role, float] = {"gate": 0.001, "risk": 0.002, "positions": 0.01, "marks": 0.006}
SOURCES: dict[Role, tuple[str, ...]] = {
    "positions": ("trades", "positions.external"), "marks": ("ticks",), "risk": ("positions",),
    "gate": ("orders",)}
#: (table, changelog topic) of the roles that have one
TABLES: dict[Role, tuple[str, str, str]] = {
    "positions": ("positions", "positions-changelog", "Positions by account and instrument."),
    "marks": ("marks", "marks", "Last good prices by instrument; the changelog is the `marks` topic itself.")}


#: from one request of a role to the next: a gate answers order by order; windows and nodes are published by the clock
PACE_S = {"gate": 0.002, "positions": 0.025, "risk": 0.025, "marks": 0.03}


class EngineApp(faust.App):  # type: ignore[misc]
    """A Faust app that brings its stage up before the consumer joins the group."""

    engine: Engine

    async def on_start(self) -> None:
        """Start what the stage needs, then Faust."""
        await self.engine.start()
        await super().on_start()

    async def on_stop(self) -> None:
        """Let the stage commit what only the consumer can commit, then stop the consumer."""
        self.engine.watchdog.stopping()
        if isinstance(self.engine.stage, MarkStage):
            await self.engine.stage.stop()
        if isinstance(self.engine.stage, GateStage):
            await self.engine.stage.pause()
        await super().on_stop()

    async def _on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Let what is in work end, as Faust does, and have a gate's decisions on the log before others may own them."""
        await super()._on_partitions_revoked(revoked)
        if isinstance(self.engine.stage, GateStage):
            await self.engine.stage.pause()

    async def on_shutdown(self) -> None:
        """Flush and disconnect after Faust has stopped its consumer."""
        await super().on_shutdown()
        await self.engine.stop()


class Engine:
    """Builds the app of a role and owns its parts."""

    def __init__(self, settings: Settings, role: Role) -> None:
        self.settings, self.role = settings, role
        self.client = settings.client()
        self.topics = settings.topics()
        self.counters = process.counters = PrometheusCounters()
        process.role = role
        #: decisions are written outside of transactions: nobody else fences a gate that was stopped for a while
        self.lease = Lease(settings.session_timeout_s) if role == "gate" else None
        self.watchdog = Watchdog(role, describe=lambda: waiting_tasks(self._loops()))
        self.app = self._app()
        self.stage: Any = None
        self.history: History | None = None
        self.journal: Journal | None = None
        self.gate_socket: GateSocket | None = None
        self.gate_http: GateHttp | None = None
        self.gate_addresses: GateAddresses | None = None
        self.ready = asyncio.Event()
        self._beat: asyncio.Task[None] | None = None
        self._topics_check: asyncio.Task[None] | None = None

    def _app(self) -> EngineApp:
        transport.register()
        transport.BatchConsumerThread.pace_s = PACE_S[self.role]
        transport.BatchConsumerThread.lease = self.lease
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
        sources = [self.topics[name] for name in SOURCES[self.role]]
        schema = transport.BatchSchema(key_type=bytes, value_type=bytes)
        topic = app.topic(*sources, schema=schema, partitions=s.partitions)
        topic.maxsize = s.partitions  # the argument of app.topic() is dropped by Faust; this bounds memory
        self.table: ColumnTable | None = None
        if self.role in TABLES:
            name, changelog, text = TABLES[self.role]
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
                await self.stage.process(event.value, event.ack)
                event.value.release()
            except Exception as error:  # noqa: BLE001 - Faust would go on with the next slice: a silent loss
                process.failed(f"stage {self.role}", error, ExitCode.STAGE)

    async def start(self) -> None:
        """Compile or load the kernels, connect, read the reference data, build the stage: all before joining."""
        s = self.settings
        warm_kernels()
        settle_collector()
        await create_topics(self.client, s.prefix, s.partitions, s.horizon_ms, s.replication)
        counts = {topic_name(s.prefix, t): s.partitions if t.partitions == "data" else 1 for t in TOPICS}
        self.publisher = BatchingPublisher(self.client, counts, LINGER_S[self.role], self.lease)
        await self.publisher.start()
        reference = Reference(lambda account: owner_partition(account, s.partitions))
        self.reference = ReferenceTail(self.client, self.topics["reference.instruments"],
                                       self.topics["reference.accounts"], reference, self.counters,
                                       Quarantine(self.topics["quarantine"], self.publisher, self.counters).send)
        await self.reference.start()
        if self.role == "risk" and s.history:
            self.history = await asyncio.get_running_loop().run_in_executor(
                None, load_history, s.history, s.scenario_volatility == "current", s.var_horizon_days)
            log.info("history: %d days of %d factors", len(self.history.moves), len(self.history.factors))
        await self._open_journal()
        self.stage = self._stage()
        if isinstance(self.stage, GateStage):
            await self._open_doors(self.stage)
        tables: EngineTableManager = self.app.tables
        tables.stage = self.stage
        tables.source_topic = self.topics[SOURCES[self.role][0]]
        tables.on_ready = self._on_ready
        if self.table is not None and isinstance(self.stage, PositionStage):
            self.table.lookup = self.stage.lookup
        self.watchdog.bound("in rebalance or restore", 60.0, lambda: tables.rebalancing_since)
        if isinstance(self.stage, PositionStage):
            self.watchdog.bound("folded but not committed", 60.0, self.stage.oldest_unflushed)
        self.watchdog.start()
        self._beat = process.start("beats", self._beats, bound_s=30.0)
        self._topics_check = process.start("topics check", self._check_topics)
        if s.metrics_port is not None:
            self.counters.serve(s.metrics_port)

    async def _open_doors(self, stage: GateStage) -> None:
        """Answer orders on a socket and over HTTP, as settings say."""
        s = self.settings
        if s.gate_socket is None and s.gate_http_port is None:
            return
        self.gate_addresses = GateAddresses(self.client, self.topics["gates"], self.publisher)
        await self.gate_addresses.start()
        if s.gate_socket is not None:
            self.gate_socket = GateSocket(stage, self.gate_addresses, s.gate_socket, s.partitions)
            await self.gate_socket.start()
        if s.gate_http_port is not None:
            tokens = parse_tokens(s.api_tokens.get_secret_value() if s.api_tokens else None)
            self.gate_http = GateHttp(stage, self.gate_addresses, s.partitions, s.gate_http_host, s.gate_http_port,
                                      tokens)
            await self.gate_http.start()

    async def _open_journal(self) -> None:
        """Open the journal of a gate; have on the log what was kept by those before it and is not there."""
        s = self.settings
        if self.role != "gate":
            return
        self.journal = Journal(s.journal_dir())
        missing = await send_missing(self.client, self.publisher, self.topics["decisions"], s.partitions,
                                     self.journal.take_left())
        self.journal.forget_left()
        if missing:
            log.warning("%d decisions were answered and not on the log when a gate before ended: they are now", missing)

    def _stage(self) -> PositionStage | MarkStage | RiskStage | GateStage:
        s, clock = self.settings, steady_clock()
        if self.role == "positions":
            return PositionStage(self.client, s.group(self.role), self.topics, s.partitions, s.data_dir,
                                 self.reference, self.publisher, clock, self.counters,
                                 s.trade_ids_per_partition, s.lateness_ms * 1_000_000, self._standby())
        if self.role == "marks":
            return MarkStage(self.client, self.topics, self.reference, self.publisher, clock, self.counters,
                             s.quote_lateness_ms * 1_000_000, self._commit)
        if self.lease is not None:
            return GateStage(self.client, self.topics, self.reference, self.publisher, clock, self.counters,
                             s.base_currency, s.levels, s.partitions, self.lease, s.trading_day(), self.journal,
                             s.gate_write_down_s)
        return RiskStage(self.client, self.topics, self.reference, self.publisher, clock, self.counters,
                         s.base_currency, s.levels, s.partitions, self.history, s.participation,
                         s.trading_day())

    def _loops(self) -> list[asyncio.AbstractEventLoop]:
        consumer = getattr(self.app, "_consumer", None)
        thread = getattr(consumer, "_thread", None)
        return [x for x in (self.app.loop, getattr(thread, "thread_loop", None)) if x is not None]

    def _standby(self) -> Standby | None:
        s = self.settings
        return Standby(self.client, self.topics["positions-changelog"], s.data_dir) if s.standby else None

    async def _commit(self, offsets: dict[TopicPartition, int]) -> bool:
        """Commit positions of a stage without transactions, for the partitions still held."""
        held = self.app.consumer.assignment()
        return await self.app.consumer._thread.commit({TP(*tp): o for tp, o in offsets.items() if TP(*tp) in held})

    async def _on_ready(self, partitions: set[int]) -> None:
        log.info("owns partitions %s", sorted(partitions))
        if not partitions and (gone := self._missing_topics()):
            log.critical("leaving: topics gone: %s; what a topic made anew has is not taken for what was there", gone)
            process.leave(int(ExitCode.TOPICS))
        if self.gate_addresses is not None:
            self.gate_addresses.announce(partitions, self.gate_http.address if self.gate_http else None,
                                         self.settings.gate_socket, time.time_ns())
        self.ready.set()
        print(f"READY {self.role} {','.join(map(str, sorted(partitions)))}", flush=True)

    async def _beats(self) -> None:
        loop, turn = asyncio.get_running_loop(), 0
        # whoever waits for an answer would wait for the heap's lock, too: milliseconds
        trim = None if self.settings.goes_first(self.role) else getattr(ctypes.CDLL(None), "malloc_trim", None)
        while True:
            self.watchdog.beat()
            turned()
            await asyncio.sleep(0.5)
            turn += 1
            if self.role == "gate" and turn % TRIM_BEATS == 0:
                gc.freeze()  # working orders live long: a full collection would scan them all while an answer waits
            if trim is not None and turn % TRIM_BEATS == 0:  # give back what bursts of slices left
                await loop.run_in_executor(None, trim, 0)

    def _missing_topics(self) -> list[str]:
        """Return the source topics that the consumer's metadata does not have."""
        known = self.app.consumer._thread._consumer._client.cluster.topics()
        return sorted({self.topics[name] for name in SOURCES[self.role]} - known)

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
        for task in (self._beat, self._topics_check):
            if task is not None:
                task.cancel()
        if self.gate_socket is not None:
            await self.gate_socket.stop()
        if self.gate_http is not None:
            await self.gate_http.stop()
        if self.gate_addresses is not None:
            await self.gate_addresses.stop()
        if self.stage is not None:
            if not isinstance(self.stage, MarkStage):
                await self.stage.stop()
            await self.reference.stop()
            await self.publisher.stop()
        if self.journal is not None:
            self.journal.close()
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
    worker = faust.Worker(engine.app, loglevel="ERROR", redirect_stdouts=False, quiet=True, override_logging=False)
    worker.spinner = None  # it writes to standard output, where the supervisor reads
    worker.execute_from_commandline()
