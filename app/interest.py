"""What bonds and bills held overnight have earned, booked when the next day begins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from models.fixed_income import FixedIncome, day_before
from models.market import Market
from models.reference import settlement_currency
from models.trading_day import TradingDay
from schemas.instrument_terms import PAPER_CLASSES
from schemas.records import Fee, Instrument, Position, Trade


@dataclass
class Interest:
    """Records to book, and the positions whose terms say too little."""

    booked: list[Trade] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def interest_until(at_ns: int, positions: Iterable[Position], instruments: dict[str, Instrument],
                   trading_day: TradingDay) -> Interest:
    """Return the interest of the days that end at ``at_ns``, as records of `trades` of their last nanosecond.

    It is that of what was held when a position's day began, up to and with the day before ``at_ns``: twice the same
    roll books nothing, and the same record twice counts once.
    """
    out, paper = Interest(), FixedIncome(Market("USD"))
    for known in instruments.values():
        if known.asset_class in PAPER_CLASSES:
            paper.add(known)
    until = day_before(trading_day.date_of(at_ns))
    for p in positions:
        record, held = instruments.get(p.instrument), float(p.opening_quantity)
        if record is None or record.asset_class not in PAPER_CLASSES or not held or p.opening_ts >= at_ns:
            continue
        since = day_before(trading_day.date_of(p.opening_ts))
        earned, _ = paper.interest(p.instrument, since, until)
        amount = held * float(record.multiplier * (record.quanto_rate or 1)) * earned
        if amount != amount:
            out.unknown.append(f"{p.account}|{p.instrument}")
        elif amount:
            out.booked.append(Trade(
                trade_id=f"interest|{p.account}|{p.instrument}|{until}", account=p.account, instrument=p.instrument,
                side="buy", quantity=Decimal(0), price=Decimal(0), ts_event=at_ns - 1, action="funding",
                fees=[Fee(amount=Decimal(repr(round(-amount, 10))), currency=settlement_currency(record))]))
    return out
