"""A topic is compacted now: what is left of it is the newest record of every key."""

from __future__ import annotations

import asyncio
import time

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.structs import TopicPartition

from app.rehearse.live import Live
from schemas.topics import TOPICS
from tables.records import RecordBatch
from tables.restore import read_range

COMPACTED_S = 40.0
#: a segment that is older than this is closed by the next record, and a closed one may be cleaned
CLOSES = {"segment.ms": "50", "min.cleanable.dirty.ratio": "0.0", "min.compaction.lag.ms": "0",
          "max.compaction.lag.ms": "100", "delete.retention.ms": "86400000"}
ROLL_KEY = b"rehearsal-closes-the-segment"


class CannotCompact(RuntimeError):
    """This broker does not compact, or the topic is not compacted."""


async def compact(live: Live, topic: str) -> None:
    """Have a topic compacted; returns once only the newest record of each key is left.

    Raises
    ------
    CannotCompact
        With why not.
    """
    declared = next((t for t in TOPICS if t.name == topic), None)
    if declared is None or not declared.compact:
        raise CannotCompact(f"{topic} is not a compacted topic")
    if live.is_embedded:
        raise CannotCompact("the embedded broker does not compact")
    settings = live.installation.settings
    name, count = live.topics[topic], settings.partitions if declared.partitions == "data" else 1
    admin = settings.client().admin()
    await admin.start()
    try:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=CLOSES | {
            "cleanup.policy": "compact"})])
        deadline = time.monotonic() + COMPACTED_S
        while True:
            for p in range(count):  # a record of nothing: it closes the segment before it
                await live.publish(topic, ROLL_KEY, None, p)
            await asyncio.sleep(1.0)
            if await _is_compact(live, name, count):
                break
            if time.monotonic() > deadline:
                raise CannotCompact(f"{topic} was not compacted within {COMPACTED_S:.0f} s")
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name,
                                                  configs=declared.broker_config(settings.horizon_ms, 1))])
    finally:
        await admin.close()


async def _is_compact(live: Live, name: str, count: int) -> bool:
    seen: dict[tuple[int, bytes | None], int] = {}

    def on_batch(batch: RecordBatch) -> None:
        for key in batch.keys:
            if key != ROLL_KEY:
                seen[batch.partition, key] = seen.get((batch.partition, key), 0) + 1
    await read_range(live.installation.settings.client(), {TopicPartition(name, p): 0 for p in range(count)}, on_batch)
    return all(n == 1 for n in seen.values())
