"""`deskrisk partitions`: who owns each partition, how far behind it is, and which one is hot or slow, and why."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from statistics import median
from typing import Any

from aiokafka.structs import TopicPartition

from app.settings import Settings
from tables.records import RecordBatch
from tables.restore import read_range

#: this many times the median of the others is hot; a partition behind by more than this many seconds of work is slow
HOT_TIMES, SLOW_S = 3.0, 2.0
#: fewer arrivals a second than this are nobody's problem
QUIET_PER_S = 50.0
LOOKED_AT = 5_000
#: source topic of each role that works by partition
SOURCES = {"positions": "trades", "marks": "ticks", "gate": "orders"}


@dataclass(frozen=True)
class Load:
    """One partition over a while: records that came and were worked off, a second, and what is left."""

    partition: int
    owner: str
    arrived_per_s: float
    done_per_s: float
    behind: int
    keys: tuple[tuple[str, float], ...] = ()

    @property
    def behind_s(self) -> float:
        """Return how long the backlog takes at the rate of now; infinite where nothing moves."""
        rate = max(self.done_per_s, self.arrived_per_s)
        return self.behind / rate if rate else (float("inf") if self.behind else 0.0)


def verdict(load: Load, all_loads: list[Load]) -> str:
    """Return ``ok``, ``hot`` (more comes to it than to the others), ``slow`` (it falls behind) or ``no owner``."""
    if not load.owner:
        return "no owner"
    others = [x.arrived_per_s for x in all_loads if x is not load]
    usual = max(median(others) if others else 0.0, QUIET_PER_S)
    if load.arrived_per_s > HOT_TIMES * usual:
        return "hot"
    if load.behind_s > SLOW_S and load.behind > QUIET_PER_S * SLOW_S:
        return "slow"
    return "ok"


async def partitions_of(settings: Settings, role: str, seconds: float) -> list[dict[str, Any]]:
    """Return a row per partition of a role: watched for some seconds, the odd ones with the keys that fill them."""
    topic = settings.topics()[SOURCES[role]]
    tps = [TopicPartition(topic, p) for p in range(settings.partitions)]
    group = settings.group(role)
    consumer, admin = settings.client().consumer(), settings.client().admin()
    await consumer.start()
    await admin.start()
    try:
        async def now() -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
            ends = await consumer.end_offsets(tps)
            done = await admin.list_consumer_group_offsets(group)
            return ends, {tp: max(done[tp].offset, 0) if tp in done else 0 for tp in tps}

        owners = await _owners(admin, group, topic)
        before = await now()
        await asyncio.sleep(seconds)
        after = await now()
    finally:
        await consumer.stop()
        await admin.close()
    loads = [Load(tp.partition, owners.get(tp.partition, ""), (after[0][tp] - before[0][tp]) / seconds,
                  (after[1][tp] - before[1][tp]) / seconds, max(0, after[0][tp] - after[1][tp])) for tp in tps]
    rows = []
    for load in loads:
        found = verdict(load, loads)
        tp = TopicPartition(topic, load.partition)
        keys = await _keys(settings, tp, after[0][tp]) if found in ("hot", "slow") else []
        rows.append({"partition": load.partition, "owner": load.owner, "arrived_per_s": round(load.arrived_per_s, 1),
                     "done_per_s": round(load.done_per_s, 1), "behind": load.behind,
                     "behind_s": None if load.behind_s == float("inf") else round(load.behind_s, 2),
                     "verdict": found, "keys": keys})
    return rows


async def _owners(admin: Any, group: str, topic: str) -> dict[int, str]:
    from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment

    (answer,) = await admin.describe_consumer_groups([group])
    owners: dict[int, str] = {}
    for member in answer.groups[0][5]:
        member_id, host, raw = member[0], member[-3], member[-1]
        if not raw:
            continue
        for name, owned in ConsumerProtocolMemberAssignment.decode(raw).assignment:
            if name == topic:
                owners |= dict.fromkeys(owned, f"{member_id[-8:]}{host}")
    return owners


async def _keys(settings: Settings, tp: TopicPartition, end: int) -> list[tuple[str, float]]:
    """Return the three most frequent keys among the newest records of a partition, with their share."""
    seen: Counter[bytes] = Counter()

    def on_batch(batch: RecordBatch) -> None:
        seen.update(k or b"" for k, offset in zip(batch.keys, batch.offsets.tolist(), strict=True)
                    if end - LOOKED_AT <= offset < end)

    await read_range(settings.client(), {tp: max(0, end - LOOKED_AT)}, on_batch)
    total = sum(seen.values())
    return [(key.decode(errors="replace"), round(n / total, 3)) for key, n in seen.most_common(3)] if total else []
