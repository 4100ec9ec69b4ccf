"""Statements under keys of their own: what was written under a key that others share is written again under its own.

`positions.external` was keyed by account once: of two statements of an account compaction left one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec
from aiokafka.structs import TopicPartition

from agents.ports import Publisher
from schemas.codec import decoder_of, encode, records_in
from schemas.keys import external_key
from schemas.records import External
from schemas.units import parse_ts_ns
from tables.kafka import KafkaClient, owner_partition
from tables.records import RecordBatch
from tables.restore import read_range
from tables.writer import PartitionWriter

log = logging.getLogger(__name__)
#: in a marker: the statements of its partition have keys of their own
DONE = "statement_keys"


@dataclass
class Found:
    """What a topic holds: the newest statement under each key of its own, and which keys others share."""

    newest: dict[bytes, tuple[tuple[int, int], External, bool]] = field(default_factory=dict)
    shared: dict[int, set[bytes]] = field(default_factory=dict)

    def take(self, partition: int, offset: int, key: bytes | None, value: bytes | None) -> None:
        """Take a message in, in the order of the log."""
        if value is None:
            self.shared.get(partition, set()).discard(key or b"")
            return
        try:
            records = [decoder_of(External).decode(raw) for raw in records_in(value)]
            at = [(parse_ts_ns(r.ts_event), offset) for r in records]
        except (msgspec.DecodeError, ValueError):
            return  # in quarantine: it states nothing
        for record, instant in zip(records, at, strict=True):
            own = external_key(record)
            if own != key:
                self.shared.setdefault(partition, set()).add(key or b"")
            if record.kind != "reload" and (own not in self.newest or self.newest[own][0] <= instant):
                self.newest[own] = (instant, record, own == key)

    def moves(self, partitions: int) -> list[tuple[bytes, bytes | None, int]]:
        """Return what is to be written, in order: statements under keys of their own, then shared keys withdrawn."""
        moved = [record for _, record, good in self.newest.values() if not good]
        return [(external_key(r), encode(r), owner_partition(r.account, partitions)) for r in moved] + [
            (key, None, p) for p, keys in self.shared.items() for key in sorted(keys - {b""})]


async def find_shared_keys(client: KafkaClient, topic: str, partitions: Iterable[int]) -> Found:
    """Return what some partitions of `positions.external` hold."""
    found = Found()

    def on_batch(batch: RecordBatch) -> None:
        for k, value in enumerate(batch.values):
            found.take(batch.partition, int(batch.offsets[k]), batch.keys[k], value)

    await read_range(client, {TopicPartition(topic, p): 0 for p in partitions}, on_batch)
    return found


async def give_own_keys(client: KafkaClient, publisher: Publisher, topic: str, partitions: int,
                        writers: Mapping[int, PartitionWriter]) -> None:
    """Write the statements of owned partitions again under keys of their own, once for each partition.

    What was folded is not folded twice: a statement that is known changes nothing.
    """
    todo = [p for p, writer in writers.items() if DONE not in writer.marker.extra]
    if not todo:
        return
    moves = (await find_shared_keys(client, topic, todo)).moves(partitions)
    for key, value, partition in moves:
        publisher.send(topic, key, value, partition)
    await publisher.flush()
    if moves:
        log.warning("%s: %d statements stood under keys that others share: they have keys of their own now", topic,
                    sum(value is not None for _, value, _ in moves))
    for p in todo:
        writers[p].marker.extra[DONE] = {}
