"""Fixed-coupon bonds: schedule, day counts, accrued interest, yield, durations, convexity, DV01.

Street convention: every coupon is discounted in whole coupon periods plus the fraction left of the current one, at a
yield compounded ``frequency`` times a year. Dates are plain dates; nothing here is on the hot path except
`dirty_price`, which the risk stage calls once per bond and mark.
"""

from __future__ import annotations

import calendar
import itertools
from dataclasses import dataclass
from datetime import date

import numpy as np

from models.pricing.calendars import DAY_COUNTERS, day_counter, ql_date

DAY_COUNTS = ("ACT/ACT ICMA", *DAY_COUNTERS)


def add_months(day: date, months: int, day_of_month: int | None = None) -> date:
    """Return a date some months away, on ``day_of_month`` or the month's last day where it is shorter."""
    index = day.year * 12 + day.month - 1 + months
    year, month = divmod(index, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return date(year, month + 1, min(day_of_month or day.day, last))


def year_fraction(start: date, end: date, day_count: str, period: tuple[date, date] | None = None,
                  frequency: int = 1) -> float:
    """Return the part of a year between two dates.

    Parameters
    ----------
    period : the whole coupon period the dates lie in; ACT/ACT ICMA needs it

    Raises
    ------
    ValueError
        The day count is not one of `DAY_COUNTS`.
    """
    if day_count == "ACT/ACT ICMA":
        if period is None:
            raise ValueError("period: ACT/ACT ICMA needs the coupon period")
        return (end - start).days / ((period[1] - period[0]).days * frequency)
    return float(day_counter(day_count).yearFraction(ql_date(start), ql_date(end)))


@dataclass(frozen=True)
class Bond:
    """A fixed-coupon bullet bond.

    Attributes
    ----------
    coupon : per cent of face a year
    frequency : coupons a year: 1, 2, 4 or 12
    dated : first accrual date; with ``forward_schedule`` coupon dates are counted from here and the last period may
        be short, otherwise they are counted back from maturity
    """

    coupon: float
    maturity: date
    frequency: int = 2
    day_count: str = "ACT/ACT ICMA"
    dated: date | None = None
    forward_schedule: bool = False

    def schedule(self, settle: date) -> list[date]:
        """Return the coupon dates after ``settle``, after the last one on or before it."""
        step = 12 // self.frequency
        if self.forward_schedule and self.dated is not None:
            dates, k = [self.dated], 1
            while (after := add_months(self.dated, k * step)) < self.maturity:
                dates.append(after)
                k += 1
            dates.append(self.maturity)
        else:
            dates, k = [self.maturity], 1
            while dates[0] > settle:
                dates.insert(0, add_months(self.maturity, -k * step, self.maturity.day))
                k += 1
            if self.dated is not None:
                dates = [max(d, self.dated) for d in dates if d > self.dated or d == dates[0]]
        first = max((i for i, d in enumerate(dates) if d <= settle), default=0)
        return dates[first:]

    def flows(self, settle: date) -> tuple[np.ndarray, np.ndarray, float]:
        """Return (amounts per 100, times in coupon periods, accrued per 100) of what is still to be paid."""
        if settle >= self.maturity:
            raise ValueError(f"settle: expected before maturity {self.maturity}, was {settle}")
        dates = self.schedule(settle)
        period = (dates[0], dates[1])
        amounts, times = [], []
        whole = self._fraction(*period, period)
        elapsed = 1.0 - self._fraction(settle, dates[1], period) / whole if whole > 0 else 0.0
        at = (1.0 - elapsed) * whole * self.frequency
        for i in range(1, len(dates)):
            span = (dates[i - 1], dates[i])
            part = self._fraction(*span, span)
            if i > 1:
                at += part * self.frequency
            amounts.append(self.coupon * part)
            times.append(at)
        amounts[-1] += 100.0
        return np.array(amounts), np.array(times), self.accrued(settle)

    def accrued(self, settle: date) -> float:
        """Return interest earned since the last coupon, per 100; none before the first accrual date or at the end."""
        if settle >= self.maturity:
            return 0.0
        dates = self.schedule(settle)
        return self.coupon * self._fraction(dates[0], settle, (dates[0], dates[1])) if settle > dates[0] else 0.0

    def paid(self, after: date, until: date) -> float:
        """Return the coupons of (after, until], per 100."""
        if after >= self.maturity:
            return 0.0
        dates = self.schedule(after)
        return sum(self.coupon * self._fraction(a, b, (a, b)) for a, b in itertools.pairwise(dates)
                   if after < b <= until)

    def _fraction(self, start: date, end: date, period: tuple[date, date]) -> float:
        if self.day_count == "ACT/ACT ICMA":
            nominal = (add_months(period[1], -12 // self.frequency, self.maturity.day), period[1])
            if self.forward_schedule:  # a short last period is part of a whole one that starts where it starts
                nominal = (period[0], add_months(period[0], 12 // self.frequency, (self.dated or period[0]).day))
            return year_fraction(start, end, self.day_count, nominal, self.frequency)
        return year_fraction(start, end, self.day_count)


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


def yield_of(amounts: np.ndarray, times: np.ndarray, dirty: float, frequency: int) -> float:
    """Return the yield at which the flows are worth ``dirty``.

    Raises
    ------
    ValueError
        No yield above -100 % a period gives the price.
    """
    if not dirty > 0.0:
        raise ValueError(f"price: expected above 0, was {dirty!r}")
    low, high, y = -0.999 * frequency, 10.0 * frequency, 0.03
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
    if abs(dirty_price(amounts, times, y, frequency)[0] - dirty) > 1e-9 * dirty:
        raise ValueError(f"price: no yield found for {dirty!r}")
    return y


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
    amounts, times, accrued = bond.flows(settle)
    f = bond.frequency
    price, first, second = dirty_price(amounts, times, yield_, f)
    modified = -first / price
    return {
        "dirty": price, "clean": price - accrued, "accrued": accrued, "yield": yield_, "modified_duration": modified,
        "macaulay_duration": modified * (1.0 + yield_ / f), "dollar_duration": -first, "dv01": -first * 1e-4,
        "basis_point_value": first * 1e-4, "convexity": second / price, "yield_value_of_cent": 0.01 / first,
        "dirty_up_1bp": dirty_price(amounts, times, yield_ + 1e-4, f)[0],
        "dirty_down_1bp": dirty_price(amounts, times, yield_ - 1e-4, f)[0],
    }
