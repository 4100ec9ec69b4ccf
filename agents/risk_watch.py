"""Limits and trading states as the risk stage watches them: what it measures itself, and what is of nobody."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from agents.limit_alerts import SAID_MAX, SAY_S, LimitAlerts
from agents.of_nobody import OfNobody
from agents.ports import Counters, Publisher
from models.gate.watched import is_of_gate
from models.known_nodes import KnownNodes
from models.limits import LimitKey
from models.reference import Reference
from models.risk.limit_values import SUM_METRICS, limit_values, unknown_figures
from models.risk.live import RiskModels
from schemas.addresses import LimitsUsed
from schemas.codec import encode
from schemas.records import Alert


class RiskWatch(LimitAlerts):
    """The alerts and breakers of the risk stage.

    Parameters
    ----------
    reference : names what limits and states are of
    levels : of the tree
    """

    def __init__(self, topics: dict[str, str], publisher: Publisher, counters: Counters, reference: Reference,
                 levels: Sequence[str]) -> None:
        super().__init__(topics, publisher, counters, lambda node, metric: not is_of_gate(node, metric), levels)
        #: what models measure of limited nodes, as it was measured last; when it was said
        self._used: dict[tuple[str, str], float] = {}
        self._said_ns = 0
        self._of_nobody = OfNobody(topics["alerts"], publisher, KnownNodes(reference, levels))

    def take_alert(self, alert: Alert) -> None:
        """Take an alert from the log in."""
        super().take_alert(alert)
        self._of_nobody.follow(alert)

    def look(self, models: RiskModels, now_ns: int, speaks_for: Callable[[str], bool]) -> None:
        """Hold the limited nodes that this worker speaks for against their limits; raise alerts, trip breakers."""
        limits = [w.limit for w in self.monitor.watches.values() if speaks_for(w.limit.node)]
        values = limit_values(models, {x.node for x in limits}, {x.metric for x in limits})
        unknown = unknown_figures(models, {(x.node, x.metric) for x in limits}, values)
        self.measured({LimitKey(*k): v for k, v in values.items()}, now_ns, models.book.snapshot_id, speaks_for,
                      {LimitKey(*k): why for k, why in unknown.items()})
        self._used = {k: v for k, v in values.items() if k in unknown and k[1] not in SUM_METRICS}

    def say_used(self, partitions: list[int], now_ns: int) -> None:
        """Say what limits come to that models measure, now and then: sums of positions every gateway has itself.

        Parameters
        ----------
        partitions : of `positions` that this worker owns, in order
        """
        if not partitions or now_ns - self._said_ns < SAY_S * 1e9:
            return
        self._said_ns = now_ns
        used = [(node, metric, 0, "", value) for (node, metric), value in sorted(self._used.items())
                if math.isfinite(value)][:SAID_MAX]
        self._publisher.send(self._topics["limits-used"], f"risk|{partitions[0]}".encode(),
                             encode(LimitsUsed(of="risk", partitions=partitions, used=used, ts=now_ns)), 0)

    def settle(self, now_ns: int) -> None:
        """Write what stands once more where the newest record is another one; say what is of nobody."""
        super().settle(now_ns)
        self._of_nobody.look(self.door.standing.values(), self.states.standing.values(), now_ns)
