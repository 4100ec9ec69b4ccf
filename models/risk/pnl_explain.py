"""P&L explained: what delta, gamma, vega, theta, exchange rates and new trades made of a day, and what is left over."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.contracts import Contracts
from models.market import Market
from models.risk.node_cells import Held, weighted_sums
from models.risk.scenarios import INVERSE

PARTS = ("delta", "gamma", "vega", "theta", "rho", "fx", "carry", "new_trades", "unexplained", "total")


class PnlExplain:
    """Adds up, snapshot by snapshot, what moved the P&L of every node since the day began.

    The book of the snapshot before is carried to the prices of this one: its Greeks say how much of the change they
    explain; the rest of that change is unexplained; what trades since then added is new trades. The parts sum to the
    total. Carry is the funding booked and the interest earned.
    """

    def __init__(self) -> None:
        #: by node, what each part came to since the day began
        self.sums = np.zeros((0, len(PARTS)))
        self.place: dict[str, int] = {}
        self._before: dict[str, Any] | None = None

    def new_day(self) -> None:
        """Begin anew."""
        self.sums, self.place = np.zeros((0, len(PARTS))), {}

    def observe(self, names: list[str], held: Held, quantity: np.ndarray, totals: np.ndarray, carry: np.ndarray,
                market: Market, contracts: Contracts, columns: dict[str, np.ndarray], now_ns: int) -> None:
        """Take a snapshot in.

        Parameters
        ----------
        held, quantity : which instruments nodes hold, and how much: float64[held]
        totals, carry : float64[nodes], P&L of each node and the part of it that is carry, in the firm's base currency
        columns : by instrument: ``unit`` (multiplier), ``currency`` (index of the settlement's), ``kind``
        """
        n = len(market.instruments)
        unit, rate = columns["unit"], market.rate[columns["currency"][:n]]
        state: dict[str, Any] = {
            "names": names, "held": held, "quantity": quantity, "totals": totals.copy(), "carry": carry.copy(),
            "rate": rate.copy(), "price": market.price[:n].copy(), "greeks": market.unit_greeks[:n].copy(),
            "now": now_ns,
            "inverse": columns["kind"][:n] == INVERSE, "kind": market.greek_kind[:n].copy(),
            "vol": contracts.vol_by_instrument(n), "riskless": contracts.rate_by_instrument(n),
            "underlying": contracts.underlying_by_instrument(n)}
        before, self._before = self._before, state
        if before is None or before["names"] != names or len(before["price"]) != n:
            return
        parts = self._unit_parts(before, state, unit[:n], market.discount[:n], contracts.coin_by_instrument(n))
        explained = np.empty((len(names), len(parts)))
        weighted_sums(before["quantity"], before["held"], np.ascontiguousarray(parts.T), explained)
        change, carried, carry_moved = totals - before["totals"], explained[:, -1], carry - before["carry"]
        moved = np.column_stack([explained[:, :6], carry_moved, change - carried - carry_moved,
                                 carried - explained[:, :6].sum(axis=1), change])
        if names != list(self.place):
            self.sums = np.array([self._sums_of(name) for name in names])
            self.place = {name: k for k, name in enumerate(names)}
        self.sums += moved

    def _sums_of(self, name: str) -> np.ndarray:
        k = self.place.get(name)
        return np.zeros(len(PARTS)) if k is None else self.sums[k]

    @staticmethod
    def _unit_parts(a: dict[str, Any], b: dict[str, Any], multiplier: np.ndarray, discount: np.ndarray,
                    coin: np.ndarray) -> np.ndarray:
        """Return, per unit of every instrument: delta, gamma, vega, theta, rho, fx, and the whole change of value.

        The P&L of an option whose premium is in coin is in coin: its delta is less the premium, and its Greeks, unlike
        its price, are in money already.
        """
        unit = multiplier * discount
        size = np.where(coin, multiplier, unit) * a["rate"]
        option = a["kind"] == 1
        under = np.where(a["underlying"] >= 0, a["underlying"], np.arange(len(unit)))
        with np.errstate(divide="ignore", invalid="ignore"):
            move = b["price"][under] / a["price"][under] - 1.0
            own = np.where(a["inverse"], 1.0 / a["price"] - 1.0 / b["price"], b["price"] - a["price"])
        g = a["greeks"].T
        dt_days = (b["now"] - a["now"]) / 86_400_000_000_000
        out = np.zeros((7, len(unit)))
        premium = np.where(coin, a["price"] * a["price"][under], 0.0)
        out[0] = size * np.where(option, (g[0] - premium) * move, own)
        out[1] = size * np.where(option, 0.5 * g[1] * 100.0 * move ** 2, 0.0)
        out[2] = size * np.where(option, g[2] * 100.0 * (b["vol"] - a["vol"]), 0.0)
        out[3] = size * np.where(option, g[3] * dt_days, 0.0)
        out[4] = size * np.where(option, g[4] * 10_000.0 * (b["riskless"] - a["riskless"]), 0.0)
        # the part of the change that the exchange rate makes of this snapshot's move; earlier P&L is revalued by it too
        out[5] = unit * own * (b["rate"] - a["rate"])
        out[6] = unit * own * b["rate"]
        return np.nan_to_num(out, posinf=0.0, neginf=0.0)

    def of(self, names: list[str], scales: np.ndarray) -> list[dict[str, float] | None]:
        """Return the day so far of nodes, each in its own currency; None before two snapshots."""
        known = [self.place.get(name) for name in names]
        rows = (self.sums[[k or 0 for k in known]] * scales[:, None]).tolist() if len(self.sums) else [[]] * len(names)
        return [None if k is None else dict(zip(PARTS, row, strict=True)) for k, row in zip(known, rows, strict=True)]
