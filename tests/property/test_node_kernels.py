"""Figures of many nodes in one pass, against one node at a time in plain NumPy."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import rollup as ru
from models.risk import exposure
from models.risk import node_kernels as nk
from models.risk.node_cells import CELL, Held, cells, group_shares, sums_by_group, tree_of, weighted_sums
from models.risk.option_grid import held_by_option, largest
from models.risk.quantile import age_weights, weighted_tail
from models.rollup import VALUED_DTYPE

SEEDS = st.integers(0, 2**32 - 1)


def held_of(values: np.ndarray) -> Held:
    """Return which columns of a row are not 0; ``values[values != 0]`` are in its order."""
    return Held(np.append(0, np.cumsum((values != 0).sum(axis=1))), np.nonzero(values)[1].astype(np.int32))


@settings(max_examples=60)
@given(SEEDS, st.integers(1, 30), st.integers(0, 6))
def test_shares_of_groups_and_the_largest(seed: int, instruments: int, groups: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1e4, (4, instruments)) * (rng.random((4, instruments)) < 0.5)
    group = rng.integers(-1, groups, instruments) if groups else np.full(instruments, -1)
    best, shares, whole = np.empty((4, 3), np.int64), np.empty((4, 3)), np.empty((4, 2))
    group_shares(values[values != 0], held_of(values), group, groups, best, shares, whole)
    top = np.empty((4, 3), np.int64)
    totals = np.empty(4)
    largest(values[values != 0], held_of(values), 3, top, totals)
    assert totals == pytest.approx(values.sum(axis=1), abs=1e-6)
    column = np.append(held_of(values).columns, 0)
    for row, found, share, (hhi, unknown), biggest in zip(values, best, shares, whole, top, strict=True):
        total = np.abs(row).sum() or 1.0
        size = np.array([np.abs(row[group == g]).sum() for g in range(groups)]) / total
        order = [g for g in np.argsort(-size, kind="stable") if size[g] > 0][:3]
        assert found.tolist() == order + [-1] * (3 - len(order))
        assert share == pytest.approx([*size[order], *[0.0] * (3 - len(order))])
        assert unknown == pytest.approx(np.abs(row[group < 0]).sum() / total)
        assert np.isnan(hhi) if (size > 0).sum() < 2 else hhi == pytest.approx((size**2).sum())
        held = np.flatnonzero(row)
        want = held[np.argsort(-np.abs(row[held]))][:3].tolist()
        assert [int(column[h]) if h >= 0 else -1 for h in biggest] == want + [-1] * (3 - len(want))


@settings(max_examples=60)
@given(SEEDS, st.integers(1, 300), st.sampled_from([0.9, 0.99, 1.0]), st.sampled_from([0.01, 0.05, 0.4]))
def test_aged_tails(seed: int, days: int, decay: float, p: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(0, 1e5, (5, days)).round(rng.integers(-5, 3))  # ties too
    weights = age_weights(days, decay)[::-1].copy()
    nodes, out = np.array([4, 0, 2]), np.empty((3, 2))
    nk.aged_tails(vectors, nodes, weights, p, out)
    for w, n in enumerate(nodes):
        assert out[w] == pytest.approx(weighted_tail(vectors[n], weights, str(1 - p) if p != 0.4 else "0.6"), rel=1e-9, abs=1e-6)


@settings(max_examples=60)
@given(SEEDS, st.integers(1, 60), st.integers(1, 60))
def test_components_and_worst_means(seed: int, days: int, rank: int) -> None:
    rng = np.random.default_rng(seed)
    rank = min(rank, days)
    units, quantity = rng.normal(0, 1, (7, days)), rng.normal(0, 100, (3, 7))
    nodes = np.array([2, 0, 1])
    units[4] = np.nan  # what is missing says nothing, and nobody holds it here
    quantity[:, 4] = 0.0
    vectors = np.vstack([quantity @ np.nan_to_num(units), np.zeros((1, days))])
    var = -np.sort(vectors, axis=1)[:, rank - 1]
    out, of, by_scenario = np.zeros((3, 7)), held_of(quantity[nodes]), np.full((days, 7), 9.0)
    nk.turn(units, by_scenario)
    assert np.array_equal(by_scenario, np.nan_to_num(units).T)
    kept = np.empty(len(of.columns))
    nk.var_components(vectors, nodes, rank, var, quantity[nodes][quantity[nodes] != 0], of, by_scenario, kept)
    out[quantity[nodes] != 0] = kept
    units = np.nan_to_num(units)
    for w, n in enumerate(nodes):
        window = np.argsort(vectors[n], kind="stable")[max(rank - 3, 0) : rank + 2]
        parts = -quantity[n] * units[:, window].mean(axis=1)
        assert out[w] == pytest.approx(parts * (var[n] / parts.sum()), rel=1e-6, abs=1e-6 * np.abs(var[n]))
        assert out[w].sum() == pytest.approx(var[n])
    means = np.empty(4)
    nk.mean_of_worst(vectors, rank, means)
    assert means == pytest.approx(np.sort(vectors, axis=1)[:, :rank].mean(axis=1))


@settings(max_examples=60)
@given(SEEDS, st.integers(1, 20))
def test_liquidity_and_exposures(seed: int, instruments: int) -> None:
    rng = np.random.default_rng(seed)
    quantity = rng.integers(-3, 4, (4, instruments)) * 1000.0
    net = quantity * rng.uniform(1, 90, instruments)
    adv = np.where(rng.random(instruments) < 0.2, np.nan, rng.uniform(10, 5_000, instruments))
    spread = np.where(rng.random(instruments) < 0.2, np.nan, rng.uniform(0, 0.01, instruments))
    out = np.empty((4, 9))
    nk.liquidity_nodes(quantity[quantity != 0], net[quantity != 0], held_of(quantity), adv, spread, 0.2, out)
    for n in range(4):
        held = quantity[n] != 0.0
        days = exposure.days_to_liquidate(quantity[n][held], adv[held], 0.2)
        buckets = exposure.liquidity_buckets(net[n][held], days)
        assert dict(zip(nk.BUCKET_NAMES, out[n], strict=False)) == pytest.approx(buckets or dict.fromkeys(nk.BUCKET_NAMES, 0.0))
        assert out[n, nk.COST] == pytest.approx(exposure.liquidity_cost(net[n][held], spread[held]))
        assert out[n, nk.MISSING] == np.isnan(days).sum() + np.isnan(spread[held]).sum()
        known = days[np.isfinite(days)]
        assert out[n, nk.DAYS_MAX] == pytest.approx(known.max()) if len(known) else np.isnan(out[n, nk.DAYS_MAX])
    under, cash = rng.integers(0, instruments, instruments), rng.random(instruments) < 0.2
    found = np.empty((4, 2))
    nk.exposures_by_underlying(net[net != 0], np.abs(net)[net != 0], held_of(net), under, cash, found)
    for n in range(4):
        by_underlying = np.bincount(under, np.where(cash, 0.0, net[n]), instruments)
        assert found[n] == pytest.approx([np.abs(by_underlying).sum(), np.abs(net[n][~cash]).sum()])


@settings(max_examples=60)
@given(SEEDS, st.integers(1, 20), st.integers(1, 4))
def test_weighted_and_grouped_sums_and_who_holds_options(seed: int, instruments: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(-3, 4, (5, instruments)) * 10.0
    of, kept = held_of(values), values[values != 0]
    weights, out = rng.normal(0, 1, (instruments, width)), np.full((5, width), 9.0)
    weighted_sums(kept, of, weights, out)
    assert out == pytest.approx(values @ weights, abs=1e-9)
    group, sums = rng.integers(-1, width, instruments), np.full((5, width), 9.0)
    sums_by_group(kept, of, group, sums)
    assert sums == pytest.approx(np.column_stack([values[:, group == g].sum(axis=1) for g in range(width)]), abs=1e-9)
    options = rng.permutation(instruments)[: instruments // 2]
    number = np.full(instruments, -1, np.int64)
    number[options] = np.arange(len(options))
    base = np.array([3, 1])
    start, node, size = held_by_option(kept, of, base, number, len(options))
    found = [list(zip(node[a:b].tolist(), size[a:b].tolist(), strict=True)) for a, b in pairwise(start)]
    assert found == [[(n, values[n, i]) for n in base.tolist() if values[n, i]] for i in options.tolist()]


@settings(max_examples=40)
@given(SEEDS, st.integers(1, 40), st.booleans())
def test_cells_are_sums_over_rows(seed: int, count: int, shared: bool) -> None:
    """Books under two desks do not make a tree: then rows are added to every level of their own."""
    rng = np.random.default_rng(seed)
    book = rng.integers(0, 4, count)
    desk = rng.integers(4, 6, count) if shared else 4 + book // 2
    roll = SimpleNamespace(count=count, rows=np.zeros(count, VALUED_DTYPE), contribution=rng.normal(0, 1e6, (count, ru.M)),
                           ancestors=np.column_stack([book, desk, np.full(count, 6)]).astype(np.int32))
    roll.rows["instrument"], roll.rows["quantity"] = rng.integers(0, 5, count), rng.integers(-9, 9, count)
    roll.rows["live"] = rng.random(count) < 0.8
    roll.contribution[:, ru.UNPRICED] = rng.random(count) < 0.2
    place = rng.permutation(7)
    tree = tree_of(place[np.unique(roll.ancestors, axis=0)])
    held, out = cells(roll, place, tree, 7, 5)  # type: ignore[arg-type]
    live = roll.rows["live"] != 0
    for node in range(7):
        n = place[node]
        under = live & (roll.ancestors == node).any(axis=1)
        mine = np.unique(roll.rows["instrument"][under])
        assert held.columns[held.start[n] : held.start[n + 1]].tolist() == mine.tolist()
        for h, i in zip(range(held.start[n], held.start[n + 1]), mine, strict=True):
            these = under & (roll.rows["instrument"] == i)
            priced = these & (roll.contribution[:, ru.UNPRICED] == 0)
            want = [roll.rows["quantity"][priced].sum(), *(roll.contribution[these, getattr(ru, m.upper())].sum() for m in CELL[1:-1]),
                    np.abs(roll.contribution[these, ru.DELTA]).sum()]
            assert out[:, h] == pytest.approx(want, rel=1e-9, abs=1e-6)
