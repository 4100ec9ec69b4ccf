"""Decisions reproduced: the rows that the kernel read, packed into the decision and evaluated anew."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from models.gate import state as gs
from models.gate.kernel import check_order
from models.gate.state import GateState

#: changes whenever a row of the gate's state does
INPUTS_VERSION = 1


def pack(row: Any) -> str:
    """Return a row as text."""
    return base64.b64encode(row.tobytes()).decode()


def explain(inputs: dict[str, Any]) -> tuple[int, int, dict[str, Any]]:
    """Return (hard reasons, soft reasons, what the gate saw) of a decision, evaluated anew from its inputs.

    Raises
    ------
    ValueError
        The inputs are of a version this code does not read.
    """
    if inputs.get("v") != INPUTS_VERSION:
        raise ValueError(f"inputs: expected version {INPUTS_VERSION}, was {inputs.get('v')!r}")
    row = {name: np.frombuffer(base64.b64decode(inputs[name]), dtype)[0].copy() for name, dtype in (
        ("order", gs.ORDER), ("account", gs.ACCOUNT), ("instrument", gs.INSTRUMENT), ("position", gs.POSITION),
        ("settings", gs.SETTINGS)) if name in inputs}
    o = row["order"]
    packed = inputs.get("nodes", [])
    named = [int(o[f]) for f in ("trader", "counterparty", "venue")] + [n for _, n, _, _ in packed]
    if "account" in row:
        named += [*row["account"]["nodes"].tolist(), *(int(row["instrument"][f]) for f in ("node", "issuer", "sector"))]
    size = max(named) + 2
    state = GateState(int(o["account"]) + 2, int(o["instrument"]) + 2, 4, size, len(packed) + 1, 1)
    state.orders[0] = o
    if "account" in row:
        state.accounts[o["account"]], state.instruments[o["instrument"]] = row["account"], row["instrument"]
        state.settings[0] = row["settings"]
        held = state.position(int(o["account"]), int(o["instrument"]))
        for name in gs.POSITION.names or ():
            held[name] = row["position"][name]
        for k, (_, n, node, rate) in enumerate(packed):
            state.nodes[n] = np.frombuffer(base64.b64decode(node), gs.NODE)[0]
            if rate is not None:
                state.rates[k], state.nodes["rate"][n] = np.frombuffer(base64.b64decode(rate), gs.RATE)[0], k
    check_order(state.table.ctypes.data, 0)
    seen = {name: {f: np.asarray(r[f]).tolist() for f in r.dtype.names} for name, r in row.items()}
    seen["nodes"] = {name: {"value": dict(zip(gs.METRICS, state.nodes["value"][n].tolist(), strict=True)),
                            "limit": dict(zip(gs.METRICS, state.nodes["limit"][n].tolist(), strict=True))}
                     for name, n, _, _ in packed}
    result = state.results[0]
    return int(result["hard"]), int(result["soft"]), seen
