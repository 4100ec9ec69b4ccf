"""Calculators of options and FX."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from app.calc.line import FieldError, Line, calculator
from models.pricing import black_scholes as bs
from models.pricing import exotic, fx
from models.pricing.american import american_greeks

MODELS = ("bs", "bsm", "black_scholes", "black_scholes_merton", "gbs", "black", "black76", "garman_kohlhagen", "gk",
          "bachelier")
CALL_PUT = ("call", "put", "c", "p")


def sign_of(x: Line) -> float:
    """+1 for a call, -1 for a put."""
    return 1.0 if x.choice("type", "right", "option_type", among=CALL_PUT).startswith("c") else -1.0


def years(x: Line) -> float:
    """Time to expiry in years: ``t``, or ``t_days`` over 365 (or ``days_per_year``); both where they agree."""

    def from_days() -> float:
        return x.number("t_days", "days", low=0.0) / x.number("days_per_year", default=365.0, above=0.0)

    names = ("t", "t_years", "expiry_years")
    return x.ways((names, lambda: x.number(*names, low=0.0)), (("t_days", "days"), from_days))


def market(x: Line) -> tuple[float, float, float, float]:
    """Return (spot or futures price, rate, carry, whether carry moves with the rate)."""
    model = x.choice("model", among=MODELS, default="black_scholes_merton")
    if model in ("black", "black76"):
        spot = x.number("forward", "F", "futures_price", "spot", "S", above=0.0)
        x.conventions["carry"] = "none: the price is a futures price"
        return spot, x.number("rate", "r", "r_domestic"), 0.0, 0.0
    spot = x.number("spot", "S", "underlying_price", above=0.0)
    rate = x.number("rate", "r", "r_domestic", "domestic_rate")
    if x.has("carry", "b", "cost_of_carry"):
        carry = x.number("carry", "b", "cost_of_carry")
        x.conventions["carry"] = "b as given; q = r - b is held when r moves"
    else:
        q = x.number("dividend_yield", "q", "r_foreign", "foreign_rate", "dividend", default=0.0)
        carry = rate - q
        x.conventions["carry"] = f"b = r - q, q = {q!r} continuous"
    return spot, rate, carry, 1.0


def one(*values: float) -> list[np.ndarray]:
    """Return columns of one row."""
    return [np.array([float(v)]) for v in values]


def greek_names(price: float, delta: float, gamma: float, vega: float, theta: float, rho: float) -> dict[str, float]:
    """Return Greeks under names that say their units; ``vega``, ``theta`` and ``rho`` are per 1.00 and per year."""
    return {"price": price, "delta": delta, "gamma": gamma, "vega": vega, "vega_per_vol_point": vega / 100.0,
            "vega_per_1pct": vega / 100.0, "theta": theta, "theta_per_year": theta, "theta_per_day": theta / 365.0,
            "rho": rho, "rho_per_1pct": rho / 100.0}


def implied(x: Line, sign: float, spot: float, strike: float, t: float, rate: float, carry: float) -> float:
    """Return the implied volatility of the line's price."""
    price = x.number("market_price", "price", "premium", above=0.0)
    vol = np.empty(1)
    bs.implied_volatilities(*one(sign, spot, strike, t, rate, carry, price), vol)
    if math.isnan(vol[0]):
        carried, strike_pv = spot * math.exp((carry - rate) * t), strike * math.exp(-rate * t)
        low = max(sign * (carried - strike_pv), 0.0)
        raise FieldError("market_price", price, f"above {low!r} and below {carried if sign > 0 else strike_pv!r} "
                                                "(no-arbitrage bounds)")
    return float(vol[0])


@calculator("option", "option_price", "greeks", "equity_option", "black_scholes", "black76", "american_option")
def option(x: Line) -> dict[str, Any]:
    """European or American option: price and five Greeks; the volatility is implied where a market_price is given.

    Fields: type, spot|S (or forward|F with model black76), strike|K, t (years) or t_days, vol, rate|r,
    dividend_yield|q or carry|b, exercise european|american. Greeks are per unit of the underlying; vega and rho per
    1.00 and per 0.01, theta a year and a calendar day (year/365); rho holds the dividend yield.
    """
    sign, strike, t = sign_of(x), x.number("strike", "K", above=0.0), years(x)
    spot, rate, carry, follows = market(x)
    exercise = x.choice("exercise", "style", among=("european", "american"), default="european")
    out: dict[str, Any] = {}
    if x.has("vol", "volatility", "sigma", "implied_vol"):
        vol = x.number("vol", "volatility", "sigma", "implied_vol", low=0.0)
    elif exercise == "american":
        raise FieldError("vol", None, "a volatility: implying it from American prices is not offered")
    else:
        vol = out["implied_vol"] = implied(x, sign, spot, strike, t, rate, carry)
    columns = one(sign, spot, strike, t, vol, rate, carry)
    if exercise == "american":
        found = np.empty((1, 6))
        american_greeks(*columns, found)
        x.conventions["method"] = "Leisen-Reimer trees of 101 and 203 steps, extrapolated; Greeks by central bumps"
        return out | greek_names(*found[0].tolist())
    g = bs.greeks(*columns, one(follows)[0])
    return out | greek_names(*(float(getattr(g, n)[0]) for n in ("price", "delta", "gamma", "vega", "theta", "rho")))


