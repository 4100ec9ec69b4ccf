"""Calculators of bonds, bills, curves and margin."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec

from app.calc.line import FieldError, Line, calculator
from models.pricing.bond import DAY_COUNTS, FIRST_DAY, LAST_DAY, Bond, TermError, measures, yield_at
from models.pricing.calendars import CALENDARS, DAY_COUNTERS, calendar_of, settlement_date
from models.pricing.curve import zero_rates
from models.pricing.money_market import (
    MoneyMarket,
    bank_discount,
    bond_equivalent_yield,
    discount_price,
    year_from,
)
from models.risk import exposure
from schemas.market import CurveQuotes

#: the ways to say what a bond is worth, and which names each has
YIELD, PERCENT = ("yield", "ytm", "y"), ("ytm_percent", "yield_percent")
CLEAN, DIRTY = ("clean", "clean_price", "clean_input"), ("dirty", "dirty_price")


def _worth(x: Line, *ways: tuple[str, ...]) -> tuple[str, ...]:
    """Return the one of several ways in which the line says what a paper is worth.

    Raises
    ------
    FieldError
        It says it twice, or not at all.
    """
    given = [names for names in ways if x.has(*names)]
    if not given:
        raise FieldError(ways[0][0], None, "one of " + ", ".join(names[0] for names in ways))
    if len(given) > 1:
        second, first = x.name_of(*given[1]), x.name_of(*given[0])
        raise FieldError(second, x.fields[second], f"none beside {first}: a paper is worth one thing")
    return given[0]


@contextmanager
def _terms(x: Line, **names: tuple[str, ...]) -> Iterator[None]:
    """Turn what a model says of a term into a refusal of the field that the line gives it in."""
    try:
        yield
    except TermError as error:
        given = x.name_of(*names.get(error.field, (error.field,)))
        value = x.fields.get(given)
        raise FieldError(given, str(error.value) if value is None else value, error.expected) from error


@calculator("bond")
def bond(x: Line) -> dict[str, Any]:
    """Fixed-coupon bond: price from yield or yield from price; accrued, durations, convexity, DV01, per 100 of face.

    Fields: settle, maturity, coupon (per cent), frequency|freq, day_count, and one of yield|ytm, ytm_percent, clean,
    dirty. Schedule: dated (first accrual date), first_coupon (a long first period), schedule forward|backward,
    end_of_month (true: a maturity on the last day of a month puts coupons on last days), coupons equal|by_day_count.
    Ex-dividend: ex_dividend_days business days of calendar before a coupon accrued interest is below 0. Yields are
    compounded ``frequency`` times a year; last_period simple: with one period left simple interest by the day count.
    """
    day_count = x.choice("day_count", among=DAY_COUNTS, default="ACT/ACT ICMA")
    frequency = x.whole("frequency", "freq", default=2, low=1)
    forward = x.choice("schedule", among=("forward", "backward"), default="backward") == "forward"
    equal = x.choice("coupons", among=("equal", "by_day_count"),
                     default="by_day_count" if day_count == "ACT/360" else "equal") == "equal"
    simple = x.choice("last_period", among=("compounded", "simple"), default="compounded") == "simple"
    days = x.whole("ex_dividend_days", default=0, high=60)
    settle = x.day("settle", "settlement")
    with _terms(x, dated=("dated", "issue"), settle=("settle", "settlement"), frequency=("frequency", "freq")):
        paper = Bond(x.number("coupon", low=0.0), x.day("maturity"), frequency, day_count,
                     x.day("dated", "issue") if x.has("dated", "issue") else None, forward,
                     x.day("first_coupon") if x.has("first_coupon") else None, x.flag("end_of_month", default=True),
                     days, _calendar(x, default="WEEKENDS") if days else "WEEKENDS", equal, simple)
        accrued = paper.flows(settle)[2]
    how = _worth(x, YIELD, PERCENT, CLEAN, DIRTY)
    with _terms(x, **{"yield": how, "price": how}, settle=("settle", "settlement")):
        if how in (YIELD, PERCENT):
            y = x.number(*how) / (100.0 if how == PERCENT else 1.0)
        else:
            y = yield_at(paper, settle, x.number(*how, above=0.0) + (accrued if how == CLEAN else 0.0))
        out = measures(paper, settle, y)
    last = simple and paper.one_period_left(settle)
    x.conventions |= {"frequency": frequency, "yield": "simple interest over the last period, by the day count" if last
                      else f"compounded {frequency} times a year, street convention"}
    if day_count == "ACT/365F" and equal:
        x.conventions["accrued"] = "days over 365; beyond half a year the coupon less what is left of it (Canada)"
    face = x.number("face", default=1_000_000.0)
    dates = paper.schedule(settle)
    return out | {"ytm": y, "ytm_percent": 100.0 * y, "accrued_days": paper.accrued_days(settle),
                  "previous_coupon": dates[0], "next_coupon": dates[1],
                  "ex_dividend": settle >= paper.detached(dates[1]), "convexity_div100": out["convexity"] / 100,
                  "accrued_per_million": out["accrued"] * 10_000, "face": face,
                  "basis_point_value": out["basis_point_value"] * face / 100,
                  "basis_point_value_per_million": out["basis_point_value"] * 10_000,
                  "yield_value_bp": out["yield_value_of_cent"] * 100}


@calculator("money_market")
def money_market(x: Line) -> dict[str, Any]:
    """Bill, commercial paper or certificate of deposit: price from simple yield or yield from price, per 100.

    Fields: settle, maturity, coupon (per cent, simple; with it dated), day_count, and one of yield, discount_rate (of
    100, over 360 days), clean, dirty. Bills: dated|issue (settle if absent) says which year the bond-equivalent yield
    counts (365 or 366 days; 31 CFR 356, appendix B).
    """
    day_count = x.choice("day_count", among=tuple(DAY_COUNTERS), default="ACT/360")
    coupon = x.number("coupon", default=0.0, low=0.0)
    settle, maturity = _day(x, "settle", "settlement"), _day(x, "maturity")
    dated = _day(x, "dated", "issue") if coupon or x.has("dated", "issue") else None
    if dated is not None and not (dated < maturity and (coupon or dated <= settle)):
        raise FieldError(x.name_of("dated", "issue"), str(dated), f"before maturity {maturity}"
                         + ("" if coupon else f" and not after {settle}"))
    days = (maturity - settle).days
    if days <= 0:
        raise FieldError(x.name_of("settle", "settlement"), str(settle), f"a day before maturity {maturity}")
    paper = MoneyMarket(maturity, coupon, day_count, dated if coupon else None)
    years = paper.years(settle)
    if not years > 0.0:
        raise FieldError(x.name_of("settle", "settlement"), str(settle),
                         f"a day from which {day_count} counts time to {maturity}")
    accrued = paper.accrued(settle)
    how = _worth(x, ("yield", "y"), ("discount_rate", "discount"), ("clean", "clean_price", "price"), DIRTY)
    if how[0] == "yield":
        clean = paper.price(settle, x.number(*how, above=-1.0 / years, high=1e9))
    elif how[0] == "discount_rate":
        clean = discount_price(x.number(*how, low=-1e3, below=360.0 / days), days)
    else:
        clean = x.number(*how, above=0.0, high=1e6) - (accrued if how == DIRTY else 0.0)
    if not clean + accrued > 0.0:
        raise FieldError(x.name_of(*how), clean, "a price with accrued interest above 0")
    x.conventions |= {"yield": "simple, one payment at maturity"}
    y, first, second = paper.sensitivity(settle, clean)
    dirty = clean + accrued
    out = {"clean": clean, "dirty": dirty, "accrued": accrued, "yield": y, "dv01": -first * 1e-4,
           "modified_duration": -first / dirty, "convexity": second / dirty, "days": days}
    return out if coupon else out | {"discount_rate": bank_discount(clean, days)} | _investment_rate(
        x, clean, settle, maturity, dated or settle)


def _investment_rate(x: Line, clean: float, settle: date, maturity: date, issue: date) -> dict[str, Any]:
    year = year_from(issue)
    x.conventions |= {"bond_equivalent_yield": f"31 CFR 356, appendix B; a year of {year} days from {issue}"}
    if (maturity - settle).days > year:
        x.undefined("bond_equivalent_yield", f"the rule ends at a year; {(maturity - settle).days} days are left")
        return {"bond_equivalent_yield": None}
    return {"bond_equivalent_yield": bond_equivalent_yield(clean, settle, maturity, year)}


def _day(x: Line, *names: str) -> date:
    """Return a day that calendars and day counts know."""
    day = x.day(*names)
    if not FIRST_DAY <= day < LAST_DAY:
        raise FieldError(x.name_of(*names), str(day), f"a day of {FIRST_DAY.year} to {LAST_DAY.year - 1}")
    return day


def _calendar(x: Line, default: Any = ...) -> str:
    name = x.text("calendar", default=default)
    try:
        calendar_of(name)
    except ValueError as error:
        raise FieldError("calendar", name, f"some of {', '.join(CALENDARS)}, joined by +") from error
    return name


@calculator("settlement")
def settlement(x: Line) -> dict[str, Any]:
    """When a trade settles: date, business_days, calendar (a name, or several joined by +)."""
    name = _calendar(x)
    traded, days = _day(x, "date", "traded"), x.whole("business_days", "settlement_days", default=2, high=260)
    x.conventions |= {"calendar": name, "roll": "following"}
    return {"settlement": str(settlement_date(traded, days, name)),
            "business_day": settlement_date(traded, 0, name) == traded}


@calculator("curve")
def curve(x: Line) -> dict[str, Any]:
    """Zero curve from quotes: as_of, calendar, deposits, ois, swaps as [tenor, rate], and the conventions of a curve.

    Returns days and continuous zero rates (ACT/365F), linear between and flat beyond, with the discount factors.
    """
    as_of = _day(x, "as_of", "date")
    _calendar(x)
    quotes = x.struct(CurveQuotes, CurveQuotes.__struct_fields__)
    kinds = [name for name in ("deposits", "ois", "swaps") if x.has(name)]
    if not kinds:
        raise FieldError("deposits", None, "deposits, ois or swaps")
    try:
        points = zero_rates(quotes, as_of)
    except ValueError as error:
        raise FieldError(kinds[0], None, f"quotes ({', '.join(kinds)}) that a curve prices: {error}") from error
    x.conventions |= {k: v for k, v in msgspec.to_builtins(quotes).items() if k not in ("deposits", "ois", "swaps")}
    return {"rates": points, "discount_factors": [math.exp(-rate * days / 365.0) for days, rate in points]}


#: rates of an instrument's record (leverage included), and rates that the venue's leverage divides
INITIAL, MAINTENANCE = ("margin_initial",), ("margin_maintenance",)
INITIAL_RATE, MAINTENANCE_RATE = ("margin_init_rate", "rate"), ("margin_maint_rate",)
TIERS = ("tiers", "margin_tiers")


def _rated(x: Line, value: float) -> tuple[float, float | None]:
    """Return initial and maintenance margin of a notional; None where the line says no rate of maintenance."""
    included = [x.name_of(*names) for names in (INITIAL, MAINTENANCE) if x.has(*names)]
    initial, maintenance = ((value * x.number(*names, low=0.0) if x.has(*names) else None)
                            for names in (INITIAL, MAINTENANCE))
    if x.has(*TIERS):
        tiers = _tiers(x, value)
        if maintenance is not None or (initial is not None and len(tiers[0]) == 3):
            raise FieldError(included[-1], x.fields[included[-1]], "none beside tiers, which have rates of their own")
        maintenance = exposure.tiered_margin(value, [(t[0], t[-1]) for t in tiers])
        if len(tiers[0]) == 3:
            included.append(x.name_of(*TIERS))
            initial = exposure.tiered_margin(value, [(t[0], t[1]) for t in tiers])
    if x.has("leverage") and included:
        raise FieldError("leverage", x.fields["leverage"], f"none beside {included[0]}: its rates include leverage")
    leverage = x.number("leverage", default=1.0, above=0.0)
    if initial is None:
        initial = exposure.initial_margin(value, x.number(*INITIAL_RATE, default=1.0, low=0.0), leverage)
    if maintenance is None and x.has(*MAINTENANCE_RATE):
        maintenance = exposure.initial_margin(value, x.number(*MAINTENANCE_RATE, low=0.0), leverage)
    return initial, maintenance


def _tiers(x: Line, value: float) -> list[list[float]]:
    """Return the tiers of a line: of one form, ascending, up to the notional at least."""
    tiers, field, low = x.table(*TIERS, columns=(2, 3), open_end=True), x.name_of(*TIERS), 0.0
    for i, tier in enumerate(tiers):
        if len(tier) != len(tiers[0]):
            raise FieldError(f"{field}[{i}]", tier, "the form of the first: [up_to, maintenance] or [up_to, initial, "
                                                    "maintenance]")
        if not tier[0] > low:
            raise FieldError(f"{field}[{i}][0]", tier[0], f"more than {low:g} of the tier before")
        if min(tier[1:]) < 0.0:
            raise FieldError(f"{field}[{i}]", tier[1:], "rates of at least 0")
        low = tier[0]
    if value > low:
        raise FieldError(f"{field}[{len(tiers) - 1}][0]", low, f"null (no end), or at least the notional of {value!r}")
    return tiers


def _leg(x: Line) -> Decimal:
    """Return the signed quantity of a leg: a number alone, or one that a side gives its sign."""
    x.number("qty", "quantity", **({"above": 0.0} if x.has("side") else {}))
    quantity = x.decimal("qty", "quantity")
    if not x.has("side"):
        return quantity
    side = x.text("side")
    if side not in ("buy", "sell", "long", "short"):
        raise FieldError(x.name_of("side"), side, "one of buy, sell, long, short")
    return quantity if side in ("buy", "long") else -quantity


@calculator("margin")
def margin(x: Line) -> dict[str, Any]:
    """Initial and maintenance margin of a position: kind linear|inverse, qty (or legs), price, multiplier, leverage.

    Rates as a record has them, leverage included: margin_initial, margin_maintenance, or tiers [up_to, maintenance] or
    [up_to, initial, maintenance], each on its slice of the notional, null: no end. Or margin_init_rate (1.0) and
    margin_maint_rate, over leverage. legs [{side, qty}] (or signed quantities) of one instrument are netted first.
    Linear notional = qty * price in quote currency; inverse = qty / price in the coin.
    """
    inverse = x.choice("kind", among=("linear", "inverse"), default="linear") == "inverse"
    price = x.number("price", **({"above": 0.0} if inverse else {}))
    if not price:
        raise FieldError("price", price, "a price other than 0: there is no notional")
    if x.has("legs"):
        if x.has("qty", "quantity"):
            raise FieldError(x.name_of("qty", "quantity"), None, "none beside legs")
        quantity = float(sum(_leg(leg) for leg in x.rows("legs", bare="qty")))
        x.conventions["netting"] = f"legs of one instrument are netted: {quantity!r}"
    else:
        quantity = x.number("qty", "quantity")
    value = exposure.notional(quantity, price, inverse, x.number("multiplier", default=1.0, above=0.0))
    initial, maintenance = _rated(x, value)
    out: dict[str, Any] = {"net_quantity": quantity, "notional": value, "margin_init": initial,
                           "initial_margin": initial, "margin_init_in_quote": initial * price if inverse else initial}
    if maintenance is not None:
        out |= {"maintenance_margin": maintenance,
                "maintenance_margin_in_quote": maintenance * price if inverse else maintenance}
    return out


@calculator("funding")
def funding(x: Line) -> dict[str, Any]:
    """Funding of a perpetual: rate = premium + clamp(interest - premium); longs pay it where it is positive.

    Fields: funding_rate, or premium with interest (0.0001) and clamp (0.0005); qty (signed), price and multiplier
    for what a position pays, kind linear (in quote currency) or inverse (in the coin).
    """
    if x.has("funding_rate"):
        rate = x.number("funding_rate")
    else:
        rate = exposure.funding_rate(x.number("premium"), x.number("interest", default=0.0001),
                                     x.number("clamp", default=0.0005, low=0.0))
    if not x.has("qty", "quantity"):
        return {"funding_rate": rate}
    inverse = x.choice("kind", among=("linear", "inverse"), default="linear") == "inverse"
    quantity = x.number("qty", "quantity")
    value = exposure.notional(quantity, x.number("price", above=0.0), inverse,
                              x.number("multiplier", default=1.0, above=0.0))
    return {"funding_rate": rate, "notional": value, "funding": -rate * math.copysign(value, quantity) + 0.0}
