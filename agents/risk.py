"""The risk stage: position rows and marks in, every node's aggregates out, on one snapshot."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from aiokafka.structs import TopicPartition

from agents.breakers import Breakers
from agents.ports import Clock, Counters, Publisher
from agents.reference_tail import ReferenceTail
from models import rollup as ru
from models.limits import LimitMonitor
from models.reference import FIRM
from models.risk.factor_history import History
from models.risk.limit_values import limit_values, partial_nodes
from models.risk.live import RiskModels
from models.staleness import Feeds
from models.trading_day import TradingDay
from models.valued_book import INSTRUMENT_GROUPINGS, ValuedBook
from schemas.codec import decoder_of, encode
from schemas.market import Surface, Touch
from schemas.records import (
    MODELS_SUFFIX,
    Account,
    Alert,
    AsOf,
    Control,
    Exposure,
    Instrument,
    Limit,
    Mark,
    Pnl,
    Position,
    Quality,
    Risk,
)
from tables.kafka import KafkaClient
from tables.records import RecordBatch
from tables.restore import read_range
from tables.tail import Tail

log = logging.getLogger(__name__)
#: what a trade touched goes out at most this often per node; what ticks moved goes out at 10 Hz
TRADE_PERIOD_S = 0.05
TICK_PERIODS = 2
RECOUNT_S = 30.0
#: all eight models run this often, or as often as a tenth of the process allows
MODELS_PERIOD_S, MODELS_AGE_MAX_S = 1.0, 5.0
EXCLUDED_NAMED = 10
_position = decoder_of(Position)
_mark = decoder_of(Mark)
_surface, _risk = decoder_of(Surface), decoder_of(Risk)
_limit, _control, _alert, _touch = decoder_of(Limit), decoder_of(Control), decoder_of(Alert), decoder_of(Touch)
#: levels that lie within one fund: one worker sees all of such a node
OWNED_LEVELS = ("book", "desk", "strategy", "fund", "account")


class RiskStage:
    """Owns some partitions of `positions` (sharded by fund) and values them on the latest marks."""

    def __init__(self, client: KafkaClient, topics: dict[str, str], reference: ReferenceTail, publisher: Publisher,
                 clock: Clock, counters: Counters, base_currency: str, levels: tuple[str, ...],
                 partitions: int, history: History | None = None, participation: float = 0.20,
                 day: TradingDay | None = None) -> None:
        self._client, self._topics, self._reference = client, topics, reference
        self._publisher, self._clock, self._counters = publisher, clock, counters
        self._partitions = partitions
        self.book = ValuedBook(base_currency, levels, day)
        self.models = RiskModels(self.book, self.book.contracts, history, INSTRUMENT_GROUPINGS, participation, day)
        self._surfaces = Tail(client, [topics["market.surfaces"]], self._on_surfaces, wait_ms=500)
        self.monitor = LimitMonitor()
        self.feeds = Feeds()
        self.breakers = Breakers(topics, publisher, counters)
        self._rules = Tail(client, [topics[t] for t in ("limits", "controls", "touches")], self._on_rules, wait_ms=100)
        self._acks = Tail(client, [topics["alerts"]], self._on_acks, from_end=True, wait_ms=500)
        self._marks = Tail(client, [topics["marks"]], self._on_marks, isolation_level="read_uncommitted",
                           pause_s=TRADE_PERIOD_S / 2)
        self._next: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._owned: set[int] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._ts_source = 0
        self._tick_nodes: set[int] = set()
        self._firm_shards: dict[str, Risk] = {}
        reference.on_change = self._on_reference
        for record in (*reference.reference.instrument_records.values(),
                       *reference.reference.account_records.values()):
            self._on_reference(record)

    def _on_reference(self, record: Account | Instrument) -> None:
        if isinstance(record, Instrument):
            self.book.add_instrument(record)
        else:
            self.book.add_account(record)

    def _on_marks(self, batch: RecordBatch) -> None:
        now, heard = self._clock(), Counter[str]()
        records = self._reference.reference.instrument_records
        for value in batch.values:
            if value is not None:
                mark = _mark.decode(value)
                self.book.add_mark(mark)
                record = records.get(mark.instrument)
                if record is not None and mark.quality != "stale":
                    heard[record.asset_class] += 1
        for asset_class, count in heard.items():
            self.feeds.heard(f"prices {asset_class}", now, count)

    def watch_feeds(self) -> None:
        """Say it when prices of a class of instruments fall silent, by their own rhythm, and when they are back."""
        now = self._clock()
        for name, silent, seconds in self.feeds.changes(now):
            alert = Alert(alert_id=f"{name}.{now}", kind="stale" if silent else "clear", node=FIRM, metric=name,
                          value=seconds, limit=self.feeds.feeds[name].bound_ns / 1e9, utilisation=None, cause_ts=now,
                          raised_ts=now, snapshot_id=self.book.snapshot_id, limit_id=f"feed.{name}")
            self._publisher.send(self._topics["alerts"], b"firm", encode(alert))
            log.log(logging.WARNING if silent else logging.INFO, "%s: %s after %.1f s", name,
                    "silent" if silent else "back", seconds)

    def _on_surfaces(self, batch: RecordBatch) -> None:
        for key, value in zip(batch.keys, batch.values, strict=True):
            if value is None:
                continue
            try:
                self.book.add_surface(_surface.decode(value))
            except (msgspec.DecodeError, ValueError) as error:
                self._counters.add("surfaces_refused")
                log.error("market.surfaces %r refused: %s", key, error)

    def _on_rules(self, batch: RecordBatch) -> None:
        for key, value in zip(batch.keys, batch.values, strict=True):
            try:
                if batch.topic == self._topics["controls"]:
                    if value is not None:
                        self.breakers.take(_control.decode(value))
                elif batch.topic == self._topics["touches"]:
                    if value is not None:
                        self.book.add_touch(_touch.decode(value))
                elif value is None:
                    self.monitor.remove((key or b"").decode())
                else:
                    self.monitor.add(_limit.decode(value))
            except (msgspec.DecodeError, ValueError) as error:
                self._counters.add("limits_refused")
                log.error("%s: record %r refused: %s", batch.topic, key, error)

    def _on_acks(self, batch: RecordBatch) -> None:
        for value in batch.values:
            if value is not None and b'"ack_by":"' in value:
                self.monitor.acknowledge(_alert.decode(value).alert_id)

    def watch_limits(self) -> None:
        """Hold every limited node that this worker owns whole against its limits; raise alerts, trip breakers."""
        whole = len(self._owned) == self._partitions
        nodes = {w.limit.node for w in self.monitor.watches.values()
                 if whole or w.limit.node.partition(":")[0] in OWNED_LEVELS}
        now = self._clock()
        self.breakers.raise_all(
            self.monitor.measure(limit_values(self.models, nodes), now, self.book.snapshot_id,
                                 partial_nodes(self.models, nodes)), now)

    def publish_touches(self) -> None:
        """Keep the barriers that marks have just touched: a restart, and every other process, knows them then."""
        now = self._clock()
        for name, spot in self.book.contracts.take_touched():
            level = self.book.reference.instrument_records[name].barrier
            touch = Touch(instrument=name, touched=True, ts_event=now, by="deskrisk", price=spot,
                          reason=f"marked at {spot:g}, barrier {level}")
            self._publisher.send(self._topics["touches"], name.encode(), encode(touch), 0)
            alert = Alert(alert_id=f"barrier.{name}.{now}", kind="barrier", node=FIRM, metric=f"barrier {name}",
                          value=spot, limit=float(level or 0), utilisation=None, cause_ts=now, raised_ts=now,
                          snapshot_id=self.book.snapshot_id)
            self._publisher.send(self._topics["alerts"], b"firm", encode(alert))

    async def take(self, partitions: set[int]) -> None:
        """Own these partitions: their rows are read from the beginning of the compacted topic."""
        topic = self._topics["positions"]
        tps = [TopicPartition(topic, p) for p in partitions]
        if tps:  # a rebalance may bring nothing new; a consumer without partitions would wait for ever
            self._ends.update(await self._ends_of(tps))
        self._next.update(dict.fromkeys(tps, 0))
        self._owned |= partitions
        if not self._tasks:
            for tail in (self._surfaces, self._rules, self._marks):
                await tail.start()
                await tail.read_to_end()
            await self._acks.start()
            await self._resume_models()
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._marks.run()), loop.create_task(self._surfaces.run()),
                           loop.create_task(self._rules.run()), loop.create_task(self._acks.run()),
                           loop.create_task(self._publish_loop())]

    async def _ends_of(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        probe = self._client.consumer()
        await probe.start()
        try:
            probe.assign(tps)
            return dict(await probe.end_offsets(tps))
        finally:
            await probe.stop()

    async def _resume_models(self) -> None:
        """Read the models of the worker before: peaks and the prior day go on."""
        newest: dict[str, Risk] = {}

        def on_batch(batch: RecordBatch) -> None:
            for key, value in zip(batch.keys, batch.values, strict=True):
                name = (key or b"").decode()
                if value is not None and name.endswith(MODELS_SUFFIX):
                    newest[name.removesuffix(MODELS_SUFFIX)] = _risk.decode(value)

        topic = self._topics["risk"]
        await read_range(self._client, {TopicPartition(topic, p): 0 for p in range(self._partitions)}, on_batch)
        for name, risk in newest.items():
            self.models.resume(name, risk.ts, risk.models or {}, risk.prior_day)

    async def release(self, partitions: set[int]) -> None:
        """Let go: another worker values these shards now."""
        topic = self._topics["positions"]
        for p in partitions:
            self.book.remove_shard(p)
            self._next.pop(TopicPartition(topic, p), None)
            self._ends.pop(TopicPartition(topic, p), None)
        self._owned -= partitions

    def stored_offset(self, topic: str, partition: int) -> int | None:
        """Return where reading goes on: the beginning for a shard just taken."""
        return self._next.get(TopicPartition(topic, partition))

    def restored_position(self, topic: str, partition: int) -> int | None:
        """The stage has no changelog of its own: its state is the `positions` topic."""
        return None

    @property
    def ready(self) -> bool:
        """Whether every owned shard has been read to where it ended when it was taken."""
        return all(self._next.get(tp, 0) >= end for tp, end in self._ends.items())

    async def process(self, batch: RecordBatch, ack: Callable[[], None]) -> None:
        """Take one slice of `positions` in."""
        tp = TopicPartition(batch.topic, batch.partition)
        if tp in self._next:
            for i, value in enumerate(batch.values):
                if value is None:
                    continue  # withdrawn: the shard that owns the account now publishes it
                try:
                    self.book.add_position(_position.decode(value), batch.partition)
                except msgspec.DecodeError as error:
                    self._counters.add("positions_refused")
                    log.error("positions %s@%s refused: %s", batch.partition, int(batch.offsets[i]), error)
            self._next[tp] = batch.next_offset
            if len(batch):
                self._ts_source = max(self._ts_source, int(batch.timestamps_ms[-1]))
        ack()

    async def _publish_loop(self) -> None:
        loop = asyncio.get_running_loop()
        turn = 0
        due = loop.time()
        recount_due, models_due = loop.time() + RECOUNT_S, loop.time()
        while True:
            due = max(due + TRADE_PERIOD_S, loop.time())
            await asyncio.sleep(due - loop.time())
            turn += 1
            self.models.update_rows(self.book.value_pending())
            self._publish(self.book.rollup.take_touched())
            if turn % TICK_PERIODS == 0:
                self._counters.add("rows_revalued", self.book.revalue(self._clock()))
                self.publish_touches()
                self._publish(self.book.rollup.take_touched())
            if self.ready:
                self.watch_limits()
                self.watch_feeds()
            if loop.time() >= models_due and self.ready and self.book.snapshot_id:
                begun = loop.time()
                self.publish_models()
                # all models together take at most a tenth of this process
                models_due = loop.time() + min(max(MODELS_PERIOD_S, 10 * (loop.time() - begun)), MODELS_AGE_MAX_S)
            if loop.time() >= recount_due:
                recount_due = loop.time() + RECOUNT_S
                self.check_drift()

    def check_drift(self) -> float:
        """Recount every node from its rows; more than 1e-9 of drift is an alarm."""
        drift = self.book.rollup.recount()
        self._counters.set("recount_drift", drift)
        if drift > ru.DRIFT_RELATIVE_MAX:
            now = self._clock()
            log.error("recount: drift %.3g is above %.1g", drift, ru.DRIFT_RELATIVE_MAX)
            alert = Alert(alert_id=f"drift-{self.book.snapshot_id}", kind="drift", node="firm", metric="drift",
                          value=drift, limit=ru.DRIFT_RELATIVE_MAX, utilisation=None, cause_ts=now, raised_ts=now,
                          snapshot_id=self.book.snapshot_id)
            self._publisher.send(self._topics["alerts"], b"firm", encode(alert))
        return drift

    def _publish(self, nodes: np.ndarray) -> None:
        if not len(nodes) or not self.ready:
            return
        whole = len(self._owned) == self._partitions
        as_of = [AsOf(p, o) for p, o in sorted(self.book.as_of.items())]
        now = self._clock()
        shard = "" if whole else ",".join(map(str, sorted(self._owned)))
        for node in nodes.tolist():
            name = self.book.rollup.node_names[node]
            partial = shard if name.partition(":")[0] not in ("book", "desk", "strategy", "fund", "account") else ""
            record = self.record(node, as_of, now, partial)
            key = name if not partial else f"{name}@{partial}"
            self._publisher.send(self._topics["risk"], key.encode(), encode(record))

    def publish_models(self) -> None:
        """Measure every node with all models on the present snapshot, and publish them beside the nodes."""
        run = self.models.run(self._clock())
        as_of = [AsOf(p, o) for p, o in sorted(self.book.as_of.items())]
        self._counters.set("models_seconds", (self._clock() - run.as_of_ns) / 1e9)
        whole = len(self._owned) == self._partitions
        for name, models in run.models.items():
            if name == FIRM and not whole:
                continue  # VaR does not add up: no worker that sees a part may state the firm's
            record = msgspec.structs.replace(
                self.record(self.book.rollup.node_index[name], as_of, run.as_of_ns), models=models, top=run.top[name],
                prior_day=self.models.prior.get(name))
            self._publisher.send(self._topics["risk"], f"{name}{MODELS_SUFFIX}".encode(), encode(record))

    def record(self, node: int, as_of: list[AsOf], now: int, shard: str = "") -> Risk:
        """Return a node as a record; a figure that cannot be computed is None."""
        book = self.book
        name = book.rollup.node_names[node]
        sums = book.figures(node)
        f = sums.tolist()
        finite: Any = [None if x != x else x for x in f]
        excluded: list[str] = []
        if f[ru.UNPRICED]:
            rows = book.rollup.unpriced_rows(node, EXCLUDED_NAMED).tolist()
            excluded = [f"{book.positions[r].account}|{book.positions[r].instrument}" for r in rows]
        known = not round(f[ru.DAY_UNKNOWN])
        total = float(ru.total_pnl(sums))
        return Risk(
            node=name, snapshot_id=book.snapshot_id, ts=now, as_of=as_of,
            quality=Quality(round(f[ru.UNPRICED]), round(f[ru.STALE]), excluded),
            base_currency=book.currency_of(node),
            pnl=Pnl(realised=finite[ru.REALISED], unrealised=finite[ru.UNREALISED],
                    day=finite[ru.DAY] if known else None, price=finite[ru.PRICE] if known else None,
                    fx=finite[ru.FX] if known else None, fees=finite[ru.FEES],
                    carry=finite[ru.CARRY] if known and not round(f[ru.CARRY_UNKNOWN]) else None,
                    funding=finite[ru.FUNDING],
                    interest=finite[ru.INTEREST] if not round(f[ru.CARRY_UNKNOWN]) else None,
                    total=total if total == total else None),  # type: ignore[arg-type]
            exposure=Exposure(gross=finite[ru.GROSS], net=finite[ru.NET], long=finite[ru.LONG],
                              short=finite[ru.SHORT], positions=round(f[ru.POSITIONS])),
            quantity=finite[ru.QUANTITY] if name.startswith("pair:") else None, shard=shard,
            ts_source=self._ts_source, greeks={g: finite[ru.DELTA + k] for k, g in enumerate(ru.GREEKS)} | {
                "missing": f[ru.NO_GREEKS]}, models=self.models.quick(node))

    async def stop(self) -> None:
        """Stop publishing."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._marks.stop()
        for tail in (self._surfaces, self._rules, self._acks):
            await tail.stop()
