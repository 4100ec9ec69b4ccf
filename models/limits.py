"""Limits on measured figures: approach, breach, clear with hysteresis; what each change of state calls for."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from schemas.records import Alert, Limit
from schemas.units import parse_ts_ns

OK, APPROACH, BREACH = SEVERITY = ("ok", "approach", "breach")
#: a state is left only when the utilisation has fallen this far below what entered it
HYSTERESIS = 0.03
#: a breach that nobody acknowledged is raised again after this long
ESCALATE_NS = 60_000_000_000
#: figures that a limit bounds in size, whichever their sign
SIGNED = frozenset({"net", "delta", "gamma", "vega", "theta", "rho"})


@dataclass
class Watch:
    """One limit as it stands."""

    limit: Limit
    state: str = OK
    value: float | None = None
    utilisation: float | None = None
    alert: Alert | None = None
    escalated: bool = False
    bound: float = 0.0


@dataclass
class Change:
    """A limit changed its state: the alert to raise, and the trading state a breach calls for (or None)."""

    alert: Alert
    control: str | None = None


@dataclass
class LimitMonitor:
    """All limits on measured metrics, and their states; time is an argument."""

    watches: dict[str, Watch] = field(default_factory=dict)

    def add(self, limit: Limit) -> None:
        """Take a limit in; a newer version replaces an older one and keeps the state until it is measured anew."""
        held = self.watches.get(limit.limit_id)
        if held is None:
            self.watches[limit.limit_id] = Watch(limit)
        elif limit.version >= held.limit.version:
            held.limit = limit

    def remove(self, limit_id: str) -> None:
        """Take a limit away."""
        self.watches.pop(limit_id, None)

    def acknowledge(self, alert_id: str) -> None:
        """Note that a person has seen an alert: it is not escalated."""
        for watch in self.watches.values():
            if watch.alert is not None and watch.alert.alert_id == alert_id:
                watch.escalated = True

    def measure(self, values: Mapping[tuple[str, str], float], now_ns: int, snapshot_id: int,
                partial: AbstractSet[str] = frozenset()) -> list[Change]:
        """Hold values against limits; return what changed.

        Parameters
        ----------
        values : (node, metric) -> value; a metric that is not there is unknown and changes no state
        partial : nodes with positions that could not be valued: what is known may breach a limit, but clears none
        """
        out = []
        lasting = {(w.limit.node, w.limit.metric): w.limit for w in self.watches.values()
                   if w.limit.until is not None and parse_ts_ns(w.limit.until) > now_ns}
        for watch in self.watches.values():
            if watch.limit.until is not None:
                continue  # while it lasts it stands in for the lasting limits of its node and metric
            limit = lasting.get((watch.limit.node, watch.limit.metric), watch.limit)
            value = values.get((limit.node, limit.metric))
            if value is None or value != value or float(limit.limit) == 0.0:
                watch.value = watch.utilisation = None
                continue
            size = abs(value) if limit.metric in SIGNED else value
            watch.bound = float(limit.limit)
            watch.value, watch.utilisation = value, size / float(limit.limit)
            state = self._state(watch)
            if limit.node in partial and SEVERITY.index(state) < SEVERITY.index(watch.state):
                continue
            if state != watch.state:
                out.append(self._change(watch, state, now_ns, snapshot_id))
            elif state == BREACH and watch.alert is not None and not watch.escalated \
                    and now_ns - watch.alert.raised_ts >= ESCALATE_NS:
                watch.escalated = True
                out.append(Change(self._alert(watch, BREACH, now_ns, snapshot_id, watch.alert.alert_id, True)))
        return out

    @staticmethod
    def _state(watch: Watch) -> str:
        u, warn = watch.utilisation or 0.0, watch.limit.warn
        breach_at = 1.0 - HYSTERESIS if watch.state == BREACH else 1.0
        warn_at = warn - HYSTERESIS if watch.state != OK else warn
        # a breach is a value above the limit; at the limit it is only approached
        over = u > breach_at if breach_at == 1.0 else u >= breach_at
        return BREACH if over else APPROACH if u >= warn_at else OK

    def _change(self, watch: Watch, state: str, now_ns: int, snapshot_id: int) -> Change:
        kind = {OK: "clear", APPROACH: "clear" if watch.state == BREACH else "approach", BREACH: "breach"}[state]
        watch.state, watch.escalated = state, False
        limit = watch.limit
        alert = self._alert(watch, kind, now_ns, snapshot_id, f"{limit.limit_id}.{limit.version}.{kind}.{snapshot_id}",
                            False)
        watch.alert = alert if kind != "clear" else None
        wanted = {"reduce": "reducing", "halt": "halted"}.get(limit.action)
        return Change(alert, wanted if state == BREACH else None)

    @staticmethod
    def _alert(watch: Watch, kind: str, now_ns: int, snapshot_id: int, alert_id: str, escalated: bool) -> Alert:
        limit = watch.limit
        return Alert(alert_id=alert_id, kind=kind, node=limit.node, metric=limit.metric,  # type: ignore[arg-type]
                     value=watch.value, limit=watch.bound, utilisation=watch.utilisation,
                     cause_ts=snapshot_id or now_ns, raised_ts=now_ns, snapshot_id=snapshot_id,
                     limit_id=limit.limit_id, limits_version=limit.version, escalated=escalated)
