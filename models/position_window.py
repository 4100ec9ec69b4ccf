"""A partition's positions and its window of recent fills, as columns: indices and chains.

A row is always the fold of its ``base`` and of what the window holds of it (see `models.position_order`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.fills import FOLD_FIELDS, LOTS_MAX, NO_LOT, POSITION_DTYPE, LotPool
from models.interning import ABSENT, mix64
from models.jit import hot_kernel, inline_kernel, kernel
from models.trade_columns import ReferenceArrays

FILL_DTYPE = np.dtype([
    ("id_hash", "u8"), ("id_hash2", "u8"), ("quantity", "i8"), ("price", "f8"), ("fee", "f8"), ("ts_event", "i8"),
    ("effective_ts", "i8"), ("slot", "i4"), ("previous", "i4"), ("flags", "i4"), ("successor", "i4"),
], align=True)
#: ``ABSORBED``: part of the base for good. ``REVERSAL``: the opposite of such a fill; ``STATED``: no fill, but what
#: outside sources state from its time on; neither has an identity. ``FEE_ONLY``: a statement that is part of the base
#: includes it, only its fee was booked. ``CHECKED``: part of the row's checkpoint; in memory alone
BUSTED, MARKER, ABSORBED, REVERSAL, STATED, FEE_ONLY, CHECKED = 1, 2, 4, 8, 16, 32, 64
NO_IDENTITY = REVERSAL | STATED
OUT_OF_CHAIN = BUSTED | MARKER | ABSORBED | CHECKED
#: above the flags: how many fills back the first record of a chain of corrections came, whose place the fill takes
ORIGIN_SHIFT = 8

# places in `meta`
N_ROWS, N_FILLS, FIRST_FILL_SEQ, N_DIRTY, N_OUT, EPOCH, OUT_EPOCH, N_FLAGGED, N_FLUSHED, LATENESS, N_DUE = range(11)
META_SIZE = 16
#: later than any time
FOREVER = 2**63 - 1
#: of more fills than this the older half is folded once into the row's checkpoint, from which late ones are folded
CHAIN_MAX = 4096
#: one record may fold two rows again, their openings, and a checkpoint
LOTS_ROOM_MIN = 6 * (LOTS_MAX + 2)
FLAGS_ROOM_MIN = 4
#: splits of instruments: from ``ts`` on ``up / down`` units for one; ``mark``: hash of what the record says
ACTION_DTYPE = np.dtype([("ts", "i8"), ("up", "i8"), ("down", "i8"), ("ratio", "f8"), ("mark", "u8")], align=True)


class PositionArrays(NamedTuple):
    """The columns of one partition. Growth is the caller's; kernels assume there is room for a batch."""

    rows: np.ndarray
    base: np.ndarray
    mid: np.ndarray  # checkpoints: the fold of a base and the older fills of a long chain; in memory alone
    spare: np.ndarray  # two rows to fold openings in
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
    key: np.ndarray  # int64[fills]: the time each is folded at, see `position_order.arrange`
    due: np.ndarray  # int32: rows to fold again at the end of a batch
    due_kind: np.ndarray  # int8[rows]
    due_bound: np.ndarray  # float64[rows]: how much a row that is due holds at most
    stated: np.ndarray  # float64[rows]: what the sides of several sources net to; not part of any fold
    day_start: np.ndarray  # int64[accounts]: when the account's day began, 0: it was not rolled
    actions: np.ndarray  # ACTION_DTYPE: splits that are in force, by instrument and time
    action_start: np.ndarray  # int64[instruments + 1]: where those of an instrument begin
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


@kernel
def clear_base(rows: np.ndarray, s: int) -> None:
    """Make a row that nothing was folded into, in its terms."""
    clear_row(rows, s)
    rows[s].last_ts_event = 0
    rows[s].revision = 0
    rows[s].opening_quantity = 0
    rows[s].opening_price = np.nan
    rows[s].opening_realised_pnl = 0.0
    rows[s].opening_ts = 0
    rows[s].rolled = 0
    rows[s].late_trades = 0
    rows[s].last_fill = ABSENT
    rows[s].chain_length = 0
    rows[s].based = 0
    rows[s].offset = -1
    rows[s].ts_source = 0
    rows[s].horizon_ts = 0
    rows[s].filled_ts = 0
    rows[s].stated_ts = 0
    rows[s].actions_hash = 0
    rows[s].opening_fees = 0.0


@inline_kernel
def action_range(st: PositionArrays, instrument: int) -> tuple[int, int]:
    """Return where the splits of an instrument lie."""
    if instrument + 1 >= st.action_start.shape[0]:
        return 0, 0
    return st.action_start[instrument], st.action_start[instrument + 1]


@inline_kernel
def last_split(st: PositionArrays, instrument: int) -> int:
    """Return when the last split of an instrument was; 0: there was none."""
    first, end = action_range(st, instrument)
    return st.actions[end - 1].ts if end > first else 0


@inline_kernel
def splits_hash(st: PositionArrays, instrument: int, until: int) -> np.uint64:
    """Return a hash of the splits of an instrument up to a time."""
    first, end = action_range(st, instrument)
    total = np.uint64(0)
    for k in range(first, end):
        if st.actions[k].ts <= until:
            total = mix64(total ^ st.actions[k].mark)
    return total


@inline_kernel
def ensure_row(st: PositionArrays, account: int, instrument: int, ref: ReferenceArrays) -> int:
    """Return the row of a key, opening it if it is new. Its contract terms are fixed from then on."""
    s = find_row(st, account, instrument)
    if s != ABSENT:
        return s
    s = st.meta[N_ROWS]
    st.meta[N_ROWS] += 1
    st.stated[s] = 0.0
    st.due_kind[s] = 0
    for target in (st.rows, st.base, st.mid):
        clear_base(target, s)
        target[s].unit_value = ref.unit_value[instrument]
        target[s].inverse = ref.inverse[instrument]
        target[s].quantity_decimals = ref.quantity_decimals[instrument]
        target[s].account_index = account
        target[s].instrument_index = instrument
    st.rows[s].actions_hash = splits_hash(st, instrument, FOREVER)
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
    if st.fills[f].flags & NO_IDENTITY:
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
        if (only >= 0 and s != only) or st.fills[f].flags & OUT_OF_CHAIN != 0:
            continue
        st.fills[f].previous = st.rows[s].last_fill
        st.rows[s].last_fill = f
        st.rows[s].chain_length += 1


assert tuple(POSITION_DTYPE.names[: len(FOLD_FIELDS)]) == tuple(name for name, _ in FOLD_FIELDS)  # type: ignore[index]
