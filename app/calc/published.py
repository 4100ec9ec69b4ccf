"""What each kind of published results compares with the calculators, field by field."""

from __future__ import annotations

import csv
import gzip
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from app.calc.answers import calculate
from models.risk.quantile import expected_shortfall, quantile_loss

#: (what is compared, what we got, what was published)
Pair = tuple[str, Any, Any]
Comparison = Callable[[dict[str, Any], Path], Iterator[Pair]]


#: what a published case says beside its inputs
_BESIDE = frozenset({"measure", "value", "textbook", "where", "symbol", "currency", "quote", "exchange_value"})


def _calc(name: str, case: dict[str, Any], **more: Any) -> dict[str, Any]:
    return calculate(name, {k: v for k, v in case.items() if k not in _BESIDE} | more)


def _without(case: dict[str, Any], *prefixes: str) -> dict[str, Any]:
    """Return a case without what it publishes."""
    return {k: v for k, v in case.items() if not k.startswith(prefixes)}


def _fields(name: str, *fields: str, **more: Any) -> Comparison:
    def compare(case: dict[str, Any], _market: Path) -> Iterator[Pair]:
        got = _calc(name, {k: v for k, v in case.items() if k not in fields}, **more)
        for f in fields:
            if f in case:
                yield f, got.get(f, got.get("error")), case[f]

    return compare


def _measure(name: str) -> Comparison:
    def compare(case: dict[str, Any], _market: Path) -> Iterator[Pair]:
        got = _calc(name, case)
        measure = case["measure"]
        yield measure, got.get(measure, got.get("error")), case["value"]

    return compare


