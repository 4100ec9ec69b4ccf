"""Kernels that fold a batch of trades into a partition's positions, in log order, exactly once.

State of a partition = rows (one per account and instrument) + the window of recent fills. A row is always the fold of
its ``base`` and of its fills in the window, ordered by effective time; so a late fill, a correction and a bust are
all one thing: change the window, fold that row again. Fills leave the window by count, the oldest half at once, and
are then part of the base. Nothing here depends on how the log was cut into batches.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.fills import FOLD_FIELDS, LOTS_MAX, NO_LOT, POSITION_DTYPE, LotPool, fold_fill, free_lots, new_lot
from models.interning import ABSENT, mix64
from models.jit import hot_kernel, inline_kernel, kernel
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

FILL_DTYPE = np.dtype([
    ("id_hash", "u8"), ("id_hash2", "u8"), ("quantity", "i8"), ("price", "f8"), ("fee", "f8"), ("ts_event", "i8"),
    ("effective_ts", "i8"), ("slot", "i4"), ("previous", "i4"), ("flags", "i4"), ("spare", "i4"),
], align=True)
BUSTED, MARKER, ABSORBED = 1, 2, 4

# places in `meta`
N_ROWS, N_FILLS, FIRST_FILL_SEQ, N_DIRTY, N_OUT, EPOCH, OUT_EPOCH, N_FLAGGED, N_FLUSHED = range(9)
META_SIZE = 16
POW10 = 10 ** np.arange(19, dtype=np.int64)
POW10_F = 10.0 ** np.arange(19)
INT64_MAX = 2**63 - 1
#: a position with more fills than this in the window folds the older half of them into its base
CHAIN_MAX = 4096
#: one record may fold a row again (its base's lots and its chain), and absorb half of that chain
LOTS_ROOM_MIN = 2 * (LOTS_MAX + CHAIN_MAX)
FLAGS_ROOM_MIN = CHAIN_MAX + 2


class PositionArrays(NamedTuple):
    """The columns of one partition. Growth is the caller's; kernels assume there is room for a batch."""

    rows: np.ndarray
    base: np.ndarray
    pool: LotPool
    fills: np.ndarray
    fill_index: np.ndarray  # int32[power of two] -> fill
    row_index: np.ndarray  # int32[power of two] -> row
    dirty: np.ndarray  # int32: rows to write to the changelog
    dirty_epoch: np.ndarray
    out: np.ndarray  # int32: rows to publish
    out_epoch: np.ndarray
    flagged: np.ndarray  # int64: sequence numbers of window fills whose flags changed since the last flush
    scratch: np.ndarray  # int32
    meta: np.ndarray


@hot_kernel
def mark_dirty(st: PositionArrays, s: int) -> None:
    """Remember that ``rows[s]`` has to be written and published."""
    if st.dirty_epoch[s] != st.meta[EPOCH]:
        st.dirty_epoch[s] = st.meta[EPOCH]
        st.dirty[st.meta[N_DIRTY]] = s
        st.meta[N_DIRTY] += 1
    if st.out_epoch[s] != st.meta[OUT_EPOCH]:
        st.out_epoch[s] = st.meta[OUT_EPOCH]
        st.out[st.meta[N_OUT]] = s
        st.meta[N_OUT] += 1


@inline_kernel
def row_hash(account: int, instrument: int) -> np.uint64:
    """Return the hash of a row's key."""
    return mix64((np.uint64(account) << np.uint64(32)) ^ np.uint64(instrument))


@hot_kernel
def find_row(st: PositionArrays, account: int, instrument: int) -> int:
    """Return the row of an account and instrument, or ABSENT."""
    mask = np.uint64(st.row_index.shape[0] - 1)
    at = row_hash(account, instrument) & mask
    while True:
        s = st.row_index[at]
        if s == ABSENT or (st.rows[s].account_index == account and st.rows[s].instrument_index == instrument):
            return s
        at = (at + np.uint64(1)) & mask


@inline_kernel
def index_row(st: PositionArrays, s: int) -> None:
    """Enter ``rows[s]`` into the key index."""
    mask = np.uint64(st.row_index.shape[0] - 1)
    at = row_hash(st.rows[s].account_index, st.rows[s].instrument_index) & mask
    while st.row_index[at] != ABSENT:
        at = (at + np.uint64(1)) & mask
    st.row_index[at] = s


@kernel
def clear_row(rows: np.ndarray, s: int) -> None:
    """Make a fresh, flat row."""
    rows[s].quantity = 0
    rows[s].trades = 0
    rows[s].average_price = 0.0
    rows[s].realised_pnl = 0.0
    rows[s].cost = 0.0
    rows[s].break_even_realised_pnl = 0.0
    rows[s].fifo_realised_pnl = 0.0
    rows[s].fees = 0.0
    rows[s].lot_head = NO_LOT
    rows[s].lot_tail = NO_LOT
    rows[s].lot_count = 0
    rows[s].fifo_merged = 0


