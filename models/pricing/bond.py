"""Fixed-coupon bonds: schedule, day counts, accrued interest, yield, durations, convexity, DV01.

Street convention: every coupon is discounted in whole coupon periods plus the fraction left of the current one, at a
yield compounded ``frequency`` times a year. Dates are plain dates; nothing here is on the hot path except
`dirty_price`, which the risk stage calls once per bond and mark. Decision 0091 has the schedule.
"""

from __future__ import annotations

import calendar
import itertools
import math
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np

from models.pricing.calendars import DAY_COUNTERS, business_days_before, day_counter, ql_date
from schemas.instrument_terms import FREQUENCIES, FREQUENCIES_NAMED

DAY_COUNTS = ("ACT/ACT ICMA", *DAY_COUNTERS)
#: days that calendars and day counts know
FIRST_DAY, LAST_DAY = date(1902, 1, 1), date(2199, 1, 1)
#: yields a period that a price is solved for
LOWEST, HIGHEST = -0.999, 10.0


def add_months(day: date, months: int, day_of_month: int | None = None) -> date:
    """Return a date some months away, on ``day_of_month`` or the month's last day where it is shorter."""
    index = day.year * 12 + day.month - 1 + months
    year, month = divmod(index, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return date(year, month + 1, min(day_of_month or day.day, last))


def year_fraction(start: date, end: date, day_count: str) -> float:
    """Return the part of a year between two dates, by a day count that needs no coupon period.

    Raises
    ------
    ValueError
        The day count is none of `DAY_COUNTERS`.
    """
    return float(day_counter(day_count).yearFraction(ql_date(start), ql_date(end)))


class TermError(ValueError):
    """A term of a bond is not what it can be; it names the field, the value and what was expected."""

    def __init__(self, field: str, value: object, expected: str) -> None:
        super().__init__(f"{field}: expected {expected}, was {value}")
        self.field, self.value, self.expected = field, value, expected


@dataclass(frozen=True)
class Bond:
    """A fixed-coupon bullet bond.

    Coupon dates lie on a grid of whole coupon periods that is counted back from maturity, or on from its begin. A
    first or last period that is no step of the grid is measured in the steps and parts of steps it spans
    (quasi-coupon periods).

    Attributes
    ----------
    coupon : per cent of face a year
    frequency : coupons a year: 1, 2, 4 or 12
    dated : first accrual date; the first coupon is paid on the next date of the grid, or on ``first_coupon``
    forward_schedule : the grid is counted on from ``first_coupon`` or ``dated``, the last period may be short
    first_coupon : a later date of the grid, where the first period is a long one
    end_of_month : a grid whose first date is the last day of a month lies on last days of months
    ex_dividend_days : business days of ``calendar`` before a coupon from which it belongs to the seller
    equal_coupons : every whole period pays the coupon over the frequency; without it each pays by the day count
        (None: all but ACT/360 pay equally)
    simple_last_period : with one period left the yield is simple interest by the day count
    """

    coupon: float
    maturity: date
    frequency: int = 2
    day_count: str = "ACT/ACT ICMA"
    dated: date | None = None
    forward_schedule: bool = False
    first_coupon: date | None = None
    end_of_month: bool = True
    ex_dividend_days: int = 0
    calendar: str = "WEEKENDS"
    equal_coupons: bool | None = None
    simple_last_period: bool = False

    def __post_init__(self) -> None:
        """Check that the dates make a schedule.

        Raises
        ------
        TermError
            If a date is missing, before another it should follow, or not on the grid of coupon dates.
        """
        if self.frequency not in FREQUENCIES:
            raise TermError("frequency", self.frequency, FREQUENCIES_NAMED)
        for name, day in (("maturity", self.maturity), ("dated", self.dated)):
            if day is not None and not FIRST_DAY <= day < LAST_DAY:
                raise TermError(name, day, f"a day of {FIRST_DAY.year} to {LAST_DAY.year - 1}")
        if self.dated is not None and self.dated >= self.maturity:
            raise TermError("dated", self.dated, f"before maturity {self.maturity}")
        if self.dated is None and (self.forward_schedule or self.first_coupon is not None):
            raise TermError("dated", None, "the first accrual date, which the first period begins with")
        first = self.first_coupon
        if first is None:
            return
        assert self.dated is not None
        if not self.dated < first <= self.maturity:
            raise TermError("first_coupon", first, f"after {self.dated} and not after maturity {self.maturity}")
        if self.forward_schedule:
            return
        at = self._index(first)
        if self._grid(at) != first:
            raise TermError("first_coupon", first, "a coupon date counted back from maturity, as "
                                                   f"{self._grid(at)} or {self._grid(at + 1)}")

    @property
    def coupons_are_equal(self) -> bool:
        """Whether every whole period pays the same."""
        return self.day_count != "ACT/360" if self.equal_coupons is None else self.equal_coupons

    def schedule(self, settle: date) -> list[date]:
        """Return the coupon dates after ``settle``, after the last one on or before it."""
        begin = settle if self.dated is None else max(settle, self.dated)
        steps = range(self._index(begin), self._index(self.maturity) + 1)
        dates = [*(day for day in map(self._grid, steps) if day < self.maturity), self.maturity]
        if self.dated is not None:
            first = self.first_coupon or min(self._grid(self._index(self.dated) + 1), self.maturity)
            if dates[0] < first:
                dates = [self.dated, *(d for d in dates if d >= first)]
        return dates

    def flows(self, settle: date) -> tuple[np.ndarray, np.ndarray, float]:
        """Return (amounts per 100, times in coupon periods, accrued per 100) of what a buyer is still paid.

        Raises
        ------
        TermError
            If the bond has been paid back by then.
        """
        if not FIRST_DAY <= settle < self.maturity:
            raise TermError("settle", settle, f"before maturity {self.maturity}, not before {FIRST_DAY}")
        dates = self.schedule(settle)
        amounts = [self._amount(a, b) for a, b in itertools.pairwise(dates)]
        # what is left of a period is what has not run of it: by 30/360 the 31st is one day nearer to its start alone
        run = self._periods(dates[0], settle) if settle > dates[0] else -self._periods(settle, dates[0])
        times = list(itertools.accumulate([self._periods(*dates[:2]) - run,
                                           *(self._periods(a, b) for a, b in itertools.pairwise(dates[1:]))]))
        if settle >= self.detached(dates[1]):
            amounts[0] = 0.0
        amounts[-1] += 100.0
        return np.array(amounts), np.array(times), self.accrued(settle)

    def accrued(self, settle: date) -> float:
        """Return interest earned since the last coupon, per 100; less the coupon itself where it is the seller's."""
        if settle >= self.maturity:
            return 0.0
        start, end = self.schedule(settle)[:2]
        amount = self._amount(start, end)
        earned = self.coupon * self._share(start, settle) if settle > start else 0.0
        if self.day_count == "ACT/365F" and self.coupons_are_equal and self._is_step(start, end):
            # 183 days of 365 are more than half a coupon: beyond half a year what is left is counted (Canada)
            if (settle - start).days * self.frequency > 365:
                earned = amount - self.coupon * self._share(settle, end)
        return earned - amount if settle >= self.detached(end) else earned

    def accrued_days(self, settle: date) -> int:
        """Return the days that interest has accrued for by the day count; below 0 where the coupon is the seller's."""
        start, end = self.schedule(settle)[:2]
        since, until = (end, settle) if settle >= self.detached(end) else (start, max(settle, start))
        if self.day_count == "ACT/ACT ICMA":
            return (until - since).days
        days = day_counter(self.day_count).dayCount(ql_date(min(since, until)), ql_date(max(since, until)))
        return int(days if until >= since else -days)

    def paid(self, after: date, until: date) -> float:
        """Return the coupons that whoever holds it gets a claim to in (after, until], per 100."""
        if after >= self.maturity:
            return 0.0
        return sum(self._amount(a, b) for a, b in itertools.pairwise(self.schedule(after))
                   if after < self.detached(b) <= until)

    def detached(self, coupon_date: date) -> date:
        """Return the day from which a coupon no longer goes with the bond."""
        if not self.ex_dividend_days:
            return coupon_date
        return business_days_before(coupon_date, self.ex_dividend_days, self.calendar)

    def one_period_left(self, settle: date) -> bool:
        """Whether nothing is paid before maturity."""
        return len(self.schedule(settle)) == 2

    def years_left(self, settle: date) -> float:
        """Return the years to maturity by the day count, for simple interest over the last period."""
        start = self.schedule(settle)[0]
        run = self._share(start, settle) if settle > start else -self._share(settle, start)
        return self._share(start, self.maturity) - run

    @cached_property
    def _anchor(self) -> tuple[date, int]:
        day = (self.first_coupon or self.dated or self.maturity) if self.forward_schedule else self.maturity
        last = calendar.monthrange(day.year, day.month)[1]
        return day, 31 if self.end_of_month and day.day == last else day.day

    def _grid(self, k: int) -> date:
        """Return the k-th date of the grid; 0 is the day it is counted from."""
        day, day_of_month = self._anchor
        return add_months(day, k * (12 // self.frequency), day_of_month)

    def _index(self, day: date) -> int:
        """Return the last date of the grid that is on or before a day."""
        anchor, step = self._anchor[0], 12 // self.frequency
        k = ((day.year - anchor.year) * 12 + day.month - anchor.month) // step
        return k if self._grid(k) <= day else k - 1

    def _periods(self, start: date, end: date) -> float:
        """Return how many coupon periods lie between two days, in whole steps of the grid and parts of them."""
        if not self.coupons_are_equal:
            return year_fraction(start, end, self.day_count) * self.frequency
        k, at, total = self._index(start), start, 0.0
        while at < end:
            low, high = self._grid(k), self._grid(k + 1)
            stop = min(high, end)
            total += 1.0 if (at, stop) == (low, high) else self._days(at, stop) / self._days(low, high)
            at, k = stop, k + 1
        return total

    def _days(self, start: date, end: date) -> float:
        if self.day_count == "ACT/ACT ICMA":
            return float((end - start).days)
        return year_fraction(start, end, self.day_count)

    def _share(self, start: date, end: date) -> float:
        """Return the part of a year between two days."""
        if self.day_count == "ACT/ACT ICMA":
            return self._periods(start, end) / self.frequency
        return year_fraction(start, end, self.day_count)

    def _is_step(self, start: date, end: date) -> bool:
        """Whether a period is one whole step of the grid."""
        k = self._index(start)
        return (self._grid(k), self._grid(k + 1)) == (start, end)

    def _amount(self, start: date, end: date) -> float:
        """Return the coupon of a period, per 100."""
        if self.coupons_are_equal and self._is_step(start, end):
            return self.coupon / self.frequency
        return self.coupon * self._share(start, end)


def dirty_price(amounts: np.ndarray, times: np.ndarray, yield_: float, frequency: int) -> tuple[float, float, float]:
    """Return price, first and second derivative to the yield, per 100.

    Parameters
    ----------
    amounts, times : flows per 100 and their times in coupon periods
    yield_ : a year, compounded ``frequency`` times
    """
    base = 1.0 + yield_ / frequency
    discounted = amounts * base ** -times
    first = -(discounted * times).sum() / (frequency * base)
    second = (discounted * times * (times + 1.0)).sum() / (frequency * base) ** 2
    return float(discounted.sum()), float(first), float(second)


def simple_price(amount: float, years: float, yield_: float) -> tuple[float, float, float]:
    """Return price, first and second derivative to the yield of one payment at simple interest, per 100."""
    growth = 1.0 + yield_ * years
    return amount / growth, -amount * years / growth ** 2, 2.0 * amount * years * years / growth ** 3


def yield_of(amounts: np.ndarray, times: np.ndarray, dirty: float, frequency: int) -> float:
    """Return the yield at which the flows are worth ``dirty``.

    Raises
    ------
    TermError
        No yield of -99.9 % to 1000 % a period gives the price.
    """
    low, high, y = LOWEST * frequency, HIGHEST * frequency, 0.03
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(200):
            price, slope, _ = dirty_price(amounts, times, y, frequency)
            if abs(price - dirty) <= 1e-13 * dirty:
                return y
            if price > dirty:
                low = y
            else:
                high = y
            y = y - (price - dirty) / slope
            if not low < y < high:
                y = 0.5 * (low + high)
        if not abs(dirty_price(amounts, times, y, frequency)[0] - dirty) <= 1e-9 * dirty:
            raise TermError("price", dirty, "a price with accrued interest that a yield between "
                                            f"{LOWEST * frequency:g} and {HIGHEST * frequency:g} gives")
    return y


def _counted(bond: Bond, settle: date) -> tuple[np.ndarray, np.ndarray]:
    amounts, times, _ = bond.flows(settle)
    if not times[-1] > 0.0:
        raise TermError("settle", settle, f"a day from which {bond.day_count} counts time to {bond.maturity}")
    return amounts, times


def price_at(bond: Bond, settle: date, yield_: float) -> tuple[float, float, float]:
    """Return the price with accrued interest, first and second derivative to the yield, per 100.

    Raises
    ------
    TermError
        At that yield there is no price, or the bond has been paid back.
    """
    amounts, times = _counted(bond, settle)
    if bond.simple_last_period and bond.one_period_left(settle):
        years = bond.years_left(settle)
        if not 1.0 + yield_ * years > 0.0:
            raise TermError("yield", yield_, f"above {-1.0 / years:g}: one and simple interest stay above 0")
        return simple_price(float(amounts[0]), years, yield_)
    if not yield_ >= LOWEST * bond.frequency:
        raise TermError("yield", yield_, f"at least {LOWEST * bond.frequency:g}: one and the yield of a period stay "
                                         "above 0")
    with np.errstate(over="ignore", invalid="ignore"):
        try:
            found = dirty_price(amounts, times, yield_, bond.frequency)
        except OverflowError:
            found = (math.inf, math.inf, math.inf)
    if not all(map(math.isfinite, found)):
        raise TermError("yield", yield_, "a yield at which the price is finite")
    return found


def yield_at(bond: Bond, settle: date, dirty: float) -> float:
    """Return the yield at a price with accrued interest.

    Raises
    ------
    TermError
        No yield gives the price, or the bond has been paid back.
    """
    amounts, times = _counted(bond, settle)
    if not dirty > 0.0:
        raise TermError("price", dirty, "above 0 with accrued interest")
    if bond.simple_last_period and bond.one_period_left(settle):
        return (float(amounts[0]) / dirty - 1.0) / bond.years_left(settle)
    return yield_of(amounts, times, dirty, bond.frequency)


def measures(bond: Bond, settle: date, yield_: float) -> dict[str, float]:
    """Return everything the desk asks of a bond at a yield, per 100 of face.

    Returns
    -------
    dict
        ``dollar_duration`` is -dP/dy per 1.00 of yield, ``dv01`` the loss for one basis point (positive),
        ``basis_point_value`` the same with its sign, ``convexity`` the second derivative over the dirty price,
        ``yield_value_of_cent`` the yield change for a price change of 0.01, ``dirty_up_1bp`` and ``dirty_down_1bp``
        full repricings.
    """
    price, first, second = price_at(bond, settle, yield_)
    accrued, modified = bond.accrued(settle), -first / price
    simple = bond.simple_last_period and bond.one_period_left(settle)
    years = bond.years_left(settle) if simple else 1.0 / bond.frequency
    down = yield_ - 1e-4 if simple else max(yield_ - 1e-4, LOWEST * bond.frequency)
    return {
        "dirty": price, "clean": price - accrued, "accrued": accrued, "yield": yield_, "modified_duration": modified,
        "macaulay_duration": modified * (1.0 + yield_ * years), "dollar_duration": -first, "dv01": -first * 1e-4,
        "basis_point_value": first * 1e-4, "convexity": second / price, "yield_value_of_cent": 0.01 / first,
        "dirty_up_1bp": price_at(bond, settle, yield_ + 1e-4)[0],
        "dirty_down_1bp": price_at(bond, settle, down)[0],
    }
