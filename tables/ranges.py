"""Read a stretch of topics once, in order: from given offsets to where they end now."""

from __future__ import annotations

from collections.abc import Callable

from aiokafka.structs import TopicPartition

from tables.kafka import KafkaClient
from tables.records import RecordBatch, fetch_slices


async def read_range(client: KafkaClient, starts: dict[TopicPartition, int],
                     on_batch: Callable[[RecordBatch], None]) -> dict[TopicPartition, int]:
    """Hand every slice to a callback; return where each partition was read to.

    Parameters
    ----------
    starts : where to begin; an offset that is no longer on the log begins at its earliest
    """
    if not starts:
        return {}
    consumer = client.consumer(isolation_level="read_committed")
    await consumer.start()
    try:
        tps = list(starts)
        consumer.assign(tps)
        first = await consumer.beginning_offsets(tps)
        ends = await consumer.end_offsets(tps)
        position = {tp: max(starts[tp], first[tp]) for tp in tps}
        for tp in tps:
            consumer.seek(tp, position[tp])
        while any(position[tp] < ends[tp] for tp in tps):
            for tp, batch in (await fetch_slices(consumer._fetcher, None, 0.5, True)).items():
                if len(batch):
                    on_batch(batch)
                position[tp] = batch.next_offset
        return position
    finally:
        await consumer.stop()
