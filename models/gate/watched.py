"""What only the gate measures of limits: what came of orders, messages, the day's sums, positions with what works."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from models.gate import state as gs
from models.gate.book import GateBook
from models.gate.flow import METRICS as FLOW_METRICS
from models.gate.flow import figure
from models.gate.state import MESSAGE_METRICS
from models.limits import POSITION_METRICS, LimitKey

_SUMS = ("daily_quantity", "daily_value", "repeated_executions")
_MEASURED = frozenset({*FLOW_METRICS, *MESSAGE_METRICS, *POSITION_METRICS, *_SUMS})


def is_of_gate(node: str, metric: str) -> bool:
    """Whether the gate measures a metric of a node, and not who values positions."""
    return metric in _MEASURED or (metric == "credit" and node.startswith("venue:"))


def watched_values(gate: GateBook, now_ns: int, warns_at: float, standing: Iterable[LimitKey],
                   speaks_for: Callable[[str], bool]) -> dict[LimitKey, float]:
    """Return the figures that limits are approached or breached by, or were, and all of what came of orders.

    Parameters
    ----------
    warns_at : utilisation that nothing below is asked for
    standing : what is wanted however little of it is used
    speaks_for : whether the figures of a node are this gate's to state
    """
    counted = counted_by_all(gate, now_ns)
    keys = {*standing, *_near_sums(gate, warns_at), *_near_messages(gate, counted, warns_at),
            *_near_positions(gate, warns_at)}
    keys |= {LimitKey(node, metric, w // 1_000_000) for node, windows in gate.flow.watched.items()
             for w in windows for metric in FLOW_METRICS}
    return values_of(gate, (key for key in sorted(keys) if speaks_for(key.node)), counted, now_ns)


def values_of(gate: GateBook, keys: Iterable[LimitKey], counted: np.ndarray, now_ns: int) -> dict[LimitKey, float]:
    """Return the figures that limits are held against, however little is used; ``counted``: of `counted_by_all`."""
    return {key: _value(gate, key, counted, now_ns) for key in keys}


def counted_by_all(gate: GateBook, now_ns: int) -> np.ndarray:
    """Return float64[windows, 2]: messages and their value in every window that ends now, at all gates."""
    return gate.counted(now_ns)[: gate.state.rate_count] + gate.state.rates["others"][: gate.state.rate_count]


def _near(value: np.ndarray, limit: np.ndarray, warns_at: float) -> np.ndarray:
    """Whether so much of a limit is used; of what has none nothing is."""
    return (limit == limit) & (value >= warns_at * limit) & (value > 0.0)


def _near_sums(gate: GateBook, warns_at: float) -> list[LimitKey]:
    names, nodes = gate.state.node_names, gate.state.nodes[: len(gate.state.node_names)]
    found = []
    for metric in (*_SUMS, "credit"):
        m = gs.METRICS.index(metric)
        near = (_near(nodes["value"][:, m], nodes["limit"][:, m], warns_at)
                | _near(nodes["value"][:, m], nodes["soft"][:, m], warns_at))
        found += [LimitKey(names[k], metric) for k in np.flatnonzero(near).tolist() if is_of_gate(names[k], metric)]
    return found


def _near_messages(gate: GateBook, counted: np.ndarray, warns_at: float) -> list[LimitKey]:
    state = gate.state
    rates = state.nodes["rates"][: len(state.node_names)]
    node_of = np.zeros(state.rate_count, np.int64)
    which, place = np.nonzero(rates >= 0)
    node_of[rates[which, place]] = which
    near = (_near(counted, state.rates["limit"][: state.rate_count], warns_at)
            | _near(counted, state.rates["soft"][: state.rate_count], warns_at))
    return [LimitKey(state.node_names[node_of[k]], MESSAGE_METRICS[m], int(state.rates["window_ns"][k]) // 1_000_000)
            for k, m in np.argwhere(near).tolist()]


def _near_positions(gate: GateBook, warns_at: float) -> list[LimitKey]:
    state = gate.state
    if not gate.limited_positions:
        return []
    rows = state.positions[sorted(gate.limited_positions)]
    sides = (rows["quantity"] + rows["working_buy"], rows["working_sell"] - rows["quantity"])
    found = [(metric, k) for metric, side, limits in zip(POSITION_METRICS, sides, (
                 ("long_limit", "soft_long"), ("short_limit", "soft_short")), strict=True)
             for k in np.flatnonzero(_near(side, rows[limits[0]], warns_at)
                                     | _near(side, rows[limits[1]], warns_at)).tolist()]
    if not found:
        return []
    accounts, instruments = list(state.account_index), list(state.instrument_index)
    return [LimitKey(f"account:{accounts[rows['account'][k]]}", metric, 0, instruments[rows["instrument"][k]])
            for metric, k in found]


def _value(gate: GateBook, key: LimitKey, counted: np.ndarray, now_ns: int) -> float:
    state, node, metric = gate.state, gate.state.node_index.get(key.node, -1), key.metric
    if metric in FLOW_METRICS:
        return figure(metric, gate.outcomes_of(key.node, key.window_ms, now_ns))
    if metric in POSITION_METRICS:
        account, instrument = (index.get(name, -1) for index, name in (
            (state.account_index, key.node.partition(":")[2]), (state.instrument_index, key.instrument)))
        if account < 0 or instrument < 0:
            return math.nan
        p = state.position(account, instrument)
        quantity = float(p["quantity"])
        return quantity + float(p["working_buy"]) if metric == "position_long" else float(p["working_sell"]) - quantity
    if node < 0:
        return math.nan
    if metric in MESSAGE_METRICS:
        held = [k for k in state.nodes["rates"][node].tolist()
                if 0 <= k < len(counted) and state.rates["window_ns"][k] == key.window_ms * 1_000_000]
        return float(counted[held[0], MESSAGE_METRICS.index(metric)]) if held else math.nan
    return float(state.nodes["value"][node, gs.METRICS.index(metric)])
