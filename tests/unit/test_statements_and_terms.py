"""Statements of several sources, keys of facts, corrected terms of what is held."""

from __future__ import annotations

import math
from collections import Counter
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import recovery, verify
from app.statement_keys import Found
from models import trade_columns as tc
from models.naive_fold import NaiveBook
from models.reconciliation import StoredTrade, live_quantities, reconcile
from models.reference import ContractChangedError
from models.stated_sources import stated_sum
from schemas.codec import decoder_of, encode, trade_decoder
from schemas.keys import external_key
from schemas.records import External, Instrument, Position
from tables.position_partition import PositionPartition
from tables.refold import near
from tests.folding import INSTRUMENTS, feed, new_partition, trade
from tests.property.test_rewritten_history import FOREVER, histories

T0 = 1_800_000_000_000_000_000
S = 1_000_000_000


def opened(part: PositionPartition, source: str, units: int, price: float | None, ts: int,
           instrument: str = "EURUSD") -> None:
    part.open(part.reference.intern_key("A1", instrument), source, units, price, ts, 0)


def first(part: PositionPartition) -> Position:
    return part.records(np.array([0]))[0]


@pytest.mark.parametrize("instrument", ["EURUSD", "INV"])
@given(legs=st.lists(st.tuples(st.integers(-50, 50), st.floats(1.0, 200.0)), min_size=1, max_size=4),
       mark=st.floats(1.0, 200.0))
@settings(max_examples=25)
def test_sources_come_to_the_sum_of_what_each_states_at_any_mark(
        instrument: str, legs: list[tuple[int, float]], mark: float) -> None:
    part = new_partition()
    for k, (units, price) in enumerate(legs):
        opened(part, f"PB{k}", units, price, T0, instrument)
    inverse = INSTRUMENTS[instrument].inverse
    value = float(part.positions.arrays.rows["unit_value"][0])
    want = sum(q * ((1 / p - 1 / mark) if inverse else (mark - p)) for q, p in legs) * value
    got = first(part)
    held = int(got.quantity)
    left = 0.0
    if held:
        assert got.average_price is not None
        left = held * ((1 / got.average_price - 1 / mark) if inverse else (mark - got.average_price)) * value
    assert got.realised_pnl is not None
    assert got.realised_pnl + left == pytest.approx(want, abs=1e-6 * value * 1e4)
    assert got.realised_pnl == pytest.approx(got.opening_realised_pnl)


def test_two_sources_that_net_flat_have_their_difference_whatever_they_state_again() -> None:
    part = new_partition()
    for day in range(3):
        opened(part, "PB1", 100, 10.0, T0 + day * S)
        opened(part, "PB2", -100, 12.0, T0 + day * S)
        assert (first(part).quantity, first(part).realised_pnl) == ("0", pytest.approx(200))


def test_a_statement_without_a_price_is_known_in_quantity_and_its_pnl_is_null_in_a_record_that_can_be_read() -> None:
    part = new_partition()
    opened(part, "CUST", 100, None, T0)
    feed(part, [trade("T1", "sell", "40", "12", T0 + S)])
    record = decoder_of(Position).decode(encode(first(part)))
    assert (record.quantity, record.realised_pnl, record.average_price) == ("60", None, None)
    part.roll("A1", T0 + 2 * S)
    assert decoder_of(Position).decode(encode(first(part))).opening_realised_pnl is None
    assert stated_sum([(100, None), (-40, 12.0)], False).units == 60


