"""Whether a source topic still is the log that a table was folded from: made anew, cut or expired, it is not."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from tables.kafka import KafkaClient


class SourceLogBroken(RuntimeError):
    """Going on would leave records out: those below what is included on a new log, or those that expired unread."""


class SourceLog:
    """Compares what a table includes with what its source partitions hold.

    A reader of an offset that is not on the log is silently set to its beginning by Kafka's clients: records of a log
    made anew would be taken for redelivered ones and dropped, records deleted before they were read would be missing.
    """

    def __init__(self, client: KafkaClient) -> None:
        self._client = client
        self._consumer: AIOKafkaConsumer | None = None

    async def ranges(self, tps: list[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """Return the first offset and the end of each partition."""
        if self._consumer is None:
            consumer = self._client.consumer()
            await consumer.start()
            self._consumer = consumer
        first, ends = await self._consumer.beginning_offsets(tps), await self._consumer.end_offsets(tps)
        return {tp: (first[tp], ends[tp]) for tp in tps}

    async def check(self, included: dict[TopicPartition, int]) -> None:
        """Compare the offsets up to which partitions are included with their logs.

        Raises
        ------
        SourceLogBroken
            A log ends before what is included of it, or begins after.
        """
        wrong = [text for tp, (first, end) in (await self.ranges(list(included))).items()
                 if (text := broken(tp, included[tp], first, end))]
        if wrong:
            raise SourceLogBroken("; ".join(wrong) + "; bring the log back from a backup, or accept the loss with "
                                  "`deskrisk adopt`")

    async def __aenter__(self) -> SourceLog:
        """Use it for a while."""
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            await self._consumer.stop()
            self._consumer = None


def broken(tp: TopicPartition, included: int, first: int, end: int) -> str | None:
    """Return in words what does not fit, or None."""
    if end < included:
        return (f"{tp.topic}-{tp.partition}: included up to offset {included}, but the log ends at {end}: "
                "it was made anew or cut")
    if first > included:
        return (f"{tp.topic}-{tp.partition}: included up to offset {included}, but the log begins at {first}: "
                f"{first - included} records expired before they were folded")
    return None
