"""Kernels that fold a batch of trades into a partition's positions, in log order, exactly once.

A late fill, a correction and a bust are all one thing: change the window of recent fills, fold that row again.
Nothing here depends on how the log was cut into batches.
"""

from __future__ import annotations

import numpy as np

from models.fills import fold_fill
from models.interning import ABSENT, mix64
from models.jit import hot_kernel, inline_kernel, kernel
from models.position_opening import absorbed_by_opening, before_the_day, fold_into_opening
from models.position_window import (
    ABSORBED,
    BUSTED,
    CHAIN_MAX,
    FLAGS_ROOM_MIN,
    LOTS_ROOM_MIN,
    MARKER,
    N_FILLS,
    N_FLAGGED,
    N_ROWS,
    PositionArrays,
    absorb_half_chain,
    append_fill,
    ensure_row,
    find_fill,
    find_row,
    flag_fill,
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
def _apply_bust(st: PositionArrays, rows: np.ndarray, i: int, f: int) -> int:
    """Take a window fill out again; its row is folded without it."""
    if st.fills[f].flags & BUSTED:
        return DUPLICATE
    s = st.fills[f].slot
    absorbed = st.fills[f].flags & ABSORBED != 0
    flag_fill(st, f, BUSTED)
    own = rows[i].id_hash != st.fills[f].id_hash or rows[i].id_hash2 != st.fills[f].id_hash2
    if before_the_day(st, s, st.fills[f].ts_event):
        fold_into_opening(st, s, -st.fills[f].quantity, st.fills[f].price, -st.fills[f].fee)
    if absorbed:  # no longer in the chain: the opposite fill at the same price has the same total P&L
        append_fill(st, s, rows[i].id_hash, rows[i].id_hash2, -st.fills[f].quantity, st.fills[f].price,
                    -st.fills[f].fee, rows[i].ts_event, st.rows[s].last_ts_event, 0)
    elif own:
        append_fill(st, s, rows[i].id_hash, rows[i].id_hash2, 0, 0.0, 0.0, rows[i].ts_event, 0, MARKER)
    touch_row(st, rows, i, s)
    refold_row(st, s)
    return APPLIED


@hot_kernel
def touch_row(st: PositionArrays, rows: np.ndarray, i: int, s: int) -> None:
    """Stamp a row with the record that changes it."""
    st.rows[s].offset = rows[i].offset
    st.rows[s].revision += 1
    st.rows[s].ts_source = rows[i].ts_source
    mark_dirty(st, s)


@hot_kernel
def _effective_ts(st: PositionArrays, s: int, ts: int, action: int, lateness_ns: int) -> tuple[int, int]:
    """Return (APPLIED or LATE, the time a fill is ordered by)."""
    if action == CORRECT or ts >= st.rows[s].last_ts_event or st.rows[s].last_ts_event - ts <= lateness_ns:
        return APPLIED, ts
    return LATE, st.rows[s].last_ts_event


@hot_kernel
def _apply_fill(st: PositionArrays, rows: np.ndarray, i: int, s: int, d: int, price: float,
                lateness_ns: int) -> int:
    status, effective = _effective_ts(st, s, rows[i].ts_event, rows[i].action, lateness_ns)
    in_order = effective >= st.rows[s].last_ts_event
    absorbed = absorbed_by_opening(st, s, rows[i].ts_event)
    append_fill(st, s, rows[i].id_hash, rows[i].id_hash2, d, price, rows[i].fee, rows[i].ts_event, effective,
                ABSORBED if absorbed else 0)
    touch_row(st, rows, i, s)
    if status == LATE:
        st.rows[s].late_trades += 1
    if absorbed:
        return status
    if before_the_day(st, s, rows[i].ts_event):
        fold_into_opening(st, s, d, price, rows[i].fee)
    if in_order:
        st.rows[s].last_ts_event = effective
        fold_fill(st.pool, st.rows, s, d, price, rows[i].fee)
    else:
        refold_row(st, s)
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
        if f != ABSENT and st.fills[f].flags & MARKER:
            return DUPLICATE
        g = find_fill(st, rows[i].ref_hash, rows[i].ref_hash2)
        if g == ABSENT or st.fills[g].flags & MARKER:
            return REF_UNKNOWN
        return _apply_bust(st, rows, i, g)
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
        same = (st.fills[f].slot == s and st.fills[f].quantity == d and st.fills[f].price == price
                and st.fills[f].ts_event == rows[i].ts_event)
        if same:
            return DUPLICATE
        if action == NEW or rows[i].ref_hash != rows[i].id_hash or rows[i].ref_hash2 != rows[i].id_hash2:
            return ID_REUSED
    if s != ABSENT and _would_overflow(st.rows[s].quantity, d):
        return OVERFLOW
    if action == CORRECT:
        g = find_fill(st, rows[i].ref_hash, rows[i].ref_hash2)
        if g == ABSENT or st.fills[g].flags & MARKER:
            return REF_UNKNOWN
        if st.fills[g].flags & ABSORBED and g == f:
            return REF_UNKNOWN
        rows[i].action = NEW if st.fills[g].flags & ABSORBED else CORRECT
        bust_for_correction(st, rows, i, g)
    # only now, when nothing can refuse the record any more, may it open a row: every row is in the changelog
    s = ensure_row(st, account, instrument, ref)
    return _apply_fill(st, rows, i, s, d, price, lateness_ns)


@inline_kernel
def bust_for_correction(st: PositionArrays, rows: np.ndarray, i: int, g: int) -> None:
    """Take the corrected fill out; the correction itself follows as a fill of its own."""
    if st.fills[g].flags & BUSTED:
        return
    s = st.fills[g].slot
    absorbed = st.fills[g].flags & ABSORBED != 0
    flag_fill(st, g, BUSTED)
    if before_the_day(st, s, st.fills[g].ts_event):
        fold_into_opening(st, s, -st.fills[g].quantity, st.fills[g].price, -st.fills[g].fee)
    if absorbed:
        append_fill(st, s, mix64(st.fills[g].id_hash), st.fills[g].id_hash2, -st.fills[g].quantity,
                    st.fills[g].price, -st.fills[g].fee, rows[i].ts_event, st.rows[s].last_ts_event, 0)
    touch_row(st, rows, i, s)
    refold_row(st, s)


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
