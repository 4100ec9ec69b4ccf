"""Paper that pays once: bills, commercial paper, certificates of deposit. Simple yield."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date

from models.pricing.bond import add_months, year_fraction


@dataclass(frozen=True)
class MoneyMarket:
    """Pays 100 and its interest at maturity; without a coupon it is discount paper.

    Attributes
    ----------
    coupon : per cent a year, simple
    dated : when interest begins; what has a coupon needs it
    """

    maturity: date
    coupon: float = 0.0
    day_count: str = "ACT/360"
    dated: date | None = None

    def __post_init__(self) -> None:
        """Raise ValueError where a coupon has no beginning."""
        if self.coupon and self.dated is None:
            raise ValueError("dated: expected the day interest begins, was none")

    def interest(self, until: date) -> float:
        """Return the interest from the beginning to a day, per 100."""
        if self.dated is None or until <= self.dated:
            return 0.0
        return self.coupon * year_fraction(self.dated, min(until, self.maturity), self.day_count)

    def accrued(self, settle: date) -> float:
        """Return interest earned and not paid, per 100."""
        return 0.0 if settle >= self.maturity else self.interest(settle)

    def paid(self, after: date, until: date) -> float:
        """Return the interest paid in (after, until], per 100."""
        return self.interest(self.maturity) if after < self.maturity <= until else 0.0

    def years(self, settle: date) -> float:
        """Return the years to maturity by the day count."""
        return year_fraction(settle, self.maturity, self.day_count)

    def sensitivity(self, settle: date, clean: float) -> tuple[float, float, float]:
        """Return (simple yield, first and second derivative of the price to it) at a clean price, per 100."""
        t = self.years(settle)
        redemption, dirty = 100.0 + self.interest(self.maturity), clean + self.accrued(settle)
        if not t > 0.0 or not dirty > 0.0:
            raise ValueError(f"price: expected above 0 before {self.maturity}, was {clean!r} on {settle}")
        y = (redemption / dirty - 1.0) / t
        growth = 1.0 + y * t
        return y, -redemption * t / growth ** 2, 2.0 * redemption * t * t / growth ** 3

    def price(self, settle: date, yield_: float) -> float:
        """Return the clean price at a simple yield, per 100."""
        t = self.years(settle)
        return (100.0 + self.interest(self.maturity)) / (1.0 + yield_ * t) - self.accrued(settle)


def bank_discount(price: float, days: int) -> float:
    """Return the discount rate of a bill: of 100, over 360 days."""
    return (100.0 - price) / 100.0 * 360.0 / days


def discount_price(rate: float, days: int) -> float:
    """Return the price of a bill at a discount rate."""
    return 100.0 * (1.0 - rate * days / 360.0)


def year_from(issue: date) -> int:
    """Return the days of the year that begins on a day: 366 where it holds a 29 February."""
    return (add_months(issue, 12) - issue).days


def bond_equivalent_yield(price: float, settle: date, maturity: date, year: int) -> float:
    """Return the investment rate of a bill: comparable with a bond that pays twice a year (31 CFR 356, appendix B).

    Parameters
    ----------
    year : days of the year that began when it was issued

    Raises
    ------
    ValueError
        More than a year is left: the rule ends there.
    """
    days = (maturity - settle).days
    if days > year:
        raise ValueError(f"maturity: expected within {year} days of {settle}, was {maturity}")
    if 2 * days <= year:  # interest is simple up to half a year
        return (100.0 / price - 1.0) * year / days
    # beyond, half a year's interest is paid: price (1 + y/2) (1 + y (days/year - 1/2)) = 100
    a, b, c = days / (2.0 * year) - 0.25, days / year, 1.0 - 100.0 / price
    return -2.0 * c / (b + math.sqrt(b * b - 4.0 * a * c))
