"""What happened to a position, in the order of its trade time: the fold of a base and of what the window holds.

In the chain of a row lie its fills and what outside sources stated; splits of its instrument lie between them. All of
it is folded in the order in which it happened, whenever it came: a late fill, a correction, a bust, a statement, a
split, each is a change of the chain, and then the row is folded again. Fills leave the window by count, the oldest half
at once, and are then part of the base: nothing can be placed before its horizon any more.
"""

from __future__ import annotations

import numpy as np

from models.fills import NO_LOT, LotPool, fold_fill, fold_split, fold_statement, free_lots, new_lot
from models.interning import mix64
from models.jit import inline_kernel, kernel
from models.position_chain import arrange, day_of
from models.position_window import (
    ABSORBED,
    CHECKED,
    FIRST_FILL_SEQ,
    FOREVER,
    MARKER,
    N_FILLS,
    N_FLAGGED,
    N_FLUSHED,
    N_ROWS,
    OUT_OF_CHAIN,
    REVERSAL,
    STATED,
    PositionArrays,
    action_range,
    clear_row,
    flag_fill,
    last_split,
    mark_dirty,
    reindex_fills,
    relink_rows,
    splits_hash,
)


@kernel
def copy_fold(pool: LotPool, source: np.ndarray, a: int, target: np.ndarray, s: int) -> None:
    """Copy the fold part of ``source[a]`` to ``target[s]``, lots included."""
    free_lots(pool, target, s)
    target[s].quantity = source[a].quantity
    target[s].trades = source[a].trades
    target[s].average_price = source[a].average_price
    target[s].realised_pnl = source[a].realised_pnl
    target[s].cost = source[a].cost
    target[s].break_even_realised_pnl = source[a].break_even_realised_pnl
    target[s].fifo_realised_pnl = source[a].fifo_realised_pnl
    target[s].fees = source[a].fees
    target[s].fifo_merged = source[a].fifo_merged
    index = source[a].lot_head
    while index != NO_LOT:
        copy = new_lot(pool, pool.lots[index].quantity, pool.lots[index].price)
        if target[s].lot_head == NO_LOT:
            target[s].lot_head = copy
        else:
            pool.lots[target[s].lot_tail].next = copy
        target[s].lot_tail = copy
        target[s].lot_count += 1
        index = pool.lots[index].next


@inline_kernel
def _fold_one(st: PositionArrays, target: np.ndarray, t: int, s: int, f: int) -> None:
    """Fold one of a row's chain onto ``target[t]``; a fill from before a split of the base in the units after it."""
    d, price = st.fills[f].quantity, st.fills[f].price
    if st.fills[f].flags & STATED:
        fold_statement(st.pool, target, t, d, price)
        return
    first, end = action_range(st, st.rows[s].instrument_index)
    for k in range(first, end):
        if st.fills[f].ts_event < st.actions[k].ts <= st.base[s].horizon_ts:
            d, price = d * st.actions[k].up // st.actions[k].down, price / st.actions[k].ratio
    fold_fill(st.pool, target, t, d, price, st.fills[f].fee)
    if st.fills[f].flags & REVERSAL and d != 0:  # neither the fill nor its opposite is a trade
        target[t].trades -= 2


@inline_kernel
def _split_until(st: PositionArrays, target: np.ndarray, t: int, s: int, k: int, key: int) -> int:
    """Apply the splits up to a time to ``target[t]``, from the ``k``-th on; return the next one."""
    end = action_range(st, st.rows[s].instrument_index)[1]
    while k < end and st.actions[k].ts <= key:
        fold_split(st.pool, target, t, st.actions[k].up, st.actions[k].down, st.actions[k].ratio)
        k += 1
    return k


@inline_kernel
def _first_split(st: PositionArrays, s: int, horizon: int) -> int:
    """Return the first split of a row's instrument that is not part of a fold up to ``horizon``."""
    k, end = action_range(st, st.rows[s].instrument_index)
    while k < end and st.actions[k].ts <= horizon:
        k += 1
    return k


