"""Each trade once, whatever breaks: kills at every point of the writer, zombies, rebalances, broker restarts."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from app.brokers import KafkaBroker, java_and_maven
from tables.partition import Marker
from tables.store import DiskPartition
from tests.integration.harness import Installation, Upstream

pytestmark = pytest.mark.kafka
SEED = 20261121


@pytest.mark.parametrize(("point", "seeded"), [
    ("before_begin:2", True), ("mid_batch:2", True), ("before_commit:2", True), ("after_commit:2", True),
    ("before_commit:3", False)])
def test_kill_inside_the_writer(made: Installation, point: str, seeded: bool, random_seed: int) -> None:
    """F1: SIGKILL before begin, mid-batch, before commit, after commit before disk; a fixed and a random seed."""
    async def scenario() -> None:
        await made.create()
        async with Upstream(made, SEED if seeded else random_seed) as upstream:
            await upstream.send(600)
            doomed = made.worker(DESKRISK_FAULT=point).wait_ready()
            await upstream.send(2_000, duplicates=0.05, pause_s=0.02)
            assert await asyncio.to_thread(doomed.wait_exit) == -signal.SIGKILL
            before = await made.stored()
            made.worker().wait_ready()
            await upstream.send(500)
            stored = await made.quiesce()
            assert all(a >= b for a, b in zip(stored, before, strict=True)), "I3: the stored offset never goes back"
        report = await made.assert_exact()
        assert report["trades"] == len(upstream.sent) and report["duplicates"] > 0
    asyncio.run(scenario())


def test_kill_when_idle_and_while_restoring(made: Installation) -> None:
    """F1: SIGKILL when idle and during restore; the store on disk, and an empty one, give the same table."""
    async def scenario() -> None:
        await made.create()
        async with Upstream(made, SEED) as upstream:
            worker = made.worker().wait_ready()
            await upstream.send(1_500)
            await made.quiesce()
            worker.kill()
            assert await asyncio.to_thread(made.worker(DESKRISK_FAULT="restore:1").wait_exit) == -signal.SIGKILL
            made.worker().wait_ready()
            await upstream.send(300)
            await made.quiesce()
            made.processes[-1].kill()
            made.worker(folder="empty").wait_ready()
            await upstream.send(300)
        report = await made.assert_exact()
        assert report["trades"] == len(upstream.sent)
    asyncio.run(scenario())


def test_sigterm_under_load_replays_nothing(made: Installation) -> None:
    """F2: SIGTERM under load, twice: it ends in time, everything read is committed."""
    async def scenario() -> None:
        await made.create()
        async with Upstream(made, SEED) as upstream:
            for _ in range(2):
                worker = made.worker().wait_ready()
                sending = asyncio.create_task(upstream.send(3_000, pause_s=0.02))
                await asyncio.sleep(0.6)
                assert await asyncio.to_thread(worker.stop, 10.0) == 0
                await sending
            made.worker().wait_ready()
        await made.assert_exact()
    asyncio.run(scenario())


def test_a_zombie_is_fenced(made: Installation) -> None:
    """F3: SIGSTOP past the session timeout, then SIGCONT: the old owner writes nothing more and leaves."""
    async def scenario() -> None:
        await made.create()
        async with Upstream(made, SEED) as upstream:
            zombie = made.worker(folder="a").wait_ready()
            await upstream.send(800)
            await made.quiesce()
            await upstream.send(200)
            zombie.signal(signal.SIGSTOP)
            heir = made.worker(folder="b").wait_ready()
            await upstream.send(1_000)
            await made.quiesce()
            zombie.signal(signal.SIGCONT)
            await upstream.send(1_000, pause_s=0.05)
            await asyncio.sleep(3)
            assert heir.process.poll() is None
        await made.assert_exact()
    asyncio.run(scenario())


def test_rebalance_under_load(made: Installation) -> None:
    """F4: workers join and leave while trades flow."""
    async def scenario() -> None:
        await made.create()
        async with Upstream(made, SEED) as upstream:
            first = made.worker(folder="a").wait_ready()
            sending = asyncio.create_task(upstream.send(12_000, duplicates=0.02, pause_s=0.05))
            second = made.worker(folder="b")
            await asyncio.to_thread(second.wait_ready)
            await asyncio.sleep(2)
            await asyncio.to_thread(first.stop)
            third = made.worker(folder="a")
            await asyncio.to_thread(third.wait_ready)
            await asyncio.sleep(1)
            second.kill()
            await sending
        report = await made.assert_exact()
        assert report["trades"] == len(upstream.sent)
    asyncio.run(scenario())


@pytest.mark.skipif(java_and_maven() is not None, reason="needs the real Kafka: the embedded broker keeps no disk")
def test_broker_restart(tmp_path: Path) -> None:
    """F5: the broker is killed and comes back."""
    broker = KafkaBroker(tmp_path / "kafka", heap="512m")
    broker.start()
    made = Installation(broker, tmp_path / "data", "f5")

    async def supervise() -> None:  # a worker may leave rather than wait
        while True:
            await asyncio.sleep(0.5)
            if made.processes[-1].process.poll() is not None:
                made.start("worker", "--roles", "positions")

    async def scenario() -> None:
        await made.create()
        async with Upstream(made, SEED) as upstream:
            made.start("worker", "--roles", "positions").wait_ready()
            await upstream.send(1_000)
            await made.quiesce()
            supervisor = asyncio.create_task(supervise())
            broker.kill()
            await asyncio.sleep(3)
            broker.start()
            await upstream.send(1_000)
            await made.quiesce(120)
            supervisor.cancel()
        await made.assert_exact()
    try:
        asyncio.run(scenario())
    finally:
        made.close()
        broker.stop()


def test_duplicates_disorder_poison_and_foreign_partitions(made: Installation, random_seed: int) -> None:
    """F9 to F11: duplicates also after a restart, disorder, poison beside good records, wrong partitions."""
    async def scenario() -> None:
        await made.create()
        async with Upstream(made, random_seed) as upstream:
            worker = made.worker().wait_ready()
            await upstream.send(2_000, duplicates=0.1, wrong_partition=0.2, poison=0.05)
            await made.quiesce()
            worker.kill()
            made.worker(folder="b").wait_ready()
            await upstream.send(1_000, duplicates=0.3, wrong_partition=0.2, poison=0.05)
            await asyncio.sleep(2)
        report = await made.assert_exact()
        assert report["duplicates"] > 100
        assert report["trades"] == len(upstream.sent), "no batch mate of a poison record is lost"
        assert sum(await made.ends("quarantine")) > 50
    asyncio.run(scenario())


def test_a_store_of_another_log_is_thrown_away(made: Installation, tmp_path: Path) -> None:
    """Rows on disk that the changelog does not know (a broker made anew) are never served."""
    async def scenario() -> None:
        await made.create()
        for p in range(made.settings.partitions):
            disk = DiskPartition(tmp_path / "a" / f"positions-{p}", made.settings.topics()["positions-changelog"])
            disk.write(dict(Marker({made.settings.topics()["trades"]: 10_000}).close([])), 10_000)
            disk.close()
        made.worker().wait_ready()
        async with Upstream(made, SEED) as upstream:
            await upstream.send(300)
        report = await made.assert_exact()
        assert report["trades"] == 300
    asyncio.run(scenario())
