"""Limits on measured figures: approach, breach, clear with hysteresis; what each change of state calls for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from schemas.records import Alert, Limit
from schemas.units import parse_ts_ns

OK, APPROACH, BREACH = SEVERITY = ("ok", "approach", "breach")
_STATE_OF_KIND = {"approach": APPROACH, "breach": BREACH, "clear": OK}
#: a state is left only when the utilisation has fallen this far below what entered it
HYSTERESIS = 0.03
#: a breach that nobody acknowledged is raised again after this long
ESCALATE_NS = 60_000_000_000
#: figures that a limit bounds in size, whichever their sign
SIGNED = frozenset({"net", "delta", "gamma", "vega", "theta", "rho"})
#: limits on one position of an account, with what works
POSITION_METRICS = ("position_long", "position_short")
#: metrics of a window of time, and how long it is where a limit names none
WINDOWS_MS = {"message_count": 1_000, "message_value": 1_000, "reject_rate": 60_000, "reject_count": 60_000}


class LimitKey(NamedTuple):
    """What a limit is on: limits that share it bound the same figure."""

    node: str
    metric: str
    #: 0 where the metric is not one of a window of time
    window_ms: int = 0
    #: where it is on one position
    instrument: str = ""


def key_of(limit: Limit) -> LimitKey:
    """Return what a limit is on."""
    window_ms = WINDOWS_MS.get(limit.metric, 0) and (limit.window_ms or WINDOWS_MS[limit.metric])
    return LimitKey(limit.node, limit.metric, window_ms,
                    limit.instrument or "" if limit.metric in POSITION_METRICS else "")


@dataclass
class Watch:
    """One limit as it stands."""

    limit: Limit
    #: the limit in force: a temporary one stands in for the lasting ones of its node and metric
    held: Limit
    #: when it ends; None: it lasts
    until_ns: int | None = None
    state: str = OK
    value: float | None = None
    utilisation: float | None = None
    alert: Alert | None = None
    escalated: bool = False
    #: the trading state it calls for is called for once more, if it is still breached
    trips_again: bool = False
    #: when it was measured as severe as its state last, and when the newest alert of it was raised
    severe_ns: int = 0
    raised_ns: int = 0


@dataclass
class Change:
    """A limit changed its state: the alert to raise, and the trading state a breach calls for (or None)."""

    alert: Alert
    control: str | None = None
    #: nothing changed: to be raised only where the trading state does not stand (any more)
    again: bool = False


@dataclass
class LimitMonitor:
    """Limits on the metrics that one stage measures, and their states; time is an argument.

    Parameters
    ----------
    is_mine : whether this stage measures a metric of a node
    """

    is_mine: Callable[[str, str], bool] = lambda node, metric: True
    watches: dict[str, Watch] = field(default_factory=dict)
    #: what a limit is, or was, approached or breached on
    standing: set[LimitKey] = field(default_factory=set)
    #: the least utilisation at which a limit was ever approached
    warns_at: float = math.inf
    _by_key: dict[LimitKey, list[Watch]] = field(default_factory=dict)
    #: newest alerts of limits that are not there: what stood before a restart, or of a limit that was taken away
    _orphans: dict[str, Alert] = field(default_factory=dict)

    def add(self, limit: Limit) -> None:
        """Take a limit in; a newer version replaces an older one and keeps the state until it is measured anew.

        Raises
        ------
        ValueError
            Its end is no time; nothing changed.
        """
        until_ns = None if limit.until is None else parse_ts_ns(limit.until, "until")
        watch, key = self.watches.get(limit.limit_id), key_of(limit)
        if watch is not None and limit.version < watch.limit.version:
            return
        if watch is not None and (key_of(watch.limit) != key or not self.is_mine(limit.node, limit.metric)):
            self.remove(limit.limit_id)  # what stands of it is not of what it is on by now
            watch = None
        if not self.is_mine(limit.node, limit.metric):
            return
        self.warns_at = min(self.warns_at, limit.warn)
        if watch is not None:
            watch.limit, watch.until_ns = limit, until_ns
            self._by_key[key].remove(watch)  # of several temporary ones the newest is in force
            self._by_key[key].append(watch)
            return
        watch = self.watches[limit.limit_id] = Watch(limit, limit, until_ns)
        self._by_key.setdefault(key, []).append(watch)
        before = self._orphans.get(limit.limit_id)
        if before is not None and (before.node, before.metric) == (limit.node, limit.metric):
            self._resume(watch, self._orphans.pop(limit.limit_id))

    def remove(self, limit_id: str) -> None:
        """Take a limit away."""
        watch = self.watches.pop(limit_id, None)
        if watch is not None:
            self._by_key[key_of(watch.limit)].remove(watch)
            if watch.alert is not None:
                self._orphans[limit_id] = watch.alert

    def follow(self, alert: Alert) -> None:
        """Take an alert from the log in: what stood before a restart, or at who measured the node before, goes on.

        One that a person has seen is not escalated.
        """
        if alert.limit_id is None or alert.kind not in _STATE_OF_KIND or not self.is_mine(alert.node, alert.metric):
            return
        watch, before = self.watches.get(alert.limit_id), self._orphans.get(alert.limit_id)
        if watch is not None and (watch.limit.node, watch.limit.metric) == (alert.node, alert.metric):
            self._resume(watch, alert)
        elif alert.kind == "clear":
            self._orphans.pop(alert.limit_id, None)
        elif before is None or alert.raised_ts >= before.raised_ts or alert.alert_id == before.alert_id:
            self._orphans[alert.limit_id] = alert

    def _resume(self, watch: Watch, alert: Alert) -> None:
        if alert.raised_ts > watch.raised_ns:
            watch.state, watch.raised_ns, watch.severe_ns = _STATE_OF_KIND[alert.kind], alert.raised_ts, alert.raised_ts
            watch.alert, watch.escalated = alert if alert.kind != "clear" else None, alert.escalated
            self.standing.add(key_of(watch.limit))
            watch.trips_again = watch.state == BREACH  # a kill may have come between an alert and what it trips
        if alert.ack_by is not None and watch.alert is not None and watch.alert.alert_id == alert.alert_id:
            watch.escalated = True

    def clear_removed(self, speaks_for: Callable[[str], bool], now_ns: int) -> list[Change]:
        """Return the end of what stands of this stage's limits that are not there any more, on nodes it speaks for."""
        gone = [alert for alert in self._orphans.values() if speaks_for(alert.node)]
        for alert in gone:
            del self._orphans[str(alert.limit_id)]
        return [Change(msgspec.structs.replace(
            alert, alert_id=f"{alert.limit_id}.removed.{now_ns}", kind="clear", cause_ts=now_ns, raised_ts=now_ns,
            escalated=False, ack_by=None, note="the limit was taken away")) for alert in gone]

    def reconsider(self, node: str) -> None:
        """Call for the trading state of what is breached on a node once more: a person has lifted it."""
        for watch in self.watches.values():
            watch.trips_again = watch.trips_again or (watch.limit.node == node and watch.state == BREACH)

    def measure(self, values: Mapping[LimitKey, float], now_ns: int, snapshot_id: int,
                partial: AbstractSet[str] = frozenset(), cause_ns: int | None = None) -> list[Change]:
        """Hold values against limits; return what changed.

        Parameters
        ----------
        values : what is not there, or NaN, is unknown and changes no state
        partial : nodes with positions that could not be valued: what is known may breach a limit, but clears none
        cause_ns : when what was measured happened; None: with the snapshot
        """
        out: list[Change | None] = []
        at = (now_ns, snapshot_id, (snapshot_id or now_ns) if cause_ns is None else cause_ns)
        for key, value in values.items():
            watches = self._by_key.get(key, [])
            if not watches:
                self.standing.discard(key)
            if value != value or not watches:
                continue
            in_force, ended = _in_force(watches, now_ns)
            out += [_change(watch, OK, *at) for watch in ended]
            for watch in in_force:
                bound, size = float(watch.held.limit), abs(value) if key.metric in SIGNED else value
                used = size / bound if bound else math.inf if size > 0.0 else 0.0
                watch.value, watch.utilisation = value, used if used < math.inf else None
                state = _state_at(watch, used)
                if SEVERITY.index(state) >= SEVERITY.index(watch.state):
                    watch.severe_ns = now_ns
                # what is counted in a window leaves it by itself: it has to stay below for all of one
                elif key.node in partial or now_ns - watch.severe_ns < key.window_ms * 1_000_000:
                    continue
                out.append(_change(watch, state, *at))
            (self.standing.add if any(w.state != OK for w in watches) else self.standing.discard)(key)
        return [change for change in out if change is not None]


