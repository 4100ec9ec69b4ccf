"""Working orders: what an accepted order may still trade is reserved in every node above it until it ends."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from models.gate import state as gs
from models.gate.state import GateState
from schemas.records import Order

DAY_NS = 86_400_000_000_000


@dataclass
class Working:
    """An accepted order that may still trade."""

    order: Order
    account: int
    instrument: int
    side: float
    left: float
    gross: float
    net: float
    trader: int
    counterparty: int
    venue: int
    expires_ns: int
    state: str = "working"


class Reservations:
    """The working orders of a gate and what they hold in its columns."""

    def __init__(self, state: GateState) -> None:
        self.state = state
        self.working: dict[str, Working] = {}
        self._of_position: dict[tuple[int, int], dict[str, Working]] = {}
        self.reserved = np.zeros((len(state.nodes), gs.NM))
        self._base = np.zeros((len(state.nodes), gs.NM))

    def _fill(self, order: Order, now_ns: int) -> None:
        state = self.state
        o = state.orders[0]
        o["account"] = state.account_index.get(order.account, -1)
        o["instrument"] = state.instrument_index.get(order.instrument, -1)
        o["side"], o["quantity"] = (1.0 if order.side == "buy" else -1.0), float(order.quantity)
        o["market"] = order.type == "market"
        o["price"] = math.nan if order.price is None else float(order.price)
        o["ts_ns"] = now_ns
        o["trader"] = state.node(f"trader:{order.trader}")
        o["counterparty"] = state.node(f"counterparty:{order.counterparty}") if order.counterparty else -1
        o["venue"] = state.node(f"venue:{order.venue}") if order.venue else -1
        o["algo"] = 0 if order.algo_id else -1
        o["locate"], o["exempt"] = bool(order.locate_id), order.short_exempt
        o["action"] = {"new": gs.NEW, "replace": gs.REPLACE, "cancel": gs.CANCEL}[order.action]

    def place(self, order: Order, now_ns: int) -> None:
        """Reserve an accepted order (also one that a decision on the log accepted before a restart)."""
        self._fill(order, now_ns)
        o = self.state.orders[0]
        if o["account"] < 0 or o["instrument"] < 0:
            return
        w = Working(order, int(o["account"]), int(o["instrument"]), float(o["side"]), float(o["quantity"]), 0.0, 0.0,
                    int(o["trader"]), int(o["counterparty"]), int(o["venue"]), (now_ns // DAY_NS + 1) * DAY_NS)
        i = self.state.instruments[w.instrument]
        ref = float(i["mid"] if i["mid"] == i["mid"] else i["last"] if i["last"] == i["last"] else i["prior_close"])
        per = float(i["unit"]) / ref if i["inverse"] else float(i["unit"]) * abs(ref)
        w.gross, w.net = (per, w.side * per) if per == per else (0.0, 0.0)
        self._keep(w)
        self._reserve(w, 1.0)
        for node in self._nodes_of(w):
            self._base[node, gs.DAILY_QUANTITY] += w.left
            self._base[node, gs.DAILY_VALUE] += w.left * abs(w.gross)
        self._sum_nodes(w)

    def _nodes_of(self, w: Working) -> list[int]:
        i = self.state.instruments[w.instrument]
        found = [*self.state.accounts["nodes"][w.account].tolist(), w.trader, int(i["issuer"]), int(i["sector"]),
                 w.counterparty, w.venue, int(i["node"])]
        return [n for n in found if n >= 0]

    def _reserve(self, w: Working, sign: float) -> None:
        p = self.state.position(w.account, w.instrument)
        q = float(p["quantity"])
        before = max(q + p["working_buy"], p["working_sell"] - q, 0.0)
        p["working_buy" if w.side > 0 else "working_sell"] += sign * w.left
        if abs(p["working_buy"]) < 1e-9:
            p["working_buy"] = 0.0
        if abs(p["working_sell"]) < 1e-9:
            p["working_sell"] = 0.0
        after = max(q + p["working_buy"], p["working_sell"] - q, 0.0)
        for node in self._nodes_of(w):
            self.reserved[node, gs.GROSS] += (after - before) * w.gross
            self.reserved[node, gs.NET] += sign * w.left * w.net
            self.reserved[node, gs.CREDIT] += (after - before) * w.gross
        self._best(w)
        self._sum_nodes(w)

    def _sum_nodes(self, w: Working) -> None:
        nodes = self._nodes_of(w)
        self.state.nodes["value"][nodes] = self._base[nodes] + self.reserved[nodes]

    def _best(self, w: Working) -> None:
        p = self.state.position(w.account, w.instrument)
        mine = [x for x in self._of_position.get((w.account, w.instrument), {}).values() if x.order.price is not None]
        p["best_buy"] = max((float(x.order.price or 0) for x in mine if x.side > 0), default=-math.inf)
        p["best_sell"] = min((float(x.order.price or 0) for x in mine if x.side < 0), default=math.inf)

    def fill(self, order_id: str, quantity: float) -> None:
        """Take an execution of a working order in: what is done no longer works."""
        w = self.working.get(order_id)
        if w is None:
            return
        self._reserve(w, -1.0)
        w.left = max(w.left - quantity, 0.0)
        if w.left <= 1e-12:
            self._drop(w)
            self._best(w)
        else:
            self._reserve(w, 1.0)

    def release(self, order_id: str) -> Working | None:
        """Take a working order out (cancelled, expired, killed)."""
        w = self.working.get(order_id)
        if w is None:
            return None
        self._reserve(w, -1.0)
        self._drop(w)
        self._best(w)
        return w

    def _keep(self, w: Working) -> None:
        self.working[w.order.order_id] = w
        self._of_position.setdefault((w.account, w.instrument), {})[w.order.order_id] = w

    def _drop(self, w: Working) -> None:
        del self.working[w.order.order_id]
        del self._of_position[w.account, w.instrument][w.order.order_id]

    def _undo(self, order_id: str) -> None:
        w = self.working[order_id]
        for node in self._nodes_of(w):
            self._base[node, gs.DAILY_QUANTITY] -= w.left
            self._base[node, gs.DAILY_VALUE] -= w.left * abs(w.gross)
        self.release(order_id)
