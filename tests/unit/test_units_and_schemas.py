"""Times, decimals, JSON Schema and topics: what outsiders rely on."""

from __future__ import annotations

import json
from decimal import Decimal

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import RECORDS, decoder_of, encode, json_schemas, records_in, split_array, trade_decoder
from schemas.reasons import QUARANTINE_MEANING, QUARANTINE_REMEDY, QuarantineReason
from schemas.records import Instrument
from schemas.topics import TOPICS
from schemas.units import TS_END, TS_MIN, decimal_parts, format_ts_ns, parse_ts_ns
from tables.position_partition import decimal_text

TRADE = {"trade_id": "T-1", "account": "FX1-001", "instrument": "EURUSD", "side": "buy", "quantity": "2000000",
         "price": "1.08420", "ts_event": "2026-11-20T09:41:06.828Z", "action": "new", "ref_trade_id": None,
         "order_id": "O-9", "trader": "trader-7", "counterparty": "BANKX", "venue": "EBS",
         "fees": [{"amount": "12.5", "currency": "USD"}], "unknown": {"is": "ignored"}}


@given(st.integers(TS_MIN, TS_END - 1))
def test_times_come_back(ns: int) -> None:
    assert parse_ts_ns(ns) == ns
    assert parse_ts_ns(format_ts_ns(ns)) == ns


@pytest.mark.parametrize("bad", ["", "2026", "2026-11-20T09:41:06", -1, 0, 2**63, "2026-13-01T00:00:00Z"])
def test_bad_times_are_refused_with_field_and_value(bad: object) -> None:
    with pytest.raises(ValueError, match="ts_event: expected"):
        parse_ts_ns(bad)  # type: ignore[arg-type]


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-10**11, max_value=10**11))
def test_decimals_are_exact(value: Decimal) -> None:
    mantissa, scale = decimal_parts(value, "quantity")
    assert Decimal(mantissa).scaleb(-scale) == value


@given(st.integers(-(2**62), 2**62), st.integers(0, 12))
def test_counted_units_print_as_the_decimal_they_are(units: int, decimals: int) -> None:
    assert Decimal(decimal_text(units, decimals)) == Decimal(units).scaleb(-decimals)


def test_numbers_and_strings_carry_the_same_decimal() -> None:
    as_text = trade_decoder.decode(json.dumps(TRADE).encode())
    as_number = trade_decoder.decode(json.dumps(TRADE | {"quantity": 2000000, "price": 1.0842}).encode())
    assert as_text.price == as_number.price == Decimal("1.0842") and as_text.quantity == as_number.quantity


def test_the_schema_accepts_what_the_contract_shows_and_refuses_the_rest() -> None:
    schemas = json_schemas()
    assert set(schemas) == set(RECORDS)
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schemas["Trade"])
    validator.validate(TRADE)
    validator.validate(TRADE | {"quantity": 5})
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({k: v for k, v in TRADE.items() if k != "account"})


def test_records_survive_their_own_encoding() -> None:
    instrument = Instrument(instrument="X", asset_class="bond", currency="EUR", coupon=Decimal("2.125"))
    assert decoder_of(Instrument).decode(encode(instrument)) == instrument


def test_arrays_split_without_reading_the_records() -> None:
    assert split_array(b'[{"a":1}, 2 ]') == [b'{"a":1}', b"2"]
    assert records_in(b' [{"a":1}]') == [b'{"a":1}'] and records_in(b'{"a":[1]}') == [b'{"a":[1]}']


def test_every_reason_has_a_meaning_and_every_topic_a_help() -> None:
    assert set(QUARANTINE_MEANING) == set(QUARANTINE_REMEDY) == set(QuarantineReason)
    assert all(t.help and t.key for t in TOPICS) and len({t.name for t in TOPICS}) == len(TOPICS)
