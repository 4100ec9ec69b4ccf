"""Kernels that fold a batch of trades into a partition's positions, in log order, exactly once.

A late fill, a correction and a bust are all one thing: change the window of recent fills, fold that row again.
Nothing here depends on how the log was cut into batches.
"""

from __future__ import annotations

import numpy as np

from models.fills import fold_fill
from models.interning import ABSENT
from models.jit import hot_kernel, inline_kernel, kernel
from models.position_opening import absorbed_by_opening, before_the_day, fold_into_opening
from models.position_window import (
    ABSORBED,
    BUSTED,
    CHAIN_MAX,
    FIRST_FILL_SEQ,
    FLAGS_ROOM_MIN,
    LOTS_ROOM_MIN,
    MARKER,
    N_FILLS,
    N_FLAGGED,
    N_ROWS,
    ORIGIN_SHIFT,
    REVERSAL,
    PositionArrays,
    absorb_half_chain,
    append_fill,
    ensure_row,
    find_fill,
    find_row,
    flag_fill,
    live_end,
    mark_dirty,
    refold_row,
)
from models.trade_columns import (
    APPLIED,
    BAD_PRICE,
    BAD_QUANTITY,
    BUST,
    CORRECT,
    DUPLICATE,
    FOREIGN,
    ID_REUSED,
    LATE,
    NEW,
    NOT_REPRESENTABLE,
    OVERFLOW,
    READ,
    REF_UNKNOWN,
    ReferenceArrays,
)

POW10 = 10 ** np.arange(19, dtype=np.int64)
POW10_F = 10.0 ** np.arange(19)
INT64_MAX = 2**63 - 1


@inline_kernel
def scale_quantity(mantissa: int, scale: int, decimals: int) -> tuple[int, int]:
    """Return (status, counted units) of a decimal quantity at an instrument's decimals."""
    if mantissa <= 0:
        return BAD_QUANTITY, 0
    while scale > decimals:
        if mantissa % 10 != 0:
            return NOT_REPRESENTABLE, 0
        mantissa //= 10
        scale -= 1
    factor = POW10[decimals - scale]
    if mantissa > INT64_MAX // (4 * factor):
        return OVERFLOW, 0
    return READ, mantissa * factor


@inline_kernel
def _would_overflow(q: int, d: int) -> bool:
    total = float(q) + float(d)
    return abs(total) > 4.6e18


@inline_kernel
def _is_repeat(st: PositionArrays, f: int, rows: np.ndarray, i: int, s: int, d: int, price: float) -> bool:
    """Return whether a record says what one with its identity said before, in all its fields."""
    h, h2, content = rows[i].id_hash, rows[i].id_hash2, rows[i].content
    while True:
        same = (st.fills[f].id_hash == h and st.fills[f].id_hash2 == h2 and st.fills[f].slot == s
                and st.fills[f].quantity == d and st.fills[f].price == price
                and st.fills[f].ts_event == rows[i].ts_event)
        if same and (st.content[f] == content or (st.content[f] == 0 and st.fills[f].fee == rows[i].fee)):
            return True
        if st.fills[f].successor == 0:
            return False
        f += st.fills[f].successor


@inline_kernel
def _apply_bust(st: PositionArrays, rows: np.ndarray, i: int, f: int) -> int:
    """Take the live fill of a chain out, by any id of the chain; ``f`` is what came under the bust's own id."""
    own = rows[i].id_hash == rows[i].ref_hash and rows[i].id_hash2 == rows[i].ref_hash2
    if f != ABSENT and not own:
        same = st.fills[f].flags & MARKER != 0 and _is_repeat(st, f, rows, i, st.fills[f].slot, 0, 0.0)
        return DUPLICATE if same else ID_REUSED
    g = find_fill(st, rows[i].ref_hash, rows[i].ref_hash2)
    if g == ABSENT or st.fills[g].flags & MARKER:
        return REF_UNKNOWN
    g = live_end(st, g)
    if st.fills[g].flags & BUSTED:
        return DUPLICATE if own else REF_UNKNOWN
    s = st.fills[g].slot
    _take_out(st, rows, i, g)
    if not own:
        append_fill(st, s, rows[i].id_hash, rows[i].id_hash2, 0, 0.0, 0.0, rows[i].ts_event, 0, MARKER,
                    rows[i].content)
    refold_row(st, s)
    return APPLIED