@calculator("implied_vol", "implied_volatility")
def implied_vol(x: Line) -> dict[str, Any]:
    """Implied volatility of a European option from market_price|price, with the Greeks at it."""
    sign, strike, t = sign_of(x), x.number("strike", "K", above=0.0), years(x)
    spot, rate, carry, follows = market(x)
    vol = implied(x, sign, spot, strike, t, rate, carry)
    g = bs.greeks(*one(sign, spot, strike, t, vol, rate, carry, follows))
    return {"implied_vol": vol} | greek_names(
        *(float(getattr(g, n)[0]) for n in ("price", "delta", "gamma", "vega", "theta", "rho")))


@calculator("barrier", "barrier_option")
def barrier(x: Line) -> dict[str, Any]:
    """Single-barrier option, continuously monitored: barrier_type, barrier, rebate (out: at hit; in: at expiry)."""
    kind = x.choice("barrier_type", "kind", among=tuple(exotic.BARRIER_KINDS))
    sign, strike, t = sign_of(x), x.number("strike", "K", above=0.0), years(x)
    spot, rate, carry, _ = market(x)
    level, rebate = x.number("barrier", "B", "H", above=0.0), x.number("rebate", default=0.0)
    vol, touched = x.number("vol", "volatility", above=0.0), x.flag("touched")
    x.conventions["touched"] = "a spot on or beyond the barrier counts as touched"
    return _exotic(exotic.BARRIER_KINDS[kind], -1, sign, spot, strike, level, rebate, t, vol, rate, carry, touched)


@calculator("digital", "digital_option", "binary_option")
def digital(x: Line) -> dict[str, Any]:
    """European digital: payoff cash_or_nothing (cash), asset_or_nothing, gap (payoff_strike)."""
    kind = x.choice("payoff", "kind", among=tuple(exotic.DIGITAL_KINDS))
    sign, strike, t = sign_of(x), x.number("strike", "K", above=0.0), years(x)
    spot, rate, carry, _ = market(x)
    pays = {"cash_or_nothing": ("cash",), "gap": ("payoff_strike",), "asset_or_nothing": ()}[kind]
    payoff = x.number(*pays) if pays else 0.0
    vol = x.number("vol", "volatility", above=0.0)
    return _exotic(-1, exotic.DIGITAL_KINDS[kind], sign, spot, strike, 0.0, payoff, t, vol, rate, carry, False)


def _exotic(barrier_kind: int, digital_kind: int, sign: float, spot: float, strike: float, level: float,
            payoff: float, t: float, vol: float, rate: float, carry: float, touched: bool) -> dict[str, Any]:
    out = np.empty((1, 6))
    exotic.exotic_greeks(np.array([barrier_kind]), np.array([digital_kind]),
                         *one(sign, spot, strike, level, payoff, t, vol, rate, carry),
                         np.array([touched], np.int8), out)
    return greek_names(*out[0].tolist())


@calculator("fx_option", "garman_kohlhagen")
def fx_option(x: Line) -> dict[str, Any]:
    """FX option: price, the four deltas, Greeks, and with notional_foreign the premium in every quote style."""
    sign, strike, t = sign_of(x), x.number("strike", "K", above=0.0), years(x)
    spot = x.number("spot", "S", above=0.0)
    r_d = x.number("r_domestic", "rate", "r", "domestic_rate")
    r_f = x.number("r_foreign", "foreign_rate", "q", "dividend_yield")
    vol = x.number("vol", "volatility", above=0.0)
    g = bs.greeks(*one(sign, spot, strike, t, vol, r_d, r_d - r_f))
    out: dict[str, Any] = greek_names(
        *(float(getattr(g, n)[0]) for n in ("price", "delta", "gamma", "vega", "theta", "rho")))
    dfs = math.exp(-r_d * t), math.exp(-r_f * t)
    for convention in fx.DELTA_CONVENTIONS:
        out[f"delta_{convention}"] = fx.option_delta(sign, spot, strike, vol * math.sqrt(t), *dfs, convention)
    if x.has("pair"):
        pair = x.text("pair").replace("/", "")
        out["premium_adjusted_by_custom"] = pair in fx.PREMIUM_ADJUSTED_PAIRS
    notional = x.number("notional_foreign", "notional", default=1.0)
    return out | fx.premium_styles(out["price"], spot, strike, notional) | {
        "forward": fx.forward_rate(spot, *dfs),
        "atm_delta_neutral_strike": fx.atm_delta_neutral_strike(fx.forward_rate(spot, *dfs), vol * math.sqrt(t), False)}


