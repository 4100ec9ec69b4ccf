"""Market inputs that quotes do not show: curves, dividends, volatilities, and barriers that were touched."""

from __future__ import annotations

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


class VolSlice(msgspec.Struct, frozen=True, kw_only=True):
    """Volatilities of one expiry, annual, by ascending strike; between strikes linear, flat beyond."""

    expiry: Text
    strikes: list[float]
    vols: list[float]

    def __post_init__(self) -> None:
        """Check the expiry.

        Raises
        ------
        ValueError
            It is no date, or time, of a contract.
        """
        expiry_ns(self.expiry)


class CurveQuotes(msgspec.Struct, frozen=True, kw_only=True):
    """What the market quotes of one currency's rates: [tenor, rate] with tenors as 1D, 2W, 3M, 10Y.

    Deposits and the floating side count days by ``day_count``. ``ois`` are swaps of the compounded overnight rate,
    paid yearly; ``swaps`` pay fixed ``fixed_frequency`` times a year against ``floating_tenor``.
    """

    calendar: Text
    deposits: list[tuple[str, float]] = []
    ois: list[tuple[str, float]] = []
    swaps: list[tuple[str, float]] = []
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
    """

    underlying: Text
    ts_event: Timestamp
    source: str | None = None
    rates: list[tuple[float, float]] | None = None
    curve: CurveQuotes | None = None
    dividends: list[tuple[float, float]] | None = None
    vols: list[VolSlice] | None = None
    funding_rate: float | None = None
    funding_interval_hours: float | None = None
