"""Calculators of VaR and ES, their components and backtest statistics, of factors and exposures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from app.calc.line import FieldError, Line, calculator
from models.risk import backtest as bt
from models.risk import exposure, factor, monte_carlo, parametric, quantile

METHODS = ("historical", "gaussian", "modified", "monte_carlo", "delta_gamma")
ES_RULES = ("fractional", "ceil", "beyond_linear")


LEVEL = ("levels", "level", "confidence", "alpha")
#: levels of the tail over which a corrected quantile has to rise
TAIL = 0.9


def levels(x: Line) -> list[float]:
    """Return the confidence levels asked for: ``level`` (one or several), default 0.95, 0.975, 0.99."""
    out = x.confidences(*LEVEL, default=[0.95, 0.975, 0.99])
    x.conventions |= {"level": out, "sign": "VaR and ES are positive losses"}
    return out


def level_of(x: Line, default: Any = ...) -> float:
    """Return the one confidence level asked for."""
    out = x.confidences(*LEVEL, default=default)
    if len(out) != 1:
        raise FieldError(x.name_of(*LEVEL), out, "one confidence level")
    x.conventions["level"] = out[0]
    return out[0]


def vector(x: Line, *names: str) -> np.ndarray:
    """Return numbers none of which may be missing."""
    out = x.series(*names, keep_missing=True)
    if np.isnan(out).any():
        raise FieldError(f"{x.name_of(*names)}[{int(np.isnan(out).argmax())}]", None, "a number: none may be missing")
    return out


def covariance_of(x: Line, size: int, name: str = "covariance", unit_diagonal: bool = False) -> np.ndarray:
    """Return a covariance or correlation matrix that is one; with ``repair`` the nearest one, and how far it is."""
    if x.choice("repair", among=("none", "spectral"), default="none") == "none":
        return x.covariance(name, square=size, unit_diagonal=unit_diagonal)
    given = x.matrix(name, square=size)
    if not np.allclose(given, given.T, rtol=1e-9, atol=0.0) or (np.diag(given) < 0.0).any() or (
            unit_diagonal and not np.allclose(np.diag(given), 1.0, rtol=1e-9)):
        raise FieldError(x.name_of(name), None, "a symmetric matrix with " + ("ones" if unit_diagonal else "no number "
                         "below 0") + " on its diagonal: only negative eigenvalues are repaired")
    out = parametric.salvaged(given)
    x.conventions[f"{name}_repair"] = {"method": "negative eigenvalues set to 0, the diagonal kept",
                                       "largest_change": float(np.abs(out - given).max())}
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
        out["n"] = len(series)
        {"historical": _historical, "gaussian": _gaussian, "modified": _modified}[method](x, series, wanted, out)
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
        x.conventions["weighting"] = (f"age, decay {decay!r}, the oldest value first; VaR is the quantile interpolated "
                                      "between the middles of weights, ES the mean of that quantile over the tail")
        weights = quantile.age_weights(len(series), decay)[::-1]
        for level in wanted:
            out["var"][str(level)], out["es"][str(level)] = quantile.weighted_tail(series, weights, level)
        return
    rule = x.choice("rule", "quantile_rule", "quantile", among=quantile.RULES, default="default")
    es_rule = x.choice("es_rule", among=ES_RULES, default="fractional")
    if rule in ("sample", "exclusive") and es_rule != "fractional":
        raise FieldError("es_rule", es_rule, f"fractional with rule {rule}: this mean may lie below that quantile, and "
                                             "ES is never below VaR of one distribution")
    for level in wanted:
        out["var"][str(level)] = quantile.quantile_loss(series, level, rule)
        out["es"][str(level)] = quantile.expected_shortfall(series, level, es_rule)


def _gaussian(x: Line, series: np.ndarray, wanted: list[float], out: dict[str, Any]) -> None:
    if x.has("window"):
        window = x.whole("window", low=2)
        series = series[-window:]
        x.conventions["window"] = f"the last {window}, of which {len(series)} are there"
        out["n"] = len(series)
    sample = x.choice("sd", among=("population", "sample"), default="population") == "sample"
    mean = 0.0 if x.choice("mean", among=("sample", "zero"), default="sample") == "zero" else float(series.mean())
    deviation = float(series.std(ddof=int(sample)))
    for level in wanted:
        out["var"][str(level)], out["es"][str(level)] = parametric.gaussian(mean, deviation, level)


def _modified(x: Line, series: np.ndarray, wanted: list[float], out: dict[str, Any]) -> None:
    sd, skew, kurtosis = parametric.sample_moments(series)
    slope = parametric.cornish_fisher_slope(min(TAIL, *wanted), max(wanted), skew, kurtosis)
    if not slope > 0.0:
        raise FieldError(x.name_of("pnl", "returns"), {"skewness": skew, "excess_kurtosis": kurtosis},
                         f"moments at which the corrected quantile rises with the level up to {max(wanted)!r}: these "
                         "lie outside the domain of modified VaR")
    x.undefined("es", "not offered by this method")
    x.conventions["moments"] = "population; Cornish-Fisher with excess kurtosis"
    out |= {"skewness": skew, "excess_kurtosis": kurtosis, "sd": sd}
    for level in wanted:
        out["var"][str(level)] = parametric.modified(series, level)


def _sensitivities(x: Line) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    delta = vector(x, "delta")
    gamma = x.matrix("gamma", square=len(delta)) if x.has("gamma") else None
    if gamma is not None and not np.allclose(gamma, gamma.T, rtol=1e-9, atol=0.0):
        raise FieldError("gamma", None, "a symmetric matrix: second derivatives do not depend on their order")
    return delta, gamma, covariance_of(x, len(delta))


def _delta_gamma(x: Line, wanted: list[float], out: dict[str, Any]) -> None:
    delta, gamma, covariance = _sensitivities(x)
    mean, sd = parametric.delta_gamma(delta, gamma, covariance)
    for level in wanted:
        out["var"][str(level)], out["es"][str(level)] = parametric.gaussian(mean, sd, level)
    out |= {"mean": mean, "sd": sd,
            "quantiles": {f"{p:g}": mean + parametric.z_of(p) * sd
                          for level in wanted for p in (round(1 - level, 12), level)}}


def _monte_carlo(x: Line, wanted: list[float], out: dict[str, Any]) -> None:
    delta, gamma, covariance = _sensitivities(x)
    paths, seed = x.whole("paths", default=10_000, low=100, high=1_000_000), x.whole("seed", default=1)
    x.conventions |= {"paths": paths, "seed": seed, "draws": "normal, antithetic, PCG64"}
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
    z or level (0.95); repair spectral for a matrix with negative eigenvalues, which is refused otherwise. Components
    sum to the portfolio's VaR; incremental = with less without.
    """
    values = x.mapping("values")
    names = list(values)
    v = np.array(list(values.values()))
    covariance = covariance_of(x, len(v)) if x.has("covariance") else _of_vols(x, names)
    z = x.ways((("z",), lambda: x.number("z", above=0.0)), (LEVEL, lambda: parametric.z_of(level_of(x))),
               default=parametric.z_of(0.95))
    x.conventions["z"] = z
    found = parametric.components(v, covariance, z)
    for kind in ("marginal_var", "component_var"):
        x.undefined(kind, "the portfolio does not vary: its volatility has no derivative")
    out: dict[str, Any] = {"portfolio_var": found["portfolio"]}
    for kind in ("individual", "marginal", "component", "incremental"):
        out[f"{kind}_var"] = dict(zip(names, np.asarray(found[kind]).tolist(), strict=True))
    return out