@calculator("fx_delta", "fx_strike", "fx_delta_strike")
def fx_delta(x: Line) -> dict[str, Any]:
    """FX delta from strike|K, strike from delta, or both: delta_type, spot, df_domestic, df_foreign, std_dev.

    Discount factors may be given as r_domestic and r_foreign with t; std_dev as vol with t. ``delta`` is answered
    where a strike is given, ``strike`` where a (signed) delta is.
    """
    sign, spot = sign_of(x), x.number("spot", "S", above=0.0)
    convention = x.choice("delta_type", "convention", among=fx.DELTA_CONVENTIONS)
    if x.has("df_domestic"):
        dfs = x.number("df_domestic", above=0.0), x.number("df_foreign", above=0.0)
    else:
        t = years(x)
        dfs = math.exp(-x.number("r_domestic") * t), math.exp(-x.number("r_foreign") * t)
    std_dev = (x.number("std_dev", above=0.0) if x.has("std_dev")
               else x.number("vol", "volatility", above=0.0) * math.sqrt(years(x)))
    out: dict[str, Any] = {}
    if x.has("strike", "K"):
        out["delta"] = fx.option_delta(sign, spot, x.number("strike", "K", above=0.0), std_dev, *dfs, convention)
    if x.has("delta"):
        delta = x.number("delta")
        if sign * delta <= 0.0:
            raise FieldError("delta", delta, "above 0 for a call, below 0 for a put")
        out["strike"] = out["K"] = fx.strike_from_delta(sign, delta, spot, std_dev, *dfs, convention)
    if not out:
        raise FieldError("strike", None, "a strike or a delta")
    return out


@calculator("fx_forward")
def fx_forward(x: Line) -> dict[str, Any]:
    """Outright forward and its value: spot, deposits (simple, ACT/360) or discount factors, strike, notional."""
    spot = x.number("spot", "S", above=0.0)
    if x.has("pair"):
        x.conventions["pair"] = x.text("pair")
    if x.has("df_domestic"):
        dfs = x.number("df_domestic", above=0.0), x.number("df_foreign", above=0.0)
    elif x.has("deposit_domestic"):
        days = 365.0 * years(x) if x.has("t", "t_years", "expiry_years") else x.number(
            "days", "t_days", default=365.0, low=0.0)
        basis = x.number("basis", default=360.0, above=0.0)
        x.conventions |= {"deposits": "simple", "days": days, "basis": basis}
        dfs = (1.0 / (1.0 + x.number("deposit_domestic") * days / basis),
               1.0 / (1.0 + x.number("deposit_foreign") * days / basis))
    else:
        t = years(x)
        x.conventions["rates"] = "continuous"
        dfs = math.exp(-x.number("r_domestic", "r") * t), math.exp(-x.number("r_foreign", "q") * t)
    forward = fx.forward_rate(spot, *dfs)
    out = {"forward": forward, "forward_points": forward - spot, "df_domestic": dfs[0], "df_foreign": dfs[1]}
    if x.has("strike", "K"):
        value = fx.forward_value(forward, x.number("strike", "K", above=0.0),
                                 x.number("notional_foreign", "notional", default=1.0), dfs[0])
        out |= {"value_domestic": value, "value_foreign": value / spot}
    return out


@calculator("fx_cross", "fx_cross_rate", "fx_cross_rates")
def fx_cross(x: Line) -> dict[str, Any]:
    """Exchange rate of pair "AAA/BBB" from quotes {"AAA/CCC": [bid, ask], ...}; null where no path exists."""
    pair = x.text("pair")
    side = x.choice("side", among=("bid", "ask", "mid", "bid_reciprocal", "dealer_bid", "dealer_ask"), default="mid")
    quotes = x.arrays("quotes", count=2)
    for name in (pair, *quotes):
        if name.count("/") != 1 or not all(name.split("/")):
            raise FieldError("pair" if name == pair else f"quotes.{name}", name, "AAA/BBB")
    for name, quote in quotes.items():
        if not (quote > 0.0).all():
            raise FieldError(f"quotes.{name}", quote, "a bid and an ask above 0")
    sides = {k: (float(v[0]), float(v[1])) for k, v in quotes.items()}
    x.undefined("value", "no path of pairs leads from one currency to the other")
    return {"value": fx.cross_rate(*pair.split("/", 1), sides, side)}
