"""What several gates hold together under the nodes above their accounts: each says what is its own, and adds the rest.

Positions are known to all of them. What works, the day's sums, message windows and a venue's credit are known to the
gate of the account; the others have them a tenth of a second later.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.gate import state as gs
from models.gate.flow import OrderFlow, Outcomes
from models.gate.held_limits import GateLimits
from models.gate.state import GateState
from models.limits import LimitKey
from models.trading_day import TradingDay
from models.valued_book import ValuedBook
from schemas.records import Limit

#: what is held for orders, and what is counted of them
_RESERVED = [gs.GROSS, gs.NET, gs.LONG, gs.SHORT, gs.DELTA, gs.VEGA, gs.MARGIN, gs.CREDIT, gs.VAR_HIST,
             gs.LEVERAGE,
             *range(gs.NM, gs.NF)]
_COUNTED = [gs.DAILY_QUANTITY, gs.DAILY_VALUE, gs.REPEATED]
#: limits that this is held against
_RESTS_ON_THEM = [*(m for m in _RESERVED if m < gs.NM), *_COUNTED, gs.CONCENTRATION]
#: what lies beyond is the rest of sums and differences
_DIGITS = 6


class Own(NamedTuple):
    """What one gate holds and has counted under a node."""

    figures: dict[str, float]
    windows: dict[str, tuple[float, float]]
    #: by length of the window in ms
    outcomes: dict[str, Outcomes]


class GateAmongOthers(GateLimits):
    """Limits of nodes that other gates trade under, too."""

    def __init__(self, book: ValuedBook, state: GateState, day: TradingDay) -> None:
        super().__init__(book, state, day)
        #: node -> partition of another gate -> what that holds
        self._of_others: dict[int, dict[int, Own]] = {}
        self._mine: frozenset[int] = frozenset()
        self.flow = OrderFlow()

    def own_rows(self, now_ns: int) -> tuple[list[int], np.ndarray]:
        """Return the limited nodes above accounts under which this gate holds anything, and a row of each.

        Returns
        -------
        list of int
            Nodes.
        ndarray
            float64[nodes, figures + 2 x windows]: what it holds, then messages and their value by window.
        """
        state, n = self.state, len(self.state.node_names)
        rates = state.nodes["rates"][:n]
        limited = (rates[:, 0] >= 0) | (np.isfinite(state.nodes["limit"][:n, _RESTS_ON_THEM])
                                        | np.isfinite(state.nodes["soft"][:n, _RESTS_ON_THEM])).any(axis=1)
        which = np.flatnonzero(limited)
        rows = np.zeros((len(which), gs.NF + 2 * gs.WINDOWS))
        rows[:, _RESERVED] = self.reserved[which[:, None], _RESERVED]
        rows[:, _COUNTED] = self._base[which[:, None], _COUNTED]
        names = state.node_names
        venues = [j for j, k in enumerate(which.tolist()) if names[k].startswith("venue:")]
        rows[venues, gs.CREDIT] += self._base[which[venues], gs.CREDIT]
        rows[:, gs.NF :] = self.counted(now_ns)[rates[which]].reshape(len(which), 2 * gs.WINDOWS)
        rows = np.round(rows, _DIGITS) + 0.0
        some = rows.any(axis=1) & np.array([not names[k].startswith("account:") for k in which.tolist()], bool)
        return which[some].tolist(), rows[some]

    def counted(self, now_ns: int) -> np.ndarray:
        """Return float64[windows + 1, 2]: messages and value in every window that ends now; the last row is of none."""
        rates = self.state.rates[: self.state.rate_count]
        tick = (now_ns // rates["bucket_ns"])[:, None]
        live = (rates["stamp"] > tick - gs.BUCKETS) & (rates["stamp"] <= tick)
        sums = np.stack([(rates[f] * live).sum(axis=1) for f in ("count", "value")], axis=1)
        return np.concatenate([sums, np.zeros((1, 2))])

    def own_of(self, node: int, row: np.ndarray, outcomes: dict[str, Outcomes]) -> Own:
        """Return a row of `own_rows` as others read it."""
        figures = {gs.FIGURES[m]: float(row[m]) for m in np.flatnonzero(row[: gs.NF]).tolist()}
        windows = {}
        for w, k in enumerate(self.state.nodes["rates"][node].tolist()):
            count, value = row[gs.NF + 2 * w : gs.NF + 2 * w + 2].tolist()
            if count:
                windows[str(int(self.state.rates["window_ns"][k]) // 1_000_000)] = (count, value)
        return Own(figures, windows, outcomes)

    def outcomes_of(self, node: str, window_ms: int, now_ns: int) -> Outcomes:
        """Return what came of a node's orders within the window that ends now, at all gates."""
        found = [self.flow.outcomes(node, window_ms * 1_000_000, now_ns)]
        for partition, own in self._of_others.get(self.state.node(node), {}).items():
            if partition not in self._mine and str(window_ms) in own.outcomes:
                found.append(Outcomes(*own.outcomes[str(window_ms)]))
        return Outcomes(sum(o.orders for o in found), sum(o.rejects for o in found))

    def set_other(self, node: str, partition: int, own: Own | None) -> None:
        """Take in what the gate of a partition holds under a node; None: nothing any more."""
        k = self.state.node(node)
        held = self._of_others.setdefault(k, {})
        if own is None:
            held.pop(partition, None)
        else:
            held[partition] = own
        self._sum_others(k)

    def set_mine(self, partitions: frozenset[int]) -> None:
        """Leave out what is said of partitions that are this gate's own by now: it holds that itself."""
        self._mine = partitions
        for k in self._of_others:
            self._sum_others(k)

    def _sum_others(self, node: int) -> None:
        owns = [own for p, own in self._of_others.get(node, {}).items() if p not in self._mine]
        self.others[node] = 0.0
        for own in owns:
            for metric, value in own.figures.items():
                if metric in gs.FIGURES:
                    self.others[node, gs.FIGURES.index(metric)] += value
        for k in self.state.nodes["rates"][node].tolist():
            if k >= 0:
                length = str(int(self.state.rates["window_ns"][k]) // 1_000_000)
                sums: list[tuple[float, float]] = [own.windows.get(length, (0.0, 0.0)) for own in owns]
                self.state.rates["others"][k] = np.sum(sums, axis=0) if sums else 0.0
        self._sum_node(node)

    def _apply_window(self, key: LimitKey, chosen: Limit | None, soft: bool) -> None:
        super()._apply_window(key, chosen, soft)
        self._sum_others(self.state.node(key.node))
