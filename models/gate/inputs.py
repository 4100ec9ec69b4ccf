"""What a verdict rests on, as bytes: from them it can be reproduced bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.gate import state as gs
from models.gate.explain import INPUTS_VERSION
from models.gate.kernel import copy_inputs
from models.gate.state import GateState
from models.gate.working import Asked

#: where rows end among those that are read, and what else is read
ROWS_END = [(name, sum(size for _, size in gs.READ_ROWS[: k + 1])) for k, (name, _) in enumerate(gs.READ_ROWS)]
NODE_BYTES, RATE_BYTES = gs.NODE.itemsize, gs.RATE.itemsize


class Inputs:
    """Copies the rows that the kernel is about to read."""

    def __init__(self, state: GateState) -> None:
        self._state = state
        self._address = state.table.ctypes.data
        self._rows: Any = np.zeros(gs.READ_BYTES, np.uint8)
        self._bytes = self._rows.data
        self._nodes = np.zeros((gs.ACCOUNT_NODES + gs.ORDER_NODES + gs.SHARES, 2), np.int64)

    def of(self, asked: Asked) -> dict[str, Any]:
        """Return the rows of the order at the first place of the ring."""
        s: Any = self._state
        if asked.account < 0 or asked.instrument < 0:
            known: dict[str, Any] = {"account": s.accounts, "instrument": s.instruments}
            given = {f: rows[getattr(asked, f)].tobytes() for f, rows in known.items() if getattr(asked, f) >= 0}
            return {"v": INPUTS_VERSION, "order": s.orders[0].tobytes()} | given
        count = int(copy_inputs(self._address, 0, self._rows, self._nodes))
        raw, at = self._bytes, 0
        out: dict[str, Any] = {"v": INPUTS_VERSION}
        for name, end in ROWS_END:
            out[name], at = bytes(raw[at:end]), end
        nodes = out["nodes"] = []
        for n, windows in self._nodes[:count].tolist():
            node, at = bytes(raw[at : at + NODE_BYTES]), at + NODE_BYTES
            nodes.append([s.node_names[n], n, node, [bytes(raw[at + w * RATE_BYTES : at + (w + 1) * RATE_BYTES])
                                                     for w in range(windows)]])
            at += windows * RATE_BYTES
        return out
