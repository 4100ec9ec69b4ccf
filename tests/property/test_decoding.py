"""The byte scanners read the same values as msgspec, whatever a producer writes; the rest they leave to it."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import trade_columns as tc
from models.quote_columns import READ, decode_quotes
from models.trade_decode import decode_trades
from schemas.codec import FLAGGED_TICK_DTYPE, TICK_DTYPE, TICK_WITHDRAWN, pack_ticks, tick_decoder, trade_decoder
from schemas.reasons import QuarantineReason
from schemas.units import TS_END, TS_MIN, decimal_parts, format_ts_ns, parse_ts_ns
from tests.folding import reference

NAMES = st.one_of(st.text("ABCxyz019-_./|:", min_size=1, max_size=12), st.text(min_size=1, max_size=6))
NUMBERS = st.one_of(
    st.decimals("0.000001", "99999999", allow_nan=False, places=4).map(str),
    st.integers(1, 10**12), st.floats(0.001, 1e7), st.sampled_from(["1e3", "007", "1.50", "-3", "0", "", " 5", "1.", ".5",
                                                                    "NaN", "inf", 10**30, None, True, "1_000", "1\\u005f0", "\u0661", "\uff11\uff12", " 5 ", "1e999999999", "1" + 20_000 * "0"]))
TIMES = st.one_of(
    st.integers(1, 2**63 - 1), st.integers(TS_MIN, TS_END - 1), st.integers(10**18, 2 * 10**18).map(format_ts_ns),
    st.sampled_from(["2026-11-20T09:41:06.828Z", "2024-02-29T23:59:59Z", "2026-11-20T09:41:06+01:00", "2026-02-30T00:00:00Z",
                     "2026-11-20T09:41:06", "yesterday", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-05:00", "2555-06-01T00:00:00Z",
                     "2262-04-11T23:47:16.854775808Z", "2261-12-31T23:59:59.999999999Z", "1999-12-31T23:59:59Z", "2016-12-31T23:59:60Z",
                     1_795_000_000_000, 1_795_000_000_000_000, 0, -5, 2**63, 1.5, "2026-11-20T09:41:06.1234567891Z",
                     "2026-11-20t09:41:06.5z", None]))


@st.composite
def trade_bytes(draw: st.DrawFn) -> bytes:
    """A trade with any field odd, in any key order and spacing."""
    record: dict[str, Any] = {
        "trade_id": draw(NAMES), "account": draw(NAMES), "instrument": draw(NAMES),
        "side": draw(st.sampled_from(["buy", "sell", "BUY", "SELL", "Buy", "hold", None])),
        "quantity": draw(NUMBERS), "price": draw(NUMBERS), "ts_event": draw(TIMES)}
    optional = {"action": ["new", None, "correct", "zap"], "ref_trade_id": [None, "T-1", 5], "venue": ["V", None, 7, "é"],
                "order_id": [None, "O\"9", "O-1"], "fees": [None, [], [{"amount": "1.5", "currency": "USD"}], {}, [1]],
                "note": ["x", 5, None, {"a": [1, "}"]}, "a\\b", True, 1e5]}
    for key, values in optional.items():
        if draw(st.booleans()):
            record[key] = draw(st.sampled_from(values))
    for key in draw(st.lists(st.sampled_from(list(record)), max_size=1)):
        del record[key]
    items = draw(st.permutations(list(record.items())))
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t: ")]))
    text = json.dumps(dict(items), separators=separators, ensure_ascii=draw(st.booleans()))
    return (draw(st.sampled_from(["", " ", "\n"])) + text + draw(st.sampled_from(["", " ", "x", "}"]))).encode()


def expected_trade(raw: bytes) -> tuple[Any, ...] | None:
    """What msgspec and the border checks say of a record; None where it is poison."""
    try:
        t = trade_decoder.decode(raw)
        return (t.trade_id, t.account, t.instrument, 1 if t.side.lower() == "buy" else -1,
                _value(*decimal_parts(t.quantity, "quantity")), _value(*decimal_parts(t.price, "price")),
                parse_ts_ns(t.ts_event), {"new": 0, "correct": 1, "bust": 2}[t.action or "new"])
    except ValueError:  # msgspec's errors are ValueErrors too
        return None


def _value(mantissa: int, scale: int) -> Decimal:
    return Decimal(mantissa) / 10**scale


@given(st.lists(trade_bytes(), min_size=1, max_size=8))
def test_scanned_trades_are_what_msgspec_reads(raws: list[bytes]) -> None:
    decoded = decode_trades(list(raws))
    got: list[tuple[Any, ...] | None] = [None] * len(raws)
    for i, row in enumerate(decoded.rows):
        if row["status"] != tc.POISON:
            got[int(decoded.messages[i])] = (
                decoded.text(i, "id"), decoded.text(i, "account"), decoded.text(i, "instrument"), int(row["side"]),
                _value(int(row["quantity"]), int(row["quantity_scale"])), _value(int(row["price"]), int(row["price_scale"])),
                int(row["ts_event"]), int(row["action"]))
    want = [expected_trade(raw) for raw in raws]
    assert got == want
    assert sorted(p.message for p in decoded.poison) == [i for i, w in enumerate(want) if w is None]
    assert all(p.detail for p in decoded.poison)


@given(st.lists(st.fixed_dictionaries(
    {"instrument": st.sampled_from(["EURUSD", "ACME", "??", "É"]), "ts_event": TIMES},
    optional={"bid": NUMBERS, "ask": NUMBERS, "last": NUMBERS, "source": st.sampled_from(["LP1", None, "é", 5]),
              "bid_size": NUMBERS, "x": st.just([1])}), min_size=1, max_size=6))
def test_scanned_ticks_are_what_msgspec_reads(ticks: list[dict[str, Any]]) -> None:
    arrays = reference().arrays()
    raws = [json.dumps(t).encode() for t in ticks]
    rows = decode_quotes(list(raws), arrays.instruments, arrays.instrument_known).rows
    for raw, row in zip(raws, rows, strict=True):
        try:
            tick = tick_decoder.decode(raw)
            want = [np.nan if v is None else float(v) for v in (tick.bid, tick.ask, tick.last)]
            for value in (tick.bid, tick.ask, tick.last):
                if value is not None:
                    decimal_parts(value, "price")
            ts = parse_ts_ns(tick.ts_event)
        except ValueError:
            assert row["status"] not in (READ, 3), raw
            continue
        np.testing.assert_allclose([row[n] for n in ("bid", "ask", "last")], want, rtol=1e-15)
        assert int(row["ts_event"]) == ts
        given = json.loads(raw)
        assert row["withdrawn"] == all(side in given and given[side] is None for side in ("bid", "ask"))
        assert (row["status"] == READ) == (tick.instrument in ("EURUSD", "ACME"))


@given(st.lists(st.tuples(st.sampled_from([b"EURUSD", b"NOPE", b""]), st.integers(TS_MIN, TS_END - 1),
                          st.floats(width=64), st.floats(width=64)), max_size=20))
def test_packed_ticks_come_back_as_they_were(rows: list[tuple[bytes, int, float, float]]) -> None:
    block = np.zeros(len(rows), TICK_DTYPE)
    for i, (name, ts, bid, ask) in enumerate(rows):
        block[i] = (name, ts, bid, ask, np.nan)
    arrays = reference().arrays()
    got = decode_quotes([pack_ticks(block)], arrays.instruments, arrays.instrument_known)
    assert len(got.rows) == len(rows) and got.unknown == sum(r[0] != b"EURUSD" for r in rows)
    np.testing.assert_array_equal(got.rows["bid"], block["bid"])


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.floats(1, 9), st.booleans()), max_size=12))
def test_packed_ticks_of_both_versions_say_what_json_says(rows: list[tuple[int, bool, float, bool]]) -> None:
    """A message of either version, or JSON; its quotes stand, or are withdrawn (version 1 cannot say that)."""
    values, want = list[bytes](), list[tuple[float, bool]]()
    for form, withdrawn, price, pair in rows:
        if form == 0:
            sides = '"bid":null,"ask":null' if withdrawn else f'"bid":{price!r},"ask":{price!r}'
            values.append(f'{{"instrument":"EURUSD","ts_event":{TS_MIN},{sides}}}'.encode())
            pair = False
        else:
            block = np.zeros(1 + pair, TICK_DTYPE if form == 1 else FLAGGED_TICK_DTYPE)
            block["instrument"], block["ts_event"], block["bid"], block["ask"] = b"EURUSD", TS_MIN, price, price
            if form > 1:
                block["flags"] = (TICK_WITHDRAWN if withdrawn else 0) | (form == 3) << 5
            values.append(pack_ticks(block))
        gone = withdrawn and form != 1
        want += [(np.nan if gone else price, gone)] * (1 + pair)
    arrays = reference().arrays()
    got = decode_quotes(values, arrays.instruments, arrays.instrument_known)
    assert not got.poison
    np.testing.assert_allclose(got.rows["bid"], [w for w, _ in want], rtol=1e-15)
    np.testing.assert_array_equal(got.rows["withdrawn"] != 0, [gone for _, gone in want])


def test_arrays_nulls_and_poison_keep_their_places() -> None:
    good = b'{"trade_id":"T","account":"A1","instrument":"EURUSD","side":"buy","quantity":1,"price":2,"ts_event":1795000000000000000}'
    values = [good, None, b"[" + good + b"," + good + b"]", b"", b"[1]", b"[", b"\xff\xfe", b"x" * (9 << 20), good]
    decoded = decode_trades(values)
    assert decoded.messages.tolist()[:1] == [0] and decoded.messages.tolist()[-1] == 8
    assert decoded.indices[(decoded.messages == 2)].tolist() == [0, 1]
    reasons = {p.message: p.reason for p in decoded.poison}
    assert reasons == {1: QuarantineReason.NULL_VALUE, 3: QuarantineReason.NOT_JSON, 4: QuarantineReason.BAD_FIELD,
                       5: QuarantineReason.NOT_JSON, 6: QuarantineReason.NOT_JSON, 7: QuarantineReason.TOO_LARGE}
    assert (decoded.rows["status"] == tc.READ).sum() == 4


@pytest.mark.parametrize(("message", "text"), [
    (b"DRT1", "at least 8 bytes"), (b"DRT1\x05\x00\x00\x00", "expected 288 bytes for 5 rows"),
])
def test_broken_blocks_are_refused_by_name(message: bytes, text: str) -> None:
    arrays = reference().arrays()
    got = decode_quotes([message], arrays.instruments, arrays.instrument_known)
    assert got.poison[0][1] is QuarantineReason.BAD_BINARY and text in got.poison[0][2]


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("depth", [600, 5_000])
def test_a_record_that_is_nested_too_deep_costs_its_neighbours_nothing(opening: bytes, depth: int) -> None:
    """A few kilobytes of brackets: alone, in a field that nobody knows, in one that is to be a number."""
    deep = opening * depth + (b"" if opening == b"[" else b"1") + (b"]" if opening == b"[" else b"}") * depth
    trade = b'{"trade_id":"%d","account":"A","instrument":"EURUSD","side":"buy","quantity":"1","price":"1","ts_event":1795000000000000000}'
    trades = decode_trades([trade % 1, deep, (trade % 2)[:-1] + b',"more":' + deep + b"}", (trade % 3).replace(b'"quantity":"1"', b'"quantity":' + deep), trade % 4])
    assert {1, 3} <= {p.message for p in trades.poison} <= {1, 2, 3} and all(p.detail for p in trades.poison)
    statuses = dict(zip(trades.messages.tolist(), trades.rows["status"].tolist(), strict=True))
    assert statuses[0] == statuses[4] == tc.READ
    arrays, tick = reference().arrays(), b'{"instrument":"EURUSD","ts_event":1795000000000000000,"bid":"1","ask":"2"}'
    quotes = decode_quotes([tick, deep, tick[:-1] + b',"more":' + deep + b"}", tick.replace(b'"bid":"1"', b'"bid":' + deep), tick], arrays.instruments, arrays.instrument_known)
    assert len(quotes.poison) in (2, 3) and (quotes.rows["status"] == READ).sum() >= 2
