"""Zero curves from what the market quotes: deposits, overnight and interbank swaps, bootstrapped by QuantLib."""

from __future__ import annotations

from datetime import date

import QuantLib as ql

from models.pricing.calendars import calendar_of, day_counter, ql_date
from schemas.market import CurveQuotes

FREQUENCIES = {1: ql.Annual, 2: ql.Semiannual, 4: ql.Quarterly}


def _helpers(quotes: CurveQuotes) -> list[ql.RateHelper]:
    calendar, count = calendar_of(quotes.calendar), day_counter(quotes.day_count)
    currency = ql.USDCurrency()  # a helper asks for one and makes nothing of it
    overnight = ql.OvernightIndex("overnight", 0, currency, calendar, count)
    floating = ql.IborIndex("floating", ql.Period(quotes.floating_tenor), quotes.settlement_days, currency, calendar,
                            ql.ModifiedFollowing, False, count)

    def deposit(tenor: str, rate: float) -> ql.RateHelper:
        overnight_loan = ql.Period(tenor) == ql.Period(1, ql.Days)
        return ql.DepositRateHelper(rate, ql.Period(tenor), 0 if overnight_loan else quotes.settlement_days, calendar,
                                    ql.ModifiedFollowing, False, count)

    def swap(tenor: str, rate: float) -> ql.RateHelper:
        return ql.SwapRateHelper(rate, ql.Period(tenor), calendar, FREQUENCIES[quotes.fixed_frequency],
                                 ql.ModifiedFollowing, day_counter(quotes.fixed_day_count), floating)

    def ois(tenor: str, rate: float) -> ql.RateHelper:
        return ql.OISRateHelper(quotes.settlement_days, ql.Period(tenor), ql.QuoteHandle(ql.SimpleQuote(rate)),
                                overnight)

    return [make(tenor, rate) for make, given in ((deposit, quotes.deposits), (ois, quotes.ois), (swap, quotes.swaps))
            for tenor, rate in given]


def zero_rates(quotes: CurveQuotes, as_of: date) -> list[tuple[float, float]]:
    """Return the zero curve that prices every quote at par: (days, continuous annual rate, ACT/365F), ascending.

    Rates are linear between the points and flat beyond, as everything here reads them.

    Raises
    ------
    ValueError
        No quotes, two that end on one day, a tenor or calendar that is none, or quotes that no curve prices.
    """
    if quotes.fixed_frequency not in FREQUENCIES:
        raise ValueError(f"fixed_frequency: expected 1, 2 or 4, was {quotes.fixed_frequency}")
    if not (quotes.deposits or quotes.ois or quotes.swaps):
        raise ValueError("curve: expected deposits, ois or swaps, was none")
    today, before = ql_date(as_of), ql.Settings.instance().evaluationDate
    try:
        # quotes of a day on which nobody trades are those of the next: a deposit would ask for its fixing of yesterday
        ql.Settings.instance().evaluationDate = calendar_of(quotes.calendar).adjust(today)
        curve = ql.PiecewiseLinearZero(today, _helpers(quotes), ql.Actual365Fixed())
        return [(float(day - today), float(curve.zeroRate(day, ql.Actual365Fixed(), ql.Continuous).rate()))
                for day in curve.dates()[1:]]
    except RuntimeError as error:  # QuantLib's errors carry no other type
        raise ValueError(f"curve of {as_of}: {error}") from error
    finally:
        ql.Settings.instance().evaluationDate = before
