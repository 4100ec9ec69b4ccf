"""Bonds and bills against QuantLib over wide ranges: month ends, stubs, ex-dividend, the last period, any price."""

from __future__ import annotations

import calendar
import itertools
import math
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
import QuantLib as ql
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.calc import calculate
from models.fixed_income import paper_of
from models.pricing.bond import LOWEST, Bond, TermError, add_months, measures, price_at, yield_at
from models.pricing.calendars import ql_date
from models.pricing.money_market import bond_equivalent_yield, discount_price, year_from
from schemas.records import Instrument

COUPON = st.floats(0.0, 14.0)
FREQUENCY = st.sampled_from([1, 2, 4, 12])
PERIODS = {1: ql.Annual, 2: ql.Semiannual, 4: ql.Quarterly, 12: ql.Monthly}
SETTLE = st.dates(date(1996, 1, 1), date(2060, 12, 31))
YIELD = st.floats(-0.05, 0.4)


def last_day(day: date) -> date:
    """Return the last day of a day's month."""
    return day.replace(day=calendar.monthrange(day.year, day.month)[1])


def is_last(day: date) -> bool:
    return day == last_day(day)


def reference(paper: Bond, dated: date) -> tuple[ql.FixedRateBond, ql.DayCounter]:
    """Return QuantLib's bond, its schedule cut at ``dated``."""
    anchor = paper.first_coupon if paper.forward_schedule else paper.maturity
    rule = ql.DateGeneration.Forward if paper.forward_schedule else ql.DateGeneration.Backward
    first = ql_date(paper.first_coupon) if paper.first_coupon else ql.Date()
    schedule = ql.Schedule(ql_date(dated), ql_date(paper.maturity), ql.Period(12 // paper.frequency, ql.Months), ql.NullCalendar(),
                           ql.Unadjusted, ql.Unadjusted, rule, paper.end_of_month and is_last(anchor or paper.maturity), first)
    count = ql.ActualActual(ql.ActualActual.ISMA, schedule) if paper.day_count == "ACT/ACT ICMA" else ql.Thirty360(ql.Thirty360.USA)
    ex = (ql.Period(paper.ex_dividend_days, ql.Days), ql.UnitedKingdom()) if paper.ex_dividend_days else (ql.Period(), ql.NullCalendar())
    return ql.FixedRateBond(0, 100.0, schedule, [paper.coupon / 100], count, ql.Unadjusted, 100.0, ql.Date(), ql.NullCalendar(),
                            *ex, ql.Preceding, False), count


def agree(paper: Bond, settle: date, y: float, dated: date) -> None:
    """Compare every figure with QuantLib's."""
    bond, count = reference(paper, dated)
    day = ql_date(settle)
    ql.Settings.instance().evaluationDate = day
    got = measures(paper, settle, y)
    rate = ql.InterestRate(y, count, ql.Compounded, PERIODS[paper.frequency])
    assert got["accrued"] == pytest.approx(bond.accruedAmount(day), abs=1e-9)
    # an ex-dividend coupon is no flow of the buyer: QuantLib leaves it out of prices, too
    assert got["clean"] == pytest.approx(ql.BondFunctions.cleanPrice(bond, rate, day), abs=1e-8 * max(got["dirty"], 1))
    assert got["modified_duration"] == pytest.approx(ql.BondFunctions.duration(bond, rate, ql.Duration.Modified, day), rel=1e-8, abs=1e-10)
    assert got["convexity"] == pytest.approx(ql.BondFunctions.convexity(bond, rate, day), rel=1e-7, abs=1e-9)
    if 1e-6 < got["dirty"] < 1e6:
        assert yield_at(paper, settle, got["dirty"]) == pytest.approx(y, abs=1e-8)


@settings(max_examples=150)
@given(COUPON, FREQUENCY, SETTLE, st.integers(1, 12_000), st.sampled_from(["as drawn", "month end", "29 February"]), st.booleans(), YIELD,
       st.sampled_from([0, 0, 7]))
def test_regular_bonds(coupon: float, frequency: int, settle: date, life: int, kind: str, eom: bool, y: float, ex: int) -> None:
    maturity = settle + timedelta(days=life)
    if kind != "as drawn":
        maturity = last_day(maturity if kind == "month end" else date(maturity.year // 4 * 4 + 4, 2, 1))
    assume(settle < maturity)
    paper = Bond(coupon, maturity, frequency, end_of_month=eom, ex_dividend_days=ex, calendar="GB")
    # QuantLib without the rule keeps the day of the date before where a month was short: it counts each from maturity, as we do
    start = add_months(maturity, -12 * ((maturity.year - settle.year) + 3), 31 if eom and is_last(maturity) else None)
    agree(paper, settle, y, start)


@settings(max_examples=150)
@given(COUPON, st.sampled_from([1, 2, 4]), st.dates(date(1998, 1, 1), date(2030, 1, 1)), st.integers(1, 30), st.booleans(), st.integers(1, 400),
       st.booleans(), st.floats(0, 1), YIELD, st.sampled_from([0, 7]))
def test_odd_first_periods(coupon: float, frequency: int, end: date, coupons: int, eom: bool, before: int, long: bool, at: float, y: float,
                           ex: int) -> None:
    """A short first period, or one that spans up to two quasi-coupon periods (QuantLib knows no more)."""
    maturity = last_day(end) if eom else end
    step = 12 // frequency
    first = add_months(maturity, -coupons * step, 31 if is_last(maturity) else maturity.day)
    before_first = add_months(maturity, -(coupons + 1 + long) * step, 31 if is_last(maturity) else maturity.day)
    dated = before_first + timedelta(days=before % max((first - before_first).days, 1))
    assume(dated < first)
    paper = Bond(coupon, maturity, frequency, dated=dated, first_coupon=first, ex_dividend_days=ex, calendar="GB")
    settle = dated + timedelta(days=int(at * ((maturity - dated).days - 1)))
    assume(settle > dated or not ex)  # whom a coupon that is detached on the day of issue belongs to, nobody says
    agree(paper, settle, y, dated)


@settings(max_examples=100)
@given(COUPON, st.sampled_from([1, 2, 4]), st.dates(date(1998, 1, 1), date(2040, 1, 1)), st.integers(1, 30), st.integers(1, 170), st.integers(1, 170),
       st.floats(0, 1), YIELD)
def test_30_360_with_two_odd_ends(coupon: float, frequency: int, first: date, coupons: int, before: int, after: int, at: float, y: float) -> None:
    """Dates counted on from the first coupon up to a short last period; days up to the 28th, where half a coupon is 180 days of 360."""
    step = 12 // frequency
    first = first.replace(day=min(first.day, 27))
    dated, last = (add_months(first, -step) + timedelta(days=before % (27 * step)), add_months(first, coupons * step))
    maturity = last + timedelta(days=1 + after % (27 * step))
    paper = Bond(coupon, maturity, frequency, "30/360 US", dated, True, first)
    settle = dated + timedelta(days=int(at * ((maturity - dated).days - 1)))
    assume(paper.schedule(settle)[-1] != paper.schedule(settle)[0] and paper.flows(settle)[1][-1] > 0)
    agree(paper, settle, y, dated)


@settings(max_examples=60)
@given(st.floats(0.5, 12), st.sampled_from(["ACT/ACT ICMA", "30/360 US", "30E/360", "ACT/365F"]), FREQUENCY, SETTLE, st.integers(1, 360),
       st.floats(-0.9, 30.0))
def test_the_last_period_at_simple_interest(coupon: float, day_count: str, frequency: int, settle: date, life: int, y: float) -> None:
    paper = Bond(coupon, settle + timedelta(days=life), frequency, day_count, simple_last_period=True)
    assume(paper.one_period_left(settle) and paper.years_left(settle) > 0)
    start = paper.schedule(settle)[0]
    years = (paper.maturity - settle).days / ((paper.maturity - start).days * frequency) if day_count == "ACT/ACT ICMA" else paper.years_left(settle)
    earned = (settle - start).days / (paper.maturity - start).days / frequency if day_count == "ACT/ACT ICMA" else {
        "30/360 US": ql.Thirty360(ql.Thirty360.USA), "30E/360": ql.Thirty360(ql.Thirty360.European), "ACT/365F": ql.Actual365Fixed(),
    }[day_count].yearFraction(ql_date(start), ql_date(settle))
    if day_count == "ACT/365F" and (settle - start).days * frequency > 365:  # beyond half a year what is left is counted
        earned = 1 / frequency - years
    dirty = (100 + coupon / frequency) / (1 + y * years)
    got = measures(paper, settle, y)
    assert got["dirty"] == pytest.approx(dirty, rel=1e-12) and got["clean"] == pytest.approx(dirty - coupon * earned, rel=1e-10, abs=1e-10)
    assert yield_at(paper, settle, dirty) == pytest.approx(y, rel=1e-8, abs=1e-9 / years)
    assert got["dirty_up_1bp"] < dirty < got["dirty_down_1bp"]


@settings(max_examples=100)
@given(COUPON, FREQUENCY, SETTLE, st.integers(1, 36_000), st.floats(-12, 5))
def test_every_price_has_the_yield_that_makes_it_or_is_refused(coupon: float, frequency: int, settle: date, life: int, log_price: float) -> None:
    paper, dirty = Bond(coupon, settle + timedelta(days=life), frequency), math.exp(log_price)
    try:
        y = yield_at(paper, settle, dirty)
    except TermError as error:
        assert error.field == "price"
        assert dirty <= price_at(paper, settle, 10.0 * frequency)[0] * (1 + 1e-8) or dirty >= price_at(paper, settle, LOWEST * frequency)[0] * (1 - 1e-8)
    else:
        assert price_at(paper, settle, y)[0] == pytest.approx(dirty, rel=1e-8)


@settings(max_examples=100)
@given(SETTLE, st.integers(1, 366), st.floats(-0.02, 0.25), st.integers(0, 200))
def test_bills_by_the_rule_of_the_treasury(issue: date, life: int, discount: float, later: int) -> None:
    """Beyond half a year the yield makes the price of a bond that pays half a year's interest; below it is simple."""
    settle, maturity, year = issue + timedelta(days=later), issue + timedelta(days=later + life), year_from(issue)
    leap = any(date(y, 2, 29) > issue and date(y, 2, 29) <= add_months(issue, 12) for y in (issue.year, issue.year + 1) if calendar.isleap(y))
    assert year == (366 if leap else 365)
    assume(life <= year)
    price = discount_price(discount, life)
    y, part = bond_equivalent_yield(price, settle, maturity, year), life / year
    back = price * (1 + y * part) if part <= 0.5 else price * (1 + y / 2) * (1 + y * (part - 0.5))
    assert back == pytest.approx(100.0, rel=1e-12)


@settings(max_examples=40)
@given(st.dates(date(2027, 1, 1), date(2056, 12, 31)), st.integers(0, 900), st.floats(0.1, 9), st.sampled_from([1, 2, 4]), st.booleans(),
       st.sampled_from([None, 7]), st.sampled_from([None, "30/360 US", "ACT/365F", "ACT/360"]))
def test_a_live_bond_and_a_line_are_one_bond(maturity: date, age: int, coupon: float, frequency: int, last: bool, ex: int | None,
                                             day_count: str | None) -> None:
    """R16: what the risk stage accrues is what `calc bond` answers; what a day earns adds up to the coupons."""
    maturity, settle = last_day(maturity) if last else maturity, date(2026, 11, 20) - timedelta(days=age)
    fields: dict[str, Any] = {"maturity": str(maturity), "frequency": frequency, "dated": "2020-03-31"} | ({"day_count": day_count} if day_count else {})
    fields |= {"ex_dividend_days": ex, "calendar": "GB"} if ex else {}
    got = calculate("bond", fields | {"settle": str(settle), "coupon": float(repr(coupon)), "ytm": 0.03})
    paper = paper_of(Instrument(instrument="B", asset_class="bond", currency="GBP", coupon=Decimal(repr(coupon)), **fields))
    assert isinstance(paper, Bond) and got["accrued"] == paper.accrued(settle)
    first, second = measures(paper, settle, 0.03)["clean"], got["clean"]
    assert first == second
    # over a whole year, from day to day, ex-dividend or not: what is earned is what is paid
    days = [settle + timedelta(days=k) for k in range(0, 367, 6)]
    earned = [paper.accrued(b) - paper.accrued(a) + paper.paid(a, b) for a, b in itertools.pairwise(days) if b < maturity]
    assert all(-1e-9 < e < coupon * 12 / 360 + 1e-9 for e in earned), "interest flows; no coupon date makes it jump"


@pytest.mark.parametrize(("change", "field"), [
    ({"ytm": -2}, "ytm"), ({"ytm_percent": -200, "ytm": ...}, "ytm_percent"), ({"ytm": ..., "clean": 1e-9}, "clean"),
    ({"clean": 99}, "clean"), ({"ytm": ...}, "yield"), ({"frequency": 3}, "frequency"), ({"first_coupon": "2024-02-15"}, "dated"),
    ({"dated": "2024-01-01", "first_coupon": "2024-03-15"}, "first_coupon"), ({"dated": "2024-01-01", "first_coupon": "2023-08-15"}, "first_coupon"),
    ({"dated": "2031-08-15"}, "dated"), ({"issue": "2031-08-15"}, "issue"), ({"settle": "2031-08-15"}, "settle"), ({"settle": "0999-01-01"}, "settle"),
    ({"schedule": "forward"}, "dated"), ({"maturity": "2999-01-01"}, "maturity"), ({"ex_dividend_days": 7, "calendar": "MARS"}, "calendar"), ({"calendar": "GB"}, "calendar"), ({"last_period": "simpel"}, "last_period"),
    ({"last_period": "simple", "settle": "2031-06-01", "ytm": -9}, "ytm")])
def test_terms_that_are_none_are_refused_by_the_name_that_the_line_gives(change: dict[str, Any], field: str) -> None:
    line = {"settle": "2024-08-29", "maturity": "2031-08-15", "coupon": 4, "ytm": 0.03} | change
    got = calculate("bond", {k: v for k, v in line.items() if v is not ...})
    assert got.get("error", {}).get("field") == field, got
