"""Read topics once, to their present end, whole slices at a time: bulk restore, and what starts from a log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from aiokafka.structs import TopicPartition

from tables.kafka import KafkaClient
from tables.records import RecordBatch, fetch_slices

STALL_S = 60.0


@dataclass
class Restored:
    """One changelog partition, read: newest row of every key, where reading ended and where the partition did."""

    rows: dict[bytes, bytes | None] = field(default_factory=dict)
    position: int = 0
    records: int = 0
    end: int = 0


class RestoreStalled(RuntimeError):
    """No progress within the bound: the process has to start again."""


async def read_changelogs(client: KafkaClient, starts: dict[TopicPartition, int], stall_s: float = STALL_S,
                          ) -> dict[TopicPartition, Restored]:
    """Read each partition from its start offset to its present end; return the newest row of every key.

    Raises
    ------
    RestoreStalled
        If nothing arrives for ``stall_s`` seconds.
    """
    out = {tp: Restored(position=offset) for tp, offset in starts.items()}

    def on_batch(batch: RecordBatch) -> None:
        restored = out[TopicPartition(batch.topic, batch.partition)]
        restored.rows.update(zip(batch.keys, batch.values, strict=True))  # type: ignore[arg-type]
        restored.records += len(batch)

    for tp, (position, end) in (await read_range(client, starts, on_batch, stall_s)).items():
        out[tp].position, out[tp].end = position, end
    return out


async def read_range(client: KafkaClient, starts: dict[TopicPartition, int],
                     on_batch: Callable[[RecordBatch], None], stall_s: float = STALL_S,
                     before: Mapping[TopicPartition, int] | None = None) -> dict[TopicPartition, tuple[int, int]]:
    """Hand every slice of committed records to a callback; return how far each partition was read, and its end.

    Parameters
    ----------
    starts : where to begin; an offset that is no longer on the log begins at its earliest
    before : where to end, if that is not the present end; the last slice may have records behind it

    Raises
    ------
    RestoreStalled
        If nothing arrives for ``stall_s`` seconds.
    """
    if not starts:
        return {}
    consumer = client.consumer(check_crcs=False)
    await consumer.start()
    try:
        tps = list(starts)
        consumer.assign(tps)
        first = await consumer.beginning_offsets(tps)
        ends = await consumer.end_offsets(tps) if before is None else {tp: before[tp] for tp in tps}
        position = {tp: max(starts[tp], first[tp]) for tp in tps}
        for tp in tps:
            consumer.seek(tp, position[tp])
        progress = time.monotonic()
        while any(position[tp] < ends[tp] for tp in tps):
            for tp, batch in (await fetch_slices(consumer._fetcher, None, 1.0, with_keys=True)).items():
                if len(batch):
                    on_batch(batch)
                position[tp] = batch.next_offset
                progress = time.monotonic()
            if time.monotonic() - progress > stall_s:
                raise RestoreStalled(f"no record for {stall_s} s before {ends}")
            await asyncio.sleep(0)
        return {tp: (position[tp], ends[tp]) for tp in tps}
    finally:
        await consumer.stop()


async def ends_of(client: KafkaClient, tps: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """Return where partitions end now, for a reader of what is committed."""
    if not tps:  # the client would wait for ever
        return {}
    consumer = client.consumer()
    await consumer.start()
    try:
        consumer.assign(list(tps))
        return dict(await consumer.end_offsets(list(tps)))
    finally:
        await consumer.stop()


async def offsets_at(client: KafkaClient, tps: Sequence[TopicPartition], ts_ms: int) -> dict[TopicPartition, int]:
    """Return where the records since a time begin, for the partitions that have any."""
    consumer = client.consumer()
    await consumer.start()
    try:
        consumer.assign(list(tps))
        found = await consumer.offsets_for_times(dict.fromkeys(tps, max(0, ts_ms)))
        return {tp: at.offset for tp, at in found.items() if at is not None}
    finally:
        await consumer.stop()
