"""Trades folded again from the log: whole partitions for the tools of recovery, single keys for a reload."""

from __future__ import annotations

import numpy as np

from models import trade_columns as tc
from models.position_terms import is_behind
from models.trade_decode import decode_trades
from schemas.reasons import QuarantineReason
from schemas.records import External
from schemas.refusal import Refused
from schemas.units import TS_END, UNITS_MAX, decimal_parts, latest_of, parse_ts_ns
from tables.dividends import pay_all
from tables.position_partition import PositionPartition, decimal_text
from tables.trade_fees import other_fees, settlement_fees

CHUNK = 20_000
RELATIVE = 1e-9
_COMPARED = ("average_price", "realised_pnl", "fees")


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


def put_in_place(part: PositionPartition, slot: int, shadow: PositionPartition, other: int) -> bool:
    """Put what a fold of the log came to in place of a row; False, and nothing is changed, where it is the same."""
    shadow.follow_terms()
    pay_all(shadow)  # rows that were opened since
    rows, folded = part.positions.arrays.rows[slot], shadow.positions.arrays.rows[other]
    same = quantity_text(part, slot) == quantity_text(shadow, other) and not is_behind(part.positions, slot) and all(
        near(float(rows[c]), float(folded[c])) for c in _COMPARED)
    mine, theirs = part.side_of(slot), shadow.side_of(other)
    known = mine.dividends | theirs.dividends
    if same and known == mine.dividends:
        return False
    mine.dividends = known
    if same:
        part.positions.touch(slot)
        return True
    part.positions.replace(slot, *shadow.positions.whole_fold(other), float(shadow.positions.arrays.stated[other]))
    mine.fees, mine.opening_fees, mine.openings = theirs.fees, theirs.opening_fees, theirs.openings
    return True


def quantity_text(part: PositionPartition, slot: int) -> str:
    """Return the quantity of a row as a plain decimal."""
    row = part.positions.arrays.rows[slot]
    return decimal_text(int(row["quantity"]), int(row["quantity_decimals"]))


def near(a: float, b: float) -> bool:
    """Whether two figures are the same; an unknown one (NaN) is the same as an unknown one alone."""
    return bool(np.isclose(a, b, rtol=RELATIVE, atol=RELATIVE, equal_nan=True))


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
