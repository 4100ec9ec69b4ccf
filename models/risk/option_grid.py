"""Options revalued: in scenarios, and over a grid of spot moves that simulated paths are read off."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.contracts import INPUTS, exotic_columns
from models.jit import allocating_kernel, kernel
from models.premium_table import MONEYNESS, premium_at
from models.pricing.black_scholes import option_price
from models.pricing.exotic import exotic_price
from models.risk.node_cells import Held, add_edges
from models.risk.other_options import values_at

BLOCK = 512


@kernel
def option_vector(sign: float, s0: float, strike: float, t: float, vol: float, rate: float, carry: float,
                  american: bool, table: np.ndarray, moneyness: np.ndarray, moves: np.ndarray, vol_moves: np.ndarray,
                  rate_moves: np.ndarray, carry_moves: np.ndarray, out: np.ndarray) -> None:
    """Fill an option's change of price in every scenario: full revaluation, one straight loop."""
    base = option_price(sign, s0, strike, t, vol, rate, carry)
    for s in range(out.shape[0]):
        out[s] = option_price(sign, s0 * (1.0 + moves[s]), strike, t, max(vol + vol_moves[s], 1e-4),
                              rate + rate_moves[s], carry + carry_moves[s])
    if american:
        base += strike * premium_at(s0 / strike, moneyness, table)
        for s in range(out.shape[0]):
            spot = s0 * (1.0 + moves[s])
            out[s] = max(out[s] + strike * premium_at(spot / strike, moneyness, table), sign * (spot - strike))
    for s in range(out.shape[0]):
        out[s] -= base


@kernel
def exotic_vector(terms: np.ndarray, sign: float, s0: float, strike: float, t: float, vol: float, rate: float,
                  carry: float, moves: np.ndarray, vol_moves: np.ndarray, rate_moves: np.ndarray,
                  carry_moves: np.ndarray, out: np.ndarray) -> None:
    """Fill a barrier's or digital's change of price in every scenario; a spot beyond the barrier has touched it."""
    base = exotic_price(terms, sign, s0, strike, t, vol, rate, carry)
    for s in range(out.shape[0]):
        out[s] = exotic_price(terms, sign, s0 * (1.0 + moves[s]), strike, t, max(vol + vol_moves[s], 1e-4),
                              rate + rate_moves[s], carry + carry_moves[s]) - base


@allocating_kernel
def _grid(sign: np.ndarray, strike: np.ndarray, t: np.ndarray, vol: np.ndarray, rate: np.ndarray, carry: np.ndarray,
          american: np.ndarray, exotics: np.ndarray, spot: np.ndarray, tables: np.ndarray, moneyness: np.ndarray,
          moves: np.ndarray, out: np.ndarray) -> None:
    h, n = 1e-4, moves.shape[0]
    all_moves = np.empty(n + 3)
    all_moves[:n] = moves
    all_moves[n:] = np.array([0.0, h, -h])
    for k in range(out.shape[0]):
        s0, row = spot[k], out[k]
        w, strike_k, t_k, v, r, b = sign[k], strike[k], t[k], vol[k], rate[k], carry[k]
        if exotics[k, 0] >= 0.0:
            for j in range(n + 3):
                row[j] = exotic_price(exotics[k], w, s0 * (1.0 + all_moves[j]), strike_k, t_k, v, r, b)
        else:
            for j in range(n + 3):
                row[j] = option_price(w, s0 * (1.0 + all_moves[j]), strike_k, t_k, v, r, b)
        if american[k] != 0:
            for j in range(n + 3):
                s = s0 * (1.0 + all_moves[j])
                row[j] = max(row[j] + strike_k * premium_at(s / strike_k, moneyness, tables[k]), w * (s - strike_k))
        slope = (out[k, n + 1] - out[k, n + 2]) / (2.0 * h)
        for j in range(n):
            out[k, j] = out[k, j] - out[k, n] - slope * moves[j]


