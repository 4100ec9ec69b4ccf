"""Conflation of quotes: the last good prices of every instrument, how good they are, and what was refused on the way.

A quote that is crossed, not finite, zero or negative (where the instrument has no such prices), without a usable
spread, older than the mark or wildly off it never becomes a mark; it is counted, and the mark keeps its last good
prices and their age. A wild price is believed when `WILD_CONFIRMATIONS` quotes in a row agree with each other: the
market may really have moved. Bounds are relative to the price or so many ticks, whichever is wider: around zero a
fraction of the price means nothing.

The quality of a mark is computed from its sources whenever it is read (`quality_of`): the age of the last good price
comes first, whatever was refused after it; quotes that were withdrawn are stale at once. A side that a feed stops
quoting is gone after the same time. Where nobody quotes, or has for too long, or no more, the last trade is the mark,
with a quality of its own; the next quote takes over from it.

A split restates the mark that it finds (`restate`).
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import numpy as np

from models.jit import inline_kernel, kernel
from models.quote_columns import READ
from schemas.records import Kept, Mark

GOOD, STALE, CROSSED, WILD, NONE, STUB, ONE_SIDED, LAST = range(8)
QUALITIES = ("good", "stale", "crossed", "wild", "none", "stub", "one_sided", "last")
#: a mid further than this from the last good one is wild: as a fraction, or in ticks (of prices of any sign, of others)
WILD_FRACTION = 0.10
WILD_TICKS_ANY_SIGN, WILD_TICKS = 20.0, 5.0
WILD_CONFIRMATIONS = 3
#: a spread wider than its mid says nothing of a price, unless it is within so many ticks
STUB_FRACTION = 1.0
STUB_TICKS_ANY_SIGN, STUB_TICKS = 200.0, 20.0
MARK_DTYPE = np.dtype([
    ("bid", "f8"), ("ask", "f8"), ("mid", "f8"), ("last", "f8"),
    # event times of the newest quote and print; when a good price, a bid, an ask was received last
    ("ts_event", "i8"), ("last_ts", "i8"), ("received_ns", "i8"), ("bid_ns", "i8"), ("ask_ns", "i8"),
    ("window_end", "i8"), ("source", "u8"), ("other_source", "u8"), ("rejected", "i8"), ("late", "i8"),
    ("wild_mid", "f8"), ("wild_count", "i4"),
    # why what came after the last good price was refused, GOOD: nothing was; whether the mark is a trade's price
    ("refused", "i4"), ("printed", "i4"),
    # whether the newest quote took both sides away
    ("withdrawn", "i4"),
    # what was published last
    ("quality", "i4"), ("changed", "i4"), ("sources", "i4"),
], align=True)
#: what is not part of the state: counters, and what was published
_PASSING = ("window_end", "rejected", "late", "quality", "changed")
#: by instrument: after how long it is stale, its tick (0: not known), whether it has prices at or below zero
TERMS_DTYPE = np.dtype([("stale_ns", "i8"), ("tick", "f8"), ("any_sign", "i8")], align=True)
#: by time: the place of a mark, from when on, and how many units one unit is then
SPLIT_DTYPE = np.dtype([("mark", "i8"), ("at", "i8"), ("ratio", "f8")])
#: what a record keeps beside the prices, in the order of its fields
_KEPT = ("received_ns", "bid_ns", "ask_ns", "last_ts", "source", "other_source", "wild_count", "refused", "printed")
#: a time that is further ahead of the clock was never one
AHEAD_NS = 60_000_000_000
PRICES = ("bid", "ask", "mid", "last", "wild_mid")


def empty_marks(n: int) -> np.ndarray:
    """Return n marks without any price."""
    marks = np.zeros(n, MARK_DTYPE)
    for name in PRICES:
        marks[name] = np.nan
    marks["quality"] = NONE
    return marks


def state_hash(marks: np.ndarray) -> str:
    """Return a digest of all that later quotes, and the quality at any time, depend on."""
    digest = hashlib.blake2b(digest_size=16)
    for name in MARK_DTYPE.names or ():
        if name not in _PASSING:
            digest.update(np.ascontiguousarray(marks[name]).tobytes())
    return digest.hexdigest()


def to_record(name: str, row: Any, ts_source: int) -> Mark:
    """Return a mark as a record: what readers see, and what a mark stage that starts goes on from."""
    def number(value: float) -> float | None:
        return float(value) if value == value else None
    kept = Kept(**{f: int(row[f]) for f in _KEPT}, wild_mid=number(row["wild_mid"]),
                withdrawn=int(row["withdrawn"]))
    return Mark(instrument=name, window_end=int(row["window_end"]), ts_event=int(row["ts_event"]),
                bid=number(row["bid"]), ask=number(row["ask"]), mid=number(row["mid"]), last=number(row["last"]),
                quality=QUALITIES[int(row["quality"])],  # type: ignore[arg-type]
                sources=int(row["sources"]), rejected=int(row["rejected"]), ts_source=ts_source, kept=kept)


def from_record(row: Any, mark: Mark, now_ns: int) -> None:
    """Fill a mark from its record. What was taken in with a time far ahead is old: no quote of now is late after it."""
    row["bid"], row["ask"], row["mid"], row["last"] = (
        np.nan if x is None else x for x in (mark.bid, mark.ask, mark.mid, mark.last))
    row["ts_event"], row["window_end"] = mark.ts_event, mark.window_end
    row["sources"], row["rejected"] = mark.sources, mark.rejected
    row["quality"] = QUALITIES.index(mark.quality)
    if mark.kept is not None:
        for field, value in zip(_KEPT, msgspec.structs.astuple(mark.kept), strict=False):
            row[field] = value
        row["wild_mid"] = np.nan if mark.kept.wild_mid is None else mark.kept.wild_mid
        row["withdrawn"] = mark.kept.withdrawn
    else:  # of a version that kept no more than the prices
        for field in ("received_ns", "bid_ns", "ask_ns", "last_ts"):
            row[field] = mark.ts_event
    for field in ("ts_event", "received_ns", "bid_ns", "ask_ns", "last_ts"):
        if row[field] > now_ns + AHEAD_NS:
            row[field] = 0
    if mark.ts_event > now_ns + AHEAD_NS:
        row["received_ns"] = 0


def restate(marks: np.ndarray, splits: np.ndarray, now_ns: int) -> None:
    """State marks of before a split that is in force in its units: they are stale until a price of after it comes.

    The time of such a mark is that of the split. So it is restated once, also by a stage that goes on from its record,
    and no quote of before the split comes after it; the first one in new units is held against a price in new units.

    Parameters
    ----------
    splits : SPLIT_DTYPE
    """
    of = marks["ts_event"][splits["mark"]]
    due = (of > 0) & (of < splits["at"]) & (splits["at"] <= now_ns)  # a mark of no known time is of no units
    for split in splits[due]:
        row, at = marks[split["mark"]], split["at"]
        for price in PRICES:
            row[price] /= split["ratio"]
        row["ts_event"], row["last_ts"] = at, max(row["last_ts"], at)
        row["received_ns"] = row["bid_ns"] = row["ask_ns"] = 0
        row["wild_count"], row["changed"] = 0, 1


@inline_kernel
def quality_of(mark: Any, now_ns: int, stale_ns: int) -> int:
    """Return how good a mark is at a time."""
    if mark.mid != mark.mid:
        return NONE
    if mark.withdrawn != 0 or now_ns - mark.received_ns > stale_ns:
        return STALE
    if mark.refused != GOOD:
        return int(mark.refused)
    if mark.printed != 0:
        return LAST
    return GOOD if mark.bid == mark.bid and mark.ask == mark.ask else ONE_SIDED


@inline_kernel
def _is_no_price(price: float, any_sign: bool) -> bool:
    return bool(price == price and (np.isinf(price) or (price <= 0.0 and not any_sign)))


@inline_kernel
def _refuse(mark: Any, why: int) -> None:
    mark.rejected += 1
    mark.refused = why
    if why != WILD:  # in a row means that nothing lies between
        mark.wild_count = 0
    mark.changed = 1


@inline_kernel
def _is_believed(mark: Any, mid: float, tick: float, any_sign: bool) -> bool:
    """Whether a price is near the mark, or the last one of several in a row that agree with each other."""
    old, ticks = mark.mid, tick * (WILD_TICKS_ANY_SIGN if any_sign else WILD_TICKS)
    if not (old == old and abs(mid - old) > max(WILD_FRACTION * abs(old), ticks)):
        return True
    near = abs(mid - mark.wild_mid) <= max(WILD_FRACTION * abs(mid), ticks)
    mark.wild_count = mark.wild_count + 1 if near else 1
    mark.wild_mid = mid
    return bool(mark.wild_count >= WILD_CONFIRMATIONS)


@inline_kernel
def _drop_old_sides(mark: Any, now_ns: int, stale_ns: int) -> None:
    """Take away the side of a quote that nobody has quoted for too long, where the other one is there."""
    bid_is_old, ask_is_old = now_ns - mark.bid_ns > stale_ns, now_ns - mark.ask_ns > stale_ns
    both = mark.bid == mark.bid and mark.ask == mark.ask
    if mark.printed != 0 or mark.withdrawn != 0 or not both or bid_is_old == ask_is_old:
        return
    if bid_is_old:
        mark.bid, mark.mid = np.nan, mark.ask
    else:
        mark.ask, mark.mid = np.nan, mark.bid
    mark.changed = 1


@inline_kernel
def _quote(mark: Any, bid: float, ask: float, now_ns: int, terms: Any) -> bool:
    """Take a quote in; return whether it became the mark."""
    any_sign = terms.any_sign != 0
    if _is_no_price(bid, any_sign) or _is_no_price(ask, any_sign):
        _refuse(mark, STUB)
        return False
    both = bid == bid and ask == ask
    new_bid, new_ask = bid, ask
    if bid != bid and mark.withdrawn == 0 and now_ns - mark.bid_ns <= terms.stale_ns:
        new_bid = mark.bid
    if ask != ask and mark.withdrawn == 0 and now_ns - mark.ask_ns <= terms.stale_ns:
        new_ask = mark.ask
    if new_bid > new_ask:
        if both:
            _refuse(mark, CROSSED)
            return False
        # one side moved through the other, older one: the older side is gone
        mark.rejected += 1
        new_bid, new_ask = bid, ask
    mid = new_bid if new_ask != new_ask else new_ask if new_bid != new_bid else 0.5 * (new_bid + new_ask)
    widest = max(STUB_FRACTION * abs(mid), terms.tick * (STUB_TICKS_ANY_SIGN if any_sign else STUB_TICKS))
    if new_ask - new_bid > widest and (terms.tick > 0.0 or not any_sign):
        _refuse(mark, STUB)
        return False
    if not _is_believed(mark, mid, terms.tick, any_sign):
        _refuse(mark, WILD)
        return False
    mark.bid, mark.ask, mark.mid = new_bid, new_ask, mid
    if bid == bid:
        mark.bid_ns = now_ns
    if ask == ask:
        mark.ask_ns = now_ns
    mark.printed = 0
    return True


@inline_kernel
def _withdraw(mark: Any, ts: int) -> None:
    """Take the quotes back: their prices stay, and none of the sides goes together with a later one."""
    mark.withdrawn, mark.wild_count = 1, 0
    mark.ts_event = max(mark.ts_event, ts)
    mark.changed = 1


@inline_kernel
def _print(mark: Any, last: float, now_ns: int, terms: Any) -> bool:
    """Take a trade's price in; return whether it became the mark: where nobody quotes now."""
    any_sign = terms.any_sign != 0
    if _is_no_price(last, any_sign):
        mark.rejected += 1
        return False
    mark.last = last
    mark.changed = 1
    quoted = mark.printed == 0 and mark.withdrawn == 0 and now_ns - mark.received_ns <= terms.stale_ns
    if mark.mid == mark.mid and quoted:
        return False
    if not _is_believed(mark, last, terms.tick, any_sign):
        _refuse(mark, WILD)
        return False
    mark.bid, mark.ask, mark.mid, mark.printed = np.nan, np.nan, last, 1
    return True


