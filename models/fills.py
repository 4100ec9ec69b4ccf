"""The arithmetic of one fill on one position, under three cost methods at once.

Average cost moves on an increase only; a reduce realises against it; a cross closes all and opens the rest at the
fill's price. FIFO matches lots oldest first. Break-even divides the signed cash spent by the quantity left and
realises only when flat. Linear contracts earn ``q * unit_value * (exit - entry)``; inverse ones
``q * unit_value * (1 / entry - 1 / exit)`` with the harmonic average. Totals agree under all three methods.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.jit import hot_kernel, inline_kernel, kernel

#: the part of a row that is a pure fold of fills; `base` rows hold the same part
FOLD_FIELDS = (
    ("quantity", "i8"), ("trades", "i8"), ("average_price", "f8"), ("realised_pnl", "f8"), ("cost", "f8"),
    ("break_even_realised_pnl", "f8"), ("fifo_realised_pnl", "f8"), ("fees", "f8"),
    ("lot_head", "i4"), ("lot_tail", "i4"), ("lot_count", "i4"), ("fifo_merged", "i4"),
)
FOLD_DTYPE = np.dtype(list(FOLD_FIELDS), align=True)
#: columns of a row of version 1 of the changelog
POSITION_DTYPE_1 = np.dtype([
    *FOLD_FIELDS,
    ("unit_value", "f8"), ("last_ts_event", "i8"), ("offset", "i8"), ("revision", "i8"), ("ts_source", "i8"),
    ("opening_quantity", "i8"), ("opening_price", "f8"), ("opening_realised_pnl", "f8"), ("opening_ts", "i8"),
    ("account_index", "i4"), ("instrument_index", "i4"), ("last_fill", "i4"), ("chain_length", "i4"),
    ("late_trades", "i4"), ("inverse", "i1"), ("quantity_decimals", "i1"), ("based", "i1"), ("rolled", "i1"),
], align=True)
#: a base says up to where it reaches: the time of the last thing in it, of the last fill and of the last statement, and
#: a hash of the splits in it; ``rolled``: what the day began with is in it, too, and these are the fees of that opening
POSITION_DTYPE = np.dtype([
    *[(name, POSITION_DTYPE_1[name]) for name in POSITION_DTYPE_1.names or ()],
    ("horizon_ts", "i8"), ("filled_ts", "i8"), ("stated_ts", "i8"), ("actions_hash", "u8"), ("opening_fees", "f8"),
], align=True)
LOT_DTYPE = np.dtype([("quantity", "i8"), ("price", "f8"), ("next", "i4"), ("spare", "i4")], align=True)
NO_LOT = -1
#: beyond this many open lots new ones are merged into the newest (the row says so: ``fifo.exact`` is false)
LOTS_MAX = 4096


class LotPool(NamedTuple):
    """Linked lots of a partition; ``meta`` = head of the free list, high-water mark, lots in use."""

    lots: np.ndarray
    meta: np.ndarray


@hot_kernel
def new_lot(pool: LotPool, quantity: int, price: float) -> int:
    """Take a lot from the pool. The caller made sure there is room."""
    index = pool.meta[0]
    if index != NO_LOT:
        pool.meta[0] = pool.lots[index].next
    else:
        index = pool.meta[1]
        pool.meta[1] += 1
    pool.meta[2] += 1
    pool.lots[index].quantity = quantity
    pool.lots[index].price = price
    pool.lots[index].next = NO_LOT
    return index


@kernel
def link_lots(pool: LotPool, rows: np.ndarray, s: int, lots: np.ndarray) -> None:
    """Give ``rows[s]`` these lots, in order."""
    rows[s].lot_head = NO_LOT
    rows[s].lot_tail = NO_LOT
    rows[s].lot_count = 0
    for k in range(lots.shape[0]):
        index = new_lot(pool, lots[k].quantity, lots[k].price)
        if rows[s].lot_head == NO_LOT:
            rows[s].lot_head = index
        else:
            pool.lots[rows[s].lot_tail].next = index
        rows[s].lot_tail = index
        rows[s].lot_count += 1


@inline_kernel
def free_lots(pool: LotPool, rows: np.ndarray, s: int) -> None:
    """Give all lots of ``rows[s]`` back."""
    index = rows[s].lot_head
    while index != NO_LOT:
        following = pool.lots[index].next
        pool.lots[index].next = np.int32(pool.meta[0])
        pool.meta[0] = index
        pool.meta[2] -= 1
        index = following
    rows[s].lot_head = NO_LOT
    rows[s].lot_tail = NO_LOT
    rows[s].lot_count = 0


@hot_kernel
def append_lot(pool: LotPool, rows: np.ndarray, s: int, quantity: int, price: float, inverse: bool) -> None:
    """Open a lot of signed ``quantity`` behind the others."""
    tail = rows[s].lot_tail
    if rows[s].lot_count >= LOTS_MAX:
        held = float(pool.lots[tail].quantity)
        if inverse:
            merged = (held + quantity) / (held / pool.lots[tail].price + quantity / price)
        else:
            merged = (held * pool.lots[tail].price + quantity * price) / (held + quantity)
        pool.lots[tail].quantity += quantity
        pool.lots[tail].price = merged
        rows[s].fifo_merged = 1
        return
    index = new_lot(pool, quantity, price)
    if tail == NO_LOT:
        rows[s].lot_head = index
    else:
        pool.lots[tail].next = index
    rows[s].lot_tail = index
    rows[s].lot_count += 1


@inline_kernel
def pnl_of(quantity: float, unit_value: float, entry: float, exit_price: float, inverse: bool) -> float:
    """Return the P&L, settlement currency, of signed counted units from entry to exit."""
    if inverse:
        return quantity * unit_value * (1.0 / entry - 1.0 / exit_price)
    return quantity * unit_value * (exit_price - entry)


@hot_kernel
def _match_lots(pool: LotPool, rows: np.ndarray, s: int, quantity: int, price: float, inverse: bool) -> None:
    """Close ``quantity`` (signed like the fill, no more than is open) against the oldest lots."""
    left = abs(quantity)
    while left > 0:
        head = rows[s].lot_head
        if head == NO_LOT:  # a damaged row: more is held than its lots add up to; the FIFO side says it is not exact
            rows[s].fifo_merged = 1
            return
        held = pool.lots[head].quantity
        sign = 1 if held > 0 else -1
        closed = min(left, abs(held))
        rows[s].fifo_realised_pnl += pnl_of(float(sign * closed), rows[s].unit_value, pool.lots[head].price, price,
                                            inverse)
        left -= closed
        if closed == abs(held):
            rows[s].lot_head = pool.lots[head].next
            pool.lots[head].next = np.int32(pool.meta[0])
            pool.meta[0] = head
            pool.meta[2] -= 1
            rows[s].lot_count -= 1
            if rows[s].lot_head == NO_LOT:
                rows[s].lot_tail = NO_LOT
        else:
            pool.lots[head].quantity = held - sign * closed


@hot_kernel
def _open(pool: LotPool, rows: np.ndarray, s: int, d: int, price: float, inverse: bool) -> None:
    q = rows[s].quantity
    held, added = abs(float(q)), abs(float(d))
    if q == 0:
        rows[s].average_price = price
        rows[s].cost = 0.0
    elif inverse:
        rows[s].average_price = (held + added) / (held / rows[s].average_price + added / price)
    else:
        rows[s].average_price = (held * rows[s].average_price + added * price) / (held + added)
    rows[s].cost += d / price if inverse else d * price
    rows[s].quantity = q + d
    append_lot(pool, rows, s, d, price, inverse)


@hot_kernel
def fold_fill(pool: LotPool, rows: np.ndarray, s: int, d: int, price: float, fee: float) -> None:
    """Apply a fill of ``d`` counted units (> 0 bought) at ``price`` to ``rows[s]``."""
    inverse = rows[s].inverse != 0
    rows[s].fees += fee
    if d == 0:  # cash without a fill
        return
    rows[s].trades += 1
    q = rows[s].quantity
    if q == 0 or (q > 0) == (d > 0):
        _open(pool, rows, s, d, price, inverse)
        return
    closed = min(abs(q), abs(d))
    signed = closed if q > 0 else -closed
    rows[s].realised_pnl += pnl_of(float(signed), rows[s].unit_value, rows[s].average_price, price, inverse)
    _match_lots(pool, rows, s, -signed, price, inverse)
    rows[s].cost += -signed / price if inverse else -signed * price
    rows[s].quantity = q - signed
    if rows[s].quantity == 0:
        # what the round trip left in cash: signed spending of a flat position is its loss
        rows[s].break_even_realised_pnl += (rows[s].cost if inverse else -rows[s].cost) * rows[s].unit_value
        rows[s].cost = 0.0
        rows[s].average_price = 0.0
        rest = d + signed
        if rest != 0:
            _open(pool, rows, s, rest, price, inverse)


@kernel
def fold_statement(pool: LotPool, rows: np.ndarray, s: int, quantity: int, price: float) -> None:
    """Let ``rows[s]`` go on from what is stated: what was realised stays, what is held is as stated.

    A price that is not stated (NaN) is the average so far where the quantity agrees, else it is not known.
    """
    known = rows[s].average_price if rows[s].quantity == quantity else np.nan
    use = price if price == price else known
    free_lots(pool, rows, s)
    rows[s].quantity = quantity
    rows[s].average_price = use if quantity != 0 else 0.0
    rows[s].cost = 0.0 if quantity == 0 else (quantity / use if rows[s].inverse != 0 else quantity * use)
    rows[s].break_even_realised_pnl = rows[s].realised_pnl
    rows[s].fifo_realised_pnl = rows[s].realised_pnl
    if quantity != 0:
        append_lot(pool, rows, s, quantity, use, rows[s].inverse != 0)


@kernel
def fold_split(pool: LotPool, rows: np.ndarray, s: int, up: int, down: int, ratio: float) -> None:
    """Make ``ratio`` (``up / down``) units of every one that ``rows[s]`` holds; what they cost stays."""
    rows[s].quantity = rows[s].quantity * up // down
    rows[s].average_price /= ratio
    index = rows[s].lot_head
    while index != NO_LOT:
        pool.lots[index].quantity = pool.lots[index].quantity * up // down
        pool.lots[index].price /= ratio
        index = pool.lots[index].next