@inline_kernel
def _take_out(st: PositionArrays, rows: np.ndarray, i: int, g: int) -> None:
    """Take back what was booked of a fill, where it was booked; its row is yet to be folded again."""
    s, d, fee, flags = st.fills[g].slot, st.fills[g].quantity, st.fills[g].fee, st.fills[g].flags
    rows[i].taken = st.meta[FIRST_FILL_SEQ] + g + 1
    rows[i].taken_slot, rows[i].taken_ts = s, st.fills[g].ts_event
    flag_fill(st, g, BUSTED)
    touch_row(st, rows, i, s)
    if absorbed_by_opening(st, s, st.fills[g].ts_event):  # the statement says what is held: only the fee was booked
        d = 0
        st.rows[s].opening_realised_pnl += fee
    elif before_the_day(st, s, st.fills[g].ts_event):
        fold_into_opening(st, s, -d, st.fills[g].price, -fee)
    if flags & ABSORBED == 0:
        st.rows[s].chain_length -= 1
    else:  # no longer in the chain: the opposite fill in its place has the same total P&L
        append_fill(st, s, rows[i].id_hash, rows[i].id_hash2, -d, st.fills[g].price, -fee, st.fills[g].ts_event,
                    st.fills[g].effective_ts, REVERSAL, np.uint64(0))


@hot_kernel
def touch_row(st: PositionArrays, rows: np.ndarray, i: int, s: int) -> None:
    """Stamp a row with the record that changes it."""
    st.rows[s].offset = rows[i].offset
    st.rows[s].revision += 1
    st.rows[s].ts_source = rows[i].ts_source
    mark_dirty(st, s)


@hot_kernel
def _effective_ts(st: PositionArrays, s: int, ts: int, g: int, lateness_ns: int) -> tuple[int, int]:
    """Return (APPLIED or LATE, the time a fill is ordered by); ``g`` is the fill that it corrects, or ABSENT."""
    if g != ABSENT:
        newest = st.fills[g].effective_ts
        moved = newest != st.fills[g].ts_event and newest - ts > lateness_ns
        return APPLIED, newest if moved else ts
    if ts >= st.rows[s].last_ts_event or st.rows[s].last_ts_event - ts <= lateness_ns:
        return APPLIED, ts
    return LATE, st.rows[s].last_ts_event


@hot_kernel
def _apply_fill(st: PositionArrays, rows: np.ndarray, i: int, s: int, d: int, price: float, g: int,
                lateness_ns: int) -> int:
    status, effective = _effective_ts(st, s, rows[i].ts_event, g, lateness_ns)
    in_order = effective >= st.rows[s].last_ts_event
    absorbed = absorbed_by_opening(st, s, rows[i].ts_event)
    f = append_fill(st, s, rows[i].id_hash, rows[i].id_hash2, d, price, rows[i].fee, rows[i].ts_event, effective,
                    ABSORBED if absorbed else 0, rows[i].content)
    rows[i].fill = st.meta[FIRST_FILL_SEQ] + f + 1
    if g != ABSENT:
        st.fills[g].successor = f - g
        st.fills[f].flags |= (f - g + (st.fills[g].flags >> ORIGIN_SHIFT)) << ORIGIN_SHIFT
    touch_row(st, rows, i, s)
    if status == LATE:
        st.rows[s].late_trades += 1
    if absorbed:  # the statement says what was held; what it cost to trade, it does not say
        st.base[s].fees += rows[i].fee
        st.rows[s].fees += rows[i].fee
        st.rows[s].opening_realised_pnl -= rows[i].fee
    elif before_the_day(st, s, rows[i].ts_event):
        fold_into_opening(st, s, d, price, rows[i].fee)
    st.rows[s].last_ts_event = max(st.rows[s].last_ts_event, effective)
    if g != ABSENT or not in_order:
        refold_row(st, s)
        if g != ABSENT and st.fills[g].slot != s:
            refold_row(st, st.fills[g].slot)
    elif not absorbed:
        fold_fill(st.pool, st.rows, s, d, price, rows[i].fee)
    if st.rows[s].chain_length > CHAIN_MAX:
        absorb_half_chain(st, s)
    return status


