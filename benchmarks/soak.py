"""Hours of mixed faults under load, in the sizes a desk has: then every position is folded again from the trades.

Two position workers (standbys of each other) and a mark worker are killed, stopped and frozen at random, and the broker
is paused and killed; the risk worker and the gateway, which no fault touches directly, show whether memory is flat.
Set ``DESKRISK_SOAK_MINUTES`` for another length.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from app.brokers import Broker
from app.settings import Settings
from app.verify import run_verify
from benchmarks._common import READY_S, Worker, arguments, committed, finish, scratch_broker
from tables.kafka import create_topics

MINUTES = {"smoke": 10.0, "real": 60.0}
TRADES_PER_S, TICKS_PER_S = 1_000, 19_000
OPENING = 20_000
FAULT_EVERY_S = 15.0
FAULTS = ("kill", "kill", "stop", "freeze", "kill marks", "pause broker", "kill broker")
FREEZE_S, PAUSE_S, DOWN_S = 9.0, 4.0, 5.0
WARM_S = 120.0


class Soak:
    """The processes, kept running, and what was done to them."""

    def __init__(self, broker: Broker, folder: Path, seed: int) -> None:
        self.broker, self.folder = broker, folder
        self.settings = Settings(brokers=broker.address)
        self.rng = np.random.default_rng(seed)
        self.workers: dict[str, Worker] = {}
        self.done: Counter[str] = Counter()
        self.exits: Counter[str] = Counter()
        self.memory: dict[str, list[tuple[float, float]]] = {"risk": [], "gateway": []}
        self.stopping = False

    def start(self, name: str) -> None:
        """Start one process."""
        role = name.rstrip("ab") if name.startswith("positions") else name
        words = {"gateway": ["gateway"], "feed": [
            "feed", "--tick-rate", str(TICKS_PER_S), "--trade-rate", str(TRADES_PER_S), "--opening", str(OPENING)]}
        environment = {"DESKRISK_BROKERS": self.broker.address, "DESKRISK_SESSION_TIMEOUT_S": "3",
                       "DESKRISK_DATA_DIR": str(self.folder / name), "DESKRISK_GATEWAY_PORT": "0",
                       "DESKRISK_LOG_LEVEL": "error"}
        if role == "positions":
            environment["DESKRISK_STANDBY"] = "1"
        self.workers[name] = Worker(words.get(name, ["worker", "--roles", role]), environment)

    async def keep(self) -> None:
        """Start again what ended; sample memory."""
        began = time.monotonic()
        while not self.stopping:
            for name, worker in list(self.workers.items()):
                code = worker.process.poll()
                if code is not None:
                    self.exits[f"{name} {code}"] += 1
                    self.start(name)
                elif name in self.memory:
                    self.memory[name].append((time.monotonic() - began, worker.rss_mb()))
            await asyncio.sleep(1.0)

    async def hurt(self) -> None:
        """Do one thing."""
        what = FAULTS[int(self.rng.integers(len(FAULTS)))]
        self.done[what] += 1
        worker = self.workers[f"positions{'ab'[int(self.rng.integers(2))]}"]
        if what == "kill":
            worker.process.kill()
        elif what == "stop":
            worker.process.terminate()
        elif what == "kill marks":
            self.workers["marks"].process.kill()
        elif what == "freeze":
            worker.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(FREEZE_S)
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(signal.SIGCONT)
        elif self.broker.process is not None and what == "pause broker":
            self.broker.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(PAUSE_S)
            self.broker.process.send_signal(signal.SIGCONT)
        else:
            await asyncio.to_thread(self.broker.kill)
            await asyncio.sleep(DOWN_S)
            await asyncio.to_thread(self.broker.start)

    def end(self) -> None:
        """End everything."""
        self.stopping = True
        for worker in self.workers.values():
            worker.stop()

    def growth(self) -> dict[str, Any]:
        """Return the memory of the untouched processes: the middle of the first and of the last quarter after warm-up."""
        out = {}
        for name, samples in self.memory.items():
            rows = np.array([s for s in samples if s[0] > WARM_S] or samples)
            quarter = max(1, len(rows) // 4)
            first, last = float(np.median(rows[:quarter, 1])), float(np.median(rows[-quarter:, 1]))
            out[name] = {"first_quarter_mb": round(first), "last_quarter_mb": round(last),
                         "growth": round(last / first - 1, 3)}
        return out


async def drained(settings: Settings, timeout_s: float = 300.0) -> None:
    """Wait until the position workers have committed every trade."""
    from aiokafka.structs import TopicPartition

    deadline = time.monotonic() + timeout_s
    consumer = settings.client().consumer()
    await consumer.start()
    try:
        tps = [TopicPartition("trades", p) for p in range(settings.partitions)]
        while True:
            ends = sum((await consumer.end_offsets(tps)).values())
            done = await committed(settings.client(), settings.group("positions"), "trades")
            if done >= ends:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{done} of {ends} trades committed")
            await asyncio.sleep(1.0)
    finally:
        await consumer.stop()


async def measure(broker: Broker, folder: Path, minutes: float, seed: int) -> dict[str, Any]:
    """Run, hurt, stop the feed, wait for the end of the log, and prove the table."""
    soak = Soak(broker, folder, seed)
    s = soak.settings
    await create_topics(s.client(), "", s.partitions, s.horizon_ms, 1, 120_000)
    for name in ("positionsa", "positionsb", "marks", "risk", "gateway", "feed"):
        soak.start(name)
    if not await asyncio.to_thread(soak.workers["feed"].ready.wait, READY_S):
        raise TimeoutError("the feed did not come up")
    keeper = asyncio.create_task(soak.keep())
    began = time.monotonic()
    try:
        while time.monotonic() - began < minutes * 60:
            await asyncio.sleep(FAULT_EVERY_S * float(soak.rng.uniform(0.5, 1.5)))
            await soak.hurt()
            print(f"  {time.monotonic() - began:6.0f} s {dict(soak.done)}", file=sys.stderr)
        soak.stopping = True
        await keeper
        soak.workers.pop("feed").stop()
        for name in ("positionsa", "positionsb"):
            if soak.workers[name].process.poll() is not None:
                soak.start(name)
        await drained(s)
        restarts = {k: v for k, v in soak.exits.items() if k.partition(" ")[0] in ("risk", "gateway", "feed")}
    finally:
        soak.end()
    report = await run_verify(s)
    return {"minutes": minutes, "events_per_s": TRADES_PER_S + TICKS_PER_S, "faults": sum(soak.done.values()),
            "by_kind": dict(soak.done), "trades": report["trades"], "positions": report["positions"],
            "differences": len(report["differences"]), "shown": report["differences"][:5],
            "exits": dict(soak.exits), "untouched_restarts": restarts, "memory": soak.growth(), "broker": broker.name}


def main() -> None:
    """Run."""
    args = arguments(__doc__ or "")
    minutes = float(os.environ.get("DESKRISK_SOAK_MINUTES", MINUTES[args.size]))
    with scratch_broker() as (broker, folder):
        report = asyncio.run(measure(broker, folder, minutes, args.seed))
    finish(args, report)


if __name__ == "__main__":
    main()
