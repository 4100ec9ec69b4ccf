"""Orders to decisions, open loop, from the intended arrival: through Kafka, the local gate's socket and HTTP.

Quotes (1,000 a second) and trades (200 a second) run beside. Latency is from when an order was due to be sent to when its decision was read.
Then: ten times as many orders for two seconds; from a halt to the first refusal, and from the trade that breaches a limit to its alert on the stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from aiokafka.structs import TopicPartition

from app.brokers import Broker
from app.control import current, publish
from app.publisher import BatchingPublisher
from app.rank import go_first
from app.reference_files import publish_reference
from app.settings import Settings
from benchmarks._common import READY_S, ROOT, Worker, arguments, finish, scratch_broker
from benchmarks.risk import quantiles
from schemas.addresses import GateAddress
from schemas.codec import encode
from schemas.records import Account, Control, Instrument, Limit
from tables.kafka import create_topics, owner_partition
from tables.records import fetch_slices, tune_fetcher

PARTITIONS = 4
TOKEN = "bench" * 4
#: orders a second through Kafka, through the socket (a tenth of them over HTTP), seconds
SIZES = {"smoke": (300, 300, 2.0), "real": (5_000, 2_000, 20.0)}
TRADES_PER_S = 200
#: orders that are due within so long are sent together
STEP_S = 0.001
#: this many times as many orders come for two seconds: all are decided, late
OVERLOAD = 10
#: the broker compiles for a minute under this load, every process fills caches; what they do then is not what is measured
WARM_UP_S = {"smoke": 1.0, "real": 60.0}


async def prepare(s: Settings) -> tuple[list[str], list[str]]:
    """Create topics, reference data and limits; return accounts and instruments."""
    instruments = [Instrument(instrument=f"I{k}", asset_class="future", currency="USD", quantity_increment=Decimal(1)) for k in range(100)]
    accounts = [Account(account=f"A{k}", book=f"B{k // 4}", desk=f"D{k // 10}", strategy="S", fund=f"F{k // 25}", nav=Decimal(10**8)) for k in range(50)]
    await create_topics(s.client(), s.prefix, PARTITIONS, s.horizon_ms)
    await publish_reference(s.client(), s.topics(), instruments, accounts)
    for k, (metric, value) in enumerate((("order_quantity", 10**4), ("order_value", 10**7), ("gross", 10**12))):
        await publish(s, "limits", f"L{k}", Limit(limit_id=f"L{k}", node="firm", metric=metric, limit=Decimal(value), version=1, by="bench", reason="benchmark"))
    return [a.account for a in accounts], [i.instrument for i in instruments]


def beside(s: Settings, names: list[str], accounts: list[str]) -> subprocess.Popen[bytes]:
    """Start quotes and trades in a process of their own."""
    environment = {"DESKRISK_BROKERS": s.brokers, "DESKRISK_PREFIX": s.prefix, "DESKRISK_PARTITIONS": str(s.partitions)}
    return subprocess.Popen([sys.executable, "-m", "benchmarks.beside", ",".join(names), ",".join(accounts), str(TRADES_PER_S)], cwd=ROOT,
                            stdin=subprocess.PIPE, env=os.environ | environment)


def order(k: int, accounts: list[str], names: list[str]) -> dict[str, Any]:
    """Return an order, every other time a cancel of one that came a hundred before: some fifty work at any time.

    Quantities differ: two orders that are alike within half a second would be duplicates, and refused.
    """
    base = {"order_id": f"O{k}", "account": accounts[k % len(accounts)], "trader": f"t{k % 7}", "instrument": names[k * 13 % len(names)],
            "side": "buy" if k % 2 else "sell", "type": "limit", "quantity": str(1 + k % 9_973), "price": "99.5" if k % 2 else "100.5"}
    if k % 2 and k > 100:
        old = k - 101
        base |= {"action": "cancel", "ref_order_id": f"O{old}", "account": accounts[old % len(accounts)]}
    return base | {"ts_event": time.time_ns()}


async def through_kafka(s: Settings, rate: int, seconds: float, accounts: list[str], names: list[str], first: int) -> np.ndarray:
    """Return ms from intended arrival to the decision read; ``first``: the number of the first order."""
    topic, orders = s.topics()["decisions"], s.topics()["orders"]
    consumer = s.client().consumer(isolation_level="read_uncommitted", fetch_max_wait_ms=100)
    await consumer.start()
    tune_fetcher(consumer._fetcher, 2 * STEP_S)
    tps = [TopicPartition(topic, p) for p in range(PARTITIONS)]
    consumer.assign(tps)
    await consumer.seek_to_end(*tps)
    for tp in tps:
        await consumer.position(tp)
    publisher = BatchingPublisher(s.client(), {orders: PARTITIONS}, 0.0)
    await publisher.start()
    n = int(rate * seconds)
    got = np.full(n, np.nan)
    left = n

    async def read() -> None:
        nonlocal left
        while left:
            for batch in (await fetch_slices(consumer._fetcher, None, 1.0, False)).values():
                now = time.perf_counter()
                for value in batch.values:
                    k = int(value[value.index(b'"order_id":"O') + 13: value.index(b'"', value.index(b'"order_id":"O') + 13)]) - first if value else -1
                    if 0 <= k < n and np.isnan(got[k]):
                        got[k], left = now, left - 1

    reader = asyncio.create_task(read())
    due = time.perf_counter() + 0.2 + np.arange(n) / rate
    for k in range(n):
        wait = due[k] - time.perf_counter()
        if wait > 0:  # late by a step at most, which counts; a timer for each order takes a third of a processor
            await asyncio.sleep(max(wait, STEP_S))
        o = order(first + k, accounts, names)
        publisher.send(orders, o["account"].encode(), encode(o))
    await asyncio.wait_for(reader, 60)
    await publisher.stop()
    await consumer.stop()
    return (got - due) * 1e3


def paced(rate: int, seconds: float) -> Iterator[tuple[int, float]]:
    """Yield numbers when they are due, and when that was; the last 100 us are waited for awake, sleep is not that exact."""
    begin = time.perf_counter() + 0.1
    for k in range(int(rate * seconds)):
        due = begin + k / rate
        wait = due - time.perf_counter() - 1e-4
        if wait > 0:
            time.sleep(wait)
        while time.perf_counter() < due:
            pass
        yield k, due


@contextlib.contextmanager
def ahead() -> Iterator[bool]:
    """Have the priority of a local gate, where the system permits it; say whether it does."""
    first = go_first()
    try:
        yield first
    finally:
        if first:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@dataclass
class Doors:
    """The doors of a local gate, orders a second (a tenth of them over HTTP), how long, and what orders are about."""

    path: Path
    address: str
    rate: int
    seconds: float
    accounts: list[str]
    names: list[str]

    def measure(self, first: int) -> dict[str, dict[str, float]]:
        """Return quantiles of microseconds from intended arrival to the answer; ``first``: the first order's number."""
        return {"local_gate_us": quantiles(self._socket(first)), "http_gate_us": quantiles(self._http(2 * first))}

    def _socket(self, first: int) -> np.ndarray:
        """One connection, one order at a time."""
        took = np.zeros(int(self.rate * self.seconds))
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.path))
            answers = connection.makefile("rb")
            for k, due in paced(self.rate, self.seconds):
                connection.sendall(encode(order(first + k, self.accounts, self.names)) + b"\n")
                answers.readline()
                took[k] = (time.perf_counter() - due) * 1e6
        return took

    def _http(self, first: int) -> np.ndarray:
        """One connection kept open."""
        rate = self.rate // 10
        took = np.zeros(int(rate * self.seconds))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        connection = http.client.HTTPConnection(self.address.removeprefix("http://"))
        for k, due in paced(rate, self.seconds):
            connection.request("POST", "/orders", encode(order(first + k, self.accounts, self.names)), headers)
            connection.getresponse().read()
            took[k] = (time.perf_counter() - due) * 1e6
        connection.close()
        return took


