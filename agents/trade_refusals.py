"""Why the fold of trades refused one, in the words of quarantine."""

from __future__ import annotations

from models import trade_columns as tc
from models.trade_decode import DecodedTrades
from schemas.reasons import QuarantineReason

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


def detail_of(decoded: DecodedTrades, i: int, reason: QuarantineReason) -> str:
    """Return the field, what was expected and what was there."""
    row = decoded.rows[i]
    if reason is QuarantineReason.UNKNOWN_ACCOUNT:
        return f"account: expected a known account, was {decoded.text(i, 'account')!r}"
    if reason is QuarantineReason.UNKNOWN_INSTRUMENT:
        return f"instrument: expected a known instrument, was {decoded.text(i, 'instrument')!r}"
    quantity = f"{int(row['quantity'])}e-{int(row['quantity_scale'])}"
    if reason in (QuarantineReason.QUANTITY_NOT_POSITIVE, QuarantineReason.QUANTITY_NOT_REPRESENTABLE,
                  QuarantineReason.QUANTITY_OVERFLOW):
        return f"quantity: expected a positive multiple of the instrument's increment, was {quantity}"
    if reason is QuarantineReason.PRICE_NOT_POSITIVE:
        return f"price: expected a price above 0, was {int(row['price'])}e-{int(row['price_scale'])}"
    if reason is QuarantineReason.TRADE_ID_REUSED:
        return f"trade_id: {decoded.text(i, 'id')!r} came before with different content"
    return f"ref_trade_id: expected a trade in the id window, for {decoded.text(i, 'id')!r}"
