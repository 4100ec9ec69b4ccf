"""What becomes a mark and what never does: one row an event, as a risk manager reads it."""

from __future__ import annotations

import numpy as np
import pytest

from models import marks as mk
from models.quote_columns import QUOTE_DTYPE, READ

NAN = float("nan")
S = 1_000_000_000
# quotes (bid, ask, last, seconds) one after the other -> bid, ask, mid, quality, rejected
TABLE = [
    ("a good quote", [(10, 12, NAN, 1)], (10, 12, 11, mk.GOOD, 0)),
    ("crossed", [(10, 12, NAN, 1), (13, 12, NAN, 2)], (10, 12, 11, mk.CROSSED, 1)),
    ("good again after crossed", [(10, 12, NAN, 1), (13, 12, NAN, 2), (10, 11, NAN, 3)], (10, 11, 10.5, mk.GOOD, 1)),
    ("zero bid", [(10, 12, NAN, 1), (0, 12.2, NAN, 2)], (10, 12.2, 11.1, mk.GOOD, 1)),
    ("negative ask", [(10, 12, NAN, 1), (10.2, -1, NAN, 2)], (10.2, 12, 11.1, mk.GOOD, 1)),
    ("infinite", [(10, 12, NAN, 1), (float("inf"), 12, NAN, 2)], (10, 12, 11, mk.GOOD, 1)),
    ("one side only", [(10, NAN, NAN, 1)], (10, NAN, 10, mk.GOOD, 0)),
    ("the side that moved wins", [(10, 10.2, NAN, 1), (10.4, NAN, NAN, 2)], (10.4, NAN, 10.4, mk.GOOD, 1)),
    ("last only", [(NAN, NAN, 11, 1)], (NAN, NAN, 11, mk.GOOD, 0)),
    ("nothing", [(NAN, NAN, NAN, 1)], (NAN, NAN, NAN, mk.NONE, 0)),
    ("wild once", [(10, 12, NAN, 1), (20, 22, NAN, 2)], (10, 12, 11, mk.WILD, 1)),
    ("wild, confirmed", [(10, 12, NAN, 1), (20, 22, NAN, 2), (20.1, 22, NAN, 3), (20, 22, NAN, 4)],
     (20, 22, 21, mk.GOOD, 2)),
    ("wild in two directions", [(10, 12, NAN, 1), (20, 22, NAN, 2), (5, 6, NAN, 3), (20, 22, NAN, 4)],
     (10, 12, 11, mk.WILD, 3)),
    ("older than the mark", [(10, 12, NAN, 2), (10, 11, NAN, 1)], (10, 12, 11, mk.GOOD, 0)),
]


def quotes(rows: list[tuple[float, float, float, float]], source: int = 1) -> np.ndarray:
    """Return quotes of instrument 0."""
    out = np.zeros(len(rows), QUOTE_DTYPE)
    for i, (bid, ask, last, ts) in enumerate(rows):
        out[i]["status"], out[i]["source"] = READ, source
        out[i]["bid"], out[i]["ask"], out[i]["last"], out[i]["ts_event"] = bid, ask, last, int(ts * S)
    return out


@pytest.mark.parametrize(("name", "given", "want"), TABLE, ids=[row[0] for row in TABLE])
@pytest.mark.parametrize("at_once", [True, False])
def test_quotes_become_marks(name: str, given: list[tuple[float, float, float, float]],
                             want: tuple[float, float, float, int, int], at_once: bool) -> None:
    marks = mk.empty_marks(1)
    for batch in ([given] if at_once else [[row] for row in given]):
        mk.apply_quotes(marks, quotes(batch), np.zeros(1, np.uint8), 5, 2 * S)
    got = tuple(float(marks[0][n]) for n in ("bid", "ask", "mid"))
    assert got == pytest.approx(want[:3], nan_ok=True)
    assert (int(marks[0]["quality"]), int(marks[0]["rejected"])) == want[3:]


def test_negative_prices_are_prices_where_the_class_has_them() -> None:
    marks = mk.empty_marks(1)
    mk.apply_quotes(marks, quotes([(-38, -37, NAN, 1)]), np.ones(1, np.uint8), 5, S)
    assert float(marks[0]["mid"]) == -37.5


def test_windows_report_what_changed_once_and_what_went_stale_once() -> None:
    marks, out, stale = mk.empty_marks(2), np.zeros(2, np.int64), np.full(2, 3 * S)
    mk.apply_quotes(marks, quotes([(10, 12, NAN, 1)]), np.zeros(2, np.uint8), 10 * S, S)
    assert mk.close_window(marks, 11 * S, 11 * S, stale, out) == 1 and int(marks[0]["window_end"]) == 11 * S
    assert mk.close_window(marks, 12 * S, 12 * S, stale, out) == 0
    assert mk.close_window(marks, 14 * S, 14 * S, stale, out) == 1 and int(marks[0]["quality"]) == mk.STALE
    assert mk.close_window(marks, 15 * S, 15 * S, stale, out) == 0
    mk.apply_quotes(marks, quotes([(10, 12, NAN, 20)]), np.zeros(2, np.uint8), 20 * S, S)
    assert mk.close_window(marks, 21 * S, 20 * S, stale, out) == 1 and int(marks[0]["quality"]) == mk.GOOD


def test_two_sources_of_one_instrument_make_one_mark_and_late_ones_are_counted() -> None:
    marks = mk.empty_marks(1)
    mk.apply_quotes(marks, quotes([(10, 12, NAN, 5)], 1), np.zeros(1, np.uint8), 1, 2 * S)
    mk.apply_quotes(marks, quotes([(10.2, 12, NAN, 6), (9, 11, NAN, 1)], 2), np.zeros(1, np.uint8), 1, 2 * S)
    assert int(marks[0]["sources"]) == 2 and int(marks[0]["late"]) == 1 and float(marks[0]["bid"]) == 10.2
