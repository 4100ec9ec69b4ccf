"""Calculators of VaR, ES, backtests, performance and factors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from app.calc.line import FieldError, Line, calculator
from models.risk import backtest as bt
from models.risk import exposure, factor, monte_carlo, parametric, performance, quantile

METHODS = ("historical", "gaussian", "modified", "monte_carlo", "delta_gamma")
ES_RULES = ("fractional", "ceil", "beyond_linear")


def levels(x: Line) -> list[float]:
    """Return the confidence levels asked for: ``level`` (one or several), default 0.95, 0.975, 0.99."""
    out = x.confidences("levels", "level", "confidence", "alpha", default=[0.95, 0.975, 0.99])
    x.conventions |= {"level": out, "sign": "VaR and ES are positive losses"}
    return out


@calculator("var", "value_at_risk", "expected_shortfall", "es")
def var(x: Line) -> dict[str, Any]:
    """VaR and ES: method historical (pnl or returns; rule, es_rule, decay, volatility_decay), gaussian, modified,
    monte_carlo, delta_gamma (delta, gamma, covariance). Answers are positive losses, ``signed`` ones as P&L.

    rule: default = (floor(n(1-a))+1)-th worst, ceil, linear (HF7), midpoint, sample, excel, exclusive, centred.
    gaussian: sd population|sample, window (last n), mean zero|sample.
    """
    method = x.choice("method", among=METHODS, default="historical")
    wanted = levels(x)
    out: dict[str, Any] = {"var": {}, "es": {}}
    if method in ("historical", "modified", "gaussian"):
        series = x.series("pnl", "returns", minimum=1 if method == "historical" else 2)
        {"historical": _historical, "gaussian": _gaussian, "modified": _modified}[method](x, series, wanted, out)
        out["n"] = len(series)
    elif method == "delta_gamma":
        _delta_gamma(x, wanted, out)
    else:
        _monte_carlo(x, wanted, out)
    horizon = x.number("horizon_days", default=1.0, above=0.0)
    x.conventions["horizon_days"] = horizon
    if horizon != 1.0:
        x.conventions["horizon_scaling"] = "square root of time: only right for linear books"
        for key in ("var", "es"):
            out[key] = {k: v * math.sqrt(horizon) for k, v in out[key].items()}
    out["signed"] = {"var": {k: -v for k, v in out["var"].items()}, "es": {k: -v for k, v in out["es"].items()}}
    if len(wanted) == 1:
        out["var"], out["es"] = out["var"].get(str(wanted[0])), out["es"].get(str(wanted[0]))
        out["signed"] = {k: next(iter(v.values()), None) for k, v in out["signed"].items()}
    return out


def _historical(x: Line, series: np.ndarray, wanted: list[float], out: dict[str, Any]) -> None:
    if x.has("volatility_decay"):
        decay = x.number("volatility_decay", above=0.0, high=1.0)
        series = quantile.volatility_scale(series[:, None], decay)[:, 0]
        x.conventions["volatility_scaling"] = f"EWMA, decay {decay!r}, the oldest value first"
    if x.has("decay", "age_decay", "lambda"):
        decay = x.number("decay", "age_decay", "lambda", above=0.0, high=1.0)
        x.conventions["weighting"] = f"age, decay {decay!r}, the oldest value first, middle-of-weight interpolation"
        weights = quantile.age_weights(len(series), decay)[::-1]
        for level in wanted:
            out["var"][str(level)], out["es"][str(level)] = quantile.weighted_tail(series, weights, level)
        return
    rule = x.choice("rule", "quantile_rule", "quantile", among=quantile.RULES, default="default")
    es_rule = x.choice("es_rule", among=ES_RULES, default="fractional")
    for level in wanted:
        out["var"][str(level)] = quantile.quantile_loss(series, level, rule)
        out["es"][str(level)] = quantile.expected_shortfall(series, level, es_rule)


def _gaussian(x: Line, series: np.ndarray, wanted: list[float], out: dict[str, Any]) -> None:
    if x.has("window"):
        series = series[-x.whole("window", low=2):]
    sample = x.choice("sd", among=("population", "sample"), default="population") == "sample"
    mean = 0.0 if x.choice("mean", among=("sample", "zero"), default="sample") == "zero" else float(series.mean())
    deviation = float(series.std(ddof=int(sample)))
    for level in wanted:
        out["var"][str(level)], out["es"][str(level)] = parametric.gaussian(mean, deviation, level)


def _modified(x: Line, series: np.ndarray, wanted: list[float], out: dict[str, Any]) -> None:
    x.undefined("es", "not offered by this method")
    x.conventions["moments"] = "population; Cornish-Fisher with excess kurtosis"
    for level in wanted:
        out["var"][str(level)] = parametric.modified(series, level)


def _delta_gamma(x: Line, wanted: list[float], out: dict[str, Any]) -> None:
    delta = x.series("delta", keep_missing=True)
    covariance = x.matrix("covariance", square=len(delta))
    gamma = x.matrix("gamma", square=len(delta)) if x.has("gamma") else None
    mean, sd = parametric.delta_gamma(delta, gamma, covariance)
    for level in wanted:
        out["var"][str(level)], out["es"][str(level)] = parametric.gaussian(mean, sd, level)
    out |= {"mean": mean, "sd": sd,
            "quantiles": {f"{p:g}": mean + parametric.z_of(p) * sd
                          for level in wanted for p in (round(1 - level, 12), level)}}


def _monte_carlo(x: Line, wanted: list[float], out: dict[str, Any]) -> None:
    delta = x.series("delta", keep_missing=True)
    covariance = x.matrix("covariance", square=len(delta))
    gamma = x.matrix("gamma", square=len(delta)) if x.has("gamma") else None
    paths, seed = x.whole("paths", default=10_000, low=100), x.whole("seed", default=1)
    x.conventions |= {"paths": paths, "seed": seed, "draws": "normal, antithetic, PCG64; covariance salvaged"}
    moves = monte_carlo.factor_draws(covariance, paths, seed)
    pnl = moves @ delta
    if gamma is not None:
        pnl = pnl + 0.5 * ((moves @ gamma) * moves).sum(axis=1)
    out["standard_error"] = {}
    for level in wanted:
        found = monte_carlo.summary(pnl, level)
        out["var"][str(level)], out["es"][str(level)] = found["var"], found["es"]
        out["standard_error"][str(level)] = found["standard_error"]


@calculator("component_var")
def component_var(x: Line) -> dict[str, Any]:
    """Component, marginal, incremental and individual VaR of linear positions.

    Fields: values {name: value}, and covariance or vols {name: vol} with correlation (one number or a matrix);
    z or level. Components sum to the portfolio's VaR; incremental = with less without.
    """
    values = x.mapping("values")
    names = list(values)
    v = np.array(list(values.values()))
    if x.has("covariance"):
        covariance = x.covariance("covariance", square=len(v))
    else:
        vols = x.mapping("vols", "volatilities")
        if set(vols) != set(names):
            raise FieldError("vols", sorted(vols), f"a volatility for each of {', '.join(names)}")
        sd = np.array([vols[n] for n in names])
        if x.is_list("correlation"):
            rho = x.covariance("correlation", square=len(v), unit_diagonal=True)
        else:
            rho = np.full((len(v), len(v)), x.number("correlation", default=0.0, low=-1.0, high=1.0))
            np.fill_diagonal(rho, 1.0)
        covariance = rho * np.outer(sd, sd)
    z = x.number("z") if x.has("z") else parametric.z_of(levels(x)[0])
    x.conventions["z"] = z
    found = parametric.components(v, covariance, z)
    out: dict[str, Any] = {"portfolio_var": found["portfolio"]}
    for kind in ("individual", "marginal", "component", "incremental"):
        out[f"{kind}_var"] = dict(zip(names, np.asarray(found[kind]).tolist(), strict=True))
    return out


@calculator("kupiec")
def kupiec(x: Line) -> dict[str, Any]:
    """Kupiec's proportion of failures: n, exceptions, p (or level); chi-square with 1 degree of freedom."""
    p = x.ways((("p",), lambda: x.number("p", above=0.0, below=0.5)),
               (("levels", "level", "confidence", "alpha"), lambda: round(1.0 - levels(x)[0], 12)))
    out: dict[str, Any] = bt.kupiec(x.whole("n", "days", low=1), x.whole("exceptions"), p)
    if x.has("lr_independence"):
        out["lr_conditional"] = out["lr_pof"] + x.number("lr_independence")
        out["p_value_conditional"] = bt.chi_square_tail(out["lr_conditional"], 2)
    return out | {"rejected_at_95": out["p_value"] < 0.05}


