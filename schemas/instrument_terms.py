"""What the terms of an instrument cannot be: one reading for the record of every topic, and for files.

Refused is what no contract of its class can have, and terms that contradict each other: the record is wrong, and
whatever is valued by it would be. What is missing, what cannot be read (an expiry in the form of a venue) and what
exists and is not offered here (an American barrier, none at 0) is not wrong: the rest of the record stands, and
positions in it are counted as without their Greeks, or their interest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from typing import Any, NamedTuple

from schemas.units import parse_date

OPTION_CLASSES = frozenset({"option", "fx_option"})
#: asset classes that trade at or below zero (spreads, calendar futures, power, option combinations)
PRICE_ANY_SIGN = frozenset({"future", "option"})
#: asset classes that may be worth their inverse price
INVERSE_CLASSES = frozenset({"future", "perpetual"})
#: asset classes whose value is made of their underlying's
DERIVED_CLASSES = OPTION_CLASSES | {"fx_forward"}
PAPER_CLASSES = frozenset({"bond", "money_market"})
#: numbers that nothing can be counted in steps of, or divided by, at zero
ABOVE_ZERO = ("price_increment", "quantity_increment", "multiplier", "quanto_rate", "adv")
#: coupons a year
FREQUENCIES, FREQUENCIES_NAMED = frozenset({1, 2, 4, 12}), "1, 2, 4 or 12"
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


class Wrong(NamedTuple):
    """A term that is wrong."""

    field: str
    expected: str
    was: Any

    def __str__(self) -> str:
        """Return the refusal in words."""
        was = repr(self.was) if isinstance(self.was, str) else "none" if self.was is None else str(self.was).lower()
        return f"{self.field}: expected {self.expected}, was {was}"


def wrong_terms(t: Any) -> Iterator[Wrong]:
    """Tell every term that is wrong.

    Parameters
    ----------
    t : the fields of an `Instrument`, by name
    """
    for name in ABOVE_ZERO:
        value = getattr(t, name)
        if value is not None and value <= 0:
            yield Wrong(name, "a number above 0", value)
    if t.prior_close is not None and t.prior_close < 0 and not price_any_sign(t):
        kind = f"inverse {t.asset_class}" if t.inverse else t.asset_class
        yield Wrong("prior_close", f"a price of class {kind}, 0 or more", t.prior_close)
    if t.prior_close_date is not None and not _is_day(t.prior_close_date):
        yield Wrong("prior_close_date", "a date as 2027-01-15, of 2000 to 2199", t.prior_close_date)
    if t.asset_class in OPTION_CLASSES:
        yield from _of_option(t)
        yield from _of_exotic(t)
    else:
        yield from _of_others(t)
    if t.asset_class in DERIVED_CLASSES and t.underlying == t.instrument:
        yield Wrong("underlying", "another instrument than itself", t.underlying)
    if t.asset_class in PAPER_CLASSES:
        yield from _of_paper(t)


def price_any_sign(t: Any) -> bool:
    """Return whether an instrument may trade at or below zero; what is worth its inverse price cannot."""
    return t.asset_class in PRICE_ANY_SIGN and not t.inverse


def _is_day(text: str) -> bool:
    try:
        return _DAY.fullmatch(text) is not None and 2000 <= date.fromisoformat(text).year < 2200
    except ValueError:
        return False


def _of_others(t: Any) -> Iterator[Wrong]:
    """Tell what none has that is no option, though it would be valued by it."""
    for field in ("model", "premium_in_underlying"):
        if getattr(t, field) not in (None, False):
            yield Wrong(field, f"nothing of class {t.asset_class}, of an option alone", getattr(t, field))
    if t.inverse and t.asset_class is not None and t.asset_class not in INVERSE_CLASSES:
        yield Wrong("inverse", f"nothing of class {t.asset_class}", True)


def _of_option(t: Any) -> Iterator[Wrong]:
    if t.inverse:
        yield Wrong("inverse", "false of an option (premium_in_underlying says that its premium is paid in the "
                               "underlying)", True)
    if t.moves is not None:
        yield Wrong("moves", "none: an option moves with its underlying, which may have it", t.moves)
    if t.model == "bachelier":
        other = "american" if t.style == "american" else t.barrier_kind or t.digital_kind or (
            "premium_in_underlying" if t.premium_in_underlying else None)
        if other is not None:
            yield Wrong("model", "bachelier of a european option without barrier, digital_kind or "
                                 "premium_in_underlying", other)
    elif t.strike is not None and t.strike <= 0:
        yield Wrong("strike", "a number above 0, which the lognormal model prices (model bachelier has strikes of "
                              "either sign)", t.strike)
    if t.premium_in_underlying and t.settlement not in (None, t.currency):
        yield Wrong("settlement", "none beside premium_in_underlying, which states value and P&L in "
                                  f"{t.currency} at the underlying's price", t.settlement)
    if t.premium_in_underlying and t.underlying is None:
        yield Wrong("underlying", "the instrument whose units the premium is in", None)


def _of_exotic(t: Any) -> Iterator[Wrong]:
    """Tell what no barrier and no digital has; a level without its kind says another contract than the one priced."""
    if t.barrier is not None and (t.barrier < 0 or (t.barrier_kind is None and t.barrier != 0)):
        yield Wrong("barrier", "a level above 0" if t.barrier_kind else "none without barrier_kind", t.barrier)
    if t.rebate is not None and (t.rebate < 0 or (t.barrier_kind is None and t.rebate != 0)):
        yield Wrong("rebate", "0 or more" if t.barrier_kind else "none without barrier_kind", t.rebate)
    pays = t.digital_kind == "cash_or_nothing"
    if t.payout is not None and (t.payout <= 0 if pays else t.payout != 0):
        yield Wrong("payout", "an amount above 0" if pays else "none but with digital_kind cash_or_nothing", t.payout)


def _of_paper(t: Any) -> Iterator[Wrong]:
    if t.asset_class == "bond" and t.frequency is not None and t.frequency not in FREQUENCIES:
        yield Wrong("frequency", f"{FREQUENCIES_NAMED} coupons a year", t.frequency)
    maturity, dated, first = (_read(getattr(t, name)) for name in ("maturity", "dated", "first_coupon"))
    if maturity is not None and dated is not None and dated >= maturity:
        yield Wrong("dated", f"before maturity {maturity}", str(dated))
    elif t.asset_class == "bond" and first is not None and maturity is not None and first > maturity:
        yield Wrong("first_coupon", f"not after maturity {maturity}", str(first))
    elif t.asset_class == "bond" and first is not None and dated is not None and first <= dated:
        yield Wrong("first_coupon", f"after dated {dated}", str(first))


def _read(text: str | None) -> date | None:
    """Return a date; None where there is none, or none that can be read."""
    try:
        return None if text is None else parse_date(text, "")
    except ValueError:
        return None
