"""Go on with a source log that is not the one a table was folded from: positions stay, the new records are folded."""

from __future__ import annotations

from typing import Any

from aiokafka.structs import TopicPartition

from app.recovery import audit, fenced, need_stopped
from app.settings import Settings
from tables.changelog import Batches, read_sure
from tables.partition import Marker
from tables.source_log import SourceLog, broken
from tables.transactions import TransactionalProducer


async def adopt(settings: Settings, yes: bool, by: str, reason: str) -> dict[str, Any]:
    """Return what does not fit between the position table and its source logs; with ``yes``, go on with these logs.

    Raises
    ------
    Refused
        A position worker runs.
    """
    await need_stopped(settings)
    async with fenced(settings, range(settings.partitions) if yes else ()) as writers:
        lines, changed = await _unlike(settings)
        for p, producer in writers.items():
            if p in changed:
                await _write_marker(settings.topics()["positions-changelog"], p, changed[p], producer)
    if yes and lines:
        await audit(settings, "adopt", by, f"{reason}: {'; '.join(lines)}")
    return {"differences": len(lines), "logs": lines, "adopted": yes and bool(lines)}


async def _unlike(settings: Settings) -> tuple[list[str], dict[int, Marker]]:
    """Return what does not fit, and the markers that go on with these logs."""
    topics = settings.topics()
    changelog = topics["positions-changelog"]
    found = await read_sure(settings.client(), {TopicPartition(changelog, p): Batches()
                                                for p in range(settings.partitions)})
    markers = {tp.partition: batches.marker for tp, batches in found.items()}
    included = {TopicPartition(topic, p): offset for p, m in markers.items() for topic, offset in m.offsets.items()}
    async with SourceLog(settings.client()) as log:
        ranges = await log.ranges(list(included)) if included else {}
    lines, changed = [], dict[int, Marker]()
    for tp, (first, end) in sorted(ranges.items()):
        if text := broken(tp, included[tp], first, end):
            lines.append(text)
            markers[tp.partition].offsets[tp.topic] = first
            changed[tp.partition] = markers[tp.partition]
    return lines, changed


async def _write_marker(changelog: str, partition: int, marker: Marker, producer: TransactionalProducer) -> None:
    async with producer.transaction():
        for key, value in marker.close([]):
            await producer.send(changelog, value, key, partition)