def _of_vols(x: Line, names: list[str]) -> np.ndarray:
    """Return the covariance of volatilities and a correlation: one number for every pair, or a matrix."""
    vols = x.mapping("vols", "volatilities")
    field = x.name_of("vols", "volatilities")
    if set(vols) != set(names):
        raise FieldError(field, sorted(vols), f"a volatility for each of {', '.join(names)}")
    for name, vol in vols.items():
        if vol < 0.0:
            raise FieldError(f"{field}.{name}", vol, "a volatility of at least 0")
    if x.is_list("correlation"):
        rho = covariance_of(x, len(names), "correlation", unit_diagonal=True)
    else:
        one = x.number("correlation", default=0.0, low=-1.0, high=1.0)
        if one * (len(names) - 1) < -1.0:
            raise FieldError("correlation", one, f"at least {-1.0 / (len(names) - 1):g}: {len(names)} values cannot "
                                                 "all fall together less than that")
        rho = np.full((len(names), len(names)), one)
        np.fill_diagonal(rho, 1.0)
    sd = np.array([vols[n] for n in names])
    return rho * np.outer(sd, sd)


def _rate(x: Line, default: Any = ...) -> float:
    """Return the exception rate that is expected: ``p``, or one less ``level``."""
    return x.ways((("p",), lambda: x.number("p", above=0.0, high=0.5)),
                  (LEVEL, lambda: round(1.0 - level_of(x), 12)), default=default)


