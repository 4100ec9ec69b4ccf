"""Alerts of accepted orders that exceeded a limit: a soft one, or one that two people let them pass."""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas.records import Alert, Decision, Limit, Reason

#: what stays above a soft limit is told once in this long, and how many orders it was
REPEAT_NS = 60_000_000_000


@dataclass
class PassedLimits:
    """Says that orders passed a limit: at once, then at most once a minute for each limit."""

    #: limit, node and check -> when it was told last, and the orders since
    _told: dict[tuple[str, str, str], tuple[int, int]] = field(default_factory=dict)

    def alerts(self, decision: Decision, limits: dict[str, Limit]) -> list[Alert]:
        """Return what to raise for a decision."""
        found = []
        for reason in decision.warnings if decision.outcome == "accept" else ():
            key = (reason.limit_id or "", reason.node or f"account:{decision.account}", reason.code)
            overridden = "override" in decision.inputs
            told, since = self._told.get(key, (None, 0))
            if not overridden and told is not None and decision.ts_decision - told < REPEAT_NS:
                self._told[key] = told, since + 1
                continue
            if not overridden:
                self._told[key] = decision.ts_decision, 0
            found.append(_alert(decision, reason, key[1], limits.get(key[0]), since, overridden))
        return found


def _alert(decision: Decision, reason: Reason, node: str, limit: Limit | None, since: int, overridden: bool) -> Alert:
    kind, what = ("override", f"by {decision.inputs['override']}") if overridden else ("soft", "above a soft limit")
    measured, bound = float(reason.measured), float(reason.limit)
    return Alert(
        alert_id=f"{kind}.{decision.order_id}.{reason.code}.{node}", kind=kind, node=node,  # type: ignore[arg-type]
        metric=reason.code.lower() if limit is None else limit.metric, value=measured, limit=bound,
        utilisation=measured / bound if bound else None, cause_ts=decision.ts_event,
        raised_ts=decision.ts_decision, snapshot_id=decision.snapshot_id, limit_id=reason.limit_id,
        limits_version=decision.limits_version,
        note=f"order {decision.order_id} accepted {what}" + (f", and {since} before it" if since else ""))
