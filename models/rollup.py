"""Valuation of positions on one snapshot and its roll-up: position to book, desk, strategy, fund, firm, and groupings.

Every row's contribution to its nodes is kept; a change adds the difference to the row's ancestors alone. All figures
are in the firm's base currency, converted once when a node is published. Every figure of a row has a validity of its
own: a position without a price or an exchange rate has no value, one without a cost has a value and no P&L. A figure
that is unknown adds nothing to the sums of its nodes and is counted there; it is never a silent zero. What no sum can
hold (`models.figures`) is unknown too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from models.figures import is_figure
from models.jit import allocating_kernel, hot_kernel, kernel
from models.leaves import Leaves
from models.market import Market
from models.position_worth import day_parts, worth

VALUED_DTYPE = np.dtype([
    ("quantity", "f8"), ("average_price", "f8"), ("realised_pnl", "f8"), ("multiplier", "f8"),
    ("opening_quantity", "f8"), ("opening_price", "f8"), ("opening_realised_pnl", "f8"), ("last_ts_event", "i8"),
    ("opening_ts", "i8"), ("interest", "f8"), ("accrued_before", "f8"),
    ("instrument", "i4"), ("currency", "i4"), ("inverse", "i1"), ("outright", "i1"), ("live", "i1"), ("shard", "i4"),
], align=True)
#: contributions of a row and sums of a node, in the firm's base currency
METRICS = ("realised", "unrealised", "day", "price", "fx", "carry", "fees", "funding", "interest", "gross", "net",
           "long", "short", "delta", "gamma", "vega", "theta", "rho", "positions", "unpriced", "stale", "day_unknown",
           "carry_unknown", "quantity", "no_greeks", "realised_unknown", "unrealised_unknown", "costs_unknown",
           "pnl_unknown")
(REALISED, UNREALISED, DAY, PRICE, FX, CARRY, FEES, FUNDING, INTEREST, GROSS, NET, LONG, SHORT, DELTA, GAMMA, VEGA,
 THETA, RHO, POSITIONS, UNPRICED, STALE, DAY_UNKNOWN, CARRY_UNKNOWN, QUANTITY, NO_GREEKS, REALISED_UNKNOWN,
 UNREALISED_UNKNOWN, COSTS_UNKNOWN, PNL_UNKNOWN) = range(len(METRICS))
#: the first ones are money, the others counts and quantity
MONEY = POSITIONS
#: what a figure leaves out is counted here; ``total`` is the P&L since inception
LEFT_OUT = {"gross": UNPRICED, "net": UNPRICED, "long": UNPRICED, "short": UNPRICED, "credit": UNPRICED,
            "delta": NO_GREEKS, "gamma": NO_GREEKS, "vega": NO_GREEKS, "theta": NO_GREEKS, "rho": NO_GREEKS,
            "realised": REALISED_UNKNOWN, "unrealised": UNREALISED_UNKNOWN, "fees": COSTS_UNKNOWN,
            "funding": COSTS_UNKNOWN, "day": DAY_UNKNOWN, "loss_day": DAY_UNKNOWN, "total": PNL_UNKNOWN,
            "loss_total": PNL_UNKNOWN, "drawdown": PNL_UNKNOWN}
GREEKS = ("delta", "gamma", "vega", "theta", "rho")
M = len(METRICS)
#: a recount that differs by more than this, relative to the gross of what was added, is an alarm
DRIFT_RELATIVE_MAX = 1e-9
#: currencies that fees and funding of one position are kept in; the first empty one ends them
FEE_SLOTS = 6
FEE, FUNDED = 0, 1
#: ``before``: what of ``amount`` was paid before the day began and is not in the opening P&L already; currency -1: none
PAID_DTYPE = np.dtype([("amount", "f8"), ("before", "f8"), ("currency", "i4"), ("kind", "i4")], align=True)
_NOTHING = np.array((0.0, 0.0, -1, FEE), PAID_DTYPE)


def total_pnl(sums: np.ndarray) -> Any:
    """Return the P&L since inception of nodes: float64[..., metrics]."""
    return (sums[..., REALISED] + sums[..., UNREALISED] - sums[..., FEES] - sums[..., FUNDING]
            + sums[..., INTEREST])


def left_out(metric: str, sums: np.ndarray) -> int:
    """Return how many positions of a node a figure leaves out because theirs is unknown.

    Parameters
    ----------
    metric : a name of `LEFT_OUT`; any other figure leaves out what has no value or no Greeks
    sums : float64[metrics], of the node
    """
    column = LEFT_OUT.get(metric)
    return round(float(sums[column] if column is not None else max(sums[UNPRICED], sums[NO_GREEKS])))


@kernel
def value_rows(rows: np.ndarray, paid: np.ndarray, contribution: np.ndarray, leaf: np.ndarray, leaf_sums: np.ndarray,
               leaf_changed: np.ndarray, instrument_leaf: np.ndarray, instrument_sums: np.ndarray,
               instrument_changed: np.ndarray, largest: np.ndarray, which: np.ndarray, mid: np.ndarray,
               stale: np.ndarray, prior_close: np.ndarray, accrued: np.ndarray, discount: np.ndarray,
               rate: np.ndarray, rate_stale: np.ndarray, prior_rate: np.ndarray, close_begin: np.ndarray,
               close_end: np.ndarray, rate_begin: np.ndarray, rate_end: np.ndarray, own: np.ndarray,
               greek_kind: np.ndarray, unit_greeks: np.ndarray, new: np.ndarray) -> None:
    """Value ``rows[which]`` again and add the differences to the sums of their two leaves.

    Parameters
    ----------
    mid, stale, prior_close : by instrument; NaN where there is none
    accrued : by instrument, interest in units of price: what is held is worth it, its P&L is in ``interest``
    discount : by instrument, what a unit of its P&L is worth today; 1 for all but forwards
    rate, prior_rate : firm base currency per unit of a currency, now and at the prior close; NaN where unknown
    rate_stale : by currency, whether the rate rests on a stale pair
    close_begin, close_end, rate_begin, rate_end : ns, the openings that a prior close, or rate, is of the day before of
    paid : PAID_DTYPE[rows, FEE_SLOTS]
    largest : by metric, the largest contribution there has been since the last recount
    own : float64[rows, 3]: mid, market value and unrealised P&L in settlement currency, for the ladder
    greek_kind : by instrument, 0: its delta is its value; 1: its Greeks are in ``unit_greeks``
    unit_greeks : float64[instruments, 5], cash Greeks per unit of price (see `models.contracts`); NaN: unknown
    new : float64[metrics], scratch
    """
    for w in range(which.shape[0]):
        r = which[w]
        new[:] = 0.0
        q, uv, avg = rows[r].quantity, rows[r].multiplier, rows[r].average_price
        x = rate[rows[r].currency]
        price, df = mid[rows[r].instrument], discount[rows[r].instrument]
        value, unrealised = np.nan, np.nan
        if rows[r].live != 0:
            new[QUANTITY] = q
            flat = q == 0.0
            if not flat:
                new[POSITIONS] = 1.0
            value, unrealised = worth(q, uv, avg, price, accrued[rows[r].instrument], df, rows[r].inverse != 0)
            fees, before, funding, funding_before = _paid(r, paid, rate)
            earned = 0.0
            if rows[r].opening_quantity != 0.0:
                earned = rows[r].opening_quantity * uv * rows[r].interest * x
                if not is_figure(earned):
                    earned, new[CARRY_UNKNOWN] = 0.0, 1.0
            # nothing is nothing in every currency
            realised = 0.0 if rows[r].realised_pnl == 0.0 else rows[r].realised_pnl * df * x
            exposure, gained = (0.0, 0.0) if flat else (value * x, unrealised * x)
            new[INTEREST] = earned
            if not is_figure(exposure):
                new[UNPRICED] = new[NO_GREEKS] = 1.0
            else:
                if not flat and (stale[rows[r].instrument] != 0 or rate_stale[rows[r].currency] != 0):
                    new[STALE] = 1.0
                new[NET] = exposure
                new[GROSS] = abs(exposure)
                if exposure > 0.0:
                    new[LONG] = exposure
                else:
                    new[SHORT] = -exposure
                if not flat:
                    _greeks(new, q * uv * x, exposure, rows[r].instrument, greek_kind, unit_greeks)
            known = _gains(new, realised, gained, fees, funding)
            carry = funding_before - funding + earned  # known by itself: it rests on no price and no close
            if new[COSTS_UNKNOWN] == 0.0 and not is_figure(carry):
                new[CARRY_UNKNOWN] = 1.0
            elif new[COSTS_UNKNOWN] == 0.0:
                new[CARRY] = carry
            if known:
                i, c, opened = rows[r].instrument, rows[r].currency, rows[r].opening_ts
                close, x_close = prior_close[i], prior_rate[c]
                # a close of another day is not the one that the opening was valued at
                if opened != 0 and not close_begin[i] <= opened < close_end[i]:
                    close = np.nan
                if opened != 0 and not rate_begin[c] <= opened < rate_end[c]:
                    x_close = np.nan
                new[PRICE], new[FX], new[DAY], known = day_parts(
                    rows[r].opening_quantity, rows[r].opening_price, rows[r].opening_realised_pnl,
                    rows[r].accrued_before, uv, rows[r].inverse != 0, rows[r].outright != 0,
                    gained + realised, x, fees - before, close, df, x_close, carry)
            if not known or new[CARRY_UNKNOWN] != 0.0:
                new[DAY_UNKNOWN] = 1.0
            if new[CARRY_UNKNOWN] != 0.0:
                new[PNL_UNKNOWN] = 1.0
        own[r, 0], own[r, 1], own[r, 2] = price, value, unrealised
        a, b = leaf[r], instrument_leaf[r]
        leaf_changed[a], instrument_changed[b] = 1, 1
        for m in range(M):
            d = new[m] - contribution[r, m]
            contribution[r, m] = new[m]
            largest[m] = max(largest[m], abs(new[m]))
            leaf_sums[a, m] += d
            instrument_sums[b, m] += d


@hot_kernel
def _gains(new: np.ndarray, realised: float, unrealised: float, fees: float, funding: float) -> bool:
    """Fill the P&L of a position since inception and what of it is unknown; return whether all of it is known."""
    if is_figure(realised):
        new[REALISED] = realised
    else:
        new[REALISED_UNKNOWN] = new[PNL_UNKNOWN] = 1.0
    if is_figure(unrealised):
        new[UNREALISED] = unrealised
    else:
        new[UNREALISED_UNKNOWN] = new[PNL_UNKNOWN] = 1.0
    if is_figure(fees) and is_figure(funding):
        new[FEES], new[FUNDING] = fees, funding
    else:
        new[COSTS_UNKNOWN] = new[PNL_UNKNOWN] = 1.0
    return bool(new[PNL_UNKNOWN] == 0.0)


@hot_kernel
def _paid(r: int, paid: np.ndarray, rate: np.ndarray) -> tuple[float, float, float, float]:
    """Return fees, those of the days before, funding, that of the days before, in the firm's base currency."""
    fees, fees_before, funding, funding_before = 0.0, 0.0, 0.0, 0.0
    for k in range(paid.shape[1]):
        if paid[r, k].currency < 0:
            break
        if paid[r, k].amount == 0.0 and paid[r, k].before == 0.0:
            continue
        to_base = rate[paid[r, k].currency]
        if paid[r, k].kind == FUNDED:
            funding += paid[r, k].amount * to_base
            funding_before += paid[r, k].before * to_base
        else:
            fees += paid[r, k].amount * to_base
            fees_before += paid[r, k].before * to_base
    return fees, fees_before, funding, funding_before


