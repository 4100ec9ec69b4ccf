"""What a position's day began with: stated from outside, or rolled from what it came to by then.

A statement takes the place of all fills before it. A roll takes nothing away: it remembers what the fills before it
came to, and fills, corrections and busts of them that arrive later still land there, not in the running day. The
P&L of the day is the total now less the total at the prior close, and totals do not depend on the order of fills,
so a late one can be folded onto the opening as it comes.
"""

from __future__ import annotations

import numpy as np

from models.fills import POSITION_DTYPE, LotPool, fold_fill, free_lots, new_lot
from models.jit import allocating_kernel, hot_kernel, kernel
from models.position_window import (
    ABSORBED,
    PositionArrays,
    clear_row,
    copy_fold,
    ensure_row,
    flag_fill,
    mark_dirty,
    refold_row,
    relink_rows,
    sorted_chain,
)
from models.trade_columns import ReferenceArrays

OPENING_FIELDS = ("opening_quantity", "opening_price", "opening_realised_pnl", "opening_ts", "rolled")


@hot_kernel
def absorbed_by_opening(st: PositionArrays, s: int, ts: int) -> bool:
    """Return whether a statement of the position already includes what was traded at ``ts``."""
    return ts < (st.base[s].opening_ts if st.rows[s].rolled != 0 else st.rows[s].opening_ts)


@hot_kernel
def before_the_day(st: PositionArrays, s: int, ts: int) -> bool:
    """Return whether what was traded at ``ts`` belongs to the opening of a position that was rolled."""
    return st.rows[s].rolled != 0 and ts < st.rows[s].opening_ts


@allocating_kernel
def fold_into_opening(st: PositionArrays, s: int, d: int, price: float, fee: float) -> None:
    """Fold a fill from before the day, or one taken back, onto the opening of ``rows[s]``."""
    one = np.zeros(1, POSITION_DTYPE)
    pool: LotPool = st.pool
    clear_row(one, 0)
    one[0].unit_value, one[0].inverse = st.rows[s].unit_value, st.rows[s].inverse
    q = st.rows[s].opening_quantity
    one[0].quantity = q
    if q != 0:
        one[0].average_price = st.rows[s].opening_price
        lot = new_lot(pool, q, st.rows[s].opening_price)
        one[0].lot_head, one[0].lot_tail, one[0].lot_count = lot, lot, 1
    fold_fill(pool, one, 0, d, price, fee)
    free_lots(pool, one, 0)
    st.rows[s].opening_quantity = one[0].quantity
    st.rows[s].opening_price = one[0].average_price if one[0].quantity != 0 else np.nan
    st.rows[s].opening_realised_pnl += one[0].realised_pnl - one[0].fees


@kernel
def roll_row(st: PositionArrays, s: int, ts: int) -> bool:
    """Make what ``rows[s]`` came to by its fills before ``ts`` its opening; False where a later day has begun."""
    if st.rows[s].opening_ts >= ts:
        return False
    if st.rows[s].rolled == 0 and st.rows[s].opening_ts != 0:  # what a statement includes stays included
        st.base[s].opening_ts = st.rows[s].opening_ts
    n = sorted_chain(st, s)
    copy_fold(st.pool, st.base, st.rows, s)
    for i in range(n):
        f = st.scratch[i]
        if st.fills[f].ts_event < ts:
            fold_fill(st.pool, st.rows, s, st.fills[f].quantity, st.fills[f].price, st.fills[f].fee)
    st.rows[s].opening_quantity = st.rows[s].quantity
    st.rows[s].opening_price = st.rows[s].average_price if st.rows[s].quantity != 0 else np.nan
    st.rows[s].opening_realised_pnl = st.rows[s].realised_pnl - st.rows[s].fees
    st.rows[s].opening_ts = ts
    st.rows[s].rolled = 1
    st.rows[s].revision += 1
    refold_row(st, s)
    mark_dirty(st, s)
    return True


@kernel
def apply_opening(st: PositionArrays, account: int, instrument: int, quantity: int, price: float, ts: int,
                  ref: ReferenceArrays, ts_source: int) -> int:
    """Let a position start the day from what outside sources state; returns its row.

    Fills before ``ts`` are part of that opening: their realised P&L is kept, their quantity is not added again.
    """
    s = ensure_row(st, account, instrument, ref)
    n = sorted_chain(st, s)
    for i in range(n):
        f = st.scratch[i]
        if st.fills[f].ts_event < ts:
            fold_fill(st.pool, st.base, s, st.fills[f].quantity, st.fills[f].price, st.fills[f].fee)
            flag_fill(st, f, ABSORBED)
    kept_price = st.base[s].average_price if st.base[s].quantity == quantity else np.nan
    use = price if price == price else kept_price
    free_lots(st.pool, st.base, s)
    st.base[s].quantity = quantity
    st.base[s].average_price = use if quantity != 0 else 0.0
    st.base[s].cost = 0.0 if quantity == 0 else (quantity / use if st.base[s].inverse != 0 else quantity * use)
    st.base[s].break_even_realised_pnl = st.base[s].realised_pnl
    st.base[s].fifo_realised_pnl = st.base[s].realised_pnl
    if quantity != 0:
        lot = new_lot(st.pool, quantity, use)
        st.base[s].lot_head, st.base[s].lot_tail, st.base[s].lot_count = lot, lot, 1
    st.base[s].based = 1
    st.rows[s].based = 1
    st.rows[s].opening_quantity = quantity
    st.rows[s].opening_price = use
    st.rows[s].opening_realised_pnl = st.base[s].realised_pnl - st.base[s].fees
    st.rows[s].opening_ts = ts
    st.rows[s].rolled = 0
    st.rows[s].last_ts_event = max(st.rows[s].last_ts_event, ts)
    st.rows[s].revision += 1
    st.rows[s].ts_source = ts_source
    mark_dirty(st, s)
    relink_rows(st, s)
    refold_row(st, s)
    return s