@inline_kernel
def ensure_row(st: PositionArrays, account: int, instrument: int, ref: ReferenceArrays) -> int:
    """Return the row of a key, opening it if it is new. Its contract terms are fixed from then on."""
    s = find_row(st, account, instrument)
    if s != ABSENT:
        return s
    s = st.meta[N_ROWS]
    st.meta[N_ROWS] += 1
    for target in (st.rows, st.base):
        clear_row(target, s)
        target[s].unit_value = ref.unit_value[instrument]
        target[s].inverse = ref.inverse[instrument]
        target[s].quantity_decimals = ref.quantity_decimals[instrument]
        target[s].account_index = account
        target[s].instrument_index = instrument
        target[s].last_ts_event = 0
        target[s].revision = 0
        target[s].opening_quantity = 0
        target[s].opening_price = np.nan
        target[s].opening_realised_pnl = 0.0
        target[s].opening_ts = 0
        target[s].late_trades = 0
        target[s].last_fill = ABSENT
        target[s].chain_length = 0
        target[s].based = 0
        target[s].offset = -1
        target[s].ts_source = 0
    index_row(st, s)
    return s


@hot_kernel
def find_fill(st: PositionArrays, h: np.uint64, h2: np.uint64) -> int:
    """Return the window fill with a trade identity, or ABSENT."""
    mask = np.uint64(st.fill_index.shape[0] - 1)
    at = h & mask
    while True:
        f = st.fill_index[at]
        if f == ABSENT or (st.fills[f].id_hash == h and st.fills[f].id_hash2 == h2):
            return f
        at = (at + np.uint64(1)) & mask


@hot_kernel
def index_fill(st: PositionArrays, f: int) -> None:
    """Enter a fill into the identity index, in place of an older one with the same identity."""
    mask = np.uint64(st.fill_index.shape[0] - 1)
    h, h2 = st.fills[f].id_hash, st.fills[f].id_hash2
    at = h & mask
    while True:
        g = st.fill_index[at]
        if g == ABSENT or (st.fills[g].id_hash == h and st.fills[g].id_hash2 == h2):
            st.fill_index[at] = f
            return
        at = (at + np.uint64(1)) & mask


@hot_kernel
def append_fill(st: PositionArrays, s: int, h: np.uint64, h2: np.uint64, quantity: int, price: float, fee: float,
                ts: int, effective_ts: int, flags: int) -> int:
    """Put a fill at the end of the window and of its row's chain."""
    f = st.meta[N_FILLS]
    st.meta[N_FILLS] += 1
    st.fills[f].id_hash, st.fills[f].id_hash2 = h, h2
    st.fills[f].slot = s
    st.fills[f].quantity, st.fills[f].price, st.fills[f].fee = quantity, price, fee
    st.fills[f].ts_event, st.fills[f].effective_ts = ts, effective_ts
    st.fills[f].flags = flags
    st.fills[f].previous = ABSENT
    index_fill(st, f)
    if flags & (MARKER | ABSORBED) == 0:
        st.fills[f].previous = st.rows[s].last_fill
        st.rows[s].last_fill = f
        st.rows[s].chain_length += 1
    return f


@inline_kernel
def flag_fill(st: PositionArrays, f: int, flag: int) -> None:
    """Set a flag of a window fill and remember to persist it."""
    st.fills[f].flags |= flag
    st.flagged[st.meta[N_FLAGGED]] = st.meta[FIRST_FILL_SEQ] + f
    st.meta[N_FLAGGED] += 1


