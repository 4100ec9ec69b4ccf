"""Calculators of risk and statistics over their whole domain, against numpy, scipy, statsmodels and pandas."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from app.calc import calculate
from app.calc.risk import ES_RULES
from models.risk.parametric import cornish_fisher, cornish_fisher_slope, sample_moments
from models.risk.quantile import RULES

#: with ties, zeros and gaps
RETURN = st.one_of(st.sampled_from([0.0, 0.01, -0.01, 0.02]), st.floats(-0.9, 2.0).map(lambda v: round(v, 6)))
SERIES = st.lists(RETURN, min_size=1, max_size=60)
GAPPY = st.lists(st.one_of(RETURN, st.none()), min_size=1, max_size=60)
LEVEL = st.sampled_from([0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.999])


def known(series: list[float | None]) -> np.ndarray:
    return np.array([v for v in series if v is not None], float)


def field_of(name: str, **line: Any) -> str | None:
    """Return the field that a line is refused for."""
    return calculate(name, line).get("error", {}).get("field")


@settings(max_examples=150)
@given(SERIES, LEVEL, st.sampled_from(RULES), st.sampled_from(ES_RULES), st.one_of(st.none(), st.sampled_from([0.5, 0.94, 0.99, 1.0])))
def test_es_is_never_below_var_of_one_distribution(series: list[float], level: float, rule: str, es_rule: str, decay: float | None) -> None:
    how = {"decay": decay} if decay else {"rule": rule, "es_rule": es_rule}
    got = calculate("var", {"returns": series, "level": level} | how)
    if "error" in got:
        assert got["error"]["field"] == "es_rule" and rule in ("sample", "exclusive") and es_rule != "fractional"
        return
    assert got["es"] >= got["var"] - 1e-12
    losses = -np.array(series)
    assert losses.min() - 1e-12 <= got["var"] <= losses.max() + 1e-12 and got["es"] <= losses.max() + 1e-12
    if decay:  # VaR is the quantile, ES the mean of the same quantile over the tail
        order = np.argsort(-losses, kind="stable")
        w = (decay ** np.arange(len(series))[::-1])[order]
        w /= w.sum()
        middle = np.cumsum(w) - w / 2

        def quantile(p: float) -> float:
            return float(np.interp(p, middle, losses[order]))

        assert got["var"] == pytest.approx(quantile(round(1 - level, 12)), abs=1e-9)
        at = np.linspace(0, 1 - level, 20_001)
        assert got["es"] == pytest.approx(float(np.interp((at[1:] + at[:-1]) / 2, middle, losses[order]).mean()), abs=1e-4)


@settings(max_examples=40)
@given(st.lists(RETURN, min_size=2, max_size=60), LEVEL, st.sampled_from(["population", "sample"]))
def test_gaussian_var_against_scipy(series: list[float], level: float, sd: str) -> None:
    r = np.array(series)
    got = calculate("var", {"returns": series, "level": level, "method": "gaussian", "sd": sd})
    mean, dev = float(r.mean()), float(r.std(ddof=sd == "sample"))
    assert got["var"] == pytest.approx(-stats.norm.ppf(1 - level, mean, dev) if dev else -mean, abs=1e-9)
    if dev > 1e-6:
        tail, _ = integrate.quad(lambda p: stats.norm.ppf(p, mean, dev), 0, 1 - level)
        assert got["es"] == pytest.approx(-tail / (1 - level), rel=1e-5, abs=1e-7)


@settings(max_examples=120)
@given(st.lists(st.one_of(RETURN, st.just(0.0), st.sampled_from([-0.9, 2.0])), min_size=3, max_size=100), st.sampled_from([0.9, 0.95, 0.99, 0.999]))
def test_modified_var_rises_with_its_level_or_is_refused(series: list[float], level: float) -> None:
    _, skew, kurtosis = sample_moments(np.array(series))
    z = np.linspace(stats.norm.ppf(1 - level), stats.norm.ppf(0.1), 400)
    slopes = np.gradient(cornish_fisher(z, skew, kurtosis), z) if level > 0.9 else np.array([cornish_fisher_slope(0.9, 0.9, skew, kurtosis)])
    assert cornish_fisher_slope(0.9, level, skew, kurtosis) == pytest.approx(slopes.min(), abs=0.02 * (1 + abs(slopes).max()))
    got = calculate("var", {"returns": series, "level": [0.9, level], "method": "modified"})
    if cornish_fisher_slope(0.9, level, skew, kurtosis) <= 0:
        assert got["error"]["field"] == "returns" and got["error"]["value"]["skewness"] == pytest.approx(skew)
    else:
        assert got["var"][str(level)] >= got["var"]["0.9"] - 1e-12


@settings(max_examples=100)
@given(GAPPY, st.sampled_from([12, 52, 252]), st.sampled_from([0.0, 0.001, -0.01]))
def test_statistics_of_returns_against_pandas(series: list[float | None], periods: int, mar: float) -> None:
    r = pd.Series(known(series))
    got = calculate("performance", {"returns": series, "periods_per_year": periods, "mar": mar, "risk_free": mar})
    if not len(r):
        assert got["error"]["field"] == "returns"
        return
    assert got["n"] == len(r) and got["mean"] == pytest.approx(r.mean(), abs=1e-12)
    same = r.nunique() == 1 or len(r) == 1
    assert (got["sharpe"] is None) == same and ("sharpe" in got.get("undefined", {})) == same
    if not same:
        assert got["sharpe"] == pytest.approx((r.mean() - mar) / r.std() * math.sqrt(periods), rel=1e-9, abs=1e-9)
    assert (got["sortino"] is None) == (r.min() >= mar - 1e-15)
    wealth = (1 + r).cumprod()
    deepest = (wealth / wealth.cummax().clip(lower=1.0) - 1).min()
    assert got["max_drawdown"] == pytest.approx(min(deepest, 0.0), abs=1e-12)
    if got["annual_return"] is not None:
        assert 1 + got["annual_return"] == pytest.approx(math.exp(periods * np.log1p(r).mean()), rel=1e-9)


@settings(max_examples=100)
@given(st.lists(st.one_of(st.floats(0.01, 1e4).map(lambda v: round(v, 3)), st.sampled_from([100.0, 50.0]), st.none()), min_size=1, max_size=40))
def test_an_equity_curve_and_its_returns_have_the_same_drawdowns(equity: list[float | None]) -> None:
    """The same episodes by the same dates, whichever of the two is given; a gap is left out with its date."""
    dates = [f"d{k}" for k in range(len(equity))]
    got = calculate("drawdown", {"equity": equity, "dates": dates, "top": 99})
    kept = [(d, v) for d, v in zip(dates, equity, strict=True) if v is not None]
    if not kept:
        assert got["error"]["field"] == "equity"
        return
    values = pd.Series([v for _, v in kept])
    below = values / values.cummax() - 1
    assert got["max_drawdown"] == pytest.approx(below.min(), abs=1e-12)
    assert sum(e["length"] - (e["to"] is not None) for e in got["episodes"]) == int((below < 0).sum())
    for e in got["episodes"]:
        start, trough = (next(k for k, (d, _) in enumerate(kept) if d == e[f]) for f in ("from", "trough_at"))
        assert below[start] < 0 and start > 0 and below[start - 1] == 0 and below[trough] == pytest.approx(e["depth"], abs=1e-12)
    if len(kept) > 1:
        returns = (values / values.shift() - 1)[1:].tolist()
        other = calculate("drawdown", {"returns": returns, "dates": [d for d, _ in kept[1:]], "top": 99})
        if min((abs(values.iloc[k] / values.iloc[:k].max() - 1) for k in range(1, len(kept))), default=1) > 1e-9:
            assert [(e["from"], e["trough_at"], e["to"]) for e in other["episodes"]] == [(e["from"], e["trough_at"], e["to"]) for e in got["episodes"]]


@settings(max_examples=100)
@given(st.lists(st.tuples(st.one_of(st.integers(-3, 3), st.none()), st.one_of(st.integers(0, 3), st.none())), min_size=1, max_size=300), st.sampled_from([0.9, 0.95, 0.99]))
def test_backtests_drop_what_is_missing_by_pair(days: list[tuple[int | None, int | None]], level: float) -> None:
    got = calculate("backtest", {"pnl": [p for p, _ in days], "var": [v for _, v in days], "level": level})
    pairs = [(p, v) for p, v in days if p is not None and v is not None]
    if not pairs:
        assert got["error"]["field"] == "pnl"
        return
    hits = [int(-p > v) for p, v in pairs]
    assert (got["days"], got["exceptions"]) == (len(pairs), sum(hits))
    n, k = min(len(hits), 250), sum(hits[-250:])
    assert got["zone_days"] == n and "250" in got["zone_basis"]
    assert got["cumulative_probability"] == pytest.approx(stats.binom.cdf(k, n, round(1 - level, 12)), rel=1e-9)
    assert got["lr_pof"] == pytest.approx(2 * (stats.binom.logpmf(sum(hits), len(hits), sum(hits) / len(hits))
                                               - stats.binom.logpmf(sum(hits), len(hits), round(1 - level, 12))), abs=1e-7)
    whole = [None if p is None or v is None else int(-p > v) for p, v in days]
    assert calculate("backtest", {"hits": whole, "level": level}) | {"conventions": 0} == got | {"conventions": 0}
    follows = [(a, b) for a, b in itertools.pairwise(whole) if a is not None and b is not None]
    assert (got["lr_independence"] is None) == (not follows), "a day after a gap follows no day"


@settings(max_examples=80)
@given(st.integers(2, 5), st.integers(0, 10_000), st.floats(-1, 1), st.sampled_from([1.0, 1e-6, 1e6]))
def test_no_matrix_that_is_none_has_a_var(n: int, seed: int, shift: float, scale: float) -> None:
    """What numpy says has a negative eigenvalue is refused, however small its part of the matrix, or repaired and said."""
    rng = np.random.default_rng(seed)
    sd = np.exp(rng.normal(size=n) * 4) * scale
    rho = np.clip(np.eye(n) + shift * np.triu(rng.uniform(0, 1, (n, n)), 1), -1.5, 1.5)
    rho = np.triu(rho) + np.triu(rho, 1).T
    least = np.linalg.eigvalsh(rho).min()
    assume(abs(least) > 1e-6)
    cov = rho * np.outer(sd, sd)
    names = [f"a{i}" for i in range(n)]
    line: dict[str, Any] = {"values": dict(zip(names, rng.normal(size=n), strict=True)), "covariance": cov.tolist(), "level": 0.95}
    for name, other in (("component_var", line), ("factor_risk", {"exposures": [1.0] * n, "covariance": cov.tolist()}),
                        ("var", {"method": "delta_gamma", "delta": [1.0] * n, "covariance": cov.tolist(), "level": 0.95})):
        got = calculate(name, other)
        assert (field_of(name, **other) == "covariance") == (least < 0), got.get("error")
    repaired = calculate("component_var", line | {"repair": "spectral"})
    assert repaired["conventions"]["covariance_repair"]["largest_change"] >= 0 and repaired["portfolio_var"] > 0
    fine = {k: v for k, v in line.items() if k != "covariance"} | {"vols": dict(zip(names, sd.tolist(), strict=True)), "correlation": rho.tolist()}
    assert (field_of("component_var", **fine) == "correlation") == (least < 0)
    tilted = rho.copy()
    tilted[0, 1] += 0.01
    assert field_of("component_var", **(fine | {"correlation": tilted.tolist()})) == "correlation"
    for wrong in (np.diag(np.full(n, 0.5)) + rho, rho * 1.0000001):
        assert field_of("component_var", **(fine | {"correlation": wrong.tolist()})) == "correlation"


@settings(max_examples=60)
@given(st.lists(st.tuples(*[st.one_of(RETURN, st.none())] * 2), min_size=4, max_size=50))
def test_a_single_factor_against_statsmodels(pairs: list[tuple[float | None, float | None]]) -> None:
    got = calculate("capm", {"returns": [r for r, _ in pairs], "benchmark": [b for _, b in pairs]})
    both = np.array([p for p in pairs if None not in p], float).reshape(-1, 2)
    if len(both) < 3 or np.ptp(both[:, 1]) < 1e-12:
        assert got["error"]["field"] in ("returns", "benchmark")
        return
    fit = sm.OLS(both[:, 0], sm.add_constant(both[:, 1])).fit()
    assert (got["alpha"], got["beta"]) == (pytest.approx(fit.params[0], abs=1e-9), pytest.approx(fit.params[1], rel=1e-7, abs=1e-9))
    if np.ptp(both[:, 0]) > 1e-9:
        assert got["r_squared"] == pytest.approx(fit.rsquared, abs=1e-8)
        assert got["correlation"] == pytest.approx(np.corrcoef(both.T)[0, 1], abs=1e-9)
    else:
        assert got["r_squared"] is None and "r_squared" in got["undefined"]


@pytest.mark.parametrize(("name", "line", "field"), [
    ("kupiec", {"n": 250, "exceptions": 251, "level": 0.99}, "exceptions"), ("kupiec", {"n": 250, "exceptions": 5}, "p"),
    ("kupiec", {"n": 250, "exceptions": 5, "level": [0.95, 0.99]}, "level"), ("kupiec", {"n": 250, "exceptions": 5, "p": 0.6}, "p"),
    ("kupiec", {"n": 250, "exceptions": 5, "p": 0.01, "level": 0.95}, "level"), ("traffic_light", {"exceptions": 300}, "exceptions"),
    ("performance", {"returns": [0.1, 0.2], "window": 3}, "window"), ("performance", {"returns": [None]}, "returns"),
    ("drawdown", {"equity": [0, 1]}, "equity"), ("drawdown", {"equity": [10, -1]}, "equity"), ("drawdown", {"returns": [0.1, -1.01]}, "returns"),
    ("drawdown", {"returns": [-1, 0.1]}, "returns"), ("drawdown", {"equity": [1, 2], "dates": ["a"]}, "dates"),
    ("regression", {"y": [1, 2, 3, 4], "X": [[1, 2], [2, 4], [3, 6], [4, 8]]}, "X"), ("regression", {"y": [1, 2, 3], "X": [[1], [2]]}, "y"),
    ("regression", {"y": [1, 2, 3], "X": [[1], [1], [1]]}, "X"), ("factor_risk", {"exposures": [1, None], "covariance": [[1, 0], [0, 1]]}, "exposures[1]"),
    ("component_var", {"values": {"a": 1}, "vols": {"a": -0.1}, "level": 0.95}, "vols.a"),
    ("component_var", {"values": {"a": 1, "b": 1, "c": 1}, "vols": {"a": 1, "b": 1, "c": 1}, "correlation": -0.6}, "correlation"),
    ("var", {"method": "delta_gamma", "delta": [1, 1], "gamma": [[0, 1], [2, 0]], "covariance": [[1, 0], [0, 1]]}, "gamma"),
    ("leverage", {"exposures": {"a": [1]}, "nav": 0}, "nav"), ("liquidity", {"quantity": 1, "adv": 0}, "adv")])
def test_what_lies_outside_a_domain_is_refused_by_name(name: str, line: dict[str, Any], field: str) -> None:
    assert field_of(name, **line) == field


def test_what_does_not_exist_says_why() -> None:
    for returns in ([0.1, -1.5, 0.2], [-1.0, 0.5], [0.3, -1.0, 0.0]):
        got = calculate("performance", {"returns": returns})
        assert got["annual_return"] is None and got["max_drawdown"] is None and {"annual_return", "max_drawdown"} <= set(got["undefined"])
    gone = calculate("performance", {"returns": [0.3, -1.0]})
    assert gone["annual_return"] == gone["max_drawdown"] == -1.0, "all is lost: that is a figure"
    hedged = calculate("component_var", {"values": {"a": 1.1, "b": -1.1}, "vols": {"a": 0.3, "b": 0.3}, "correlation": 1.0, "level": 0.95})
    assert hedged["portfolio_var"] == 0.0 and hedged["marginal_var"] == {"a": None, "b": None} and "marginal_var" in hedged["undefined"]
    assert calculate("leverage", {"exposures": {"a": [1]}})["undefined"]["gross"] and calculate("liquidity", {"quantity": 1})["undefined"]
    exact = calculate("regression", {"y": [1.0, 2.0, 3.0], "X": [[1.0], [2.0], [3.0]]})
    assert exact["r_squared"] == 1.0 and (exact["f_value"] is None or exact["f_value"] > 1e12)
    assert calculate("traffic_light", {"exceptions": 5})["multiplier"] == 1.7 and "multiplier" not in calculate("traffic_light", {"exceptions": 5, "n": 249})
