"""What rows were paid by cash dividends: by what they held when each was effective, whenever that becomes known.

Where the base of a row reaches beyond a dividend, what it held is remembered, and what comes late is added to it.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from models import position_terms as terms
from models import trade_columns as tc
from models.corporate_actions import effective_ns
from models.position_window import FEE_ONLY
from schemas.corporate import CorporateAction
from tables.side_data import Dividend

if TYPE_CHECKING:
    from tables.position_partition import PositionPartition


def pay_all(part: PositionPartition, moved: AbstractSet[int]) -> list[int]:
    """Work out what every row was paid; return the rows of which that cannot be told any more.

    Parameters
    ----------
    moved : rows that other splits than before have restated: one of before a dividend changes what it was paid on
    """
    unknown: set[int] = set()
    rows, names = part.positions.arrays.rows[: len(part.positions)], part.reference.instruments
    for slot in [s for s, side in part.side.items() if side.dividends]:
        standing = {r.action_id for r in _of(part, slot)}
        for action_id in part.side[slot].dividends.keys() - standing:  # it was none
            del part.side[slot].dividends[action_id]
            part.positions.touch(slot)
    for name in part.reference.actions.names():
        index = names.index.get(name)
        if index is None:
            continue
        for record in part.reference.actions.in_force(name, "cash_dividend"):
            for slot in np.flatnonzero(rows["instrument_index"] == index).tolist():
                known = part.side[slot].dividends.get(record.action_id) if slot in part.side else None
                same = known is not None and (known.amount, known.currency, known.ts) == _said(record)
                # one whose base reaches beyond a split that came now is folded from the log anyhow
                if (not same or slot in moved) and not _pay(part, slot, record) and not same:
                    unknown.add(slot)
    return sorted(unknown)


def pay_row(part: PositionPartition, slot: int) -> None:
    """Work out again what one row was paid."""
    for record in _of(part, slot):
        _pay(part, slot, record)


def pay_late(part: PositionPartition, rows: np.ndarray) -> None:
    """Work out again what rows were paid after a batch of trades (TRADE_DTYPE), where some are of before a dividend."""
    if not part.reference.actions.names():
        return
    done = (rows["status"] == tc.APPLIED) | (rows["status"] == tc.LATE)
    for i in np.flatnonzero(done & ((rows["fill"] != 0) | (rows["taken"] != 0))).tolist():
        row, moved = rows[i], []
        if row["fill"]:
            slot = part.find_slot(int(row["account_index"]), int(row["instrument_index"]))
            moved.append((slot, int(row["fill"]) - 1, int(row["ts_event"]), 1))
        if row["taken"]:
            moved.append((int(row["taken_slot"]), int(row["taken"]) - 1, int(row["taken_ts"]), -1))
        for slot, seq, ts, sign in moved:
            for record in _of(part, slot):
                if ts < effective_ns(record) and not _pay(part, slot, record):
                    _add(part, slot, record, seq, ts, sign)


def _of(part: PositionPartition, slot: int) -> list[CorporateAction]:
    name = part.reference.instruments.names[int(part.positions.arrays.rows["instrument_index"][slot])]
    return part.reference.actions.in_force(name, "cash_dividend") if part.reference.actions.known(name) else []


def _said(record: CorporateAction) -> tuple[Decimal, str, int]:
    assert record.amount is not None and record.currency is not None
    return record.amount, record.currency, effective_ns(record)


def _pay(part: PositionPartition, slot: int, record: CorporateAction) -> bool:
    """Set what a row held and was paid; False where its base reaches beyond the dividend."""
    ts = effective_ns(record)
    units = terms.held(part.positions, slot, ts)
    if units is None:
        return False
    _set(part, slot, record, Decimal(units).scaleb(-int(part.positions.arrays.rows["quantity_decimals"][slot])))
    return True


def _set(part: PositionPartition, slot: int, record: CorporateAction, held: Decimal) -> None:
    made = Dividend(*_said(record), held.normalize())
    known = part.side[slot].dividends.get(record.action_id) if slot in part.side else None
    if made != known and (held or known is not None):
        part.side_of(slot).dividends[record.action_id] = made
        part.positions.touch(slot)


def _add(part: PositionPartition, slot: int, record: CorporateAction, seq: int, ts: int, sign: int) -> None:
    """Add one fill of before the dividend to what is remembered."""
    k = seq - part.positions.first_fill_seq
    known = part.side[slot].dividends.get(record.action_id) if slot in part.side else None
    if k < 0 or part.positions.arrays.fills["flags"][k] & FEE_ONLY:
        return
    name = part.reference.instruments.names[int(part.positions.arrays.rows["instrument_index"][slot])]
    ratio = Fraction(1)
    for split in part.reference.actions.in_force(name, "split"):
        if ts < effective_ns(split) <= effective_ns(record):
            ratio *= Fraction(split.ratio or 1)
    units = Fraction(int(part.positions.arrays.fills["quantity"][k])) * ratio * sign
    decimals = int(part.positions.arrays.rows["quantity_decimals"][slot])
    moved = Decimal(units.numerator) / Decimal(units.denominator)
    _set(part, slot, record, (known.held if known else Decimal(0)) + moved.scaleb(-decimals))