@inline_kernel
def sorted_chain(st: PositionArrays, s: int) -> int:
    """Put a row's fills into ``scratch``, by effective time, then by arrival; return how many."""
    n = 0
    f = st.rows[s].last_fill
    while f != ABSENT:
        if st.fills[f].flags & (BUSTED | MARKER | ABSORBED) == 0:
            st.scratch[n] = f
            n += 1
        f = st.fills[f].previous
    for i in range(n // 2):
        st.scratch[i], st.scratch[n - 1 - i] = st.scratch[n - 1 - i], st.scratch[i]
    for i in range(1, n):
        f = st.scratch[i]
        ts = st.fills[f].effective_ts
        j = i - 1
        while j >= 0 and st.fills[st.scratch[j]].effective_ts > ts:
            st.scratch[j + 1] = st.scratch[j]
            j -= 1
        st.scratch[j + 1] = f
    return n


@inline_kernel
def copy_fold(pool: LotPool, source: np.ndarray, target: np.ndarray, s: int) -> None:
    """Copy the fold part of ``source[s]`` to ``target[s]``, lots included."""
    free_lots(pool, target, s)
    target[s].quantity = source[s].quantity
    target[s].trades = source[s].trades
    target[s].average_price = source[s].average_price
    target[s].realised_pnl = source[s].realised_pnl
    target[s].cost = source[s].cost
    target[s].break_even_realised_pnl = source[s].break_even_realised_pnl
    target[s].fifo_realised_pnl = source[s].fifo_realised_pnl
    target[s].fees = source[s].fees
    target[s].fifo_merged = source[s].fifo_merged
    index = source[s].lot_head
    while index != NO_LOT:
        copy = new_lot(pool, pool.lots[index].quantity, pool.lots[index].price)
        if target[s].lot_head == NO_LOT:
            target[s].lot_head = copy
        else:
            pool.lots[target[s].lot_tail].next = copy
        target[s].lot_tail = copy
        target[s].lot_count += 1
        index = pool.lots[index].next


@kernel
def refold_row(st: PositionArrays, s: int) -> None:
    """Fold ``rows[s]`` again from its base and its fills in the window."""
    n = sorted_chain(st, s)
    copy_fold(st.pool, st.base, st.rows, s)
    for i in range(n):
        f = st.scratch[i]
        fold_fill(st.pool, st.rows, s, st.fills[f].quantity, st.fills[f].price, st.fills[f].fee)


@kernel
def absorb_half_chain(st: PositionArrays, s: int) -> None:
    """Fold the older half of a long chain into the base; those fills stay known by identity only."""
    n = sorted_chain(st, s)
    half = n // 2
    for i in range(half):
        f = st.scratch[i]
        fold_fill(st.pool, st.base, s, st.fills[f].quantity, st.fills[f].price, st.fills[f].fee)
        flag_fill(st, f, ABSORBED)
    st.base[s].based = 1
    st.rows[s].based = 1
    last = ABSENT
    for i in range(half, n):  # relink what is left in arrival order
        st.scratch[i - half] = st.scratch[i]
    kept = np.sort(st.scratch[: n - half])
    for i in range(n - half):
        st.fills[kept[i]].previous = last
        last = kept[i]
    st.rows[s].last_fill = last
    st.rows[s].chain_length = n - half


@kernel
def evict_oldest(st: PositionArrays, count: int) -> None:
    """Fold the ``count`` oldest fills into their bases and forget their identities."""
    n = st.meta[N_FILLS]
    for f in range(count):
        if st.fills[f].flags & (BUSTED | MARKER | ABSORBED) == 0:
            s = st.fills[f].slot
            fold_fill(st.pool, st.base, s, st.fills[f].quantity, st.fills[f].price, st.fills[f].fee)
            st.base[s].based = 1
            st.rows[s].based = 1
            st.rows[s].chain_length -= 1
            mark_dirty(st, s)
    for f in range(count, n):
        st.fills[f - count] = st.fills[f]
        back = st.fills[f].previous
        st.fills[f - count].previous = back - count if back >= count else ABSENT
    for s in range(st.meta[N_ROWS]):
        last = st.rows[s].last_fill
        st.rows[s].last_fill = last - count if last >= count else ABSENT
    st.meta[N_FILLS] = n - count
    st.meta[FIRST_FILL_SEQ] += count
    st.meta[N_FLUSHED] = max(st.meta[N_FLUSHED] - count, 0)
    kept = 0
    for i in range(st.meta[N_FLAGGED]):
        if st.flagged[i] >= st.meta[FIRST_FILL_SEQ]:
            st.flagged[kept] = st.flagged[i]
            kept += 1
    st.meta[N_FLAGGED] = kept
    reindex_fills(st)


@kernel
def reindex_fills(st: PositionArrays) -> None:
    """Build the identity index again."""
    st.fill_index[:] = ABSENT
    for f in range(st.meta[N_FILLS]):
        index_fill(st, f)


@kernel
def reindex_rows(st: PositionArrays) -> None:
    """Build the key index again."""
    st.row_index[:] = ABSENT
    for s in range(st.meta[N_ROWS]):
        index_row(st, s)


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
    absorbed = rows[i].ts_event < st.rows[s].opening_ts  # the opening position already includes it
    append_fill(st, s, rows[i].id_hash, rows[i].id_hash2, d, price, rows[i].fee, rows[i].ts_event, effective,
                ABSORBED if absorbed else 0)
    touch_row(st, rows, i, s)
    if status == LATE:
        st.rows[s].late_trades += 1
    if absorbed:
        return status
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
    status, units = scale_quantity(rows[i].quantity, rows[i].quantity_scale, decimals)
    if status != READ:
        return status
    price = rows[i].price / POW10_F[rows[i].price_scale]
    if price == 0.0 or (price < 0.0 and ref.price_any_sign[instrument] == 0):
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
    st.rows[s].last_ts_event = max(st.rows[s].last_ts_event, ts)
    st.rows[s].revision += 1
    st.rows[s].ts_source = ts_source
    mark_dirty(st, s)
    relink_rows(st, s)
    refold_row(st, s)
    return s


@kernel
def relink_rows(st: PositionArrays, only: int) -> None:
    """Build the chains of window fills again, of one row or (``only`` < 0) of all."""
    for s in range(st.meta[N_ROWS]):
        if only < 0 or s == only:
            st.rows[s].last_fill = ABSENT
            st.rows[s].chain_length = 0
    for f in range(st.meta[N_FILLS]):
        s = st.fills[f].slot
        if (only >= 0 and s != only) or st.fills[f].flags & (MARKER | ABSORBED) != 0:
            continue
        st.fills[f].previous = st.rows[s].last_fill
        st.rows[s].last_fill = f
        st.rows[s].chain_length += 1


assert tuple(POSITION_DTYPE.names[: len(FOLD_FIELDS)]) == tuple(name for name, _ in FOLD_FIELDS)  # type: ignore[index]
