"""Limits and trading states of nodes that nobody has: they are kept, because accounts may come later, and said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from agents.ports import Publisher
from models.known_nodes import KnownNodes
from models.limits_in_force import end_of
from models.reference import FIRM
from schemas.codec import encode
from schemas.records import Alert, Control, Limit

#: what alerts that say so are about: this, then which limit or scope
OF_NOBODY = "nobody."
#: facts that come together come in any order: nobody is said to be missing before; and it is looked for so often
WAIT_NS, LOOK_NS = 2_000_000_000, 500_000_000


class _Missing(NamedTuple):
    node: str
    metric: str
    version: int
    limit: float | None
    note: str


class OfNobody:
    """Says on `alerts` what limits nobody and stops nobody, until somebody is there.

    Parameters
    ----------
    topic : `alerts`
    """

    def __init__(self, topic: str, publisher: Publisher, known: KnownNodes) -> None:
        self._topic, self._publisher, self._known = topic, publisher, known
        self._since: dict[str, int] = {}
        self._said: dict[str, Alert] = {}
        self._looked_ns = 0

    def follow(self, alert: Alert) -> None:
        """Take an alert from the log in: what was said before a restart is not said again, and ends."""
        if alert.limit_id is not None and alert.limit_id.startswith(OF_NOBODY):
            if alert.kind == "clear":
                self._said.pop(alert.limit_id, None)
            else:
                self._said[alert.limit_id] = alert

    def look(self, limits: Iterable[Limit], controls: Iterable[Control], now_ns: int) -> None:
        """Say what is of nobody, and what is not so any more."""
        if 0 <= now_ns - self._looked_ns < LOOK_NS:
            return
        self._looked_ns = now_ns
        missing = dict(self._missing(limits, controls, now_ns))
        self._since = {name: self._since.get(name, now_ns) for name in missing}
        for name, found in missing.items():
            if name not in self._said and now_ns - self._since[name] >= WAIT_NS:
                self._say(name, "stale", found, now_ns)
        for name in self._said.keys() - missing.keys():
            said = self._said[name]
            self._say(name, "clear", _Missing(said.node, said.metric, said.limits_version, said.limit, ""), now_ns)

    def _missing(self, limits: Iterable[Limit], controls: Iterable[Control], now_ns: int,
                 ) -> Iterator[tuple[str, _Missing]]:
        for limit in limits:
            nodes = [limit.node] if limit.instrument is None else [limit.node, f"instrument:{limit.instrument}"]
            gone = next((node for node in nodes if not self._known.has(node)), None)
            if gone is not None and ((end := end_of(limit)) is None or end > now_ns):
                yield f"{OF_NOBODY}limit.{limit.limit_id}", _Missing(
                    limit.node, limit.metric, limit.version, float(limit.limit),
                    f"{limit.limit_id} limits nobody: {self._known.nobody(gone)}")
        for control in controls:
            if control.state != "active" and not self._known.has(control.scope):
                yield f"{OF_NOBODY}scope.{control.scope}", _Missing(
                    control.scope, "trading state", control.rev, None,
                    f"{control.state} by {control.by}, and nobody is stopped: {self._known.nobody(control.scope)}")

    def _say(self, name: str, kind: str, found: _Missing, now_ns: int) -> None:
        alert = Alert(alert_id=f"{name}.{found.version}.{kind}.{now_ns}", kind=kind,  # type: ignore[arg-type]
                      node=FIRM if found.node == "all" else found.node, metric=found.metric, value=None,
                      limit=found.limit, utilisation=None, cause_ts=now_ns, raised_ts=now_ns, snapshot_id=0,
                      limit_id=name, limits_version=found.version, note=found.note or None)
        self.follow(alert)
        self._publisher.send(self._topic, alert.node.encode(), encode(alert))
