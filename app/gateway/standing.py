"""How much of each limit is used, as the gateway knows it: from its own book, nodes' records, what gates say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from app.gateway.state import GatewayState
from app.gateway.used_limits import UsedLimits
from models.gate.watched import is_of_gate
from models.limits import SIGNED, LimitKey, key_of
from models.limits_in_force import end_of, in_force
from models.risk.limit_values import left_out_of, sum_values
from schemas.records import Alert, Limit

#: what of a node's historical VaR a limit is held against
_OF_VAR = {"var_hist": "var_99", "es_hist": "es_97_5"}


class Standing(NamedTuple):
    """What a limit is held against now."""

    #: None: only who measures it knows
    value: float | None
    utilisation: float | None
    #: ok, approach or breach, as the newest alert says
    state: str
    #: whether positions are left out of the value
    partial: bool
    #: whether it is held, and no temporary one of two people in its place
    in_force: bool


def standings(state: GatewayState, used: UsedLimits, limits: Sequence[Limit], now_ns: int) -> list[Standing]:
    """Return how limits stand: all that are on some nodes."""
    alerts = {(a.limit_id, a.node, a.metric): a for a in state.open_alerts() if a.kind in ("approach", "breach")}
    alike: dict[tuple[LimitKey, str], list[tuple[Limit, int | None]]] = {}
    for x in limits:  # the newest version last, as gates and monitors have them
        alike.setdefault((key_of(x), x.mode), []).append((x, end_of(x)))
    held = {x.limit_id for found in alike.values() for x in in_force(found, now_ns)[0]}
    values = [used.value(key_of(x), now_ns) if is_of_gate(x.node, x.metric) else _value(state, x) for x in limits]
    return [_standing(state, x, value, alerts.get((x.limit_id, x.node, x.metric)),
                      x.limit_id in held)
            for x, value in zip(limits, values, strict=True)]


def _standing(state: GatewayState, limit: Limit, value: float | None, alert: Alert | None, in_force: bool) -> Standing:
    if value is None and alert is not None:
        value = alert.value
    used = None
    if value is not None and float(limit.limit) != 0.0:
        used = (abs(value) if limit.metric in SIGNED else value) / float(limit.limit)
    return Standing(value, used, "ok" if alert is None else alert.kind, _is_partial(state, limit), in_force)


def _is_partial(state: GatewayState, limit: Limit) -> bool:
    k = state.book.rollup.node_index.get(limit.node)
    return k is not None and left_out_of(limit.metric, state.book.rollup.nodes[k]) > 0


def _value(state: GatewayState, limit: Limit) -> float | None:
    rollup = state.book.rollup
    node = rollup.node_index.get(limit.node)
    if node is None:
        return None
    value = sum_values(limit.node, rollup.nodes[node]).get(limit.metric)
    risk = state.risk(limit.node) if limit.metric in _OF_VAR else None
    if risk is not None and risk.base_currency == state.book.market.base_currency:  # limits are in the firm's
        value = (risk.models or {}).get("var_hist", {}).get(_OF_VAR[limit.metric])
    return float(value) if value is not None and math.isfinite(value) else None
