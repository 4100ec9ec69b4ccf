"""Bulk restore: read changelog partitions to their end, whole slices at a time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from aiokafka.structs import TopicPartition

from tables.kafka import KafkaClient
from tables.records import fetch_slices


@dataclass
class Restored:
    """One changelog partition, read: newest row of every key, where reading ended and where the partition did."""

    rows: dict[bytes, bytes | None] = field(default_factory=dict)
    position: int = 0
    records: int = 0
    end: int = 0


class RestoreStalled(RuntimeError):
    """No progress within the bound: the process has to start again."""


async def read_changelogs(client: KafkaClient, starts: dict[TopicPartition, int], stall_s: float = 60.0,
                          ) -> dict[TopicPartition, Restored]:
    """Read each partition from its start offset to its present end (committed records only).

    Raises
    ------
    RestoreStalled
        If nothing arrives for ``stall_s`` seconds.
    """
    out = {tp: Restored(position=offset) for tp, offset in starts.items()}
    if not out:
        return out
    consumer = client.consumer(check_crcs=False)
    await consumer.start()
    try:
        consumer.assign(list(starts))
        first = await consumer.beginning_offsets(list(starts))
        for tp, offset in starts.items():
            out[tp].position = max(offset, first[tp])
            consumer.seek(tp, out[tp].position)
        ends = await consumer.end_offsets(list(starts))
        for tp, end in ends.items():
            out[tp].end = end
        progress = time.monotonic()
        while any(out[tp].position < end for tp, end in ends.items()):
            slices = await fetch_slices(consumer._fetcher, None, 1.0, with_keys=True)
            for tp, batch in slices.items():
                restored = out[tp]
                restored.rows.update(zip(batch.keys, batch.values, strict=True))  # type: ignore[arg-type]
                restored.records += len(batch)
                restored.position = batch.next_offset
                progress = time.monotonic()
            if time.monotonic() - progress > stall_s:
                raise RestoreStalled(f"no changelog record for {stall_s} s at {ends}")
            await asyncio.sleep(0)
        return out
    finally:
        await consumer.stop()
