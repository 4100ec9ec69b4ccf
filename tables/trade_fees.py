"""Fees of decoded trades: those in the settlement currency are part of the fold, others are kept beside the row.

So is funding, whatever its currency, under names of its own.
"""

from __future__ import annotations

import numpy as np

from models import trade_columns as tc
from models.reference import Reference, settlement_currency
from models.trade_decode import DecodedTrades
from tables.position_partition import FUNDING, PositionPartition


def settlement_fees(decoded: DecodedTrades, reference: Reference) -> None:
    """Put fees in the settlement currency on their fills, before they are folded."""
    for i, fees in decoded.fees.items():
        if decoded.rows["side"][i] == 0:
            continue
        instrument = reference.instrument_records.get(decoded.text(i, "instrument"))
        if instrument is not None:
            currency = settlement_currency(instrument)
            decoded.rows["fee"][i] = float(sum(f.amount for f in fees if f.currency == currency))


def other_fees(decoded: DecodedTrades, part: PositionPartition) -> None:
    """Keep fees in other currencies, and funding, per currency beside the row, after the fold.

    In the order of the log: a correction under the number of what it corrects takes the old fees back before its own.
    """
    records, rows = part.reference.instrument_records, decoded.rows
    applied = (rows["status"] == tc.APPLIED) | (rows["status"] == tc.LATE)
    paid = np.zeros(len(rows), bool)
    paid[list(decoded.fees)] = True
    for i in np.flatnonzero(applied & (paid | (rows["ref_hash"] != 0))).tolist():
        row, amounts = rows[i], dict[str, float]()
        if row["ref_hash"]:
            part.drop_fees(f"{int(row['ref_hash']):016x}")
        if row["action"] == tc.BUST or not paid[i]:
            continue
        currency = settlement_currency(records[decoded.text(i, "instrument")])
        for fee in decoded.fees[i]:
            if row["side"] == 0 or fee.currency != currency:
                name = FUNDING + fee.currency if row["side"] == 0 else fee.currency
                amounts[name] = amounts.get(name, 0.0) + float(fee.amount)
        if amounts:
            slot = part.find_slot(int(row["account_index"]), int(row["instrument_index"]))
            part.add_fees(slot, f"{int(row['id_hash']):016x}", amounts, int(row["ts_event"]))
