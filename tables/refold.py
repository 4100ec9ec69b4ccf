"""Trades folded again from the log: whole partitions for the tools of recovery, single keys for a reload."""

from __future__ import annotations

import numpy as np

from models import trade_columns as tc
from models.trade_decode import decode_trades
from schemas.reasons import QuarantineReason
from schemas.records import External
from schemas.refusal import Refused
from schemas.units import TS_END, UNITS_MAX, decimal_parts, latest_of, parse_ts_ns
from tables.position_partition import PositionPartition
from tables.trade_fees import other_fees, settlement_fees

CHUNK = 20_000


def fold(part: PositionPartition, trades: list[tuple[int, int, bytes]]) -> None:
    """Fold trades with the kernels of production; what belongs elsewhere or is poison is left out, as it was then."""
    part.follow_terms()
    for start in range(0, len(trades), CHUNK):
        chunk = trades[start: start + CHUNK]
        stamps = np.array([ms for _, ms, _ in chunk], np.int64)
        decoded = decode_trades([value for _, _, value in chunk], latest_of(stamps, part.future_ns))
        decoded.rows["offset"] = np.array([o for o, _, _ in chunk])[decoded.messages]
        decoded.rows["ts_source"] = stamps[decoded.messages]
        tc.resolve_trades(decoded.buffer, decoded.rows, part.reference.arrays())
        settlement_fees(decoded, part.reference)
        part.positions.apply(decoded.rows, part.reference.arrays())
        other_fees(decoded, part)


def open_from(part: PositionPartition, statement: External, decimals: int, ts_source: int,
              now_ns: int = TS_END - 1) -> None:
    """Let a position start from what a source states.

    Parameters
    ----------
    ts_source : when the statement came to its log, ms
    now_ns : clock of whoever receives it; a log that is folded again is measured by its own times alone

    Raises
    ------
    ValueError
        If the quantity has more decimals than the position is counted in, or does not fit its counter, the average is
        no price of its class, or the time lies outside its bounds.
    """
    latest = int(latest_of(np.array([ts_source]), part.future_ns, now_ns)[0])
    ts = parse_ts_ns(statement.ts_event, latest_ns=latest)
    _check_average(statement, part)
    mantissa, scale = decimal_parts(statement.quantity, "quantity")
    if scale > decimals:
        raise ValueError(f"quantity: expected at most {decimals} decimals, was {statement.quantity}")
    units = mantissa * 10 ** (decimals - scale)
    if abs(units) > UNITS_MAX:
        raise Refused(QuarantineReason.QUANTITY_OVERFLOW,
                      f"quantity: expected at most {UNITS_MAX} units of the increment, was {statement.quantity}")
    price = None if statement.average_price is None else float(statement.average_price)
    part.open(part.reference.intern_key(statement.account, statement.instrument), statement.source,
              units, price, ts, ts_source)


def _check_average(statement: External, part: PositionPartition) -> None:
    """Refuse an average that executions of the instrument cannot come to; receipts are at no cost."""
    price, terms = statement.average_price, part.reference.instrument_records.get(statement.instrument)
    if price is None or terms is None or terms.price_any_sign or price > 0 or (price == 0 and not terms.inverse):
        return
    kind, least = (f"inverse {terms.asset_class}", "above 0") if terms.inverse else (terms.asset_class, "0 or more")
    raise Refused(QuarantineReason.PRICE_NOT_POSITIVE, f"average_price: expected {least} of class {kind}, was {price}")
