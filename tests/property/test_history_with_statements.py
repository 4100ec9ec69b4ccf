"""R6 over everything that lies between the fills: statements, rolls, long chains, what is leaving the window."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import position_order as order
from models import trade_columns as tc
from schemas.reasons import QuarantineReason
from schemas.records import Position
from schemas.refusal import Refused
from tables.position_partition import PositionPartition
from tests.folding import ACCOUNTS, feed, new_partition, trade
from tests.property.test_position_relations import Event, apply
from tests.property.test_rewritten_history import FOREVER, T0, assert_same, close, histories

S = 1_000_000_000


@st.composite
def between(draw: st.DrawFn) -> list[Event]:
    """Return statements and rolls."""
    out: list[Event] = []
    for _ in range(draw(st.integers(1, 4))):
        ts = T0 + draw(st.integers(0, 40)) * S
        if draw(st.integers(0, 3)):
            out.append(("state", draw(st.sampled_from(["PB1", "PB2"])), draw(st.sampled_from(ACCOUNTS)),
                        draw(st.sampled_from(["EURUSD", "FUT", "INV"])), draw(st.integers(-50, 50)),
                        draw(st.one_of(st.none(), st.floats(1.0, 200.0))), ts))
        else:
            out.append(("roll", draw(st.sampled_from(ACCOUNTS)), ts))
    return out


def mixed(trades: list[dict[str, Any]], others: list[Event], places: list[int]) -> list[Event]:
    """Return one log: the others keep their order, wherever they come."""
    log: list[Event] = [("trade", t) for t in trades]
    for event, place in reversed(list(zip(others, sorted(places), strict=True))):
        log.insert(min(place, len(trades)), event)
    return log


def records(part: PositionPartition) -> dict[tuple[str, str], Position]:
    return {(r.account, r.instrument): r for r in part.records(np.arange(len(part.positions)))}


def assert_openings(got: dict[tuple[str, str], Position], want: dict[tuple[str, str], Position]) -> None:
    """Assert that days began with the same, and end at the same time."""
    for key in got.keys() & want.keys():
        a, b = got[key], want[key]
        assert (a.opening_quantity, a.opening_ts, a.opening_kind, a.opening_fees, a.opening_funding) == (
            b.opening_quantity, b.opening_ts, b.opening_kind, b.opening_fees, b.opening_funding), key
        for x, y in ((a.opening_price, b.opening_price), (a.opening_realised_pnl, b.opening_realised_pnl)):
            assert (x is None) == (y is None), key
            close(x or 0.0, y or 0.0, 1e4)
        assert (a.last_ts_event, a.late_trades) == (b.last_ts_event, b.late_trades), key


@settings(max_examples=60)
@given(histories(), between(), st.data(), st.sampled_from([1, 3, 100]))
def test_what_is_busted_or_corrected_was_never_there_for_a_statement_and_a_roll_either(
        history: tuple[list[dict[str, Any]], list[dict[str, Any]]], others: list[Event], data: st.DataObject,
        batch: int) -> None:
    sent, final = history
    got, want = new_partition(lateness_ns=FOREVER), new_partition(lateness_ns=FOREVER)
    places = st.lists(st.integers(0, 30), min_size=len(others), max_size=len(others))
    apply(got, mixed(sent, others, data.draw(places)), batch)
    apply(want, mixed(final, others, [0] * len(others)))
    a, b = records(got), records(want)
    shown = {k for k, r in (a | b).items() if r.realised_pnl is not None}  # what had no price is compared elsewhere
    assert_same({k: a[k] for k in a.keys() & shown}, {k: b[k] for k in b.keys() & shown})
    for k in a.keys() & b.keys():
        assert (a[k].quantity, a[k].realised_pnl is None) == (b[k].quantity, b[k].realised_pnl is None), k
    assert_openings(a, b)


@settings(max_examples=30)
@given(histories(), st.integers(1, 3))
def test_how_late_a_trade_is_does_not_depend_on_what_was_taken_back(
        history: tuple[list[dict[str, Any]], list[dict[str, Any]]], lateness_s: int) -> None:
    """Corrections keep the time of what they correct: another time is another answer to what came too late."""
    sent, final = history
    when = {t["trade_id"]: t["ts_event"] for t in reversed(sent)}
    for t in sent:
        when[t["trade_id"]] = when[t.get("ref_trade_id") or t["trade_id"]]
    got, want = new_partition(lateness_ns=lateness_s * S), new_partition(lateness_ns=lateness_s * S)
    feed(got, [t | {"ts_event": when[t["trade_id"]]} for t in sent], 5)
    feed(want, [t | {"ts_event": when[t["trade_id"]]} for t in final])
    assert_same(records(got), records(want))
    assert_openings(records(got), records(want))




@settings(max_examples=40)
@given(histories(), between(), st.lists(st.integers(0, 40), min_size=4, max_size=4), st.integers(0, 3))
def test_a_checkpoint_changes_nothing(history: tuple[list[dict[str, Any]], list[dict[str, Any]]],
                                      others: list[Event], places: list[int], lateness_s: int) -> None:
    log = mixed(history[0], others, places[: len(others)])
    plain, checked = new_partition(lateness_ns=lateness_s * S), new_partition(lateness_ns=lateness_s * S)
    for event in log:
        apply(plain, [event])
        apply(checked, [event])
        for slot in range(len(checked.positions)):
            order.check_half_chain(checked.positions.arrays, slot)
        assert checked.state_hash() == plain.state_hash()
    for slot in range(len(checked.positions)):
        checked.positions.refold(slot)
        plain.positions.refold(slot)
    assert checked.state_hash() == plain.state_hash()


@settings(max_examples=40)
@given(histories(), between(), st.data())
def test_what_leaves_the_window_in_time_changes_no_row(history: tuple[list[dict[str, Any]], list[dict[str, Any]]],
                                                       others: list[Event], data: st.DataObject) -> None:
    """By order of trade time nothing of a row that stays comes before what leaves."""
    sent = sorted(history[1], key=lambda t: int(t["ts_event"]))
    stated = sorted(others, key=lambda e: int(e[-1]))
    log = sorted([("trade", t) for t in sent] + stated,
                 key=lambda e: (e[1]["ts_event"], 1) if e[0] == "trade" else (e[-1], 0))
    whole, evicted = new_partition(), new_partition()
    cut = data.draw(st.integers(0, len(log)))
    apply(whole, log)
    apply(evicted, log[:cut])
    before = [msgspec.structs.replace(r, revision=0) for r in records(evicted).values()]
    order.evict_oldest(evicted.positions.arrays, data.draw(st.integers(0, evicted.positions.fill_count)))
    for slot in range(len(evicted.positions)):
        evicted.positions.refold(slot)
    assert [msgspec.structs.replace(r, revision=0) for r in records(evicted).values()] == before
    apply(evicted, log[cut:])
    a, b = records(evicted), records(whole)
    assert a.keys() == b.keys()
    for key in a:
        assert (a[key].quantity, a[key].trades, a[key].opening_quantity) == (
            b[key].quantity, b[key].trades, b[key].opening_quantity)
    assert_openings(a, b)


def test_a_bust_of_what_a_statement_includes_takes_back_what_it_realised() -> None:
    part = new_partition()
    buy, sell = trade("T1", "buy", "100", "10", T0), trade("T2", "sell", "40", "12", T0 + S)
    feed(part, [buy, sell])
    part.open(part.reference.intern_key("A1", "EURUSD"), "PB", 60, 10.0, T0 + 2 * S, 0)
    feed(part, [trade("T3", "sell", "10", "13", T0 + 3 * S)])
    assert (records(part)["A1", "EURUSD"].realised_pnl, records(part)["A1", "EURUSD"].opening_realised_pnl) == (110, 80)
    feed(part, [sell | {"trade_id": "B", "action": "bust", "ref_trade_id": "T2"}])
    row = records(part)["A1", "EURUSD"]
    assert (row.quantity, row.realised_pnl, row.opening_realised_pnl, row.trades) == ("50", 30, 0, 2)


def test_a_bust_lowers_the_time_of_the_newest_trade() -> None:
    part = new_partition()
    feed(part, [trade("T1", "buy", "1", "10", T0), trade("T2", "buy", "1", "10", T0 + 50 * S),
                trade("T3", "sell", "1", "11", T0 + 10 * S)], 1)
    assert records(part)["A1", "EURUSD"].late_trades == 1
    feed(part, [trade("B", "buy", "1", "10", T0 + 50 * S, action="bust", ref_trade_id="T2")])
    row = records(part)["A1", "EURUSD"]
    assert (row.last_ts_event, row.late_trades, row.realised_pnl) == (T0 + 10 * S, 0, 1)


def test_a_statement_of_before_what_has_left_the_window_is_refused_with_a_reason_and_changes_nothing() -> None:
    part = new_partition(fills_max=4096)
    feed(part, [trade(f"T{i}", "buy", "1", "10", T0 + i * S) for i in range(4096)], 512)
    assert part.positions.first_fill_seq > 0
    before, key = part.state_hash(), part.reference.intern_key("A1", "EURUSD")
    with pytest.raises(Refused, match="left the window") as refused:
        part.open(key, "PB", 1000, 10.0, T0 + 5 * S, 0)
    assert refused.value.reason is QuarantineReason.STATEMENT_TOO_LATE
    assert part.state_hash() == before
    part.open(key, "PB", 1000, 10.0, T0 + 4000 * S, 0)
    assert records(part)["A1", "EURUSD"].quantity == str(1000 + 96)


def test_a_fill_that_has_left_the_chain_is_taken_back_in_quantity_and_total_and_said_to_be_inexact() -> None:
    part = new_partition()
    feed(part, [trade("T1", "buy", "10", "10", T0), trade("T2", "sell", "4", "12", T0 + S)])
    fold, lots = part.positions.whole_fold(0)
    part.positions.replace(0, fold, lots)
    statuses = feed(part, [trade("B", "buy", "1", "1", T0, action="bust", ref_trade_id="T1")])
    row = records(part)["A1", "EURUSD"]
    assert statuses == [tc.APPLIED] and (row.quantity, row.trades) == ("-4", 1)
    assert row.realised_pnl is not None and row.average_price is not None
    assert row.realised_pnl - 4 * (11 - row.average_price) == pytest.approx(4 * 1)  # short 4 at 12, at a mark of 11


def test_of_a_statement_and_a_roll_of_one_moment_the_statement_begins_the_day_whichever_came_first() -> None:
    for first in ("state", "roll"):
        part = new_partition()
        feed(part, [trade("T1", "buy", "10", "10", T0)])
        log: list[Event] = [("state", "PB", "A1", "EURUSD", 7, 11.0, T0 + S), ("roll", "A1", T0 + S)]
        apply(part, log if first == "state" else log[::-1])
        row = records(part)["A1", "EURUSD"]
        assert (row.quantity, row.opening_kind, row.opening_quantity, row.opening_price) == ("7", "statement", "7", 11.0)


@settings(max_examples=60)
@given(histories(), between(), st.data())
def test_a_row_that_is_replaced_by_its_own_fold_is_what_it_was_and_goes_on_so(
        history: tuple[list[dict[str, Any]], list[dict[str, Any]]], others: list[Event], data: st.DataObject) -> None:
    """R1 of a reload: what it puts in place counts nothing twice, statements of the window among it."""
    sent, _ = history
    places = data.draw(st.lists(st.integers(0, 30), min_size=len(others), max_size=len(others)))
    got, want = new_partition(lateness_ns=FOREVER), new_partition(lateness_ns=FOREVER)
    for part in (got, want):
        apply(part, mixed(sent, others, places), 3)
    for slot in range(len(got.positions)):
        got.positions.replace(slot, *got.positions.whole_fold(slot), float(got.positions.arrays.stated[slot]))
    later = [trade(f"LATER{k}", "buy", str(k + 1), "7", T0 + 1_000 * S + k, account=account, instrument=instrument)
             for k, (account, instrument) in enumerate(sorted(records(want)))]
    for more in ([], later):
        for part in (got, want):
            feed(part, more, first_offset=10_000)
        a, b = records(got), records(want)
        assert a.keys() == b.keys()
        assert_same(a, b)
