"""Batches of the log that cannot be read: an operator's word that one is passed over, and who takes it in."""

from __future__ import annotations

import logging
import time

import msgspec

from agents.limit_alerts import newest_alerts
from app.settings import Settings
from schemas.codec import decoder_of, encode
from schemas.reasons import QuarantineReason
from schemas.records import Quarantined
from tables.kafka import owner_partition
from tables.records import RecordBatch, passed_over, passed_over_records
from tables.restore import read_range

log = logging.getLogger(__name__)
_quarantined = decoder_of(Quarantined)


async def take_passed_over(settings: Settings) -> None:
    """Read which batches are passed over, before anything else is read: of the newest records of `quarantine`."""
    client, topic = settings.client(), settings.topics()["quarantine"]
    kinds = {QuarantineReason.SKIPPED: passed_over, QuarantineReason.SKIPPED_RECORD: passed_over_records}

    def take(batch: RecordBatch) -> None:
        for value in batch.values:
            if value is None or b'"skipped' not in value:
                continue
            try:
                found = _quarantined.decode(value)
            except (msgspec.DecodeError, ValueError) as error:
                log.error("quarantine: a record is refused: %s", error)
                continue
            if found.reason in kinds:
                kinds[QuarantineReason(found.reason)].add((found.topic, found.partition, found.offset))

    await read_range(client, await newest_alerts(client, topic, settings.partitions), take)
    for name, partition, offset in sorted(passed_over):
        log.warning("%s %s@%s: the batch that begins here is passed over, an operator said so", name, partition, offset)
    for name, partition, offset in sorted(passed_over_records):
        log.warning("%s %s@%s: this record is passed over, an operator said so", name, partition, offset)


async def pass_over(settings: Settings, topic: str, partition: int, offset: int, by: str, reason: str,
                    record_alone: bool = False) -> None:
    """Write that a batch, or a record of the log of decisions, is passed over by who starts from now on.

    Raises
    ------
    ValueError
        Where the topic or the partition is none of ours.
    """
    name = settings.topics().get(topic, topic)
    if name not in settings.topics().values():
        raise ValueError(f"topic: expected one of {', '.join(settings.topics())}, was {topic!r}")
    if not 0 <= partition < settings.partitions or offset < 0:
        raise ValueError(f"partition, offset: expected 0 to {settings.partitions - 1}, and 0 or more, "
                         f"was {partition}, {offset}")
    if record_alone and topic != "decisions":
        raise ValueError(f"topic: expected decisions for a record alone, was {topic!r}: readers of other topics go on")
    why = QuarantineReason.SKIPPED_RECORD if record_alone else QuarantineReason.SKIPPED
    record = Quarantined(topic=name, partition=partition, offset=offset, reason=str(why),
                         detail=f"{by}: {reason}", raw_base64="", ts=time.time_ns())
    key = f"{name}-{partition}-{offset}"
    producer = settings.client().producer(acks="all")
    await producer.start()
    try:
        await producer.send_and_wait(settings.topics()["quarantine"], encode(record), key.encode(),
                                     owner_partition(key, settings.partitions))
    finally:
        await producer.stop()
