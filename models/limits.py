"""Limits on measured figures: approach, breach, clear with hysteresis; what each change of state calls for."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from models.limits_in_force import in_force
from schemas.records import Alert, Limit
from schemas.units import parse_ts_ns

OK, APPROACH, BREACH = SEVERITY = ("ok", "approach", "breach")
_STATE_OF_KIND = {"approach": APPROACH, "breach": BREACH, "clear": OK}
#: a state is left only when the utilisation has fallen this far below what entered it
HYSTERESIS = 0.03
#: a breach that nobody acknowledged is raised again after this long
ESCALATE_NS = 60_000_000_000
#: a figure that stays unknown, or leaves something out, for so long is said to be: a start, or one late mark, is not
UNKNOWN_NS = 10_000_000_000
#: how the note of a clear begins that leaves its limit approached; what a person notes on it comes after
STILL = "below the limit, still approached"
#: what alerts that say so are about: this, and the limit
UNKNOWN_ID = "unknown."
#: alerts of limits that are not there that are kept: others speak for their nodes, or nobody does any more
ORPHANS_MAX = 4_096
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
    #: the limit in force: a temporary one of two people stands in for the lasting ones of its figure and mode
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
    #: why the figure is not known, or not all of it, and since when; the alert that says so
    why: str = ""
    unknown_ns: int = 0
    unknown: Alert | None = None


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
        for stands in (limit.limit_id, UNKNOWN_ID + limit.limit_id):
            before = self._orphans.get(stands)
            if before is not None and (before.node, before.metric) == (limit.node, limit.metric):
                self._resume(watch, self._orphans.pop(stands))

    def remove(self, limit_id: str) -> None:
        """Take a limit away."""
        watch = self.watches.pop(limit_id, None)
        if watch is not None:
            key = key_of(watch.limit)
            self._by_key[key].remove(watch)
            if not self._by_key[key]:
                del self._by_key[key]
                self.standing.discard(key)
            if watch.alert is not None:
                self._orphan(limit_id, msgspec.structs.replace(watch.alert, escalated=watch.escalated))
            if watch.unknown is not None:
                self._orphan(UNKNOWN_ID + limit_id, watch.unknown)

    def _orphan(self, limit_id: str, alert: Alert) -> None:
        """Keep what stands of a limit that is not there, the newest ones: whoever speaks for its node ends it."""
        self._orphans.pop(limit_id, None)
        self._orphans[limit_id] = alert
        if len(self._orphans) > ORPHANS_MAX:
            del self._orphans[next(iter(self._orphans))]

    def follow(self, alert: Alert) -> None:
        """Take an alert from the log in: what stood before a restart, or at who measured the node before, goes on.

        One that a person has seen is not escalated.
        """
        limit_id = alert.limit_id
        if limit_id is None or not self.is_mine(alert.node, alert.metric):
            return
        if alert.kind not in _STATE_OF_KIND and not _is_unknown(alert):
            return
        named = limit_id.removeprefix(UNKNOWN_ID) if _is_unknown(alert) else limit_id
        watch, before = self.watches.get(named), self._orphans.get(limit_id)
        if watch is not None and (watch.limit.node, watch.limit.metric) == (alert.node, alert.metric):
            self._resume(watch, alert)
        elif not _stands(alert):
            self._orphans.pop(limit_id, None)
        elif before is None or alert.raised_ts >= before.raised_ts or alert.alert_id == before.alert_id:
            if before is not None and before.alert_id == alert.alert_id:  # raised again, it has been seen all the same
                alert = msgspec.structs.replace(alert, ack_by=alert.ack_by or before.ack_by,
                                                escalated=alert.escalated or before.escalated)
            self._orphan(limit_id, alert)

    def _resume(self, watch: Watch, alert: Alert) -> None:
        if _is_unknown(alert):
            if watch.unknown is None or alert.raised_ts >= watch.unknown.raised_ts:
                watch.unknown = None if alert.kind == "clear" else alert
            return
        if alert.raised_ts > watch.raised_ns:
            seen = watch.escalated and watch.alert is not None and watch.alert.alert_id == alert.alert_id
            watch.state = APPROACH if is_still_approached(alert) else _STATE_OF_KIND[alert.kind]
            watch.raised_ns = watch.severe_ns = alert.raised_ts
            watch.alert, watch.escalated = alert if _stands(alert) else None, alert.escalated or seen
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

    def state_hash(self) -> str:
        """Return a digest of what stands of every limit, there or taken away; a restart from the log has the same one.

        What is measured anew at once (values, times of the last measure) is no part of it.
        """
        of = [(name, w.state, w.alert.alert_id if w.alert else "", w.raised_ns if w.alert else 0,
               w.alert is not None and w.escalated, w.unknown.alert_id if w.unknown else "")
              for name, w in self.watches.items()]
        gone = [(name, a.kind, a.alert_id, a.raised_ts, a.escalated or a.ack_by is not None, "")
                for name, a in self._orphans.items()]
        return hashlib.blake2b(repr((sorted(of), sorted(gone))).encode(), digest_size=16).hexdigest()

    def measure(self, values: Mapping[LimitKey, float], now_ns: int, snapshot_id: int,
                unknown: Mapping[LimitKey, str] | None = None, cause_ns: int | None = None) -> list[Change]:
        """Hold values against limits; return what changed.

        Parameters
        ----------
        values : what is not there, or NaN, is unknown and changes no state
        unknown : why figures are not known, or leave something out ("": they are whole); what is known of them may
            breach a limit, but clears none, and while no breach stands it is said that the limit cannot be judged
        cause_ns : when what was measured happened; None: with the snapshot
        """
        unknown = unknown or {}
        out: list[Change | None] = []
        at = (now_ns, snapshot_id, (snapshot_id or now_ns) if cause_ns is None else cause_ns)
        for key, value in values.items():
            watches = self._by_key.get(key, [])
            if not watches:
                self.standing.discard(key)
            if value != value or not watches:
                continue
            held, ended = _in_force(watches, now_ns)
            out += [_change(watch, OK, *at) for watch in ended]
            for watch in held:
                bound, size = float(watch.held.limit), abs(value) if key.metric in SIGNED else value
                used = size / bound if bound else math.inf if size > 0.0 else 0.0
                watch.value, watch.utilisation = value, used if used < math.inf else None
                state = _state_at(watch, used)
                if SEVERITY.index(state) >= SEVERITY.index(watch.state):
                    watch.severe_ns = now_ns
                # what is counted in a window leaves it by itself: it has to stay below for all of one
                elif unknown.get(key) or now_ns - watch.severe_ns < key.window_ms * 1_000_000:
                    continue
                out.append(_change(watch, state, *at))
            (self.standing.add if any(w.state != OK for w in watches) else self.standing.discard)(key)
        for key in dict.fromkeys([*unknown, *values]):
            in_force = _in_force(self._by_key.get(key, []), now_ns)[0]
            out += [_said(w, unknown.get(key, "") if w in in_force else "", *at) for w in self._by_key.get(key, [])]
        return [change for change in out if change is not None]


def is_still_approached(alert: Alert) -> bool:
    """Whether an alert ends a breach and leaves its limit approached."""
    return alert.kind == "clear" and alert.note is not None and alert.note.startswith(STILL)


def _stands(alert: Alert) -> bool:
    return alert.kind != "clear" or is_still_approached(alert)


def _is_unknown(alert: Alert) -> bool:
    return alert.limit_id is not None and alert.limit_id.startswith(UNKNOWN_ID) and alert.kind in ("stale", "clear")


def _said(watch: Watch, why: str, now_ns: int, snapshot_id: int, cause_ns: int) -> Change | None:
    """Note why a watch's figure is not known; return the alert that says so, or its end."""
    if why and not watch.why:
        watch.unknown_ns = now_ns
    watch.why = why
    wanted = bool(why) and watch.state != BREACH  # above its limit it is whatever it leaves out
    if wanted == (watch.unknown is not None) or (wanted and now_ns - watch.unknown_ns < UNKNOWN_NS):
        return None
    limit_id, held, kind = UNKNOWN_ID + watch.limit.limit_id, watch.held, "stale" if wanted else "clear"
    alert = Alert(alert_id=f"{limit_id}.{kind}.{snapshot_id or now_ns}", kind=kind,  # type: ignore[arg-type]
                  node=watch.limit.node, metric=watch.limit.metric, value=None, limit=float(held.limit),
                  utilisation=None, cause_ts=cause_ns, raised_ts=now_ns, snapshot_id=snapshot_id, limit_id=limit_id,
                  limits_version=held.version, note=why or None)
    watch.unknown = alert if wanted else None
    return Change(alert)


