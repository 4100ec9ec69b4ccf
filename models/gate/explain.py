"""Decisions reproduced: the rows that the kernel read, packed into the decision and evaluated anew."""

from __future__ import annotations

import base64
import math
from typing import Any, NamedTuple

import numpy as np

from models.gate import state as gs
from models.gate.kernel import check_order
from models.gate.reasons import reasons_of, with_beside
from models.gate.reservations import INSTRUMENT_NODES
from models.gate.state import GateState
from schemas.controls import Check
from schemas.records import Decision, Order, Reason

#: changes whenever a row of the gate's state does, or what a reason says
INPUTS_VERSION = 14


class Explained(NamedTuple):
    """A decision evaluated anew from its inputs."""

    #: masks of reasons
    hard: int
    soft: int
    #: as the decision has them, but for the ids of limits, and names of nodes that nothing limits
    reasons: list[Reason]
    warnings: list[Reason]
    effect: dict[str, float]
    #: what the gate saw
    seen: dict[str, Any]

    def differs_from(self, decision: Decision) -> list[str]:
        """Return what is not bit for bit as the decision says: nothing, unless code or log were changed."""
        passed = "override" in decision.inputs  # two people let it pass: what spoke against it is among the warnings
        reasons, warnings = ([], _merged(self.reasons, self.warnings)) if passed else (self.reasons, self.warnings)
        outcome = "reject" if reasons else "accept"
        pairs = (("outcome", outcome, decision.outcome), ("reasons", _figures(reasons), _figures(decision.reasons)),
                 ("warnings", _figures(warnings), _figures(decision.warnings)),
                 ("effect", self.effect, decision.effect))
        return [f"{what}: {now!r}, was {then!r}" for what, now, then in pairs if now != then]


def _merged(*lists: list[Reason]) -> list[Reason]:
    return sorted((r for found in lists for r in found), key=lambda r: Check[r.code])


def _figures(reasons: list[Reason]) -> list[tuple[str, str, str]]:
    return [(r.code, r.measured, r.limit) for r in reasons]


def explain(inputs: dict[str, Any], order: Order) -> Explained:
    """Return a decision on an order evaluated anew from its inputs.

    Their rows are text here, base64 as a decision's record has them.

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
    named += o["shares"].tolist()
    if "position" in row:
        named += [*row["account"]["nodes"].tolist(), *(int(row["instrument"][f]) for f in INSTRUMENT_NODES)]
    size = max(named) + 2
    state = GateState(int(o["account"]) + 2, int(o["instrument"]) + 2, 4, size, sum(len(w) for *_, w in packed) + 1,
                      1)
    state.orders[0] = o
    for name, rows in (("account", state.accounts), ("instrument", state.instruments)):
        if name in row:
            rows[o[name]] = row[name]
    if "position" in row:
        state.settings[0] = row["settings"]
        held = state.position(int(o["account"]), int(o["instrument"]))
        for name in gs.POSITION.names or ():
            held[name] = row["position"][name]
        for _, n, node, windows in packed:
            state.nodes[n] = np.frombuffer(base64.b64decode(node), gs.NODE)[0]
            for w, window in enumerate(windows):
                state.rates[state.rate_count] = np.frombuffer(base64.b64decode(window), gs.RATE)[0]
                state.nodes["rates"][n, w], state.rate_count = state.rate_count, state.rate_count + 1
    check_order(state.table.ctypes.data, 0)
    seen = {name: {f: np.asarray(r[f]).tolist() for f in r.dtype.names} for name, r in row.items()}
    seen["nodes"] = {name: {"value": dict(zip(gs.FIGURES, state.nodes["value"][n].tolist(), strict=True)),
                            "limit": dict(zip(gs.METRICS, state.nodes["limit"][n].tolist(), strict=True))}
                     for name, n, _, _ in packed}
    result = state.results[0]
    beside = {Check[code]: (measured, limit) for code, (measured, limit) in inputs.get("beside", {}).items()}
    hard = with_beside(int(result["hard"]), beside)
    warned = int(result["soft"]) & ~hard
    names = [""] * size
    for name, n, _, _ in packed:
        names[n] = name
    return Explained(hard, int(result["soft"]), reasons_of(hard, result, order, names, {}, beside),
                     reasons_of(warned, result, order, names, {}), effect_of(result["effect"]), seen)


def effect_of(effect: np.ndarray) -> dict[str, float]:
    """Return what is known of an order's effect, float64[`EFFECTS`]."""
    return {name: x for name, x in zip(gs.EFFECTS, effect.tolist(), strict=True) if math.isfinite(x)}
