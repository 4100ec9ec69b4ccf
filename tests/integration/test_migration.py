"""Backup, restore and another number of partitions on the deciding broker: every position proved, then folded by workers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.brokers import Broker
from app.control import current, set_limit
from app.migration import backup, repartition, restore
from app.recovery import Refused, differences
from app.verify import run_verify
from schemas.records import Limit, Position
from tests.integration.harness import Installation, Upstream, prefix_of

pytestmark = pytest.mark.kafka
REASON = "test of a migration"


@pytest.fixture
def made(broker: Broker, tmp_path: Any, request: pytest.FixtureRequest) -> Iterator[Installation]:
    installation = Installation(broker, tmp_path, prefix_of(request.node.nodeid))
    asyncio.run(installation.create())
    yield installation
    installation.close()


async def positions(settings: Any) -> dict[str, Position]:
    from aiokafka.structs import TopicPartition

    from schemas.codec import decoder_of
    from tables.restore import read_range

    found: dict[str, Position] = {}

    def on_batch(batch: Any) -> None:
        for value in batch.values:
            if value is not None:
                p = decoder_of(Position).decode(value)
                found[f"{p.account}|{p.instrument}"] = p

    await read_range(settings.client(), {TopicPartition(settings.topics()["positions"], p): 0 for p in range(settings.partitions)}, on_batch)
    return found


def test_a_repartition_keeps_every_position_and_rule(made: Installation, tmp_path: Path) -> None:
    """Wrong partitions, duplicates and poison on the old log; nine partitions instead; new workers fold the same book."""
    async def scenario() -> None:
        worker = made.worker().wait_ready()
        async with Upstream(made, 77) as upstream:
            await upstream.send(1_500, duplicates=0.1, wrong_partition=0.2, poison=0.05)
            await made.quiesce()
        await set_limit(made.settings, {"limit_id": "G", "node": "firm", "metric": "gross", "limit": 5, "reason": REASON}, "risk-1")
        assert worker.stop() == 0  # what it had not yet published, it has now
        before = await positions(made.settings)
        with pytest.raises(Refused, match="another one"):
            await repartition(made.settings, 9, made.settings.prefix)
        report = await repartition(made.settings, 9, made.settings.prefix + "nine-")
        assert report["differences"] == 0 and report["positions"] == sum(p.trades > 0 for p in before.values()) > 50 and report["left_out"] > 100
        moved = made.settings.model_copy(update={"partitions": 9, "prefix": made.settings.prefix + "nine-"})
        assert list(await current(moved, "limits", Limit)) == ["G"]
        again = made.start("worker", "--roles", "positions", DESKRISK_DATA_DIR=str(tmp_path / "nine"), DESKRISK_PREFIX=moved.prefix, DESKRISK_PARTITIONS="9")
        again.wait_ready()
        for _ in range(60):  # until the new workers have folded everything
            verified = await run_verify(moved)
            if verified["ok"] and differences(before, await positions(moved), ("", "")) == []:
                break
            await asyncio.sleep(0.5)
        assert verified["ok"], verified["differences"]
        await asyncio.sleep(1.0)
        assert differences(before, await positions(moved), ("four partitions", "nine")) == []
    asyncio.run(scenario())


def test_a_backup_is_whole_or_refused(made: Installation, tmp_path: Path) -> None:
    async def scenario() -> None:
        worker = made.worker().wait_ready()
        async with Upstream(made, 78) as upstream:
            await upstream.send(400)
            await made.quiesce()
            await asyncio.sleep(1.0)
            assert worker.stop() == 0
            manifest = await backup(made.settings, tmp_path / "b")
            assert manifest["files"]["trades"]["records"] == 400
            with pytest.raises(Refused, match="empty or not there"):
                await backup(made.settings, tmp_path / "b")
            with pytest.raises(Refused, match="hold records"):
                await restore(made.settings, tmp_path / "b")
            target = made.settings.model_copy(update={"prefix": made.settings.prefix + "again-"})
            report = await restore(target, tmp_path / "b")
            assert report["differences"] == 0 and report["left_out"] == 0
            await upstream.send(5)
            with pytest.raises(Refused, match="not folded yet"):
                await backup(made.settings, tmp_path / "c")
        file = tmp_path / "b" / "trades.parquet"
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(Refused, match="SHA-256"):
            await restore(target, tmp_path / "b")
    asyncio.run(scenario())
