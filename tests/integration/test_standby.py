"""F23: a standby is promoted; it reads the end of a changelog, not all of it, and the numbers are the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.brokers import Broker
from tables.store import DiskPartition
from tests.integration.harness import Installation, Process, Upstream, prefix_of
from tests.support.patience import PATIENCE_S

pytestmark = pytest.mark.kafka


@pytest.fixture
def made(broker: Broker, tmp_path: Any, request: pytest.FixtureRequest) -> Iterator[Installation]:
    installation = Installation(broker, tmp_path, prefix_of(request.node.nodeid))
    yield installation
    installation.close()


async def owns_everything(worker: Process, after: int) -> None:
    """Wait until a worker says READY with all four partitions, in a line after the first ``after`` ones."""
    deadline = time.monotonic() + PATIENCE_S
    while not any(line == "READY positions 0,1,2,3" for line in worker.lines[after:]):
        assert time.monotonic() < deadline, "\n".join(worker.lines[-20:])
        await asyncio.sleep(0.05)


def restored(worker: Process, after: int = 0) -> list[int]:
    """Return how many changelog records each take-over read."""
    return [int(line.split()[1]) for line in worker.lines[after:] if line.startswith("RESTORED")]


def copied(made: Installation, folder: Path) -> dict[int, int]:
    """Return the changelog offset of each store of a stopped worker."""
    topic, found = made.settings.topics()["positions-changelog"], {}
    for p in range(made.settings.partitions):
        disk = DiskPartition(folder / f"positions-{p}", topic)
        found[p] = disk.offset() or 0
        disk.close()
    return found


def test_a_standby_takes_over_and_a_second_time(made: Installation, tmp_path: Path) -> None:
    async def scenario() -> None:
        await made.create()
        async with Upstream(made, 5) as upstream:
            first = made.worker(folder="a", DESKRISK_STANDBY="1").wait_ready()
            second = made.worker(folder="b", DESKRISK_STANDBY="1").wait_ready()
            await upstream.send(6_000, duplicates=0.02, pause_s=0.02)
            await made.quiesce()
            await asyncio.sleep(2.5)  # a copy is written every second
            log_records = sum(await made.ends("positions-changelog"))
            seen = len(second.lines)
            first.kill()
            await owns_everything(second, seen)
            read = sum(restored(second, seen))
            assert read < 0.02 * log_records, (read, log_records)
            await upstream.send(1_000)
            await made.assert_exact()
            # the killed one comes back over its old, shorter stores, and follows; then it is promoted in turn
            third = made.worker(folder="a", DESKRISK_STANDBY="1").wait_ready()
            await upstream.send(1_000)
            await made.quiesce()
            await asyncio.sleep(2.5)
            seen = len(third.lines)
            second.kill()
            await owns_everything(third, seen)
            await upstream.send(200)
            await made.assert_exact()
            assert third.stop() == 0
            ends = await made.ends("positions-changelog")
            assert all(offset > 0.9 * end for offset, end in zip(copied(made, tmp_path / "a").values(), ends,
                                                                  strict=True))
    asyncio.run(scenario())


def test_a_standby_of_another_log_starts_over(made: Installation, tmp_path: Path) -> None:
    """Stores further on than the log (the broker was emptied) are thrown away, not promoted."""
    topic = made.settings.topics()["positions-changelog"]
    for p in range(made.settings.partitions):
        disk = DiskPartition(tmp_path / "b" / f"positions-{p}", topic)
        disk.write({b"Pnobody\x1fnothing": b"left over from another log"}, 10_000_000)
        disk.close()

    async def scenario() -> None:
        await made.create()
        async with Upstream(made, 6) as upstream:
            first = made.worker(folder="a").wait_ready()
            second = made.worker(folder="b", DESKRISK_STANDBY="1").wait_ready()
            await upstream.send(1_500)
            await made.quiesce()
            seen = len(second.lines)
            first.kill()
            await owns_everything(second, seen)
            await upstream.send(200)
            await made.assert_exact()
    asyncio.run(scenario())
