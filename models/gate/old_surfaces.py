"""Orders in what rests on a volatility surface or a curve that is too old."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.gate import state as gs
from models.gate.working import Asked, Working
from schemas.records import Order
from schemas.units import NS_PER_S

if TYPE_CHECKING:
    from models.gate.book import GateBook

#: limits that rest on Greeks
_OF_GREEKS = [gs.DELTA, gs.VEGA, gs.LEVERAGE]


def too_old(gate: GateBook, order: Order, asked: Asked, replaced: Working | None, now_ns: int,
            ) -> tuple[str, str] | None:
    """Return (measured, limit) of an order that no limit can judge: what it adds rests on an old surface or curve.

    An option is held against limits on delta, vega and leverage by its surface, a forward against every limit by its
    curves. What only reduces its position passes, as it does where a scope is reducing.
    """
    name = gate.book.contracts.rests_on_old.get(order.instrument)
    if name is None or asked.account < 0 or asked.instrument < 0:
        return None
    if order.instrument not in gate.book.contracts.forwards.names:
        nodes = gate._position_nodes(asked.account, asked.instrument) + asked.own_nodes()
        if np.isnan(gate.state.nodes["limit"][nodes][:, _OF_GREEKS]).all():
            return None
    row = gate.state.position_of_result.item()
    if row >= 0:
        p, done = gate.state.positions[row], 0.0 if replaced is None else replaced.left
        left = abs(p["quantity"]) - (p["working_sell"] if p["quantity"] > 0.0 else p["working_buy"]) + done
        if asked.side * p["quantity"] < 0.0 and asked.quantity <= left:
            return None
    age = gate.book.contracts.age
    return (f"{name}: {(now_ns - age.of_ns(name)) // NS_PER_S} s old",
            f"a surface or curve of at most {(age.bound_ns or 0) // NS_PER_S} s")
