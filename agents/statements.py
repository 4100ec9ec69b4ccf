"""Positions as outside sources state them, taken in by the owner of their accounts."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any

from agents.displaced_statements import DisplacedStatements
from agents.held_terms import HeldTerms
from agents.ports import Clock, Counters, Publisher
from agents.quarantine import Quarantine
from agents.reference_tail import ReferenceTail
from agents.router import OUTSIDE
from schemas.codec import decoder_of, encode, records_in
from schemas.keys import external_key
from schemas.records import External
from schemas.refusal import reason_of
from schemas.units import latest_of, parse_ts_ns
from tables.kafka import KafkaClient, owner_partition
from tables.position_partition import PositionPartition
from tables.records import RecordBatch
from tables.refold import open_from

log = logging.getLogger(__name__)
_external = decoder_of(External)


class Statements:
    """Takes statements in, and keeps each under a key of its own.

    Parameters
    ----------
    topic : `positions.external`
    partitions : of it, and of `trades`
    parts : the owned partitions, as they come and go
    fold_again : has one account and instrument of a partition folded again from the log
    """

    def __init__(self, client: KafkaClient, topic: str, partitions: int, parts: Mapping[int, PositionPartition],
                 reference: ReferenceTail, terms: HeldTerms, publisher: Publisher, quarantine: Quarantine, clock: Clock,
                 counters: Counters, future_ns: int,
                 fold_again: Callable[[PositionPartition, str, str, dict[str, int]], None]) -> None:
        self._topic, self._partitions, self._parts = topic, partitions, parts
        self._reference, self._terms, self._fold_again = reference, terms, fold_again
        self._publisher, self._quarantine, self._clock, self._counters = publisher, quarantine, clock, counters
        self._future_ns = future_ns
        self.displaced = DisplacedStatements(client, publisher, topic, self._holds_to, future_ns)

    async def take(self, batch: RecordBatch, part: PositionPartition, sends: list[Awaitable[Any]]) -> None:
        """Take a slice in; only start-of-day statements change positions (snapshots are for reconciliation).

        Parameters
        ----------
        sends : what is under way to quarantine, for who waits for it
        """
        for m, value in enumerate(batch.values):
            if value is not None and not await self._take(batch, m, value, part, sends) and batch.keys:
                self.displaced.refused(batch.partition, batch.keys[m] or b"")

    async def _take(self, batch: RecordBatch, m: int, value: bytes, part: PositionPartition,
                    sends: list[Awaitable[Any]]) -> bool:
        """Take a message in; return whether what its key is of was in it, and stands."""
        own = set[bytes | None]()
        try:
            raws = records_in(value)
        except ValueError as error:
            sends.append(self._quarantine.send(batch, m, *reason_of(error, value, None), value))
            return False
        for k, raw in enumerate(raws):
            try:
                own.add(await self._take_one(_external.decode(raw), part, batch, m))
            except OUTSIDE:
                raise
            except Exception as error:
                log.error("%s %s@%s refused: %s: %s", batch.topic, batch.partition, int(batch.offsets[m]),
                          type(error).__name__, error, exc_info=not isinstance(error, ValueError))
                sends.append(self._quarantine.send(batch, m, *reason_of(error, raw, External), raw, k))
        return bool(batch.keys) and batch.keys[m] in own

    async def _take_one(self, statement: External, part: PositionPartition, batch: RecordBatch, m: int) -> bytes | None:
        """Take a statement in; return its own key, or None where a newer one of it stands."""
        reference = self._reference.reference
        latest = int(latest_of(batch.timestamps_ms[m : m + 1], self._future_ns, self._clock())[0])
        ts = parse_ts_ns(statement.ts_event, latest_ns=latest)  # also of a snapshot, which is read elsewhere
        rolls = statement.kind == "roll"
        if statement.account not in reference.account_records \
                or (not rolls and statement.instrument not in reference.instrument_records):
            await self._reference.catch_up()
        if statement.account not in reference.account_records:
            raise ValueError(f"account: expected a known account, was {statement.account!r}")
        if not rolls and statement.instrument not in reference.instrument_records:
            raise ValueError(f"instrument: expected a known instrument, was {statement.instrument!r}")
        owner, own = owner_partition(statement.account, self._partitions), external_key(statement)
        if owner != part.partition:
            await self._publisher.send(self._topic, own, encode(statement), partition=owner)
            self._counters.add("rerouted")
            return own
        if statement.kind == "start_of_day":
            self._open(statement, part, int(batch.timestamps_ms[m]))
            if not self._holds_to(part.partition, statement, ts):
                return None
        elif rolls:
            self._counters.add("rolls", float(part.roll(statement.account, ts)))
        elif statement.kind == "reload":
            self._fold_again(part, statement.account, statement.instrument, {batch.topic: batch.next_offset})
            return own
        if batch.keys and batch.keys[m] != own:
            # under a key that others share it would be gone after compaction: it is kept under its own
            await self._publisher.send(self._topic, own, encode(statement), partition=owner)
            self._counters.add("statements_rekeyed")
        else:
            self.displaced.came(part.partition, own, ts)
        return own

    def _open(self, statement: External, part: PositionPartition, ms: int) -> None:
        """Let a position begin with what a source states; ``ms``: when that came to its log."""
        reference = self._reference.reference
        self._terms.follow(part)
        slot = part.find_slot(*reference.intern_key(statement.account, statement.instrument))
        decimals = (reference.decimals_of(statement.instrument) if slot < 0
                    else int(part.positions.arrays.rows["quantity_decimals"][slot]))
        open_from(part, statement, decimals, ms, self._clock())

    def _holds_to(self, partition: int, statement: External, ts_ns: int) -> bool:
        """Whether a statement is one that stands: of a start of day, what the position begins with."""
        part, reference = self._parts.get(partition), self._reference.reference
        if part is None or statement.kind == "reload" or statement.account not in reference.account_records \
                or owner_partition(statement.account, self._partitions) != partition:
            return False
        if statement.kind == "start_of_day":
            return opening_of(part, statement.account, statement.instrument, statement.source) == (
                statement.quantity, ts_ns)
        return statement.kind == "roll" or statement.instrument in reference.instrument_records

    async def stop(self) -> None:
        """Look for nothing any more."""
        await self.displaced.stop()


def opening_of(part: PositionPartition, account: str, instrument: str, source: str) -> tuple[Decimal, int] | None:
    """Return what a source states that a position begins with: the quantity, and the time it is of."""
    slot = part.find_slot(*part.reference.intern_key(account, instrument))
    stated = part.side[slot].openings.get(source) if slot in part.side else None
    if stated is None:
        return None
    return Decimal(stated[0]).scaleb(-int(part.positions.arrays.rows["quantity_decimals"][slot])), stated[2]