@hot_kernel
def _greeks(new: np.ndarray, size: float, value: float, instrument: int, kind: np.ndarray, unit: np.ndarray) -> None:
    """Fill the cash Greeks of a position; without its inputs an option has none, which is counted."""
    if kind[instrument] == 0:
        new[DELTA] = value
    else:
        known = True
        for g in range(5):
            known = known and is_figure(size * unit[instrument, g])
        for g in range(5):
            new[DELTA + g] = size * unit[instrument, g] if known else 0.0
        new[NO_GREEKS] = 0.0 if known else 1.0


@kernel
def rows_to_value(rows: np.ndarray, count: int, instrument_changed: np.ndarray, currency_changed: np.ndarray,
                  paid: np.ndarray, out: np.ndarray) -> int:
    """Collect the live rows that a new snapshot touches; return how many."""
    n = 0
    for r in range(count):
        if rows[r].live == 0:
            continue
        hit = instrument_changed[rows[r].instrument] != 0 or currency_changed[rows[r].currency] != 0
        for k in range(paid.shape[1]):
            if paid[r, k].currency < 0:
                break
            hit = hit or currency_changed[paid[r, k].currency] != 0
        if hit:
            out[n] = r
            n += 1
    return n


@allocating_kernel
def recount(contribution: np.ndarray, ancestors: np.ndarray, count: int, nodes: np.ndarray,
            largest: np.ndarray) -> float:
    """Sum every node again from its rows, in row order, and put the sums in place; ``largest`` is what is there.

    Returns
    -------
    float
        The largest difference to the running sums, relative to the absolute sum of what is there, or to what was
        there and has gone: a sum that billions went through is only known to their last digit.
    """
    exact = np.zeros_like(nodes)
    size = np.zeros_like(nodes)
    now = np.zeros(M)
    for r in range(count):
        for m in range(M):
            now[m] = max(now[m], abs(contribution[r, m]))
        for k in range(ancestors.shape[1]):
            node = ancestors[r, k]
            if node >= 0:
                for m in range(M):
                    exact[node, m] += contribution[r, m]
                    size[node, m] += abs(contribution[r, m])
    worst = 0.0
    for i in range(nodes.shape[0]):
        for m in range(M):
            gap = abs(exact[i, m] - nodes[i, m]) / max(size[i, m], largest[m], 1.0)
            worst = max(worst, gap)
            nodes[i, m] = exact[i, m]
    largest[:] = now
    return worst


