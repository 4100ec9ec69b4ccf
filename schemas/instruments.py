"""What is traded: the record of an instrument, checked as a whole when one is made."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

import msgspec

from schemas.instrument_terms import price_any_sign, wrong_terms
from schemas.numbers import Currency, FiniteNumbers, Name, Number, Text, Whole

#: rates of one instrument
MARGIN_TIERS_MAX = 6


class MarginTier(FiniteNumbers, frozen=True, kw_only=True):
    """Margin rates on the slice of a position's notional that ends here, and begins where the tier before ends."""

    #: settlement currency; absent: all that is above
    up_to: Number | None = None
    initial: Number
    maintenance: Number


class Instrument(FiniteNumbers, frozen=True, kw_only=True):
    """What is traded. ``price_increment`` and ``quantity_increment`` fix the decimals quantities are counted in."""

    instrument: Name
    asset_class: Literal["equity", "bond", "fx", "future", "option", "fx_option", "perpetual", "cash", "fx_forward",
                         "money_market"]
    currency: Currency
    price_increment: Number | None = None
    quantity_increment: Number | None = None
    multiplier: Number = Decimal(1)
    underlying: str | None = None
    right: Literal["call", "put"] | None = None
    strike: Number | None = None
    expiry: str | None = None
    style: Literal["european", "american"] | None = None
    #: how an option is valued; bachelier: the normal model, volatility in price units a year, prices of any sign
    model: Literal["black_scholes", "bachelier"] | None = None
    #: an option whose premium is quoted and paid in units of its underlying: worth price x the underlying's price
    premium_in_underlying: bool = False
    #: how its price moves as a risk factor; absent: by differences where its history or its price is at or below zero,
    #: else by fractions
    moves: Literal["relative", "absolute", "log"] | None = None
    #: a single-barrier option (European, watched at every mark window); out: ``rebate`` is paid when it is touched, in:
    #: at expiry where it never was
    barrier_kind: Literal["down_and_out", "down_and_in", "up_and_out", "up_and_in"] | None = None
    barrier: Number | None = None
    rebate: Number | None = None
    #: a digital (European): pays ``payout`` in cash, or one unit of the underlying, where it ends in the money
    digital_kind: Literal["cash_or_nothing", "asset_or_nothing"] | None = None
    payout: Number | None = None
    settlement: Currency | None = None
    inverse: bool = False
    quanto_rate: Number | None = None
    coupon: Number | None = None
    frequency: Whole | None = None
    day_count: str | None = None
    maturity: str | None = None
    #: first day that interest accrues; the holiday calendar (see ``deskrisk calc settlement``) and the business days
    #: after which trades settle: what a bond has accrued by then is what its buyer pays for
    dated: str | None = None
    calendar: str | None = None
    settlement_days: Annotated[int, msgspec.Meta(ge=0, le=30)] | None = None
    #: a bond's first coupon where the first period is a long one; whether coupons fall on last days of months where
    #: maturity does; the business days before a coupon from which it stays with the seller
    first_coupon: str | None = None
    end_of_month: bool = True
    ex_dividend_days: Annotated[int, msgspec.Meta(ge=0, le=60)] | None = None
    issuer: str | None = None
    #: crypto: a pair or a perpetual that moves with the factor of coins; a perpetual without a sector does, too
    sector: str | None = None
    country: str | None = None
    adv: Number | None = None
    #: shares of the notional, leverage included (a tenth: ten times)
    margin_initial: Number | None = None
    margin_maintenance: Number | None = None
    #: in place of the two above where rates rise with the notional, ascending
    margin_tiers: Annotated[list[MarginTier], msgspec.Meta(min_length=1, max_length=MARGIN_TIERS_MAX)] | None = None
    restricted: bool = False
    shortable: bool = True
    prior_close: Number | None = None
    #: the trading day that ``prior_close`` is of (YYYY-MM-DD): it is used for openings of the next one alone
    prior_close_date: str | None = None
    #: the splits since that ``prior_close`` is restated by, by ``action_id``
    prior_close_splits: list[Text] | None = None

    @property
    def price_any_sign(self) -> bool:
        """Whether it may trade at or below zero; what is worth its inverse price cannot."""
        return price_any_sign(self)

    def __post_init__(self) -> None:
        """Check every number and date, and that the terms are those of a contract of its class.

        Raises
        ------
        ValueError
            If one cannot be counted with: with its field, what was expected and what it was.
        """
        super().__post_init__()
        for wrong in wrong_terms(self):
            raise ValueError(str(wrong))
