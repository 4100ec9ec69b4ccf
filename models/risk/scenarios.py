"""Scenario P&L: one vector per unit of every instrument, one vector per node, exact after every trade.

A unit vector is the P&L, in the firm's base currency, of one unit of an instrument in every scenario: full
revaluation for options, bonds and inverse contracts, the exchange rate moving along. Vectors add: a trade changes its
position's ancestors by (change of quantity) x (unit vector), whatever else the book holds.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from models.columns import grown
from models.contracts import INPUTS, Contracts, exotic_columns
from models.jit import allocating_kernel, inline_kernel, kernel
from models.premium_table import MONEYNESS
from models.reference import settlement_currency
from models.risk.factor_history import RATE_FACTOR, VOLATILITY_FACTOR, History, scenario_moves, stated
from models.risk.factor_moves import absolute_steps, currency_moves, move_absolutely, relative_to_now
from models.risk.node_cells import Held
from models.risk.node_kernels import turn, var_components
from models.risk.option_grid import exotic_vector, option_vector
from models.risk.other_options import revalue_other_options
from models.risk.quantile import node_tails, tail_count, worst_rank
from models.valued_book import OUTRIGHT, ValuedBook
from schemas.instrument_terms import OPTION_CLASSES, PAPER_CLASSES

LEVELS = (0.95, 0.975, 0.99)
LINEAR, INVERSE, OPTION, BOND, FORWARD = 0, 1, 2, 3, 4


@allocating_kernel
def unit_vectors(which: np.ndarray, kind: np.ndarray, factor: np.ndarray, currency: np.ndarray, outright: np.ndarray,
                 unit: np.ndarray, price: np.ndarray, accrued: np.ndarray, rate: np.ndarray,
                 currency_moves: np.ndarray, moves: np.ndarray, vol_factor: np.ndarray, rate_factor: np.ndarray,
                 base_rate_factor: np.ndarray, forward_years: np.ndarray, option_of: np.ndarray, sign: np.ndarray,
                 strike: np.ndarray, t_years: np.ndarray, vol: np.ndarray, riskless: np.ndarray, carry: np.ndarray,
                 on_future: np.ndarray, american: np.ndarray, exotics: np.ndarray, tables: np.ndarray,
                 underlying: np.ndarray, moneyness: np.ndarray, bond: np.ndarray, out: np.ndarray) -> None:
    """Fill the unit vectors of instruments; a missing input makes a vector NaN.

    Parameters
    ----------
    which : instruments to do
    kind, factor, currency, outright, unit : by instrument; ``factor`` -1: no history; ``unit`` = multiplier x quanto
    moves : float64[factors, scenarios]
    currency_moves : float64[currencies, scenarios], relative moves of base currency per unit
    accrued : by instrument, interest that is held with it, in units of price
    vol_factor, rate_factor, base_rate_factor : by instrument, -1: held; the last one is of a pair's base currency
    forward_years : by instrument, to the value date of a forward
    option_of : row of an option's terms by instrument, -1: none
    exotics : float64[options, 4], see `exotic_price`; a kind below 0 is a vanilla
    bond : float64[instruments, 2], first and second derivative of the price to its yield
    out : float64[instruments, scenarios]
    """
    still, change, carried = np.zeros(out.shape[1]), np.empty(out.shape[1]), np.empty(out.shape[1])
    for w in range(which.shape[0]):
        i = which[w]
        x, p, f = rate[currency[i]], price[i], factor[i]
        o = option_of[i]
        bad = not (x == x and p == p and unit[i] == unit[i])
        if f < 0 and not (kind[i] == BOND and rate_factor[i] >= 0):
            bad = True
        if kind[i] == OPTION and not bad:
            bad = o < 0 or not (vol[o] == vol[o] and riskless[o] == riskless[o] and carry[o] == carry[o]
                                and price[underlying[o]] == price[underlying[o]])
        if bad:
            out[i, :] = np.nan
            continue
        if kind[i] == OPTION:
            dv = moves[vol_factor[i]] if vol_factor[i] >= 0 else still
            dr = moves[rate_factor[i]] if rate_factor[i] >= 0 else still
            base = moves[base_rate_factor[i]] if base_rate_factor[i] >= 0 else still
            for s in range(out.shape[1]):  # a pair is carried at the difference of rates, a futures price not at all
                carried[s] = 0.0 if on_future[o] != 0 else dr[s] - base[s]
            if exotics[o, 0] >= 0.0:
                exotic_vector(exotics[o], sign[o], price[underlying[o]], strike[o], t_years[o], vol[o], riskless[o],
                              carry[o], moves[f], dv, dr, carried, change)
            else:
                option_vector(sign[o], price[underlying[o]], strike[o], t_years[o], vol[o], riskless[o], carry[o],
                              american[o] != 0, tables[o], moneyness, moves[f], dv, dr, carried, change)
        elif kind[i] == INVERSE:
            for s in range(out.shape[1]):
                change[s] = 1.0 / p - 1.0 / (p * (1.0 + moves[f, s]))
        elif kind[i] == BOND:
            for s in range(out.shape[1]):
                dy = moves[rate_factor[i], s] if rate_factor[i] >= 0 else 0.0
                change[s] = p * moves[f, s] if f >= 0 else 0.0
                if dy != 0.0:  # a bond without terms is missing where its yield moves, and only there
                    change[s] += bond[i, 0] * dy + 0.5 * bond[i, 1] * dy * dy
        elif kind[i] == FORWARD:
            for s in range(out.shape[1]):
                spread = moves[rate_factor[i], s] if rate_factor[i] >= 0 else 0.0
                if base_rate_factor[i] >= 0:
                    spread -= moves[base_rate_factor[i], s]
                change[s] = p * ((1.0 + moves[f, s]) * math.exp(spread * forward_years[i]) - 1.0)
        elif f < 0:
            change[:] = 0.0
        else:
            for s in range(out.shape[1]):
                change[s] = p * moves[f, s]
        # what is held outright moves with the exchange rate as a whole, a margined product only with its P&L
        held = p + accrued[i] if outright[i] != 0 else 0.0
        fx, row, size = currency_moves[currency[i]], out[i], unit[i] * x
        for s in range(out.shape[1]):
            row[s] = size * (change[s] * (1.0 + fx[s]) + held * fx[s])


@kernel
def add_rows(which: np.ndarray, quantity: np.ndarray, instrument: np.ndarray, live: np.ndarray, ancestors: np.ndarray,
             unit: np.ndarray, included: np.ndarray, missing: np.ndarray, vectors: np.ndarray,
             touched: np.ndarray) -> int:
    """Bring nodes up to date with rows whose quantity changed; return how many rows were added.

    Parameters
    ----------
    included : float64[rows], the quantity each node's vector already holds; NaN: counted as missing
    missing : int64[nodes], positions without a unit vector
    """
    n = 0
    for w in range(which.shape[0]):
        r = which[w]
        i = instrument[r]
        q = quantity[r] if live[r] != 0 else 0.0
        lacks = q != 0.0 and unit[i, 0] != unit[i, 0]
        had = included[r]
        was_missing = had != had
        d = (0.0 if lacks else q) - (0.0 if was_missing else had)
        for k in range(ancestors.shape[1]):
            node = ancestors[r, k]
            if node < 0:
                continue
            missing[node] += int(lacks) - int(was_missing)
            if d != 0.0:
                touched[node] = 1
                for s in range(vectors.shape[1]):
                    vectors[node, s] += d * unit[i, s]
        included[r] = np.nan if lacks else q
        n += 1
    return n


@allocating_kernel
def add_and_measure(which: np.ndarray, quantity: np.ndarray, instrument: np.ndarray, live: np.ndarray,
                    ancestors: np.ndarray, unit: np.ndarray, included: np.ndarray, missing: np.ndarray,
                    vectors: np.ndarray, touched: np.ndarray, measured: np.ndarray, ranks: np.ndarray,
                    tails: np.ndarray, var: np.ndarray, es: np.ndarray) -> int:
    """Bring nodes up to date with rows (see `add_rows`) and measure those they lie under; return how many."""
    add_rows(which, quantity, instrument, live, ancestors, unit, included, missing, vectors, touched)
    nodes = np.empty(which.shape[0] * ancestors.shape[1], np.int64)
    n = 0
    for w in range(which.shape[0]):
        for k in range(ancestors.shape[1]):
            node = ancestors[which[w], k]
            if node >= 0 and touched[node] != 0:
                touched[node], measured[node] = 0, 1
                nodes[n] = node
                n += 1
    node_tails(vectors, nodes[:n], ranks, tails, var, es)
    return n


@inline_kernel
def add_fours(of: np.ndarray, size: np.ndarray, unit: np.ndarray, out: np.ndarray) -> None:
    """Fill ``out`` with the sum of ``size`` times the unit vectors ``of``, four at a time."""
    out[:] = 0.0
    whole = of.shape[0] - of.shape[0] % 4
    for k in range(0, whole, 4):
        a, b, c, d = unit[of[k]], unit[of[k + 1]], unit[of[k + 2]], unit[of[k + 3]]
        p, q, r, t = size[k], size[k + 1], size[k + 2], size[k + 3]
        for s in range(out.shape[0]):
            out[s] += p * a[s] + q * b[s] + r * c[s] + t * d[s]
    for k in range(whole, of.shape[0]):
        v, p = unit[of[k]], size[k]
        for s in range(out.shape[0]):
            out[s] += p * v[s]


@allocating_kernel
def leaf_vectors(count: int, quantity: np.ndarray, instrument: np.ndarray, live: np.ndarray, leaf: np.ndarray,
                 unit: np.ndarray, included: np.ndarray, leaves: np.ndarray, lacking: np.ndarray, net: np.ndarray,
                 instrument_lacking: np.ndarray) -> None:
    """Sum the vectors of every leaf (account) and the firm's net quantity of every instrument from all rows.

    Parameters
    ----------
    leaves, lacking : float64[leaves, scenarios], int64[leaves]; zeroed here
    net, instrument_lacking : float64[instruments], int64[instruments]
    """
    lacking[:] = 0
    net[:] = 0.0
    instrument_lacking[:] = 0
    start = np.zeros(leaves.shape[0] + 1, np.int64)
    for r in range(count):
        q = quantity[r] if live[r] != 0 else 0.0
        i = instrument[r]
        if q != 0.0 and unit[i, 0] != unit[i, 0]:
            q = np.nan
            lacking[leaf[r]] += 1
            instrument_lacking[i] += 1
        elif q != 0.0:
            net[i] += q
            start[leaf[r] + 1] += 1
        included[r] = q
    start[:] = np.cumsum(start)
    at, of, size = start[:-1].copy(), np.empty(start[-1], np.int64), np.empty(start[-1])
    for r in range(count):  # leaf by leaf a sum stays in the nearest cache
        if included[r] == included[r] and included[r] != 0.0:
            k = at[leaf[r]]
            at[leaf[r]] += 1
            of[k], size[k] = instrument[r], included[r]
    for n in range(leaves.shape[0]):
        add_fours(of[start[n] : start[n + 1]], size[start[n] : start[n + 1]], unit, leaves[n])


@kernel
def add_leaves(nodes: np.ndarray, leaves: np.ndarray, lacking: np.ndarray, vectors: np.ndarray,
               missing: np.ndarray) -> None:
    """Add every leaf's vector to the nodes above it; ``nodes`` is int[leaves, depth], -1: none."""
    for leaf in range(nodes.shape[0]):
        for k in range(nodes.shape[1]):
            node = nodes[leaf, k]
            if node >= 0:
                missing[node] += lacking[leaf]
                for s in range(vectors.shape[1]):
                    vectors[node, s] += leaves[leaf, s]