def _in_force(watches: list[Watch], now_ns: int) -> tuple[list[Watch], list[Watch]]:
    """Return the watches of a figure that are held against it, each with the limit in force, and ended ones."""
    temporary = [w for w in watches if w.until_ns is not None and w.until_ns > now_ns]
    found = [w for w in watches if w.until_ns is None] or temporary[-1:]
    for watch in found:
        watch.held = temporary[-1].limit if temporary else watch.limit
    return found, [w for w in watches if w.state != OK and w not in found]


def _state_at(watch: Watch, used: float) -> str:
    warn = watch.held.warn
    breach_at = 1.0 - HYSTERESIS if watch.state == BREACH else 1.0
    warn_at = warn - HYSTERESIS if watch.state != OK else warn
    # a breach is a value above the limit; at the limit it is only approached
    over = used > breach_at if breach_at == 1.0 else used >= breach_at
    return BREACH if over else APPROACH if used >= warn_at else OK


def _change(watch: Watch, state: str, now_ns: int, snapshot_id: int, cause_ns: int) -> Change | None:
    """Set a watch's state; return the alert of a change, of a breach nobody saw, or of one that trips again."""
    before, repeated = watch.state, watch.alert
    escalates = state == BREACH and repeated is not None and not watch.escalated and (
        now_ns - repeated.raised_ts >= ESCALATE_NS)
    trips_again = state == BREACH and watch.trips_again
    watch.trips_again = False
    if state == before and not escalates and not trips_again:
        return None
    kind = "clear" if SEVERITY.index(state) < SEVERITY.index(before) else state
    held, watch.state, watch.escalated = watch.held, state, state == before and (escalates or watch.escalated)
    alert_id = f"{watch.limit.limit_id}.{held.version}.{kind}.{snapshot_id or now_ns}"
    if state == before and repeated is not None:
        alert_id = repeated.alert_id
    alert = Alert(alert_id=alert_id, kind=kind, node=held.node, metric=held.metric,  # type: ignore[arg-type]
                  value=watch.value, limit=float(held.limit), utilisation=watch.utilisation, cause_ts=cause_ns,
                  raised_ts=now_ns, snapshot_id=snapshot_id, limit_id=watch.limit.limit_id,
                  limits_version=held.version, escalated=escalates)
    watch.alert, watch.raised_ns = alert if kind != "clear" else None, now_ns
    wanted = {"reduce": "reducing", "halt": "halted"}.get(held.action) if not escalates else None
    return Change(alert, wanted if state == BREACH else None, again=state == before and not escalates)
