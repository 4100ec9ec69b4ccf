"""Simulated P&L of every node on the same paths: factors and specific risk by delta, options by full revaluation.

Paths are kept in single precision: seven digits where the error of the simulation itself is one in a hundred.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from models.contracts import Contracts
from models.jit import kernel
from models.risk import monte_carlo
from models.risk.factor_set import PATHS, SEED, FactorSet
from models.risk.option_grid import add_paths, gamma_grid, places

#: an option's P&L beyond its delta, tabulated over these moves of its underlying
SPOT_MOVES = np.linspace(-0.4, 0.4, 33)
LEVEL = 0.99


@kernel
def add_up(chains: np.ndarray, row_of: np.ndarray, paths: np.ndarray, pnl: np.ndarray) -> None:
    """Add the paths of books to the books themselves and to what lies above them.

    Parameters
    ----------
    chains : int64[books, levels], the place of every book and of the nodes above it
    row_of : by place, the row of ``paths`` of a book, -1: none
    """
    for c in range(chains.shape[0]):
        row = row_of[chains[c, 0]]
        if row < 0:
            continue
        for k in range(chains.shape[1]):
            n = chains[c, k]
            if n >= 0 and (k == 0 or n != chains[c, 0]):
                for p in range(paths.shape[1]):
                    pnl[n, p] += paths[row, p]


class NodePaths:
    """Holds the draws and the columns of paths between runs."""

    def __init__(self, contracts: Contracts) -> None:
        self._contracts = contracts
        self._specific = np.random.Generator(np.random.PCG64(SEED + 1)).standard_normal(PATHS)
        self._of: FactorSet | None = None
        self._draws = np.zeros((0, PATHS), np.float32)
        self._pnl = np.zeros((0, PATHS), np.float32)
        self._options = np.zeros((0, PATHS), np.float32)
        self._places: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def measure(self, fs: FactorSet, exposures: np.ndarray, specific: np.ndarray, quantity: np.ndarray,
                chains: np.ndarray, market: Any, columns: dict[str, np.ndarray]) -> dict[str, list[float]]:
        """Return VaR, ES and the standard error of VaR at 99 % of every node, base currency.

        Parameters
        ----------
        exposures : float64[nodes, factors], base currency per unit of a factor's move
        specific : float64[nodes], variance of what the factors leave
        quantity : float64[nodes, instruments]
        chains : int64[books, levels], the place of every book and of the nodes above it
        columns : of the scenario book: unit and settlement currency by instrument
        """
        if self._of is not fs:
            self._of, self._places = fs, {}
            self._draws = np.ascontiguousarray(np.vstack([fs.draws.T, self._specific]), np.float32)
        if len(self._pnl) < len(exposures):
            self._pnl = np.zeros((len(exposures), PATHS), np.float32)
        pnl = self._pnl[: len(exposures)]
        # own risk is one more factor, with one draw a path for all nodes
        loads = np.column_stack([exposures, np.sqrt(np.maximum(specific, 0.0))]).astype(np.float32)
        np.matmul(loads, self._draws, out=pnl)
        self._add_options(quantity, chains, market, columns, pnl)
        worst = np.empty((len(pnl), monte_carlo.tail_size(PATHS, LEVEL)), np.float32)
        monte_carlo.path_tails(pnl, worst.shape[1], worst)
        found = monte_carlo.tail_summary(worst.astype(np.float64), PATHS, LEVEL)
        return {name: np.asarray(values).tolist() for name, values in found.items()}

    def _add_options(self, quantity: np.ndarray, chains: np.ndarray, market: Any, columns: dict[str, np.ndarray],
                     pnl: np.ndarray) -> None:
        """Add what options earn beyond their delta on every path: full revaluation on a grid of moves, by book."""
        fs, options = self._of, self._contracts.options
        if fs is None or not len(options):
            return
        table = gamma_grid(options, self._contracts.tables, market.price, SPOT_MOVES)
        size = columns["unit"][options["instrument"]] * market.rate[columns["currency"][options["instrument"]]]
        table = np.nan_to_num(table * size[:, None])
        books = np.unique(chains[:, 0])
        held = quantity[books][:, options["instrument"]]
        books, held = books[np.abs(held).max(axis=1) > 0.0], held[np.abs(held).max(axis=1) > 0.0]
        if len(self._options) < len(books):
            self._options = np.zeros((len(books), PATHS), np.float32)
        paths = self._options[: len(books)]
        paths[:] = 0.0
        names = {k: n for n, k in market.instruments.items()}
        for under in np.unique(options["underlying"]).tolist():
            mine = options["underlying"] == under
            by_book = held[:, mine] @ table[mine]
            rows = np.flatnonzero(np.abs(by_book).max(axis=1) > 0.0)
            if names[under] in fs.loadings and len(rows):
                add_paths(rows, by_book.astype(np.float32), *self._moves(fs, names[under]), paths)
        row_of = np.full(len(quantity), -1, np.int64)
        row_of[books] = np.arange(len(books))
        add_up(chains, row_of, paths, pnl)

    def _moves(self, fs: FactorSet, underlying: str) -> tuple[np.ndarray, np.ndarray]:
        """Return where an underlying's simulated moves lie on the grid; they only change with the factors."""
        if underlying not in self._places:
            moves = (fs.draws @ fs.loadings[underlying]
                     + math.sqrt(max(fs.specific[underlying], 0.0)) * self._specific)
            cell, share = places(moves, SPOT_MOVES)
            self._places[underlying] = cell, share.astype(np.float32)
        return self._places[underlying]
