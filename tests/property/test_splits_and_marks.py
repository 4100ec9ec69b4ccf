"""What a split leaves of marks: prices in its units, stale until one of after it; what is held is worth what it was."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.marks import MarkStage
from agents.reference_tail import ReferenceTail
from agents.router import Place
from models import marks as mk
from models.quote_columns import QUOTE_DTYPE, READ
from models.reference import Reference
from models.rollup import GROSS, STALE
from models.valued_book import ValuedBook
from schemas.codec import decoder_of
from schemas.corporate import CorporateAction
from schemas.records import Account, AsOf, Fifo, Instrument, Mark, Position
from tables.records import RecordBatch

S = 1_000_000_000
T0 = 1_795_000_000 * S
TOPICS = {name: name for name in ("marks", "ticks", "quarantine", "alerts", "reference.instruments", "reference.accounts", "corporate.actions")}
LATENESS_NS = 2 * S


class House:
    """A mark stage with a clock in our hands, and what it published."""

    def __init__(self, restored: Mark | None = None) -> None:
        self.now, self.sent = T0, dict[str, Mark]()
        quiet = cast(Any, SimpleNamespace(add=lambda *_, **__: None, set=lambda *_, **__: None))
        self.reference = Reference(lambda account: 0)
        self.reference.add_instrument(EQUITY)
        self.tail = ReferenceTail(cast(Any, SimpleNamespace()), TOPICS, self.reference, quiet)
        publisher = cast(Any, SimpleNamespace(send=lambda topic, key, value, partition=None: self.sent.__setitem__(topic, decoder_of(Mark).decode(value))))
        self.stage = MarkStage(cast(Any, None), TOPICS, self.tail, publisher, lambda: self.now, quiet, LATENESS_NS, cast(Any, None))
        self.stage._owned = {0}
        self.stage._room(1)
        if restored is not None:
            self.stage._restore(restored, 0)
            self.sent["marks"] = restored

    def split(self, ratio: str, at: int, action_id: str = "CA1") -> None:
        self.tail._on_action(CorporateAction(action_id=action_id, instrument="ACME", kind="split", effective_ts=at, ratio=Decimal(ratio)), Place("corporate.actions", 0, 0, "ACME|" + action_id))

    def quote(self, bid: float, ask: float, ts: int) -> None:
        value = json.dumps({"instrument": "ACME", "bid": bid, "ask": ask, "ts_event": ts}).encode()
        batch = RecordBatch("ticks", 0, np.array([0]), [value], [b"ACME"], {}, np.array([self.now // 1_000_000]), 1)
        asyncio.run(self.stage.process(batch, lambda: None))

    def mark(self, now: int) -> Mark:
        self.now = now
        self.stage._close()
        return self.sent["marks"]

    def hash(self) -> str:
        return mk.state_hash(self.stage._marks[:1])


EQUITY = Instrument(instrument="ACME", asset_class="equity", currency="USD", price_increment=Decimal("0.01"), quantity_increment=Decimal(1))


def worth(mark: Mark, quantity: float) -> tuple[float, float]:
    """Return the gross value of a position at a mark, and how many of the firm's values are stale."""
    book = ValuedBook("USD", ("book", "desk", "strategy", "fund", "firm"))
    book.add_instrument(EQUITY)
    book.add_account(Account(account="A", book="B", desk="D", strategy="S", fund="F"))
    book.add_mark(mark)
    book.add_position(Position(account="A", instrument="ACME", quantity=str(quantity), average_price=1.0, realised_pnl=0.0, fees={}, currency="USD", trades=1, last_ts_event=1,
                               fifo=Fifo(0.0, None, 0), break_even_price=None, as_of=AsOf(0, 1)))
    book.revalue(T0)
    figures = book.figures(book.rollup.node_index["firm"])
    return float(figures[GROSS]), float(figures[STALE])


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["4", "0.1", "1.5", "2"]), st.integers(1, 60), st.booleans(), st.booleans())
def test_a_mark_that_a_split_finds_is_worth_the_same_and_stale_until_a_quote_of_after_it(ratio: str, seconds: int, announced: bool, restarts: bool) -> None:
    house, at = House(), T0 + seconds * S
    if announced:
        house.split(ratio, at)
    house.quote(399.99, 400.01, T0)
    before = house.mark(T0 + S // 10)
    assert before.quality == "good" and before.mid == 400.0
    if seconds > 1:
        assert house.mark(at - 1).mid == 400.0  # what is to come restates nothing
    if not announced:
        house.split(ratio, at)
    after = house.mark(at)
    assert after.mid == pytest.approx(400.0 / float(ratio)) and (after.quality, after.ts_event) == ("stale", at)
    assert worth(before, 10) == (4_000, 0) and worth(after, 10 * float(ratio)) == (pytest.approx(4_000), 1)
    # a stage that starts from the record of before, or of after, has the state of one that lived through it
    for restored in (before, after):
        heir = House(restored)
        heir.split(ratio, at)
        heir.mark(at)
        assert heir.hash() == house.hash()
        house = heir if restarts else house
    house.quote(399.99, 400.01, at - 1)  # one of before is late
    assert house.mark(at + S).mid == after.mid
    mid = 400.0 / float(ratio)
    house.quote(mid * 1.01, mid * 1.02, at + S)
    first = house.mark(at + 2 * S)
    assert (first.quality, first.rejected) == ("good", 0) and first.mid == pytest.approx(mid * 1.015)
    assert house.mark(at + 3 * S).mid == first.mid


def test_a_split_that_is_heard_of_late_leaves_marks_of_after_it_and_two_splits_restate_one_after_the_other() -> None:
    house = House()
    house.quote(99.99, 100.01, T0)
    house.split("4", T0 - S)
    assert house.mark(T0 + S).mid == 100.0
    house.split("2", T0 + 2 * S, "CA2")
    house.split("5", T0 + 3 * S, "CA3")
    assert house.mark(T0 + 2 * S).mid == 50.0
    assert house.mark(T0 + 4 * S).mid == 10.0


def test_no_side_and_no_print_of_before_goes_with_a_price_of_after() -> None:
    marks, terms = mk.empty_marks(1), np.array([(10 * S, 0.01, 0)], mk.TERMS_DTYPE)

    def quote(bid: float, ask: float, last: float, ts: int) -> None:
        row = np.zeros(1, QUOTE_DTYPE)
        row["bid"], row["ask"], row["last"], row["ts_event"], row["status"] = bid, ask, last, ts, READ
        mk.apply_quotes(marks, row, terms, ts, LATENESS_NS)

    quote(399.0, 401.0, 400.0, T0)
    mk.restate(marks, np.array([(0, T0 + S, 4.0)], mk.SPLIT_DTYPE), T0 + S)
    assert marks["last"][0] == 100.0 and mk.quality_of(marks[0], T0 + S, 10 * S) == mk.STALE
    quote(np.nan, np.nan, 400.0, T0)
    assert marks["last"][0] == 100.0
    quote(99.0, np.nan, np.nan, T0 + S)
    assert (marks["bid"][0], marks["mid"][0]) == (99.0, 99.0) and np.isnan(marks["ask"][0])
