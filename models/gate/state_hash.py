"""A hash of what a gate decides by, the same whatever order its names were opened in."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from models.gate.state import BUCKETS
from schemas.codec import encode

if TYPE_CHECKING:
    from models.gate.book import GateBook

#: sums of the same parts in another order differ behind so many decimals
DECIMALS = 6


def state_hash(gate: GateBook) -> str:
    """Return the hash of a gate: accounts, positions, nodes, orders, the day, windows, limits, states, price guards."""
    parts = sorted((what, *(str(x) for x in key), _text(value)) for what, key, value in _parts(gate))
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else str(round(value, DECIMALS) + 0.0)
    if isinstance(value, list | tuple):
        return ",".join(_text(x) for x in value)
    return str(value)


def _parts(gate: GateBook) -> Iterable[tuple[str, tuple[str | None, ...], Any]]:
    """Return what, of which names, and how much: what nothing was ever said or counted of is left out.

    Trading states are there as they were set: what they come to is brought up to date with the next order.
    """
    s, names = gate.state, gate.state.node_names
    accounts, instruments = list(s.account_index), list(s.instrument_index)

    def name(node: int) -> str | None:
        return names[node] if node >= 0 else None

    for k, account in enumerate(accounts):
        yield "account", (account,), [name(n) for n in s.accounts["nodes"][k].tolist()]
    for k, instrument in enumerate(instruments):
        row = s.instruments[k]
        yield "instrument", (instrument,), [row[f].item() for f in (
            "restricted", "price_test", "drift_bps", "drift_low", "drift_high", "collar_bps", "collar_ticks",
            "soft_bps", "soft_ticks", "soft_drift", "soft_low", "soft_high")]
    for row in s.positions[: s.position_count.item()]:
        held = [row[f].item() for f in ("quantity", "working_buy", "working_sell", "best_buy", "best_sell",
                                        "long_limit", "short_limit", "soft_long", "soft_short")]
        if held[:3] != [0.0] * 3 or not np.isnan(held[5:]).all():
            yield "position", (accounts[row["account"]], instruments[row["instrument"]]), held
    for node, k in s.node_index.items():
        row = s.nodes[k]
        for what in ("value", "limit", "soft"):
            if np.any(np.nan_to_num(row[what])):
                yield f"node {what}", (node,), row[what].tolist()
        for at in (x for x in row["rates"].tolist() if x >= 0):
            rate = s.rates[at]
            live = (rate["stamp"] > gate.ended_ns // rate["bucket_ns"] - BUCKETS) & (rate["count"] > 0)
            yield "window", (node, str(rate["window_ns"])), [
                rate[f].tolist() for f in ("limit", "soft", "others")] + [
                sorted(zip(*(rate[f][live].tolist() for f in ("stamp", "count", "value")), strict=True))]
    for w in (*gate.working.values(), *gate.done.values()):
        yield "order", (w.order.order_id,), [w.left, w.executed, w.earlier, w.expires_ns, w.decided_ns,
                                             encode(w.order).decode()]
    for key, (_, *sums) in gate.day_of.items():
        yield "day", (accounts[key[0]], instruments[key[1]], *(name(n) for n in key[2:])), sums
    for (venue, account_at, instrument_at), held_there in gate.at_venue.items():
        yield "venue", (name(venue), accounts[account_at], instruments[instrument_at]), held_there
    yield "day number", (), gate.sums_of_day
    for records in (gate.limits, gate.controls):
        for record_id, record in records.items():
            yield "record", (record_id,), encode(record).decode()
    for account_at, order_id in gate.accepted:
        yield "accepted", (accounts[account_at], order_id), 1
    for order_id in (*gate.executed, *gate.executed_elsewhere):
        yield "executed", (order_id,), 1
