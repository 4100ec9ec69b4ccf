"""The start-of-day roll: closing prices are frozen, and what every position came to by then becomes its opening.

What bonds and bills have earned since their day began is booked first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from aiokafka.structs import TopicPartition

from app.interest import interest_until
from app.offline import Offline
from app.recovery import Refused, audit
from app.reference_files import publish_reference
from app.settings import Settings
from schemas.codec import encode
from schemas.keys import external_key
from schemas.numbers import check_decimal
from schemas.records import External, Instrument, Mark, Trade
from schemas.statements import EVERY_INSTRUMENT
from schemas.units import NS_PER_S, format_ts_ns, parse_ts_ns
from tables.kafka import owner_partition
from tables.restore import read_range

log = logging.getLogger(__name__)
_ONE = ("reference.instruments", "reference.accounts")
_MANY = ("marks", "positions.external", "positions")
#: the latest marks are the closing ones only for so long after the day began
CLOSES_FRESH_S = 60
RETRY_S = 5.0


class _Read:
    """What a roll needs to know: the newest record of everything."""

    def __init__(self, settings: Settings) -> None:
        self._found = found = Offline(settings).follow(*_ONE, *_MANY)
        self.take = found.router
        self.marks, self.positions, self.refused = found.marks, found.positions, found.refused
        self.instruments = found.reference.instrument_records
        self.accounts = found.reference.account_records

    @property
    def rolled(self) -> dict[str, int]:
        """When the newest day of each account began."""
        out: dict[str, int] = {}
        for s in self._found.statements:
            if s.kind == "roll":
                out[s.account] = max(out.get(s.account, 0), parse_ts_ns(s.ts_event))
        return out

    async def read(self, settings: Settings) -> None:
        topics = settings.topics()
        await read_range(settings.client(), {TopicPartition(topics[t], 0): 0 for t in _ONE} | {
            TopicPartition(topics[t], p): 0 for t in _MANY for p in range(settings.partitions)}, self.take)


def close_of(mark: Mark | None) -> Decimal | None:
    """Return the closing price a mark gives: its mid, else its last; None where it has no good price."""
    price = None if mark is None or mark.quality == "none" else mark.mid if mark.mid is not None else mark.last
    if price is None:
        return None
    close = Decimal(repr(price))
    try:
        check_decimal(close, "prior_close")
    except ValueError as error:
        log.error("the mark of %s is no close: %s", mark.instrument if mark else "", error)
        return None
    return close


def with_closes(instruments: Mapping[str, Instrument], priced: Mapping[str, Decimal], day: date) -> list[Instrument]:
    """Return the instruments whose latest mark is frozen as the close of a day."""
    return [msgspec.structs.replace(i, prior_close=priced[name], prior_close_date=day.isoformat())
            for name, i in instruments.items() if name in priced]


def with_dates(instruments: Mapping[str, Instrument], day: date) -> list[Instrument]:
    """Return the instruments whose close has no date yet, as closes of a day: they are used for no later opening."""
    return [msgspec.structs.replace(i, prior_close_date=day.isoformat()) for i in instruments.values()
            if i.prior_close is not None and i.prior_close_date is None]


async def roll(settings: Settings, at_ns: int, closes: bool, by: str, reason: str,
               missed: bool = False) -> dict[str, Any]:
    """Begin a day at ``at_ns`` for all accounts; return what was rolled.

    All at once: an instrument has one prior close.

    Parameters
    ----------
    closes : freeze the latest marks as the prior closes; else those of the reference data are taken as they are
    missed : nobody loaded closes for this opening: what has no date is of the day before the last opening there was

    Raises
    ------
    Refused
        The time is in the future, or the marks are no longer those of that time.
    """
    now = time.time_ns()
    if at_ns > now:
        raise Refused(f"--at: expected a time in the past, was {format_ts_ns(at_ns)}")
    if closes and now - at_ns > CLOSES_FRESH_S * NS_PER_S:
        raise Refused(f"--at: the marks of {format_ts_ns(at_ns)} are gone ({CLOSES_FRESH_S} s are allowed): load "
                      "closes with the reference data (prior_close) and roll with --no-closes")
    found = _Read(settings)
    await found.read(settings)
    priced = {name: close for name, m in found.marks.items() if (close := close_of(m)) is not None}
    day = settings.trading_day()
    changed, dated = [], []
    if closes:
        changed = with_closes(found.instruments, priced, day.date_of(at_ns) - timedelta(days=1))
    elif missed and found.rolled:
        dated = with_dates(found.instruments, day.date_of(max(found.rolled.values())) - timedelta(days=1))
    missing = sorted(set(found.instruments) - set(priced)) if closes else []
    await publish_reference(settings.client(), settings.topics(), [*changed, *dated], [])
    interest = interest_until(at_ns, found.positions.values(), found.instruments, day)
    await _publish(settings, list(found.accounts), interest.booked, at_ns, by)
    await audit(settings, "roll", by, f"day begins {format_ts_ns(at_ns)}: {reason}; {len(found.accounts)} accounts, "
                                      f"{len(changed)} closes, {len(missing)} instruments without a price, "
                                      f"{len(interest.booked)} bookings of interest")
    return {"at": format_ts_ns(at_ns), "accounts": len(found.accounts), "closes": len(changed),
            "without_close": missing, "interest": len(interest.booked), "without_interest": interest.unknown}


async def _publish(settings: Settings, accounts: list[str], interest: list[Trade], at_ns: int, by: str) -> None:
    producer = settings.client().producer(linger_ms=5, enable_idempotence=True)
    await producer.start()
    try:
        sent = []
        for trade in interest:
            sent.append(await producer.send(settings.topics()["trades"], encode(trade), trade.account.encode(),
                                            owner_partition(trade.account, settings.partitions)))
        for future in sent:  # before the day begins: a position that is rolled has it in its opening at once
            await future
        sent = []
        for account in accounts:
            record = External(source=by, account=account, instrument=EVERY_INSTRUMENT, quantity=Decimal(0),
                              ts_event=at_ns, kind="roll")
            sent.append(await producer.send(settings.topics()["positions.external"], encode(record),
                                            external_key(record),
                                            owner_partition(account, settings.partitions)))
        for future in sent:
            await future
    finally:
        await producer.stop()


async def roll_daily(settings: Settings, by: str) -> None:
    """Roll at the beginning of every trading day; one that was missed is rolled late, without its closes."""
    day = settings.trading_day()
    found = _Read(settings)
    await found.read(settings)
    begin = day.begin_ns(time.time_ns())
    print("READY roll", flush=True)
    if found.rolled and max(found.rolled.values()) < begin:
        await _roll_until_done(settings, begin, by)
    while True:
        begin = day.end_ns(time.time_ns())
        while (left := (begin - time.time_ns()) / NS_PER_S) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left, 60.0))  # a wall clock that is set meanwhile is followed
        await _roll_until_done(settings, begin, by)


async def _roll_until_done(settings: Settings, begin: int, by: str) -> None:
    while True:
        closes = time.time_ns() - begin <= CLOSES_FRESH_S * NS_PER_S
        try:
            report = await roll(settings, begin, closes, by, "daily" if closes else "late: closes as they were loaded",
                                missed=not closes)
        except (OSError, TimeoutError, RuntimeError, ValueError):
            log.exception("the roll failed; again in %.0f s", RETRY_S)
            await asyncio.sleep(RETRY_S)
            continue
        log.info("rolled %d accounts, %d closes", report["accounts"], report["closes"])
        return
