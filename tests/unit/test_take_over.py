"""Faust's part of a take-over: one that gets no answer ends the process, and nothing counts as resumed before it is."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import faust
import pytest
from aiokafka.errors import IllegalStateError, KafkaTimeoutError
from faust.tables.recovery import Recovery, ServiceStopped

from tables.exit_codes import ExitCode
from tables.manager import EngineTableManager


def manager(tmp_path: Path) -> EngineTableManager:
    app = faust.App("take-over", datadir=str(tmp_path), store="memory://", TableManager=EngineTableManager)
    made: EngineTableManager = app.tables
    return made


async def refused(error: Exception) -> None:
    raise error


def test_a_recovery_that_gets_no_answer_ends_the_process(tmp_path: Path, left: list[int]) -> None:
    async def scenario() -> None:
        recovery = manager(tmp_path).recovery
        await recovery._wait(asyncio.sleep(0), timeout=5.0)
        assert not left
        with pytest.raises(ServiceStopped):  # as it is without: the recovery would end, and nobody would know
            await Recovery._wait(recovery, asyncio.sleep(5), timeout=0.01)
        assert not left
        with pytest.raises(ServiceStopped):
            await recovery._wait(asyncio.sleep(5), timeout=0.01)
        assert left == [ExitCode.RESTORE]
        left.clear()
        with pytest.raises(KafkaTimeoutError):
            await recovery._wait(refused(KafkaTimeoutError()), timeout=5.0)
        assert left == [ExitCode.RESTORE]
        left.clear()
        with pytest.raises(IllegalStateError):  # another rebalance has begun
            await recovery._wait(refused(IllegalStateError()), timeout=5.0)
        recovery._stopped.set()
        with pytest.raises(ServiceStopped):  # it was told to end
            await recovery._wait(asyncio.sleep(5), timeout=0.01)
    asyncio.run(scenario())


def test_a_take_over_lasts_until_the_streams_go_on(tmp_path: Path) -> None:
    """The watchdog's bound holds for Faust's part too: it was left out, and a worker that read nothing was ready."""
    class Resumed:
        async def on_rebalance(self, *_: object) -> None:
            """Say nothing: it goes on in a task of its own."""

    async def scenario() -> None:
        made = manager(tmp_path)
        ready: list[set[int]] = []

        async def on_ready(partitions: set[int]) -> None:
            ready.append(partitions)

        made.on_ready, made._recovery = on_ready, Resumed()
        made.rebalancing_since = began = time.monotonic()
        await made._take_over(set(), set(), set(), made.app.consumer_generation_id)
        assert ready == [set()] and made.rebalancing_since == began
        made.on_actives_ready()
        assert made.rebalancing_since is None
    asyncio.run(scenario())
