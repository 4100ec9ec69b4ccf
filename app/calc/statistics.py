"""Calculators of drawdowns, return statistics and regressions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from app.calc.line import FieldError, Line, calculator
from models.risk import performance


@calculator("drawdown")
def drawdown(x: Line) -> dict[str, Any]:
    """Drawdowns of returns or of an equity curve: deepest (negative), episodes (deepest first), longest recovery.

    Fields: returns (of at least -1; the peak begins with what was invested) or equity (at least 0, the first above 0),
    dates (a text for each), top (5). A null is missing and left out with its date; indices count what is left.
    """
    of_equity = x.has("equity", "values")
    names = ("equity", "values") if of_equity else ("returns",)
    given = x.series(*names, keep_missing=True)
    labels = x.texts("dates", count=len(given)) if x.has("dates") else None
    known = np.isfinite(given)
    if not known.any():
        raise FieldError(x.name_of(*names), None, "at least one number")
    if not known.all():
        x.conventions["missing_skipped"] = int((~known).sum())
    series = given[known]
    if of_equity:
        if not (series[0] > 0.0 and (series >= 0.0).all()):
            at = 0 if not series[0] > 0.0 else int((series < 0.0).argmax())
            raise FieldError(x.name_of(*names), float(series[at]), "equity of at least 0 that begins above 0: "
                                                                   "a drawdown is relative to a peak")
        equity = series
        episodes = performance.episodes_of(series, series[0])
    else:
        bad = performance.ruin(series)
        if bad is not None:
            raise FieldError("returns", float(series[bad]), "at least -1, and nothing after -1: none is left to lose")
        equity = performance.wealth(series)
        episodes = performance.drawdown_episodes(series)
    out = [e.__dict__ for e in episodes[: x.whole("top", default=5)]]
    if labels is not None:
        kept = [label for label, k in zip(labels, known, strict=True) if k]
        for e in out:
            e |= {"from": kept[e["start"]], "trough_at": kept[e["trough"]],
                  "to": None if e["end"] is None else kept[e["end"]]}
    for name in ("end", "to", "recovery"):
        x.undefined(name, "not recovered by the last observation")
    x.conventions["counts"] = "length, to_trough, recovery and max_recovery_days count observations"
    return {"max_drawdown": performance.max_drawdown(equity), "episodes": out,
            "max_recovery_days": performance.longest_recovery(equity)}


@calculator("performance")
def measures(x: Line) -> dict[str, Any]:
    """Statistics of simple returns: volatility, Sharpe, Sortino, downside and semi-deviation, drawdown, beta.

    Fields: returns (null = missing), benchmark, periods_per_year (252), mar, risk_free (a period), window. A figure
    that does not exist (no dispersion, wealth below zero, one return) is null with its reason.
    """
    raw = x.series("returns", keep_missing=True)
    r = raw[np.isfinite(raw)]
    if not len(r):
        raise FieldError("returns", None, "at least one number")
    if len(r) < len(raw):
        x.conventions["missing_skipped"] = len(raw) - len(r)
    periods = x.number("periods_per_year", "periods", default=252.0, above=0.0)
    mar, risk_free = x.number("mar", default=0.0), x.number("risk_free", default=0.0)
    x.conventions |= {"periods_per_year": periods, "mar": mar}
    ruined = performance.ruin(r) is not None
    for name, why in (("stddev", "one return does not vary"), ("annual_volatility", "one return does not vary"),
                      ("sharpe", "returns do not vary"), ("sortino", "no return lies below mar"),
                      ("beta", "fewer than two common periods, or a benchmark that does not vary"),
                      ("rolling_beta", "fewer than two common periods, or a benchmark that does not vary"),
                      ("annual_return", "wealth falls below zero, to zero before the end, or beyond all bounds"),
                      ("max_drawdown", "wealth falls below zero, or to zero before the last return"),
                      ("rolling_max_drawdown", "wealth falls below zero, or to zero before the last return")):
        x.undefined(name, why)
    out: dict[str, Any] = {
        "n": len(r), "mean": float(r.mean()), "max_drawdown": math.nan if ruined else _max_drawdown(r),
        "annual_return": performance.annual_return(r, periods), "semi_deviation": performance.semi_deviation(r),
        "downside_deviation": performance.downside_deviation(r, mar),
        "downside_risk": performance.downside_deviation(r, mar) * math.sqrt(periods),
        "stddev": performance.deviation(r), "annual_volatility": performance.annual_volatility(r, periods),
        "sharpe": performance.sharpe(r, periods, risk_free), "sortino": performance.sortino(r, periods, mar)}
    window = x.whole("window", low=1, high=len(r)) if x.has("window") else 0
    if x.has("benchmark"):
        b = x.series("benchmark", keep_missing=True)
        if len(b) != len(raw):
            raise FieldError("benchmark", len(b), f"as many periods as returns ({len(raw)})")
        out["beta"] = performance.beta(raw, b)
        if window:
            out["rolling_beta"] = performance.rolling(performance.beta, window, raw, b)
    if window:
        out["rolling_max_drawdown"] = performance.rolling(
            lambda w: math.nan if performance.ruin(w) is not None else _max_drawdown(w), window, r)
    return out


def _max_drawdown(returns: np.ndarray) -> float:
    return performance.max_drawdown(performance.wealth(returns))


def _over(amount: float, by: float) -> float:
    """Return a ratio; NaN to nothing."""
    return amount / by if by else math.nan


@calculator("capm", "single_factor")
def capm(x: Line) -> dict[str, Any]:
    """Single-factor regression of excess returns on excess benchmark returns, pairwise complete periods.

    Fields: returns, benchmark, risk_free (a series or one number), periods_per_year (12).
    """
    given = {name: x.series(name, keep_missing=True) for name in ("returns", "benchmark")}
    r, b = given.values()
    rf = x.series("risk_free", keep_missing=True) if x.is_list("risk_free") else np.full(
        len(r), x.number("risk_free", default=0.0))
    for name, values in (("benchmark", b), ("risk_free", rf)):
        if len(values) != len(r):
            raise FieldError(name, len(values), f"as many periods as returns ({len(r)})")
    both = np.isfinite(r) & np.isfinite(b) & np.isfinite(rf)
    r, b, rf = r[both], b[both], rf[both]
    if len(r) < 3:
        raise FieldError("returns", len(r), "at least 3 periods in which all are known")
    periods = x.number("periods_per_year", default=12.0, above=0.0)
    x.conventions |= {"periods_per_year": periods, "n": len(r)}
    e, m = r - rf, b - rf
    if not performance.varies(m):
        raise FieldError("benchmark", float(m[0]), "excess returns that vary: without that there is no slope")
    fit = _fitted("benchmark", lambda: performance.regression(e, m))
    slope, alpha = float(fit["coefficients"][0]), float(fit["intercept"])
    tracking = performance.deviation(r - b) * math.sqrt(periods) if performance.varies(r - b) else 0.0
    premium = performance.annual_return(r, periods) - performance.annual_return(b, periods)
    for name, why in (("beta_bull", "fewer than two periods above the risk-free rate that differ"),
                      ("beta_bear", "fewer than two periods at or below the risk-free rate that differ"),
                      ("r_squared", "returns do not vary"), ("correlation", "returns do not vary"),
                      ("alpha_annualised", "alpha is below -100 % a period, or beyond all bounds"),
                      ("active_premium", "a return below -100 %: no annual return"),
                      ("information_ratio", "no tracking error, or no annual return"),
                      ("treynor", "a slope of 0, or no annual return")):
        x.undefined(name, why)
    moving = performance.varies(e)
    return {"alpha": alpha, "beta": slope, "beta_bull": performance.beta(e[m > 0], m[m > 0]),
            "beta_bear": performance.beta(e[m <= 0], m[m <= 0]), "r_squared": fit["r_squared"] if moving else math.nan,
            "alpha_annualised": performance.annual_return(np.array([alpha]), periods),
            "correlation": float(np.corrcoef(e, m)[0, 1]) if moving else math.nan,
            "tracking_error": tracking, "active_premium": premium, "information_ratio": _over(premium, tracking),
            "treynor": _over(performance.annual_return(e, periods), slope if moving else 0.0)}


@calculator("regression", "ols", "factor_regression")
def regression(x: Line) -> dict[str, Any]:
    """Ordinary least squares y = X b + c: y, X (rows of regressors), intercept (true). The constant comes last.

    A row whose y is missing (null) is left out. Columns have to be linearly independent.
    """
    y, regressors = x.series("y", keep_missing=True), x.matrix("X", "x")
    if len(y) != len(regressors):
        raise FieldError("y", len(y), f"as many numbers as X has rows ({len(regressors)})")
    known = np.isfinite(y)
    if not known.all():
        x.conventions["missing_skipped"] = int((~known).sum())
    intercept = x.flag("intercept", default=True)
    k = regressors.shape[1]
    if known.sum() <= k + intercept:
        raise FieldError("y", int(known.sum()), f"more rows than coefficients ({k + intercept})")
    fit = _fitted(x.name_of("X", "x"), lambda: performance.regression(y[known], regressors[known], intercept))
    params = [*fit["coefficients"].tolist(), *([fit["intercept"]] if intercept else [])]
    r2 = fit["r_squared"]
    for name in ("t_values", "f_value"):
        x.undefined(name, "the fit is exact: nothing is left to measure it by")
    x.undefined("r_squared", "y does not vary")
    return fit | {"params": params, "residual_ss": fit["residual_sum_squares"],
                  "f_value": _over(r2 / k, (1.0 - r2) / fit["degrees_of_freedom"])}


def _fitted(field: str, fit: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return fit()
    except ValueError as error:
        raise FieldError(field, None, "columns that vary and are linearly independent") from error