@kernel
def apply_quotes(marks: np.ndarray, rows: np.ndarray, terms: np.ndarray, received_ns: int, lateness_ns: int) -> int:
    """Fold quotes and prints (QUOTE_DTYPE) into the marks of their instruments, in order; return how many became marks.

    Event time decides: a quote older than the newest one is late; within ``lateness_ns`` it is dropped silently
    (another source was newer), beyond that it is counted.

    Parameters
    ----------
    terms : TERMS_DTYPE, by instrument
    """
    used = 0
    for i in range(rows.shape[0]):
        if rows[i].status != READ:
            continue
        k = rows[i].instrument_index
        bid, ask, last, ts = rows[i].bid, rows[i].ask, rows[i].last, rows[i].ts_event
        mark, became, withdrawn = marks[k], False, rows[i].withdrawn != 0
        quoted = withdrawn or bid == bid or ask == ask
        newest = mark.ts_event if quoted else mark.last_ts
        if ts < newest:
            if newest - ts > lateness_ns:
                mark.late += 1
            continue
        if withdrawn:
            _withdraw(mark, ts)
        elif quoted:
            became = _quote(mark, bid, ask, received_ns, terms[k])
        if last == last and ts >= mark.last_ts:
            mark.last_ts = ts
            if not became:
                became = _print(mark, last, received_ns, terms[k])
            elif not _is_no_price(last, terms[k].any_sign != 0):
                mark.last = last
        if not became:
            continue
        mark.wild_count = mark.withdrawn = 0
        mark.ts_event = max(mark.ts_event, ts)
        mark.received_ns = received_ns
        mark.refused = GOOD
        if mark.sources == 0:
            mark.sources = 1
            mark.source = rows[i].source
        elif rows[i].source != mark.source:
            mark.other_source = mark.source
            mark.source = rows[i].source
            mark.sources = 2
        mark.changed = 1
        used += 1
    return used


@kernel
def close_window(marks: np.ndarray, window_end: int, now_ns: int, terms: np.ndarray, out: np.ndarray) -> int:
    """Collect the instruments whose mark, or its quality, changed since the last window; return how many."""
    n = 0
    for k in range(marks.shape[0]):
        _drop_old_sides(marks[k], now_ns, terms[k].stale_ns)
        quality = quality_of(marks[k], now_ns, terms[k].stale_ns)
        if marks[k].changed != 0 or quality != marks[k].quality:
            marks[k].changed = 0
            marks[k].quality = quality
            marks[k].window_end = window_end
            out[n] = k
            n += 1
    return n
