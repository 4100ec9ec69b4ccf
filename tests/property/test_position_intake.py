"""Positions taken in by the kernel are those that msgspec and the plain way give, record by record, whatever comes."""

from __future__ import annotations

import struct
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.float_scan import read_double
from models.jit import kernel
from models.position_scan import FLOAT_AT, INTEGER_AT, READ, TEXT_AT, UNREAD, scan_positions
from models.record_scan import ByteRows
from models.valued_book import ValuedBook
from schemas.codec import decoder_of, encode
from schemas.numbers import TS_END
from schemas.records import AsOf, Fifo, Instrument, Position
from tests.property.test_rollup import INSTRUMENTS, LEVELS, account, mark, position

_decode = decoder_of(Position).decode
BOND = Instrument(instrument="BND", asset_class="bond", currency="EUR", coupon=Decimal("0.03"), frequency=2,
                  day_count="ACT/ACT", maturity="2031-02-15", prior_close=Decimal(99))
FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.one_of(st.sampled_from(["", "A1", "USD", "desk 7"]), st.text(max_size=12))
AMOUNTS = st.dictionaries(st.sampled_from(["USD", "EUR", "BTC", "", "USDT2345", "NINECHARS", "ABCDEFGHIJ12", "£"]), FINITE, max_size=5)
# as the fields of the record are bounded
INT64, STAMPS = st.integers(-(2**63) + 1, 2**63 - 1), st.integers(0, TS_END - 1)
NUMBERS = st.one_of(
    st.decimals(-10**22, 10**22, places=4).map(lambda d: f"{d:f}"), st.integers(-10**21, 10**21).map(str))
POSITIONS = st.builds(
    Position, account=TEXTS, instrument=TEXTS, quantity=NUMBERS, average_price=st.one_of(st.none(), FINITE),
    realised_pnl=FINITE, fees=AMOUNTS, currency=TEXTS, trades=INT64, last_ts_event=STAMPS,
    fifo=st.builds(Fifo, FINITE, st.one_of(st.none(), FINITE), INT64, st.booleans()),
    break_even_price=st.one_of(st.none(), FINITE), as_of=st.builds(AsOf, INT64, INT64), revision=INT64,
    working_buy=st.one_of(st.none(), NUMBERS), working_sell=st.one_of(st.none(), NUMBERS), opening_quantity=NUMBERS, opening_price=st.one_of(st.none(), FINITE), opening_realised_pnl=FINITE,
    opening_fees=AMOUNTS, funding=AMOUNTS, opening_funding=AMOUNTS, opening_ts=STAMPS,
    opening_kind=st.sampled_from(["none", "statement", "roll"]), stated=st.booleans(), late_trades=INT64, book=TEXTS,
    desk=TEXTS, strategy=TEXTS, fund=TEXTS, ts_source=INT64)


@kernel
def read_all(buf: np.ndarray, starts: np.ndarray, ends: np.ndarray, bits: np.ndarray, read: np.ndarray) -> None:
    """Read numbers that lie one after the other."""
    for k in range(len(starts)):
        at, bits[k] = read_double(buf, starts[k], ends[k])
        read[k] = at == ends[k]


def doubles(texts: list[str]) -> tuple[list[bytes], np.ndarray]:
    """Return the bytes of each number, and which were read."""
    rows = ByteRows.of([t.encode() for t in texts])
    bits, read = np.zeros(len(texts), np.uint64), np.zeros(len(texts), np.uint8)
    read_all(rows.buffer, rows.starts, rows.ends, bits, read)
    return [struct.pack("<Q", b) for b in bits.tolist()], read != 0


HALFWAY = st.builds(lambda odd, shift, five: f"{((2**52 + odd) * 2 + 1 << shift) * 5**five}e-{five}",
                    st.integers(0, 2**52 - 1), st.integers(0, 9), st.integers(0, 3))


@given(st.lists(st.one_of(FINITE.map(repr), st.floats(-1e9, 1e9).map(repr), HALFWAY, st.decimals(
    allow_nan=False, allow_infinity=False).map(lambda d: f"{d:f}"[:30]), st.integers().map(str)), min_size=1, max_size=40))
def test_a_number_is_the_nearest_double_or_is_left(texts: list[str]) -> None:
    texts = [t.rstrip(".") for t in texts]
    for text, found, read in zip(texts, *doubles(texts), strict=True):
        assert not read or found == struct.pack("<d", float(text)), text


def test_every_price_and_amount_there_is_can_be_read() -> None:
    rng = np.random.default_rng(11)
    values = [float(v) for v in rng.normal(size=20_000) * 10.0 ** rng.integers(-9, 14, 20_000)]
    found, read = doubles([repr(v) for v in values])
    assert read.all() and found == [struct.pack("<d", v) for v in values]


@pytest.mark.parametrize("text", ["", "-", "01", "1.", ".5", "1e", "1e+", "+1", "NaN", "Infinity", "1e400", "1e-400",
                                  "0x10", "1_000", "12345678901234567890", " 1"])
