"""Ticks through the mark stage: JSON one record a message, binary one record a message, binary packed."""

from __future__ import annotations

import asyncio
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from app.brokers import Broker
from app.reference_files import publish_reference
from app.settings import Settings
from benchmarks._common import READY_S, Worker, arguments, finish, scratch_broker, wait_committed
from schemas.codec import TICK_DTYPE, pack_ticks
from schemas.records import Instrument
from tables.kafka import KafkaClient, create_topics, owner_partition

PARTITIONS, INSTRUMENTS, PACK = 8, 1000, 200
FORMS = ("json", "binary", "packed")
COUNTS = {"smoke": {"json": 300_000, "binary": 300_000, "packed": 2_000_000},
          "real": {"json": 6_000_000, "binary": 8_000_000, "packed": 40_000_000}}


def ticks(rng: np.random.Generator, names: list[str], which: np.ndarray, first: int) -> np.ndarray:
    """Return packed rows of the given instruments."""
    rows = np.zeros(len(which), TICK_DTYPE)
    price = np.round(rng.uniform(50, 51, len(which)), 4)
    rows["instrument"] = np.array(names, "S24")[which]
    rows["ts_event"] = 1_800_000_000_000_000_000 + np.arange(first, first + len(which)) * 1000
    rows["bid"], rows["ask"], rows["last"] = price, price + 0.01, np.nan
    return rows


async def fill(client: KafkaClient, topic: str, form: str, count: int, names: list[str], seed: int) -> int:
    """Put ``count`` ticks on the log; return how many messages that are."""
    rng = np.random.default_rng(seed)
    home = np.array([owner_partition(n, PARTITIONS) for n in names])
    producer = client.producer(max_batch_size=900_000, linger_ms=0, acks=1)
    await producer.start()
    waiting: list[Any] = []
    messages, done = 0, 0
    while done < count:
        size = min(100_000, count - done)
        for p in range(PARTITIONS):
            own = np.flatnonzero(home == p)
            rows = ticks(rng, names, rng.choice(own, size // PARTITIONS), done)
            if form == "packed":
                values = [pack_ticks(rows[i : i + PACK]) for i in range(0, len(rows), PACK)]
            elif form == "binary":
                values = [pack_ticks(rows[i : i + 1]) for i in range(len(rows))]
            else:
                values = [b'{"instrument":"%s","bid":"%.4f","ask":"%.4f","ts_event":%d,"source":"LP1"}' % (n, b, a, t)
                          for n, b, a, t in zip(rows["instrument"].tolist(), rows["bid"].tolist(),
                                                rows["ask"].tolist(), rows["ts_event"].tolist(), strict=True)]
            builder = producer.create_batch()
            for value in values:
                if builder.append(key=None, value=value, timestamp=None) is None:
                    waiting.append(await producer.send_batch(builder, topic, partition=p))
                    builder = producer.create_batch()
                    builder.append(key=None, value=value, timestamp=None)
            waiting.append(await producer.send_batch(builder, topic, partition=p))
            messages += len(values)
        done += size
    for future in waiting:
        await future
    await producer.stop()
    return messages


async def measure(broker: Broker, folder: Path, form: str, count: int, seed: int) -> dict[str, Any]:
    """Fill the topic under a prefix of its own; run one worker over it."""
    names = [f"TK{i:04d}" for i in range(INSTRUMENTS)]
    client = KafkaClient(broker.address)
    s = Settings(brokers=broker.address, partitions=PARTITIONS, prefix=f"{form}-")
    await create_topics(client, s.prefix, PARTITIONS, s.horizon_ms)
    await publish_reference(client, s.topics(), [Instrument(instrument=n, asset_class="equity", currency="USD",
                                                            quantity_increment=Decimal(1)) for n in names], [])
    messages = await fill(client, s.topics()["ticks"], form, count, names, seed)
    print(f"  {form}: {count:,} ticks in {messages:,} messages on the log", file=sys.stderr)
    worker = Worker(["worker", "--roles", "marks"], {
        "DESKRISK_BROKERS": broker.address, "DESKRISK_PREFIX": s.prefix, "DESKRISK_DATA_DIR": str(folder / form), "DESKRISK_LOG_LEVEL": "error"})
    assert worker.ready.wait(READY_S), "the worker did not come up"
    t0 = time.monotonic()
    try:
        done = await wait_committed(client, s.group("marks"), s.topics()["ticks"], messages, 300, [])
        rss = worker.rss_mb()
    finally:
        worker.stop()
    return {f"{form}_ticks": count, f"{form}_ticks_per_s": round(count / (done - t0)), f"{form}_rss_mb": round(rss)}


def main() -> None:
    """Run."""
    args = arguments(__doc__ or "")
    report: dict[str, Any] = {}
    with scratch_broker() as (broker, folder):
        for form in FORMS:
            report |= asyncio.run(measure(broker, folder, form, COUNTS[args.size][form], args.seed))
        report["broker"] = broker.name
    finish(args, report)


if __name__ == "__main__":
    main()
