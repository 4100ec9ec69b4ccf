"""Fees of decoded trades: those in the settlement currency are part of the fold, others are kept beside the row."""

from __future__ import annotations

import numpy as np

from models import trade_columns as tc
from models.reference import Reference, settlement_currency
from models.trade_decode import DecodedTrades
from tables.position_partition import PositionPartition


def settlement_fees(decoded: DecodedTrades, reference: Reference) -> None:
    """Put fees in the settlement currency on their fills, before they are folded."""
    for i, fees in decoded.fees.items():
        instrument = reference.instrument_records.get(decoded.text(i, "instrument"))
        if instrument is not None:
            currency = settlement_currency(instrument)
            decoded.rows["fee"][i] = float(sum(f.amount for f in fees if f.currency == currency))


def other_fees(decoded: DecodedTrades, part: PositionPartition) -> None:
    """Keep fees in other currencies per currency, beside the row, after the fold."""
    records = part.reference.instrument_records
    for i, fees in decoded.fees.items():
        if decoded.rows["status"][i] not in (tc.APPLIED, tc.LATE):
            continue
        row = decoded.rows[i]
        currency = settlement_currency(records[decoded.text(i, "instrument")])
        slot = part.find_slot(int(row["account_index"]), int(row["instrument_index"]))
        others = [f for f in fees if f.currency != currency]
        if others:
            part.add_fees(slot, f"{int(row['id_hash']):016x}", {f.currency: float(f.amount) for f in others},
                          int(row["ts_event"]))
    for i in np.flatnonzero(decoded.rows["action"] != tc.NEW).tolist():
        part.drop_fees(f"{int(decoded.rows['ref_hash'][i]):016x}")
