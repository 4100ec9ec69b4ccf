"""The chain of a row in order: by what time each fill is ordered, and where statements and splits lie among them."""

from __future__ import annotations

from models.interning import ABSENT
from models.jit import hot_kernel, inline_kernel, kernel
from models.position_window import (
    LATENESS,
    N_ROWS,
    ORIGIN_SHIFT,
    OUT_OF_CHAIN,
    REVERSAL,
    STATED,
    PositionArrays,
    action_range,
)


@inline_kernel
def day_of(st: PositionArrays, s: int) -> int:
    """Return when the day of a row's account began; 0: it was not rolled."""
    account = st.rows[s].account_index
    return st.day_start[account] if account < st.day_start.shape[0] else 0


@inline_kernel
def _gather(st: PositionArrays, s: int) -> int:
    """Put a row's chain into ``scratch``, in the order in which the first record of each came; return how many."""
    n = 0
    f = st.rows[s].last_fill
    while f != ABSENT:
        if st.fills[f].flags & OUT_OF_CHAIN == 0:
            st.scratch[n] = f
            n += 1
        f = st.fills[f].previous
    for i in range(n // 2):
        st.scratch[i], st.scratch[n - 1 - i] = st.scratch[n - 1 - i], st.scratch[i]
    for i in range(1, n):
        f = st.scratch[i]
        came = f - (st.fills[f].flags >> ORIGIN_SHIFT)
        j = i - 1
        while j >= 0 and st.scratch[j] - (st.fills[st.scratch[j]].flags >> ORIGIN_SHIFT) > came:
            st.scratch[j + 1] = st.scratch[j]
            j -= 1
        st.scratch[j + 1] = f
    return n


@inline_kernel
def _judge(st: PositionArrays, s: int, n: int, newest: int, late: int) -> None:
    """Work out by what time each of a chain is ordered: its own, or, where it came too late, the newest one then.

    As if those that are no longer there had never come.
    """
    for i in range(n):
        f = st.scratch[i]
        ts = st.fills[f].ts_event
        if st.fills[f].flags & REVERSAL:
            continue
        if st.fills[f].flags & STATED == 0 and newest - ts > st.meta[LATENESS]:
            st.fills[f].effective_ts = newest
            late += 1
        else:
            st.fills[f].effective_ts = ts
            newest = max(newest, ts)
    st.rows[s].last_ts_event = newest
    st.rows[s].late_trades = late


@inline_kernel
def _place(st: PositionArrays, s: int, n: int) -> None:
    """Work out at what time each of a chain is folded: what a statement includes, or a split restates, before it."""
    first, end = action_range(st, st.rows[s].instrument_index)
    horizon, stated = st.base[s].horizon_ts, n
    for i in range(n):
        if st.fills[st.scratch[i]].flags & STATED:
            st.scratch[stated] = st.scratch[i]
            stated += 1
    for i in range(n):
        f = st.scratch[i]
        ts, key = st.fills[f].ts_event, st.fills[f].effective_ts
        if key > ts and st.fills[f].flags & STATED == 0:
            barrier = key + 1
            for k in range(first, end):
                if ts < st.actions[k].ts < barrier and st.actions[k].ts > horizon:
                    barrier = st.actions[k].ts
            for j in range(n, stated):
                if ts < st.fills[st.scratch[j]].ts_event < barrier:
                    barrier = st.fills[st.scratch[j]].ts_event
            key = barrier - 1
        st.key[f] = key


@hot_kernel
def _comes_first(st: PositionArrays, f: int, g: int) -> bool:
    """Return whether ``f`` is folded before ``g``: by time, statements first, then by arrival."""
    if st.key[f] != st.key[g]:
        return st.key[f] < st.key[g]
    a, b = st.fills[f].flags & STATED, st.fills[g].flags & STATED
    if a != b:
        return a != 0
    return f - (st.fills[f].flags >> ORIGIN_SHIFT) < g - (st.fills[g].flags >> ORIGIN_SHIFT)


@kernel
def arrange(st: PositionArrays, s: int) -> int:
    """Put a row's chain into ``scratch`` in the order in which it is folded; return how many."""
    n = _gather(st, s)
    if st.mid[s].chain_length != 0:
        _judge(st, s, n, st.mid[s].last_ts_event, st.mid[s].late_trades)
    else:
        _judge(st, s, n, st.base[s].last_ts_event, st.base[s].late_trades)
    _place(st, s, n)
    for i in range(1, n):
        f = st.scratch[i]
        j = i - 1
        while j >= 0 and _comes_first(st, f, st.scratch[j]):
            st.scratch[j + 1] = st.scratch[j]
            j -= 1
        st.scratch[j + 1] = f
    return n


@kernel
def judge_all(st: PositionArrays) -> None:
    """Work out again by what time each fill of the window is ordered, after it was read back."""
    for s in range(st.meta[N_ROWS]):
        n = _gather(st, s)
        if n > 0:
            _judge(st, s, n, st.base[s].last_ts_event, st.base[s].late_trades)
