"""What a position has beside its columns, as the tail of its packed row."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal

from models.trade_decode import EXACT

Amounts = dict[str, Decimal]
ZERO = Decimal(0)


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

    def pack(self) -> bytes:
        """Return the tail of a packed row."""
        rounded = [{c: float(a) for c, a in kept.items()} for kept in (self.fees, self.opening_fees)]
        exact = [{c: str(a) for c, a in kept.items()} for kept in (self.fees, self.opening_fees)]
        return json.dumps([rounded[0], {}, self.openings, rounded[1], {}, *exact]).encode()

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