def _table(path: Path) -> dict[str, list[Any]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", newline="") as source:
        rows = list(csv.reader(source))
    columns = dict(zip(rows[0], zip(*rows[1:], strict=True), strict=True))
    return {name: [v if name == "date" else float(v) if v else None for v in values]
            for name, values in columns.items()}


def _series(market: Path, name: str) -> tuple[list[str], list[Any]]:
    for file in ("monthly_edhec_hedge_fund_indices.csv.gz", "monthly_managers.csv.gz"):
        table = _table(market / file)
        if name in table:
            known = [(d, v) for d, v in zip(table["date"], table[name], strict=True) if v is not None]
            return [d for d, _ in known], [v for _, v in known]
    raise KeyError(name)


def _gilts(case: dict[str, Any], _market: Path) -> Iterator[Pair]:
    got = _calc("bond", {k: case[k] for k in ("maturity", "coupon", "clean")}, settle="2012-09-19")
    for f in ("accrued", "ytm_percent"):
        yield f, got.get(f, got.get("error")), case[f]


def _bond_durations(case: dict[str, Any], _market: Path) -> Iterator[Pair]:
    inputs = ("settle", "maturity", "coupon", "freq", "day_count", "ytm", "clean_input")
    given = {k: case[k] for k in inputs if k in case}
    got = _calc("bond", given)
    names = {"dirty_at_ytm": "dirty", "clean_at_ytm": "clean", "ytm_4dp": "yield"}
    for f, want in case.items():
        name = names.get(f, f)
        if f not in given and name in got and isinstance(want, int | float):
            yield f, got[name], want


def _dv01(case: dict[str, Any], _market: Path) -> Iterator[Pair]:
    settle = "2024-01-30" if case["settle"].startswith("default") else case["settle"]
    # the yield is printed to six decimals: any yield that rounds to it may be the source's
    ends = [_calc("bond", {"coupon": 4.5, "maturity": "2033-08-15", "dated": "2023-11-15", "schedule": "forward",
                           "day_count": "30/360 US", "settle": settle, "ytm": case["ytm"] + slack})
            for slack in (-6e-7, 6e-7)]
    for f in ("basis_point_value_per_million", "yield_value_bp"):
        low, high = sorted(e[f] for e in ends)
        yield f, min(max(case[f], low), high), case[f]


def _fx_delta(case: dict[str, Any], _market: Path) -> Iterator[Pair]:
    got = _calc("fx_delta", case)
    yield "delta", got.get("delta", got.get("error")), case["delta"]
    # the strike is printed for a rounded delta: the file allows ten times the tolerance
    yield "strike/10", got["strike"] / 10 if "strike" in got else None, case["K"] / 10


def _fx_calls(case: dict[str, Any], _market: Path) -> Iterator[Pair]:
    got = _calc("fx_option", _without(case, "price", "delta_", "vega", "theta"))
    for f, want in case.items():
        if f == "price" or f.startswith(("delta_", "vega", "theta")):
            yield f, got.get(f, got.get("error")), want


def _quote_styles(case: dict[str, Any], _market: Path) -> Iterator[Pair]:
    inputs = ("type", "pair", "S", "K", "r_domestic", "r_foreign", "vol", "t_days", "notional_foreign")
    got = _calc("fx_option", {f: case[f] for f in inputs})
    for f, want in case.items():
        if f not in inputs and isinstance(want, int | float):
            # the source takes a year of 365.242 days somewhere: premiums of a million differ by 6 cents
            scale = 10.0 if f in ("premium_domestic", "premium_foreign") else 1.0
            yield f, got[f] / scale, want / scale


def _haug_european(case: dict[str, Any], market: Path) -> Iterator[Pair]:
    yield from _fields("option", "price")(case, market)


def _hull(case: dict[str, Any], market: Path) -> Iterator[Pair]:
    yield from _measure("option")(case, market)


def _implied_then_greeks(case: dict[str, Any], market: Path) -> Iterator[Pair]:
    yield from _fields("implied_vol", "delta", "gamma", "theta_per_day")(case, market)


def _capm(case: dict[str, Any], market: Path) -> Iterator[Pair]:
    table = _table(market / "monthly_managers.csv.gz")
    got = _calc("capm", {"returns": table[case["series"]], "benchmark": table["SP500 TR"],
                         "risk_free": table["US 3m TR"]})
    for f, want in case.items():
        if f != "series":
            yield f, got.get(f, got.get("error")), want


def _longley(case: dict[str, Any], market: Path) -> Iterator[Pair]:
    got = _calc("regression", {f: case[f] for f in ("y", "X", "intercept") if f in case})
    for f in ("params", "standard_errors", "r_squared", "residual_ss", "f_value"):
        want = case[f]
        scale = [abs(w) for w in want] if isinstance(want, list) else abs(want)
        relative = ([g / s for g, s in zip(got[f], scale, strict=True)] if isinstance(want, list) else got[f] / scale)
        yield f, relative, [math.copysign(1, w) for w in want] if isinstance(want, list) else math.copysign(1, want)


def _episodes(case: dict[str, Any], market: Path) -> Iterator[Pair]:
    dates, returns = _series(market, case["series"])
    got = _calc("drawdown", {"returns": returns, "dates": dates, "top": 10})["episodes"][case["rank"] - 1]
    for f, name in (("from", "from"), ("trough", "trough_at"), ("to", "to"), ("depth", "depth"), ("length", "length"),
                    ("to_trough", "to_trough"), ("recovery", "recovery")):
        if f in case:
            yield f, got[name], case[f]


def _edhec(case: dict[str, Any], market: Path) -> Iterator[Pair]:
    _, returns = _series(market, case["series"])
    base = {"returns": returns, "level": 0.95}
    historical = _calc("var", base, rule="linear", es_rule="beyond_linear")["signed"]
    gauss = _calc("var", base, method="gaussian")["signed"]
    stats = _calc("performance", {"returns": returns, "periods_per_year": 12})
    got = {
        "var_hist_95": historical["var"], "es_hist_95": historical["es"], "var_gauss_95": gauss["var"],
        "es_gauss_95": gauss["es"], "var_mod_95": _calc("var", base, method="modified")["signed"]["var"],
        "var_mod_99": _calc("var", base | {"level": 0.99}, method="modified")["signed"]["var"],
        "stddev": stats["stddev"], "max_drawdown": -stats["max_drawdown"], "semi_deviation": stats["semi_deviation"],
        "downside_dev_mar0": stats["downside_deviation"],
        "downside_dev_mar5pct": _calc("performance", {"returns": returns, "periods_per_year": 12, "mar": 0.05 / 12}
                                      )["downside_deviation"]}
    for f, want in case.items():
        if f != "series":
            yield f, got.get(f), want


def _historical_ore(case: dict[str, Any], _market: Path) -> Iterator[Pair]:
    for p, want in case["quantiles"].items():
        # a quantile of the profits is the loss quantile of the other tail: our level is 1 - p
        level = round(1 - float(p), 12)
        if level < 0.5:  # a tail of profits is no VaR: the calculator refuses the level, its estimators have it
            pnl = np.array(case["pnl"])
            got = {"var": -quantile_loss(pnl, level, "ceil"), "es": -expected_shortfall(pnl, level, "ceil")}
        else:
            got = _calc("var", {"pnl": case["pnl"], "level": level, "rule": "ceil", "es_rule": "ceil"})["signed"]
        yield f"quantile {p}", got["var"], want
        yield f"es {p}", got["es"], case["expected_shortfall"][p]


def _delta_gamma(case: dict[str, Any], _market: Path) -> Iterator[Pair]:
    got = _calc("var", {k: case[k] for k in ("delta", "gamma", "covariance")}, method="delta_gamma", level=[0.95, 0.99])
    for p, want in case["quantiles"].items():
        yield f"quantile {p}", got["quantiles"][f"{float(p):g}"], want


_spy: dict[Path, tuple[dict[str, int], list[float]]] = {}


def _parametric_spy(case: dict[str, Any], market: Path) -> Iterator[Pair]:
    if market not in _spy:
        table = _table(market / "daily_spy_lean.csv.gz")
        close = table["close"]
        _spy[market] = ({d: i for i, d in enumerate(table["date"])},
                        [b / a - 1 for a, b in itertools.pairwise(close)])
    index, returns = _spy[market]
    upto = returns[: index[case["date"]]]
    got = _calc("var", {"returns": upto, "level": [0.99, 0.95, 0.9], "window": 252}, method="gaussian", sd="sample")
    for level in ("0.99", "0.95", "0.9"):
        yield f"var_{float(level) * 100:.0f}", got["signed"]["var"][level], case[f"var_{float(level) * 100:.0f}"]


def _component(case: dict[str, Any], _market: Path) -> Iterator[Pair]:
    got = _calc("component_var", {f: case[f] for f in ("values", "vols", "correlation", "covariance", "z", "level")
                                  if f in case})
    for f, want in case.items():
        if f == "portfolio_var":
            yield f, got[f], want
        elif f.startswith(("individual_var_", "component_var_", "incremental_var_", "marginal_var_")):
            kind, _, name = f.rpartition("_")
            yield f, got[kind][name.upper()], want


def _kupiec(case: dict[str, Any], _market: Path) -> Iterator[Pair]:
    got = _calc("kupiec", _without(case, "lr_pof", "p_value", "lr_conditional"))
    for f in ("lr_pof", "p_value", "lr_conditional"):
        if f in case:
            yield f, got[f], case[f]


def _traffic(case: dict[str, Any], _market: Path) -> Iterator[Pair]:
    got = _calc("traffic_light", _without(case, "cumulative_probability", "zone", "multiplier"))
    yield "cumulative_probability", got["cumulative_probability"], case["cumulative_probability"]
    yield "zone", got["zone_1996"], case["zone"]
    if "multiplier" in case:
        yield "multiplier", got["multiplier_1996"], case["multiplier"]


def _average_cost(case: dict[str, Any], _market: Path) -> Iterator[Pair]:
    got = _calc("position", {"inverse": case["instrument"]["inverse"], "fills": case["fills"],
                             "marks": [m["price"] for m in case.get("marks", [])] or [1.0]})
    # the source rounds what is realised to its currency's decimals
    slack = 0.5 * 10 ** -case["instrument"].get("pnl_decimals", 8)
    rounded = {"realized_net", "unrealized", "total", "fees"}

    def near(value: float, want: float, f: str) -> float:
        return want if f in rounded and abs(value - want) <= slack * (1 + 1e-9) * 2 else value

    for e in case["expect"]:
        row = got["after_fill"][e["after_fill"] - 1]
        for f in ("qty", "avg_price", "realized_net", "fees"):
            if f in e:
                yield f"{f} after {e['after_fill']}", near(row[f], e[f], f), e[f]
    for mine, theirs in zip(got["marks"], case.get("marks", []), strict=False):
        for f, want in theirs.items():
            if f in mine and f != "price":
                yield f"{f} at {theirs['price']}", near(mine[f], want, f), want


def _fifo_lifo(case: dict[str, Any], _market: Path) -> Iterator[Pair]:
    got = _calc("position", {"fills": case["fills"]})["closed"]
    for matching in ("fifo", "lifo", "flat_to_flat"):
        if matching not in case:
            continue
        want = case[matching] if isinstance(case[matching], list) else [case[matching]]
        yield f"{matching} count", len(got[matching]), len(want)
        for mine, theirs in zip(got[matching], want, strict=False):
            for f, value in theirs.items():
                yield f"{matching} {f}", mine[f], value


def _flip_fees(case: dict[str, Any], _market: Path) -> Iterator[Pair]:
    got = _calc("position", {"fills": case["fills"]})
    for part in ("open", "exited"):
        if case[part] is None:
            yield part, got[part], None
            continue
        for f, want in case[part].items():
            yield f"{part} {f}", got[part][f], want


def _account_currency(case: dict[str, Any], _market: Path) -> Iterator[Pair]:
    inputs = ("kind", "quote_currency", "fx_to_account", "start_qty", "start_avg", "fill")
    got = _calc("position", {k: case[k] for k in inputs})
    for f, want in case.items():
        if f not in inputs and f != "id":
            yield f, got["cash" if f.startswith("cash_") else f], want


def _bybit(case: dict[str, Any], _market: Path) -> Iterator[Pair]:
    yield "margin_init", _calc("margin", case)["margin_init"], case["exchange_value"]


def _margin(case: dict[str, Any], _market: Path) -> Iterator[Pair]:
    got = _calc("margin", {k: v for k, v in case.items() if k not in ("margin_init", "margin_init_in_quote")})
    for f in ("margin_init", "margin_init_in_quote"):
        if f in case:
            yield f, got[f], case[f]


COMPARISONS: dict[str, Comparison] = {
    "beta_small_series": _measure("performance"), "performance_small_series": _measure("performance"),
    "bonds_dv01": _dv01, "bonds_gilt_yields": _gilts, "bonds_price_duration": _bond_durations,
    "drawdown_episodes": _episodes, "drawdown_recovery_time": _fields("drawdown", "max_recovery_days"),
    "factor_capm_managers": _capm, "factor_ols_longley": _longley, "fx_cross_rates": _fields("fx_cross", "value"),
    "fx_delta_strike": _fx_delta, "fx_forward": _fields("fx_forward", "forward", "value_domestic", "value_foreign"),
    "fx_garman_kohlhagen_calls": _fx_calls, "fx_quote_styles_wystup": _quote_styles, "margin_bybit": _bybit,
    "margin_linear_inverse": _margin, "options_american_puts_ju": _fields("option", "price", exercise="american"),
    "options_bs_carry_calls": _fields("option", "price"), "options_equity_greeks": _fields(
        "option", "price", "delta", "vega", "theta", "rho"),
    "options_haug_barrier_calls": _fields("barrier", "price"), "options_haug_digital": _fields("digital", "price"),
    "options_haug_european_prices": _haug_european, "options_hull_greeks": _hull,
    "options_implied_vol_then_greeks": _implied_then_greeks, "positions_account_currency": _account_currency,
    "positions_average_cost": _average_cost, "positions_fifo_lifo": _fifo_lifo, "positions_flip_fees": _flip_fees,
    "risk_edhec": _edhec, "var_backtest_kupiec": _kupiec, "var_backtest_traffic_light": _traffic,
    "var_component_textbook": _component, "var_historical_ore": _historical_ore, "var_parametric_ore": _delta_gamma,
    "var_parametric_spy": _parametric_spy,
}
#: tolerances that a file states in words, by kind: (absolute, relative, by field)
IN_WORDS: dict[str, tuple[float, float, dict[str, float]]] = {
    "bonds_price_duration": (2e-4, 0.0, {"modified_duration": 1e-4, "macaulay_duration": 1e-4, "dollar_duration": 0.02,
                                         "accrued_per_million": 1e-3, "ytm_4dp": 5e-5,
                                         # at the source's yield, known to 2e-6, times a dollar duration of 869
                                         "dirty_at_ytm": 1.8e-3, "clean_at_ytm": 1.8e-3}),
    "margin_bybit": (0.0, 0.05, {}), "var_backtest_kupiec": (0.0, 2.5e-5, {}),
    "var_component_textbook": (0.0, 1e-3, {}),
    # printed to 4 to 8 decimals in the source; the Greeks of prices near 15 carry its cdf's 1e-5 relative
    "options_equity_greeks": (1e-4, 1e-5, {}), "options_implied_vol_then_greeks": (6e-4, 0.0, {}),
}
