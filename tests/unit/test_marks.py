"""What becomes a mark and what never does, and how good it is: one row an event, as a risk manager reads it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import marks as mk
from models.quote_columns import QUOTE_DTYPE, READ
from schemas.codec import decoder_of, encode
from schemas.records import Mark

NAN = float("nan")
#: bid and ask, both given as null
GONE = (None, None)
S = 1_000_000_000
STALE_S = 10
# quotes (bid, ask, last, seconds) one after the other -> bid, ask, mid, quality, rejected
TABLE = [
    ("a good quote", [(10, 12, NAN, 1)], (10, 12, 11, mk.GOOD, 0)),
    ("crossed", [(10, 12, NAN, 1), (13, 12, NAN, 2)], (10, 12, 11, mk.CROSSED, 1)),
    ("good again after crossed", [(10, 12, NAN, 1), (13, 12, NAN, 2), (10, 11, NAN, 3)], (10, 11, 10.5, mk.GOOD, 1)),
    # decision 0007: a quote with a zero price never becomes a mark, not with its other side either
    ("zero bid", [(10, 12, NAN, 1), (0, 12.2, NAN, 2)], (10, 12, 11, mk.STUB, 1)),
    ("zero bid, nothing before", [(0, 1.2, NAN, 1)], (NAN, NAN, NAN, mk.NONE, 1)),
    ("negative ask", [(10, 12, NAN, 1), (10.2, -1, NAN, 2)], (10, 12, 11, mk.STUB, 1)),
    ("infinite", [(10, 12, NAN, 1), (float("inf"), 12, NAN, 2)], (10, 12, 11, mk.STUB, 1)),
    ("stub quotes before the open", [(0.01, 199_999.99, NAN, 1)], (NAN, NAN, NAN, mk.NONE, 1)),
    ("and the first real quote", [(0.01, 199_999.99, NAN, 1), (100, 100.02, NAN, 2)], (100, 100.02, 100.01, mk.GOOD, 1)),
    ("stub quotes after the close", [(100, 100.02, NAN, 1), (0.01, 199_999.99, NAN, 2)], (100, 100.02, 100.01, mk.STUB, 1)),
    ("one side only", [(10, NAN, NAN, 1)], (10, NAN, 10, mk.ONE_SIDED, 0)),
    ("the other side comes", [(10, NAN, NAN, 1), (NAN, 10.2, NAN, 2)], (10, 10.2, 10.1, mk.GOOD, 0)),
    ("the side that moved wins", [(10, 10.2, NAN, 1), (10.4, NAN, NAN, 2)], (10.4, NAN, 10.4, mk.ONE_SIDED, 1)),
    ("a side that nobody quotes any more is gone", [(10, 10.2, NAN, 1), (10, NAN, NAN, 12)], (10, NAN, 10, mk.ONE_SIDED, 0)),
    ("last only", [(NAN, NAN, 50, 1), (NAN, NAN, 51, 2), (NAN, NAN, 53, 3)], (NAN, NAN, 53, mk.LAST, 0)),
    ("a quote comes before the last trade", [(10, 12, NAN, 1), (NAN, NAN, 11.9, 2)], (10, 12, 11, mk.GOOD, 0)),
    ("trades go on where quotes do not", [(10, 12, NAN, 1), (NAN, NAN, 11.9, 12)], (NAN, NAN, 11.9, mk.LAST, 0)),
    ("a trade keeps no quote alive", [(10, 12, NAN, 1), (NAN, NAN, 11.9, 9), (NAN, NAN, 11.8, 12)], (NAN, NAN, 11.8, mk.LAST, 0)),
    ("a wild trade", [(NAN, NAN, 50, 1), (NAN, NAN, 500, 2)], (NAN, NAN, 50, mk.WILD, 1)),
    ("a trade at zero", [(NAN, NAN, 0, 1)], (NAN, NAN, NAN, mk.NONE, 1)),
    ("nothing", [(NAN, NAN, NAN, 1)], (NAN, NAN, NAN, mk.NONE, 0)),
    ("wild once", [(10, 12, NAN, 1), (20, 22, NAN, 2)], (10, 12, 11, mk.WILD, 1)),
    ("wild, confirmed", [(10, 12, NAN, 1), (20, 22, NAN, 2), (20.1, 22, NAN, 3), (20, 22, NAN, 4)],
     (20, 22, 21, mk.GOOD, 2)),
    ("wild in two directions", [(10, 12, NAN, 1), (20, 22, NAN, 2), (5, 6, NAN, 3), (20, 22, NAN, 4)],
     (10, 12, 11, mk.WILD, 3)),
    ("withdrawn", [(10, 12, NAN, 1), (*GONE, NAN, 2)], (10, 12, 11, mk.STALE, 0)),
    ("the next quote is good", [(10, 12, NAN, 1), (*GONE, NAN, 2), (10, 11, NAN, 3)], (10, 11, 10.5, mk.GOOD, 0)),
    ("a quote of before brings nothing back", [(10, 12, NAN, 1), (*GONE, NAN, 3), (10, 11, NAN, 2)], (10, 12, 11, mk.STALE, 0)),
    ("a crossed one neither", [(10, 12, NAN, 1), (*GONE, NAN, 2), (13, 12, NAN, 3)], (10, 12, 11, mk.STALE, 1)),
    ("one side after it goes with no old one", [(10, 10.2, NAN, 1), (*GONE, NAN, 2), (10, NAN, NAN, 3)], (10, NAN, 10, mk.ONE_SIDED, 0)),
    ("a withdrawal of before the newest quote", [(10, 12, NAN, 2), (*GONE, NAN, 1)], (10, 12, 11, mk.GOOD, 0)),
    ("nothing to withdraw", [(*GONE, NAN, 1)], (NAN, NAN, NAN, mk.NONE, 0)),
    ("trades go on where quotes are withdrawn", [(10, 12, NAN, 1), (*GONE, NAN, 2), (NAN, NAN, 11.5, 3)], (NAN, NAN, 11.5, mk.LAST, 0)),
    ("a trade, and nobody quotes", [(10, 12, NAN, 1), (*GONE, 11.5, 2)], (NAN, NAN, 11.5, mk.LAST, 0)),
    ("a wild trade, and nobody quotes", [(10, 12, NAN, 1), (*GONE, 30, 2)], (10, 12, 11, mk.STALE, 1)),
    ("a quote takes over from trades", [(NAN, NAN, 11, 1), (10, 12, NAN, 2), (NAN, NAN, 11.5, 3)], (10, 12, 11, mk.GOOD, 0)),
    ("older than the mark", [(10, 12, NAN, 2), (10, 11, NAN, 1)], (10, 12, 11, mk.GOOD, 0)),
]
# quotes of an instrument with prices of any sign and a tick -> mid, quality
ANY_SIGN = [
    ("a spread moves by ticks", 0.01, [(0.09, 0.11), (0.06, 0.08), (0.04, 0.06)], (0.05, mk.GOOD)),
    ("through zero", 0.01, [(0.01, 0.03), (-0.01, 0.01), (-0.05, -0.03)], (-0.04, mk.GOOD)),
    ("a spread that jumps", 0.01, [(0.09, 0.11), (0.99, 1.01)], (0.10, mk.WILD)),
    ("an option of a few cents", 0.05, [(0.05, 0.10), (0.05, 0.15), (0.05, 0.20)], (0.125, mk.GOOD)),
    ("an option that nobody bids for", 0.05, [(0, 0.05)], (0.025, mk.GOOD)),
    ("crude oil, 20 April 2020", 0.01, [(18.26, 18.28), (4.99, 5.01), (5, 5.02), (5.01, 5.03), (-2.01, -1.99), (-2.02, -2.0),
                                        (-2.03, -2.01), *[(-37.64, -37.62)] * 3], (-37.63, mk.GOOD)),
]


def terms(tick: float = 0.0, any_sign: bool = False, n: int = 1) -> np.ndarray:
    """Return what n instruments are judged by."""
    return np.array([(STALE_S * S, tick, any_sign)] * n, mk.TERMS_DTYPE)


def quotes(rows: list[tuple[float | None, float | None, float, float]], source: int = 1) -> np.ndarray:
    """Return quotes of instrument 0."""
    out = np.zeros(len(rows), QUOTE_DTYPE)
    for i, (bid, ask, last, ts) in enumerate(rows):
        out[i]["status"], out[i]["source"] = READ, source
        out[i]["withdrawn"] = bid is None and ask is None
        out[i]["bid"], out[i]["ask"] = (NAN if side is None else side for side in (bid, ask))
        out[i]["last"], out[i]["ts_event"] = last, int(ts * S)
    return out


def quality(marks: np.ndarray, now_s: float) -> int:
    """Return the quality that a window which closes at a time publishes."""
    mk.close_window(marks, int(now_s * S), int(now_s * S), terms(n=len(marks)), np.zeros(len(marks), np.int64))
    return int(marks[0]["quality"])


@pytest.mark.parametrize(("name", "given", "want"), TABLE, ids=[row[0] for row in TABLE])
def test_quotes_become_marks(name: str, given: list[tuple[float | None, float | None, float, float]],
                             want: tuple[float, float, float, int, int]) -> None:
    marks = mk.empty_marks(1)
    for row in given:
        mk.apply_quotes(marks, quotes([row]), terms(), int(row[3] * S), 2 * S)
    found = quality(marks, given[-1][3])
    got = tuple(float(marks[0][n]) for n in ("bid", "ask", "mid"))
    assert got == pytest.approx(want[:3], nan_ok=True)
    assert (found, int(marks[0]["rejected"])) == want[3:]


@pytest.mark.parametrize(("name", "tick", "given", "want"), ANY_SIGN, ids=[row[0] for row in ANY_SIGN])
def test_bounds_are_in_ticks_where_a_fraction_means_nothing(name: str, tick: float, given: list[tuple[float, float]],
                                                            want: tuple[float, int]) -> None:
    marks = mk.empty_marks(1)
    for k, (bid, ask) in enumerate(given):
        mk.apply_quotes(marks, quotes([(bid, ask, NAN, k + 1)]), terms(tick, True), (k + 1) * S, S)
    assert quality(marks, len(given)) == want[1] and float(marks[0]["mid"]) == pytest.approx(want[0])


def test_a_spread_around_zero_is_followed_quote_by_quote() -> None:
    rng, marks, used = np.random.default_rng(4), mk.empty_marks(1), 0
    mids = np.cumsum(rng.integers(-3, 4, 1000)) * 0.01
    for k, mid in enumerate(mids.tolist()):
        used += mk.apply_quotes(marks, quotes([(mid - 0.01, mid + 0.01, NAN, k + 1)]), terms(0.01, True), (k + 1) * S, S)
    assert used == 1000


@given(st.lists(st.sampled_from([(13.0, 12.0, NAN), (20.0, 22.0, NAN), (0.0, 12.0, NAN), (0.01, 199_999.0, NAN)]),
                max_size=30), st.floats(0.1, 1.0))
def test_nothing_that_is_refused_keeps_a_mark_young(refused: list[tuple[float, float, float]], pace: float) -> None:
    """Crossed for minutes, or one wild quote and silence: it is as old as its last good price."""
    marks, at = mk.empty_marks(1), 1.0
    mk.apply_quotes(marks, quotes([(10, 12, NAN, at)]), terms(), S, S)
    for k, row in enumerate(refused):
        if row[0] == 20.0 and k and refused[k - 1][0] == 20.0:
            continue  # several that agree are believed
        at += pace
        mk.apply_quotes(marks, quotes([(*row, at)]), terms(), int(at * S), S)
        if at < STALE_S:
            assert quality(marks, at) in (mk.GOOD, mk.CROSSED, mk.WILD, mk.STUB)
    marks["wild_count"] = 0
    assert quality(marks, max(at, 1 + STALE_S + 0.01)) == mk.STALE
    assert quality(marks, at + 3600) == mk.STALE and float(marks[0]["mid"]) == 11


EVENT = st.tuples(st.sampled_from([NAN, None, 0.0, 9.9, 10.0, 10.1, 20.0]), st.sampled_from([NAN, None, 10.0, 10.2, 20.5, 1e5]),
                  st.sampled_from([NAN, NAN, 10.05, 30.0]), st.sampled_from([0.0, 0.5, 4.0, 11.0]), st.integers(1, 3))


@given(st.lists(EVENT, max_size=20), st.integers(0, 20))
def test_a_restart_anywhere_changes_nothing(events: list[tuple[float | None, float | None, float, float, int]], cut: int) -> None:
    """R1: the marks that the `marks` topic brings back go on as those that lived."""
    lived, restarted, at = mk.empty_marks(1), mk.empty_marks(1), 1.0
    for k, (bid, ask, last, wait, source) in enumerate(events):
        at += wait
        for marks in (lived, restarted):
            mk.apply_quotes(marks, quotes([(bid, ask, last, at)], source), terms(), int(at * S), S)
            quality(marks, at)
        if k == cut:
            record = encode(mk.to_record("X", restarted[0], 7))
            restarted = mk.empty_marks(1)
            mk.from_record(restarted[0], decoder_of(Mark).decode(record), int(at * S))
        assert mk.state_hash(lived) == mk.state_hash(restarted)
        for later in (0, 5, 20):
            assert quality(lived.copy(), at + later) == quality(restarted.copy(), at + later)


def test_a_mark_from_the_future_is_old_and_makes_no_quote_late() -> None:
    marks = mk.empty_marks(1)
    future: Any = {"ts_event": 400 * 86_400 * S, "bid": 1.1, "ask": 1.12, "mid": 1.11}
    mk.from_record(marks[0], Mark(instrument="X", window_end=S, last=None, quality="good", **future), 5 * S)
    assert quality(marks, 20) == mk.STALE
    mk.apply_quotes(marks, quotes([(1.2, 1.21, NAN, 20)]), terms(), 20 * S, S)
    assert float(marks[0]["mid"]) == pytest.approx(1.205) and quality(marks, 20) == mk.GOOD


def test_windows_report_what_changed_once_and_what_went_stale_once() -> None:
    marks, out, known = mk.empty_marks(2), np.zeros(2, np.int64), terms(n=2)
    mk.apply_quotes(marks, quotes([(10, 12, NAN, 1)]), known, 10 * S, S)
    assert mk.close_window(marks, 11 * S, 11 * S, known, out) == 1 and int(marks[0]["window_end"]) == 11 * S
    assert mk.close_window(marks, 12 * S, 12 * S, known, out) == 0
    assert mk.close_window(marks, 21 * S, 21 * S, known, out) == 1 and int(marks[0]["quality"]) == mk.STALE
    assert mk.close_window(marks, 22 * S, 22 * S, known, out) == 0
    mk.apply_quotes(marks, quotes([(10, 12, NAN, 20)]), known, 30 * S, S)
    assert mk.close_window(marks, 31 * S, 30 * S, known, out) == 1 and int(marks[0]["quality"]) == mk.GOOD


def test_two_sources_of_one_instrument_make_one_mark_and_late_ones_are_counted() -> None:
    marks = mk.empty_marks(1)
    mk.apply_quotes(marks, quotes([(10, 12, NAN, 5)], 1), terms(), 1, 2 * S)
    mk.apply_quotes(marks, quotes([(10.2, 12, NAN, 6), (9, 11, NAN, 1)], 2), terms(), 1, 2 * S)
    assert int(marks[0]["sources"]) == 2 and int(marks[0]["late"]) == 1 and float(marks[0]["bid"]) == 10.2