def _in_force(watches: list[Watch], now_ns: int) -> tuple[list[Watch], list[Watch]]:
    """Return the watches of a figure that are held against it, each with the limit in force, and ended ones."""
    found = []
    for mode in ("hard", "soft"):
        mine = [w for w in watches if w.limit.mode == mode]
        held, stands_in = in_force([(w.limit, w.until_ns) for w in mine], now_ns)
        for watch in mine:
            watch.held = watch.limit
            if stands_in is not None and watch.until_ns is None:
                watch.held = stands_in
            elif not any(watch.limit is x for x in held) or (
                    watch.limit is stands_in and any(w.until_ns is None for w in mine)):
                continue  # it has ended, or the lasting ones are held by it
            found.append(watch)
    return found, [w for w in watches if w.state != OK and not any(w is x for x in found)]


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
    # what was only approached, however long, is breached anew: it trips its breaker
    escalates = state == before == BREACH and repeated is not None and not watch.escalated and (
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
    # what trips once more was raised when it was raised: its escalation does not wait anew
    raised_ns = repeated.raised_ts if state == before and repeated is not None and not escalates else now_ns
    alert = Alert(alert_id=alert_id, kind=kind, node=held.node, metric=held.metric,  # type: ignore[arg-type]
                  value=watch.value, limit=float(held.limit), utilisation=watch.utilisation, cause_ts=cause_ns,
                  raised_ts=raised_ns, snapshot_id=snapshot_id, limit_id=watch.limit.limit_id,
                  limits_version=held.version, escalated=escalates,
                  note=STILL if kind == "clear" and state == APPROACH else None)
    watch.alert, watch.raised_ns = alert if _stands(alert) else None, raised_ns
    wanted = {"reduce": "reducing", "halt": "halted"}.get(held.action) if trips_again or not escalates else None
    return Change(alert, wanted if state == BREACH else None, again=state == before and not escalates)
