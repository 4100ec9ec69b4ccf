"""What a gate remembers of prices outlives it: a gate that starts later decides as the one that lived (R1)."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.gate_changelog import PRICES_PARTITION, GateChangelog, Kept
from agents.gate_inputs import EVERY_PRICE_MS, GateInputs
from models.gate.book import GateBook
from models.gate.price_drift import DRIFT_WINDOW_NS
from models.gate.state_hash import state_hash
from schemas.codec import JsonDecoder, encode
from schemas.corporate import CorporateAction
from schemas.gate_state import GatePrice
from schemas.records import Account, Instrument, Mark
from tables.records import RecordBatch
from tests.unit.test_gate_book import DAY_NS, T0, codes, limit, order
from tests.unit.test_gate_changelog import TOPICS, Log, fresh, gate, log

__all__ = ["gate", "log"]
S = 1_000_000_000


def firm(*limits: Any) -> GateBook:
    g = GateBook("USD", ("book", "desk", "strategy", "fund", "firm"), accounts=4, instruments=4, positions=16, nodes=64, rates=4)
    g.positions_hold(9 * 10**18)
    for name in ("X", "Y"):
        g.add_instrument(Instrument(instrument=name, asset_class="equity", currency="USD", prior_close=Decimal(100)))
    g.add_account(Account(account="A", book="B", desk="D", strategy="S", fund="F"))
    for metric in ("order_quantity", "order_value"):
        g.add_limit(limit(metric, "firm", metric, 1e9))
    for x in limits:
        g.add_limit(x)
    return g


def price(g: GateBook, mid: float, ts_ns: int, name: str = "X") -> None:
    g.set_price(name, mid - 0.1, mid + 0.1, mid, None, ts_ns, True)


DRIFTS = (limit("H", "instrument:X", "price_drift", 400, window_ms=60_000), limit("S", "firm", "price_drift", 200, mode="soft"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("XY"), st.sampled_from([80.0, 89.9, 95.0, 100.0, 104.0]), st.sampled_from([0, 1, 30, 70, 400, 90_000])), max_size=20), st.integers(0, 20), st.booleans())
def test_who_starts_later_remembers_what_the_one_before_wrote_down(moves: list[tuple[str, float, int]], at: int, twice: bool) -> None:
    lived, heir, now = firm(*DRIFTS), firm(*DRIFTS), T0
    kept: dict[str, GatePrice | None] = {}
    reader: JsonDecoder[GatePrice] = JsonDecoder(GatePrice)
    for k, (name, mid, gap) in enumerate(moves):
        now += gap * S
        price(lived, mid, now, name)
        lived.refresh(now)
        if k >= at:  # from here on the heir sees prices, too
            if k == at:
                kept |= dict(lived.guards.cut())
                for entry in [x for x in kept.values() if x is not None] * (1 + twice):
                    heir.guards.put(reader.decode(encode(entry)), now)
                assert {n for n, x in kept.items() if x is not None} == lived.guards.written
            price(heir, mid, now, name)
            heir.refresh(now)
    if at < len(moves):
        for g in (lived, heir):
            g.book.add_mark(Mark(instrument="X", window_end=now, ts_event=now, bid=99.9, ask=100.1, mid=100.0, last=None, quality="good"))
            price(g, 100.0, now)
            price(g, 100.0, now, "Y")
            g.refresh(now)
        for f in ("price_test", "drift_low", "drift_high", "soft_low", "soft_high"):
            assert np.array_equal(lived.state.instruments[f], heir.state.instruments[f], equal_nan=True), f
        short = msgspec.structs.replace(order("1", side="sell", quantity=1, price=99.9, locate_id="L"))
        assert codes(lived, short, now) == codes(heir, short, now)
    lived.refresh(now + 4 * DAY_NS)
    assert not lived.guards.tests and not lived.state.instruments["price_test"].any()


def test_a_window_of_another_length_is_not_taken_for_this_one() -> None:
    lived, heir = firm(*DRIFTS), firm(limit("H", "instrument:X", "price_drift", 400, window_ms=30_000))
    price(lived, 90.0, T0)
    (entry,) = [x for _, x in lived.guards.cut() if x is not None and x.instrument == "X"]
    assert {w.window_ns for w in entry.windows} == {60 * S, DRIFT_WINDOW_NS}
    heir.guards.put(entry, T0)
    assert np.isnan(heir.state.instruments["drift_low"][0]) and heir.state.instruments["price_test"][0] == 1
    heir.guards.put(GatePrice(instrument="nobody", test_ends=T0 + S), T0)
    assert heir.guards.written == {"X", "nobody"} and dict(heir.guards.cut())["nobody"] is None


def test_a_test_that_began_is_written_down_at_once_and_read_by_every_gate(gate: GateBook, log: Log) -> None:
    async def scenario() -> None:
        gate.add_instrument(msgspec.structs.replace(gate.book.reference.instrument_records["X"], asset_class="equity"))
        stage = fresh(log, gate)
        await stage.take_over()
        await stage.write_down()
        price(stage.gate, 89.0, T0)
        price(stage.gate, 95.0, T0)
        stage.changelog.write_tests()
        written = len(log.records["gate-changelog"])
        stage.changelog.write_tests()
        assert len(log.records["gate-changelog"]) == written  # once
        heir = fresh(log, gate)
        price(heir.gate, 95.0, T0)
        assert state_hash(heir.gate) != state_hash(stage.gate)
        await heir.take_over()
        assert state_hash(heir.gate) == state_hash(stage.gate) and heir.gate.state.instruments["price_test"][0] == 1
        # a gate of other partitions reads it, too
        other = fresh(log, gate)
        changelog = GateChangelog(None, TOPICS, log, lambda: log.now, other.gate, other.fills, lambda _: 5)  # type: ignore[arg-type]
        assert PRICES_PARTITION == 0 and await changelog.read([]) == {}
        assert other.gate.guards.tests == stage.gate.guards.tests

    asyncio.run(scenario())


def test_prices_stand_by_themselves_whatever_mark_is_missing() -> None:
    kept = Kept()
    kept.take(b"p|X", encode(GatePrice(instrument="X", test_ends=5)))
    assert kept.prices[b"p|X"] == GatePrice(instrument="X", test_ends=5) and not kept.unfinished
    kept.take(b"p|X", None)
    assert kept.prices == {b"p|X": None}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from([80.0, 95.0, 100.0, 104.0]), max_size=4), max_size=4), st.booleans())
def test_every_price_counts_however_marks_were_cut_into_slices(slices: list[list[float]], long_past: bool) -> None:
    """R2: a mark that waits while a newer one comes is taken in first, where a latch or a window hangs on it."""
    quiet, books = cast(Any, SimpleNamespace(add=lambda *_, **__: None, set=lambda *_, **__: None, judged=lambda *how: how)), []
    for together in (True, False):
        g = firm(*DRIFTS)
        now = T0 + (EVERY_PRICE_MS * 1_000_000 + 60 * S if long_past else 0)
        inputs = GateInputs(g, quiet, cast(Any, SimpleNamespace(take=None, gone=None)), {"marks": "marks"}, quiet, lambda *_: None, lambda now=now: now, 0)
        for n, mids in enumerate(slices):
            marks = [encode(Mark(instrument="X", window_end=T0 + n, ts_event=T0 + n, bid=m - 0.1, ask=m + 0.1, mid=m, last=None, quality="good")) for m in mids]
            for part in [marks] if together else [[m] for m in marks]:
                inputs.on_marks(RecordBatch("marks", 0, np.arange(len(part)), part, [b"X"] * len(part), {}, np.full(len(part), T0 // 1_000_000), 0))
                if not together:
                    inputs.take_marks(9)
            inputs.take_marks(9)
        books.append(g)
    if not long_past:
        assert state_hash(books[0]) == state_hash(books[1])
        assert bool(books[0].guards.tests) == any(m == 80.0 for mids in slices for m in mids)


def test_a_split_is_no_fall_and_no_drift() -> None:
    """A price in new units is compared with none of before: no price test by an old close, no drift from an old price."""
    g = firm(DRIFTS[0])
    g.guards.actions.put(CorporateAction(action_id="CA1", instrument="X", kind="split", effective_ts=T0 + 10 * S, ratio=Decimal(4)))
    price(g, 100, T0)
    g.set_price("X", 24.9, 25.1, 25.0, None, T0 + 10 * S, False)  # the mark stage restated it
    price(g, 25, T0 + 11 * S)
    row = g.state.instruments[g.state.instrument("X")]
    assert (row["price_test"], row["drift_low"], row["drift_high"]) == (0, 25, 25)
    price(g, 26, T0 + 20 * S)
    assert (row["drift_low"], row["drift_high"]) == (26, 26)  # the bucket of the split held both units
    price(g, 26.5, T0 + 40 * S)
    assert (row["drift_low"], row["drift_high"]) == (26, 26.5)
    held = g.book.reference.instrument_records["X"]
    g.add_instrument(msgspec.structs.replace(held, prior_close=Decimal(30), prior_close_splits=["CA1"]))
    price(g, 26.5, T0 + 41 * S)
    assert row["price_test"] == 1  # by a close in units of after it is a fall
