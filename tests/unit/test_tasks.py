"""Background tasks: none ends or hangs unseen."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest

from tables.exit_codes import ExitCode
from tables.tasks import Restart, Supervision
from tables.watchdog import Watchdog


class Counted:
    def __init__(self) -> None:
        self.of: dict[tuple[str, ...], float] = {}

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        key = (name, *labels.values())
        self.of[key] = self.of.get(key, 0) + amount


def supervised() -> tuple[Supervision, Counted, list[int]]:
    left: list[int] = []
    made = Supervision("risk", left.append)
    made.counters = counted = Counted()
    return made, counted, left


async def raises() -> None:
    await asyncio.sleep(0)
    raise OverflowError("year 9999")


async def returns() -> None:
    await asyncio.sleep(0)


async def waits_for_what_is_cancelled() -> None:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.cancel)
    await future


async def _ends(ends: Callable[[], Coroutine[Any, Any, None]]) -> None:
    made, counted, left = supervised()
    await made.start("publish loop", ends, code=ExitCode.WRITER)
    assert left == [70] and counted.of == {("background_task_failures", "risk", "publish loop"): 1}
    assert made.failures == {"publish loop": 1} and made.names() == []


@pytest.mark.parametrize("ends", [raises, returns, waits_for_what_is_cancelled])
def test_a_task_that_ends_ends_its_process_and_says_why(ends: Callable[[], Coroutine[Any, Any, None]],
                                                        caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(_ends(ends))
    (record,) = [r for r in caplog.records if r.levelno == logging.CRITICAL]
    assert "publish loop" in record.getMessage() and "70" in record.getMessage() and record.exc_info


def test_a_task_that_is_cancelled_or_told_to_end_is_no_failure() -> None:
    async def run() -> None:
        made, counted, left = supervised()
        task = made.start("tail", lambda: asyncio.sleep(60))
        await asyncio.sleep(0)
        assert made.names() == ["tail"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await made.start("publisher", returns, may_return=lambda: True)
        await made.errand("reload", returns)
        assert not left and not counted.of and made.names() == []
    asyncio.run(run())


def test_a_restartable_task_is_started_again_and_each_time_counted() -> None:
    made, counted, left = supervised()
    starts: list[float] = []

    async def fails_thrice() -> None:
        starts.append(time.monotonic())
        if len(starts) < 4:
            raise ValueError("not yet")
        await asyncio.sleep(60)

    async def run() -> None:
        task = made.start("addresses", fails_thrice, restart=Restart(0.01, 0.02))
        while len(starts) < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        task.cancel()
    asyncio.run(run())
    assert not left and counted.of == {("background_task_restarts", "risk", "addresses"): 3}
    assert starts[3] - starts[1] >= 0.04


def test_an_errand_that_fails_is_counted_and_the_process_goes_on() -> None:
    made, counted, left = supervised()

    async def run() -> None:
        await made.errand("reload", raises)
    asyncio.run(run())
    assert not left and counted.of == {("background_task_failures", "risk", "reload"): 1}


def test_a_task_that_hangs_is_overdue_and_one_that_turns_is_not() -> None:
    async def run() -> None:
        made, _, _ = supervised()

        async def turns() -> None:
            while True:
                await asyncio.sleep(0.01)
                made.turned()

        tasks = [made.start("turns", turns, bound_s=0.2), made.start("hangs", lambda: asyncio.sleep(60), bound_s=0.4),
                 made.start("waits for events", lambda: asyncio.sleep(60))]
        await asyncio.sleep(0.25)
        now = time.monotonic()
        assert made.overdue(now) is None and made.ages(now).keys() == {"turns", "hangs"}
        assert (made.overdue(now, 0.5) or "").startswith("hangs: no turn completed")
        await asyncio.sleep(0.2)
        assert (made.overdue(time.monotonic()) or "").startswith("hangs: no turn completed")
        for task in tasks:
            task.cancel()
    asyncio.run(run())


def test_the_watchdog_ends_a_process_with_a_hanging_task(left: list[int]) -> None:
    from tables.tasks import process

    async def run() -> None:
        task = process.start("hangs", lambda: asyncio.sleep(60), bound_s=0.1)
        Watchdog("risk").start()
        while not left:  # noqa: ASYNC110 - it leaves from a thread
            await asyncio.sleep(0.05)
        task.cancel()
    asyncio.run(run())
    assert left == [72] and threading.active_count() < 50
    left.clear()


def test_every_exit_code_says_what_it_means() -> None:
    assert len({c.value for c in ExitCode}) == len(ExitCode) and all(c.meaning for c in ExitCode)
    assert ExitCode(72) is ExitCode.STUCK


def test_readiness_is_served_beside_the_metrics_with_the_reason() -> None:
    from app.metrics import PrometheusCounters

    counters, why = PrometheusCounters(), ["publish loop: no turn completed for 6.0 s"]
    counters.set("process_restarts", 3)
    url = f"http://127.0.0.1:{counters.serve(0, lambda: why[0] if why else None)}"
    found = httpx.get(f"{url}/health/ready")
    assert found.status_code == 503 and "publish loop" in found.text
    why.clear()
    assert httpx.get(f"{url}/health/ready").status_code == 200
    assert "deskrisk_process_restarts 3.0" in httpx.get(f"{url}/metrics").text
