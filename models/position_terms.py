"""Corrected terms of a contract: what is held is restated in them, exactly, as if they had always been there."""

from __future__ import annotations

import numpy as np

from models import position_window as pw
from models.fills import NO_LOT
from models.position_order import uncheck
from models.position_state import STATED_IN, PartitionPositions
from models.position_window import N_FILLS, N_ROWS
from models.trade_columns import ReferenceArrays
from schemas.units import UNITS_MAX


def differing(positions: PartitionPositions, ref: ReferenceArrays) -> np.ndarray:
    """Return the rows that are not counted in the terms of their instruments."""
    rows = positions.arrays.rows[: int(positions.arrays.meta[N_ROWS])]
    instrument = rows["instrument_index"]
    other = ((rows["unit_value"] != ref.unit_value[instrument])
             | (rows["quantity_decimals"] != ref.quantity_decimals[instrument]))
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