@calculator("traffic_light")
def traffic_light(x: Line) -> dict[str, Any]:
    """Basel zone and multipliers from exceptions in n days (250) at p (0.01); zone names both ways (amber = yellow)."""
    p = x.ways((("p",), lambda: x.number("p", above=0.0, below=0.5)),
               (("level", "confidence", "alpha"), lambda: round(1.0 - levels(x)[0], 12)), default=0.01)
    found = bt.traffic_light(x.whole("exceptions"), x.whole("n", "days", default=250, low=1), p)
    return found | {"zone_1996": "yellow" if found["zone"] == "amber" else found["zone"]}


@calculator("backtest", "christoffersen")
def backtest(x: Line) -> dict[str, Any]:
    """Backtest: pnl and var a day (oldest first), or hits (0 or 1 a day); level. Kupiec, Christoffersen, Basel zone."""
    level = levels(x)[0]
    if x.has("hits"):
        hits = x.series("hits")
        return bt.backtest(-hits, np.full(len(hits), 0.5), level)
    pnl, var_ = x.series("pnl"), x.series("var")
    if len(pnl) != len(var_):
        raise FieldError("var", len(var_), f"as many days as pnl ({len(pnl)})")
    return bt.backtest(pnl, var_, level)


@calculator("drawdown")
def drawdown(x: Line) -> dict[str, Any]:
    """Drawdowns of returns or of an equity curve: deepest (negative), episodes (deepest first), longest recovery."""
    if x.has("equity", "values"):
        equity = x.series("equity", "values")
        returns = equity[1:] / equity[:-1] - 1.0
    else:
        returns = x.series("returns")
        equity = performance.wealth(returns)
    episodes = [e.__dict__ for e in performance.drawdown_episodes(returns)[: x.whole("top", default=5)]]
    if x.has("dates"):
        labels = x.texts("dates", count=len(equity) if x.has("equity", "values") else len(returns))
        for e in episodes:
            e |= {"from": labels[e["start"]], "trough_at": labels[e["trough"]],
                  "to": None if e["end"] is None else labels[e["end"]]}
    for name in ("end", "to", "recovery"):
        x.undefined(name, "not recovered by the last observation")
    return {"max_drawdown": performance.max_drawdown(equity), "episodes": episodes,
            "max_recovery_days": performance.longest_recovery(equity)}


