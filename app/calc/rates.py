"""Calculators of bonds, bills, curves and margin."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from app.calc.line import FieldError, Line, calculator
from models.pricing.bond import DAY_COUNTS, Bond, measures, yield_of
from models.pricing.calendars import CALENDARS, DAY_COUNTERS, calendar_of, settlement_date
from models.pricing.curve import zero_rates
from models.pricing.money_market import MoneyMarket, bank_discount, discount_price
from models.risk import exposure
from schemas.market import CurveQuotes


@calculator("bond")
def bond(x: Line) -> dict[str, Any]:
    """Fixed-coupon bond: price from yield or yield from price; accrued, durations, convexity, DV01, per 100 of face.

    Fields: settle, maturity, coupon (per cent), frequency|freq, day_count, dated and schedule forward|backward, and
    one of yield|ytm, ytm_percent, clean, dirty. Yields are compounded ``frequency`` times a year.
    """
    day_count = x.choice("day_count", among=DAY_COUNTS, default="ACT/ACT ICMA")
    frequency = x.whole("frequency", "freq", default=2, low=1)
    if frequency not in (1, 2, 4, 12):
        raise FieldError("frequency", frequency, "1, 2, 4 or 12")
    forward = x.choice("schedule", among=("forward", "backward"), default="backward") == "forward"
    paper = Bond(x.number("coupon", low=0.0), x.day("maturity"), frequency, day_count,
                 x.day("dated", "issue") if x.has("dated", "issue") else None, forward)
    x.conventions |= {"frequency": frequency, "yield": f"compounded {frequency} times a year, street convention"}
    settle = x.day("settle", "settlement")
    amounts, times, accrued = paper.flows(settle)
    if x.has("yield", "ytm", "y"):
        y = x.number("yield", "ytm", "y")
    elif x.has("ytm_percent", "yield_percent"):
        y = x.number("ytm_percent", "yield_percent") / 100.0
    elif x.has("clean", "clean_price", "clean_input"):
        y = yield_of(amounts, times, x.number("clean", "clean_price", "clean_input", above=0.0) + accrued, frequency)
    else:
        y = yield_of(amounts, times, x.number("dirty", "dirty_price", above=0.0), frequency)
    out = measures(paper, settle, y)
    face = x.number("face", default=1_000_000.0)
    days = (settle - paper.schedule(settle)[0]).days
    return out | {"ytm": y, "ytm_percent": 100.0 * y, "accrued_days": days, "convexity_div100": out["convexity"] / 100,
                  "accrued_per_million": accrued * 10_000, "face": face,
                  "basis_point_value": out["basis_point_value"] * face / 100,
                  "basis_point_value_per_million": out["basis_point_value"] * 10_000,
                  "yield_value_bp": out["yield_value_of_cent"] * 100}


@calculator("money_market")
def money_market(x: Line) -> dict[str, Any]:
    """Bill, commercial paper or certificate of deposit: price from simple yield or yield from price, per 100.

    Fields: settle, maturity, coupon (per cent, simple; with it dated), day_count, and one of yield, discount_rate (of
    100, over 360 days), clean, dirty.
    """
    day_count = x.choice("day_count", among=tuple(DAY_COUNTERS), default="ACT/360")
    coupon = x.number("coupon", default=0.0, low=0.0)
    paper = MoneyMarket(x.day("maturity"), coupon, day_count, x.day("dated", "issue") if coupon else None)
    settle = x.day("settle", "settlement")
    days = (paper.maturity - settle).days
    if days <= 0:
        raise FieldError("settle", str(settle), f"a day before maturity {paper.maturity}")
    if x.has("yield", "y"):
        clean = paper.price(settle, x.number("yield", "y"))
    elif x.has("discount_rate", "discount"):
        clean = discount_price(x.number("discount_rate", "discount"), days)
    elif x.has("clean", "clean_price", "price"):
        clean = x.number("clean", "clean_price", "price", above=0.0)
    else:
        clean = x.number("dirty", "dirty_price", above=0.0) - paper.accrued(settle)
    x.conventions |= {"yield": "simple, one payment at maturity"}
    y, first, second = paper.sensitivity(settle, clean)
    dirty = clean + paper.accrued(settle)
    out = {"clean": clean, "dirty": dirty, "accrued": paper.accrued(settle), "yield": y, "dv01": -first * 1e-4,
           "modified_duration": -first / dirty, "convexity": second / dirty, "days": days}
    return out if coupon else out | {"discount_rate": bank_discount(clean, days)}


def _calendar(x: Line) -> str:
    name = x.text("calendar")
    try:
        calendar_of(name)
    except ValueError as error:
        raise FieldError("calendar", name, f"some of {', '.join(CALENDARS)}, joined by +") from error
    return name


@calculator("settlement")
def settlement(x: Line) -> dict[str, Any]:
    """When a trade settles: date, business_days, calendar (a name, or several joined by +)."""
    name = _calendar(x)
    traded, days = x.day("date", "traded"), x.whole("business_days", "settlement_days", default=2)
    x.conventions |= {"calendar": name, "roll": "following"}
    return {"settlement": str(settlement_date(traded, days, name)),
            "business_day": settlement_date(traded, 0, name) == traded}


@calculator("curve")
def curve(x: Line) -> dict[str, Any]:
    """Zero curve from quotes: as_of, calendar, deposits, ois, swaps as [tenor, rate], and the conventions of a curve.

    Returns days and continuous zero rates (ACT/365F), linear between and flat beyond, with the discount factors.
    """
    as_of = x.day("as_of", "date")
    _calendar(x)
    quotes = x.struct(CurveQuotes, CurveQuotes.__struct_fields__)
    points = zero_rates(quotes, as_of)
    x.conventions |= {k: v for k, v in msgspec.to_builtins(quotes).items() if k not in ("deposits", "ois", "swaps")}
    return {"rates": points, "discount_factors": [math.exp(-rate * days / 365.0) for days, rate in points]}


@calculator("margin")
def margin(x: Line) -> dict[str, Any]:
    """Initial (and with tiers, maintenance) margin: kind linear|inverse, qty, price, leverage, margin_init_rate.

    Linear notional = qty * price in quote currency; inverse = qty / price in the base coin.
    """
    inverse = x.choice("kind", among=("linear", "inverse"), default="linear") == "inverse"
    price = x.number("price", above=0.0)
    value = exposure.notional(x.number("qty", "quantity"), price, inverse, x.number("multiplier", default=1.0))
    rate = x.number("margin_init_rate", "rate", default=1.0, low=0.0)
    leverage = x.number("leverage", default=1.0, above=0.0)
    init = exposure.initial_margin(value, rate, leverage)
    out: dict[str, Any] = {"notional": value, "margin_init": init, "initial_margin": init,
                           "margin_init_in_quote": init * price if inverse else init}
    x.conventions |= {"rate": rate, "leverage": leverage}
    if x.has("margin_maint_rate"):
        out["maintenance_margin"] = exposure.initial_margin(value, x.number("margin_maint_rate", low=0.0), leverage)
    if x.has("tiers"):
        tiers = [(up_to, rate) for up_to, rate in x.table("tiers", columns=(2,), open_end=True)]
        out["maintenance_margin"] = exposure.tiered_maintenance(value, tiers)
    return out


@calculator("funding")
def funding(x: Line) -> dict[str, Any]:
    """Funding of a perpetual: rate = premium + clamp(interest - premium); longs pay it where it is positive."""
    if x.has("funding_rate"):
        rate = x.number("funding_rate")
    else:
        rate = exposure.funding_rate(x.number("premium"), x.number("interest", default=0.0001),
                                     x.number("clamp", default=0.0005, low=0.0))
    inverse = x.choice("kind", among=("linear", "inverse"), default="linear") == "inverse"
    quantity = x.number("qty", "quantity", default=0.0)
    value = exposure.notional(quantity, x.number("price", default=1.0, above=0.0), inverse)
    return {"funding_rate": rate, "funding": -rate * value * (1 if quantity > 0 else -1 if quantity < 0 else 0)}
