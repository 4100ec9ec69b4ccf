"""Corrected terms of a contract, and splits: what is held is restated, exactly, as if they had always been there."""

from __future__ import annotations

import numpy as np

from models import position_window as pw
from models.fills import NO_LOT
from models.position_order import held_at, uncheck
from models.position_state import STATED_IN, PartitionPositions
from models.position_window import FOREVER, N_FILLS, N_ROWS, splits_hash
from models.trade_columns import ReferenceArrays
from schemas.units import UNITS_MAX


def differing(positions: PartitionPositions, ref: ReferenceArrays, finer: bool = False) -> np.ndarray:
    """Return the rows that are not counted in the terms of their instruments; or those of ``finer`` terms alone."""
    rows = positions.arrays.rows[: int(positions.arrays.meta[N_ROWS])]
    instrument = rows["instrument_index"]
    other = ((rows["unit_value"] != ref.unit_value[instrument])
             | (rows["quantity_decimals"] != ref.quantity_decimals[instrument]))
    if finer:
        other &= ref.quantity_decimals[instrument] > rows["quantity_decimals"]
    found: np.ndarray = np.flatnonzero(other & (ref.instrument_known[instrument] != 0)
                                       & (rows["inverse"] == ref.inverse[instrument]))
    return found


def restate(positions: PartitionPositions, slot: int, unit_value: float, decimals: int) -> bool:
    """Restate a row in other terms; False, and nothing is changed, where a quantity is no multiple of the new unit."""
    a = positions.arrays
    row, base = a.rows[slot], a.base[slot]
    shift = decimals - int(row["quantity_decimals"])
    mine = np.flatnonzero(a.fills["slot"][: a.meta[N_FILLS]] == slot)
    lots = _lots(a, int(base["lot_head"]))
    counted = [int(row["quantity"]), int(row["opening_quantity"]), int(base["quantity"]), int(base["opening_quantity"]),
               *a.fills["quantity"][mine].tolist(), *a.pool.lots["quantity"][lots].tolist()]
    up, down = 10 ** max(shift, 0), 10 ** max(-shift, 0)
    if any(q % down or abs(q) * up > UNITS_MAX for q in counted):
        return False
    uncheck(a, slot)
    ratio = unit_value / float(row["unit_value"]) * (up / down)
    for target in (row, base):
        target["unit_value"], target["quantity_decimals"] = unit_value, decimals
    for name in ("quantity", "opening_quantity"):
        base[name] = int(base[name]) * up // down
    base["cost"] *= up / down
    for name in (*STATED_IN, "opening_realised_pnl"):
        base[name] *= ratio
    a.stated[slot] *= ratio
    a.fills["quantity"][mine] = a.fills["quantity"][mine] * up // down
    a.pool.lots["quantity"][lots] = a.pool.lots["quantity"][lots] * up // down
    positions.refold(slot)
    return True


def _lots(a: pw.PositionArrays, head: int) -> list[int]:
    out = []
    while head != NO_LOT:
        out.append(head)
        head = int(a.pool.lots["next"][head])
    return out



def follow_splits(positions: PartitionPositions, actions: np.ndarray, starts: np.ndarray,
                  restored: bool = False) -> list[int]:
    """Fold the rows again whose instruments have other splits than before.

    Returns those of them (of a partition that was ``restored``: of all) whose base reaches beyond a split that is not
    in it: what they hold is not right until they are folded from the log.
    """
    positions.arrays = a = positions.arrays._replace(actions=actions, action_start=starts)
    rows, behind = a.rows[: int(a.meta[N_ROWS])], []
    if not len(actions) and not rows["actions_hash"].any():
        return []
    known = np.array([splits_hash(a, k, FOREVER) for k in range(len(starts) - 1)], np.uint64)
    instrument = rows["instrument_index"]
    now = np.where(instrument < len(known), np.append(known, np.uint64(0))[np.minimum(instrument, len(known))], 0)
    other = now != rows["actions_hash"]
    for slot in np.flatnonzero(other).tolist():
        positions.refold(slot)
    for slot in np.flatnonzero(other | (rows["based"] != 0) if restored else other).tolist():
        if is_behind(positions, slot):
            behind.append(slot)
    return behind


def is_behind(positions: PartitionPositions, slot: int) -> bool:
    """Return whether the base of a row is not counted by the splits that it reaches beyond."""
    base, a = positions.arrays.base[slot], positions.arrays
    return bool(base["actions_hash"] != splits_hash(a, int(a.rows["instrument_index"][slot]), int(base["horizon_ts"])))


def held(positions: PartitionPositions, slot: int, ts: int) -> int | None:
    """Return what a row held at a time, counted units of then; None where its base reaches beyond."""
    if positions.arrays.base["horizon_ts"][slot] >= ts:
        return None
    positions.make_room()
    return int(held_at(positions.arrays, slot, ts))
