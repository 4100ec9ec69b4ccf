"""What the gate watches of limits beside its verdicts: what it measures, and orders that were let pass one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agents.gate_room import GateRoom
from agents.limit_alerts import SAID_MAX, SAY_S, LimitAlerts
from agents.ports import Clock, Counters, Publisher
from models.gate.book import GateBook
from models.gate.flow import METRICS as FLOW_METRICS
from models.gate.passed_limits import PassedLimits
from models.gate.watched import counted_by_all, is_of_gate, values_of, watched_values
from models.limits import Change, key_of
from schemas.addresses import LimitsUsed
from schemas.codec import encode
from schemas.records import Alert, Decision, Limit
from tables.kafka import owner_partition, speaker_partition
from tables.tasks import turned

#: figures before whoever waits gets a turn
SAID_AT_ONCE = 16


class GateWatch(LimitAlerts):
    """The alerts and breakers of one gate.

    Parameters
    ----------
    owns : whether the gate decides a partition of `orders`
    """

    def __init__(self, gate: GateBook, topics: dict[str, str], publisher: Publisher, counters: Counters,
                 partitions: int, owns: Callable[[int], bool]) -> None:
        super().__init__(topics, publisher, counters, is_of_gate, gate.book.levels)
        self._gate, self._partitions, self._owns = gate, partitions, owns
        self._passed = PassedLimits()
        self._room = GateRoom(gate.state, counters, self.raise_all)

    def add(self, limit: Limit) -> None:
        """Watch a limit, where it is on what the gate measures."""
        self.monitor.add(limit)
        if limit.metric in FLOW_METRICS:
            self._gate.flow.watch(limit.node, key_of(limit).window_ms * 1_000_000)

    def count(self, decision: Decision) -> None:
        """Count a decision under the nodes it lies under."""
        if self._gate.flow.watched and decision.order is not None and decision.outcome != "cancel":
            self._gate.flow.add(owner_partition(decision.account, self._partitions),
                                self._gate.names_above(decision.order), decision.ts_decision,
                                decision.outcome == "reject")

    def recorded(self, decision: Decision) -> None:
        """Count a new decision; raise alerts of limits that it was let pass."""
        self.count(decision)
        if decision.warnings:
            found = self._passed.alerts(decision, self._gate.limits)
            self.raise_all([Change(alert) for alert in found], decision.ts_decision)

    def take_alert(self, alert: Alert) -> None:
        """Take an alert from the log in."""
        super().take_alert(alert)
        self._room.follow(alert)

    def look(self, now_ns: int) -> None:
        """Hold what this gate measures against its limits; raise alerts, trip breakers."""
        values = watched_values(self._gate, now_ns, self.monitor.warns_at, self.monitor.standing, self._speaks_for)
        self.measured(values, now_ns, self._gate.book.snapshot_id, self._speaks_for, cause_ns=now_ns)
        self._room.look({p for p in range(self._partitions) if self._owns(p)}, now_ns, self._gate.book.snapshot_id)

    def _speaks_for(self, node: str) -> bool:
        return self._owns(speaker_partition(node, self._partitions))

    async def say_used(self, clock: Clock) -> None:
        """Say again and again how much is used of what only this gate measures, until cancelled."""
        while True:
            turned()
            await asyncio.sleep(SAY_S)
            now_ns, mine = clock(), [p for p in range(self._partitions) if self._owns(p)]
            if not mine:
                continue
            used: list[tuple[str, str, int, str, float]] = []
            limited = [k for k in self._gate.limited() if is_of_gate(k.node, k.metric)]
            keys = [k for k in limited if speaker_partition(k.node, self._partitions) in mine][:SAID_MAX]
            counted = counted_by_all(self._gate, now_ns)
            for at in range(0, len(keys), SAID_AT_ONCE):
                found = values_of(self._gate, keys[at : at + SAID_AT_ONCE], counted, now_ns)
                used += [(*key, value) for key, value in found.items() if value == value]
                await asyncio.sleep(0)
            if all(map(self._owns, mine)):
                self._publisher.send(self._topics["limits-used"], str(mine[0]).encode(),
                                     encode(LimitsUsed(partitions=mine, used=used, ts=now_ns)), 0)
