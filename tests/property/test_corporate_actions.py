"""Splits, cash dividends and receipts: whenever they come, the log comes to what it would have in the units after."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import position_order as order
from models import trade_columns as tc
from models.naive_fold import NaiveBook
from models.reference import unit_value
from schemas.codec import decoder_of, trade_decoder
from schemas.corporate import CorporateAction
from schemas.records import Instrument, Position
from tables.position_partition import PositionPartition
from tests.folding import ACCOUNTS, INSTRUMENTS, close, feed, new_partition, trade
from tests.property.test_history_with_statements import assert_openings, records
from tests.property.test_rewritten_history import FOREVER, T0, assert_same, histories

S = 1_000_000_000
NOW = T0 + 10**15
NAMES = ["EURUSD", "ACME", "FUT", "QUANTO"]


def action(name: str, instrument: str, ts: int, ratio: str | None = None, amount: str | None = None) -> CorporateAction:
    said = {"ratio": ratio} if ratio else {"amount": amount, "currency": "USD"}
    return decoder_of(CorporateAction).decode(json.dumps({
        "action_id": name, "instrument": instrument, "kind": "split" if ratio else "cash_dividend", "effective_ts": ts,
        **said}).encode())


@st.composite
def actions(draw: st.DrawFn) -> list[CorporateAction]:
    """Return some actions; two of one time and instrument would ask which came first."""
    out: dict[tuple[str, int], CorporateAction] = {}
    for i in range(draw(st.integers(1, 4))):
        name, ts = draw(st.sampled_from(NAMES)), T0 + draw(st.integers(0, 41)) * S
        ratio = draw(st.sampled_from(["4", "2", "0.1", "1.5", "0.25", None]))
        out.setdefault((name, ts), action(f"CA{i}", name, ts, ratio, None if ratio else "0.35"))
    return list(out.values())


def take(part: PositionPartition, *records: CorporateAction) -> None:
    for record in records:
        part.reference.add_action(record)
    part.reference.turn(NOW)
    assert part.follow_terms() == [] and not part.behind


def book_of(trades: list[dict[str, Any]], done: list[CorporateAction], lateness_ns: int = FOREVER) -> NaiveBook:
    said: dict[str, Any] = {}
    for r in done:
        said.setdefault(r.instrument, []).append((int(r.effective_ts), r.ratio, r.amount, r.currency or ""))
    book = NaiveBook({n: i.inverse for n, i in INSTRUMENTS.items()}, lateness_ns, actions=said)
    for t in trades:
        book.apply(trade_decoder.decode(json.dumps(t).encode()))
    return book


def assert_as_the_book(part: PositionPartition, book: NaiveBook) -> None:
    got = records(part)
    for key in book.fills:
        want, row, instrument = book.position(*key), got[key], INSTRUMENTS[key[1]]
        value = float(unit_value(instrument)) * 10 ** (2 if key[1] == "ACME" else 0)
        assert Decimal(row.quantity) == want.quantity, key
        close(row.realised_pnl or 0.0, float(want.realised) * value, 1e5 * value)
        if want.quantity:
            close(row.average_price or 0.0, float(want.average), 1e4)
        for currency in row.funding.keys() | want.funding.keys():
            close(row.funding.get(currency, 0.0), float(want.funding.get(currency, 0)), 1e5)


@settings(max_examples=50)
@given(histories(), actions(), st.lists(st.integers(0, 30), min_size=4, max_size=4), st.sampled_from([1, 5]))
def test_whenever_an_action_comes_the_log_comes_to_the_same(
        history: tuple[list[dict[str, Any]], list[dict[str, Any]]], done: list[CorporateAction], places: list[int],
        batch: int) -> None:
    sent, final = history
    early, later = new_partition(lateness_ns=FOREVER), new_partition(lateness_ns=FOREVER)
    take(early, *done)
    feed(early, final)
    for account in ACCOUNTS:
        early.roll(account, T0 + 20 * S)
    at = 0
    for record, place in zip(done, sorted(places), strict=False):
        feed(later, sent[at : max(place, at)], batch, at)
        at = max(place, at)
        take(later, record)
    for account in ACCOUNTS:
        later.roll(account, T0 + 20 * S)
    feed(later, sent[at:], batch, at)
    assert_same(records(later), records(early))
    assert_openings(records(later), records(early))
    assert_as_the_book(later, book_of(sent, done))
    changelog = {k: v for k, v in later.whole() if v is not None}
    restored = PositionPartition(0, later.reference, 262_144, FOREVER)
    restored.restore(changelog)
    assert restored.follow_terms() == [] and restored.state_hash() == later.state_hash()


@settings(max_examples=25)
@given(histories(), actions())
def test_an_action_that_is_withdrawn_was_none(history: tuple[list[dict[str, Any]], list[dict[str, Any]]],
                                              done: list[CorporateAction]) -> None:
    sent, _ = history
    plain, part = new_partition(lateness_ns=FOREVER), new_partition(lateness_ns=FOREVER)
    feed(plain, sent)
    feed(part, sent[:10])
    take(part, *done)
    feed(part, sent[10:], first_offset=10)
    for r in done:
        part.reference.withdraw_action(r.instrument, r.action_id)
    assert part.follow_terms() == []
    strip = {"revision": 0, "as_of": None}
    assert [msgspec.structs.replace(r, **strip) for r in records(part).values()] == [
        msgspec.structs.replace(r, **strip) for r in records(plain).values()]


def first(part: PositionPartition) -> Position:
    return part.records(np.array([0]))[0]


def test_a_split_restates_what_was_traded_before_late_fills_and_busts_too() -> None:
    part = new_partition()
    buy = trade("T1", "buy", "10", "400", T0, instrument="ACME")
    feed(part, [buy])
    take(part, action("CA1", "ACME", T0 + 10 * S, "4"))
    feed(part, [trade("T2", "sell", "32", "110", T0 + 20 * S, instrument="ACME")])
    assert (first(part).quantity, first(part).average_price, first(part).realised_pnl) == ("8", 100.0, 320.0)
    assert feed(part, [trade("T3", "buy", "1", "404", T0 + 9 * S, instrument="ACME")]) == [tc.LATE]
    assert first(part).quantity == "12"
    assert feed(part, [buy]) == [tc.DUPLICATE], "a repeat says what it said, in the units of then"
    feed(part, [buy | {"trade_id": "B", "action": "bust", "ref_trade_id": "T1"}])
    assert (first(part).quantity, first(part).average_price) == ("-28", 110.0)


def test_a_split_that_comes_after_a_later_dividend_changes_what_that_was_paid_on() -> None:
    part = new_partition()
    feed(part, [trade("T1", "buy", "10", "400", T0, instrument="ACME")])
    dividend, split = action("CA1", "ACME", T0 + 20 * S, amount="0.5"), action("CA2", "ACME", T0 + 10 * S, "4")
    take(part, dividend)
    assert first(part).funding == {"USD": -5.0}
    take(part, split)
    assert (first(part).quantity, first(part).funding) == ("40", {"USD": -20.0})
    part.reference.withdraw_action("ACME", "CA2")
    assert part.follow_terms() == [] and (first(part).quantity, first(part).funding) == ("10", {"USD": -5.0})
    take(part, action("CA3", "ACME", T0 + 30 * S, "2"))
    assert first(part).funding == {"USD": -5.0}, "a later one leaves it"


def test_a_split_and_a_dividend_hold_after_the_window_let_their_fills_go() -> None:
    part = new_partition()
    take(part, action("CA1", "ACME", T0 + 10 * S, "4"), action("CA2", "ACME", T0 + 20 * S, amount="0.5"))
    feed(part, [trade("T1", "buy", "10", "400", T0, instrument="ACME"),
                trade("T2", "sell", "8", "110", T0 + 30 * S, instrument="ACME")])
    assert (first(part).quantity, first(part).funding) == ("32", {"USD": -20.0})
    order.evict_oldest(part.positions.arrays, 2)
    late = trade("T3", "buy", "1", "404", T0 + 5 * S, instrument="ACME")
    assert feed(part, [late]) == [tc.LATE]
    assert (first(part).quantity, first(part).funding) == ("36", {"USD": -22.0})
    feed(part, [late | {"trade_id": "B", "action": "bust", "ref_trade_id": "T3"}])
    assert (first(part).quantity, first(part).funding) == ("32", {"USD": -20.0})
    part.reference.add_action(action("CA3", "ACME", T0 + 25 * S, "2"))
    assert part.follow_terms() == [] and part.behind == {("A1", "ACME")}, "the log alone can say what it was then"


def test_what_is_to_come_is_not_in_force_and_says_when() -> None:
    part = new_partition()
    part.reference.turn(T0)
    feed(part, [trade("T1", "buy", "10", "400", T0, instrument="ACME")])
    part.reference.add_action(action("CA1", "ACME", T0 + 10 * S, "4"))
    part.follow_terms()
    assert first(part).quantity == "10" and part.reference.actions.next_ns == T0 + 10 * S
    assert part.reference.turn(T0 + 10 * S - 1) == [] and part.reference.turn(T0 + 10 * S) == ["ACME"]
    part.follow_terms()
    assert (first(part).quantity, first(part).average_price) == ("40", 100.0)


@pytest.mark.parametrize(("fields", "said"), [
    ({"kind": "split"}, "ratio: expected one"), ({"kind": "split", "ratio": "0"}, "ratio: expected a number above 0"),
    ({"kind": "split", "ratio": "-2"}, "above 0"), ({"kind": "split", "ratio": "0.3333333"}, "at most 6 decimals"),
    ({"kind": "split", "ratio": "2", "amount": "1"}, "amount: expected none"),
    ({"kind": "cash_dividend", "amount": "1"}, "currency: expected one"),
    ({"kind": "cash_dividend", "amount": "1", "currency": "USD", "ratio": "2"}, "ratio: expected none"),
    ({"kind": "spin_off"}, "kind"), ({"kind": "split", "ratio": "2", "effective_ts": "9999-12-31T00:00:00Z"}, "effective_ts")])
def test_an_action_that_says_too_much_or_too_little_is_refused(fields: dict[str, Any], said: str) -> None:
    raw = json.dumps({"action_id": "CA", "instrument": "X", "effective_ts": T0, **fields}).encode()
    with pytest.raises(msgspec.ValidationError, match=said):
        decoder_of(CorporateAction).decode(raw)


def test_a_receipt_is_at_no_cost_and_a_plain_trade_at_nothing_is_refused() -> None:
    part = new_partition()
    gift = trade("R1", "buy", "10", "0", T0, instrument="ACME", action="receipt")
    assert feed(part, [gift | {"trade_id": "T0", "action": "new"}, gift, gift]) == [
        tc.BAD_PRICE, tc.APPLIED, tc.DUPLICATE]
    assert (first(part).average_price, first(part).fifo.average_price, first(part).break_even_price) == (0.0, 0.0, 0.0)
    fixed = gift | {"trade_id": "C", "action": "correct", "ref_trade_id": "R1", "quantity": "12"}
    assert feed(part, [fixed, trade("T1", "sell", "10", "5", T0 + S, instrument="ACME")]) == [tc.APPLIED] * 2
    assert (first(part).quantity, first(part).realised_pnl) == ("2", 50.0)
    bad = [gift | {"trade_id": "X", "price": "1"}, gift | {"trade_id": "Y", "side": "sell"},
           gift | {"trade_id": "Z", "instrument": "INV"}]
    assert feed(part, bad) == [tc.POISON, tc.POISON, tc.BAD_PRICE]


@pytest.mark.parametrize(("closed", "want"), [("2027-01-14", "100"), ("2027-01-15", None), (None, "100")])
def test_a_prior_close_of_before_a_split_is_restated_once(closed: str | None, want: str | None) -> None:
    part = new_partition()
    split = T0 + 10**9 * 3600  # 15 January 2027, 09:00
    part.reference.turn(split)
    part.reference.add_action(action("CA1", "ACME", split, "4"))
    record = Instrument(instrument="ACME", asset_class="equity", currency="USD", prior_close=Decimal(400),
                        prior_close_date=closed)
    found = part.reference.actions.close_of(record)
    assert (None if found is None else str(found.prior_close)) == want
    if found is not None:
        assert part.reference.actions.close_of(found) is None
