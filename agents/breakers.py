"""Alerts of changed limits, and the circuit breakers they trip: the same for every stage that measures something."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from agents.ports import Counters, Publisher
from models.gate.state import STATES
from models.limits import Change
from models.reference import FIRM
from schemas.codec import encode
from schemas.records import Alert, Control

log = logging.getLogger(__name__)


class Breakers:
    """What trading states stand, and how a breach makes them stricter; only a named person makes them looser."""

    def __init__(self, topics: dict[str, str], publisher: Publisher, counters: Counters) -> None:
        self._topics, self._publisher, self._counters = topics, publisher, counters
        self._controls: dict[str, Control] = {}

    def take(self, control: Control) -> None:
        """Note what stands."""
        self._controls[control.scope] = control

    def raise_all(self, changes: Iterable[Change], now_ns: int) -> None:
        """Publish the alert of every change, and trip the breaker it calls for."""
        for change in changes:
            self._publisher.send(self._topics["alerts"], change.alert.node.encode(), encode(change.alert))
            self._counters.add("alerts", kind=change.alert.kind)
            if change.control is not None:
                self._trip(change.alert, change.control, now_ns)

    def _trip(self, alert: Alert, state: Any, now_ns: int) -> None:
        scope = "all" if alert.node == FIRM else alert.node
        held = self._controls.get(scope)
        if held is not None and STATES.index(held.state) >= STATES.index(state):
            return
        control = Control(scope=scope, state=state, by="deskrisk", ts=now_ns, rev=(held.rev if held else 0) + 1,
                          reason=f"{alert.metric} {alert.value:.10g} above {alert.limit:.10g} ({alert.limit_id})")
        self.take(control)
        self._publisher.send(self._topics["controls"], scope.encode(), encode(control))
        self._counters.add("circuit_breaker_trips_total", scope=scope, reason=alert.metric)
        log.warning("breaker of %s: %s, %s", scope, state, control.reason)
