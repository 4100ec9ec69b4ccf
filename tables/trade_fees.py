"""Fees of decoded trades: those in the settlement currency are part of the fold, others are kept beside the row.

So is funding, whatever its currency, under names of its own.
"""

from __future__ import annotations

import numpy as np

from models.reference import Reference, settlement_currency
from models.trade_decode import DecodedTrades
from tables.dividends import pay_late
from tables.position_partition import PositionPartition
from tables.side_data import FUNDING, Amounts, add_amounts


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
    """Keep fees in other currencies, and funding, per currency beside the row, after the fold; and what dividends paid.

    In the order of the log. What a record took out takes back what it paid, whether or not the record pays itself.
    """
    records, rows = part.reference.instrument_records, decoded.rows
    taking = np.flatnonzero(rows["taken"]).tolist()
    for i in sorted({*decoded.fees, *taking}):
        row, amounts = rows[i], Amounts()
        if row["taken"]:
            part.drop_fees(int(row["taken"]) - 1, int(row["taken_slot"]), int(row["taken_ts"]))
        if i not in decoded.fees or not row["fill"]:
            continue
        currency = settlement_currency(records[decoded.text(i, "instrument")])
        for fee in decoded.fees[i]:
            if row["side"] == 0 or fee.currency != currency:
                add_amounts(amounts, {FUNDING + fee.currency if row["side"] == 0 else fee.currency: fee.amount})
        if amounts:
            slot = part.find_slot(int(row["account_index"]), int(row["instrument_index"]))
            part.add_fees(int(row["fill"]) - 1, slot, amounts, int(row["ts_event"]))
    pay_late(part, rows)