@kernel
def fold_sorted(st: PositionArrays, target: np.ndarray, t: int, s: int, n: int, horizon: int, before: int) -> None:
    """Fold what lies in ``scratch`` onto ``target[t]``, which is a fold of the same row up to ``horizon``.

    Only what was traded before ``before``; in the units after the last split.
    """
    k = _first_split(st, s, horizon)
    for i in range(n):
        f = st.scratch[i]
        if st.fills[f].ts_event < before:
            k = _split_until(st, target, t, s, k, st.key[f])
            _fold_one(st, target, t, s, f)
    _split_until(st, target, t, s, k, FOREVER)


@inline_kernel
def _book_stated(st: PositionArrays, s: int) -> None:
    if st.stated[s] != 0.0:
        st.rows[s].realised_pnl += st.stated[s]
        st.rows[s].break_even_realised_pnl += st.stated[s]
        st.rows[s].fifo_realised_pnl += st.stated[s]


@kernel
def uncheck(st: PositionArrays, s: int) -> None:
    """Take a row's checkpoint apart: its fills are in its chain again."""
    if st.mid[s].chain_length == 0:
        return
    for f in range(st.meta[N_FILLS]):
        if st.fills[f].slot == s:
            st.fills[f].flags &= ~CHECKED
    free_lots(st.pool, st.mid, s)
    st.mid[s].chain_length = 0
    relink_rows(st, s)


@kernel
def refold_row(st: PositionArrays, s: int) -> None:
    """Fold ``rows[s]`` again, from its checkpoint where everything that is not part of it comes later."""
    n = arrange(st, s)
    if st.mid[s].chain_length != 0 and n > 0 and st.key[st.scratch[0]] < st.mid[s].horizon_ts:
        uncheck(st, s)
        n = arrange(st, s)
    if st.mid[s].chain_length != 0:
        copy_fold(st.pool, st.mid, s, st.rows, s)
        fold_sorted(st, st.rows, s, s, n, st.mid[s].horizon_ts, FOREVER)
    else:
        copy_fold(st.pool, st.base, s, st.rows, s)
        fold_sorted(st, st.rows, s, s, n, st.base[s].horizon_ts, FOREVER)
    _book_stated(st, s)
    st.rows[s].actions_hash = splits_hash(st, st.rows[s].instrument_index, FOREVER)


@kernel
def held_at(st: PositionArrays, s: int, ts: int) -> int:
    """Return what ``rows[s]`` held at a time that its base does not reach, by all that is known: units of then."""
    uncheck(st, s)
    n = arrange(st, s)
    copy_fold(st.pool, st.base, s, st.spare, 0)
    st.spare[0].unit_value, st.spare[0].inverse = st.rows[s].unit_value, st.rows[s].inverse
    k = _first_split(st, s, st.base[s].horizon_ts)
    for i in range(n):
        f = st.scratch[i]
        if st.fills[f].ts_event < ts or (st.fills[f].ts_event == ts and st.fills[f].flags & STATED):
            k = _split_until(st, st.spare, 0, s, k, min(st.key[f], ts))
            _fold_one(st, st.spare, 0, s, f)
    _split_until(st, st.spare, 0, s, k, ts)
    free_lots(st.pool, st.spare, 0)
    return st.spare[0].quantity


@kernel
def refold_whole(st: PositionArrays, s: int) -> None:
    """Fold ``rows[s]`` and what its day began with again, from its base."""
    uncheck(st, s)
    refold_row(st, s)
    reopen(st, s)


@kernel
def copy_opening(st: PositionArrays, source: np.ndarray, a: int, target: np.ndarray, t: int) -> None:
    """Make the opening of ``source[a]`` a fold of its own."""
    free_lots(st.pool, target, t)
    clear_row(target, t)
    target[t].unit_value, target[t].inverse = source[a].unit_value, source[a].inverse
    q, price = source[a].opening_quantity, source[a].opening_price
    target[t].quantity = q
    if q != 0:
        target[t].average_price = price
        target[t].cost = q / price if source[a].inverse != 0 else q * price
        lot = new_lot(st.pool, q, price)
        target[t].lot_head, target[t].lot_tail, target[t].lot_count = lot, lot, 1
    target[t].realised_pnl, target[t].fees = source[a].opening_realised_pnl, source[a].opening_fees