@kernel
def add_instruments(held: np.ndarray, nodes: np.ndarray, net: np.ndarray, unit: np.ndarray, lacking: np.ndarray,
                    vectors: np.ndarray, missing: np.ndarray) -> None:
    """Add the firm's net quantity of every instrument to the nodes that group by instrument."""
    for h in range(held.shape[0]):
        i = held[h]
        for k in range(nodes.shape[1]):
            node = nodes[h, k]
            if node >= 0:
                missing[node] += lacking[i]
                if unit[i, 0] == unit[i, 0]:
                    for s in range(vectors.shape[1]):
                        vectors[node, s] += net[i] * unit[i, s]


class ScenarioBook:
    """Historical-simulation vectors of every node of a valued book.

    Parameters
    ----------
    typed : moves are shocks of prices and of rates that add up; else a past price has the rates of its day in it
    """

    def __init__(self, book: ValuedBook, contracts: Contracts, history: History, instrument_groups: int,
                 typed: bool = False) -> None:
        self.book, self.contracts, self.typed = book, contracts, typed
        self._given, self._kinds = history, dict[str, str]()
        #: groupings at the end of the ancestors that depend on the instrument, not on the account
        self.instrument_groups = instrument_groups
        self._take(history)
        days = self.moves.shape[1]
        self.unit = np.full((1024, days), np.nan)
        self.vectors = np.zeros((256, days))
        self.missing = np.zeros(256, np.int64)
        self.included = np.zeros(1024)
        self.touched, self.measured = np.zeros(256, np.uint8), np.zeros(256, np.uint8)
        self.ranks = np.array([worst_rank(days, v) for v in LEVELS])
        self.tails = np.array([float(tail_count(days, v)) for v in LEVELS])
        self.var = np.zeros((256, len(LEVELS)))
        self.es = np.zeros((256, len(LEVELS)))
        self.snapshot_id = 0
        self._by_scenario = np.zeros((0, 0))
        self.columns: dict[str, np.ndarray] = {}
        self._version = -1
        #: the factors whose moves are differences at the prices of now
        self.absolute: list[str] = []

    def _take(self, history: History) -> None:
        """Make the scenarios of a history."""
        self.history = history
        self.moves = np.ascontiguousarray(np.nan_to_num(scenario_moves(history).T))
        #: differences of prices, where they are known
        self.steps = None if history.steps is None else np.ascontiguousarray(np.nan_to_num(scenario_moves(replace(
            history, moves=history.steps, absolute=frozenset(history.factors))).T))

    @property
    def days(self) -> int:
        """Return the number of scenarios."""
        return int(self.moves.shape[1])

    def _grow(self) -> None:
        rollup, market = self.book.rollup, self.book.market
        while len(self.vectors) < len(rollup.nodes):
            n = len(self.vectors)
            self.vectors = np.concatenate([self.vectors, np.zeros_like(self.vectors)])
            self.var, self.es = (np.concatenate([a, np.zeros_like(a)]) for a in (self.var, self.es))
            self.missing, self.touched = grown(self.missing, 2 * n), grown(self.touched, 2 * n)
            self.measured = grown(self.measured, 2 * n)
        if len(self.included) < len(rollup.rows):
            n = len(rollup.rows)
            self.included = grown(self.included, n)
        if len(self.unit) < len(market.mid):
            self.unit = np.concatenate([self.unit, np.full((len(market.mid) - len(self.unit), self.days), np.nan)])

    def describe_instruments(self) -> None:
        """Look every instrument's factors and terms up; call it when reference data or contracts change."""
        book, market = self.book, self.book.market
        kinds = {name: r.moves for name, r in book.reference.instrument_records.items() if r.moves is not None}
        if kinds != self._kinds and not self.typed:
            self._kinds = dict(kinds)
            self._take(stated(self._given, self._kinds))
        n = len(market.mid)
        c: dict[str, np.ndarray] = {
            "kind": np.zeros(n, np.int64), "outright": np.zeros(n, np.int64), "unit": np.full(n, np.nan),
            "bond": np.full((n, 2), np.nan), "currency": np.zeros(n, np.int64)} | {
            name: np.full(n, -1, np.int64)
            for name in ("factor", "vol_factor", "rate_factor", "base_rate_factor", "option_of")}
        factor = self.history.index
        for name, k in market.instruments.items():
            record = book.reference.instrument_records.get(name)
            if record is None:
                continue
            c["currency"][k] = market.currency(settlement_currency(record))
            c["unit"][k] = float(record.multiplier * (record.quanto_rate or 1))
            c["outright"][k] = record.asset_class in OUTRIGHT
            option = self.contracts.option_row.get(name)
            under = record.underlying or ""
            c["option_of"][k] = -1 if option is None else option
            c["kind"][k] = (OPTION if record.asset_class in OPTION_CLASSES else INVERSE if record.inverse
                            else BOND if record.asset_class in PAPER_CLASSES
                            # a forward that has a history of its own moves as it did
                            else FORWARD if record.asset_class == "fx_forward" and name not in factor else LINEAR)
            c["factor"][k] = factor.get(under if c["kind"][k] == OPTION else name, factor.get(under, -1))
            c["vol_factor"][k] = factor.get(VOLATILITY_FACTOR + under, -1)
            c["rate_factor"][k] = factor.get(RATE_FACTOR + record.currency, -1)
            c["base_rate_factor"][k] = factor.get(RATE_FACTOR + market.pairs.get(under, ("", ""))[0], -1)
            if c["kind"][k] == BOND and name in factor and not self.typed:
                c["rate_factor"][k] = -1
            if record.asset_class == "cash":
                c["factor"][k] = -2  # its price is one: only the exchange rate moves
        self.columns = c
        self._version = book.reference.version

    def fill_units(self, which: np.ndarray | None = None) -> int:
        """Revalue unit vectors of instruments (all, or some) on the market as it stands; return how many."""
        self._grow()
        if self._version != self.book.reference.version or len(self.columns["kind"]) < len(self.book.market.mid):
            self.describe_instruments()
        c, market, o = self.columns, self.book.market, self.contracts.options
        which = np.arange(len(market.instruments)) if which is None else which
        for k, sensitivity in self.contracts.paper.sensitivity.items():
            c["bond"][k] = sensitivity
        cash = np.flatnonzero(c["factor"] == -2)
        terms = o if len(o) else np.zeros(1, o.dtype)
        tables = self.contracts.tables if len(o) else np.zeros((1, len(MONEYNESS)))
        factor = np.where(c["factor"] == -2, -1, c["factor"])
        sign, strike, t, vol, rate, carry = (np.ascontiguousarray(terms[f]) for f in INPUTS)
        steps = absolute_steps(market, self.history, self.moves, self.steps, self.typed)
        self.absolute, moves = sorted(steps), relative_to_now(market, self.history, self.moves, steps)
        fx = currency_moves(market, self.history, moves)
        # what a coin is worth is in the value of an option on it already
        discount = np.where(self.contracts.coin_by_instrument(len(market.mid)), 1.0, market.discount)
        unit_vectors(which, c["kind"], factor, c["currency"], c["outright"], c["unit"] * discount, market.price,
                     market.accrued, market.rate, fx, moves, c["vol_factor"], c["rate_factor"],
                     c["base_rate_factor"], self.contracts.forwards.years_of(len(market.mid)), c["option_of"], sign,
                     strike, t, vol, rate, carry, terms["future"].copy(), terms["american"].copy(),
                     exotic_columns(terms), tables, terms["underlying"].copy(), MONEYNESS, c["bond"], self.unit)
        of = c["currency"][cash]
        self.unit[cash] = (c["unit"][cash] * market.rate[of])[:, None] * fx[of]
        if steps:
            move_absolutely(self.book, c, steps, fx, self.unit)
        revalue_other_options(self.contracts, c, moves, steps, fx, self.typed, self.unit)
        return len(which)

    def rebuild(self, nodes: np.ndarray | None = None) -> None:
        """Sum every node's vector from nothing: leaves from rows, everything else from leaves and instruments.

        Parameters
        ----------
        nodes : whose VaR and ES are wanted (all); those of others are measured when `tail_of` asks for them
        """
        self._grow()
        rollup, count = self.book.rollup, self.book.rollup.count
        rows, n = rollup.rows[:count], rollup.leaves.count
        leaves, lacking = np.zeros((max(n, 1), self.days)), np.zeros(max(n, 1), np.int64)
        net, without = np.zeros(len(self.unit)), np.zeros(len(self.unit), np.int64)
        leaf_vectors(count, np.ascontiguousarray(rows["quantity"]), np.ascontiguousarray(rows["instrument"]),
                     np.ascontiguousarray(rows["live"]), rollup.leaf, self.unit, self.included, leaves, lacking, net,
                     without)
        self.vectors[: len(rollup.node_names)] = 0.0
        self.missing[:] = 0
        if n:
            add_leaves(rollup.leaves.nodes, leaves, lacking, self.vectors, self.missing)
        self._instrument_nodes(net, without)
        self.touched[:] = 0
        self.measured[:] = 0
        self.measure(np.arange(len(rollup.node_names)) if nodes is None else nodes)
        self.snapshot_id = self.book.snapshot_id

    def _instrument_nodes(self, net: np.ndarray, without: np.ndarray) -> None:
        rollup, count = self.book.rollup, self.book.rollup.count
        row_of = np.full(len(net), -1, np.int64)
        row_of[rollup.rows["instrument"][:count]] = np.arange(count)
        held = np.flatnonzero(row_of >= 0)
        add_instruments(held, rollup.ancestors[row_of[held]][:, -self.instrument_groups:].copy(), net, self.unit,
                        without, self.vectors, self.missing)

    def update(self, which: np.ndarray) -> int:
        """Take rows whose quantity changed in and measure their ancestors; return how many numbers were touched."""
        rollup = self.book.rollup
        if len(self.vectors) < len(rollup.nodes) or len(self.included) < len(rollup.rows):
            self._grow()
        rows = rollup.rows
        nodes = add_and_measure(which, rows["quantity"], rows["instrument"], rows["live"], rollup.ancestors, self.unit,
                                self.included, self.missing, self.vectors, self.touched, self.measured, self.ranks,
                                self.tails, self.var, self.es)
        return int(len(which) * rollup.ancestors.shape[1] * self.days + nodes * self.days)

    def measure(self, nodes: np.ndarray) -> None:
        """Fill VaR and ES of nodes, exactly, at every level."""
        node_tails(self.vectors, nodes, self.ranks, self.tails, self.var, self.es)
        self.measured[nodes] = 1

    def tail_of(self, node: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a node's VaR and ES by level."""
        if not self.measured[node]:
            self.measure(np.array([node]))
        return self.var[node], self.es[node]

    def level_index(self, level: float) -> int:
        """Return the column of a confidence level."""
        return LEVELS.index(level)

    def components(self, nodes: np.ndarray, quantity: np.ndarray, of: Held, level: float) -> np.ndarray:
        """Return each instrument's part of the VaR of nodes (`var_components`): float64[held]."""
        k = self.level_index(level)
        out, instruments = np.empty(len(quantity)), len(self.book.market.instruments)
        if self._by_scenario.shape != (self.days, instruments):
            self._by_scenario = np.zeros((self.days, instruments))
        turn(self.unit, self._by_scenario)
        var_components(self.vectors, nodes, int(self.ranks[k]), np.ascontiguousarray(self.var[:, k]),
                       quantity, of, self._by_scenario, out)
        return out


def what_if(vector: np.ndarray, change: np.ndarray, rank: int) -> tuple[float, float]:
    """Return a node's VaR (now, with a change added): the incremental effect is their difference."""
    both: Any = np.partition(vector, rank - 1)[rank - 1], np.partition(vector + change, rank - 1)[rank - 1]
    return -float(both[0]), -float(both[1])