@calculator("performance")
def measures(x: Line) -> dict[str, Any]:
    """Statistics of simple returns: volatility, Sharpe, Sortino, downside and semi-deviation, drawdown, beta.

    Fields: returns (null = missing), benchmark, periods_per_year (252), mar, risk_free, window.
    """
    raw = x.series("returns", keep_missing=True)
    r = raw[~np.isnan(raw)]
    periods = x.number("periods_per_year", "periods", default=252.0, above=0.0)
    mar = x.number("mar", default=0.0)
    x.conventions |= {"periods_per_year": periods, "mar": mar}
    for name, why in (("sharpe", "returns do not vary"), ("sortino", "no return lies below mar"),
                      ("beta", "the benchmark does not vary"), ("rolling_beta", "a benchmark that does not vary"),
                      ("annual_return", "wealth falls to zero or below")):
        x.undefined(name, why)
    out: dict[str, Any] = {
        "n": len(r), "mean": float(r.mean()), "max_drawdown": performance.max_drawdown(performance.wealth(r)),
        "annual_return": performance.annual_return(r, periods), "semi_deviation": performance.semi_deviation(r),
        "downside_deviation": performance.downside_deviation(r, mar),
        "downside_risk": performance.downside_deviation(r, mar) * math.sqrt(periods)}
    if len(r) > 1:
        out |= {"stddev": float(r.std(ddof=1)), "annual_volatility": performance.annual_volatility(r, periods),
                "sharpe": performance.sharpe(r, periods, x.number("risk_free", default=0.0)),
                "sortino": performance.sortino(r, periods, mar)}
    window = x.whole("window", default=0)
    if x.has("benchmark"):
        b = x.series("benchmark", keep_missing=True)
        if len(b) != len(raw):
            raise FieldError("benchmark", len(b), f"as many periods as returns ({len(raw)})")
        out["beta"] = performance.beta(raw, b)
        if window:
            out["rolling_beta"] = performance.rolling(performance.beta, window, raw, b)
    if window:
        out["rolling_max_drawdown"] = performance.rolling(
            lambda w: performance.max_drawdown(performance.wealth(w)), window, r)
    return out


