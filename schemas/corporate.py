"""What a firm does to its shares: splits and cash dividends."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from schemas.numbers import Currency, FiniteNumbers, Name, Number, Timestamp

#: of the ratio of a split
RATIO_DECIMALS_MAX = 6


class CorporateAction(FiniteNumbers, frozen=True, kw_only=True):
    """What a firm does to its shares, from ``effective_ts`` on.

    ``split``: one unit is ``ratio`` units; whatever was traded before is restated, whenever it comes.
    ``cash_dividend``: ``amount`` of ``currency`` is paid for each unit that is held then.
    """

    action_id: Name
    instrument: Name
    kind: Literal["split", "cash_dividend"]
    effective_ts: Timestamp
    #: of a split: 4 for four units of one, 0.1 for one of ten
    ratio: Number | None = None
    #: of a dividend
    amount: Number | None = None
    currency: Currency | None = None
    #: when limits on quantities and the prior close were restated, and it was told; the position stage says it
    followed_ts: Timestamp | None = None

    def __post_init__(self) -> None:
        """Check that it says what its kind needs, and nothing else.

        Raises
        ------
        ValueError
            With the field, what was expected and what it was.
        """
        super().__post_init__()
        split = self.kind == "split"
        needs, leaves = (("ratio",), ("amount", "currency")) if split else (("amount", "currency"), ("ratio",))
        for name in needs:
            if getattr(self, name) is None:
                raise ValueError(f"{name}: expected one with kind {self.kind}, was absent")
        for name in leaves:
            if getattr(self, name) is not None:
                raise ValueError(f"{name}: expected none with kind {self.kind}, was {getattr(self, name)}")
        number = self.ratio if self.ratio is not None else self.amount
        if number is None or not number > 0:
            raise ValueError(f"{needs[0]}: expected a number above 0, was {number}")
        if self.ratio is not None and not (Decimal("0.000001") <= self.ratio <= 1_000_000
                                           and self.ratio == round(self.ratio, RATIO_DECIMALS_MAX)):
            raise ValueError(f"ratio: expected 0.000001 to 1000000 with at most {RATIO_DECIMALS_MAX} decimals, "
                             f"was {self.ratio}")
