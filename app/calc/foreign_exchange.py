"""Calculators of FX: options, deltas and strikes, forwards, cross rates."""

from __future__ import annotations

import math
from typing import Any

from app.calc.line import SAME, FieldError, Line, calculator
from app.calc.options import MOST_VOL, european_greeks, hold, price_of, rate_of, sign_of, years
from models.pricing import fx

DOMESTIC, FOREIGN = ("r_domestic", "rate", "r", "domestic_rate"), ("r_foreign", "foreign_rate", "q", "dividend_yield")


def deviation(x: Line, total: float, *names: str) -> float:
    """Return volatility times the root of time, refused where strikes leave the numbers that a computer has."""
    if total > 30.0:
        raise FieldError(x.name_of(*names), x.fields[x.name_of(*names)], "at most 30 over the root of the years")
    return total


def _discounts(x: Line) -> tuple[float, float]:
    """Return the discount factors of both currencies, as given or from continuous rates."""
    if x.has("df_domestic", "df_foreign"):
        return x.number("df_domestic", above=0.0, high=100.0), x.number("df_foreign", above=0.0, high=100.0)
    t = years(x)
    x.conventions["rates"] = "continuous"
    domestic, foreign = rate_of(x, *DOMESTIC), rate_of(x, *FOREIGN)
    hold(x, DOMESTIC, t, domestic, foreign)
    return math.exp(-domestic * t), math.exp(-foreign * t)


@calculator("fx_option", "garman_kohlhagen")
def fx_option(x: Line) -> dict[str, Any]:
    """FX option: price, the four deltas, Greeks, and with notional_foreign the premium in every quote style."""
    sign, strike, t = sign_of(x), price_of(x, "strike", "K"), years(x)
    spot, r_d, r_f = price_of(x, "spot", "S"), rate_of(x, *DOMESTIC), rate_of(x, *FOREIGN)
    hold(x, DOMESTIC, t, r_d, r_f)
    vol = x.number("vol", "volatility", low=0.0, high=MOST_VOL)
    deviation(x, vol * math.sqrt(t), "vol", "volatility")
    x.conventions["rates"] = "continuous"
    out: dict[str, Any] = european_greeks(sign, spot, strike, t, vol, r_d, r_d - r_f, 1.0)
    dfs = math.exp(-r_d * t), math.exp(-r_f * t)
    for convention in fx.DELTA_CONVENTIONS:
        out[f"delta_{convention}"] = fx.option_delta(sign, spot, strike, vol * math.sqrt(t), *dfs, convention)
    if x.has("pair"):
        out["premium_adjusted_by_custom"] = x.text("pair").replace("/", "") in fx.PREMIUM_ADJUSTED_PAIRS
    notional = x.number("notional_foreign", "notional", default=1.0, low=0.0)
    forward = fx.forward_rate(spot, *dfs)
    return out | fx.premium_styles(out["price"], spot, strike, notional) | {
        "forward": forward, "atm_delta_neutral_strike": fx.atm_delta_neutral_strike(forward, vol * math.sqrt(t), False)}


@calculator("fx_delta", "fx_strike", "fx_delta_strike")
def fx_delta(x: Line) -> dict[str, Any]:
    """FX delta from strike|K, strike from delta, or both: delta_type, spot, df_domestic, df_foreign, std_dev.

    Discount factors may be given as r_domestic and r_foreign with t; std_dev as vol with t. ``delta`` is answered
    where a strike is given, ``strike`` where a (signed) delta is.
    """
    sign, spot = sign_of(x), price_of(x, "spot", "S")
    convention = x.choice("delta_type", "convention", among=fx.DELTA_CONVENTIONS)
    dfs = _discounts(x)
    std_dev = x.ways((("std_dev",), lambda: x.number("std_dev", low=0.0, high=30.0)),
                     (("vol", "volatility"), lambda: deviation(
                         x, x.number("vol", "volatility", low=0.0, high=MOST_VOL) * math.sqrt(years(x)),
                         "vol", "volatility")))
    out: dict[str, Any] = {}
    if x.has("strike", "K"):
        out["delta"] = fx.option_delta(sign, spot, price_of(x, "strike", "K"), std_dev, *dfs, convention)
    if x.has("delta"):
        delta = x.number("delta")
        if sign * delta <= 0.0:
            raise FieldError("delta", delta, "above 0 for a call, below 0 for a put")
        if std_dev <= 0.0:
            raise FieldError(x.name_of("std_dev", "vol", "volatility"), std_dev, "above 0: without it every strike in "
                                                                                 "the money has one delta")
        out["strike"] = out["K"] = fx.strike_from_delta(sign, delta, spot, std_dev, *dfs, convention)
    if not out:
        raise FieldError("strike", None, "a strike or a delta")
    return out


