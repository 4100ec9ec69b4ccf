"""Corporate actions that come into force: positions are restated, what rests on them once, and it is told.

Every owner of positions restates its own. The owner of partition 0 keeps each action under a key of its own, has limits
on quantities and the prior close follow, says so on `alerts`, and notes on the action that it did. It also writes
reference data once more that a refused record would displace.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from decimal import Decimal

import msgspec
from aiokafka.structs import TopicPartition

from agents.ports import Clock, Publisher
from agents.reference_tail import ReferenceTail
from models.corporate_actions import effective_ns
from models.limit_door import judged
from models.reference import FIRM
from schemas.codec import decoder_of, encode
from schemas.corporate import CorporateAction
from schemas.keys import action_key
from schemas.records import Alert, Instrument, Limit
from schemas.units import NS_PER_MS, format_ts_ns
from tables.kafka import KafkaClient
from tables.position_partition import PositionPartition
from tables.records import RecordBatch
from tables.restore import read_range
from tables.tasks import process

log = logging.getLogger(__name__)
#: limits that count units of an instrument, and how they name it
_ON_POSITIONS, _ON_ORDERS = frozenset({"position_long", "position_short"}), "order_quantity"
BY = "corporate.actions"
_limit = decoder_of(Limit)


class ActionFollower:
    """Lets corporate actions come into force, and has the rest follow.

    Parameters
    ----------
    parts : the owned partitions, as they come and go
    restate : restates all owned positions by the reference data
    """

    def __init__(self, reference: ReferenceTail, parts: Mapping[int, PositionPartition], client: KafkaClient,
                 topics: Mapping[str, str], publisher: Publisher, clock: Clock, restate: Callable[[], None]) -> None:
        self._reference, self._parts, self._client, self._topics = reference.reference, parts, client, topics
        self._tail = reference
        self._publisher, self._clock, self._restate = publisher, clock, restate
        self._following: set[tuple[str, str]] = set()
        self._heard = False
        reference.on_action = self._hear
        self._reference.turn(clock())

    def turn(self) -> None:
        """Let what is due come into force, and have what a refused record displaced written once more."""
        self._write_again()
        if self._reference.turn(self._clock()):
            self._came()

    def _write_again(self) -> None:
        if 0 in self._parts:
            self._tail.displaced.write(self._publisher, self._topics)

    def take_over(self) -> None:
        """Have what is in force followed, where nobody did."""
        if 0 not in self._parts:
            return
        for name in self._reference.actions.names():
            for record in self._reference.actions.in_force(name):
                key = (name, record.action_id)
                if record.followed_ts is None and key not in self._following:
                    self._following.add(key)
                    process.errand("corporate action", lambda record=record: self._follow(record))  # type: ignore[misc]

    def closes(self, record: Instrument) -> None:
        """Publish an instrument again where its prior close is of before a split."""
        restated = self._reference.actions.close_of(record) if 0 in self._parts else None
        if restated is not None:
            self._publisher.send(self._topics["reference.instruments"], record.instrument.encode(), encode(restated))

    def _hear(self) -> None:
        self._heard = True

    def read(self) -> None:
        """Let what was heard since the last call come into force."""
        if not self._heard:
            return
        self._heard = False
        self._write_again()  # under its own key, before that it was followed
        self._reference.turn(self._clock())
        self._came()

    def _came(self) -> None:
        self._restate()
        self.take_over()

    async def _follow(self, record: CorporateAction) -> None:
        name, limits = record.instrument, 0
        if record.ratio is not None:
            limits = await self._restate_limits(record, record.ratio)
            instrument = self._reference.instrument_records.get(name)
            if instrument is not None:
                self.closes(instrument)
        self._tell(record, limits)
        done = msgspec.structs.replace(record, followed_ts=self._clock())
        await self._publisher.flush()
        self._publisher.send(self._topics["corporate.actions"], action_key(record), encode(done))

    async def _restate_limits(self, record: CorporateAction, ratio: Decimal) -> int:
        """Write limits that count units of the instrument again, times the ratio; return how many."""
        reason = f"split {ratio:f} of {record.instrument} ({record.action_id})"
        found = list[tuple[str, Limit | None, int]]()

        def take(batch: RecordBatch) -> None:
            for key, value, ms in zip(batch.keys, batch.values, batch.timestamps_ms.tolist(), strict=True):
                try:
                    limit = None if value is None else _limit.decode(value)
                except ValueError:  # its readers have put it aside
                    continue
                name = (key or b"").decode(errors="replace") if limit is None else limit.limit_id
                found.append((name, limit, ms * NS_PER_MS))

        topic = self._topics["limits"]
        await read_range(self._client, {TopicPartition(topic, 0): 0}, take)
        count = 0
        for limit in judged(found).values():  # as its other readers judge them; none of these is on a level of the tree
            counts = (limit.metric in _ON_POSITIONS and limit.instrument == record.instrument) or (
                limit.metric == _ON_ORDERS and limit.node == f"instrument:{record.instrument}")
            if counts and (limit.by, limit.reason) != (BY, reason):
                restated = msgspec.structs.replace(limit, limit=limit.limit * ratio, version=limit.version + 1, by=BY,
                                                   reason=reason)
                self._publisher.send(topic, limit.limit_id.encode(), encode(restated))
                count += 1
        return count

    def _tell(self, record: CorporateAction, limits: int) -> None:
        since = format_ts_ns(effective_ns(record))
        if record.ratio is not None:
            text = (f"{record.ratio:f} units for one of {record.instrument} from {since} on: positions and marks are "
                    f"restated, and {limits} limits on quantities and the prior close; orders that work are left as "
                    "they are, in units of before: cancel and send anew what its venue did not restate")
        else:
            text = f"{record.amount:f} {record.currency} a unit of {record.instrument} held at {since}: shown in carry"
        log.warning("%s %s: %s", record.kind, record.action_id, text)
        now = self._clock()
        alert = Alert(alert_id=f"action.{record.instrument}.{record.action_id}", kind="corporate_action", node=FIRM,
                      metric=f"{record.instrument} {record.kind}", value=float(record.ratio or record.amount or 0),
                      limit=None, utilisation=None, cause_ts=effective_ns(record), raised_ts=now, snapshot_id=0,
                      limit_id=f"action.{record.instrument}.{record.action_id}", note=text)
        self._publisher.send(self._topics["alerts"], FIRM.encode(), encode(alert))
