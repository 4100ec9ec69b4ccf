"""Decisions that a gate answered and was killed before the log had them: the next gate on its disk sends them."""

from __future__ import annotations

from collections.abc import Sequence

from aiokafka.structs import TopicPartition

from agents.ports import Publisher
from schemas.codec import decoder_of
from schemas.records import Decision
from tables.kafka import KafkaClient, owner_partition
from tables.records import RecordBatch
from tables.restore import offsets_at, read_range

#: clocks of those who decide and of those who write may differ by so much
MARGIN_MS = 3_600_000
_decision = decoder_of(Decision)


async def send_missing(client: KafkaClient, publisher: Publisher, topic: str, partitions: int,
                       kept: Sequence[bytes]) -> int:
    """Send what the log of decisions does not have, in the order it was kept in; return how many that were."""
    if not kept:
        return 0
    decisions = [_decision.decode(value) for value in kept]
    since_ms = min(d.ts_decision for d in decisions) // 1_000_000 - MARGIN_MS
    missing = dict.fromkeys(kept)

    def on_batch(batch: RecordBatch) -> None:
        for value in batch.values:
            missing.pop(value or b"", None)

    tps = [TopicPartition(topic, p) for p in range(partitions)]
    await read_range(client, await offsets_at(client, tps, since_ms), on_batch)
    for decision, value in zip(decisions, kept, strict=True):
        if value in missing:
            publisher.send(topic, decision.account.encode(), value, owner_partition(decision.account, partitions))
    await publisher.flush()
    return len(missing)