def test_what_is_no_number_or_too_long_is_left(text: str) -> None:
    assert not doubles([text])[1].any()


@given(st.lists(POSITIONS, min_size=1, max_size=5))
def test_what_the_scanner_reads_is_what_msgspec_reads(records: list[Position]) -> None:
    values = [encode(r) for r in records]
    rows = ByteRows.of(values)
    found = scan_positions(rows)
    for k, record in enumerate(_decode(v) for v in values):
        plain = all(t.isascii() and t.isprintable() and not set(t) & set('"\\') for t in (
            record.account, record.instrument, record.currency, record.book, record.desk, record.strategy, record.fund))
        if found.status[k] == UNREAD:
            names = {n for a in (record.fees, record.opening_fees, record.funding, record.opening_funding) for n in a}
            assert not plain or names & {"", "NINECHARS", "ABCDEFGHIJ12", "£"} or _long_or_far(record), record
            continue
        for name, at in FLOAT_AT.items():
            want = _of(record, name)
            want = float("nan") if want is None else float(want)
            assert found.floats[k, at] == want or (want != want and np.isnan(found.floats[k, at])), name
        for name, at in INTEGER_AT.items():
            assert found.integers[k, at] == _of(record, name), name
        for name, at in TEXT_AT.items():
            begin, end = found.texts[k, at]
            assert rows.buffer[begin:end].tobytes().decode() == (getattr(record, name) or ""), name
        amounts = sorted(zip(found.amount_field[k].tolist(), found.amount_code[k].tolist(), found.amount[k].tolist(),
                             strict=True))[: found.amount_count[k]] if found.amount_count[k] == len(found.amount[k]) else None
        assert amounts is None or len(amounts) == sum(map(len, (record.fees, record.opening_fees, record.funding,
                                                                record.opening_funding)))


def _of(record: Any, path: str) -> Any:
    for name in path.split("."):
        record = getattr(record, name)
    return record


def _long_or_far(record: Position) -> bool:
    """Whether a record has numbers of more than 19 digits, powers that no price has, or more amounts than fit."""
    numbers = [_of(record, name) for name in FLOAT_AT] + [
        v for a in (record.fees, record.opening_fees, record.funding, record.opening_funding) for v in a.values()]
    sizes = [abs(float(v)) for v in numbers if v is not None]
    return (any(v and not 1e-25 < v < 1e20 for v in sizes)
            or any(len(t.lstrip("-0.").replace(".", "")) > 18 for t in (record.quantity, record.opening_quantity))
            or any(_of(record, n) == -(2**63) for n in INTEGER_AT)
            or sum(map(len, (record.fees, record.opening_fees, record.funding, record.opening_funding))) > 12)


@pytest.mark.parametrize(("change", "why"), [
    (lambda r: r.replace(b'"trades":1', b'"trades":"x"'), "no number"), (lambda r: r[:-1], "cut off"),
    (lambda r: r + b"}", "too long"), (lambda r: r.replace(b'"stated":false', b'"stated":0'), "no truth"),
    (lambda r: r.replace(b'"none"', b'"nope"'), "no kind of opening"),
    (lambda r: r.replace(b'"account":"A1"', b'"account":null'), "null where there is a name"),
    (lambda r: r.replace(b'"working_buy":null', b'"working_buy":nil '), "another word than null"),
    (lambda r: r.replace(b'"revision":1', b'"revision":null'), "nothing where a number must be"),
    (lambda r: r.replace(b'"USD":1.0', b'"USD":1.0,"USD":2.0'), "the same currency twice"),
    (lambda r: r.replace(b'"trades":1', b'"trades": 1'), "written by somebody else"),
    (lambda r: r.replace(b'"late_trades":0', b'"late_trades":0,"later_field":0'), "another version")])
def test_what_is_not_written_as_we_write_it_is_left_to_msgspec(change: Any, why: str) -> None:
    record = encode(msgspec.structs.replace(position("A1", "SAP", 5.0, 100.0, 0.0, 1), fees={"USD": 1.0}))
    assert scan_positions(ByteRows.of([record])).status.tolist() == [READ]
    changed = change(record)
    assert changed != record and scan_positions(ByteRows.of([changed])).status.tolist() == [UNREAD], why


def book_of() -> ValuedBook:
    """Return a book with marks, and accounts under six books."""
    book = ValuedBook("USD", LEVELS)
    for record in (*INSTRUMENTS, BOND):
        book.add_instrument(record)
    for k in range(4):
        book.add_account(account(f"A{k}", k))
    for name, mid in (("EURUSD", 1.1), ("USDJPY", 150.0), ("SAP", 110.0), ("FUT", 51.0), ("INV", 41_000.0), ("BTCUSD", 4e4),
                      ("BND", 99.5)):
        book.add_mark(mark(name, mid))
    return book


