"""Average prices of rows beside that of the fold: of the open lots, and the break-even price."""

from __future__ import annotations

import numpy as np

from models.fills import NO_LOT
from models.jit import kernel
from models.position_window import PositionArrays


@kernel
def other_averages(st: PositionArrays, slots: np.ndarray, fifo: np.ndarray, break_even: np.ndarray) -> None:
    """Fill the average price of the open lots, and the break-even price, of rows that are not flat."""
    for k in range(slots.shape[0]):
        s = slots[k]
        q = st.rows[s].quantity
        if q == 0:
            continue
        inverse = st.rows[s].inverse != 0
        held, spent = 0.0, 0.0
        index = st.rows[s].lot_head
        while index != NO_LOT:
            size = abs(float(st.pool.lots[index].quantity))
            held += size
            spent += size / st.pool.lots[index].price if inverse else size * st.pool.lots[index].price
            index = st.pool.lots[index].next
        if held > 0.0 and (spent != 0.0 or not inverse):
            fifo[k] = held / spent if inverse else spent / held
        cost = st.rows[s].cost
        if cost != 0.0 or not inverse:
            break_even[k] = q / cost if inverse else cost / q
