"""What several sources state of one position comes to: one quantity, one average price, and what their sides net to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from models.fills import pnl_of


class Stated(NamedTuple):
    """The sum of statements; ``pnl`` is for a unit value of 1 and NaN where a price that it needs is not stated."""

    units: int
    average: float
    pnl: float


def stated_sum(statements: Iterable[tuple[int, float | None]], inverse: bool) -> Stated:
    """Return what (signed units, average price) of all sources come to.

    Sources that hold the same side are averaged. Where one is long and another short, what they have in common is
    closed: its P&L no longer depends on any mark.
    """
    held = {1: 0, -1: 0}
    spent = {1: 0.0, -1: 0.0}
    for units, price in statements:
        if units:
            side = 1 if units > 0 else -1
            held[side] += abs(units)
            paid = float("nan") if price is None else price
            spent[side] += abs(units) / paid if inverse else abs(units) * paid
    average = {side: float("nan") if not held[side] else (
        held[side] / spent[side] if inverse else spent[side] / held[side]) for side in held}
    units, closed = held[1] - held[-1], min(held.values())
    pnl = pnl_of(float(closed), 1.0, average[1], average[-1], inverse) if closed else 0.0
    return Stated(units, average[1 if units > 0 else -1] if units else float("nan"), pnl)
