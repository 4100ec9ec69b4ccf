"""What a position has beside its columns, as the tail of its packed row."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

from models.trade_decode import EXACT

Amounts = dict[str, Decimal]
ZERO = Decimal(0)
#: funding is kept beside fees in other currencies, in front of the currency's name
FUNDING = "funding:"
#: no mark of splits
NOT_SAID = -1


class Dividend(NamedTuple):
    """What a row held when a cash dividend was effective, and what each unit was paid.

    ``splits`` marks the splits up to then by which ``held`` was counted: with others it is to be counted again.
    """

    amount: Decimal
    currency: str
    ts: int
    splits: int
    held: Decimal


@dataclass
class SideData:
    """What a position has beside its columns: fees in other currencies and funding, openings by source.

    Amounts are exact: what is taken back leaves nothing behind.
    """

    fees: Amounts = field(default_factory=dict)
    openings: dict[str, tuple[int, float | None, int]] = field(default_factory=dict)
    opening_fees: Amounts = field(default_factory=dict)
    #: what each fill of the window paid, by its sequence number
    paid: dict[int, Amounts] = field(default_factory=dict)
    #: by action
    dividends: dict[str, Dividend] = field(default_factory=dict)

    def amounts(self, opening_ts: int | None = None) -> tuple[dict[str, float], dict[str, float]]:
        """Return fees and funding by currency, dividends (received: below 0) among funding.

        Parameters
        ----------
        opening_ts : when the day began; what belongs to the days before alone
        """
        fees, funding = Amounts(), Amounts()
        for name, amount in (self.fees if opening_ts is None else self.opening_fees).items():
            add_amounts(funding if name.startswith(FUNDING) else fees, {name.removeprefix(FUNDING): amount})
        for paid in self.dividends.values():
            if opening_ts is None or paid.ts < opening_ts:
                add_amounts(funding, {paid.currency: EXACT.multiply(paid.amount, paid.held)}, -1)
        return {c: float(a) for c, a in fees.items()}, {c: float(a) for c, a in funding.items()}

    def pack(self) -> bytes:
        """Return the tail of a packed row."""
        rounded = [{c: float(a) for c, a in kept.items()} for kept in (self.fees, self.opening_fees)]
        exact = [{c: str(a) for c, a in kept.items()} for kept in (self.fees, self.opening_fees)]
        dividends = {k: [str(d.amount), d.currency, d.ts, str(d.held)] for k, d in self.dividends.items()}
        splits = {k: d.splits for k, d in self.dividends.items()}
        return json.dumps([rounded[0], {}, self.openings, rounded[1], {}, *exact, dividends, splits]).encode()

    @classmethod
    def unpack(cls, tail: bytes) -> tuple[SideData, dict[str, Amounts]]:
        """Read the tail of a packed row, and fees that an earlier version kept there by the hash of their trade's id.

        What a newer minor version appended is left out.
        """
        fees, by_id, openings, *more = json.loads(tail)
        opening_fees = more[0] if more else {}
        if len(more) > 3:
            fees, opening_fees = more[2], more[3]
        side = cls(exact_amounts(fees), {k: (q, p, t) for k, (q, p, t) in openings.items()},
                   exact_amounts(opening_fees))
        splits = more[5] if len(more) > 5 else {}  # an earlier version did not say them: they are counted again
        for action_id, (amount, currency, ts, held) in (more[4] if len(more) > 4 else {}).items():
            side.dividends[action_id] = Dividend(Decimal(amount), currency, ts, splits.get(action_id, NOT_SAID),
                                                 Decimal(held))
        return side, {fill: exact_amounts(amounts) for fill, amounts in by_id.items()}


def exact_amounts(amounts: dict[str, float | str]) -> Amounts:
    """Return amounts as they were written: of a binary number the shortest decimal that it stands for."""
    return {currency: Decimal(str(amount)) for currency, amount in amounts.items()}


def add_amounts(to: Amounts, amounts: Amounts, sign: int = 1) -> None:
    """Add amounts by currency, or take them away; a sum that is nothing is no entry."""
    for currency, amount in amounts.items():
        total = EXACT.add(to.get(currency, ZERO), amount * sign)
        if total:
            to[currency] = total
        else:
            to.pop(currency, None)
