"""Statements under keys of their own: what was written under a key that others share is written again under its own.

`positions.external` was keyed by account once: of two statements of an account compaction left one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
from aiokafka.structs import TopicPartition

from app.settings import Settings
from schemas.codec import decoder_of, encode, records_in
from schemas.keys import external_key
from schemas.records import External
from schemas.units import parse_ts_ns
from tables.kafka import owner_partition
from tables.records import RecordBatch
from tables.restore import read_range


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


async def find_shared_keys(settings: Settings) -> Found:
    """Return what `positions.external` holds."""
    topic, found = settings.topics()["positions.external"], Found()

    def on_batch(batch: RecordBatch) -> None:
        for k, value in enumerate(batch.values):
            found.take(batch.partition, int(batch.offsets[k]), batch.keys[k], value)

    await read_range(settings.client(), {TopicPartition(topic, p): 0 for p in range(settings.partitions)}, on_batch)
    return found


async def rekey_statements(settings: Settings) -> int:
    """Write statements that are under shared keys again, then withdraw those keys; return how many were written.

    It may be run at any time, and again: whoever folds a statement twice folds it once.
    """
    found = await find_shared_keys(settings)
    moved = [record for _, record, good in found.newest.values() if not good]
    if not moved and not any(found.shared.values()):
        return 0
    topic = settings.topics()["positions.external"]
    producer = settings.client().producer(enable_idempotence=True)
    await producer.start()
    try:
        for record in moved:
            await producer.send_and_wait(topic, encode(record), external_key(record),
                                         owner_partition(record.account, settings.partitions))
        for partition, keys in found.shared.items():
            for key in sorted(keys - {b""}):
                await producer.send_and_wait(topic, None, key, partition)
    finally:
        await producer.stop()
    return len(moved)