def _exceptions(x: Line, n: int) -> int:
    return x.whole("exceptions", high=n)


@calculator("kupiec")
def kupiec(x: Line) -> dict[str, Any]:
    """Kupiec's proportion of failures: n, exceptions, p (or level); chi-square with 1 degree of freedom."""
    n = x.whole("n", "days", low=1)
    out: dict[str, Any] = bt.kupiec(n, _exceptions(x, n), _rate(x))
    if x.has("lr_independence"):
        out["lr_conditional"] = out["lr_pof"] + x.number("lr_independence", low=0.0)
        out["p_value_conditional"] = bt.chi_square_tail(out["lr_conditional"], 2)
    return out | {"rejected_at_95": out["p_value"] < 0.05}


@calculator("traffic_light")
def traffic_light(x: Line) -> dict[str, Any]:
    """Basel zone and multipliers from exceptions in n days (250) at p (0.01) or level; the zone under both names."""
    n = x.whole("n", "days", default=250, low=1)
    found = bt.traffic_light(_exceptions(x, n), n, _rate(x, default=0.01))
    x.conventions["zone"] = found["zone_basis"]
    return found | {"zone_1996": "yellow" if found["zone"] == "amber" else found["zone"]}


@calculator("backtest", "christoffersen")
def backtest(x: Line) -> dict[str, Any]:
    """Backtest: pnl and var a day (oldest first), or hits (0 or 1 a day); level. Kupiec, Christoffersen, Basel zone.

    A day on which either is missing (null) is left out; what follows it does not count as following a day.
    """
    level = level_of(x, default=[0.95])
    if x.has("hits"):
        hits = x.series("hits", keep_missing=True)
        bad = hits[np.isfinite(hits) & (hits != 0.0) & (hits != 1.0)]
        if len(bad):
            raise FieldError("hits", float(bad[0]), "0 or 1 a day")
    else:
        pnl, var_ = x.series("pnl", keep_missing=True), x.series("var", keep_missing=True)
        if len(pnl) != len(var_):
            raise FieldError("var", len(var_), f"as many days as pnl ({len(pnl)})")
        hits = bt.hits_of(pnl, var_)
    missing = int(np.isnan(hits).sum())
    if missing:
        x.conventions["missing_skipped"] = missing
    if missing == len(hits):
        raise FieldError("hits" if x.has("hits") else "pnl", None, "at least one day that is known")
    for name in ("lr_independence", "p_value_independence", "lr_conditional", "p_value_conditional"):
        x.undefined(name, "no two days follow each other")
    found = bt.backtest(hits, level)
    x.conventions["zone"] = found["zone_basis"]
    return found


@calculator("factor_risk")
def factor_risk(x: Line) -> dict[str, Any]:
    """Factor decomposition of volatility: exposures, covariance, specific_variance; contributions sum to it."""
    e = vector(x, "exposures", "exposure")
    specific = x.number("specific_variance", default=0.0, low=0.0)
    found = factor.decompose(e, covariance_of(x, len(e)), specific)
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
    quantity, adv = np.array([x.number("quantity", "qty")]), np.array([x.number("adv", default=None, above=0.0)])
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
