"""Why the fold of trades refused one, in the words of quarantine."""

from __future__ import annotations

from decimal import Decimal

from models import trade_columns as tc
from models.trade_decode import DecodedTrades
from schemas.reasons import QuarantineReason
from schemas.units import FILL_UNITS_MAX, UNITS_MAX

REASONS = {
    tc.UNKNOWN_ACCOUNT: QuarantineReason.UNKNOWN_ACCOUNT,
    tc.UNKNOWN_INSTRUMENT: QuarantineReason.UNKNOWN_INSTRUMENT,
    tc.NOT_REPRESENTABLE: QuarantineReason.QUANTITY_NOT_REPRESENTABLE,
    tc.OVERFLOW: QuarantineReason.QUANTITY_OVERFLOW,
    tc.BAD_PRICE: QuarantineReason.PRICE_NOT_POSITIVE,
    tc.BAD_QUANTITY: QuarantineReason.QUANTITY_NOT_POSITIVE,
    tc.ID_REUSED: QuarantineReason.TRADE_ID_REUSED,
    tc.REF_UNKNOWN: QuarantineReason.REF_TRADE_UNKNOWN,
}
#: what a quantity is expected to be
_OF_QUANTITY = {
    QuarantineReason.QUANTITY_NOT_POSITIVE: "a number above 0",
    QuarantineReason.QUANTITY_NOT_REPRESENTABLE: "a multiple of the instrument's increment",
    QuarantineReason.QUANTITY_OVERFLOW: f"at most {FILL_UNITS_MAX} units of the instrument's increment in a trade, and "
                                        f"with it {UNITS_MAX} in its position",
}


def detail_of(decoded: DecodedTrades, i: int, reason: QuarantineReason) -> str:
    """Return the field, what was expected and what was there."""
    row = decoded.rows[i]
    if reason is QuarantineReason.UNKNOWN_ACCOUNT:
        return f"account: expected a known account, was {decoded.text(i, 'account')!r}"
    if reason is QuarantineReason.UNKNOWN_INSTRUMENT:
        return f"instrument: expected a known instrument, was {decoded.text(i, 'instrument')!r}"
    if reason in _OF_QUANTITY:
        was = Decimal(int(row["quantity"])).scaleb(-int(row["quantity_scale"]))
        return f"quantity: expected {_OF_QUANTITY[reason]}, was {was:f}"
    if reason is QuarantineReason.PRICE_NOT_POSITIVE:
        return f"price: expected a price above 0, was {Decimal(int(row['price'])).scaleb(-int(row['price_scale'])):f}"
    if reason is QuarantineReason.TRADE_ID_REUSED:
        return f"trade_id: {decoded.text(i, 'id')!r} came before with different content"
    return f"ref_trade_id: expected a trade in the id window, for {decoded.text(i, 'id')!r}"
