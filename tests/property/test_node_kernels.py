"""Figures of many nodes in one pass, against one node at a time in plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.risk import exposure
from models.risk import node_kernels as nk
from models.risk.quantile import age_weights, weighted_tail

SEEDS = st.integers(0, 2**32 - 1)


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
    nk.var_components(vectors, nodes, rank, var, quantity[nodes], np.ascontiguousarray(units.T), out)
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
    nk.liquidity_nodes(quantity, net, adv, spread, 0.2, out)
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
    nk.exposures_by_underlying(net, np.abs(net), under, cash, found)
    for n in range(4):
        by_underlying = np.bincount(under, np.where(cash, 0.0, net[n]), instruments)
        assert found[n] == pytest.approx([np.abs(by_underlying).sum(), np.abs(net[n][~cash]).sum()])
