"""What rows were paid by cash dividends: by what they held when each was effective, by all that is now known.

Every row says what it held then, nothing too, and by which splits that was counted. Where its base reaches beyond a
dividend, what it held is remembered, and what comes late is added to it; what cannot be told from that any more is
folded again from the log (`PositionPartition.behind`).
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from models import position_terms as terms
from models import trade_columns as tc
from models.corporate_actions import effective_ns
from tables.side_data import ZERO, Dividend

if TYPE_CHECKING:
    from tables.position_partition import PositionPartition

#: a dividend in force: its action, and what a row is paid that held nothing
_Paid = tuple[str, Dividend]


def pay_all(part: PositionPartition) -> None:
    """Work out what every row was paid, where that is not known by what is in force now."""
    _withdraw(part)
    rows, names = part.positions.arrays.rows[: len(part.positions)], part.reference.instruments
    for name in part.reference.actions.names():
        index, paid = names.index.get(name), _in_force(part, name)
        if index is None or not paid:
            continue
        for slot in np.flatnonzero(rows["instrument_index"] == index).tolist():
            for action_id, said in paid:
                known = _known(part, slot, action_id)
                if known is None or known._replace(held=ZERO) != said:
                    _pay(part, slot, action_id, said)


def pay_row(part: PositionPartition, slot: int, since: int) -> None:
    """Work out again what one row was paid after something was stated of it at a time."""
    for action_id, said in _in_force(part, _instrument(part, slot)):
        if not _pay_by_fold(part, slot, action_id, said) and said.ts >= since:
            part.behind.add(part.key_text(slot))


def pay_late(part: PositionPartition, rows: np.ndarray) -> None:
    """Work out again what rows were paid after a batch of trades (TRADE_DTYPE), where some are of before a dividend."""
    if not part.reference.actions.names():
        return
    in_force = dict[str, list[_Paid]]()
    done = (rows["status"] == tc.APPLIED) | (rows["status"] == tc.LATE)
    for i in np.flatnonzero(done & ((rows["fill"] != 0) | (rows["taken"] != 0))).tolist():
        row, moved = rows[i], []
        if row["fill"]:
            slot = part.find_slot(int(row["account_index"]), int(row["instrument_index"]))
            moved.append((slot, int(row["fill"]) - 1, int(row["ts_event"]), 1))
        if row["taken"]:
            moved.append((int(row["taken_slot"]), int(row["taken"]) - 1, int(row["taken_ts"]), -1))
        for slot, seq, ts, sign in moved:
            name = _instrument(part, slot)
            if name not in in_force:
                in_force[name] = _in_force(part, name)
            for action_id, said in in_force[name]:
                if _known(part, slot, action_id) is None:
                    _pay(part, slot, action_id, said)  # a row that was opened since
                elif ts < said.ts and not _pay_by_fold(part, slot, action_id, said):
                    _add(part, slot, action_id, said, seq, ts, sign)


def _withdraw(part: PositionPartition) -> None:
    standing = dict[str, set[str]]()
    for slot in [s for s, side in part.side.items() if side.dividends]:
        name = _instrument(part, slot)
        if name not in standing:
            standing[name] = {action_id for action_id, _ in _in_force(part, name)}
        for action_id in part.side[slot].dividends.keys() - standing[name]:  # it was none
            del part.side[slot].dividends[action_id]
            part.positions.touch(slot)


def _instrument(part: PositionPartition, slot: int) -> str:
    return part.reference.instruments.names[int(part.positions.arrays.rows["instrument_index"][slot])]


def _in_force(part: PositionPartition, name: str) -> list[_Paid]:
    """Return the dividends that are in force of an instrument, counted by the splits that are."""
    actions, out = part.reference.actions, list[_Paid]()
    for r in actions.in_force(name, "cash_dividend") if actions.known(name) else ():
        assert r.amount is not None and r.currency is not None
        ts = effective_ns(r)
        out.append((r.action_id, Dividend(r.amount, r.currency, ts, actions.splits_mark(name, ts), ZERO)))
    return out


def _known(part: PositionPartition, slot: int, action_id: str) -> Dividend | None:
    return part.side[slot].dividends.get(action_id) if slot in part.side else None


def _pay(part: PositionPartition, slot: int, action_id: str, said: Dividend) -> None:
    """Set what a row held and was paid; what cannot be told any more is asked of the log, once."""
    known = _known(part, slot, action_id)
    if _pay_by_fold(part, slot, action_id, said):
        return
    if known is not None and (known.ts, known.splits) == (said.ts, said.splits):  # what it held stands
        _set(part, slot, action_id, said._replace(held=known.held))
    elif part.asked.get((slot, action_id)) != said:
        part.asked[slot, action_id] = said
        part.behind.add(part.key_text(slot))


def _pay_by_fold(part: PositionPartition, slot: int, action_id: str, said: Dividend) -> bool:
    """Set what a row held and was paid; False where its base reaches beyond the dividend."""
    units = terms.held(part.positions, slot, said.ts)
    if units is None:
        return False
    held = Decimal(units).scaleb(-int(part.positions.arrays.rows["quantity_decimals"][slot]))
    _set(part, slot, action_id, said._replace(held=held.normalize()))
    return True


def _set(part: PositionPartition, slot: int, action_id: str, made: Dividend) -> None:
    known = _known(part, slot, action_id)
    part.asked.pop((slot, action_id), None)
    part.side_of(slot).dividends[action_id] = made
    was = None if known is None or not known.held else known._replace(splits=made.splits)
    if was != (made if made.held else None):  # nothing is no news; it is worked out again where it was not written
        part.positions.touch(slot)


def _add(part: PositionPartition, slot: int, action_id: str, said: Dividend, seq: int, ts: int, sign: int) -> None:
    """Add one fill of before the dividend to what is remembered."""
    k, known = seq - part.positions.first_fill_seq, _known(part, slot, action_id)
    stated = int(part.positions.arrays.base["stated_ts"][slot])
    if ts < stated <= said.ts:  # what was held then, the statement says
        return
    if known is None or (known.ts, known.splits) != (said.ts, said.splits):
        return  # asked of the log already
    if k < 0 or ts < stated:  # it has left the window, or what was stated before that is not remembered
        part.behind.add(part.key_text(slot))
        return
    ratio = Fraction(1)
    for split in part.reference.actions.in_force(_instrument(part, slot), "split"):
        if ts < effective_ns(split) <= said.ts:
            ratio *= Fraction(split.ratio or 1)
    units = Fraction(int(part.positions.arrays.fills["quantity"][k])) * ratio * sign
    decimals = int(part.positions.arrays.rows["quantity_decimals"][slot])
    moved = Decimal(units.numerator) / Decimal(units.denominator)
    _set(part, slot, action_id, said._replace(held=(known.held + moved.scaleb(-decimals)).normalize()))
