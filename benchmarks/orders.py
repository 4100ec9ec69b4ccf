"""Orders to decisions, open loop, from the intended arrival: through Kafka and through the local gate's socket.

Trades and quotes run beside. Latency is from when an order was due to be sent to when its decision was read.
"""

from __future__ import annotations

import asyncio
import json
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka.structs import TopicPartition

from app.brokers import Broker
from app.control import publish
from app.reference_files import publish_reference
from app.settings import Settings
from benchmarks._common import Worker, arguments, finish, scratch_broker
from benchmarks.risk import quantiles
from schemas.records import Account, Instrument, Limit
from tables.kafka import create_topics, owner_partition
from tables.records import fetch_slices

PARTITIONS = 4
SIZES = {"smoke": (300, 4.0), "real": (2_000, 20.0)}


async def prepare(s: Settings) -> tuple[list[str], list[str]]:
    """Create topics, reference data and limits; return accounts and instruments."""
    instruments = [Instrument(instrument=f"I{k}", asset_class="future", currency="USD", quantity_increment=Decimal(1)) for k in range(100)]
    accounts = [Account(account=f"A{k}", book=f"B{k // 4}", desk=f"D{k // 10}", strategy="S", fund=f"F{k // 25}", nav=Decimal(10**8)) for k in range(50)]
    await create_topics(s.client(), s.prefix, PARTITIONS, s.horizon_ms)
    await publish_reference(s.client(), s.topics(), instruments, accounts)
    for k, (metric, value) in enumerate((("order_quantity", 10**4), ("order_value", 10**7), ("gross", 10**12))):
        await publish(s, "limits", f"L{k}", Limit(limit_id=f"L{k}", node="firm", metric=metric, limit=Decimal(value), version=1, by="bench", reason="benchmark"))
    return [a.account for a in accounts], [i.instrument for i in instruments]


async def quote(s: Settings, names: list[str], stop: asyncio.Event) -> None:
    """Quote every instrument ten times a second."""
    producer = s.client().producer(linger_ms=2)
    await producer.start()
    while not stop.is_set():
        now = time.time_ns()
        for name in names:
            value = json.dumps({"instrument": name, "bid": "99.99", "ask": "100.01", "ts_event": now}).encode()
            await producer.send(s.topics()["ticks"], value, name.encode(), owner_partition(name, PARTITIONS))
        await asyncio.sleep(0.1)
    await producer.stop()


def order(k: int, accounts: list[str], names: list[str]) -> dict[str, Any]:
    """Return an order, every other time a cancel of one that came a hundred before: some fifty work at any time."""
    base = {"order_id": f"O{k}", "account": accounts[k % len(accounts)], "trader": f"t{k % 7}", "instrument": names[k * 13 % len(names)],
            "side": "buy" if k % 2 else "sell", "type": "limit", "quantity": str(1 + k % 50), "price": "99.5" if k % 2 else "100.5"}
    if k % 2 and k > 100:
        old = k - 101
        base |= {"action": "cancel", "ref_order_id": f"O{old}", "account": accounts[old % len(accounts)]}
    return base | {"ts_event": time.time_ns()}


async def through_kafka(s: Settings, rate: int, seconds: float, accounts: list[str], names: list[str]) -> np.ndarray:
    """Return ms from intended arrival to the decision read."""
    topic = s.topics()["decisions"]
    consumer = s.client().consumer(isolation_level="read_uncommitted", fetch_max_wait_ms=5)
    await consumer.start()
    tps = [TopicPartition(topic, p) for p in range(PARTITIONS)]
    consumer.assign(tps)
    await consumer.seek_to_end(*tps)
    for tp in tps:
        await consumer.position(tp)
    producer = s.client().producer(linger_ms=0)
    await producer.start()
    n = int(rate * seconds)
    due = np.zeros(n)
    got = np.full(n, np.nan)

    async def read() -> None:
        while np.isnan(got).any():
            for batch in (await fetch_slices(consumer._fetcher, None, 1.0, False, 0.0)).values():
                now = time.perf_counter()
                for value in batch.values:
                    k = int(value[value.index(b'"order_id":"O') + 13: value.index(b'"', value.index(b'"order_id":"O') + 13)]) if value else -1
                    if 0 <= k < n and np.isnan(got[k]):
                        got[k] = now

    reader = asyncio.create_task(read())
    begin = time.perf_counter() + 0.2
    for k in range(n):
        due[k] = begin + k / rate
        wait = due[k] - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        o = order(k, accounts, names)
        await producer.send(s.topics()["orders"], json.dumps(o).encode(), o["account"].encode(), owner_partition(o["account"], PARTITIONS))
    await asyncio.wait_for(reader, 60)
    await producer.stop()
    await consumer.stop()
    return (got - due) * 1e3


async def through_socket(path: Path, rate: int, seconds: float, accounts: list[str], names: list[str]) -> np.ndarray:
    """Return microseconds from intended arrival to the answer, one connection, one order at a time."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    n = int(rate * seconds)
    took = np.zeros(n)
    begin = time.perf_counter() + 0.1
    for k in range(n):
        due = begin + k / rate
        wait = due - time.perf_counter()
        if wait > 0.002:
            await asyncio.sleep(wait - 0.001)
        while time.perf_counter() < due:
            pass
        writer.write(json.dumps(order(10_000_000 + k, accounts, names)).encode() + b"\n")
        await reader.readline()
        took[k] = (time.perf_counter() - due) * 1e6
    writer.close()
    return took


async def measure(broker: Broker, folder: Path, rate: int, seconds: float) -> dict[str, Any]:
    """Run workers and measure."""
    s = Settings(brokers=broker.address, prefix="orders-", partitions=PARTITIONS, data_dir=folder)
    accounts, names = await prepare(s)
    socket = folder / "gate.sock"
    environment = {"DESKRISK_BROKERS": broker.address, "DESKRISK_PREFIX": s.prefix, "DESKRISK_PARTITIONS": str(PARTITIONS), "DESKRISK_DATA_DIR": str(folder),
                   "DESKRISK_LOG_LEVEL": "error", "DESKRISK_GATE_SOCKET": str(socket)}
    workers = [Worker(["worker", "--roles", role], environment) for role in ("positions", "marks", "gate")]
    stop = asyncio.Event()
    try:
        for w in workers:
            assert await asyncio.to_thread(w.ready.wait, 90), "a worker did not come up"
        quoting = asyncio.create_task(quote(s, names, stop))
        await asyncio.sleep(2.0)
        await through_kafka(s, 100, 2.0, accounts, names)
        kafka = await through_kafka(s, rate, seconds, accounts, names)
        local = await through_socket(socket, rate, seconds / 2, accounts, names)
        stop.set()
        await quoting
    finally:
        for w in workers:
            w.stop()
    return {"orders_per_s": rate, "seconds": seconds, "kafka_ms": quantiles(kafka), "kafka_p99_ms": quantiles(kafka)["p99"], "local_gate_us": quantiles(local),
            "local_gate_p99_us": quantiles(local)["p99"], "unanswered": 0, "broker": broker.name}


def main() -> None:
    """Run."""
    args = arguments(__doc__ or "")
    rate, seconds = SIZES[args.size]
    with scratch_broker() as (broker, folder):
        report = asyncio.run(measure(broker, folder, rate, seconds))
    finish(args, {"bench": "orders"} | report)


if __name__ == "__main__":
    main()
