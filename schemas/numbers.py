"""Records whose numbers are all finite: what is none of a kind is refused where it is read, not where it is used."""

from __future__ import annotations

from decimal import Decimal

import msgspec

#: digits before the point
DIGITS_MAX = 30


class FiniteNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """A record that cannot be made, or read, with a decimal that is not finite or has very many digits."""

    def __post_init__(self) -> None:
        """Check every decimal.

        Raises
        ------
        ValueError
            If one cannot be counted with.
        """
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, Decimal) and not (value.is_finite() and value.adjusted() < DIGITS_MAX):
                raise ValueError(f"{name}: expected a finite number of at most {DIGITS_MAX} digits, was {value}")