RECORDS = st.builds(
    lambda name, instrument, quantity, average, offset, more: msgspec.structs.replace(
        position(name, "SAP" if instrument == "BND" else instrument, quantity, average, average / 3, offset),
        instrument=instrument, revision=offset % 3, **more),
    st.sampled_from(["A0", "A1", "A2", "A9"]), st.sampled_from(["SAP", "INV", "USDJPY", "BND"]),
    st.floats(-1e6, 1e6).map(lambda x: round(x, 2)), st.floats(0.5, 5e4), st.integers(1, 9),
    st.fixed_dictionaries({}, optional={
        "fees": st.dictionaries(st.sampled_from(["USD", "EUR", "JPY", "NOK", "1000SATS2345", "1000SATS2346"]), st.floats(-9, 9), max_size=4),
        "opening_fees": st.dictionaries(st.sampled_from(["USD", "EUR"]), st.floats(-9, 9)),
        "funding": st.dictionaries(st.sampled_from(["USD", "BTC", "EUR"]), st.floats(-9, 9)),
        "opening_quantity": st.sampled_from(["0", "3", "-2.5"]), "opening_price": st.sampled_from([None, 99.0]),
        "opening_ts": st.sampled_from([0, 10**18, 2 * 10**18]), "currency": st.sampled_from(["USD", "EUR", "1000SATS2345"]),
        "book": st.sampled_from(["B0", "B7"]), "ts_source": st.integers(0, 99)}))
SLICES = st.lists(st.one_of(
    st.lists(st.one_of(RECORDS, RECORDS, st.none(), st.just(b"{}")), max_size=12),
    st.tuples(st.just("remove"), st.sampled_from(["A0|SAP", "A1|INV"])),
    st.tuples(st.just("move"), st.integers(0, 3), st.integers(0, 9)), st.just("day")), max_size=12)


@given(SLICES)
def test_slices_give_the_book_that_single_records_give(slices: list[Any]) -> None:
    fast, plain, day = book_of(), book_of(), 1_790_000_000_000_000_000
    said: dict[tuple[str, str, int], Position] = {}  # of one offset of the log a position says one thing
    for event in slices:
        if event == "day":
            day += 86_400_000_000_000
            fast.revalue(day)
            plain.revalue(day)
        elif isinstance(event, tuple):
            for book in (fast, plain):
                if event[0] == "remove":
                    book.remove(event[1])
                else:
                    book.add_account(account(f"A{event[1]}", event[2]))
        else:
            values = [v if v is None or isinstance(v, bytes)
                      else encode(said.setdefault((v.account, v.instrument, v.as_of.offset), v)) for v in event]
            taken = fast.add_positions(values, 3)
            assert [k for k, _ in taken.refused] == [k for k, v in enumerate(values) if v == b"{}"]
            for value in values:
                if value is not None and value != b"{}":
                    plain.add_position(_decode(value), 3)
            n = plain.rollup.count
            assert fast.names == plain.names and fast.as_of == plain.as_of and fast._pending == plain._pending
            for name in plain.rollup.rows.dtype.names:
                np.testing.assert_array_equal(fast.rollup.rows[name][:n], plain.rollup.rows[name][:n], name)
            filled = plain.rollup.paid["currency"][:n] >= 0
            np.testing.assert_array_equal(fast.rollup.paid["currency"][:n] >= 0, filled)
            for name in plain.rollup.paid.dtype.names:
                np.testing.assert_array_equal(fast.rollup.paid[name][:n][filled], plain.rollup.paid[name][:n][filled])
            assert list(fast.positions) == list(plain.positions)
        fast.value_pending()
        plain.value_pending()
        n = plain.rollup.count
        np.testing.assert_array_equal(fast.rollup.contribution[:n], plain.rollup.contribution[:n])
        scale = max(1.0, float(np.abs(plain.rollup.contribution[:n]).sum()))
        np.testing.assert_allclose(fast.rollup.nodes, plain.rollup.nodes, rtol=0, atol=1e-12 * scale)  # sums in another order


def test_what_stays_in_its_place_goes_the_fast_way() -> None:
    book = book_of()
    names = [(f"A{k}", i) for k in range(4) for i in ("SAP", "INV", "USDJPY", "BND")]

    def slice_of(rev: int) -> list[bytes | None]:
        return [encode(msgspec.structs.replace(position(a, "SAP" if i == "BND" else i, rev, 1.0 + rev / 3, 0.1, rev),
                                               instrument=i)) for a, i in names]
    assert len(book.add_positions(slice_of(1)).filled) == len(names)
    taken = book.add_positions(slice_of(2))
    assert taken.filled == [] and len(taken.rows) == len(names), "a way that nothing goes is not tested above"
    again, old = book.add_positions(slice_of(2)), book.add_positions(slice_of(1))
    assert len(again.rows) == len(names) and len(old.rows) == 0 and old.filled == []
    assert book.positions[3].quantity == "2" and book.offset_of(3) == 2
