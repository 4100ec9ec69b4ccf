"""Alerts of limits that are approached or breached, and the circuit breakers they trip: the same for every stage.

What stands is on the logs of alerts and controls: a stage that starts, or takes a node over, goes on from there.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from aiokafka.structs import TopicPartition

from agents.displaced import Displaced
from agents.ports import Counters, Publisher
from agents.router import Place
from models.gate.state import STATES
from models.limit_door import LimitDoor
from models.limits import Change, LimitKey, LimitMonitor
from models.reference import FIRM, LEVELS
from models.trading_states import StandingStates
from schemas.codec import decoder_of, encode
from schemas.reasons import QuarantineReason
from schemas.records import Alert, Control, Limit
from tables.kafka import KafkaClient
from tables.records import RecordBatch
from tables.restore import ends_of

log = logging.getLogger(__name__)
#: of each partition so many alerts are read at a start: what was raised before them and still stands is raised again
ALERTS_READ = 20_000
#: of one limit, or one scope, it is said so often that a record of it was refused
TOLD_APART_NS, TOLD_MAX = 60_000_000_000, 4_096
#: how much is used of limits is said this often, of so many limits
SAY_S, SAID_MAX = 1.0, 4_096
_alert = decoder_of(Alert)
#: what alerts that are followed have in them: of limits, and of how full gates are
_FOLLOWED = (b'"limit_id":"', b'"alert_id":"gate.room.')


async def newest_alerts(client: KafkaClient, topic: str, partitions: int, most: int = ALERTS_READ,
                        ) -> dict[TopicPartition, int]:
    """Return where the newest records of every partition begin, so many of each."""
    ends = await ends_of(client, [TopicPartition(topic, p) for p in range(partitions)])
    return {tp: max(0, end - most) for tp, end in ends.items()}


class LimitAlerts:
    """The limits a stage measures, and what trading states stand: a breach makes them stricter, a person looser.

    Parameters
    ----------
    is_mine : whether the stage measures a metric of a node
    levels : of the tree
    """

    def __init__(self, topics: dict[str, str], publisher: Publisher, counters: Counters,
                 is_mine: Callable[[str, str], bool], levels: Sequence[str] = LEVELS) -> None:
        self._topics, self._publisher, self._counters = topics, publisher, counters
        self.monitor = LimitMonitor(is_mine)
        self.states = StandingStates(levels)
        #: number of the newest trip of this process, by scope
        self._tripped: dict[str, int] = {}
        self.door = LimitDoor(levels)
        #: when it was said last that a record of a key was refused
        self._told: dict[tuple[str, str], int] = {}
        self._displaced = Displaced({"limits": lambda key: _encoded(self.door.standing.get(key)),
                                     "controls": lambda key: _encoded(self.states.standing.get(key))})

    def judged(self, take: Callable[[Limit, Place], object], drop: Callable[[Place], object],
               ) -> tuple[Callable[[Limit, Place], None], Callable[[Place], None]]:
        """Return handlers of limits and their withdrawals that hand on what stands (see `LimitDoor`)."""
        def taken(limit: Limit, place: Place) -> None:
            self.door.take(limit, place.ts_ns)
            self._displaced.came("limits", place.key, limit.limit_id)
            take(limit, place)

        def dropped(place: Place) -> None:
            self.door.remove(place.key, place.ts_ns)
            self._displaced.gone("limits", place.key)
            drop(place)

        return taken, dropped

    def refused(self, topic: str, key: str, reason: QuarantineReason, why: str) -> None:
        """Note that a record was refused, by the name of its topic in the contract: what was there before it stands."""
        # by what stands beside it: who reads it alone might take it
        self._displaced.refused(topic, key, why, withdraw=reason is QuarantineReason.NOT_APPROVED)

    def settle(self, now_ns: int) -> None:
        """Write what stands once more where the newest record is another one that was refused, and say so.

        For one stage alone: all readers came to the same; a reader that starts after compaction has to, too.
        """
        for topic, key, value, why in self._displaced.take():
            self._publisher.send(self._topics[topic], key.encode(), value, 0)
            log.warning("%s %s: written once more as it stands: %s", topic, key, why)
            if now_ns - self._told.get((topic, key), -TOLD_APART_NS) < TOLD_APART_NS:
                continue  # who sends it again and again is told on `quarantine` how often
            self._told[topic, key] = now_ns
            if len(self._told) > TOLD_MAX:
                del self._told[next(iter(self._told))]
            node = getattr(self.door.standing.get(key), "node", FIRM) if topic == "limits" else key
            alert = Alert(alert_id=f"refused.{topic}.{key}.{now_ns}", kind="override", metric=topic, value=None,
                          node=FIRM if node == "all" else node, limit=None, utilisation=None, cause_ts=now_ns,
                          raised_ts=now_ns, snapshot_id=0, limit_id=f"refused.{topic}.{key}",
                          note=f"{key}: a record was refused, what stood before stands: {why}")
            self._publisher.send(self._topics["alerts"], alert.node.encode(), encode(alert))

    def on_alerts(self, batch: RecordBatch) -> None:
        """Take in what was raised, here before a restart or by another worker, and what a person has seen of it."""
        for value in batch.values:
            if value is None or not any(mark in value for mark in _FOLLOWED):
                continue
            try:
                self.take_alert(_alert.decode(value))
            except Exception as error:
                self._counters.add("alerts_refused")
                log.error("alerts: a record at %s refused: %s: %s", batch.partition, type(error).__name__, error,
                          exc_info=not isinstance(error, ValueError))

    def take_alert(self, alert: Alert) -> None:
        """Take an alert from the log in."""
        self.monitor.follow(alert)

    def take_control(self, control: Control, key: str | None = None) -> None:
        """Note what stands; what a person lifted while a breach calls for it is called for again.

        A breaker that this stage wrote after a stricter state of a person, under the same number, is followed by that
        state once more: compaction leaves the newest record alone.

        Parameters
        ----------
        key : that it has on its topic; None: it is one of this stage's own
        """
        held = self.states.standing.get(control.scope)
        if not self.states.take(control):  # of before what was tripped here
            assert held is not None
            if self._tripped.pop(control.scope, None) == control.rev == held.rev:
                self._publisher.send(self._topics["controls"], control.scope.encode(),
                                     encode(msgspec.structs.replace(held, rev=held.rev + 1)))
            else:
                self._displaced.refused("controls", control.scope if key is None else key,
                                        f"{control.state}, number {control.rev}, of {control.by}")
            return
        if key is not None:
            self._displaced.came("controls", key, control.scope)
        if held is not None and STATES.index(control.state) < STATES.index(held.state):
            self.monitor.reconsider(FIRM if control.scope == "all" else control.scope)

    def drop_control(self, place: Place) -> None:
        """Take in that the record of a state was withdrawn: that lifts none."""
        self.states.withdraw(place.key)
        self._displaced.gone("controls", place.key)

    def measured(self, values: Mapping[LimitKey, float], now_ns: int, snapshot_id: int,
                 speaks_for: Callable[[str], bool], unknown: Mapping[LimitKey, str] | None = None,
                 cause_ns: int | None = None) -> None:
        """Hold what was measured against its limits (see `LimitMonitor.measure`); raise alerts, trip breakers."""
        self.raise_all(self.monitor.measure(values, now_ns, snapshot_id, unknown, cause_ns), now_ns)
        self.raise_all(self.monitor.clear_removed(speaks_for, now_ns), now_ns)

    def raise_all(self, changes: Iterable[Change], now_ns: int) -> None:
        """Publish the alert of every change, and trip the breaker it calls for."""
        for change in changes:
            trips = change.control is not None and self._is_stricter(change.control, _scope_of(change.alert.node))
            if change.again and not trips:
                continue
            self._publisher.send(self._topics["alerts"], change.alert.node.encode(), encode(change.alert))
            self._counters.add("alerts", kind=change.alert.kind)
            if trips:
                self._trip(change.alert, change.control, now_ns)

    def state_hash(self) -> str:
        """Return a digest of what stands of limits and of trading states; a restart from their logs has the same."""
        held = sorted((c.scope, c.state, c.rev, c.by) for c in self.states.standing.values())
        return hashlib.blake2b(repr((self.monitor.state_hash(), held)).encode(), digest_size=16).hexdigest()

    def _is_stricter(self, state: str, scope: str) -> bool:
        held = self.states.standing.get(scope)
        return held is None or STATES.index(held.state) < STATES.index(state)

    def _trip(self, alert: Alert, state: Any, now_ns: int) -> None:
        scope = _scope_of(alert.node)
        held = self.states.standing.get(scope)
        control = Control(scope=scope, state=state, by="deskrisk", ts=now_ns, rev=(held.rev if held else 0) + 1,
                          reason=f"{alert.metric} {alert.value:.10g} above {alert.limit:.10g} ({alert.limit_id})")
        self.take_control(control)
        self._tripped[scope] = control.rev
        self._publisher.send(self._topics["controls"], scope.encode(), encode(control))
        self._counters.add("circuit_breaker_trips_total", scope=scope, reason=alert.metric)
        log.warning("breaker of %s: %s, %s", scope, state, control.reason)


def _encoded(record: Limit | Control | None) -> bytes | None:
    return None if record is None else encode(record)


def _scope_of(node: str) -> str:
    return "all" if node == FIRM else node
