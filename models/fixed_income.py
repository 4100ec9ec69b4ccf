"""Bonds and money-market paper of one market: settlement, accrued interest, yields and their sensitivities."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from models.market import Market
from models.pricing.bond import Bond, dirty_price, yield_of
from models.pricing.calendars import calendar_of, day_counter, settlement_date
from models.pricing.money_market import MoneyMarket
from schemas.records import Instrument
from schemas.units import parse_date

#: a yield is solved again when the price has moved by this much of itself
PRICE_MOVE = 1e-4


def paper_of(record: Instrument) -> Bond | MoneyMarket | None:
    """Return the terms of an instrument of `PAPER_CLASSES`; None where some are missing.

    Raises
    ------
    ValueError
        A date, calendar or day count is none.
    """
    if record.maturity is None or (record.asset_class == "bond" and record.coupon is None):
        return None
    calendar_of(record.calendar or "WEEKENDS")
    maturity = parse_date(record.maturity, "maturity")
    dated, first = (None if day is None else parse_date(day, name)
                    for name, day in (("dated", record.dated), ("first_coupon", record.first_coupon)))
    coupon = float(record.coupon or 0)
    if record.asset_class == "bond":
        return Bond(coupon, maturity, 2 if record.frequency is None else record.frequency,
                    _day_count(record, "ACT/ACT ICMA"), dated, first_coupon=first, end_of_month=record.end_of_month,
                    ex_dividend_days=record.ex_dividend_days or 0, calendar=record.calendar or "WEEKENDS")
    if dated is not None and dated >= maturity:
        raise ValueError(f"dated: expected before maturity {maturity}, was {dated}")
    return MoneyMarket(maturity, coupon, _day_count(record, "ACT/360"), dated)


def _day_count(record: Instrument, usual: str) -> str:
    name = record.day_count or usual
    if name != "ACT/ACT ICMA" or record.asset_class != "bond":
        day_counter(name)
    return name


@dataclass
class _Listed:
    """One paper, and what of it holds for a day and a price."""

    paper: Bond | MoneyMarket
    settlement_days: int
    calendar: str
    settle: date = date.min
    flows: tuple[np.ndarray, np.ndarray, float] | None = None
    priced_at: float = np.nan

    def settles(self, day: date) -> date:
        return settlement_date(day, self.settlement_days, self.calendar)


class FixedIncome:
    """What the market's bonds and bills have accrued, and how their prices move with yields."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self._listed: dict[str, _Listed] = {}
        #: first and second derivative of the price to the yield, by instrument
        self.sensitivity: dict[int, tuple[float, float]] = {}

    def add(self, record: Instrument) -> None:
        """Take an instrument in; without its terms it has no Greeks and its interest is unknown."""
        k = self.market.instrument(record.instrument)
        self.market.greek_kind[k] = 1
        try:
            paper = paper_of(record)
        except ValueError:  # a date, calendar or day count that nobody can read: files refuse it, here it is counted
            paper = None
        terms = (paper, record.settlement_days or 0, record.calendar or "WEEKENDS")
        held = self._listed.pop(record.instrument, None)
        if held is not None and (held.paper, held.settlement_days, held.calendar) == terms:
            self._listed[record.instrument] = held  # a new close leaves what is known of it
            return
        self.market.unit_greeks[k], self.market.accrued[k] = np.nan, 0.0
        self.sensitivity.pop(k, None)
        if paper is not None:
            self._listed[record.instrument] = _Listed(paper, *terms[1:])

    def drop(self, name: str) -> None:
        """Forget an instrument: it is no paper any more."""
        self._listed.pop(name, None)
        self.sensitivity.pop(self.market.instrument(name), None)

    def interest(self, name: str, since: date, until: date) -> tuple[float, float]:
        """Return (interest earned from one day to another, accrued on the first), per 100.

        Without terms the first is NaN, and nothing has accrued: what is held is then valued clean. What is held at the
        end of a trading day and settles then has accrued interest up to that day's settlement; coupons on the way
        count as earned.
        """
        x = self._listed.get(name)
        if x is None:
            return float("nan"), 0.0
        first, last = x.settles(since), x.settles(until)
        before = x.paper.accrued(first)
        return x.paper.accrued(last) - before + x.paper.paid(first, last), before

    def refresh(self, day: date) -> int:
        """Measure again the paper whose price moved, or all when the day is a new one; return how many."""
        market, n = self.market, 0
        for name, x in self._listed.items():
            k = market.instruments[name]
            settle = x.settles(day)
            if settle != x.settle:
                x.settle, x.priced_at = settle, np.nan
                x.flows = x.paper.flows(settle) if isinstance(x.paper, Bond) and settle < x.paper.maturity else None
                market.accrued[k] = x.paper.accrued(settle)
                market.instrument_changed[k] = 1
            price = float(market.mid[k])
            if not price > 0 or abs(price - x.priced_at) < PRICE_MOVE * x.priced_at or settle >= x.paper.maturity:
                continue
            first, second = self._measure(x, price)
            x.priced_at = price
            self.sensitivity[k] = (first, second)
            market.unit_greeks[k] = (price, 0.0, 0.0, 0.0, first * 1e-4)
            market.instrument_changed[k] = 1
            n += 1
        return n

    @staticmethod
    def _measure(x: _Listed, price: float) -> tuple[float, float]:
        try:
            if isinstance(x.paper, MoneyMarket):
                return x.paper.sensitivity(x.settle, price)[1:]
            assert x.flows is not None
            amounts, times, accrued = x.flows
            y = yield_of(amounts, times, price + accrued, x.paper.frequency)
        except ValueError:  # a price that no yield explains leaves the Greeks unknown
            return float("nan"), float("nan")
        return dirty_price(amounts, times, y, x.paper.frequency)[1:]


def day_before(day: date) -> date:
    """Return the calendar day before: what a day's interest is counted from."""
    return day - timedelta(days=1)
