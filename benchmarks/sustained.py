"""Trades that arrive while they are folded: a fixed rate, open loop, and how far behind the worker is.

The records are encoded before the clock starts (the generator must not be what is measured); then each block leaves
when it is due. A worker that keeps up has a bounded backlog: what is sent and not yet committed.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from app.brokers import Broker
from benchmarks._common import PeerTrades, arguments, committed, finish, scratch_broker, wait_committed
from benchmarks.engine import durable_state, prepare, start_worker

RATES = {"smoke": (50_000, 4), "real": (150_000, 60)}
STEP_S = 0.05
SAMPLE_S = 0.5


def encode(producer: Any, trades: PeerTrades, rate: int, seconds: int) -> list[dict[int, Any]]:
    """Return the batches of every step, by partition."""
    steps = []
    for _ in range(round(seconds / STEP_S)):
        builders: dict[int, Any] = {}
        for partition, key, value in trades.block(round(rate * STEP_S)):
            if partition not in builders:
                builders[partition] = producer.create_batch()
            assert builders[partition].append(key=key, value=value, timestamp=None) is not None
        steps.append(builders)
    return steps


async def measure(broker: Broker, folder: Path, size: str, seed: int) -> dict[str, Any]:
    """Send at the rate, watch the backlog."""
    rate, seconds = RATES[size]
    s, client, trades = await prepare(broker, folder, seed)
    producer = client.producer(max_batch_size=900_000, linger_ms=0, acks=1)
    await producer.start()
    steps = encode(producer, trades, rate, seconds)
    print(f"  {rate * seconds:,} trades encoded", file=sys.stderr)
    worker = start_worker(broker, folder)
    backlog: list[tuple[float, int]] = []
    sent, late = 0, []

    async def watch() -> None:
        while True:
            backlog.append((time.monotonic(), sent - await committed(client, s.group("positions"), "trades")))
            await asyncio.sleep(SAMPLE_S)

    watcher = asyncio.create_task(watch())
    began, waiting = time.monotonic(), []
    for k, builders in enumerate(steps):
        due = began + k * STEP_S
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        late.append(time.monotonic() - due)
        for partition, builder in builders.items():
            waiting.append(await producer.send_batch(builder, "trades", partition=partition))
        sent += round(rate * STEP_S)
        steps[k] = {}
    for future in waiting:
        await future
    took = time.monotonic() - began
    drained = await wait_committed(client, s.group("positions"), "trades", sent, 60, []) - began - took
    watcher.cancel()
    await producer.stop()
    cpu = worker.cpu_s()
    worker.stop()
    state = await durable_state(client)
    assert state["quantity_sum"] == trades.quantity_sum, (state, trades.quantity_sum)
    half = [n for t, n in backlog if t > began + took / 2]
    return {"trades": sent, "trades_per_s": round(sent / took), "seconds": round(took, 1),
            "backlog_max_s": round(max(n for _, n in backlog) / rate, 2),
            "backlog_second_half_p50_s": round(float(np.median(half)) / rate, 2),
            "backlog_second_half_max_s": round(max(half) / rate, 2), "drained_after_s": round(drained, 2),
            "generator_late_ms_p99": round(float(np.percentile(late, 99)) * 1e3, 1), "worker_cpu_s": round(cpu, 1),
            "result_hash": state["hash"], "broker": broker.name}


def main() -> None:
    """Run."""
    args = arguments(__doc__ or "")
    with scratch_broker() as (broker, folder):
        report = asyncio.run(measure(broker, folder, args.size, args.seed))
    finish(args, report)


if __name__ == "__main__":
    main()
