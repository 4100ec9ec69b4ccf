"""A partition's positions and its window of recent fills, as columns: indices, chains, growth of the base.

A row is always the fold of its ``base`` and of its fills in the window, ordered by effective time. Fills leave the
window by count, the oldest half at once, and are then part of the base.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.fills import FOLD_FIELDS, LOTS_MAX, NO_LOT, POSITION_DTYPE, LotPool, fold_fill, free_lots, new_lot
from models.interning import ABSENT, mix64
from models.jit import hot_kernel, inline_kernel, kernel
from models.trade_columns import ReferenceArrays

FILL_DTYPE = np.dtype([
    ("id_hash", "u8"), ("id_hash2", "u8"), ("quantity", "i8"), ("price", "f8"), ("fee", "f8"), ("ts_event", "i8"),
    ("effective_ts", "i8"), ("slot", "i4"), ("previous", "i4"), ("flags", "i4"), ("successor", "i4"),
], align=True)
#: ``REVERSAL``: the opposite of a fill that is part of the base already; it has no identity of its own
BUSTED, MARKER, ABSORBED, REVERSAL = 1, 2, 4, 8
#: above the flags: how many fills back the first record of a chain of corrections came, whose place the fill takes
ORIGIN_SHIFT = 8

# places in `meta`
N_ROWS, N_FILLS, FIRST_FILL_SEQ, N_DIRTY, N_OUT, EPOCH, OUT_EPOCH, N_FLAGGED, N_FLUSHED = range(9)
META_SIZE = 16
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
    content: np.ndarray  # uint64[fills]: hash of what a record says beside the columns of its fill; 0: not known
    fill_index: np.ndarray  # int32[power of two] -> fill
    row_index: np.ndarray  # int32[power of two] -> row
    dirty: np.ndarray  # int32: rows to write to the changelog
    dirty_epoch: np.ndarray
    out: np.ndarray  # int32: rows to publish
    out_epoch: np.ndarray
    flagged: np.ndarray  # int64: sequence numbers of window fills whose flags changed since the last flush
    scratch: np.ndarray  # int32
    day_start: np.ndarray  # int64[accounts]: when the account's day began, 0: it was not rolled
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
        target[s].rolled = 0
        target[s].late_trades = 0
        target[s].last_fill = ABSENT
        target[s].chain_length = 0
        target[s].based = 0
        target[s].offset = -1
        target[s].ts_source = 0
    if st.day_start[account] != 0:  # what was traded before the roll is still to come
        st.rows[s].opening_ts = st.day_start[account]
        st.rows[s].rolled = 1
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
    """Enter a fill into the identity index; of several with the same identity the oldest stays there.

    From it the others are reached: they are later links of one chain of corrections.
    """
    if st.fills[f].flags & REVERSAL:
        return
    mask = np.uint64(st.fill_index.shape[0] - 1)
    h, h2 = st.fills[f].id_hash, st.fills[f].id_hash2
    at = h & mask
    while True:
        g = st.fill_index[at]
        if g == ABSENT:
            st.fill_index[at] = f
            return
        if st.fills[g].id_hash == h and st.fills[g].id_hash2 == h2:
            return
        at = (at + np.uint64(1)) & mask


@hot_kernel
def live_end(st: PositionArrays, f: int) -> int:
    """Return the last link of the chain of corrections that a fill is part of."""
    while st.fills[f].successor != 0:
        f += st.fills[f].successor
    return f


@hot_kernel
def append_fill(st: PositionArrays, s: int, h: np.uint64, h2: np.uint64, quantity: int, price: float, fee: float,
                ts: int, effective_ts: int, flags: int, content: np.uint64) -> int:
    """Put a fill at the end of the window and of its row's chain."""
    f = st.meta[N_FILLS]
    st.meta[N_FILLS] += 1
    st.fills[f].id_hash, st.fills[f].id_hash2 = h, h2
    st.fills[f].slot = s
    st.fills[f].quantity, st.fills[f].price, st.fills[f].fee = quantity, price, fee
    st.fills[f].ts_event, st.fills[f].effective_ts = ts, effective_ts
    st.fills[f].flags = flags
    st.fills[f].previous = ABSENT
    st.fills[f].successor = 0
    st.content[f] = content
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
    """Put a row's fills into ``scratch``, by effective time, then by arrival; return how many.

    A correction takes the place of the record that it corrects in the first place.
    """
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
        ts, arrival = st.fills[f].effective_ts, f - (st.fills[f].flags >> ORIGIN_SHIFT)
        j = i - 1
        while j >= 0:
            g = st.scratch[j]
            other = st.fills[g].effective_ts
            if other < ts or (other == ts and g - (st.fills[g].flags >> ORIGIN_SHIFT) <= arrival):
                break
            st.scratch[j + 1] = g
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
    relink_rows(st, s)


