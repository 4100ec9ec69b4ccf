"""Simulated P&L of every node on the same paths: factors and specific risk by delta, options by full revaluation.

Paths are kept in single precision: seven digits where the error of the simulation itself is one in a hundred.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from models.contracts import Contracts
from models.risk import monte_carlo
from models.risk.factor_set import PATHS, SEED, FactorSet
from models.risk.node_cells import Held, Tree
from models.risk.option_grid import add_paths, gamma_grid, held_by_option, places

#: an option's P&L beyond its delta, tabulated over these moves of its underlying
SPOT_MOVES = np.linspace(-0.4, 0.4, 33)
LEVEL = 0.99


class NodePaths:
    """Holds the draws and the columns of paths between runs."""

    def __init__(self, contracts: Contracts) -> None:
        self._contracts = contracts
        self._specific = np.random.Generator(np.random.PCG64(SEED + 1)).standard_normal(PATHS)
        self._of: FactorSet | None = None
        self._draws = np.zeros((0, PATHS), np.float32)
        self._pnl = np.zeros((0, PATHS), np.float32)
        self._places: tuple[Any, tuple[np.ndarray, ...]] | None = None

    def measure(self, fs: FactorSet, exposures: np.ndarray, specific: np.ndarray, held: Held, quantity: np.ndarray,
                tree: Tree, market: Any, columns: dict[str, np.ndarray]) -> dict[str, list[float]]:
        """Return VaR, ES and the standard error of VaR at 99 % of every node, base currency.

        Parameters
        ----------
        exposures : float64[nodes, factors], base currency per unit of a factor's move
        specific : float64[nodes], variance of what the factors leave
        held, quantity : which instruments nodes hold, and how much: float64[held]
        tree : how books make what lies above them
        columns : of the scenario book: unit and settlement currency by instrument
        """
        if self._of is not fs:
            self._of, self._places = fs, None
            self._draws = np.ascontiguousarray(np.vstack([fs.draws.T, self._specific]), np.float32)
        if len(self._pnl) < len(exposures):
            self._pnl = np.zeros((len(exposures), PATHS), np.float32)
        pnl = self._pnl[: len(exposures)]
        # own risk is one more factor, with one draw a path for all nodes
        loads = np.column_stack([exposures, np.sqrt(np.maximum(specific, 0.0))]).astype(np.float32)
        np.matmul(loads, self._draws, out=pnl)
        self._add_options(held, quantity, tree, market, columns, pnl)
        worst = monte_carlo.path_tails(pnl, monte_carlo.tail_size(PATHS, LEVEL))
        found = monte_carlo.tail_summary(worst.astype(np.float64), PATHS, LEVEL)
        return {name: np.asarray(values).tolist() for name, values in found.items()}

    def _add_options(self, held: Held, quantity: np.ndarray, tree: Tree, market: Any, columns: dict[str, np.ndarray],
                     pnl: np.ndarray) -> None:
        """Add what options earn beyond their delta on every path: full revaluation on a grid of moves, by book."""
        fs, options = self._of, self._contracts.options
        if fs is None or not len(options):
            return
        table = gamma_grid(options, self._contracts.tables, market.price, SPOT_MOVES)
        table[options["t_years"] <= 0.0] = 0.0
        worth = columns["unit"][options["instrument"]] * market.rate[columns["currency"][options["instrument"]]]
        order, unders, cell, share = self._of_options(fs, options, market)
        table = np.nan_to_num(table * worth[:, None])[order].astype(np.float32)
        option = np.full(len(market.mid), -1, np.int64)
        option[options["instrument"][order]] = np.arange(len(order))
        start, node, size = held_by_option(quantity, held, tree.base, option, len(order))
        add_paths(start, node, size, unders, table, cell, share, tree.edges, pnl)

    def _of_options(self, fs: FactorSet, options: Any, market: Any) -> tuple[np.ndarray, ...]:
        """Return options of known underlyings in the order of these, the underlying of each, and where paths lie.

        Where simulated moves lie on the grid only changes with the factors and the options there are.
        """
        state = (len(options), options["underlying"].tobytes())
        if self._places is None or self._places[0] != state:
            names = {k: n for n, k in market.instruments.items()}
            known = [u for u in np.unique(options["underlying"]).tolist() if names[u] in fs.loadings]
            found = [places(self._moves(fs, names[u]), SPOT_MOVES) for u in known]
            cell = np.array([c for c, _ in found], np.uint8).reshape(len(known), PATHS)
            share = np.array([s for _, s in found], np.float32).reshape(len(known), PATHS)
            order = np.argsort(options["underlying"], kind="stable")
            order = order[np.isin(options["underlying"][order], known)]
            unders = np.searchsorted(known, options["underlying"][order]).astype(np.int64)
            self._places = state, (order, unders, cell, share)
        return self._places[1]

    def _moves(self, fs: FactorSet, underlying: str) -> np.ndarray:
        """Return an underlying's simulated moves."""
        own = math.sqrt(max(fs.specific[underlying], 0.0)) * self._specific
        return np.asarray(fs.draws @ fs.loadings[underlying] + own)
