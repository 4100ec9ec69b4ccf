"""Market inputs that quotes do not show: curves, dividends, volatilities, and barriers that were touched."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import msgspec

from schemas.numbers import FiniteNumbers, Timestamp, Whole
from schemas.records import Text
from schemas.units import expiry_ns


class Touch(FiniteNumbers, frozen=True, kw_only=True):
    """Whether the barrier of an option was touched: seen by a risk worker, or said by a person or calculation agent.

    The newest record of an option is what holds: ``touched`` false takes a touch back that a wrong price caused.
    """

    instrument: Text
    touched: bool
    ts_event: Timestamp
    by: Text
    reason: str
    #: price of the underlying
    price: float | None = None


#: continuous annual rates, yields and quotes of rates: from -100 % to 1,000 %
RATE_MIN, RATE_MAX = -1.0, 10.0
#: terms of rates and dividends: a hundred years
DAYS_MAX = 36_525.0
#: lognormal volatility, annual: 10,000 %. Of the normal model it is in price units: then at most so many times the
#: largest strike of its slice, where that is more
VOL_MAX, NORMAL_VOL_OF_STRIKE = 100.0, 10.0
STRIKE_MAX = 1e12
#: points of a curve, strikes of a slice, slices of a surface
POINTS_MAX = 1_000
#: what one interval of funding may come to, of the value; how long it may be, in hours
FUNDING_MAX, FUNDING_HOURS_MIN, FUNDING_HOURS_MAX = 1.0, 1.0 / 60.0, 744.0

Rate = Annotated[float, msgspec.Meta(ge=RATE_MIN, le=RATE_MAX)]
Days = Annotated[float, msgspec.Meta(ge=0.0, le=DAYS_MAX)]
Strike = Annotated[float, msgspec.Meta(ge=-STRIKE_MAX, le=STRIKE_MAX)]
Terms = Annotated[list[tuple[Days, Rate]], msgspec.Meta(max_length=POINTS_MAX)]


class VolSlice(msgspec.Struct, frozen=True, kw_only=True):
    """Volatilities of one expiry, annual, by ascending strike; between strikes linear, flat beyond.

    Each is above 0 and at most 100 (10,000 %), or ten times the largest strike where that is more: the normal model has
    them in price units.
    """

    expiry: Text
    strikes: Annotated[list[Strike], msgspec.Meta(min_length=1, max_length=POINTS_MAX)]
    vols: Annotated[list[float], msgspec.Meta(min_length=1, max_length=POINTS_MAX)]

    def __post_init__(self) -> None:
        """Check the expiry, and that there is a volatility within its bounds for each of some ascending strikes.

        Raises
        ------
        ValueError
            With what was expected and what it was.
        """
        expiry_ns(self.expiry)
        if len(self.strikes) != len(self.vols):
            raise ValueError(f"vols: expected one for each of {len(self.strikes)} strikes, was {len(self.vols)}")
        _check_ascending("strikes", self.strikes)
        most = max(VOL_MAX, NORMAL_VOL_OF_STRIKE * max(map(abs, self.strikes), default=0.0))
        for vol in self.vols:
            if not 0.0 < vol <= most:
                raise ValueError(f"vols: expected above 0 and at most {most:g}, was {vol}")


def _check_ascending(name: str, values: list[float]) -> None:
    for one, other in pairwise(values):
        if not one < other:
            raise ValueError(f"{name}: expected ascending ones, was {one} before {other}")


Quotes = Annotated[list[tuple[str, Rate]], msgspec.Meta(max_length=POINTS_MAX)]


class CurveQuotes(msgspec.Struct, frozen=True, kw_only=True):
    """What the market quotes of one currency's rates: [tenor, rate] with tenors as 1D, 2W, 3M, 10Y.

    Deposits and the floating side count days by ``day_count``. ``ois`` are swaps of the compounded overnight rate,
    paid yearly; ``swaps`` pay fixed ``fixed_frequency`` times a year against ``floating_tenor``.
    """

    calendar: Text
    deposits: Quotes = []
    ois: Quotes = []
    swaps: Quotes = []
    settlement_days: Annotated[int, msgspec.Meta(ge=0, le=30)] = 2
    day_count: Text = "ACT/360"
    fixed_frequency: Whole = 1
    fixed_day_count: Text = "30/360 US"
    floating_tenor: Text = "6M"


class Surface(FiniteNumbers, frozen=True, kw_only=True):
    """Market inputs of one underlying, or of one currency (its curve), that cannot be seen in its quotes.

    ``rates`` and ``dividends`` are [days, continuous annual rate] by ascending days, linear between, flat beyond; a
    currency's record carries its ``rates``, or a ``curve`` to make them from; an underlying's its ``dividends``
    (empty: it pays none) and ``vols``; a perpetual's what its next funding is expected to be (long pays where it is
    above 0), shown a day beside its positions: booked is what was charged.

    Rates and yields are from -1 to 10 (-100 % to 1,000 %), days from 0 to 36,525, a funding rate from -1 to 1 in
    intervals of a minute to a month.
    """

    underlying: Text
    ts_event: Timestamp
    source: str | None = None
    rates: Annotated[Terms, msgspec.Meta(min_length=1)] | None = None
    curve: CurveQuotes | None = None
    dividends: Terms | None = None
    vols: Annotated[list[VolSlice], msgspec.Meta(max_length=POINTS_MAX)] | None = None
    funding_rate: Annotated[float, msgspec.Meta(ge=-FUNDING_MAX, le=FUNDING_MAX)] | None = None
    funding_interval_hours: Annotated[float, msgspec.Meta(ge=FUNDING_HOURS_MIN, le=FUNDING_HOURS_MAX)] | None = None

    def __post_init__(self) -> None:
        """Check that terms ascend, that expiries are of one slice each, and that rates are stated in one way.

        Raises
        ------
        ValueError
            With what was expected and what it was.
        """
        super().__post_init__()
        if self.rates is not None and self.curve is not None:
            raise ValueError(f"curve: expected rates or a curve of {self.underlying}, was both")
        for name, terms in (("rates", self.rates), ("dividends", self.dividends)):
            _check_ascending(name, [days for days, _ in terms or ()])
        expiries = [expiry_ns(s.expiry) for s in self.vols or ()]
        if len(set(expiries)) < len(expiries):
            raise ValueError(f"vols: expected one slice an expiry, was {[s.expiry for s in self.vols or ()][:10]}")
