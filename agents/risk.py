"""The risk stage: position rows and marks in, every node's aggregates out, on one snapshot."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
from aiokafka.structs import TopicPartition

from agents.limit_alerts import newest_alerts
from agents.market_inputs import MarketInputs
from agents.ports import Clock, Counters, Publisher, until
from agents.quarantine import Quarantine
from agents.reference_tail import ReferenceTail
from agents.risk_watch import RiskWatch
from agents.router import Place, Router
from agents.stage import Stage
from models import rollup as ru
from models.node_owners import LEAD_PARTITION, NodeOwners
from models.position_progress import PositionsInStep
from models.reference import FIRM
from models.risk.factor_history import History
from models.risk.live import RiskModels
from models.risk.unit_var import unit_var
from models.staleness import Feeds
from models.trading_day import TradingDay
from models.valued_book import INSTRUMENT_GROUPINGS, ValuedBook
from schemas.addresses import PositionProgress, UnitVars
from schemas.codec import decoder_of, encode
from schemas.market import Touch
from schemas.nodes import MODELS_SUFFIX, Exposure, Pnl, Quality, Risk
from schemas.reasons import QuarantineReason
from schemas.records import Account, Alert, AsOf, Control, Instrument, Limit, Mark
from schemas.units import FUTURE_NS
from tables.kafka import KafkaClient, owner_partition
from tables.records import RecordBatch
from tables.restore import ends_of, read_range
from tables.tail import Tail
from tables.tasks import process, turned

log = logging.getLogger(__name__)
#: what a trade touched goes out at most this often per node; what ticks moved goes out at 10 Hz
TRADE_PERIOD_S = 0.05
TICK_PERIODS = 2
RECOUNT_S = 30.0
#: all eight models run this often, or as often as a tenth of the process allows
MODELS_PERIOD_S, MODELS_AGE_MAX_S = 1.0, 5.0
#: what orders are held against changes with prices: gates have it this often, so many instruments a record
UNIT_VARS_PERIOD_S, UNIT_VARS_AT_ONCE, GATE_VAR_LEVEL = 5.0, 500, 0.99
EXCLUDED_NAMED = 10
#: positions that are behind their trades by no more are heard of
POSITIONS_BEHIND_NS = 5_000_000_000
_risk = decoder_of(Risk)


class RiskStage(Stage):
    """Owns some partitions of `positions` (sharded by fund) and values them on the latest marks.

    Who owns the lead partition reads all others too: nodes that span funds are its to state, on one snapshot.
    """

    def __init__(self, client: KafkaClient, topics: dict[str, str], reference: ReferenceTail, publisher: Publisher,
                 clock: Clock, counters: Counters, base_currency: str, levels: tuple[str, ...],
                 partitions: int, history: History | None = None, participation: float = 0.20,
                 day: TradingDay | None = None, future_ns: int = FUTURE_NS,
                 surface_age_ns: int | None = None) -> None:
        self._client, self._topics, self._reference = client, topics, reference
        self._publisher, self._clock, self._counters = publisher, clock, counters
        self._partitions = partitions
        self.book = ValuedBook(base_currency, levels, day, surface_age_ns)
        self.models = RiskModels(self.book, self.book.contracts, history, INSTRUMENT_GROUPINGS, participation, day)
        self.limits = RiskWatch(topics, publisher, counters, reference.reference, levels)
        self._inputs = MarketInputs(self.book)
        self._router = self._routes(future_ns)
        #: marks of the slice at hand, by asset class
        self._heard: Counter[str] = Counter()
        self._surfaces = Tail(client, [topics["market.surfaces"]], self._router, wait_ms=500)
        self.feeds, self._in_step = Feeds(), PositionsInStep(partitions)
        rules = ("limits", "controls", "touches", "progress", "alerts")
        self._rules = Tail(client, [topics[t] for t in rules], self._on_rules, wait_ms=100)
        self._marks = Tail(client, [topics["marks"]], self._on_marks, isolation_level="read_uncommitted",
                           pace_s=TRADE_PERIOD_S / 2)
        self._next: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._owned: set[int] = set()
        self._owners = NodeOwners(self.book.reference, levels, lambda fund: owner_partition(fund, partitions))
        self._others: Tail | None = None
        self._others_task: asyncio.Task[None] | None = None
        self._spoke_for_all = False
        self._tasks: list[asyncio.Task[None]] = []
        self._ts_source = 0
        self._turns = 0
        reference.on_change = self._on_reference
        for instrument in reference.reference.instrument_records.values():
            self._on_reference(instrument)
        for account in reference.reference.account_records.values():
            self._on_reference(account)

    def _on_reference(self, record: Account | Instrument) -> None:
        if isinstance(record, Instrument):
            known = self.book.reference.instrument_records
            before = known.get(record.instrument)
            self.book.add_instrument(record)
            if before is not None and before.asset_class != record.asset_class \
                    and not any(r.asset_class == before.asset_class for r in known.values()):
                self.feeds.forget(f"prices {before.asset_class}")
        else:
            self.book.add_account(record)
            self._owners.accounts_changed()

    def _routes(self, future_ns: int) -> Router:
        quarantine = Quarantine(self._topics, self._publisher, self._counters)

        def put_aside(batch: RecordBatch, k: int, reason: QuarantineReason, detail: str, raw: bytes) -> None:
            quarantine.send(batch, k, reason, detail, raw)
            key = batch.keys[k] if batch.keys else None
            at = names[batch.topic], (key or b"").decode(errors="replace")
            self.limits.refused(*at, reason, detail)
            self._inputs.displaced.refused(*at, detail)

        names = {v: k for k, v in self._topics.items()}
        router = Router(names, self._counters, "risk_refused", put_aside, future_ns)
        router.subscribe("marks", Mark, self._take_mark)
        self._inputs.subscribe(router)
        router.subscribe("limits", Limit, *self.limits.judged(lambda record, _: self.limits.monitor.add(record),
                                                              lambda place: self.limits.monitor.remove(place.key)))
        router.subscribe("controls", Control, lambda record, place: self.limits.take_control(record, place.key),
                         self.limits.drop_control)
        router.subscribe("progress", PositionProgress, lambda record, _: self._in_step.heard(record, self._clock()))
        return router

    def _take_mark(self, mark: Mark, _: Place) -> None:
        self.book.add_mark(mark)
        record = self._reference.reference.instrument_records.get(mark.instrument)
        if record is not None and mark.quality != "stale":
            self._heard[record.asset_class] += 1

    def _on_marks(self, batch: RecordBatch) -> None:
        self._router(batch)
        now = self._clock()
        for asset_class, count in self._heard.items():
            self.feeds.heard(f"prices {asset_class}", now, count)
        self._heard.clear()

    def watch_feeds(self) -> None:
        """Say it when prices of a class of instruments, or positions, fall silent, and when they are back."""
        now = self._clock()
        for name, silent, seconds in self.feeds.changes(now):
            alert = Alert(alert_id=f"{name}.{now}", kind="stale" if silent else "clear", node=FIRM, metric=name,
                          value=seconds, limit=self.feeds.feeds[name].bound_ns / 1e9, utilisation=None, cause_ts=now,
                          raised_ts=now, snapshot_id=self.book.snapshot_id, limit_id=f"feed.{name}")
            self._publisher.send(self._topics["alerts"], b"firm", encode(alert))
            log.log(logging.WARNING if silent else logging.INFO, "%s: %s after %.1f s", name,
                    "silent" if silent else "back", seconds)

    def _on_rules(self, batch: RecordBatch) -> None:
        if batch.topic == self._topics["alerts"]:
            self.limits.on_alerts(batch)
            return
        self._router(batch)
        now = self._clock()
        if batch.topic == self._topics["progress"] and now - self._in_step.up_to_ns() <= POSITIONS_BEHIND_NS:
            self.feeds.heard("positions", now)

    def watch_limits(self) -> None:
        """Hold every limited node that this worker speaks for against its limits; raise alerts, trip breakers."""
        self.limits.look(self.models, self._clock(), self._speaks_for)

    def publish_touches(self) -> None:
        """Keep the barriers that marks have just touched: a restart, and every other process, knows them then."""
        now = self._clock()
        for name, spot in self.book.contracts.take_touched():
            level = self.book.reference.instrument_records[name].barrier
            touch = Touch(instrument=name, touched=True, ts_event=now, by="deskrisk", price=spot,
                          reason=f"marked at {spot:g}, barrier {level}")
            self._publisher.send(self._topics["touches"], name.encode(), encode(touch), 0)
            alert = Alert(alert_id=f"barrier.{name}.{now}", kind="barrier", node=FIRM, metric=f"barrier {name}",
                          value=spot, limit=None if level is None else float(level), utilisation=None,
                          cause_ts=now, raised_ts=now, snapshot_id=self.book.snapshot_id)
            self._publisher.send(self._topics["alerts"], b"firm", encode(alert))

    async def take(self, partitions: set[int]) -> None:
        """Own these partitions: their rows are read from the beginning of the compacted topic."""
        topic = self._topics["positions"]
        tps = [TopicPartition(topic, p) for p in partitions]
        if tps:  # a rebalance may bring nothing new; a consumer without partitions would wait for ever
            await self._resume_models(partitions)  # before it states any of it
            self._ends.update(await ends_of(self._client, tps))
        for tp in tps:
            self._next.setdefault(tp, 0)  # one that was followed so far goes on
        self._owned |= partitions
        if not self._tasks:
            await self._rules.start(await newest_alerts(self._client, self._topics["alerts"], self._partitions))
            for tail in (self._surfaces, self._marks):
                await tail.start()
            for tail in (self._surfaces, self._rules, self._marks):
                await tail.read_to_end()
        await self._follow_others()
        if not self._tasks:
            self._tasks = [self._marks.follow("marks tail"), self._surfaces.follow("surfaces tail"),
                           self._rules.follow("rules tail"),
                           process.start("publish loop", self._publish_loop, bound_s=30.0)]
        self.book.rollup.touched[:] = 1

    async def _follow_others(self) -> None:
        """Read the partitions of other workers too where this one speaks for the firm; forget what it does not need."""
        if self._others is not None and self._others_task is not None:
            self._others_task.cancel()
            await asyncio.gather(self._others_task, return_exceptions=True)
            await self._others.stop()
            self._others = self._others_task = None
        topic, lead = self._topics["positions"], LEAD_PARTITION in self._owned
        others = [TopicPartition(topic, p) for p in range(self._partitions) if lead and p not in self._owned]
        for tp in set(self._next) - {TopicPartition(topic, p) for p in self._owned} - set(others):
            self.book.remove_shard(tp.partition)
            del self._next[tp]
            self._ends.pop(tp, None)
        if others:
            self._ends.update(await ends_of(self._client, others))
            self._others = Tail(self._client, [topic], self._take_in, isolation_level="read_uncommitted",
                                pace_s=TRADE_PERIOD_S / 2, without_keys=(topic,))
            await self._others.start({tp: self._next.setdefault(tp, 0) for tp in others}, others)
            self._others_task = self._others.follow("tail of other shards")

    async def _resume_models(self, partitions: set[int]) -> None:
        """Read the models of the worker before: peaks and the prior day of what was just taken go on."""
        newest: dict[str, Risk] = {}

        def on_batch(batch: RecordBatch) -> None:
            for key, value in zip(batch.keys, batch.values, strict=True):
                name = (key or b"").decode()
                if value is not None and name.endswith(MODELS_SUFFIX):
                    newest[name.removesuffix(MODELS_SUFFIX)] = _risk.decode(value)

        topic = self._topics["risk"]
        await read_range(self._client, {TopicPartition(topic, p): 0 for p in range(self._partitions)}, on_batch)
        for name, risk in newest.items():
            owner = self._owners.partition(name)
            if owner in partitions or (owner is None and LEAD_PARTITION in partitions):
                self.models.resume(name, risk.ts, risk.models or {}, risk.prior_day, risk.top)

    async def release(self, partitions: set[int]) -> None:
        """Let go: another worker speaks for these shards now; `take`, which follows, forgets what is not needed."""
        self._owned -= partitions

    def stored_offset(self, topic: str, partition: int) -> int | None:
        """Return where reading goes on: the beginning for a shard just taken."""
        return self._next.get(TopicPartition(topic, partition))

    @property
    def ready(self) -> bool:
        """Whether every owned shard has been read to where it ended when it was taken."""
        return all(self._next[tp] >= end for tp, end in self._ends.items() if tp.partition in self._owned)

    @property
    def whole(self) -> bool:
        """Whether this worker speaks for nodes that span funds, and has read every shard."""
        return LEAD_PARTITION in self._owned and len(self._next) == self._partitions \
            and all(self._next[tp] >= end for tp, end in self._ends.items())

    def _speaks_for(self, node: str) -> bool:
        owner = self._owners.partition(node)
        return owner in self._owned if owner is not None else self._spoke_for_all

    def reads(self) -> dict[TopicPartition, int]:
        """Return the next offset of every partition that the nodes rest on."""
        return {**self._surfaces.positions, **self._rules.positions, **self._marks.positions, **self._next}

    async def acted(self) -> None:
        """Wait until nodes were revalued, held against their limits and published."""
        turns = self._turns
        await until(lambda: self._turns > turns + TICK_PERIODS)

    async def process(self, batch: RecordBatch, ack: Callable[[], None]) -> None:
        """Take one slice of `positions` in."""
        self._take_in(batch)
        ack()

    def _take_in(self, batch: RecordBatch) -> None:
        tp = TopicPartition(batch.topic, batch.partition)
        if tp not in self._next:
            return
        # what is withdrawn has no value: the shard that owns the account now publishes it
        for i, error in self.book.add_positions(batch.values, batch.partition).refused:
            self._counters.add("positions_refused")
            log.error("positions %s@%s refused: %s", batch.partition, int(batch.offsets[i]), error)
        self._next[tp] = max(self._next[tp], batch.next_offset)
        if len(batch):
            self._ts_source = max(self._ts_source, int(batch.timestamps_ms[-1]))

    async def _publish_loop(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        recount_due, models_due, unit_vars_due = loop.time() + RECOUNT_S, loop.time(), 0.0
        while True:
            due = max(due + TRADE_PERIOD_S, loop.time())
            await asyncio.sleep(due - loop.time())
            self._turns += 1
            self.models.update_rows(self.book.value_pending())
            if self._turns % TICK_PERIODS == 0:
                self._counters.add("rows_revalued", len(self.book.revalue(self._clock())))
            self._publish()
            if self.ready:
                self.watch_limits()
                self.limits.say_used(sorted(self._owned), self._clock())
                if LEAD_PARTITION in self._owned:
                    self.publish_touches()
                    self.watch_feeds()
                    self.limits.settle(self._clock())
                    self._inputs.displaced.write(self._publisher, self._topics)
            if loop.time() >= models_due and self._models_may_run():
                begun = loop.time()
                self.publish_models()
                # all models together take at most a tenth of this process
                models_due = loop.time() + min(max(MODELS_PERIOD_S, 10 * (loop.time() - begun)), MODELS_AGE_MAX_S)
                if self.whole and loop.time() >= unit_vars_due:
                    unit_vars_due = loop.time() + UNIT_VARS_PERIOD_S
                    self.publish_unit_vars()
            if loop.time() >= recount_due:
                recount_due = loop.time() + RECOUNT_S
                self.check_drift()
            turned()

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

    def _models_may_run(self) -> bool:
        """Return whether all there is has been read: peaks of half a firm would be wrong for ever."""
        return self.ready and self.whole == (LEAD_PARTITION in self._owned) and self.book.snapshot_id != 0

    def _publish(self) -> None:
        """Publish the nodes touched since the last call that this worker speaks for."""
        if not self.ready:
            return
        if self._spoke_for_all != self.whole:
            self._spoke_for_all = self.whole
            self.book.rollup.touched[:] = 1
        as_of = [AsOf(p, o) for p, o in sorted(self.book.as_of.items())]
        now = self._clock()
        names = self.book.rollup.node_names
        nodes = [n for n in self.book.rollup.take_touched().tolist() if self._speaks_for(names[n])]
        for record in self.records(nodes, as_of, now):
            self._publisher.send(self._topics["risk"], record.node.encode(), encode(record))

    def publish_models(self) -> None:
        """Measure every node with all models on the present snapshot, and publish them beside the nodes."""
        run = self.models.run(self._clock())
        as_of = [AsOf(p, o) for p, o in sorted(self.book.as_of.items())]
        self._counters.set("models_seconds", (self._clock() - run.as_of_ns) / 1e9)
        for name, models in run.models.items():
            if not self._speaks_for(name):
                continue  # VaR does not add up: no worker that sees a part may state the whole
            record = msgspec.structs.replace(
                self.records([self.book.rollup.node_index[name]], as_of, run.as_of_ns)[0], models=models,
                top=run.top[name], prior_day=self.models.prior.get(name))
            self._publisher.send(self._topics["risk"], f"{name}{MODELS_SUFFIX}".encode(), encode(record))
        # gates hold orders against the VaR of these: it is said again though no price has moved
        rollup, limits = self.book.rollup, (w.limit for w in self.limits.monitor.watches.values())
        limited = {x.node for x in limits if x.metric == "var_hist"} & rollup.node_index.keys()
        rollup.touched[[rollup.node_index[name] for name in limited]] = 1

    def publish_unit_vars(self) -> None:
        """Publish what one unit of every instrument has as VaR: gates hold orders against that."""
        scenarios, now = self.models.scenarios, self._clock()
        if scenarios is None or not scenarios.snapshot_id:
            return
        found = sorted(unit_var(scenarios, GATE_VAR_LEVEL).items())
        for part, first in enumerate(range(0, len(found), UNIT_VARS_AT_ONCE)):
            names, values = zip(*found[first : first + UNIT_VARS_AT_ONCE], strict=True)
            self._publisher.send(self._topics["unit-vars"], str(part).encode(),
                                 encode(UnitVars(instruments=list(names), var_99=list(values), ts=now)), 0)

    def records(self, nodes: list[int], as_of: list[AsOf], now: int) -> list[Risk]:
        """Return nodes as records; a figure that cannot be computed is None."""
        sums = self.book.figures_of(nodes)
        return [self._record(node, figures, total, as_of, now) for node, figures, total in
                zip(nodes, sums.tolist(), ru.total_pnl(sums).tolist(), strict=True)]

    def _record(self, node: int, f: list[float], total: float, as_of: list[AsOf], now: int) -> Risk:
        book = self.book
        name = book.rollup.node_names[node]
        finite: Any = [None if x != x else x for x in f]
        count = {k: round(f[k]) for k in (ru.UNPRICED, ru.STALE, ru.PNL_UNKNOWN, ru.DAY_UNKNOWN, ru.REALISED_UNKNOWN,
                                          ru.UNREALISED_UNKNOWN, ru.COSTS_UNKNOWN, ru.CARRY_UNKNOWN)}
        excluded, without_pnl = self._left_out(node, count[ru.UNPRICED], count[ru.PNL_UNKNOWN])
        # what is unpriced is left out and named; of what has a value an unknown P&L is not left out
        known, carried = not count[ru.DAY_UNKNOWN], not count[ru.CARRY_UNKNOWN]
        realised, costs = not count[ru.REALISED_UNKNOWN], not count[ru.COSTS_UNKNOWN]
        whole = realised and costs and carried and count[ru.PNL_UNKNOWN] <= count[ru.UNPRICED]
        return Risk(
            node=name, snapshot_id=book.snapshot_id, ts=now, as_of=as_of,
            quality=Quality(count[ru.UNPRICED], count[ru.STALE], excluded, count[ru.PNL_UNKNOWN], without_pnl,
                            count[ru.DAY_UNKNOWN], book.without_rate(node)),
            base_currency=book.currency_of(node),
            pnl=Pnl(realised=finite[ru.REALISED] if realised else None,
                    unrealised=finite[ru.UNREALISED] if count[ru.UNREALISED_UNKNOWN] <= count[ru.UNPRICED] else None,
                    day=finite[ru.DAY] if known else None, price=finite[ru.PRICE] if known else None,
                    fx=finite[ru.FX] if known else None, fees=finite[ru.FEES] if costs else None,
                    carry=finite[ru.CARRY] if costs and carried else None,
                    funding=finite[ru.FUNDING] if costs else None, interest=finite[ru.INTEREST] if carried else None,
                    total=total if whole and total == total else None),
            exposure=Exposure(gross=finite[ru.GROSS], net=finite[ru.NET], long=finite[ru.LONG],
                              short=finite[ru.SHORT], positions=round(f[ru.POSITIONS])),
            quantity=finite[ru.QUANTITY] if name.startswith("pair:") else None,
            ts_source=self._ts_source, greeks={g: finite[ru.DELTA + k] for k, g in enumerate(ru.GREEKS)} | {
                "missing": f[ru.NO_GREEKS]}, models=self.models.quick(node))

    def _left_out(self, node: int, unpriced: int, pnl_unknown: int) -> tuple[list[str], list[str]]:
        """Return names of positions without a value, and of those with a value whose P&L is unknown."""
        rollup, names = self.book.rollup, self.book.names
        excluded = rollup.unpriced_rows(node, EXCLUDED_NAMED).tolist() if unpriced else []
        without = rollup.rows_without(node, ru.PNL_UNKNOWN, rollup.count).tolist() if pnl_unknown > unpriced else []
        priced = [r for r in without if not rollup.contribution[r, ru.UNPRICED]]
        return [names[r] for r in excluded], [names[r] for r in priced[:EXCLUDED_NAMED]]

    async def stop(self) -> None:
        """Stop publishing."""
        for task in self._tasks:
            task.cancel()
        if self._others_task is not None:
            self._others_task.cancel()
            self._tasks.append(self._others_task)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for tail in (self._marks, self._surfaces, self._rules, self._others):
            if tail is not None:
                await tail.stop()
