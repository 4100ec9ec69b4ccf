"""What a position's day began with: stated from outside, or rolled from what it came to by then.

A statement takes the place of all fills before it: from its time on that much is held, whenever the fills came. A roll
takes nothing away: it remembers what the fills before it came to. Fills, corrections and busts of them that arrive
later land there, not in the running day.
"""

from __future__ import annotations

import numpy as np

from models.jit import kernel
from models.position_order import keep_opening, refold_whole, reopen, uncheck
from models.position_window import STATED, PositionArrays, append_fill, ensure_row, find_row, mark_dirty
from models.trade_columns import ReferenceArrays


@kernel
def roll_row(st: PositionArrays, s: int, ts: int) -> bool:
    """Make what ``rows[s]`` came to by its fills before ``ts`` its opening; False where a later day has begun.

    Its account's day has begun. Of what has left the window after ``ts`` nothing can be told apart: it is part of the
    opening.
    """
    if st.rows[s].opening_ts >= ts:
        return False
    uncheck(st, s)
    if st.base[s].based != 0:
        st.base[s].rolled = 0
        if st.base[s].filled_ts >= ts:
            keep_opening(st, s)
    reopen(st, s)
    st.rows[s].revision += 1
    mark_dirty(st, s)
    return True


@kernel
def statement_fits(st: PositionArrays, account: int, instrument: int, ts: int) -> bool:
    """Return whether all that a position took in since ``ts`` is still in the window."""
    s = find_row(st, account, instrument)
    return s < 0 or ts > st.base[s].filled_ts


@kernel
def apply_opening(st: PositionArrays, account: int, instrument: int, quantity: int, price: float, ts: int,
                  pnl: float, ref: ReferenceArrays, ts_source: int) -> int:
    """Let a position go on from what outside sources state; returns its row. There is room for one more fill.

    Fills before ``ts`` are part of that opening: their realised P&L is kept, their quantity is not added again.

    Parameters
    ----------
    pnl : what the sides of several sources net to, in place of what they netted to before
    """
    s = ensure_row(st, account, instrument, ref)
    append_fill(st, s, np.uint64(0), np.uint64(0), quantity, price, 0.0, ts, ts, STATED, np.uint64(0))
    st.stated[s] = pnl
    st.rows[s].revision += 1
    st.rows[s].ts_source = ts_source
    mark_dirty(st, s)
    refold_whole(st, s)
    return s