async def halt_to_refusal(s: Settings, path: Path, rounds: int, accounts: list[str], names: list[str]) -> np.ndarray:
    """Return ms from the halt's writing to the last order that still passed, asked every millisecond."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    producer = s.client().producer(linger_ms=0)
    await producer.start()
    took = []
    for r in range(2 * rounds):
        state = "halted" if r % 2 == 0 else "active"
        record = Control(scope="all", state=state, reason="benchmark of halts", by="bench", ts=time.time_ns(), rev=r + 1)
        begin = time.perf_counter()
        await producer.send_and_wait(s.topics()["controls"], encode(record), b"all", 0)
        while True:
            o = order(30_000_001 + 2 * int(time.perf_counter_ns() // 1_000_000), accounts, names) | {"action": "new"}
            writer.write(json.dumps(o).encode() + b"\n")
            refused = b'"HALTED"' in await reader.readline()
            if refused == (state == "halted"):
                break
            await asyncio.sleep(0.001)
        if state == "halted":
            took.append((time.perf_counter() - begin) * 1e3)
        await asyncio.sleep(0.05)
    writer.close()
    await producer.stop()
    return np.array(took)


async def breach_to_stream(s: Settings, gateway: str, rounds: int) -> np.ndarray:
    """Return ms from the trade that breaches a limit (its record's time) to the alert on the stream."""
    await publish(s, "limits", "BREACH", Limit(limit_id="BREACH", node="account:A0", metric="gross", limit=Decimal(1_000_000), version=1, by="bench", reason="benchmark",
                                               warn=0.99))
    took: list[float] = []
    due = 0.0
    seen = asyncio.Event()

    async def follow() -> None:
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(timeout=timeout, read_bufsize=1 << 22) as session, session.get(f"{gateway}/api/stream", params={"scope": "fund:F1"}) as reply:
            event = ""
            async for line in reply.content:
                if line.startswith(b"event: "):
                    event = line[7:].strip().decode()
                elif line.startswith(b"data: ") and event == "alert" and b"BREACH" in line:
                    kind = json.loads(line[6:])["kind"]
                    if kind == "breach":
                        took.append((time.time() - due) * 1e3)
                    if kind in ("breach", "clear"):
                        seen.set()

    follower = asyncio.create_task(follow())
    await asyncio.sleep(1.5)
    producer = s.client().producer(linger_ms=0)
    await producer.start()
    for r in range(2 * rounds):
        await asyncio.sleep(0.3 + 0.013 * (r % 7))
        seen.clear()
        due = time.time()
        trade = {"trade_id": f"BR{time.time_ns()}", "account": "A0", "instrument": "I0", "side": "buy" if r % 2 == 0 else "sell", "quantity": "20000", "price": "100",
                 "ts_event": int(due * 1e9)}
        await producer.send_and_wait(s.topics()["trades"], json.dumps(trade).encode(), b"A0", owner_partition("A0", PARTITIONS))
        await asyncio.wait_for(seen.wait(), 60.0)  # the first one while a stage that has just come up still loads
    follower.cancel()
    await producer.stop()
    return np.array(took)


async def measure(broker: Broker, folder: Path, size: str) -> dict[str, Any]:
    """Run workers and measure."""
    rate, gate_rate, seconds = SIZES[size]
    s = Settings(brokers=broker.address, prefix="orders-", partitions=PARTITIONS, data_dir=folder)
    accounts, names = await prepare(s)
    path = folder / "gate.sock"
    environment = {"DESKRISK_BROKERS": broker.address, "DESKRISK_PREFIX": s.prefix, "DESKRISK_PARTITIONS": str(PARTITIONS), "DESKRISK_DATA_DIR": str(folder),
                   "DESKRISK_LOG_LEVEL": "error", "DESKRISK_GATE_SOCKET": str(path), "DESKRISK_GATE_HTTP_PORT": "0"}
    gate = environment | {"DESKRISK_API_TOKENS": f"{TOKEN}:bench:trader"}
    workers = [Worker(["worker", "--roles", role], gate if role == "gate" else environment) for role in ("positions", "marks", "gate")]
    later: list[Worker] = []
    load: subprocess.Popen[bytes] | None = None
    found: dict[str, Any] = {}
    try:
        for w in workers:
            assert await asyncio.to_thread(w.ready.wait, READY_S), "a worker did not come up"
        load = beside(s, names, accounts[25:])  # the breach below is the first account's own
        await asyncio.sleep(4.0)
        address = next(iter((await current(s, "gates", GateAddress)).values())).address
        await through_kafka(s, rate, WARM_UP_S[size], accounts, names, 40_000_000)
        found["kafka_ms"] = quantiles(await through_kafka(s, rate, seconds, accounts, names, 0))
        found["overload_ms"] = quantiles(await through_kafka(s, OVERLOAD * rate, 2.0, accounts, names, 50_000_000))
        door = Doors(path, address, gate_rate, seconds / 2, accounts, names)
        shared = door.measure(10_000_000)
        with ahead() as realtime:  # as an order system would be that has a processor of its own
            found |= door.measure(15_000_000) if realtime else shared
        found |= {name.replace("gate", "gate_shared"): q for name, q in shared.items()} | {"client_realtime": realtime}
        found["halt_to_refusal_ms"] = quantiles(await halt_to_refusal(s, path, 20 if seconds > 10 else 3, accounts, names))
        later = [Worker(["worker", "--roles", "risk"], environment), Worker(["gateway", "--port", "0"], environment)]
        for w in later:
            assert await asyncio.to_thread(w.ready.wait, READY_S), "a worker did not come up"
        url = next(line.split()[-1] for line in later[1].lines if "READY" in line)
        found["breach_to_stream_ms"] = quantiles(await breach_to_stream(s, url, 40 if seconds > 10 else 3))
    finally:
        if load is not None:
            load.communicate()
        for w in workers + later:
            w.stop()
    p99 = {f"{k.rpartition('_')[0]}_p99_{k.rpartition('_')[2]}": v["p99"] for k, v in found.items() if isinstance(v, dict)}
    return {"orders_per_s": rate, "gate_orders_per_s": gate_rate, "seconds": seconds} | found | p99 | {"unanswered": 0, "broker": broker.name}


def main() -> None:
    """Run."""
    args = arguments(__doc__ or "")
    with scratch_broker() as (broker, folder):
        report = asyncio.run(measure(broker, folder, args.size))
    finish(args, {"bench": "orders"} | report)


if __name__ == "__main__":
    main()