@calculator("fx_forward")
def fx_forward(x: Line) -> dict[str, Any]:
    """Outright forward and its value: spot, and discount factors, continuous rates or deposits; strike, notional.

    deposit_domestic, deposit_foreign are simple over days (or t x 365) of basis 360. pair names the units.
    """
    spot = price_of(x, "spot", "S")
    if x.has("pair"):
        x.conventions["pair"] = x.text("pair")
    if x.has("deposit_domestic", "deposit_foreign"):
        names = ("t", "t_years", "expiry_years")
        days = x.ways((("days", "t_days"), lambda: x.number("days", "t_days", low=0.0, high=1e5)),
                      (names, lambda: 365.0 * x.number(*names, low=0.0, high=200.0)), default=365.0)
        basis = x.number("basis", default=360.0, low=250.0, high=366.0)
        x.conventions |= {"deposits": "simple", "days": days, "basis": basis}

        def simple(name: str) -> float:
            growth = 1.0 + rate_of(x, name) * days / basis
            if growth <= 0.0:
                raise FieldError(name, x.fields[name], "a rate at which a deposit is not lost whole")
            return 1.0 / growth

        dfs = simple("deposit_domestic"), simple("deposit_foreign")
    else:
        dfs = _discounts(x)
    forward = fx.forward_rate(spot, *dfs)
    out = {"forward": forward, "forward_points": forward - spot, "df_domestic": dfs[0], "df_foreign": dfs[1]}
    if x.has("strike", "K"):
        value = fx.forward_value(forward, price_of(x, "strike", "K"),
                                 x.number("notional_foreign", "notional", default=1.0), dfs[0])
        out |= {"value_domestic": value, "value_foreign": value / spot}
    return out


@calculator("fx_cross", "fx_cross_rate", "fx_cross_rates")
def fx_cross(x: Line) -> dict[str, Any]:
    """Exchange rate of pair "AAA/BBB" from quotes {"AAA/CCC": [bid, ask], ...}, and its path; null where none exists.

    side: bid or ask multiply that side along the path, dealer_bid and dealer_ask take what a dealer would deal at.
    Crossed quotes are refused, but for side bid_reciprocal, which reads bids alone and says so.
    """
    pair = x.text("pair")
    side = x.choice("side", among=("bid", "ask", "mid", "bid_reciprocal", "dealer_bid", "dealer_ask"), default="mid")
    quotes = x.arrays("quotes", count=2)
    for name in (pair, *quotes):
        if name.count("/") != 1 or not all(name.split("/")):
            raise FieldError("pair" if name == pair else f"quotes.{name}", name, "AAA/BBB")
    for name, both in quotes.items():
        if not (both > 0.0).all():
            raise FieldError(f"quotes.{name}", both, "a bid and an ask above 0")
        if both[0] > both[1] * (1 + SAME):
            if side != "bid_reciprocal":
                raise FieldError(f"quotes.{name}", both, "a bid not above its ask: nobody deals at crossed quotes")
            x.conventions["crossed"] = "quotes with a bid above the ask are taken: this side reads bids alone"
    for name, both in quotes.items():
        other = quotes.get("/".join(reversed(name.split("/"))))
        inverse = None if other is None else 1.0 / other
        if inverse is not None and (inverse.max() < both.min() * (1 - SAME) or inverse.min() > both.max() * (1 + SAME)):
            raise FieldError(f"quotes.{name}", both, "the pair or its inverse alone, or quotes that overlap; the "
                                                     f"inverse says {sorted(inverse.tolist())}")
    base, quote = pair.split("/")
    sides = {k: (float(v[0]), float(v[1])) for k, v in quotes.items()}
    for name in ("value", "path"):
        x.undefined(name, "no path of pairs leads from one currency to the other")
    return {"value": fx.cross_rate(base, quote, sides, side), "path": fx.cross_path(base, quote, sides)}