@hot_kernel
def _apply_one(st: PositionArrays, rows: np.ndarray, i: int, ref: ReferenceArrays, partition: int,
               lateness_ns: int) -> int:
    account, instrument = rows[i].account_index, rows[i].instrument_index
    if ref.account_partition[account] != partition:
        return FOREIGN
    action = rows[i].action
    f = find_fill(st, rows[i].id_hash, rows[i].id_hash2)
    if action == BUST:
        return _apply_bust(st, rows, i, f)
    s = find_row(st, account, instrument)
    # a position keeps the decimals it was opened with, whatever the reference data say later
    decimals = ref.quantity_decimals[instrument] if s == ABSENT else st.rows[s].quantity_decimals
    status, units = READ, 0
    if rows[i].side != 0:
        status, units = scale_quantity(rows[i].quantity, rows[i].quantity_scale, decimals)
    if status != READ:
        return status
    price = rows[i].price / POW10_F[rows[i].price_scale]
    if units != 0 and (price == 0.0 or (price < 0.0 and ref.price_any_sign[instrument] == 0)):
        if ref.price_any_sign[instrument] == 0 or ref.inverse[instrument] != 0:
            return BAD_PRICE
    d = units * rows[i].side
    if f != ABSENT:
        if _is_repeat(st, f, rows, i, s, d, price):
            return DUPLICATE
        if action == NEW or rows[i].ref_hash != rows[i].id_hash or rows[i].ref_hash2 != rows[i].id_hash2:
            return ID_REUSED
    if s != ABSENT and _would_overflow(st.rows[s].quantity, d):
        return OVERFLOW
    g = ABSENT
    if action == CORRECT:
        g = find_fill(st, rows[i].ref_hash, rows[i].ref_hash2)
        if g == ABSENT or st.fills[g].flags & MARKER:
            return REF_UNKNOWN
        g = live_end(st, g)
        if st.fills[g].flags & BUSTED:
            return REF_UNKNOWN
        if (st.fills[g].quantity == 0) != (d == 0):  # cash is corrected by cash, a fill by a fill
            return BAD_QUANTITY
        _take_out(st, rows, i, g)
    # only now, when nothing can refuse the record any more, may it open a row: every row is in the changelog
    s = ensure_row(st, account, instrument, ref)
    return _apply_fill(st, rows, i, s, d, price, g, lateness_ns)


@kernel
def apply_trades(st: PositionArrays, rows: np.ndarray, start: int, ref: ReferenceArrays, partition: int,
                 lateness_ns: int, fills_max: int) -> int:
    """Apply READ records from ``start`` on, in order; each gets its final status.

    Returns the index of the first record not yet handled: the number of records, or less when the window is full
    (the caller has to `evict_oldest`; where that happens depends on the log alone, not on the batch) or when rows,
    lots or flags need more room.
    """
    for i in range(start, rows.shape[0]):
        if rows[i].status != READ:
            continue
        full = st.meta[N_FILLS] + 2 > fills_max
        if full or st.pool.lots.shape[0] - st.pool.meta[2] < LOTS_ROOM_MIN \
                or st.flagged.shape[0] - st.meta[N_FLAGGED] < FLAGS_ROOM_MIN \
                or st.meta[N_ROWS] == st.rows.shape[0]:
            return i
        rows[i].status = _apply_one(st, rows, i, ref, partition, lateness_ns)
    return rows.shape[0]
