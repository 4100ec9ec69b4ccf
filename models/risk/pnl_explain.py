"""P&L explained: what delta, gamma, vega, theta, exchange rates and new trades made of a day, and what is left over."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.contracts import Contracts
from models.market import Market
from models.risk.scenarios import INVERSE

PARTS = ("delta", "gamma", "vega", "theta", "rho", "fx", "carry", "new_trades", "unexplained", "total")


class PnlExplain:
    """Adds up, snapshot by snapshot, what moved the P&L of every node since the day began.

    The book of the snapshot before is carried to the prices of this one: its Greeks say how much of the change they
    explain; the rest of that change is unexplained; what trades since then added is new trades. The parts sum to the
    total. Carry is the funding booked and the interest earned.
    """

    def __init__(self) -> None:
        self.sums: dict[str, np.ndarray] = {}
        self._before: dict[str, Any] | None = None

    def new_day(self) -> None:
        """Begin anew."""
        self.sums = {}

    def observe(self, names: list[str], quantity: np.ndarray, totals: np.ndarray, carry: np.ndarray, market: Market,
                contracts: Contracts, columns: dict[str, np.ndarray], now_ns: int) -> None:
        """Take a snapshot in.

        Parameters
        ----------
        quantity : float64[nodes, instruments]
        totals, carry : float64[nodes], P&L of each node and the part of it that is carry, in the firm's base currency
        columns : by instrument: ``unit`` (multiplier), ``currency`` (index of the settlement's), ``kind``
        """
        n = quantity.shape[1]
        unit, rate = columns["unit"], market.rate[columns["currency"][:n]]
        state: dict[str, Any] = {
            "names": list(names), "quantity": quantity.copy(), "totals": totals.copy(), "carry": carry.copy(),
            "rate": rate.copy(), "price": market.price[:n].copy(), "greeks": market.unit_greeks[:n].copy(),
            "now": now_ns,
            "inverse": columns["kind"][:n] == INVERSE, "kind": market.greek_kind[:n].copy(),
            "vol": contracts.vol_by_instrument(n), "riskless": contracts.rate_by_instrument(n),
            "underlying": contracts.underlying_by_instrument(n)}
        before, self._before = self._before, state
        if before is None or before["names"] != names or before["quantity"].shape != quantity.shape:
            return
        parts = self._unit_parts(before, state, unit[:n] * market.discount[:n])
        explained = before["quantity"] @ parts.T
        for k, name in enumerate(names):
            row = self.sums.setdefault(name, np.zeros(len(PARTS)))
            change = float(totals[k] - before["totals"][k])
            carried, carry_moved = float(explained[k, -1]), float(carry[k] - before["carry"][k])
            row[:6] += explained[k, :6]
            row[6] += carry_moved
            row[7] += change - carried - carry_moved
            row[8] += carried - float(explained[k, :6].sum())
            row[9] += change

    @staticmethod
    def _unit_parts(a: dict[str, Any], b: dict[str, Any], unit: np.ndarray) -> np.ndarray:
        """Return, per unit of every instrument: delta, gamma, vega, theta, rho, fx, and the whole change of value."""
        size = unit * a["rate"]
        option = a["kind"] == 1
        under = np.where(a["underlying"] >= 0, a["underlying"], np.arange(len(unit)))
        with np.errstate(divide="ignore", invalid="ignore"):
            move = b["price"][under] / a["price"][under] - 1.0
            own = np.where(a["inverse"], 1.0 / a["price"] - 1.0 / b["price"], b["price"] - a["price"])
        g = a["greeks"].T
        dt_days = (b["now"] - a["now"]) / 86_400_000_000_000
        out = np.zeros((7, len(unit)))
        out[0] = size * np.where(option, g[0] * move, own)
        out[1] = size * np.where(option, 0.5 * g[1] * 100.0 * move ** 2, 0.0)
        out[2] = size * np.where(option, g[2] * 100.0 * (b["vol"] - a["vol"]), 0.0)
        out[3] = size * np.where(option, g[3] * dt_days, 0.0)
        out[4] = size * np.where(option, g[4] * 10_000.0 * (b["riskless"] - a["riskless"]), 0.0)
        # the part of the change that the exchange rate makes of this snapshot's move; earlier P&L is revalued by it too
        out[5] = unit * own * (b["rate"] - a["rate"])
        out[6] = unit * own * b["rate"]
        return np.nan_to_num(out, posinf=0.0, neginf=0.0)

    def of(self, name: str, scale: float) -> dict[str, float] | None:
        """Return a node's day so far, in its own currency; None before two snapshots."""
        row = self.sums.get(name)
        return None if row is None else {p: float(v) * scale for p, v in zip(PARTS, row, strict=True)}

