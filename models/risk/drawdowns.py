"""Live drawdowns of nodes: equity against its peak, with capital that is paid in or out taken for what it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from models import rollup as ru
from models.risk.attributes import Navs
from models.risk.performance import update_drawdown
from models.trading_day import TradingDay
from models.valued_book import ValuedBook


class Drawdowns:
    """The drawdown of every node of one book.

    A change of `nav` is capital: it moves the peak, it is no gain and no loss. Neither is the P&L that an account
    brings to a node, or takes with it, when it moves in the tree.
    """

    def __init__(self, book: ValuedBook, navs: Navs, day: TradingDay) -> None:
        self._book, self._navs, self._day = book, navs, day
        #: float64[nodes, 8], see `update_drawdown`
        self.states = np.zeros((256, 8))
        self._held: dict[str, np.ndarray] = {}
        #: capital by currency when a node was measured last; where accounts lay; P&L that moved with them
        self._capital: dict[str, dict[str, float]] = {}
        self._placed: dict[str, frozenset[str]] = {}
        self._placed_version = -1
        self._moved_pnl: dict[str, float] = {}

    def observe(self, summary: np.ndarray, names: list[str], navs: dict[str, float], sums: np.ndarray,
                now_ns: int) -> None:
        """Move the drawdowns of nodes on; one whose P&L or NAV is unknown stays as it was."""
        self._note_moves()
        while len(self.states) < len(self._book.rollup.nodes):
            self.states = np.concatenate([self.states, np.zeros_like(self.states)])
        value, flow = np.full(len(self.states), np.nan), np.zeros(len(self.states))
        value[summary] = np.where(sums[:, ru.PNL_UNKNOWN] == 0, ru.total_pnl(sums), np.nan) + np.array(
            [navs.get(name, np.nan) for name in names])
        for node, name in zip(summary.tolist(), names, strict=True):
            if self.states[node, 7] == 0.0 and name in self._held:
                self.states[node] = self._held.pop(name)
            if value[node] == value[node]:
                flow[node] = self._paid_in(name)
        update_drawdown(value, flow, summary, now_ns, self._day.begin_ns(now_ns), self.states)

    def _paid_in(self, name: str) -> float:
        """Return the capital paid into a node, at the rates of now, since it was measured last."""
        market = self._book.market
        now, before = self._navs.amounts(self._book, name), self._capital.get(name)
        self._capital[name] = dict(now)
        moved = self._moved_pnl.pop(name, 0.0)
        if before is None:
            return 0.0
        return moved + sum((now.get(c, 0.0) - before.get(c, 0.0)) * float(market.rate[market.currency(c)])
                           for c in sorted(now.keys() | before.keys()) if now.get(c, 0.0) != before.get(c, 0.0))

    def _note_moves(self) -> None:
        """Note the P&L of accounts that lie under other nodes now."""
        book, rollup = self._book, self._book.rollup
        if self._placed_version == book.reference.version:
            return
        self._placed_version = book.reference.version
        for account in book.reference.account_records.values():
            above = frozenset(book.nodes_above(account))
            before = self._placed.get(account.account, above)
            self._placed[account.account] = above
            node = rollup.node_index.get(f"account:{account.account}")
            if before == above or node is None:
                continue
            pnl = float(ru.total_pnl(rollup.nodes[node]))
            for name in above ^ before:
                self._moved_pnl[name] = self._moved_pnl.get(name, 0.0) + (pnl if name in above else -pnl)

    def of(self, node: int, name: str, now_ns: int) -> dict[str, Any]:
        """Return the model of a node as it is published; a worker that starts goes on from it."""
        s = self.states[node]
        if s[7] == 0.0:
            return {"quality": "missing", "why": "no NAV, or positions whose P&L is unknown"}
        current, ever, today = (float(x) if x == x else None for x in (s[6], s[2], s[5]))
        return {"current": current, "since_inception": ever, "intraday": today, "peak_ns": int(s[1]),
                "underwater_s": (now_ns - int(s[1])) / 1e9 if s[6] < 0 else 0.0, "state": s.tolist(),
                "capital": self._capital.get(name, {}), "quality": "good"}

    def resume(self, name: str, model: dict[str, Any]) -> None:
        """Go on where the last worker was, from a node's published model."""
        state, capital = model.get("state"), model.get("capital")
        if state is None or len(state) != self.states.shape[1]:
            return
        self._held[name] = np.array([np.nan if x is None else float(x) for x in state])
        if capital:
            self._capital[name] = {c: float(x) for c, x in capital.items()}
        node = self._book.rollup.node_index.get(name, len(self.states))
        if node < len(self.states):
            self.states[node] = 0.0  # what this worker saw of it before was another's to state
