"""F15, F18, F20: a full disk, no file descriptors, a slow machine, a blocked loop, a clock that jumps."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.brokers import Broker
from tests.integration.harness import Installation, Process, Upstream

pytestmark = pytest.mark.kafka


@pytest.fixture
def made(broker: Broker, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Installation]:
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)[:60]
    installation = Installation(broker, tmp_path, name)
    yield installation
    installation.close()


def limited(worker: Process, what: int, value: int) -> None:
    """Set a resource limit of a running process."""
    resource.prlimit(worker.process.pid, what, (value, resource.getrlimit(what)[1]))


def test_a_full_disk(made: Installation) -> None:
    """F15: no byte can be written any more: the worker leaves before it acknowledges; a clean start is exact."""
    async def scenario() -> None:
        await made.create()
        async with Upstream(made, 3) as upstream:
            worker = made.worker().wait_ready()
            await upstream.send(1_000)
            before = await made.quiesce()
            limited(worker, resource.RLIMIT_FSIZE, 1)
            loading = asyncio.create_task(upstream.send(3_000, duplicates=0.05, pause_s=0.4))
            assert await asyncio.to_thread(worker.wait_exit) > 0
            await loading
            assert any("flush failed, leaving" in line for line in worker.lines), worker.lines[-5:]
            assert all(a >= b for a, b in zip(await made.stored(), before, strict=True))
            made.worker().wait_ready()
            assert (await made.assert_exact())["trades"] == len(upstream.sent)
    asyncio.run(scenario())


def test_no_file_descriptors(made: Installation) -> None:
    """F15: not one descriptor more than are open: it goes on or leaves, and a clean start is exact."""
    async def scenario() -> None:
        await made.create()
        async with Upstream(made, 4) as upstream:
            worker = made.worker().wait_ready()
            await upstream.send(1_000)
            await made.quiesce()
            limited(worker, resource.RLIMIT_NOFILE, len(os.listdir(f"/proc/{worker.process.pid}/fd")))
            await upstream.send(3_000, duplicates=0.05, pause_s=0.3)
            if worker.process.poll() is None:
                assert await asyncio.to_thread(worker.stop, 30) >= 0
            made.worker().wait_ready()
            assert (await made.assert_exact())["trades"] == len(upstream.sent)
    asyncio.run(scenario())


def test_a_third_of_a_core(made: Installation) -> None:
    """F20: stopped seven tenths of the time: slower, and no rebalance."""
    running = threading.Event()

    def throttle(worker: Process) -> None:
        while running.is_set():
            worker.signal(signal.SIGSTOP)
            time.sleep(0.07)
            worker.signal(signal.SIGCONT)
            time.sleep(0.03)

    async def scenario() -> None:
        await made.create()
        async with Upstream(made, 5) as upstream:
            worker = made.worker().wait_ready()
            running.set()
            thread = threading.Thread(target=throttle, args=(worker,))
            thread.start()
            try:
                await upstream.send(6_000, duplicates=0.05, pause_s=0.08)
                await made.assert_exact()
            finally:
                running.clear()
                thread.join()
            assert sum("READY" in line for line in worker.lines) == 1
            assert worker.stop() == 0
    asyncio.run(scenario())


def test_a_blocked_loop(made: Installation) -> None:
    """F20: ten seconds without a turn of the loop, three session timeouts: at most one rebalance, nothing twice."""
    async def scenario() -> None:
        await made.create()
        async with Upstream(made, 6) as upstream:
            worker = made.worker(DESKRISK_FAULT="before_begin:3:10").wait_ready()
            await upstream.send(3_000, duplicates=0.05, pause_s=0.3)
            await made.quiesce()
            await upstream.send(500)
            await made.assert_exact()
            assert sum("READY" in line for line in worker.lines) <= 2, worker.lines
            assert worker.stop() == 0
    asyncio.run(scenario())
