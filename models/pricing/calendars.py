"""Holiday calendars, settlement dates and day counts, from QuantLib; looked up once a day, never on the hot path."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from functools import lru_cache

import QuantLib as ql

#: what an instrument's ``calendar`` may name; several joined by ``+`` are open when all are
CALENDARS: dict[str, Callable[[], ql.Calendar]] = {
    "WEEKENDS": ql.WeekendsOnly, "TARGET": ql.TARGET,
    "US-BONDS": lambda: ql.UnitedStates(ql.UnitedStates.GovernmentBond),
    "US-NYSE": lambda: ql.UnitedStates(ql.UnitedStates.NYSE),
    "US-FED": lambda: ql.UnitedStates(ql.UnitedStates.FederalReserve),
    "US-SOFR": lambda: ql.UnitedStates(ql.UnitedStates.SOFR),
    "GB": ql.UnitedKingdom, "JP": ql.Japan, "CH": ql.Switzerland, "CA": ql.Canada, "AU": ql.Australia,
    "NZ": ql.NewZealand, "SE": ql.Sweden, "NO": ql.Norway, "DK": ql.Denmark, "HK": ql.HongKong, "SG": ql.Singapore,
    "CN": ql.China, "IN": ql.India, "KR": ql.SouthKorea, "BR": ql.Brazil, "MX": ql.Mexico, "ZA": ql.SouthAfrica,
    "PL": ql.Poland, "CZ": ql.CzechRepublic, "HU": ql.Hungary}
DAY_COUNTERS: dict[str, Callable[[], ql.DayCounter]] = {
    "30/360 US": lambda: ql.Thirty360(ql.Thirty360.USA), "30E/360": lambda: ql.Thirty360(ql.Thirty360.European),
    "ACT/360": ql.Actual360, "ACT/365F": ql.Actual365Fixed,
    "ACT/ACT ISDA": lambda: ql.ActualActual(ql.ActualActual.ISDA)}


def ql_date(day: date) -> ql.Date:
    """Return a date as QuantLib's."""
    return ql.Date(day.day, day.month, day.year)


def py_date(day: ql.Date) -> date:
    """Return QuantLib's date as a date."""
    return date(day.year(), day.month(), day.dayOfMonth())


@lru_cache(maxsize=256)
def calendar_of(name: str) -> ql.Calendar:
    """Return a calendar, or several joined by ``+``.

    Raises
    ------
    ValueError
        A name is none of `CALENDARS`.
    """
    parts = name.split("+")
    unknown = [p for p in parts if p not in CALENDARS]
    if unknown:
        raise ValueError(f"calendar: expected some of {', '.join(CALENDARS)}, joined by +, was {name!r}")
    made = [CALENDARS[p]() for p in parts]
    return made[0] if len(made) == 1 else ql.JointCalendar(made)


@lru_cache(maxsize=32)
def day_counter(name: str) -> ql.DayCounter:
    """Return a day count that needs no coupon period.

    Raises
    ------
    ValueError
        The name is none of `DAY_COUNTERS`.
    """
    if name not in DAY_COUNTERS:
        raise ValueError(f"day_count: expected one of {', '.join(DAY_COUNTERS)}, was {name!r}")
    return DAY_COUNTERS[name]()


@lru_cache(maxsize=4096)
def settlement_date(traded: date, business_days: int, calendar: str) -> date:
    """Return when a trade of a day settles: so many business days later, on a business day."""
    return py_date(calendar_of(calendar).advance(ql_date(traded), business_days, ql.Days, ql.Following))


@lru_cache(maxsize=4096)
def business_days_before(day: date, business_days: int, calendar: str) -> date:
    """Return the business day so many business days before a day."""
    return py_date(calendar_of(calendar).advance(ql_date(day), -business_days, ql.Days, ql.Preceding))