@kernel
def retire_fills(st: PositionArrays, s: int) -> None:
    """Empty the base of ``rows[s]`` for another fold; its window fills stay known by identity only."""
    for f in range(st.meta[N_FILLS]):
        if st.fills[f].slot == s and st.fills[f].flags & (BUSTED | MARKER | ABSORBED) == 0:
            flag_fill(st, f, ABSORBED)
    free_lots(st.pool, st.base, s)
    st.base[s].based = 1
    st.rows[s].based = 1
    st.rows[s].revision += 1
    relink_rows(st, s)
    mark_dirty(st, s)


@hot_kernel
def _absorb_until(st: PositionArrays, s: int, count: int) -> None:
    """Fold the fills of a row that leave the window into its base, and with them all that were traded before."""
    n = sorted_chain(st, s)
    last = -1
    for i in range(n):
        if st.scratch[i] < count:
            last = i
    for i in range(last + 1):
        f = st.scratch[i]
        fold_fill(st.pool, st.base, s, st.fills[f].quantity, st.fills[f].price, st.fills[f].fee)
        if f < count:
            st.fills[f].flags |= ABSORBED
        else:
            flag_fill(st, f, ABSORBED)
    st.base[s].based = 1
    st.rows[s].based = 1
    mark_dirty(st, s)


@kernel
def evict_oldest(st: PositionArrays, count: int) -> None:
    """Fold the ``count`` oldest fills into their bases, in order of trade time, and forget their identities."""
    n = st.meta[N_FILLS]
    for f in range(count):
        if st.fills[f].flags & (BUSTED | MARKER | ABSORBED) == 0:
            _absorb_until(st, st.fills[f].slot, count)
    for f in range(count, n):
        st.fills[f - count] = st.fills[f]
        st.content[f - count] = st.content[f]
        back = st.fills[f].previous
        st.fills[f - count].previous = back - count if back >= count else ABSENT
    st.meta[N_FILLS] = n - count
    st.meta[FIRST_FILL_SEQ] += count
    st.meta[N_FLUSHED] = max(st.meta[N_FLUSHED] - count, 0)
    kept = 0
    for i in range(st.meta[N_FLAGGED]):
        if st.flagged[i] >= st.meta[FIRST_FILL_SEQ]:
            st.flagged[kept] = st.flagged[i]
            kept += 1
    st.meta[N_FLAGGED] = kept
    relink_rows(st, -1)
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


@kernel
def relink_rows(st: PositionArrays, only: int) -> None:
    """Build the chains of window fills again, of one row or (``only`` < 0) of all."""
    for s in range(st.meta[N_ROWS]):
        if only < 0 or s == only:
            st.rows[s].last_fill = ABSENT
            st.rows[s].chain_length = 0
    for f in range(st.meta[N_FILLS]):
        s = st.fills[f].slot
        if (only >= 0 and s != only) or st.fills[f].flags & (BUSTED | MARKER | ABSORBED) != 0:
            continue
        st.fills[f].previous = st.rows[s].last_fill
        st.rows[s].last_fill = f
        st.rows[s].chain_length += 1


assert tuple(POSITION_DTYPE.names[: len(FOLD_FIELDS)]) == tuple(name for name, _ in FOLD_FIELDS)  # type: ignore[index]
