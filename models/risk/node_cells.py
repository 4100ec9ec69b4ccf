"""Sums of a valued book by (node, instrument): what attribution, concentration, liquidity and leverage start from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models import rollup as ru
from models.jit import allocating_kernel, kernel
from models.rollup import RollUp

#: per row sums kept by node and instrument; the last one adds up absolute deltas, position by position
CELL = ("quantity", "net", "gross", "day", "unrealised", "delta", "gamma", "vega", "gross_delta")
CELL_METRICS = np.array([ru.NET, ru.GROSS, ru.DAY, ru.UNREALISED, ru.DELTA, ru.GAMMA, ru.VEGA])


class Held(NamedTuple):
    """Which instruments every node holds, node after node: a fifth of them or less, so only these are kept.

    start : int64[nodes + 1], where a node's begin; its last one is before where the next one's begin
    columns : int32[held], instruments, ascending within a node; whatever is kept by held instrument is in this order
    """

    start: np.ndarray
    columns: np.ndarray


def all_columns(values: np.ndarray) -> Held:
    """Return that every row holds every column."""
    rows, columns = values.shape
    return Held(np.arange(rows + 1) * columns, np.tile(np.arange(columns, dtype=np.int32), rows))


class Tree(NamedTuple):
    """How sums of single nodes make those of the nodes above: bottom up, every edge once.

    base : int64[n], places that rows are added to directly
    levels : how many of a row's ancestors these are: 1, its book; all levels where books do not make a tree
    edges : int64[n, 2], (from, to), in the order they have to be added in
    """

    base: np.ndarray
    levels: int
    edges: np.ndarray


def tree_of(chains: np.ndarray) -> Tree:
    """Return how to add up.

    Parameters
    ----------
    chains : int64[books, levels], the place of every book and of the nodes above it, -1: none
    """
    if len(np.unique(chains[:, 0])) < len(chains):  # one book under two others: only rows know where they belong
        return Tree(np.unique(chains[chains >= 0]), chains.shape[1], np.zeros((0, 2), np.int64))
    edges = [_from_below(chains, k) for k in range(1, chains.shape[1])]
    return Tree(np.unique(chains[:, 0]), 1, np.concatenate([np.zeros((0, 2), np.int64), *edges]))


def _from_below(chains: np.ndarray, level: int) -> np.ndarray:
    """Return what adds up to the nodes of a level: the nodes of the highest level below that each lie under one."""
    mine = chains[chains[:, level] >= 0]
    for below in range(level - 1, -1, -1):
        pairs = np.unique(mine[:, [below, level]], axis=0)
        if (pairs >= 0).all() and len(np.unique(pairs[:, 0])) == len(pairs):
            return np.asarray(pairs[np.argsort(pairs[:, 1], kind="stable")])
    return np.zeros((0, 2), np.int64)  # not reached: a book lies under one node of a level


def cells(rollup: RollUp, place: np.ndarray, tree: Tree, nodes: int, instruments: int) -> tuple[Held, np.ndarray]:
    """Sum rows by (node, instrument): into their book, and from books into what lies above.

    Parameters
    ----------
    place : by node, its place among ``nodes``, -1: none

    Returns
    -------
    Held, float64[9, held]
        Which instruments every place holds, and of each the sums named in `CELL`.
    """
    known, start = np.zeros((nodes, instruments), np.uint8), np.zeros(nodes + 1, np.int64)
    _find_held(rollup.count, rollup.rows, rollup.ancestors, place, tree.levels, tree.edges, known, start)
    held = Held(start, np.empty(start[-1], np.int32))
    out = np.zeros((len(CELL), start[-1]))
    _fill_cells(rollup.count, rollup.rows, rollup.contribution, rollup.ancestors, place, CELL_METRICS, tree.levels,
                tree.edges, known, held, out)
    return held, out


@kernel
def _find_held(count: int, rows: np.ndarray, ancestors: np.ndarray, place: np.ndarray, levels: int, edges: np.ndarray,
               known: np.ndarray, start: np.ndarray) -> None:
    for r in range(count):
        if rows[r].live != 0 and ancestors[r, 0] >= 0:
            for k in range(levels):
                if ancestors[r, k] >= 0:
                    known[place[ancestors[r, k]], rows[r].instrument] = 1
    for e in range(edges.shape[0]):
        low, high = known[edges[e, 0]], known[edges[e, 1]]
        for i in range(known.shape[1]):
            high[i] |= low[i]
    for n in range(known.shape[0]):
        held = 0
        for i in range(known.shape[1]):
            held += known[n, i]
        start[n + 1] = start[n] + held


@allocating_kernel
def _fill_cells(count: int, rows: np.ndarray, contribution: np.ndarray, ancestors: np.ndarray, place: np.ndarray,
                metrics: np.ndarray, levels: int, edges: np.ndarray, known: np.ndarray, held: Held,
                out: np.ndarray) -> None:
    h, last, at = 0, metrics.shape[0] + 1, np.empty(known.shape, np.int32)
    for n in range(known.shape[0]):
        for i in range(known.shape[1]):
            if known[n, i] != 0:
                held.columns[h], at[n, i] = i, h
                h += 1
    for r in range(count):
        if rows[r].live == 0 or ancestors[r, 0] < 0:
            continue
        for k in range(levels):
            if ancestors[r, k] < 0:
                continue
            j = at[place[ancestors[r, k]], rows[r].instrument]
            if contribution[r, ru.UNPRICED] == 0.0:
                out[0, j] += rows[r].quantity
            for m in range(metrics.shape[0]):
                out[m + 1, j] += contribution[r, metrics[m]]
            out[last, j] += abs(contribution[r, ru.DELTA])
    for e in range(edges.shape[0]):
        low, high = edges[e, 0], at[edges[e, 1]]
        for m in range(out.shape[0]):
            for h in range(held.start[low], held.start[low + 1]):
                out[m, high[held.columns[h]]] += out[m, h]


@kernel
def weighted_sums(values: np.ndarray, of: Held, weights: np.ndarray, out: np.ndarray) -> None:
    """Fill the sum of values times the weights of their instruments, of every node.

    Parameters
    ----------
    values : float64[held]
    weights : float64[instruments, k]
    out : float64[nodes, k]
    """
    out[:] = 0.0
    for n in range(out.shape[0]):
        row = out[n]
        for h in range(of.start[n], of.start[n + 1]):
            weight, v = weights[of.columns[h]], values[h]
            for k in range(row.shape[0]):
                row[k] += v * weight[k]


@kernel
def sums_by_group(values: np.ndarray, of: Held, group: np.ndarray, out: np.ndarray) -> None:
    """Fill the sums of every node by the group of the instrument: float64[nodes, groups]; group -1: left out."""
    out[:] = 0.0
    for n in range(out.shape[0]):
        for h in range(of.start[n], of.start[n + 1]):
            if group[of.columns[h]] >= 0:
                out[n, group[of.columns[h]]] += values[h]


@kernel
def add_edges(edges: np.ndarray, out: np.ndarray) -> None:
    """Add rows of ``out`` to those above them, in the order of the edges."""
    for e in range(edges.shape[0]):
        low, high = out[edges[e, 0]], out[edges[e, 1]]
        for i in range(out.shape[1]):
            high[i] += low[i]


@kernel
def vectors_of(quantity: np.ndarray, of: Held, used: np.ndarray, unit: np.ndarray, base: np.ndarray,
               edges: np.ndarray, out: np.ndarray) -> None:
    """Fill the P&L of nodes in every scenario from some instruments alone: most books hold few of them.

    Parameters
    ----------
    quantity : float64[held]
    used : bool[instruments]
    unit : float64[instruments, scenarios]
    base, edges : of the `Tree`
    out : float64[nodes, scenarios]
    """
    out[:] = 0.0
    for b in range(base.shape[0]):
        row = out[base[b]]
        for h in range(of.start[base[b]], of.start[base[b] + 1]):
            i, q = of.columns[h], quantity[h]
            if used[i] and q != 0.0:
                v = unit[i]
                for s in range(row.shape[0]):
                    row[s] += q * v[s]
    add_edges(edges, out)


@kernel
def gross_by_group(count: int, rows: np.ndarray, contribution: np.ndarray, ancestors: np.ndarray, place: np.ndarray,
                   column: int, group: np.ndarray, levels: int, edges: np.ndarray, out: np.ndarray) -> None:
    """Sum the gross of rows by (node, group), where a row's group is that of one of the nodes it lies under.

    Parameters
    ----------
    column : of ``ancestors``, the node that says the group
    group : by node, its group
    levels, edges : of the `Tree`
    out : float64[nodes, groups + 1], zeroed here; the last column: without a group
    """
    out[:] = 0.0
    last = out.shape[1] - 1
    for r in range(count):
        if rows[r].live == 0 or ancestors[r, 0] < 0:
            continue
        by = ancestors[r, column]
        for k in range(levels):
            if ancestors[r, k] >= 0:
                out[place[ancestors[r, k]], group[by] if by >= 0 else last] += contribution[r, ru.GROSS]
    add_edges(edges, out)


@allocating_kernel
def group_shares(values: np.ndarray, of: Held, group: np.ndarray, groups: int, best: np.ndarray, held: np.ndarray,
                 whole: np.ndarray) -> None:
    """Fill the groups with the largest shares of the gross of every row, and what all of them come to.

    Parameters
    ----------
    values : float64[held]
    of : which columns of a row are not 0
    group : int64[columns], -1: none
    best, held : int64, float64[rows, top], groups and their shares, the largest first; -1 and 0: no more
    whole : float64[rows, 2]: Herfindahl-Hirschman index (NaN with fewer than two groups), share without a group
    """
    size, top = np.zeros(groups + 1), best.shape[1]
    there, met = np.empty(groups + 2, np.int64), np.zeros(groups + 1, np.uint8)
    for r in range(best.shape[0]):
        total, n = 0.0, 0
        for h in range(of.start[r], of.start[r + 1]):
            i = of.columns[h]
            a = abs(values[h])
            total += a
            g = group[i] if group[i] >= 0 else groups
            size[g] += a
            there[n] = g
            n += 1 - met[g]
            met[g] = 1
        best[r, :], held[r, :] = -1, 0.0
        several, index = 0, 0.0
        per, least = 1.0 / total if total > 0.0 else 0.0, 0.0
        whole[r, 1] = size[groups] * per
        for k in range(n):
            g = there[k]
            share = size[g] * per
            size[g], met[g] = 0.0, 0
            if g == groups:
                continue
            several += share > 0.0
            index += share * share
            if share > least:
                j = top - 1
                while j > 0 and held[r, j - 1] < share:
                    held[r, j], best[r, j] = held[r, j - 1], best[r, j - 1]
                    j -= 1
                held[r, j], best[r, j] = share, g
                least = held[r, top - 1]
        # with one contributor alone an index says nothing
        whole[r, 0] = index if several >= 2 else np.nan
