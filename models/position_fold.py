"""Kernels that fold a batch of trades into a partition's positions, in log order, exactly once.

A late fill, a correction and a bust are all one thing: change what the window holds of a row, fold that row again.
Nothing here depends on how the log was cut into batches.
"""

from __future__ import annotations

import numpy as np

from models.fills import fold_fill
from models.interning import ABSENT
from models.jit import hot_kernel, inline_kernel, kernel
from models.position_order import check_half_chain, refold_row, refold_whole
from models.position_window import (
    ABSORBED,
    BUSTED,
    CHAIN_MAX,
    CHECKED,
    FEE_ONLY,
    FIRST_FILL_SEQ,
    FLAGS_ROOM_MIN,
    LATENESS,
    LOTS_ROOM_MIN,
    MARKER,
    N_DUE,
    N_FILLS,
    N_FLAGGED,
    N_ROWS,
    ORIGIN_SHIFT,
    REVERSAL,
    PositionArrays,
    append_fill,
    ensure_row,
    find_fill,
    find_row,
    flag_fill,
    last_split,
    live_end,
    mark_dirty,
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
from schemas.units import FILL_UNITS_MAX, UNITS_MAX

POW10 = 10 ** np.arange(19, dtype=np.int64)
POW10_F = 10.0 ** np.arange(19)
#: counted units from which on a position that is not known exactly is folded first
SURELY_FITS = 4.5e18
#: how much of a row is to be folded again: what is not in its checkpoint, all with its opening
LATER, WHOLE = 1, 2


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
    if mantissa > FILL_UNITS_MAX // factor:
        return OVERFLOW, 0
    return READ, mantissa * factor


@inline_kernel
def _would_overflow(st: PositionArrays, s: int, d: int) -> bool:
    """Return whether a row cannot be counted with another fill; one that is due is folded first where it may be."""
    if st.due_kind[s] != 0:
        if st.due_bound[s] + abs(float(d)) <= SURELY_FITS:
            return False
        refold_whole(st, s)
        st.due_bound[s] = abs(float(st.rows[s].quantity))
    return abs(st.rows[s].quantity + d) > UNITS_MAX


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
    return APPLIED


@inline_kernel
def _take_out(st: PositionArrays, rows: np.ndarray, i: int, g: int) -> None:
    """Take back what was booked of a fill, where it was booked; its row is yet to be folded again."""
    s, fee, flags = st.fills[g].slot, st.fills[g].fee, st.fills[g].flags
    rows[i].taken = st.meta[FIRST_FILL_SEQ] + g + 1
    rows[i].taken_slot, rows[i].taken_ts = s, st.fills[g].ts_event
    flag_fill(st, g, BUSTED)
    touch_row(st, rows, i, s)
    be_due(st, s, WHOLE)
    if flags & (ABSORBED | CHECKED) == 0:
        st.rows[s].chain_length -= 1
    if flags & FEE_ONLY:
        _book_fee(st, s, -fee)
    elif flags & ABSORBED:  # not in the chain any more: its opposite in its place has the same total P&L
        rows[i].inexact = 1
        if st.fills[g].ts_event < st.base[s].stated_ts:  # what the statement says is held is not touched
            _book_fee(st, s, -fee)
        else:
            append_fill(st, s, np.uint64(0), np.uint64(0), -st.fills[g].quantity, st.fills[g].price, -fee,
                        st.fills[g].ts_event, st.fills[g].ts_event, REVERSAL, np.uint64(0))


@inline_kernel
def _book_fee(st: PositionArrays, s: int, fee: float) -> None:
    """Book the fee of a fill that a statement in the base includes: what it cost to trade, no statement says."""
    st.base[s].fees += fee
    if st.base[s].rolled != 0:
        st.base[s].opening_fees += fee


@hot_kernel
def touch_row(st: PositionArrays, rows: np.ndarray, i: int, s: int) -> None:
    """Stamp a row with the record that changes it."""
    st.rows[s].offset = rows[i].offset
    st.rows[s].revision += 1
    st.rows[s].ts_source = rows[i].ts_source
    mark_dirty(st, s)


@hot_kernel
def _apply_fill(st: PositionArrays, rows: np.ndarray, i: int, s: int, d: int, price: float, g: int) -> int:
    ts, newest = rows[i].ts_event, st.rows[s].last_ts_event
    late = g == ABSENT and newest - ts > st.meta[LATENESS]
    effective = newest if late else ts
    included = ts < st.base[s].stated_ts
    f = append_fill(st, s, rows[i].id_hash, rows[i].id_hash2, d, price, rows[i].fee, ts, effective,
                    ABSORBED | FEE_ONLY if included else 0, rows[i].content)
    rows[i].fill = st.meta[FIRST_FILL_SEQ] + f + 1
    if g != ABSENT:
        st.fills[g].successor = f - g
        st.fills[f].flags |= (f - g + (st.fills[g].flags >> ORIGIN_SHIFT)) << ORIGIN_SHIFT
    touch_row(st, rows, i, s)
    if included:
        _book_fee(st, s, rows[i].fee)
    whole = g != ABSENT or included or ts < st.rows[s].opening_ts or ts < last_split(st, st.rows[s].instrument_index)
    if whole or effective < newest or st.due_kind[s] != 0:
        be_due(st, s, WHOLE if whole else LATER)
        st.due_bound[s] += abs(float(d))
        st.rows[s].last_ts_event = max(newest, effective)
        return LATE if late else APPLIED
    fold_fill(st.pool, st.rows, s, d, price, rows[i].fee)
    st.rows[s].last_ts_event = effective
    st.rows[s].late_trades += 1 if late else 0
    if st.rows[s].chain_length > CHAIN_MAX:
        check_half_chain(st, s)
    return LATE if late else APPLIED


@inline_kernel
def be_due(st: PositionArrays, s: int, kind: int) -> None:
    """Have a row folded again at the end of the batch: once, whatever else comes for it."""
    if st.due_kind[s] == 0:
        st.due[st.meta[N_DUE]] = s
        st.meta[N_DUE] += 1
        st.due_bound[s] = abs(float(st.rows[s].quantity))
    st.due_kind[s] = max(st.due_kind[s], kind)


@kernel
def refold_due(st: PositionArrays) -> int:
    """Fold rows again that something changed amid; return how many are left, for which there is no room."""
    while st.meta[N_DUE] > 0 and st.pool.lots.shape[0] - st.pool.meta[2] >= LOTS_ROOM_MIN:
        st.meta[N_DUE] -= 1
        s = st.due[st.meta[N_DUE]]
        if st.due_kind[s] == WHOLE:
            refold_whole(st, s)
        else:
            refold_row(st, s)
        st.due_kind[s] = 0
        if st.rows[s].chain_length > CHAIN_MAX:
            check_half_chain(st, s)
    return st.meta[N_DUE]


@hot_kernel
def _apply_one(st: PositionArrays, rows: np.ndarray, i: int, ref: ReferenceArrays, partition: int) -> int:
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
    free = rows[i].free != 0
    if action == CORRECT and price == 0.0:  # what was received at no cost is corrected at none
        g = find_fill(st, rows[i].ref_hash, rows[i].ref_hash2)
        free = g != ABSENT and st.fills[live_end(st, g)].price == 0.0
    if units != 0 and (not free or ref.inverse[instrument] != 0) and (
            price == 0.0 or (price < 0.0 and ref.price_any_sign[instrument] == 0)):
        if ref.price_any_sign[instrument] == 0 or ref.inverse[instrument] != 0:
            return BAD_PRICE
    d = units * rows[i].side
    if f != ABSENT:
        if _is_repeat(st, f, rows, i, s, d, price):
            return DUPLICATE
        if action == NEW or rows[i].ref_hash != rows[i].id_hash or rows[i].ref_hash2 != rows[i].id_hash2:
            return ID_REUSED
    if s != ABSENT and _would_overflow(st, s, d):
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
    return _apply_fill(st, rows, i, s, d, price, g)


@kernel
def apply_trades(st: PositionArrays, rows: np.ndarray, start: int, ref: ReferenceArrays, partition: int,
                 fills_max: int) -> int:
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
        rows[i].status = _apply_one(st, rows, i, ref, partition)
    return rows.shape[0]
