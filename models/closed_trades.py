"""Closed trades: which entry fill each exit fill closes, first in first out, last in first out, or flat to flat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Matching = Literal["fifo", "lifo", "flat_to_flat"]


@dataclass
class Fill:
    """One fill: signed quantity, price, fee in the same currency as the P&L."""

    quantity: float
    price: float
    fee: float


@dataclass
class ClosedTrade:
    """One matched trade; ``pnl`` is before fees, ``fills`` are the numbers (from 1) of entry and exit fill."""

    direction: str
    entry_price: float
    quantity: float
    exit_price: float
    pnl: float
    fees: float
    fills: tuple[int, int]


def closed_trades(fills: Sequence[Fill], matching: Matching, multiplier: float = 1.0) -> list[ClosedTrade]:
    """Return trades in the order they close; a fill's fee goes to the first trade that uses it.

    Raises
    ------
    ValueError
        The matching is none of fifo, lifo and flat_to_flat.
    """
    if matching not in ("fifo", "lifo", "flat_to_flat"):
        raise ValueError(f"matching: expected fifo, lifo or flat_to_flat, was {matching!r}")
    if matching == "flat_to_flat":
        return _flat_to_flat(fills, multiplier)
    lots: list[list[float]] = []  # index, what is left (signed)
    fee_left = [f.fee for f in fills]
    out = []
    for i, fill in enumerate(fills):
        left = fill.quantity
        while left and lots and lots[0][1] * left < 0:
            lot = lots[0 if matching == "fifo" else -1]
            j = int(lot[0])
            part = min(abs(lot[1]), abs(left))
            sign = 1.0 if lot[1] > 0 else -1.0
            out.append(ClosedTrade("long" if sign > 0 else "short", fills[j].price, part, fill.price,
                                   sign * part * (fill.price - fills[j].price) * multiplier,
                                   fee_left[j] + fee_left[i], (j + 1, i + 1)))
            fee_left[j] = fee_left[i] = 0.0
            lot[1] -= sign * part
            left += sign * part
            if not lot[1]:
                lots.remove(lot)
        if left:
            lots.append([i, left])
    return out


def _flat_to_flat(fills: Sequence[Fill], multiplier: float) -> list[ClosedTrade]:
    out: list[ClosedTrade] = []
    position = entry_cost = entry_size = exit_cost = exit_size = fees = 0.0
    first = 0
    for i, fill in enumerate(fills):
        left, fee = fill.quantity, fill.fee
        while left:
            if position == 0.0:
                first = i
            closing = position * left < 0
            part = min(abs(left), abs(position)) if closing else abs(left)
            sign = 1.0 if left > 0 else -1.0
            if closing:
                exit_cost, exit_size = exit_cost + part * fill.price, exit_size + part
            else:
                entry_cost, entry_size = entry_cost + part * fill.price, entry_size + part
            position += sign * part
            left -= sign * part
            fees, fee = fees + fee, 0.0
            if position == 0.0:
                entry, leave = entry_cost / entry_size, exit_cost / exit_size
                direction = -sign
                out.append(ClosedTrade("long" if direction > 0 else "short", entry, entry_size, leave,
                                       direction * entry_size * (leave - entry) * multiplier, fees,
                                       (first + 1, i + 1)))
                entry_cost = entry_size = exit_cost = exit_size = fees = 0.0
    return out
