"""How much of each limit is used, as the gateway knows it: from its own book, from what measures it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from app.gateway.state import GatewayState
from app.gateway.used_limits import UsedLimits
from models.gate.limit_nodes import MEASURED
from models.gate.watched import is_of_gate
from models.limits import SIGNED, LimitKey, key_of
from models.limits_in_force import end_of, in_force
from models.risk.limit_values import left_out_of, sum_values
from models.rollup import POSITIONS
from schemas.records import Alert, Limit


class Standing(NamedTuple):
    """What a limit is held against now."""

    #: None: only who measures it knows
    value: float | None
    utilisation: float | None
    #: approach or breach, as the newest alert says; unknown: nobody knows what it comes to; ok
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
    values = [_value(state, used, x, now_ns) for x in limits]
    return [_standing(state, x, value, alerts.get((x.limit_id, x.node, x.metric)),
                      x.limit_id in held)
            for x, value in zip(limits, values, strict=True)]


def _standing(state: GatewayState, limit: Limit, value: float | None, alert: Alert | None, in_force: bool) -> Standing:
    if value is None and alert is not None:
        value = alert.value
    used = None
    if value is not None and float(limit.limit) != 0.0:
        used = (abs(value) if limit.metric in SIGNED else value) / float(limit.limit)
    stands = alert.kind if alert is not None else "unknown" if value is None and _has(state, limit) else "ok"
    return Standing(value, used, stands, _is_partial(state, limit), in_force)


def _is_partial(state: GatewayState, limit: Limit) -> bool:
    k = state.book.rollup.node_index.get(limit.node)
    return k is not None and left_out_of(limit.metric, state.book.rollup.nodes[k]) > 0


def _has(state: GatewayState, limit: Limit) -> bool:
    """Return whether a node has what a limit is on: positions, and a figure that is measured of them."""
    k = state.book.rollup.node_index.get(limit.node)
    return (k is not None and limit.metric in MEASURED and not is_of_gate(limit.node, limit.metric)
            and state.book.rollup.nodes[k, POSITIONS] > 0)


def _value(state: GatewayState, used: UsedLimits, limit: Limit, now_ns: int) -> float | None:
    rollup = state.book.rollup
    node = rollup.node_index.get(limit.node)
    value = None
    if not is_of_gate(limit.node, limit.metric) and node is not None:
        value = sum_values(limit.node, rollup.nodes[node]).get(limit.metric)
    if value is None:
        value = used.value(key_of(limit), now_ns)
    return float(value) if value is not None and math.isfinite(value) else None
