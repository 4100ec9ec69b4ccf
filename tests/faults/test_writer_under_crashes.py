"""The writer crashed at every one of its awaits, thousands of seeds: the state is always the fold of the log, once each.

A failing seed is in the test's message; `DESKRISK_SEED` repeats a random run.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import numpy as np
import pytest

from models import trade_columns as tc
from models.trade_decode import decode_trades
from tables.partition import MARKER_KEY, Marker
from tables.writer import PartitionWriter
from tests.faults.fake_broker import Broker, Client, Crash, Disk, Fenced, Scheduler
from tests.folding import assert_equal, naive, new_partition

SEEDS = int(os.environ.get("DESKRISK_SEEDS", "240"))  # 1,200 and more in `make nightly`
TOPIC = "trades"


def trades(rng: np.random.Generator, n: int) -> list[dict[str, Any]]:
    """Return trades with duplicates and disorder within the lateness."""
    out: list[dict[str, Any]] = []
    for k in range(n):
        if out and rng.random() < 0.15:
            out.append(out[int(rng.integers(len(out)))])
            continue
        out.append({"trade_id": f"T{k}", "account": f"A{int(rng.integers(1, 3))}", "instrument": ("EURUSD", "ACME", "INV")[int(rng.integers(3))],
                    "side": "buy" if rng.random() < 0.5 else "sell", "quantity": str(int(rng.integers(1, 50))), "price": f"{rng.uniform(1, 9):.2f}",
                    "ts_event": 1_800_000_000_000_000_000 + k * 1_000_000 - int(rng.integers(0, 3)) * 900_000})
    return out


class Life:
    """One process's life: restore, fold, flush, until it ends or crashes."""

    source = TOPIC

    def __init__(self, broker: Broker, disk: Disk, scheduler: Scheduler, rng: np.random.Generator) -> None:
        self.broker, self.disk, self.rng = broker, disk, rng
        self.part = new_partition()
        self.writer = PartitionWriter(Client(broker, scheduler, int(rng.integers(1, 6))), "group", "id", self.part, "changelog", disk,  # type: ignore[arg-type]
                                      sequence_max=int(rng.integers(5, 60)))
        self.acked = 0

    async def restore(self) -> int:
        """Fence, then read what is committed; return where reading goes on."""
        await self.writer.fence()
        start = self.disk.position or 0
        found, end = await self.read(start)
        rows: dict[bytes, bytes | None] = dict(self.disk.stored) if start else {}
        rows.update(found)
        live = {k: v for k, v in rows.items() if v is not None}
        if MARKER_KEY in live:
            self.writer.marker = Marker.unpack(live.pop(MARKER_KEY))
        self.part.restore(live)
        self.writer.changelog_position = end
        if found:  # what the local store did not have, it has now: its offset never runs ahead of its rows
            self.disk.write(found, end)
        return self.writer.marker.offsets.get(self.source, 0)

    async def read(self, start: int) -> tuple[dict[bytes, bytes | None], int]:
        """Return what is committed from an offset on, and where the log ends."""
        return self.broker.rows(start)

    async def work(self, log: list[dict[str, Any]]) -> None:
        """Fold the log from where it goes on to its end, in batches of any size, with a flush after some."""
        at = await self.restore()
        while at < len(log):
            n = int(self.rng.integers(1, 9))
            chunk = log[at : at + n]
            decoded = decode_trades([json.dumps(t).encode() for t in chunk])
            decoded.rows["offset"] = at + decoded.messages
            tc.resolve_trades(decoded.buffer, decoded.rows, self.part.reference.arrays())
            self.part.positions.apply(decoded.rows, self.part.reference.arrays())
            at += len(chunk)

            def ack(offset: int = at) -> None:
                self.acked = offset

            self.writer.advance(self.source, at, ack)
            if self.rng.random() < 0.6 or at == len(log):
                self.writer._disk_due = 0.0 if self.rng.random() < 0.3 else 1e18
                await self.writer.flush()
        await self.writer.stop()


async def lives(seed: int) -> dict[str, int]:
    """Live through crashes until the log is folded; return counts."""
    rng = np.random.default_rng(seed)
    log = trades(rng, int(rng.integers(5, 60)))
    broker, disk = Broker(), Disk(rng)
    crashes = 0
    while True:
        scheduler = Scheduler(crash_at=int(rng.integers(1, 60)) if crashes < 6 else None)
        life = Life(broker, disk, scheduler, rng)
        try:
            await life.work(log)
            break
        except Crash:
            crashes += 1
            found = broker.rows()[0].get(MARKER_KEY)
            stored = Marker.unpack(found).offsets[TOPIC] if found else 0
            assert life.acked <= stored, "acknowledged before it was durable"
    assert_equal(life.part, naive(log))
    # what a fresh process restores is the same, bit for bit
    again = Life(broker, disk, Scheduler(), rng)
    assert await again.restore() == len(log)
    assert again.part.state_hash() == life.part.state_hash()
    # and the same without the local store: the changelog alone is enough
    bare = Life(broker, Disk(rng), Scheduler(), rng)
    assert await bare.restore() == len(log)
    assert bare.part.state_hash() == life.part.state_hash()
    return {"crashes": crashes, "trades": len(log), "points": scheduler.passed}


@pytest.mark.parametrize("block", range(6))
def test_any_crash_leaves_the_fold_of_the_log(block: int, random_seed: int) -> None:
    total = 0
    for k in range(SEEDS // 6):
        seed = block * 10_000 + k if k % 2 else random_seed + block * 10_000 + k
        try:
            total += asyncio.run(lives(seed))["crashes"]
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    assert total > SEEDS / 6  # a harness that never crashes proves nothing


def test_every_await_of_the_writer_is_a_crash_point() -> None:
    """The names of the points seen are those of every call the writer makes."""
    seen: set[str] = set()
    rng = np.random.default_rng(1)

    async def run() -> None:
        scheduler = Scheduler(on_point=seen.add)
        await Life(Broker(), Disk(rng), scheduler, rng).work(trades(rng, 80))

    asyncio.run(run())
    assert seen == {"init", "pid", "begin", "send", "sent", "offsets", "commit", "committed", "stop"}


@pytest.mark.parametrize("seed", range(60))
def test_a_zombie_writes_nothing_more(seed: int) -> None:
    """F3, F7: an owner that slept wakes up after another took over, at any of its awaits."""
    rng = np.random.default_rng(seed)
    log = trades(rng, 40)

    async def run() -> None:
        broker = Broker()
        taken: list[Life] = []

        def take_over(_: str) -> None:
            if not taken and old_scheduler.passed == sleeps_at:
                taken.append(Life(broker, Disk(rng), Scheduler(), rng))
                broker.epochs["id"] = broker.epochs.get("id", 0) + 1  # the new owner's fence

        sleeps_at = int(rng.integers(3, 25))
        old_scheduler = Scheduler(on_point=take_over)
        old = Life(broker, Disk(rng), old_scheduler, rng)
        try:
            await old.work(log)
        except Fenced:
            assert taken
        if taken:
            await taken[0].work(log)
            assert_equal(taken[0].part, naive(log))

    asyncio.run(run())
