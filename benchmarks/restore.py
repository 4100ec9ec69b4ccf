"""A million changelog rows into an empty store: from the process's take-over to serving, and what stays resident."""

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
from benchmarks._common import READY_S, Worker, arguments, finish, scratch_broker
from models.fills import POSITION_DTYPE
from models.position_pack import HEADER_DTYPE, PACKED_LOT_DTYPE, ROW_VERSION
from schemas.records import Account, Instrument
from tables.kafka import KafkaClient, create_topics, owner_partition
from tables.partition import Marker, Rows

PARTITIONS = 8
KEYS = {"smoke": 10_000, "real": 100_000}
VERSIONS = 10


async def fill(client: KafkaClient, keys: list[tuple[str, str]], prefix: str = "") -> int:
    """Write ``VERSIONS`` rows of every key to the changelog; return how many."""
    producer = client.producer(max_batch_size=900_000, linger_ms=0, acks=1)
    await producer.start()
    rows = np.zeros(1, POSITION_DTYPE)
    rows["lot_head"] = rows["lot_tail"] = -1
    rows["unit_value"] = rows["lot_count"] = 1
    rows["last_fill"] = -1
    header = np.zeros(1, HEADER_DTYPE)
    header["version"], header["lots"] = ROW_VERSION, 1
    lot = np.zeros(1, PACKED_LOT_DTYPE)
    lot["price"] = 10.5
    waiting, count = [], 0
    by_partition: dict[int, list[tuple[str, str]]] = {}
    for account, instrument in keys:
        by_partition.setdefault(owner_partition(account, PARTITIONS), []).append((account, instrument))
    for partition, own in by_partition.items():
        builder, marker = producer.create_batch(), Marker({f"{prefix}trades": 0})
        for version in range(VERSIONS):
            written: Rows = []
            for slot, (account, instrument) in enumerate(own):
                header["slot"] = slot
                rows["quantity"], rows["average_price"], rows["revision"] = slot + 1, 10.5, version
                lot["quantity"] = slot + 1
                written.append((f"P{account}\x1f{instrument}".encode(), header.tobytes() + rows.tobytes() + lot.tobytes()))
            for key, value in marker.close(written):
                if builder.append(key=key, value=value, timestamp=None) is None:
                    waiting.append(await producer.send_batch(builder, f"{prefix}positions-changelog", partition=partition))
                    builder = producer.create_batch()
                    builder.append(key=key, value=value, timestamp=None)
            count += len(written)
        waiting.append(await producer.send_batch(builder, f"{prefix}positions-changelog", partition=partition))
    for future in waiting:
        await future
    await producer.stop()
    return count


async def measure(broker: Broker, folder: Path, size: str) -> dict[str, Any]:
    """Fill, start an empty worker, time its restore."""
    from aiokafka.structs import TopicPartition

    from tables.restore import read_changelogs

    client = KafkaClient(broker.address)
    s = Settings(brokers=broker.address, partitions=PARTITIONS)
    await create_topics(client, "", PARTITIONS, s.horizon_ms)
    accounts = [f"ACC{i:04d}" for i in range(KEYS[size] // 200)]
    instruments = [f"INS{i:04d}" for i in range(200)]
    await publish_reference(
        client, s.topics(), [Instrument(instrument=n, asset_class="equity", currency="USD",
                                        quantity_increment=Decimal(1)) for n in instruments],
        [Account(account=n, book=f"B{i % 50}", desk=f"D{i % 20}", strategy=f"S{i % 10}", fund=f"F{i % 5}")
         for i, n in enumerate(accounts)])
    count = await fill(client, [(a, i) for a in accounts for i in instruments])
    print(f"  {count:,} rows on the changelog", file=sys.stderr)
    started = time.monotonic()
    found = await read_changelogs(client, {TopicPartition("positions-changelog", p): 0 for p in range(PARTITIONS)})
    read_s = time.monotonic() - started
    del found
    worker = Worker(["worker", "--roles", "positions"], {
        "DESKRISK_BROKERS": broker.address, "DESKRISK_DATA_DIR": str(folder / "data"), "DESKRISK_LOG_LEVEL": "info"})
    assert worker.ready.wait(READY_S), "the worker did not come up"
    took = next(float(line.split()[-1]) for line in worker.lines if line.startswith("RESTORED"))
    await asyncio.sleep(8)
    rss = worker.rss_mb()
    worker.stop()
    return {"rows": count, "keys": len(accounts) * 200, "restore_s": round(took, 2), "rows_per_s": round(count / took),
            "read_only_s": round(read_s, 2), "rss_mb": round(rss), "broker": broker.name}


def main() -> None:
    """Run."""
    args = arguments(__doc__ or "")
    with scratch_broker() as (broker, folder):
        report = asyncio.run(measure(broker, folder, args.size))
    finish(args, report)


if __name__ == "__main__":
    main()
