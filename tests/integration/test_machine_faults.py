"""F15, F19, F20: a full disk, no file descriptors, a slow machine, a blocked loop, a flood."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import threading
import time
from typing import Any

import pytest

from tables.kafka import owner_partition
from tests.integration.harness import INSTRUMENTS, Installation, Process, Upstream
from tests.support.patience import PATIENCE_S

pytestmark = pytest.mark.kafka


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
            assert any("writer of partition" in line and "failed, leaving" in line for line in worker.lines), worker.lines[-5:]
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


FLOOD = 1_000_000  # ticks; a fifth of them on one instrument, the rest each on a name that nobody knows


async def flood(made: Installation) -> float:
    """Send the flood as arrays of records, as fast as the broker takes them; return the last bid of the hot one."""
    topic, n = made.settings.topics()["ticks"], made.settings.partitions
    hot, bid = INSTRUMENTS[0].instrument, 0.0
    producer = made.settings.client().producer(linger_ms=5, max_batch_size=900_000)
    await producer.start()
    last = None
    for k in range(FLOOD // 500):
        now = time.time_ns()
        bid = 100.0 + k % 7 / 100
        known = [f'{{"instrument":"{hot}","bid":{bid},"ask":{bid + .02:.2f},"ts_event":{now + i}}}' for i in range(100)]
        new = [f'{{"instrument":"N{k}-{i}","bid":1,"ask":2,"ts_event":{now}}}' for i in range(400)]
        await producer.send(topic, f"[{','.join(known)}]".encode(), hot.encode(), owner_partition(hot, n))
        last = await producer.send(topic, f"[{','.join(new)}]".encode(), f"N{k}".encode(), k % n)
        if k % 50 == 0:
            await asyncio.sleep(0)
    await producer.stop()
    assert last is not None
    return bid


def test_a_flood_of_ticks_and_of_new_names(made: Installation) -> None:
    """F19: trades are folded meanwhile, the hot instrument has its last price, new names cost no memory."""
    async def scenario() -> None:
        await made.create()
        marks, positions = made.worker("marks", folder="m"), made.worker(folder="p")
        async with Upstream(made, 7) as upstream:
            for worker in (marks, positions):
                worker.wait_ready()
            await upstream.send(1_000)
            await made.quiesce()
            before = marks.resident_mb()
            trading = asyncio.create_task(upstream.send(4_000, duplicates=0.05, poison=0.3, pause_s=0.05))
            bid = await flood(made)
            await trading
            assert (await made.assert_exact())["trades"] == len(upstream.sent)
        topics, name = made.settings.topics(), INSTRUMENTS[0].instrument
        found: dict[str, dict[str, Any]] = {}
        deadline = time.monotonic() + PATIENCE_S
        while found.get(name, {}).get("bid") != bid and time.monotonic() < deadline:
            await asyncio.sleep(1)
            found = await made.newest("marks")
        assert found[name]["bid"] == bid
        assert not [key for key in found if key.startswith("N")]
        told = (await made.newest("quarantine")).values()
        unknown = [q for q in told if q["topic"] == topics["ticks"]]
        assert 1 <= len(unknown) < 100, "new names are told of once in a while, not once each"
        assert any(q["topic"] == topics["trades"] for q in told)
        for worker in (marks, positions):
            assert sum("READY" in line for line in worker.lines) == 1, worker.lines[-5:]
        assert marks.resident_mb() < before + 150
        for worker in (marks, positions):
            assert worker.stop(30) == 0
    asyncio.run(scenario())
