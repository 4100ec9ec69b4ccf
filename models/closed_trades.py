"""Closed trades: which entry fill each exit fill closes, first in first out, last in first out, or flat to flat.

Quantities, prices and fees are decimals: three buys of 0.1 and a sale of 0.3 leave nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

Matching = Literal["fifo", "lifo", "flat_to_flat"]
NONE = Decimal(0)


@dataclass(frozen=True)
class Fill:
    """One fill: signed quantity, price, fee in the same currency as the P&L."""

    quantity: Decimal
    price: Decimal
    fee: Decimal = NONE


@dataclass(frozen=True)
class Terms:
    """What a quantity is worth: its multiplier, and whether it is settled in the coin (P&L = q (1/entry - 1/exit))."""

    multiplier: Decimal = Decimal(1)
    inverse: bool = False

    def profit(self, quantity: Decimal, entry: Decimal, leave: Decimal) -> Decimal:
        """Return the profit of a signed quantity bought at one price and sold at another."""
        moved = 1 / entry - 1 / leave if self.inverse else leave - entry
        return quantity * moved * self.multiplier

    def average(self, parts: Sequence[tuple[Decimal, Decimal]]) -> Decimal:
        """Return the price at which all (quantity, price) together would have cost the same."""
        size = sum((q for q, _ in parts), NONE)
        if self.inverse:
            return size / sum((q / price for q, price in parts), NONE)
        return sum((q * price for q, price in parts), NONE) / size


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


def _closed(terms: Terms, quantity: Decimal, entry: Decimal, leave: Decimal, fees: Decimal,
            fills: tuple[int, int]) -> ClosedTrade:
    return ClosedTrade("long" if quantity > 0 else "short", float(entry), float(abs(quantity)), float(leave),
                       float(terms.profit(quantity, entry, leave)), float(fees), fills)


def closed_trades(fills: Sequence[Fill], matching: Matching, terms: Terms) -> list[ClosedTrade]:
    """Return trades in the order they close; a fill's fee goes to the first trade that uses it.

    Raises
    ------
    ValueError
        The matching is none of fifo, lifo and flat_to_flat.
    """
    if matching not in ("fifo", "lifo", "flat_to_flat"):
        raise ValueError(f"matching: expected fifo, lifo or flat_to_flat, was {matching!r}")
    if matching == "flat_to_flat":
        return _flat_to_flat(fills, terms)
    lots: list[tuple[int, Decimal]] = []  # fill, what is left of it (signed)
    fee_left = [f.fee for f in fills]
    out = []
    for i, fill in enumerate(fills):
        left = fill.quantity
        while left and lots and lots[0][1] * left < 0:
            at = 0 if matching == "fifo" else -1
            j, held = lots[at]
            part = min(abs(held), abs(left)).copy_sign(held)
            out.append(_closed(terms, part, fills[j].price, fill.price, fee_left[j] + fee_left[i], (j + 1, i + 1)))
            fee_left[j] = fee_left[i] = NONE
            left += part
            if held == part:
                del lots[at]
            else:
                lots[at] = (j, held - part)
        if left:
            lots.append((i, left))
    return out


def _flat_to_flat(fills: Sequence[Fill], terms: Terms) -> list[ClosedTrade]:
    out: list[ClosedTrade] = []
    position = fees = NONE
    entries: list[tuple[Decimal, Decimal]] = []
    exits: list[tuple[Decimal, Decimal]] = []
    first = 0
    for i, fill in enumerate(fills):
        left, fee = fill.quantity, fill.fee
        while left:
            if not position:
                first = i
            closing = position * left < 0
            part = (min(abs(left), abs(position)) if closing else abs(left)).copy_sign(left)
            (exits if closing else entries).append((abs(part), fill.price))
            position += part
            left -= part
            fees, fee = fees + fee, NONE
            if not position:
                size = sum((q for q, _ in entries), NONE).copy_sign(-part)
                out.append(_closed(terms, size, terms.average(entries), terms.average(exits), fees, (first + 1, i + 1)))
                entries, exits, fees = [], [], NONE
    return out


@dataclass
class Held:
    """A position from flat to flat or to the last fill; a fee of a fill through zero is split by quantity."""

    quantity: Decimal = NONE
    average: Decimal = NONE
    most: Decimal = NONE
    entered: Decimal = NONE
    left: Decimal = NONE
    realised: Decimal = NONE


def exited_and_held(fills: Sequence[Fill], terms: Terms) -> tuple[Held | None, Held]:
    """Return the last position that was closed (``quantity``: its side, ``realised`` net of fees) and the open one."""
    exited, held = None, Held()
    for fill in fills:
        rest, fee = fill.quantity, fill.fee
        if held.quantity * rest < 0:
            part = min(abs(held.quantity), abs(rest)).copy_sign(held.quantity)
            share = fee * abs(part) / abs(rest)
            held.realised += terms.profit(part, held.average, fill.price) - share
            held.left += share
            fee -= share
            rest += part
            held.quantity -= part
            if not held.quantity:
                exited, held = held, Held()
                exited.quantity = Decimal(1).copy_sign(part)
        if rest:
            held.average = terms.average([(abs(held.quantity), held.average), (abs(rest), fill.price)]
                                         if held.quantity else [(abs(rest), fill.price)])
            held.quantity += rest
            held.most = max(held.most, abs(held.quantity))
            held.entered += fee
            held.realised -= fee
    return exited, held
