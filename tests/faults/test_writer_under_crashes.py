"""The writer crashed at every one of its awaits, thousands of seeds: the state is always the fold of the log, once each.

A failing seed is in the test's message; `DESKRISK_SEED` repeats a random run.
"""

from __future__ import annotations

import asyncio
import os

import numpy as np
import pytest

from tables import writer
from tests.faults.fake_broker import Broker, Crash, Disk, Fenced, Scheduler
from tests.faults.lives import Life, stored, trades
from tests.folding import assert_equal, naive

SEEDS = int(os.environ.get("DESKRISK_SEEDS", "240"))  # 1,200 and more in `make nightly`


async def lives(seed: int) -> dict[str, int]:
    """Live through crashes until the log is folded; return counts."""
    rng = np.random.default_rng(seed)
    log = trades(rng, int(rng.integers(5, 60)))
    broker, disk = Broker(), Disk(rng)
    crashes = 0
    while True:
        scheduler = Scheduler(crash_at=int(rng.integers(1, 60)) if crashes < 6 else None)
        disk.crashes = 0.05 if crashes < 6 else 0.0
        life = Life(broker, disk, scheduler, rng)
        try:
            await life.work(log)
            break
        except Crash:
            crashes += 1
            assert life.acked <= await stored(broker), "acknowledged before it was durable"
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


def test_what_waits_of_a_row_does_not_come_back_over_what_is_newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that has grown large is written at once: what waited of it, and came to the disk later, was older."""
    monkeypatch.setattr(writer, "STAGED_BYTES_MAX", 100)
    rng = np.random.default_rng(0)

    async def run() -> dict[bytes, bytes]:
        life = Life(Broker(), Disk(rng), Scheduler(), rng)
        await life.restore()
        life.writer._disk_due = 1e18
        for k, value in enumerate((b"small", b"L" * 101, b"small again", b"M" * 101)):
            monkeypatch.setattr(life.part, "cut", lambda value=value: [(b"Pa", value), (b"Pb", b"%d" % len(value))])
            life.writer.advance("trades", k + 1)
            await life.writer.flush()
        await life.writer._to_disk(force=True)
        return life.disk.stored

    stored = asyncio.run(run())
    assert (stored[b"Pa"], stored[b"Pb"]) == (b"M" * 101, b"101")
