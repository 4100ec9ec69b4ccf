"""A killed worker's partitions, taken over by another: cold, and by a standby; the reader's pause in a rolling restart.

The changelog is filled first (ten versions of every key), as after a day. Both workers have stores of their own, as two
machines do. The time counts from the SIGKILL, so it includes the session timeout after which the dead one is out.
"""

from __future__ import annotations

import asyncio
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka.structs import TopicPartition

from app.brokers import Broker
from app.reference_files import publish_reference
from app.settings import Settings
from benchmarks._common import READY_S, PeerTrades, Worker, arguments, finish, scratch_broker
from benchmarks.restore import KEYS, PARTITIONS, fill
from schemas.codec import decoder_of
from schemas.records import Account, Instrument, Position
from tables.kafka import KafkaClient, create_topics
from tables.records import fetch_slices

SESSION_S = 2.0
RATE = 1_000
STEADY_S = {"smoke": 4.0, "real": 10.0}
_position = decoder_of(Position)


class Installation:
    """Topics under a prefix, and two workers with stores of their own."""

    def __init__(self, broker: Broker, folder: Path, prefix: str, size: str) -> None:
        self.settings = Settings(brokers=broker.address, partitions=PARTITIONS, prefix=prefix)
        self._folder = folder / prefix
        self.accounts = [f"ACC{i:04d}" for i in range(KEYS[size] // 200)]
        self.instruments = [f"INS{i:04d}" for i in range(200)]
        self.rows = 0

    async def prepare(self) -> None:
        """Create the topics, the names, and a day's changelog."""
        s = self.settings
        client = KafkaClient(str(s.brokers))
        await create_topics(client, s.prefix, PARTITIONS, s.horizon_ms)
        await publish_reference(
            client, s.topics(), [Instrument(instrument=n, asset_class="equity", currency="USD",
                                            quantity_increment=Decimal(1)) for n in self.instruments],
            [Account(account=n, book=f"B{i % 50}", desk=f"D{i % 20}", strategy=f"S{i % 10}", fund=f"F{i % 5}")
             for i, n in enumerate(self.accounts)])
        self.rows = await fill(client, [(a, i) for a in self.accounts for i in self.instruments],
                               s.prefix)

    def worker(self, name: str, standby: bool) -> Worker:
        """Start a worker."""
        s = self.settings
        return Worker(["worker", "--roles", "positions"], {
            "DESKRISK_BROKERS": str(s.brokers), "DESKRISK_PREFIX": s.prefix, "DESKRISK_INSTANCE": name,
            "DESKRISK_DATA_DIR": str(self._folder / name), "DESKRISK_SESSION_TIMEOUT_S": str(SESSION_S),
            "DESKRISK_STANDBY": "1" if standby else "0"})


async def line(worker: Worker, wanted: str, after: int = 0) -> float:
    """Wait for a line; return the moment."""
    deadline = time.monotonic() + 60
    while wanted not in worker.lines[after:]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {wanted!r} in {worker.lines[-5:]}")
        await asyncio.sleep(0.01)
    return time.monotonic()


async def takeover(made: Installation, standby: bool) -> dict[str, Any]:
    """Kill the first of two workers; return how long until the second one serves everything."""
    await made.prepare()
    first = made.worker("a", standby)
    await line(first, f"READY positions {','.join(map(str, range(PARTITIONS)))}")
    second = made.worker("b", standby)
    if not second.ready.wait(READY_S):
        raise TimeoutError("the second worker did not come up")
    await asyncio.sleep(6.0)  # copies reach the end
    seen = len(second.lines)
    killed = time.monotonic()
    first.process.kill()
    took = await line(second, f"READY positions {','.join(map(str, range(PARTITIONS)))}", seen) - killed
    restored = [text.split() for text in second.lines[seen:] if text.startswith("RESTORED")]
    rss = second.rss_mb()
    second.stop()
    return {"takeover_s": round(took, 2), "of_which_session_timeout_s": SESSION_S,
            "restore_s": round(sum(float(r[2]) for r in restored), 2),
            "changelog_records_read": sum(int(r[1]) for r in restored), "rss_mb": round(rss)}


class Reader:
    """Reads `positions` as a dashboard does, and keeps the longest silence of each trade partition."""

    def __init__(self, settings: Settings) -> None:
        self._s = settings
        self._last: dict[int, float] = {}
        self.pauses: list[float] = []
        self.steps_back = 0
        self._seen: dict[bytes, tuple[int, int]] = {}

    async def run(self) -> None:
        """Follow until cancelled."""
        consumer = self._s.client().consumer(isolation_level="read_uncommitted")
        await consumer.start()
        consumer.assign([TopicPartition(self._s.topics()["positions"], p) for p in range(PARTITIONS)])
        try:
            while True:
                for batch in (await fetch_slices(consumer._fetcher, None, 0.5, True)).values():
                    now = time.monotonic()
                    for key, value in zip(batch.keys, batch.values, strict=True):
                        row = _position.decode(value)
                        p = row.as_of.partition
                        self.pauses.append(now - self._last.get(p, now))
                        self._last[p] = now
                        version = (row.as_of.offset, row.revision)
                        self.steps_back += version < self._seen.get(key, (-1, -1))
                        self._seen[key] = max(version, self._seen.get(key, (-1, -1)))
        finally:
            await consumer.stop()


async def load(made: Installation, seed: int) -> None:
    """Send trades at a steady rate until cancelled."""
    trades = PeerTrades(seed, len(made.accounts), len(made.instruments), PARTITIONS)
    producer = made.settings.client().producer(linger_ms=2)
    await producer.start()
    topic, due = made.settings.topics()["trades"], time.monotonic()
    try:
        while True:
            for partition, key, value in trades.block(RATE // 50):
                await producer.send(topic, value, key, partition)
            due += 0.02
            await asyncio.sleep(max(0.0, due - time.monotonic()))
    finally:
        await producer.stop()


async def rolling(made: Installation, size: str, seed: int) -> dict[str, Any]:
    """Restart each of two workers under load; return the longest silence a reader met."""
    await made.prepare()
    workers = {}
    for name in ("a", "b"):
        workers[name] = made.worker(name, True)
        if not workers[name].ready.wait(READY_S):
            raise TimeoutError(f"worker {name} did not come up")
    await asyncio.sleep(8.0)
    reader = Reader(made.settings)
    tasks = [asyncio.create_task(load(made, seed)), asyncio.create_task(reader.run())]
    await asyncio.sleep(STEADY_S[size])
    steady = max(reader.pauses, default=0.0)
    for name in workers:
        workers[name].process.terminate()
        await asyncio.to_thread(workers[name].process.wait, 30)
        workers[name] = made.worker(name, True)
        if not await asyncio.to_thread(workers[name].ready.wait, READY_S):
            raise TimeoutError(f"worker {name} did not come back")
        await asyncio.sleep(STEADY_S[size])
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for w in workers.values():
        w.stop()
    return {"rolling_worst_pause_s": round(float(np.max(reader.pauses)), 2), "steady_worst_pause_s": round(steady, 2),
            "rolling_rows": len(reader.pauses), "rows_behind_what_was_shown": reader.steps_back}


def main() -> None:
    """Run."""
    args = arguments(__doc__ or "")
    report: dict[str, Any] = {}
    with scratch_broker() as (broker, folder):
        for name, standby in (("cold", False), ("standby", True)):
            made = Installation(broker, folder, f"{name}-", args.size)
            report[name] = asyncio.run(takeover(made, standby))
            print(f"  {name}: {report[name]}", file=sys.stderr)
        report |= {"changelog_records": made.rows, "keys": len(made.accounts) * len(made.instruments)}
        report |= asyncio.run(rolling(Installation(broker, folder, "rolling-", args.size), args.size, args.seed))
        report["broker"] = broker.name
    finish(args, report)


if __name__ == "__main__":
    main()
