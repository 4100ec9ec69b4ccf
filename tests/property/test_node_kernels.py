"""Figures of many nodes in one pass, against one node at a time in plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.risk import exposure
from models.risk import node_kernels as nk
from models.risk.node_cells import Held, group_shares
from models.risk.option_grid import largest
from models.risk.quantile import age_weights, weighted_tail

SEEDS = st.integers(0, 2**32 - 1)


def held_of(values: np.ndarray) -> Held:
    """Return which columns of a row are not 0; what lies behind them must not matter."""
    columns = np.full(values.shape, 10**6, np.int32)
    for row, kept in zip(columns, values, strict=True):
        where = np.flatnonzero(kept)
        row[: len(where)] = where
    return Held(columns, (values != 0).sum(axis=1))


@settings(max_examples=60)
@given(SEEDS, st.integers(1, 30), st.integers(0, 6))
def test_shares_of_groups_and_the_largest(seed: int, instruments: int, groups: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1e4, (4, instruments)) * (rng.random((4, instruments)) < 0.5)
    group = rng.integers(-1, groups, instruments) if groups else np.full(instruments, -1)
    best, shares, whole = np.empty((4, 3), np.int64), np.empty((4, 3)), np.empty((4, 2))
    group_shares(values, held_of(values), group, groups, best, shares, whole)
    top = np.empty((4, 3), np.int64)
    largest(values, held_of(values), 3, top)
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
        assert biggest.tolist() == want + [-1] * (3 - len(want))


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
    vectors = np.vstack([quantity @ units, np.zeros((1, days))])
    nodes = np.array([2, 0, 1])
    var = -np.sort(vectors, axis=1)[:, rank - 1]
    out = np.empty((3, 7))
    nk.var_components(vectors, nodes, rank, var, quantity[nodes], held_of(quantity[nodes]), np.ascontiguousarray(units.T), out)
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
    nk.liquidity_nodes(quantity, net, held_of(quantity), adv, spread, 0.2, out)
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
    nk.exposures_by_underlying(net, np.abs(net), held_of(net), under, cash, found)
    for n in range(4):
        by_underlying = np.bincount(under, np.where(cash, 0.0, net[n]), instruments)
        assert found[n] == pytest.approx([np.abs(by_underlying).sum(), np.abs(net[n][~cash]).sum()])
