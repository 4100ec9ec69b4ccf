"""How full a gate is: an alert long before orders are refused for it, and another when they are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Set
from typing import Literal

from agents.ports import Counters
from models.gate.state import GateState
from models.limits import Change
from models.reference import FIRM
from schemas.records import Alert

log = logging.getLogger(__name__)
#: of what there may be, when it is told
WARN_AT = 0.75
#: what it means that there are no more, where that is of records
_FULL = {what: f"orders in more of them are refused: NO_ROOM; DESKRISK_GATE_{what.upper()} says how many there may be"
         for what in ("accounts", "instruments")}
Fullness = Literal["clear", "approach", "breach"]


class GateRoom:
    """Says how full the columns of a gate are, once for each change; what stands of that is on the log of alerts.

    Parameters
    ----------
    state : the columns of the gate
    raise_all : publishes alerts
    """

    def __init__(self, state: GateState, counters: Counters, raise_all: Callable[[list[Change], int], None]) -> None:
        self._state, self._counters, self._raise_all = state, counters, raise_all
        #: by id of alerts: what was said last, by this gate or by who owned its partitions before
        self._said: dict[str, str] = {}

    def follow(self, alert: Alert) -> None:
        """Take an alert from the log in, if it is of this kind."""
        if alert.alert_id.startswith("gate.room."):
            self._said[alert.alert_id] = alert.kind

    def look(self, owned: Set[int], now_ns: int, snapshot_id: int) -> None:
        """Say what has changed; a gate speaks as the first partition that it owns, and clears what others said."""
        self._counters.set("gate_names_without_node", len(self._state.without_node))
        for what, names in self._state.left_out.items():
            self._counters.set("gate_left_out", len(names), of=what)
        for what, (used, most) in self._state.room().items():
            self._counters.set("gate_room_used", used / most, of=what)
            kind: Fullness = "breach" if used >= most else "approach" if used >= WARN_AT * most else "clear"
            for p in sorted(owned):
                wanted, alert_id = kind if p == min(owned) else "clear", f"gate.room.{p}.{what}"
                if self._said.get(alert_id, "clear") == wanted:
                    continue
                self._said[alert_id] = wanted
                self._counters.add("gate_room_alerts", of=what, kind=wanted)
                log.warning("gate: %d of the %d %s that there may be are open", used, most, what)
                note = None if kind != "breach" else _FULL.get(what, "orders that would open more are refused: NO_ROOM")
                self._raise_all([Change(Alert(
                    alert_id=alert_id, kind=wanted, node=FIRM, metric=f"gate_{what}", value=float(used),
                    limit=float(most), utilisation=used / most, cause_ts=now_ns, raised_ts=now_ns,
                    snapshot_id=snapshot_id, note=note))], now_ns)
