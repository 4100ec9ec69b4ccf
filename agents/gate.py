"""The order path: orders in, one decision each, stable across restarts.

The first decision on the log is the verdict. A gate that takes a partition over reads its decisions first: what was
decided is never decided again, and what was accepted works on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter_ns
from typing import Any

import msgspec
from aiokafka.structs import TopicPartition

from agents.gate_changelog import PRICES_PARTITION, GateChangelog
from agents.gate_inputs import GateInputs
from agents.gate_takeover import GateTakeOver
from agents.gate_watch import GateWatch
from agents.limit_alerts import newest_alerts
from agents.order_fills import REFUSED_MAX, OrderFills
from agents.other_gates import OtherGates
from agents.ports import Clock, Counters, Publisher
from agents.quarantine import Quarantine
from agents.read_report import GateReading
from agents.reference_tail import ReferenceTail
from agents.router import Place
from agents.stage import ReadingStage
from models.gate.book import GateBook
from models.gate.reduce_only import beyond_position
from models.gate.working import Working
from models.position_progress import PositionsInStep
from models.trading_day import TradingDay
from schemas.addresses import PositionProgress
from schemas.codec import decoder_of, encode, records_in
from schemas.controls import Check
from schemas.records import Account, AsOf, Control, Decision, Instrument, Order, Reason
from schemas.refusal import reason_of
from schemas.units import FUTURE_NS
from tables.exit_codes import ExitCode
from tables.journal import Journal
from tables.kafka import KafkaClient, owner_partition
from tables.lease import Lease
from tables.records import RecordBatch
from tables.tail import Tail
from tables.tasks import process, turned

log = logging.getLogger(__name__)
REFRESH_S = 0.1
#: prices and exposures are taken in this often: they are measured every 100 ms
FOLLOW_S = 0.05
#: executions are taken in this often: one settles when the position row that has it arrives
FILLS_S = 0.06
#: a gate that starts waits so long for positions that hold all trades but those of the last second
IN_STEP_WAIT_S, IN_STEP_NS = 3.0, 1_000_000_000
_order = decoder_of(Order)


class GateStage(ReadingStage):
    """Owns some partitions of `orders`: decides them, and follows their executions on `trades`."""

    def __init__(self, client: KafkaClient, topics: dict[str, str], reference: ReferenceTail, publisher: Publisher,
                 clock: Clock, counters: Counters, base_currency: str, levels: tuple[str, ...],
                 partitions: int, lease: Lease, day: TradingDay | None = None,
                 journal: Journal | None = None, write_down_s: float = 20.0,
                 future_ns: int = FUTURE_NS, takes_last: bool = False, self_match_by_owner: bool = False,
                 surface_age_ns: int | None = None, capacities: Mapping[str, int] | None = None) -> None:
        self._client, self._topics, self._lease = client, topics, lease
        self._names = {v: k for k, v in topics.items()}
        self._publisher, self._clock, self._counters = publisher, clock, counters
        self._quarantine = Quarantine(topics, publisher, counters)
        self._partitions, self._journal = partitions, journal
        self.gate = GateBook(base_currency, levels, day, surface_age_ns, **capacities or {})
        self.gate.future_ns, self.gate.own.by_owner = future_ns, self_match_by_owner
        self.watch = GateWatch(self.gate, topics, publisher, counters, partitions, self.owns)
        self._tail = Tail(client, [topics[t] for t in ("market.surfaces", "marks", "positions", "risk")],
                          self._on_batch, isolation_level="read_uncommitted", pace_s=FOLLOW_S,
                          without_keys=(topics["positions"],), most=1)
        self._others = OtherGates(self.gate, publisher, topics["exposure"], partitions, f"{clock()}.{os.getpid()}")
        rules = ("limits", "controls", "reference.counterparties", "touches", "exposure", "progress", "unit-vars",
                 "alerts", "quarantine")
        #: with the executions on the partitions this gate owns
        self._rules = Tail(client, [topics[t] for t in rules], self._on_batch, wait_ms=100,
                           without_keys=(topics["trades"],), every_s={topics["trades"]: FILLS_S})
        self._next: dict[TopicPartition, int] = {}
        self._owned: set[int] = set()
        self._paused, self._pauses = True, 0
        self._tasks: list[asyncio.Task[None]] = []
        self._reference = reference
        self._half_done: set[tuple[int, int, str]] = set()
        self._in_step, self._positions_known = PositionsInStep(partitions), asyncio.Event()

        def partition_of(account: str) -> int:
            return owner_partition(account, partitions)

        self._fills = OrderFills(self.gate, counters, partition_of, self._in_step)
        self._changelog = GateChangelog(client, topics, publisher, clock, self.gate, self._fills, partition_of)
        self._takeover = GateTakeOver(client, topics, self.gate, self.watch, self._fills, self._changelog, partition_of)
        self._write_down_s = write_down_s
        self.inputs = GateInputs(self.gate, self.watch, self._others, self._names, counters, self._quarantine.send,
                                 clock, future_ns, takes_last)
        self.inputs.router.subscribe("controls", Control, self._take_control, self.watch.drop_control)
        self.inputs.router.subscribe("progress", PositionProgress, self._take_progress)
        self.reading: GateReading = GateReading(self._tail, self._rules, self._next, self.inputs.waiting_marks)
        self.gate.guards.actions = reference.reference.actions
        reference.on_change = self._on_reference
        for instrument in reference.reference.instrument_records.values():
            self._on_reference(instrument)
        for account in reference.reference.account_records.values():
            self._on_reference(account)

    # ---- what is followed -----------------------------------------------------------------------------------------
    def _on_reference(self, record: Account | Instrument) -> None:
        if isinstance(record, Instrument):
            self.gate.add_instrument(record)
        else:
            self.gate.add_account(record)
        self._cancel_killed()

    def _on_batch(self, batch: RecordBatch) -> None:
        topic = self._names[batch.topic]
        if topic == "marks":
            self.inputs.on_marks(batch)
        elif topic == "positions":
            taken = self.gate.add_positions(batch.values, batch.partition)
            for k, error in taken.refused:
                self._counters.add("gate_refused", topic=topic)
                log.error("%s %s@%s refused: %s", topic, batch.partition, int(batch.offsets[k]), error)
            self._fills.arrived(taken.every_row())
        elif topic == "trades":
            self._fills.follow(batch)
            self._next[TopicPartition(batch.topic, batch.partition)] = batch.next_offset
        elif topic == "alerts":
            self.watch.on_alerts(batch)
        elif topic == "quarantine":
            self._fills.refused(batch, self._topics["trades"])
        else:
            self.inputs.router(batch)

    def _take_control(self, control: Control, place: Place) -> None:
        self.watch.take_control(control, place.key)
        for w in self.gate.add_control(control):
            self._cancel(w.order, f"killed: {control.scope}, {control.reason}")

    def _take_progress(self, said: PositionProgress, _: Place) -> None:
        """Take in how far positions are; what was said before this gate started is as old as it says."""
        now = self._clock()
        self._in_step.heard(said, now if self._tasks else min(int(said.ts), now))
        self.gate.positions_hold(self._in_step.up_to_ns())
        if now - self._in_step.up_to_ns() <= IN_STEP_NS:
            self._positions_known.set()

    # ---- partitions -----------------------------------------------------------------------------------------------
    async def take(self, partitions: set[int]) -> None:
        """Own these partitions: read what was decided, place what still works, then go on, unless paused meanwhile."""
        turn = self._pauses
        if not self._tasks:
            alerts = await newest_alerts(self._client, self._topics["alerts"], self._partitions)
            refusals = await newest_alerts(self._client, self._topics["quarantine"], self._partitions, REFUSED_MAX)
            for tail, starts in ((self._rules, alerts | refusals), (self._tail, None)):
                await tail.start(starts)
                await tail.read_to_end()
            self.inputs.take_marks(len(self.inputs.waiting_marks))
            self._tasks = [self._tail.follow("prices tail"), self._rules.follow("rules tail"),
                           process.start("refresh loop", self._refresh_loop, bound_s=30.0),
                           process.start("marks loop", self.inputs.mark_loop),
                           process.start("write-down loop", self._write_down_loop, bound_s=30 + 9 * self._write_down_s),
                           process.start("limits used", lambda: self.watch.say_used(self._clock), bound_s=30.0)]
            self.gate.refresh(self._clock())
            await self._positions_in_step()
        taken = await self._takeover.run(partitions, self._clock())
        self._half_done = {x for x in self._half_done if x[0] not in partitions} | taken.half_done
        self._next |= taken.next_offset
        self._follow(self._owned | partitions)
        await self._lease.begin()
        self._owned |= partitions
        self._others.own(self._owned)
        for decision in taken.accepted.values():
            if decision.order is not None and decision.session is not None:  # of another gate, or of another life
                self._cancel(decision.order, f"session {decision.session} is gone")
        self._cancel_killed()
        self._paused = self._pauses != turn
        log.info("gate: %d orders work", len(self.gate.working))

    async def _positions_in_step(self) -> None:
        """Wait for word that positions hold all trades, but not for long: orders wait rather than being refused."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._positions_known.wait(), IN_STEP_WAIT_S)

    async def pause(self) -> None:
        """Decide nothing until the next `take`, and have on the log what was decided: an heir reads it there."""
        self._pauses += 1
        self._paused = True
        await self._changelog.idle()
        await self._publisher.flush()

    async def release(self, partitions: set[int]) -> None:
        """Let go: what works there is another gate's to hold."""
        self.gate.forget_accounts({k for name, k in self.gate.state.account_index.items()
                                   if owner_partition(name, self._partitions) in partitions})
        self._owned -= partitions
        self.gate.flow.forget(partitions)
        self._others.own(self._owned)
        if partitions:
            self._fills.forget_others()
            self._follow(self._owned)

    def _follow(self, partitions: set[int]) -> None:
        tps = [TopicPartition(self._topics["trades"], p) for p in sorted(partitions)]
        self._rules.also({tp: self._next[tp] for tp in tps})

    def stored_offset(self, topic: str, partition: int) -> int | None:
        """Return where reading goes on."""
        return self._next.get(TopicPartition(topic, partition))

    # ---- orders and executions ------------------------------------------------------------------------------------
    async def process(self, batch: RecordBatch, ack: Callable[[], None]) -> None:
        """Decide a slice of orders, but not what another gate may own by now."""
        await self._lease.sure()
        if self._paused:  # it was read before a rebalance, after which reading goes on where deciding ended
            return ack()
        self._counters.set("behind_records", batch.behind, topic=batch.topic, partition=str(batch.partition))
        for m, value in enumerate(batch.values):
            if value is not None:
                self._decide_message(batch, m, value)
        self._next[TopicPartition(batch.topic, batch.partition)] = batch.next_offset
        ack()

    def _decide_message(self, batch: RecordBatch, m: int, value: bytes) -> None:
        try:
            raws = records_in(value)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._quarantine.send(batch, m, *reason_of(error, value, None), value)
            return
        offset = int(batch.offsets[m])
        for k, raw in enumerate(raws):
            try:
                order = _order.decode(raw)
            except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
                self._quarantine.send(batch, m, *reason_of(error, raw, Order), raw, k)
                continue
            owner = owner_partition(order.account, self._partitions)
            if owner != batch.partition:  # the client hashes keys in another way: the owner decides
                self._publisher.send(batch.topic, order.account.encode(), raw, owner)
                self._counters.add("orders_rerouted")
                continue
            if (batch.partition, offset, order.order_id) in self._half_done:
                continue  # a part of a batch whose decisions the one before wrote half of
            # a batch is decided when its last order is: until then a restart decides the rest of it
            last = k == len(raws) - 1
            self.decide(order, AsOf(batch.partition, offset if last else offset - 1), None if last else offset)

    def decide(self, order: Order, as_of: AsOf | None, batch: int | None = None) -> Decision:
        """Return the decision on an order, and write it; ``batch``: the record it came in, not as its last order."""
        decision = self.judge(order, as_of)
        if batch is not None:
            decision = msgspec.structs.replace(decision, batch=batch)
        self.record(decision)
        return decision

    def judge(self, order: Order, as_of: AsOf | None, session: str | None = None) -> Decision:
        """Return the decision on an order, which counts from now on; who asks keeps it, answers, and records it.

        ``session``: its end cancels what is let through.
        """
        begin, now = perf_counter_ns(), self._clock()
        try:
            verdict = self.gate.decide(order, now)
            outcome, reasons, warnings = verdict.outcome, verdict.reasons, verdict.warnings
            inputs, effect = verdict.inputs, verdict.effect
            if session is not None and outcome == "accept" and order.order_id in self.gate.working:
                self.gate.working[order.order_id].session = session
        except (ArithmeticError, ValueError, LookupError, TypeError) as error:  # what cannot be checked is refused
            log.exception("order %s could not be checked", order.order_id)
            reason = Reason(code=Check.INTERNAL_ERROR.name, measured=f"{type(error).__name__}: {error}", limit="")
            outcome, reasons, warnings, inputs, effect = "reject", [reason], [], {}, {}
        p = owner_partition(order.account, self._partitions)
        return self._decision(order, outcome, reasons, effect, begin, now, warnings=warnings, inputs=inputs,
                              as_of=as_of, order=order,
                              fills_from=self._next.get(TopicPartition(self._topics["trades"], p), 0),
                              session=session if outcome == "accept" and order.action != "cancel" else None)

    def _decision(self, on: Order, outcome: str, reasons: list[Reason], effect: dict[str, float], begin: int,
                  now: int, **more: Any) -> Decision:
        return Decision(
            order_id=on.order_id, account=on.account, instrument=on.instrument, reasons=reasons,
            outcome=outcome, effect=effect,  # type: ignore[arg-type]
            snapshot_id=self.gate.book.snapshot_id, limits_version=self.gate.limits_version, ts_event=now,
            ts_decision=now, service_ns=perf_counter_ns() - begin, **more)

    def keep(self, decided: Sequence[Decision]) -> list[bytes]:
        """Have decisions where a kill does not reach them, before they are answered; return them encoded.

        A gate that cannot keep what it decided ends: the next one knows what is on the log.
        """
        values = [encode(decision) for decision in decided]
        if self._journal is not None:
            try:
                self._journal.keep(values)
            except OSError:
                log.critical("decisions cannot be kept on disk, leaving", exc_info=True)
                process.leave(int(ExitCode.JOURNAL))
        return values

    def record(self, decision: Decision, kept: bytes | None = None, linger_s: float = 0.0) -> None:
        """Write and count a decision; ``kept``: its bytes; ``linger_s``: how long it may be gathered with others."""
        self._write(decision, kept, linger_s)
        self.watch.recorded(decision)
        self._counters.add("orders_decided", outcome=decision.outcome)
        for reason in decision.reasons[:1]:
            self._counters.add("orders_rejected", reason=reason.code)
        self._counters.observe("risk_check_latency_microseconds", decision.service_ns / 1e3)

    def check(self, order: Order) -> Decision:
        """Return the decision an order would get; nothing is reserved, counted or written."""
        begin, now = perf_counter_ns(), self._clock()
        v = self.gate.check(order, now)
        return self._decision(order, v.outcome, v.reasons, v.effect, begin, now, warnings=v.warnings)

    def _write(self, decision: Decision, kept: bytes | None = None, linger_s: float = 0.0) -> None:
        partition = owner_partition(decision.account, self._partitions)
        sent = self._publisher.send(self._topics["decisions"], decision.account.encode(), kept or encode(decision),
                                    partition, linger_s=linger_s)
        if kept is not None and self._journal is not None:
            self._journal.sent(partition, sent)

    def _executions_are_taken_out(self, w: Working) -> bool:
        """Whether all executions that the position of an order includes are followed."""
        p, row = owner_partition(w.order.account, self._partitions), self.gate.book.keys.get(
            f"{w.order.account}|{w.order.instrument}")
        return row is not None and (
            self._next.get(TopicPartition(self._topics["trades"], p), 0) > self.gate.book.offset_of(row))

    def _cancel(self, order: Order, why: str, check: Check = Check.HALTED) -> None:
        """Cancel a working order: a record for the order system, which takes it off the venue."""
        if owner_partition(order.account, self._partitions) not in self._owned or not self.gate.release(order.order_id):
            return
        reason = Reason(code=check.name, measured=why, limit="")
        self._write(self._decision(order, "cancel", [reason], {}, perf_counter_ns(), self._clock(), order=order))
        self._counters.add("orders_killed")

    def _cancel_killed(self) -> None:
        """Cancel what works under a scope that was killed before it came there, or while no gate ran."""
        if self._owned:
            for w in self.gate.killed():
                self._cancel(w.order, "killed before it came there")

    def owns(self, partition: int) -> bool:
        """Whether this worker decides orders of a partition."""
        return partition in self._owned and not self._paused and self._lease.held()

    def working(self) -> int:
        """Return how many orders work."""
        return len(self.gate.working)

    def still_working(self, order_ids: set[str]) -> set[str]:
        """Return those of some ids that name an order which works, or would if an execution were taken back."""
        return {k for k in order_ids if self.gate.known(k) is not None}

    def cancel_orders(self, order_ids: set[str], why: str) -> int:
        """Cancel what still works of these orders (their session is gone); return how many."""
        current = {self.gate.current_id(k) for k in order_ids} - {None}
        found = [self.gate.working[k].order for k in sorted(filter(None, current))]
        for order in found:
            self._cancel(order, why)
        for order_id in order_ids:
            self.gate.forget_done(order_id)
        return len(found)

    async def _refresh_loop(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            now = self._clock()
            self.gate.refresh(now)
            self._fills.tidy(now)
            if self.gate.revived:
                self.gate.revived.clear()
                self._cancel_killed()
            for w in beyond_position(self.gate, self._executions_are_taken_out):
                self._cancel(w.order, "reduce_only: the position is smaller by now", Check.REDUCING_ONLY)
            self.reading.refreshes += 1
            self._counters.set("orders_working", len(self.gate.working))
            turned()
            if not self._paused and self._lease.held():
                if PRICES_PARTITION in self._owned:
                    self._changelog.write_tests()
                    self.inputs.displaced.write(self._publisher, self._topics)
                self._others.say(now)
                self.watch.look(now)

    async def _write_down_loop(self) -> None:
        """Write down what works and what the day has come to, partition by partition, so that a heir reads little."""
        orders, trades = self._topics["orders"], self._topics["trades"]
        while True:
            for p in sorted(self._owned) or [-1]:
                await asyncio.sleep(self._write_down_s / max(len(self._owned), 1))
                if p in self._owned and not self._paused and self._lease.held():
                    await self._changelog.write(
                        p, self._next[TopicPartition(orders, p)], self._next[TopicPartition(trades, p)],
                        [(offset, order_id) for q, offset, order_id in self._half_done if q == p])
                turned()

    async def stop(self) -> None:
        """Stop following."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for tail in (self._tail, self._rules) if self._tasks else ():
            await tail.stop()
