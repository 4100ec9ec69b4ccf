"""Conflation of quotes: the last good prices of every instrument, and what was refused on the way.

A quote that is crossed, zero or negative (where the asset class has no such prices), not finite, older than the mark
or wildly off it never becomes a mark; it is counted, and the mark keeps its last good prices and their age. A wild
price is believed when `WILD_CONFIRMATIONS` quotes in a row agree with each other: the market may really have moved.
"""

from __future__ import annotations

import numpy as np

from models.jit import kernel
from models.quote_columns import READ

GOOD, STALE, CROSSED, WILD, NONE = 0, 1, 2, 3, 4
QUALITIES = ("good", "stale", "crossed", "wild", "none")
#: a mid further than this from the last good one, as a fraction, is wild
WILD_FRACTION = 0.10
WILD_CONFIRMATIONS = 3
MARK_DTYPE = np.dtype([
    ("bid", "f8"), ("ask", "f8"), ("mid", "f8"), ("last", "f8"), ("ts_event", "i8"), ("received_ns", "i8"),
    ("window_end", "i8"), ("source", "u8"), ("other_source", "u8"), ("rejected", "i8"), ("late", "i8"),
    ("wild_mid", "f8"), ("wild_count", "i4"), ("quality", "i4"), ("changed", "i4"), ("sources", "i4"),
], align=True)


def empty_marks(n: int) -> np.ndarray:
    """Return n marks without any price."""
    marks = np.zeros(n, MARK_DTYPE)
    for name in ("bid", "ask", "mid", "last", "wild_mid"):
        marks[name] = np.nan
    marks["quality"] = NONE
    return marks


@kernel
def apply_quotes(marks: np.ndarray, rows: np.ndarray, price_any_sign: np.ndarray, received_ns: int,
                 lateness_ns: int) -> int:
    """Fold quotes (QUOTE_DTYPE) into the marks of their instruments, in order; return how many became marks.

    Event time decides: a quote older than the mark it would replace is late; within ``lateness_ns`` it is dropped
    silently (another source was newer), beyond that it is counted.
    """
    used = 0
    for i in range(rows.shape[0]):
        if rows[i].status != READ:
            continue
        k = rows[i].instrument_index
        bid, ask, last, ts = rows[i].bid, rows[i].ask, rows[i].last, rows[i].ts_event
        if ts < marks[k].ts_event:
            if marks[k].ts_event - ts > lateness_ns:
                marks[k].late += 1
            continue
        signed = price_any_sign[k] != 0
        if bid == bid and (np.isinf(bid) or (bid <= 0.0 and not signed)):
            bid = np.nan
            marks[k].rejected += 1
        if ask == ask and (np.isinf(ask) or (ask <= 0.0 and not signed)):
            ask = np.nan
            marks[k].rejected += 1
        if last == last and (np.isinf(last) or (last <= 0.0 and not signed)):
            last = np.nan
            marks[k].rejected += 1
        new_bid = bid if bid == bid else marks[k].bid
        new_ask = ask if ask == ask else marks[k].ask
        quoted = bid == bid or ask == ask
        if not quoted and last != last:
            continue
        if quoted and new_bid == new_bid and new_ask == new_ask and new_bid > new_ask:
            marks[k].rejected += 1
            if bid == bid and ask == ask:
                marks[k].quality = CROSSED
                marks[k].changed = 1
                continue
            # one side moved through the other, older one: the older side is gone
            if bid == bid:
                new_ask = np.nan
            else:
                new_bid = np.nan
        mid = marks[k].mid
        if quoted:
            if new_bid == new_bid and new_ask == new_ask:
                mid = 0.5 * (new_bid + new_ask)
            else:
                mid = new_bid if new_bid == new_bid else new_ask
            old = marks[k].mid
            if old == old and abs(mid - old) > WILD_FRACTION * abs(old):
                near = abs(mid - marks[k].wild_mid) <= WILD_FRACTION * abs(mid)
                marks[k].wild_count = marks[k].wild_count + 1 if near else 1
                marks[k].wild_mid = mid
                if marks[k].wild_count < WILD_CONFIRMATIONS:
                    marks[k].rejected += 1
                    marks[k].quality = WILD
                    marks[k].changed = 1
                    continue
        elif mid != mid:
            mid = last
        marks[k].wild_count = 0
        marks[k].bid, marks[k].ask, marks[k].mid = new_bid, new_ask, mid
        if last == last:
            marks[k].last = last
        marks[k].ts_event = ts
        marks[k].received_ns = received_ns
        if marks[k].sources == 0:
            marks[k].sources = 1
            marks[k].source = rows[i].source
        elif rows[i].source != marks[k].source:
            marks[k].other_source = marks[k].source
            marks[k].source = rows[i].source
            marks[k].sources = 2
        marks[k].quality = GOOD
        marks[k].changed = 1
        used += 1
    return used


@kernel
def close_window(marks: np.ndarray, window_end: int, now_ns: int, stale_ns: np.ndarray, out: np.ndarray) -> int:
    """Collect the instruments whose mark changed since the last window, or has just gone stale; return how many."""
    n = 0
    for k in range(marks.shape[0]):
        if marks[k].quality == GOOD and now_ns - marks[k].received_ns > stale_ns[k]:
            marks[k].quality = STALE
            marks[k].changed = 1
        if marks[k].changed != 0:
            marks[k].changed = 0
            marks[k].window_end = window_end
            out[n] = k
            n += 1
    return n
