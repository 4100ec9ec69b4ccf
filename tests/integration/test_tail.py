"""Following topics without a group, on the deciding broker: what is followed changes while records come, none is lost or comes twice."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from aiokafka.structs import TopicPartition

from tables.records import RecordBatch
from tables.restore import ends_of
from tables.tail import Tail
from tests.integration.harness import Installation

pytestmark = pytest.mark.kafka


def test_partitions_come_and_go_while_records_come_and_each_is_taken_once(made: Installation) -> None:
    s, count = made.settings, 3_000
    trades = [TopicPartition(s.topics()["trades"], p) for p in range(4)]
    own = TopicPartition(s.topics()["controls"], 0)
    found: Counter[tuple[str, int, bytes]] = Counter()
    after = dict.fromkeys(trades, 0)

    def on_batch(batch: RecordBatch) -> None:
        found.update((batch.topic, batch.partition, bytes(v)) for v in batch.values if v is not None)
        if batch.topic == trades[0].topic:
            after[TopicPartition(batch.topic, batch.partition)] = batch.next_offset

    async def scenario() -> None:
        await made.create()
        client = s.client()
        tail = Tail(client, [own.topic], on_batch, wait_ms=20, pace_s=0.0, without_keys=(trades[0].topic,), every_s={trades[0].topic: 0.005})
        await tail.start()
        await tail.read_to_end()
        following = asyncio.create_task(tail.run())
        producer = client.producer(linger_ms=0)
        await producer.start()

        async def send() -> None:
            for k in range(count):
                for topic, partition in (trades[k % 4], own) if k % 10 == 0 else (trades[k % 4],):
                    await producer.send(topic, b"%d" % k, b"%d" % k, partition)
                if k % 20 == 0:
                    await asyncio.sleep(0.002)

        sending, turn = asyncio.create_task(send()), 0
        while not sending.done():
            turn += 1
            tail.also({tp: after[tp] for tp in trades if (tp.partition + turn) % 3})
            await asyncio.sleep(0.013)
        await producer.stop()
        tail.also(after)
        assert await tail.wait_until(await tail.ends(), 30)
        following.cancel()
        await tail.stop()
        assert turn > 5

    asyncio.run(scenario())
    assert set(found.values()) == {1}
    assert len(found) == count + count // 10


def test_the_ends_of_no_partitions_are_known_at_once(made: Installation) -> None:
    assert asyncio.run(asyncio.wait_for(ends_of(made.settings.client(), []), 30)) == {}