def test_who_compares_positions_holds_an_unknown_figure_equal_to_an_unknown_one_alone() -> None:
    part = new_partition()
    opened(part, "CUST", 100, None, T0)
    feed(part, [trade("T1", "sell", "40", "12", T0 + S)])
    unknown = first(part)
    known = msgspec.structs.replace(unknown, realised_pnl=5.0, average_price=11.0)
    key = f"{unknown.account}|{unknown.instrument}"
    assert recovery.differences({key: unknown}, {key: unknown}, ("a", "b")) == []
    for a, b in ((unknown, known), (known, unknown), (unknown, msgspec.structs.replace(unknown, average_price=11.0))):
        assert len(recovery.differences({key: a}, {key: b}, ("a", "b"))) == 1
    rows = part.positions.arrays.rows
    assert near(float(rows["realised_pnl"][0]), math.nan) and not near(float(rows["realised_pnl"][0]), 0.0)
    # who states what is not known here is at odds with it
    theirs = External(source="PB", account=unknown.account, instrument=unknown.instrument, quantity=Decimal(60), ts_event=T0, kind="snapshot", average_price=Decimal(11), realised_pnl=Decimal(5))
    held = (unknown.account, unknown.instrument)
    found = reconcile({held: unknown}, [theirs], {}, {}, T0)
    assert {(b.field, b.internal, b.external) for b in found} == {("realised_pnl", None, 5.0), ("average_price", None, 11.0)}
    assert reconcile({held: known}, [theirs], {}, {}, T0) == []
    silent = msgspec.structs.replace(theirs, average_price=None, realised_pnl=None)
    assert reconcile({held: unknown}, [silent], {}, {}, T0) == []


def test_verify_says_where_a_figure_is_unknown_that_the_trades_give() -> None:
    part, naive = new_partition(), NaiveBook({"EURUSD": False})
    bought = trade("T1", "buy", "10", "12", T0 + S)
    feed(part, [bought])
    naive.apply(trade_decoder.decode(encode(bought)))
    published = {"A1|EURUSD": first(part)}
    rows, instruments = part.positions.arrays.rows, part.reference.instrument_records

    def found() -> list[str]:
        lines: list[str] = []
        verify._compare(part, naive, instruments, published, Counter(), lines)
        return lines

    assert found() == []
    for name, texts in (("average_price", ["I1"]), ("realised_pnl", ["I1", "I4"])):
        rows[name][0], known = np.nan, rows[name][0]
        assert [line[:2] for line in found()] == texts and "was None" in found()[0]
        rows[name][0] = known


def test_of_two_statements_of_one_moment_the_later_one_counts_and_the_same_one_changes_nothing() -> None:
    part = new_partition()
    opened(part, "PB", 100, 10.0, T0)
    opened(part, "PB", 90, 10.0, T0)
    assert first(part).quantity == "90"
    before = part.state_hash()
    opened(part, "PB", 90, 10.0, T0)
    assert part.state_hash() == before


def terms(part: PositionPartition, name: str, **changes: Any) -> None:
    part.reference.add_instrument(msgspec.structs.replace(part.reference.instrument_records[name], **changes))


@settings(max_examples=30)
@given(histories(), st.integers(0, 22), st.sampled_from(["multiplier", "finer", "both"]))
def test_corrected_terms_are_as_if_they_had_always_been_there(
        history: tuple[list[dict[str, Any]], list[dict[str, Any]]], at: int, what: str) -> None:
    changes: dict[str, Any] = {} if what == "finer" else {"multiplier": Decimal(7)}
    changes |= {} if what == "multiplier" else {"quantity_increment": Decimal("0.001")}
    sent, _ = history
    always, later = new_partition(lateness_ns=FOREVER), new_partition(lateness_ns=FOREVER)
    for name in INSTRUMENTS:
        terms(always, name, **changes)
    feed(always, sent)
    always.roll("A1", T0 + 20 * S)
    feed(later, sent[:at], 3)
    later.roll("A1", T0 + 20 * S)
    changelog = dict(later.cut())
    for name in INSTRUMENTS:
        terms(later, name, **changes)
    assert not later.follow_terms()
    changelog |= dict(later.cut())
    restored = PositionPartition(0, later.reference, 262_144, FOREVER)
    restored.restore({k: v for k, v in changelog.items() if v is not None})
    assert restored.state_hash() == later.state_hash()
    feed(restored, sent[at:], 3, at)
    rows = {(r.account, r.instrument): r for r in restored.records(np.arange(len(restored.positions)))}
    for want in always.records(np.arange(len(always.positions))):
        got = rows[want.account, want.instrument]
        assert (got.quantity, got.opening_quantity, got.trades, got.fees) == (
            want.quantity, want.opening_quantity, want.trades, pytest.approx(want.fees))
        assert got.realised_pnl == pytest.approx(want.realised_pnl, rel=1e-9, abs=1e-6)
        assert got.average_price == pytest.approx(want.average_price)
        if want.opening_quantity == "0":
            assert got.opening_realised_pnl == pytest.approx(want.opening_realised_pnl, rel=1e-9, abs=1e-6)


