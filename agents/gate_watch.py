"""What the gate watches of limits beside its verdicts: what it measures, and orders that were let pass one."""

from __future__ import annotations

from collections.abc import Callable

from agents.limit_alerts import LimitAlerts
from agents.ports import Counters, Publisher
from models.gate.book import GateBook
from models.gate.flow import METRICS as FLOW_METRICS
from models.gate.passed_limits import PassedLimits
from models.gate.watched import is_of_gate, watched_values
from models.limits import Change, key_of
from schemas.records import Decision, Limit
from tables.kafka import owner_partition


class GateWatch(LimitAlerts):
    """The alerts and breakers of one gate.

    Parameters
    ----------
    owns : whether the gate decides a partition of `orders`
    """

    def __init__(self, gate: GateBook, topics: dict[str, str], publisher: Publisher, counters: Counters,
                 partitions: int, owns: Callable[[int], bool]) -> None:
        super().__init__(topics, publisher, counters, is_of_gate)
        self._gate, self._partitions, self._owns = gate, partitions, owns
        self._passed = PassedLimits()

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

    def look(self, now_ns: int) -> None:
        """Hold what this gate measures against its limits; raise alerts, trip breakers."""
        def speaks_for(node: str) -> bool:
            return self._owns(owner_partition(node.removeprefix("account:"), self._partitions))

        values = watched_values(self._gate, now_ns, self.monitor.warns_at, self.monitor.standing, speaks_for)
        self.measured(values, now_ns, self._gate.book.snapshot_id, speaks_for, cause_ns=now_ns)
