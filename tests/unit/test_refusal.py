"""A refused record says its field, what it was and what was expected."""

import msgspec
import pytest

from schemas.codec import decoder_of, records_in
from schemas.records import Order, Trade
from schemas.refusal import SHOWN, refusal

ORDER = {"order_id": "a", "account": "A", "trader": "t", "instrument": "I", "side": "buy", "type": "limit", "quantity": "1", "price": "2", "ts_event": 1}
TRADE = {"trade_id": "a", "account": "A", "instrument": "I", "side": "buy", "quantity": "1", "price": "2", "ts_event": 1}


def said(raw: bytes, cls: type[msgspec.Struct] = Order) -> str:
    """Return what is said of a record that cannot be decoded."""
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError, ValueError)) as caught:
        decoder_of(cls).decode(raw)
    return refusal(caught.value, raw, cls)


@pytest.mark.parametrize(("field", "value", "expected"), [
    ("quantity", "12,5", 'Invalid decimal string - at `$.quantity`, was "12,5"'),
    ("price", [1], "Expected `decimal | null`, got `array` - at `$.price`, was [1]"),
    ("order_id", 7, "Expected `str`, got `int` - at `$.order_id`, was 7"),
    ("side", "hold", "Invalid enum value 'hold' - at `$.side`, expected buy or sell, was \"hold\""),
    ("action", "amend", "Invalid enum value 'amend' - at `$.action`, expected cancel or new or replace, was \"amend\""),
])
def test_field_value_and_what_was_expected_are_said(field: str, value: object, expected: str) -> None:
    """Who sent it can mend it from the text alone."""
    assert said(msgspec.json.encode(ORDER | {field: value})) == expected


def test_a_field_within_a_field_is_found() -> None:
    """The amount of the second fee."""
    fees = [{"kind": "commission", "amount": "1", "currency": "USD"}, {"kind": "commission", "amount": "x", "currency": "USD"}]
    assert said(msgspec.json.encode(TRADE | {"fees": fees}), Trade).endswith('`$.fees[1].amount`, was "x"')


@pytest.mark.parametrize("raw", [b"nonsense", b"{}", b'{"order_id":"\xff"}', b'{"order_id":1e999}'])
def test_what_is_no_record_is_said_as_the_decoder_says_it(raw: bytes) -> None:
    """Where there is no value to show none is made up."""
    assert said(raw)


@pytest.mark.parametrize("field", ["more", "quantity"])
def test_what_is_nested_too_deep_is_refused_like_all_else(field: str) -> None:
    """A few kilobytes of brackets end nobody who reads them."""
    deep = msgspec.json.encode(ORDER)[:-1] + b',"%s":' % field.encode() + b"[" * 5_000 + b"]" * 5_000 + b"}"
    assert said(deep)
    assert "nested too deep" in said(msgspec.json.encode(ORDER)[:-1] + b',"more":' + b"[" * 5_000 + b"]" * 5_000 + b"}")
    for raw in (b"[" * 5_000, b"[" * 5_000 + b"]" * 5_000):
        with pytest.raises(msgspec.DecodeError):
            records_in(raw)


def test_a_long_value_is_cut() -> None:
    """A record of a megabyte makes no error of a megabyte."""
    assert len(said(msgspec.json.encode(ORDER | {"quantity": "9" * 50_000 + "x"}))) < SHOWN + 60