@calculator("capm", "single_factor")
def capm(x: Line) -> dict[str, Any]:
    """Single-factor regression of excess returns on excess benchmark returns, pairwise complete periods.

    Fields: returns, benchmark, risk_free (a series or one number), periods_per_year (12).
    """
    r, b = x.series("returns", keep_missing=True), x.series("benchmark", keep_missing=True)
    rf = x.series("risk_free", keep_missing=True) if x.is_list("risk_free") else np.full(
        len(r), x.number("risk_free", default=0.0))
    both = np.isfinite(r) & np.isfinite(b) & np.isfinite(rf)
    r, b, rf = r[both], b[both], rf[both]
    periods = x.number("periods_per_year", default=12.0, above=0.0)
    x.conventions |= {"periods_per_year": periods, "n": len(r)}
    e, m = r - rf, b - rf
    fit = performance.regression(e, m)
    active = r - b
    slope, alpha = float(fit["coefficients"][0]), float(fit["intercept"])
    tracking = float(active.std(ddof=1)) * math.sqrt(periods)
    premium = performance.annual_return(r, periods) - performance.annual_return(b, periods)
    return {"alpha": alpha, "beta": slope, "beta_bull": performance.beta(e[m > 0], m[m > 0]),
            "beta_bear": performance.beta(e[m <= 0], m[m <= 0]), "r_squared": fit["r_squared"],
            "alpha_annualised": (1 + alpha) ** periods - 1, "correlation": float(np.corrcoef(e, m)[0, 1]),
            "tracking_error": tracking, "active_premium": premium, "information_ratio": premium / tracking,
            "treynor": performance.annual_return(e, periods) / slope}


@calculator("regression", "ols", "factor_regression")
def regression(x: Line) -> dict[str, Any]:
    """Ordinary least squares y = X b + c: y, X (rows of regressors), intercept (true). The constant comes last."""
    y, regressors = x.series("y"), x.matrix("X", "x")
    intercept = x.flag("intercept", default=True)
    fit = performance.regression(y, regressors, intercept)
    params = [*fit["coefficients"].tolist(), *([fit["intercept"]] if intercept else [])]
    k, r2 = regressors.shape[1], fit["r_squared"]
    return fit | {"params": params, "residual_ss": fit["residual_sum_squares"],
                  "f_value": r2 / k / ((1 - r2) / fit["degrees_of_freedom"])}


@calculator("factor_risk")
def factor_risk(x: Line) -> dict[str, Any]:
    """Factor decomposition of volatility: exposures, covariance, specific_variance; contributions sum to it."""
    e = x.series("exposures", "exposure", keep_missing=True)
    specific = x.number("specific_variance", default=0.0, low=0.0)
    found = factor.decompose(e, x.matrix("covariance", square=len(e)), specific)
    return {name: values.tolist() for name, values in found.items()}


@calculator("concentration", "hhi")
def concentration(x: Line) -> dict[str, Any]:
    """Shares of gross by group and HHI: values {name: signed market value}."""
    values = x.mapping("values")
    found = exposure.concentration(np.array(list(values.values())), np.arange(len(values)), len(values))
    x.undefined("hhi", "one contributor: an index of concentration is not shown (or there is no exposure)")
    return {"shares": dict(zip(values, found["shares"].tolist(), strict=True)), "hhi": found["hhi"]}


@calculator("liquidity")
def liquidity(x: Line) -> dict[str, Any]:
    """Days to liquidate and liquidity-adjusted VaR: quantity, adv, participation (0.2), spread, value, var."""
    participation = x.number("participation", default=0.20, above=0.0, high=1.0)
    x.conventions["participation"] = participation
    quantity, adv = np.array([x.number("quantity", "qty")]), np.array([x.number("adv", default=None)])
    x.undefined("days_to_liquidate", "adv is not known")
    days = exposure.days_to_liquidate(quantity, adv, participation)
    out: dict[str, Any] = {"days_to_liquidate": float(days[0])}
    if x.has("value"):
        value, spread = np.array([x.number("value")]), np.array([x.number("spread", low=0.0)])
        out["liquidity_cost"] = exposure.liquidity_cost(value, spread)
        if x.has("var"):
            out["liquidity_adjusted_var"] = x.number("var") + out["liquidity_cost"]
    return out


@calculator("leverage")
def leverage(x: Line) -> dict[str, Any]:
    """Leverage by the gross and the commitment method: exposures {underlying: [delta equivalents]}, nav."""
    parts = x.arrays("exposures")
    for name in ("gross", "commitment"):
        x.undefined(name, "nav is not given")
    gross = float(sum(np.abs(p).sum() for p in parts.values()))
    nav = x.number("nav", default=None, above=0.0)
    return exposure.leverage(gross, np.array([p.sum() for p in parts.values()]), nav)
