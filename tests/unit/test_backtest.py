"""Backtests against scipy and by hand; the regulator's tables; refusals that name what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from typer.testing import CliRunner

from app.cli import cli
from models.risk import backtest as bt
from models.risk.parametric import components, salvaged
from models.risk.performance import drawdown_episodes, regression, update_drawdown

#: not rejected at 95 %: (days, level) -> exceptions
ACCEPTED = {(250, 0.01): (1, 6), (250, 0.025): (3, 11), (250, 0.05): (7, 19), (500, 0.01): (2, 9), (1000, 0.01): (5, 16)}


@pytest.mark.parametrize("case", ACCEPTED.items(), ids=str)
def test_kupiecs_table_of_what_is_not_rejected(case: tuple[tuple[int, float], tuple[int, int]]) -> None:
    (n, p), (low, high) = case
    kept = [x for x in range(n // 2) if bt.kupiec(n, x, p)["lr_pof"] < 3.841]
    assert (kept[0], kept[-1]) == (low, high)


@given(st.integers(1, 2000), st.floats(0.001, 0.2), st.floats(0, 1))
def test_kupiec_equals_scipy(n: int, p: float, share: float) -> None:
    x = round(share * n)
    got = bt.kupiec(n, x, p)
    want = 2 * (stats.binom.logpmf(x, n, x / n) - stats.binom.logpmf(x, n, p))
    assert got["lr_pof"] == pytest.approx(want, rel=1e-7, abs=1e-7)
    assert got["p_value"] == pytest.approx(stats.chi2.sf(max(want, 0), 1), rel=1e-5, abs=1e-9)


def test_zones_and_multipliers_of_both_frameworks() -> None:
    got = [bt.traffic_light(k) for k in range(12)]
    assert [g["zone"] for g in got] == ["green"] * 5 + ["amber"] * 5 + ["red"] * 2
    assert [round(g["multiplier"], 2) for g in got] == [1.5] * 5 + [1.7, 1.76, 1.83, 1.88, 1.92, 2.0, 2.0]
    assert [round(g["multiplier_1996"], 2) for g in got][5:11] == [3.4, 3.5, 3.65, 3.75, 3.85, 4.0]


def test_christoffersen_sees_clusters_that_kupiec_does_not() -> None:
    spread, clustered = np.zeros(500), np.zeros(500)
    spread[::100], clustered[100:105] = 1, 1
    assert bt.kupiec(500, 5, 0.01)["p_value"] > 0.9
    assert bt.christoffersen(spread.astype(int), 0.01)["p_value_independence"] > 0.5
    assert bt.christoffersen(clustered.astype(int), 0.01)["p_value_independence"] < 1e-4


def test_the_command_on_a_file(tmp_path: Path) -> None:
    file = tmp_path / "days.csv"
    file.write_text("pnl,var\n" + "\n".join(f"{-120 if k % 50 == 0 else 10},100" for k in range(250)))
    got = json.loads(CliRunner().invoke(cli, ["backtest", "firm", str(file)]).stdout)
    assert (got["days"], got["exceptions"], got["zone"]) == (250, 5, "amber")
    file.write_text("pnl,var\n-120,100\n,100\n-120,\n5,100\n")
    got = json.loads(CliRunner().invoke(cli, ["backtest", "firm", str(file)]).stdout)
    assert (got["days"], got["exceptions"], got["zone_days"]) == (2, 1, 2) and "lr_independence" not in got, "missing by pair"
    for bad in ("pnl,var\n-120,100\nmuch,100\n", "pnl,var\n,\n", "pnl,var\nnan,100\n"):
        file.write_text(bad)
        assert CliRunner().invoke(cli, ["backtest", "firm", str(file)]).exit_code == 1
    file.write_text("a,b\n1,2\n")
    assert CliRunner().invoke(cli, ["backtest", "firm", str(file)]).exit_code == 1


@given(st.integers(0, 10_000))
def test_regression_equals_statsmodels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(40, 3)) * [1, 1e4, 1e-3] + [0, 1e5, 3], rng.normal(size=40)
    got, want = regression(y, x), sm.OLS(y, sm.add_constant(x, prepend=False)).fit()
    np.testing.assert_allclose([*got["coefficients"], got["intercept"]], want.params, rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(got["standard_errors"], want.bse, rtol=1e-6)
    assert got["r_squared"] == pytest.approx(want.rsquared, abs=1e-10)


@given(st.integers(0, 10_000))
def test_components_sum_and_salvage_keeps_variances(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(5, 5))
    broken = a @ a.T
    broken[0, 1] = broken[1, 0] = 3 * np.sqrt(broken[0, 0] * broken[1, 1])  # no covariance any more
    fixed = salvaged(broken)
    assert np.linalg.eigvalsh(fixed).min() > -1e-9 * np.trace(fixed)
    np.testing.assert_allclose(np.diag(fixed), np.diag(broken), rtol=1e-9)
    found = components(rng.normal(size=5) * 1e6, fixed, 2.33)
    assert np.sum(found["component"]) == pytest.approx(found["portfolio"], rel=1e-9)


@given(st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=60))
def test_live_drawdown_equals_the_series(returns: list[float]) -> None:
    state, value = np.zeros((1, 8)), 1.0
    update_drawdown(np.array([1.0]), np.zeros(1), np.array([0]), 0, 0, state)
    for k, r in enumerate(returns, 1):
        value *= 1 + r
        update_drawdown(np.array([value]), np.zeros(1), np.array([0]), k, 0, state)
    episodes = drawdown_episodes(np.array(returns))
    assert state[0, 2] == pytest.approx(min((e.depth for e in episodes), default=0.0), abs=1e-12)
    before = state[0, 6]
    update_drawdown(np.array([value + 5.0]), np.array([5.0]), np.array([0]), 99, 0, state)  # money paid in moves no drawdown by itself
    assert state[0, 6] >= before - 1e-12