def test_a_coarser_increment_that_does_not_divide_what_is_held_is_refused_and_changes_nothing() -> None:
    part = new_partition()
    feed(part, [trade("T1", "buy", "1.25", "10", T0, instrument="ACME")])
    before = part.state_hash()
    terms(part, "ACME", quantity_increment=Decimal(1))
    assert part.follow_terms() == [("A1", "ACME")]
    assert part.state_hash() == before and first(part).quantity == "1.25"


@pytest.mark.parametrize("changes", [{"currency": "EUR"}, {"settlement": "BTC"}, {"inverse": True, "asset_class": "future"}])
def test_another_contract_under_the_name_of_one_that_is_held_is_refused(changes: dict[str, Any]) -> None:
    part = new_partition()
    terms(part, "ACME", **changes)  # nothing is held: it is what it is
    part = new_partition()
    part.reference.is_held = lambda instrument: instrument == "ACME"
    with pytest.raises(ContractChangedError, match="expected those of the contract that is held"):
        terms(part, "ACME", **changes)
    assert part.reference.instrument_records["ACME"] == INSTRUMENTS["ACME"]
    assert isinstance(INSTRUMENTS["ACME"], Instrument)


def statement(source: str, instrument: str, quantity: int, ts: int | str, kind: Any = "start_of_day") -> External:
    return External(source=source, account="A", instrument=instrument, quantity=Decimal(quantity), ts_event=ts,
                    kind=kind)


def test_statements_under_shared_keys_are_found_and_the_newest_instant_of_each_fact_is_kept() -> None:
    found = Found()
    log = [(b"A", statement("PB", "X", 100, T0)), (b"A", statement("PB", "Y", 200, T0)),
           (b"A#roll", statement("ops", "*", 0, T0, "roll")), (b"A", statement("ops", "X", 0, T0, "reload"))]
    newer = statement("PB", "Y", 210, T0 + S)
    log += [(external_key(newer), newer)]
    for offset, (key, record) in enumerate(log):
        found.take(0, offset, key, encode(record))
    assert found.shared == {0: {b"A", b"A#roll"}}
    assert {k: (r.quantity, good) for k, (_, r, good) in found.newest.items()} == {
        b"PB|A|X|start_of_day": (100, False), b"PB|A|Y|start_of_day": (210, True), b"ops|A|*|roll": (0, False)}


@settings(max_examples=60)
@given(histories())
def test_the_store_adds_up_to_what_the_stage_holds(
        history: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> None:
    sent, _ = history
    part = new_partition(lateness_ns=FOREVER)
    statuses = feed(part, sent, 4)
    assert set(statuses) <= {tc.APPLIED, tc.DUPLICATE, tc.REF_UNKNOWN, tc.ID_REUSED, tc.BAD_QUANTITY}
    stored = live_quantities(StoredTrade(
        t["account"], t["instrument"], t["trade_id"], t.get("action") or "new", t.get("ref_trade_id") or "",
        Decimal(t["quantity"]) * (1 if t["side"] == "buy" else -1)) for t in sent)
    for record in part.records(np.arange(len(part.positions))):
        assert stored.get((record.account, record.instrument), Decimal(0)) == Decimal(record.quantity)
