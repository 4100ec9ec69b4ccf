"""Trades folded again from the log: whole partitions for the tools of recovery, single keys for a reload."""

from __future__ import annotations

import numpy as np

from models import trade_columns as tc
from models.trade_decode import decode_trades
from schemas.records import External
from schemas.units import decimal_parts, parse_ts_ns
from tables.position_partition import PositionPartition
from tables.trade_fees import other_fees, settlement_fees

CHUNK = 20_000


def fold(part: PositionPartition, trades: list[tuple[int, int, bytes]]) -> None:
    """Fold trades with the kernels of production; what belongs elsewhere or is poison is left out, as it was then."""
    for start in range(0, len(trades), CHUNK):
        chunk = trades[start: start + CHUNK]
        decoded = decode_trades([value for _, _, value in chunk])
        decoded.rows["offset"] = np.array([o for o, _, _ in chunk])[decoded.messages]
        decoded.rows["ts_source"] = np.array([ms for _, ms, _ in chunk])[decoded.messages]
        tc.resolve_trades(decoded.buffer, decoded.rows, part.reference.arrays())
        settlement_fees(decoded, part.reference)
        part.positions.apply(decoded.rows, part.reference.arrays())
        other_fees(decoded, part)


def open_from(part: PositionPartition, statement: External, decimals: int, ts_source: int) -> None:
    """Let a position start from what a source states.

    Raises
    ------
    ValueError
        If the quantity has more decimals than the position is counted in.
    """
    mantissa, scale = decimal_parts(statement.quantity, "quantity")
    if scale > decimals:
        raise ValueError(f"quantity: expected at most {decimals} decimals, was {statement.quantity}")
    price = None if statement.average_price is None else float(statement.average_price)
    part.open(part.reference.intern_key(statement.account, statement.instrument), statement.source,
              mantissa * 10 ** (decimals - scale), price, parse_ts_ns(statement.ts_event), ts_source)