def gamma_grid(options: Any, tables: np.ndarray, price: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Return each option's P&L beyond its delta, float64[options, moves], per unit in its own currency."""
    out = np.empty((len(options), len(moves) + 3))
    sign, strike, t, vol, rate, carry = (np.ascontiguousarray(options[f]) for f in INPUTS)
    _grid(sign, strike, t, vol, rate, carry, np.ascontiguousarray(options["american"]), exotic_columns(options),
          price[options["underlying"]], tables, MONEYNESS, moves, out)
    normal = np.flatnonzero(options["normal"] != 0)
    if len(normal):
        rows, spot, h = options[normal], price[options["underlying"][normal]][:, None], 1e-4
        found = values_at(rows, spot * (1.0 + np.concatenate([moves, (0.0, h, -h)])))
        slope = (found[:, -2:-1] - found[:, -1:]) / (2.0 * h)
        out[normal, : len(moves)] = found[:, : len(moves)] - found[:, -3:-2] - slope * moves
    return np.ascontiguousarray(out[:, : len(moves)])


def places(moves: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where simulated moves lie on an even grid: cell, and share of it (beyond the ends: more than one)."""
    x = (moves - grid[0]) / (grid[1] - grid[0])
    cell = np.clip(np.floor(x), 0, len(grid) - 2)
    return cell.astype(np.uint8), x - cell  # places are few: small numbers are read faster


@allocating_kernel
def held_by_option(quantity: np.ndarray, of: Held, base: np.ndarray, option: np.ndarray,
                   options: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List who holds how much of every option.

    Parameters
    ----------
    quantity : float64[held]
    base : nodes to look at
    option : by instrument, its number among ``options``, -1: none

    Returns
    -------
    int64[options + 1], int64[holders], float32[holders]
        Where an option's holders begin, the nodes, and how much they hold.
    """
    start = np.zeros(options + 1, np.int64)
    for b in range(base.shape[0]):
        for h in range(of.start[base[b]], of.start[base[b] + 1]):
            if quantity[h] != 0.0:
                start[option[of.columns[h]] + 1] += 1
    start[0] = 0  # what is not an option was counted there
    start[:] = np.cumsum(start)
    at, node, size = start[:-1].copy(), np.empty(start[-1], np.int64), np.empty(start[-1], np.float32)
    for b in range(base.shape[0]):
        for h in range(of.start[base[b]], of.start[base[b] + 1]):
            o = option[of.columns[h]]
            if quantity[h] != 0.0 and o >= 0:
                node[at[o]], size[at[o]] = base[b], quantity[h]
                at[o] += 1
    return start, node, size


@allocating_kernel
def add_paths(start: np.ndarray, node: np.ndarray, size: np.ndarray, of: np.ndarray, table: np.ndarray,
              cell: np.ndarray, share: np.ndarray, edges: np.ndarray, pnl: np.ndarray) -> None:
    """Add tabulated P&L to the paths of nodes and of those above; moves beyond the table's ends take the end's slope.

    An option's paths are looked up once for all who hold it, in blocks: those of all nodes stay in the second cache.

    Parameters
    ----------
    start, node, size : see `held_by_option`
    of : int64[options], underlying, as a row of ``cell``
    table : float32[options, moves], P&L of one unit
    cell, share : by underlying and path (see `places`)
    edges : of the `Tree`
    pnl : float32[nodes, paths]
    """
    slope = np.zeros(table.shape, table.dtype)
    slope[:, :-1] = table[:, 1:] - table[:, :-1]
    unit, earned = np.empty(BLOCK, table.dtype), np.empty((pnl.shape[0], BLOCK), pnl.dtype)
    for begin in range(0, pnl.shape[1], BLOCK):
        end = min(begin + BLOCK, pnl.shape[1])
        earned[:] = 0.0
        for o in range(of.shape[0]):
            if start[o] == start[o + 1]:
                continue
            row, step = table[o], slope[o]
            at, part = cell[of[o], begin:end], share[of[o], begin:end]
            for p in range(end - begin):
                unit[p] = row[at[p]] + part[p] * step[at[p]]
            for k in range(start[o], start[o + 1]):
                out, q = earned[node[k]], size[k]
                for p in range(end - begin):
                    out[p] += q * unit[p]
        add_edges(edges, earned)
        for n in range(pnl.shape[0]):
            whole, part_of_it = pnl[n, begin:end], earned[n]
            for p in range(end - begin):
                whole[p] += part_of_it[p]


@allocating_kernel
def largest(values: np.ndarray, of: Held, k: int, out: np.ndarray, totals: np.ndarray) -> None:
    """Fill where the k largest absolute values of every row are, the largest first, -1: no more; and sums of rows.

    Parameters
    ----------
    values : float64[held]
    out, totals : int64[rows, k], float64[rows]
    """
    size = np.empty(k)
    for r in range(out.shape[0]):
        size[:] = -1.0
        out[r, :], totals[r] = -1, 0.0
        for h in range(of.start[r], of.start[r + 1]):
            totals[r] += values[h]
            a = abs(values[h])
            if a > size[k - 1]:
                j = k - 1
                while j > 0 and size[j - 1] < a:
                    size[j], out[r, j] = size[j - 1], out[r, j - 1]
                    j -= 1
                size[j], out[r, j] = a, h