@kernel
def reopen(st: PositionArrays, s: int) -> None:
    """Work out again what the day of ``rows[s]`` began with: what was stated last, or what it came to by the roll.

    In the units of today. It takes a row without a checkpoint.
    """
    n = arrange(st, s)
    day, stated, last = day_of(st, s), st.base[s].stated_ts, -1
    for i in range(n):
        if st.fills[st.scratch[i]].flags & STATED:
            stated, last = st.fills[st.scratch[i]].ts_event, i
    one, horizon = st.spare, st.base[s].horizon_ts
    one[0].unit_value, one[0].inverse = st.rows[s].unit_value, st.rows[s].inverse
    if stated == 0 and day == 0:
        st.rows[s].opening_ts, st.rows[s].rolled = 0, 0
        return
    rolled = day > stated
    st.rows[s].rolled, st.rows[s].opening_ts = 1 if rolled else 0, day if rolled else stated
    if st.base[s].rolled != 0 and (rolled or last < 0):
        copy_opening(st, st.base, s, one, 0)
    else:
        copy_fold(st.pool, st.base, s, one, 0)
    if rolled:
        fold_sorted(st, one, 0, s, n, horizon, day)
    else:
        fold_sorted(st, one, 0, s, last + 1, horizon, FOREVER)
    q = one[0].quantity
    st.rows[s].opening_quantity = q
    st.rows[s].opening_price = one[0].average_price if q != 0 else np.nan
    st.rows[s].opening_realised_pnl = one[0].realised_pnl - one[0].fees + st.stated[s]
    free_lots(st.pool, one, 0)


@inline_kernel
def keep_opening(st: PositionArrays, s: int) -> None:
    """Remember the fold of a base so far as what the day began with."""
    st.base[s].opening_quantity = st.base[s].quantity
    st.base[s].opening_price = st.base[s].average_price if st.base[s].quantity != 0 else np.nan
    st.base[s].opening_realised_pnl, st.base[s].opening_fees = st.base[s].realised_pnl, st.base[s].fees
    st.base[s].rolled = 1


@inline_kernel
def _fold_into_opening(st: PositionArrays, s: int, f: int) -> None:
    """Fold a fill from before the day onto the opening that a base keeps: it was ordered after fills of the day."""
    copy_opening(st, st.base, s, st.spare, 1)
    _fold_one(st, st.spare, 1, s, f)
    q = st.spare[1].quantity
    st.base[s].opening_quantity = q
    st.base[s].opening_price = st.spare[1].average_price if q != 0 else np.nan
    st.base[s].opening_realised_pnl, st.base[s].opening_fees = st.spare[1].realised_pnl, st.spare[1].fees
    free_lots(st.pool, st.spare, 1)


@inline_kernel
def _split_base(st: PositionArrays, s: int, until: int) -> None:
    k = _first_split(st, s, st.base[s].horizon_ts)
    end = _split_until(st, st.base, s, s, k, until)
    for i in range(k, end):
        st.base[s].opening_quantity = st.base[s].opening_quantity * st.actions[i].up // st.actions[i].down
        st.base[s].opening_price /= st.actions[i].ratio
        st.base[s].actions_hash = mix64(st.base[s].actions_hash ^ st.actions[i].mark)


@kernel
def absorb(st: PositionArrays, s: int, count: int) -> None:
    """Fold the first ``count`` of what lies in ``scratch`` into a row's base."""
    day = day_of(st, s)
    for i in range(count):
        f = st.scratch[i]
        ts = st.fills[f].ts_event
        _split_base(st, s, st.key[f])
        st.base[s].horizon_ts = max(st.base[s].horizon_ts, st.key[f])
        if st.fills[f].flags & STATED:
            _fold_one(st, st.base, s, s, f)
            st.base[s].stated_ts = ts
            st.base[s].last_ts_event = max(st.base[s].last_ts_event, ts)
            if ts >= day:
                keep_opening(st, s)
            continue
        if day > st.base[s].stated_ts:
            if ts >= day and st.base[s].rolled == 0:
                keep_opening(st, s)
            elif ts < day and st.base[s].rolled != 0:
                _fold_into_opening(st, s, f)
        _fold_one(st, st.base, s, s, f)
        st.base[s].filled_ts = max(st.base[s].filled_ts, st.key[f])
        if st.fills[f].effective_ts == ts:
            st.base[s].last_ts_event = max(st.base[s].last_ts_event, ts)
        elif st.fills[f].flags & REVERSAL == 0:
            st.base[s].late_trades += 1
    st.base[s].based = 1
    st.rows[s].based = 1


