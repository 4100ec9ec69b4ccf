"""Events of the stream that are facts or models: their bodies."""

from __future__ import annotations

from typing import Any

import msgspec

from models.limits import is_still_approached
from schemas.nodes import Risk
from schemas.records import Alert, Control, Decision


def standing(alert: Alert) -> Alert:
    """Return an alert as what stands after it: a clear that leaves its limit approached is an approach."""
    return msgspec.structs.replace(alert, kind="approach") if is_still_approached(alert) else alert


def alert_event(alert: Alert) -> dict[str, Any]:
    """Return an alert as the stream carries it."""
    alert = standing(alert)
    state = "acked" if alert.ack_by else "cleared" if alert.kind == "clear" else "raised"
    times = {"cause_t": alert.cause_ts // 1_000_000, "raised_t": alert.raised_ts // 1_000_000}
    return msgspec.to_builtins(alert) | times | {"aid": alert.alert_id, "state": state, "ack": alert.ack_by}


def breaker_event(control: Control) -> dict[str, Any]:
    """Return a trading state as the stream carries it."""
    return msgspec.to_builtins(control) | {"why": control.reason}


def reject_event(decision: Decision) -> dict[str, Any]:
    """Return a refused or cancelled order as the stream carries it."""
    order = decision.order
    return {"rid": f"{decision.order_id}.{decision.ts_decision}", "t": decision.ts_decision // 1_000_000,
            "order": decision.order_id, "account": decision.account, "inst": decision.instrument,
            "outcome": decision.outcome, "side": order.side.upper() if order else None,
            "qty": float(order.quantity) if order and order.quantity is not None else None,
            "checks": [{"check": r.code, "would_be": r.measured, "limit": r.limit, "node": r.node}
                       for r in decision.reasons]}


def risk_event(risk: Risk, seq: int) -> dict[str, Any]:
    """Return a node's models as the stream carries them: a headline number each, its quality, and the details."""
    models = risk.models or {}
    prior = risk.prior_day or {}
    rows = []
    for name, (key, metric) in HEADLINES.items():
        m = models.get(name, {})
        rows.append({"m": name, "metric": key, "v": m.get(key), "prev": prior.get(metric) if metric else None,
                     "q": m.get("quality", "missing"), "missing": m.get("missing", 0), "detail": m})
    return {"seq": seq, "t": risk.ts // 1_000_000, "node": risk.node, "ccy": risk.base_currency,
            "snapshot_id": risk.snapshot_id, "models": rows, "top": risk.top or {}}


#: the number of each model that stands for it, and what it is called among the prior day's metrics
HEADLINES = {"var_hist": ("var_99", "var_hist"), "var_mc": ("var_99", "var_mc"), "greeks": ("delta", "delta"),
             "factor": ("volatility", None), "liquidity": ("liquidity_adjusted_var_99", None),
             "concentration": ("hhi", None), "leverage": ("gross", None), "drawdown": ("since_inception", None)}
