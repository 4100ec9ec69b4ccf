"""Traders, counterparties and venues that orders came with end when nothing refers to them any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.gate import state as gs

if TYPE_CHECKING:
    from models.gate.book import GateBook

#: after the day has begun names are looked through at these times: what was written down of the day before is gone then
LOOKED_THROUGH_NS = (60_000_000_000, 600_000_000_000)


def end_names(gate: GateBook) -> int:
    """Close the nodes of names that orders opened and nothing refers to; return how many."""
    ended = [k for k in gate.state.by_orders - _referred_to(gate) if _is_bare(gate, k)]
    for k in ended:
        gate._of_others.pop(k, None)
        gate._base[k], gate.reserved[k], gate.others[k] = 0.0, 0.0, 0.0
        gate._base[k, [gs.RATING, gs.VAR_HIST]] = np.nan
        gate.state.close_node(k)
    if ended:
        gate._forget_nodes()
    return len(ended)


def _referred_to(gate: GateBook) -> set[int]:
    """Return the nodes that orders, sums of the day, what is to be written down, or positions are under."""
    found = {k for w in gate.working.values() for k in (w.trader, w.counterparty, w.venue)}
    for keys in (gate.day_of, gate.changes.days):
        found.update(k for key in keys for k in key[2:])
    for held in (gate.at_venue, gate.changes.venues):
        found.update(venue for venue, *_ in held)
    found.update(gate._var_ns)
    found.update(gate._node_of.tolist())
    return found


def _is_bare(gate: GateBook, k: int) -> bool:
    """Whether nobody limits, halts or rates a node, and no other gate has anything there."""
    row = gate.state.nodes[k]
    stated = row["state"] != 0 or row["rates"][0] >= 0 or not np.isnan(gate._base[k, gs.RATING])
    limited = not (np.isnan(row["limit"]).all() and np.isnan(row["soft"]).all())
    return not stated and not limited and not gate._of_others.get(k) and not np.abs(gate.reserved[k]).max() > 1e-6
