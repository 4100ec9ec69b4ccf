"""Limits and trading states as the risk stage watches them: what it measures itself, and what is of nobody."""

from __future__ import annotations

from collections.abc import Sequence

from agents.limit_alerts import LimitAlerts
from agents.of_nobody import OfNobody
from agents.ports import Counters, Publisher
from models.gate.watched import is_of_gate
from models.known_nodes import KnownNodes
from models.reference import Reference
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
        self._of_nobody = OfNobody(topics["alerts"], publisher, KnownNodes(reference, levels))

    def take_alert(self, alert: Alert) -> None:
        """Take an alert from the log in."""
        super().take_alert(alert)
        self._of_nobody.follow(alert)

    def settle(self, now_ns: int) -> None:
        """Write what stands once more where the newest record is another one; say what is of nobody."""
        super().settle(now_ns)
        self._of_nobody.look(self.door.standing.values(), self.states.standing.values(), now_ns)
