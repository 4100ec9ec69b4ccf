"""The border for the records of a topic: each one is decoded, handed to its handler, or refused, by itself.

What a handler raises for one record ends neither the stage nor the records beside it: that record is counted and
logged with the class and the text of what was raised, and put into quarantine where its reader has one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec
from aiokafka.errors import KafkaError

from agents.ports import Counters
from schemas.codec import JsonDecoder, decoder_of, records_in
from schemas.numbers import FiniteNumbers, time_fields
from schemas.reasons import QuarantineReason
from schemas.refusal import reason_of
from schemas.units import FUTURE_NS, NS_PER_MS, TS_END, latest_of, parse_ts_ns
from tables.records import RecordBatch

log = logging.getLogger(__name__)
R = TypeVar("R", bound=msgspec.Struct)
#: sends a refused record to quarantine: slice, position in it, reason, detail, bytes
PutAside = Callable[[RecordBatch, int, QuarantineReason, str, bytes], object]
#: fields that say when a record happened; others may lie ahead
HAPPENED = ("ts_event", "ts")
_REFUSED = "%s %s@%s (key %r) refused: %s: %s"
#: lies outside the record: the process ends, and reads the record again
OUTSIDE = (KafkaError, OSError, MemoryError)


class Place(NamedTuple):
    """Where a record was read: the name of its topic in the contract, and its key (empty: none, or not kept)."""

    topic: str
    partition: int
    offset: int
    key: str
    #: the latest time that a record may carry here
    latest_ns: int = TS_END - 1
    #: of the record on the log
    ts_ns: int = 0


class _Subscription(NamedTuple):
    record: type[msgspec.Struct] | None
    decoder: JsonDecoder[Any] | None
    handler: Callable[[Any, Place], object]
    tombstone: Callable[[Place], object] | None
    #: fields that say when the record happened
    dated: tuple[str, ...]
    #: a message may be a JSON array of records
    many: bool


class Router:
    """Hands the records of some topics to their handlers, and counts each refusal once.

    Parameters
    ----------
    names : name of a topic in the contract by its name on the broker
    counter : counts refused records, by topic
    put_aside : sends a refused record to quarantine; None: it is logged and counted alone
    future_ns : how far ahead of its time in the log a record may be dated
    """

    def __init__(self, names: Mapping[str, str], counters: Counters, counter: str,
                 put_aside: PutAside | None = None, future_ns: int = FUTURE_NS) -> None:
        self._future_ns = future_ns
        self._names, self._counters, self._counter, self._put_aside = names, counters, counter, put_aside
        self._subscriptions: dict[str, _Subscription] = {}

    def subscribe(self, topic: str, record: type[R] | None, handler: Callable[[Any, Place], object],
                  tombstone: Callable[[Place], object] | None = None, many: bool = False) -> None:
        """Hand each record of a topic to ``handler``, and each withdrawal (a key without a value) to ``tombstone``.

        Parameters
        ----------
        record : what the values are; None: the handler takes the bytes and decodes what it needs of them
        many : a message may be a JSON array of records; each of them is taken or refused by itself
        """
        dated = () if record is None or not issubclass(record, FiniteNumbers) else time_fields(record)
        self._subscriptions[topic] = _Subscription(
            record, None if record is None else decoder_of(record), handler, tombstone,
            tuple(name for name in dated if name in HAPPENED), many)

    def __call__(self, batch: RecordBatch) -> None:
        """Hand a slice on, record by record, in order."""
        topic = self._names[batch.topic]
        latest = latest_of(batch.timestamps_ms, self._future_ns).tolist()
        for k, value in enumerate(batch.values):
            key = batch.keys[k] if batch.keys else None
            place = Place(topic, batch.partition, int(batch.offsets[k]), (key or b"").decode(errors="replace"),
                          latest[k], int(batch.timestamps_ms[k]) * NS_PER_MS)
            refused = self.hand_on(value, place)
            if refused is not None and self._put_aside is not None:
                self._put_aside(batch, k, *refused, value or b"")

    def hand_on(self, value: bytes | None, place: Place) -> tuple[QuarantineReason, str] | None:
        """Hand one message on; return why it was refused, if it was (the first refusal, where it has many records)."""
        wanted = self._subscriptions[place.topic]
        if value is None or not wanted.many:
            return self._hand_on(wanted, value, place)
        try:
            raws = records_in(value)
        except ValueError as error:
            log.error(_REFUSED, *place[:4], type(error).__name__, error)
            return self._refused(error, value, wanted, place)
        refused = [found for raw in raws if (found := self._hand_on(wanted, raw, place)) is not None]
        return refused[0] if refused else None

    def _hand_on(self, wanted: _Subscription, value: bytes | None, place: Place) -> tuple[QuarantineReason, str] | None:
        try:
            if value is not None:
                record = value if wanted.decoder is None else wanted.decoder.decode(value)
                for name in wanted.dated:
                    parse_ts_ns(getattr(record, name), name, place.latest_ns)
                wanted.handler(record, place)
            elif wanted.tombstone is not None:
                wanted.tombstone(place)
        except OUTSIDE:
            raise
        except Exception as error:
            log.error(_REFUSED, *place[:4], type(error).__name__, error,
                      exc_info=not isinstance(error, msgspec.DecodeError | ValueError))
            return self._refused(error, value or b"", wanted, place)
        return None

    def _refused(self, error: Exception, value: bytes, wanted: _Subscription, place: Place,
                 ) -> tuple[QuarantineReason, str]:
        self._counters.add(self._counter, topic=place.topic)
        return reason_of(error, value, wanted.record)
