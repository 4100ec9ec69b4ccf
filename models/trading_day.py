"""When a trading day begins: a local time of day in a time zone, daylight saving included."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from schemas.units import NS_PER_S

NOON = time(12)


class TradingDay:
    """Days that begin at a local time of day.

    Parameters
    ----------
    start : ``HH:MM``; 00:00 is the calendar day
    zone : IANA name of the time zone

    Raises
    ------
    ValueError
        If the time or the zone is none.
    """

    def __init__(self, start: str = "00:00", zone: str = "UTC") -> None:
        try:
            self._start = time.fromisoformat(start)
            self._zone = ZoneInfo(zone)
        except (ValueError, ZoneInfoNotFoundError) as error:
            raise ValueError(f"day: expected HH:MM and a time zone, was {start!r} {zone!r}") from error
        self._known = (0, 0, 0)  # begin, end and index of the day that was asked for last

    def index(self, ts_ns: int) -> int:
        """Return a number of the day a time is in; the next day has the next number."""
        return self._find(ts_ns)[2]

    def begin_ns(self, ts_ns: int) -> int:
        """Return when the day of a time began."""
        return self._find(ts_ns)[0]

    def end_ns(self, ts_ns: int) -> int:
        """Return when the day of a time ends and the next one begins."""
        return self._find(ts_ns)[1]

    def date_of(self, ts_ns: int) -> date:
        """Return the date a trading day is named by: of its end, where it begins in the afternoon before."""
        begun = date.fromordinal(self.index(ts_ns))
        return begun + timedelta(days=1) if self._start >= NOON else begun

    def begin_of(self, day: date) -> int:
        """Return when the trading day that is named by a date begins."""
        return self._begin(day - timedelta(days=1) if self._start >= NOON else day)

    def _find(self, ts_ns: int) -> tuple[int, int, int]:
        if not self._known[0] <= ts_ns < self._known[1]:
            local = datetime.fromtimestamp(ts_ns // NS_PER_S, self._zone)
            day = local.date()
            if ts_ns < self._begin(day):
                day -= timedelta(days=1)
            self._known = (self._begin(day), self._begin(day + timedelta(days=1)), day.toordinal())
        return self._known

    def _begin(self, day: date) -> int:
        return int(datetime.combine(day, self._start, self._zone).timestamp()) * NS_PER_S
