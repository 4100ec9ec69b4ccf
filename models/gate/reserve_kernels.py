"""What works, added to the sides of its position and to the nodes it lies under, or taken back."""

from __future__ import annotations

import numpy as np

from models.figures import is_figure
from models.gate import state as gs
from models.gate.day_sums import sum_nodes
from models.gate.node_checks import levered_of, margin_of, price_of_unit, reference_of
from models.jit import inline_kernel, kernel

_GROSS, _NET, _LONG, _SHORT, _CREDIT, _MARGIN = gs.GROSS, gs.NET, gs.LONG, gs.SHORT, gs.CREDIT, gs.MARGIN
_DELTA, _VEGA, _VAR, _LEVERAGE = gs.DELTA, gs.VEGA, gs.VAR_HIST, gs.LEVERAGE
_NET_UP, _DELTA_UP, _VEGA_UP = gs.NET_UP, gs.DELTA_UP, gs.VEGA_UP


@kernel
def value_of_unit(instruments: np.ndarray, k: int) -> float:
    """Return what one unit is worth, in the firm's base currency; 0 where it is not known (no order passes then)."""
    worth = price_of_unit(instruments[k], reference_of(instruments[k]))
    return worth if worth == worth else 0.0


@kernel
def hold(positions: np.ndarray, row: int, instruments: np.ndarray, held: np.ndarray, old: np.ndarray,
         new: np.ndarray, nodes: np.ndarray, base: np.ndarray, reserved: np.ndarray, others: np.ndarray) -> bool:
    """Reserve what the worse side of a position exceeds it by; return whether that is anything.

    Parameters
    ----------
    held : gross, long, short, margin, VaR and delta equivalents reserved so far in the nodes ``old``; replaced by what
        is in ``new``
    """
    q, worth = positions[row].quantity, value_of_unit(instruments, positions[row].instrument)
    per = abs(worth)
    long_side, short_side = q + positions[row].working_buy, positions[row].working_sell - q
    more = max(long_side, short_side, 0.0) - abs(q)
    gross = more * per
    long, short = (max(long_side, 0.0) - max(q, 0.0)) * per, (max(short_side, 0.0) - max(-q, 0.0)) * per
    if worth < 0.0:
        long, short = short, long
    some = gross != 0.0 or long != 0.0 or short != 0.0
    margin, var, levered = 0.0, 0.0, 0.0
    if gross != 0.0:  # what has no margin rate, or no VaR, is refused where that is limited; elsewhere nobody looks
        i = instruments[positions[row].instrument]
        var = more * i.unit_var if is_figure(i.unit_var) else 0.0
        margin = margin_of(i, max(long_side, short_side, 0.0) * per) - margin_of(i, abs(q) * per)
        margin = margin if is_figure(margin) else 0.0
        levered = levered_of(i, more)
        levered = levered if is_figure(levered) else 0.0
    for n in old:
        reserved[n, _GROSS] -= held[0]
        reserved[n, _LONG] -= held[1]
        reserved[n, _SHORT] -= held[2]
        reserved[n, _MARGIN] -= held[3]
        reserved[n, _VAR] -= held[4]
        reserved[n, _LEVERAGE] -= held[5]
    if some:
        for n in new:
            reserved[n, _GROSS] += gross
            reserved[n, _LONG] += long
            reserved[n, _SHORT] += short
            reserved[n, _MARGIN] += margin
            reserved[n, _VAR] += var
            reserved[n, _LEVERAGE] += levered
        sum_nodes(nodes, base, reserved, others, new)
    sum_nodes(nodes, base, reserved, others, old)
    held[0], held[1], held[2], held[3], held[4], held[5] = gross, long, short, margin, var, levered
    return some


@inline_kernel
def _reserve_side(reserved: np.ndarray, metric: int, up: int, size: float, of_unit: float) -> None:
    """Add to what works of a figure with a sign, and to the side of it that it is on."""
    reserved[metric] += size * of_unit
    reserved[up if of_unit > 0.0 else up + 1] += size * abs(of_unit)


@kernel
def reserve(positions: np.ndarray, row: int, side: float, size: float, gross: float, net: float, delta: float,
            vega: float, var: float, under: np.ndarray, own: np.ndarray, nodes: np.ndarray, base: np.ndarray,
            reserved: np.ndarray, others: np.ndarray) -> None:
    """Add an order's ``size`` (below 0: take it back) to its position's working side and to its nodes.

    Parameters
    ----------
    gross, net, delta, vega, var : of one unit
    under, own : nodes, each once: all that it lies under, and of them its trader, counterparty and venue
    """
    p = positions[row]
    if side > 0.0:
        p.working_buy += size
    else:
        p.working_sell += size
    if abs(p.working_buy) < 1e-9:
        p.working_buy = 0.0
    if abs(p.working_sell) < 1e-9:
        p.working_sell = 0.0
    for n in under:
        _reserve_side(reserved[n], _NET, _NET_UP, size, net)
        _reserve_side(reserved[n], _DELTA, _DELTA_UP, size, delta)
        _reserve_side(reserved[n], _VEGA, _VEGA_UP, size, vega)
    for n in own:
        reserved[n, _GROSS] += size * gross
        reserved[n, _LONG if net > 0.0 else _SHORT] += size * gross
        reserved[n, _CREDIT] += size * gross
        reserved[n, _VAR] += size * var
    sum_nodes(nodes, base, reserved, others, under)