@kernel
def check_half_chain(st: PositionArrays, s: int) -> None:
    """Fold the older half of a long chain into the row's checkpoint; it can be taken apart again."""
    n = arrange(st, s)
    half = n // 2
    if st.mid[s].chain_length == 0:
        copy_fold(st.pool, st.base, s, st.mid, s)
        st.mid[s].horizon_ts, st.mid[s].last_ts_event = st.base[s].horizon_ts, st.base[s].last_ts_event
        st.mid[s].late_trades = st.base[s].late_trades
    st.mid[s].unit_value, st.mid[s].inverse = st.rows[s].unit_value, st.rows[s].inverse
    k = _first_split(st, s, st.mid[s].horizon_ts)
    for i in range(half):
        f = st.scratch[i]
        k = _split_until(st, st.mid, s, s, k, st.key[f])
        _fold_one(st, st.mid, s, s, f)
        st.mid[s].horizon_ts = max(st.mid[s].horizon_ts, st.key[f])
        if st.fills[f].effective_ts == st.fills[f].ts_event:
            st.mid[s].last_ts_event = max(st.mid[s].last_ts_event, st.fills[f].ts_event)
        elif st.fills[f].flags & REVERSAL == 0:
            st.mid[s].late_trades += 1
        st.fills[f].flags |= CHECKED
    st.mid[s].chain_length += half
    relink_rows(st, s)


@kernel
def retire_fills(st: PositionArrays, s: int) -> None:
    """Empty the base of ``rows[s]`` for another fold; its window fills stay known by identity only."""
    uncheck(st, s)
    stated = st.base[s].stated_ts
    for f in range(st.meta[N_FILLS]):
        if st.fills[f].slot == s and st.fills[f].flags & (OUT_OF_CHAIN | MARKER) == 0:
            if st.fills[f].flags & STATED:
                stated = max(stated, st.fills[f].ts_event)
            flag_fill(st, f, ABSORBED)
    free_lots(st.pool, st.base, s)
    st.base[s].stated_ts = stated
    newest = st.rows[s].last_ts_event
    st.base[s].filled_ts, st.base[s].last_ts_event = newest, newest
    st.base[s].horizon_ts = max(newest, last_split(st, st.rows[s].instrument_index))  # the other fold is in its units
    st.base[s].late_trades = st.rows[s].late_trades
    st.base[s].actions_hash = splits_hash(st, st.rows[s].instrument_index, st.base[s].horizon_ts)
    st.base[s].opening_quantity, st.base[s].opening_price = st.rows[s].opening_quantity, st.rows[s].opening_price
    st.base[s].opening_realised_pnl, st.base[s].opening_fees = st.rows[s].opening_realised_pnl - st.stated[s], 0.0
    st.base[s].rolled = 1 if st.rows[s].opening_ts != 0 else 0
    st.base[s].based = 1
    st.rows[s].based = 1
    st.rows[s].revision += 1
    relink_rows(st, s)
    mark_dirty(st, s)


@inline_kernel
def _absorb_until(st: PositionArrays, s: int, count: int) -> None:
    """Fold the fills of a row that leave the window into its base, and with them all that is folded before."""
    n = arrange(st, s)
    last = -1
    for i in range(n):
        if st.scratch[i] < count:
            last = i
    absorb(st, s, last + 1)
    for i in range(last + 1):
        f = st.scratch[i]
        if f < count:
            st.fills[f].flags |= ABSORBED
        else:
            flag_fill(st, f, ABSORBED)
    mark_dirty(st, s)


@kernel
def evict_oldest(st: PositionArrays, count: int) -> None:
    """Fold the ``count`` oldest fills into their bases, in order of trade time, and forget their identities."""
    n = st.meta[N_FILLS]
    for s in range(st.meta[N_ROWS]):
        uncheck(st, s)
    for f in range(count):
        if st.fills[f].flags & OUT_OF_CHAIN == 0:
            _absorb_until(st, st.fills[f].slot, count)
    for f in range(count, n):
        st.fills[f - count] = st.fills[f]
        st.content[f - count] = st.content[f]
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