class RollUp:
    """The position matrix of one process and the sums of its nodes.

    Parameters
    ----------
    group_count : nodes a row lies under
    instrument_groups : how many of them, at the end, follow from the instrument alone
    """

    def __init__(self, group_count: int, instrument_groups: int = 0) -> None:
        self.group_count = group_count
        self._leaf_depth = group_count - instrument_groups
        #: rows of one account share a leaf, and rows in one instrument share another
        self.leaves, self.instrument_leaves = Leaves(self._leaf_depth, M), Leaves(instrument_groups, M)
        self.count = 0
        self.node_names: list[str] = []
        self.node_index: dict[str, int] = {}
        self._size(1024)
        self.nodes = np.zeros((256, M))
        self.touched = np.zeros(256, np.uint8)
        self.largest = np.zeros(M)
        self._scratch = np.zeros(M)

    def _size(self, n: int) -> None:
        old = self.count
        grown = [np.zeros(n, VALUED_DTYPE), np.full((n, FEE_SLOTS), _NOTHING, PAID_DTYPE), np.zeros((n, M)),
                 np.full((n, self.group_count), -1, np.int32), np.zeros((n, 3)), np.zeros(n, np.int32),
                 np.zeros(n, np.int32)]
        for new, name in zip(grown, self._COLUMNS, strict=True):
            if old:
                new[:old] = getattr(self, name)[:old]
            setattr(self, name, new)

    _COLUMNS = ("rows", "paid", "contribution", "ancestors", "own", "leaf", "instrument_leaf")

    rows: Any
    paid: Any
    contribution: Any
    ancestors: Any
    own: Any
    leaf: Any
    instrument_leaf: Any

    def new_row(self) -> int:
        """Open a row; the caller fills its columns and ancestors, then values it."""
        if self.count == len(self.rows):
            self._size(2 * self.count)
        self.count += 1
        return self.count - 1

    def node(self, name: str) -> int:
        """Return the index of a node, opening it if it is new."""
        index = self.node_index.get(name)
        if index is None:
            index = self.node_index[name] = len(self.node_names)
            self.node_names.append(name)
            if index == len(self.nodes):
                self.nodes = np.concatenate([self.nodes, np.zeros_like(self.nodes)])
                self.touched = np.concatenate([self.touched, np.zeros_like(self.touched)])
        return index

    def place(self, row: int, ancestors: list[int]) -> None:
        """Put a row under its nodes; what it contributed elsewhere is taken back first."""
        for k in range(self.group_count):
            node = self.ancestors[row, k]
            if node >= 0:
                self.nodes[node] -= self.contribution[row]
                self.touched[node] = 1
        self.contribution[row] = 0.0
        if self.ancestors[row].tolist() != ancestors:
            self.ancestors[row] = ancestors
            self.leaf[row] = self.leaves.of(tuple(ancestors[: self._leaf_depth]))
            self.instrument_leaf[row] = self.instrument_leaves.of(tuple(ancestors[self._leaf_depth :]))

    def value(self, which: np.ndarray, market: Market) -> None:
        """Value rows on a snapshot and roll the differences up."""
        leaves, instrument_leaves = self.leaves, self.instrument_leaves
        value_rows(self.rows, self.paid, self.contribution, self.leaf, leaves.sums, leaves.changed,
                   self.instrument_leaf, instrument_leaves.sums, instrument_leaves.changed, self.largest, which,
                   market.price, market.stale, market.prior_close, market.accrued, market.discount, market.rate,
                   market.rate_stale, market.prior_rate, market.close_begin, market.close_end, market.rate_begin,
                   market.rate_end, self.own, market.greek_kind, market.unit_greeks, self._scratch)
        leaves.carry_up(self.nodes, self.touched)
        instrument_leaves.carry_up(self.nodes, self.touched)

    def value_changed(self, market: Market) -> np.ndarray:
        """Value every row that the market's last changes touch; return which."""
        which = np.zeros(self.count, np.int64)
        n = rows_to_value(self.rows, self.count, market.instrument_changed, market.currency_changed,
                          self.paid, which)
        if n:
            self.value(which[:n], market)
        market.instrument_changed[:] = 0
        market.currency_changed[:] = 0
        return which[:n]

    def recount(self) -> float:
        """Replace the running sums by exact ones; return the drift found."""
        return float(recount(self.contribution, self.ancestors, self.count, self.nodes[: len(self.node_names)],
                             self.largest))

    def state_hash(self, names: Sequence[str]) -> str:
        """Return a digest of what every position adds to which nodes, whatever the order in which they came.

        Parameters
        ----------
        names : of the rows
        """
        live = [(names[r], r) for r in range(self.count) if self.rows["live"][r]]
        digest = hashlib.blake2b(digest_size=16)
        for name, r in sorted(live):
            above = [self.node_names[n] if n >= 0 else "" for n in self.ancestors[r].tolist()]
            digest.update("|".join((name, *above)).encode())
            # what has no sign bit of its own: -0.0 is 0.0
            digest.update((self.contribution[r] + 0.0).tobytes())
        return digest.hexdigest()

    def take_touched(self) -> np.ndarray:
        """Return the nodes touched since the last call."""
        found = np.flatnonzero(self.touched[: len(self.node_names)])
        self.touched[:] = 0
        return found

    def unpriced_rows(self, node: int, limit: int) -> np.ndarray:
        """Return up to ``limit`` rows under a node that have no value."""
        return self.rows_without(node, UNPRICED, limit)

    def rows_without(self, node: int, unknown: int, limit: int) -> np.ndarray:
        """Return up to ``limit`` rows under a node that a count of unknown figures (a metric) has counted."""
        under = (self.ancestors[: self.count] == node).any(axis=1)
        return np.flatnonzero(under & (self.contribution[: self.count, unknown] > 0))[:limit]
