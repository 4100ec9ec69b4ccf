"""What every benchmark shares: sizes, a broker, the machine, one JSON line at the end."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from app.brokers import Broker, EmbeddedBroker, KafkaBroker, java_and_maven
from app.supervisor import malloc_settings
from tables.kafka import KafkaClient, owner_partition

ROOT = Path(__file__).resolve().parent.parent
SEED = 42
#: a worker comes up in seconds; where tests share the processors it takes longer
READY_S = 300.0


def arguments(description: str) -> argparse.Namespace:
    """Read ``--size smoke|real --json --seed``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--size", choices=("smoke", "real"), default="smoke")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args()


def machine() -> str:
    """Return cores, memory, load and versions, in words."""
    memory = psutil.virtual_memory().total / 2**30
    return (f"{psutil.cpu_count()} cores, {memory:.0f} GiB, load {os.getloadavg()[0]:.1f}, "
            f"Python {platform.python_version()}, numpy {np.__version__}")


def finish(args: argparse.Namespace, report: dict[str, Any]) -> None:
    """Print the report; with ``--json`` the last line is one object."""
    report = {"size": args.size, "seed": args.seed, "machine": machine()} | report
    for key, value in report.items():
        print(f"  {key}: {value}", file=sys.stderr)
    print(json.dumps(report), flush=True)


@contextlib.contextmanager
def scratch_broker() -> Iterator[tuple[Broker, Path]]:
    """Start a real Kafka (the embedded broker where there is no Java) in a scratch folder."""
    with tempfile.TemporaryDirectory(prefix="deskrisk-bench-") as folder:
        path = Path(folder)
        broker: Broker = EmbeddedBroker() if java_and_maven() else KafkaBroker(path / "kafka", heap="1g")
        broker.start()
        try:
            yield broker, path
        finally:
            broker.stop()


class Worker:
    """A worker process under measurement."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self.lines: list[str] = []
        self.ready = threading.Event()
        self.process = subprocess.Popen([sys.executable, "-m", "app", *arguments, "--supervised"], cwd=ROOT,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=os.environ | malloc_settings(arguments) | environment)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.strip())
            if "READY" in line:
                self.ready.set()

    def rss_mb(self) -> float:
        """Return its resident memory."""
        return psutil.Process(self.process.pid).memory_info().rss / 2**20

    def cpu_s(self) -> float:
        """Return its CPU time."""
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        self.process.kill()


class PeerTrades:
    """The peers' workload: uniform accounts and instruments, a random walk of prices, JSON of about 140 bytes."""

    def __init__(self, seed: int, accounts: int, instruments: int, partitions: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.accounts = [f"ACC{i:04d}" for i in range(accounts)]
        self.instruments = [f"INS{i:04d}" for i in range(instruments)]
        self.owner = np.array([owner_partition(a, partitions) for a in self.accounts])
        self.price = np.round(self.rng.uniform(5, 500, instruments), 2)
        self.n = 0
        self.quantity_sum = 0

    def block(self, size: int) -> list[tuple[int, bytes, bytes]]:
        """Return (partition, key, value) of the next trades."""
        rng = self.rng
        a, k = rng.integers(0, len(self.accounts), size), rng.integers(0, len(self.instruments), size)
        buy, quantity = rng.random(size) < 0.5, rng.integers(1, 1001, size)
        self.price = np.maximum(np.round(self.price * (1 + rng.uniform(-0.001, 0.001, len(self.price))), 2), 1.0)
        price = self.price[k]
        self.quantity_sum += int(np.where(buy, quantity, -quantity).sum())
        first = self.n
        self.n += size
        names, items = self.accounts, self.instruments
        return [(p, names[i].encode(), b'{"trade_id":"T%09d","account":"%s","instrument":"%s","side":"%s","quantity":%d,'
                 b'"price":%.2f,"ts_event":%d}' % (first + j, names[i].encode(), items[m].encode(),
                                                   b"BUY" if b else b"SELL", q, x,
                                                   1735689600000000000 + (first + j) * 1_000_000))
                for j, (p, i, m, b, q, x) in enumerate(zip(self.owner[a].tolist(), a.tolist(), k.tolist(), buy.tolist(),
                                                           quantity.tolist(), price.tolist(), strict=True))]


async def produce(client: KafkaClient, topic: str, trades: PeerTrades, count: int, block: int = 40_000) -> None:
    """Put trades on the log in large batches."""
    producer = client.producer(max_batch_size=900_000, linger_ms=0, acks=1)
    await producer.start()
    waiting: list[Any] = []
    while count:
        size = min(block, count)
        count -= size
        builders: dict[int, Any] = {}
        for partition, key, value in trades.block(size):
            builder = builders.get(partition)
            if builder is None or builder.append(key=key, value=value, timestamp=None) is None:
                if builder is not None:
                    waiting.append(await producer.send_batch(builder, topic, partition=partition))
                builders[partition] = builder = producer.create_batch()
                builder.append(key=key, value=value, timestamp=None)
        for partition, builder in builders.items():
            waiting.append(await producer.send_batch(builder, topic, partition=partition))
    for future in waiting:
        await future
    await producer.stop()


async def committed(client: KafkaClient, group: str, topic: str) -> int:
    """Return the sum of a group's committed offsets on a topic."""
    admin = client.admin()
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(group)
        return sum(o.offset for tp, o in found.items() if tp.topic == topic and o.offset > 0)
    finally:
        await admin.close()


async def wait_committed(client: KafkaClient, group: str, topic: str, count: int, timeout: float,
                         samples: list[tuple[float, int]]) -> float:
    """Wait until a group has committed ``count`` records; return the moment (monotonic)."""
    deadline = time.monotonic() + timeout
    while True:
        done = await committed(client, group, topic)
        now = time.monotonic()
        samples.append((now, done))
        if done >= count:
            return now
        if now > deadline:
            raise TimeoutError(f"{group}: {done} of {count} after {timeout} s")
        await asyncio.sleep(0.25)
