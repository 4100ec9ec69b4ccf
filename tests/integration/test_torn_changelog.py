"""F26 on the deciding broker: what is no whole transaction at the end of a changelog is left out, said, and mended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from app.brokers import Broker
from app.migration import backup
from app.recovery import Refused, rebuild, rewind
from app.verify import run_verify
from tables.changelog import Batches, read_sure
from tables.partition import MARKER_KEY, Rows
from tests.integration.harness import Installation, Upstream, prefix_of
from tests.support.fork_server import run_command

pytestmark = pytest.mark.kafka
REASON = "test of torn transactions"


@pytest.fixture
def made(broker: Broker, tmp_path: Any, request: pytest.FixtureRequest) -> Iterator[Installation]:
    installation = Installation(broker, tmp_path, prefix_of(request.node.nodeid))
    asyncio.run(installation.create())
    yield installation
    installation.close()


async def changelogs(made: Installation) -> dict[int, Batches]:
    topic = made.settings.topics()["positions-changelog"]
    found = await read_sure(made.settings.client(), {TopicPartition(topic, p): Batches() for p in range(made.settings.partitions)})
    return {tp.partition: batches for tp, batches in found.items()}


async def write_committed(made: Installation, partition: int, rows: Rows) -> None:
    """Have rows of a changelog committed, as a torn transaction leaves them."""
    producer = made.settings.client().producer(transactional_id=f"{made.settings.prefix}torn-{partition}")
    await producer.start()
    try:
        async with producer.transaction():
            for key, value in rows:
                await producer.send(made.settings.topics()["positions-changelog"], value, key, partition)
    finally:
        await producer.stop()


async def tear(made: Installation) -> list[int]:
    """Tear what every partition would have written next: half of its rows, all but some, a marker alone; one stays whole."""
    torn = []
    for p, batches in (await changelogs(made)).items():
        marker, rows = batches.marker, list(batches.live().items())
        if not rows:
            continue
        marker.offsets = {topic: offset + 100 for topic, offset in marker.offsets.items()}
        # another value under every key: whoever applies it has other positions
        wrong: Rows = marker.close([(key, None if k % 3 == 0 else rows[k - 1][1]) for k, (key, _) in enumerate(rows)])
        await write_committed(made, p, (wrong[:-1], wrong[3:], wrong[-1:])[p % 3])
        torn.append(p)
    return torn


@pytest.mark.parametrize("store", ["kept", "gone", "standby"])
def test_a_torn_transaction_is_left_out_and_its_trades_are_folded_again(made: Installation, tmp_path: Path, store: str) -> None:
    async def scenario() -> None:
        worker = made.worker(folder="a").wait_ready()
        async with Upstream(made, 31) as upstream:
            await upstream.send(800, duplicates=0.05)
            await made.quiesce()
            assert worker.stop() == 0
            await asyncio.sleep(made.settings.session_timeout_s + 1)
            before = await run_verify(made.settings)
            assert before["ok"] and before["left_out"] == []
            then = datetime.now(UTC).isoformat()
            torn = await tear(made)
            # offline readers say so, and count on what adds up
            report = await run_verify(made.settings)
            assert report["ok"], report["differences"]
            assert len(report["left_out"]) == len(torn) and "are no whole transactions" in report["left_out"][0]
            rewound = await rewind(made.settings, then, True, "p", REASON)
            assert rewound["wrong"] == 0 and len(rewound["left_out"]) == len(torn)
            rebuilt = await rebuild(made.settings, False, "p", REASON)
            assert rebuilt["positions"] == report["positions"] and len(rebuilt["left_out"]) == len(torn)
            with pytest.raises(Refused, match="no whole transactions"):
                await backup(made.settings, tmp_path / "backup")
            done = await asyncio.to_thread(run_command, "verify", **made.environment())
            assert done.returncode == 0 and "are no whole transactions" in " ".join(done.stderr.split())
            following = made.worker(folder="b", DESKRISK_STANDBY="1").wait_ready() if store == "standby" else None
            if following is None:
                following = made.worker(folder="a" if store == "kept" else "c").wait_ready()
            await upstream.send(500, duplicates=0.05)
            report = await made.assert_exact()
            assert report["trades"] == len(upstream.sent) and report["left_out"] == []
            said = [a for a in await made.alerts() if a["kind"] == "torn_transaction"]
            assert {a["metric"] for a in said} == {f"positions-changelog {p}" for p in torn}
            assert all("left out, trades are folded again from offset" in a["note"] for a in said)
            assert any("are no whole transactions" in line for line in following.lines)
            assert following.stop() == 0
            # what stands under the torn keys is written once more: also who counts no rows reads what is right
            topic = made.settings.topics()["positions-changelog"]
            newest = await made.newest_rows(topic)
            assert newest == {p: b.live() for p, b in (await changelogs(made)).items()}
    asyncio.run(scenario())


def test_a_standby_stays_at_the_last_whole_batch_and_goes_on_behind_what_mends_it(made: Installation, tmp_path: Path) -> None:
    async def scenario() -> None:
        first = made.worker(folder="a").wait_ready()
        second = made.worker(folder="b", DESKRISK_STANDBY="1").wait_ready()
        async with Upstream(made, 32) as upstream:
            await upstream.send(600)
            await made.quiesce()
            for worker in (first, second):
                assert worker.stop() == 0
            await asyncio.sleep(made.settings.session_timeout_s + 1)
            await tear(made)
            first = made.worker(folder="a").wait_ready()
            second = made.worker(folder="b", DESKRISK_STANDBY="1").wait_ready()
            await upstream.send(400)
            await made.assert_exact()
            await asyncio.sleep(2.5)
            first.kill()
            await upstream.send(200)
            report = await made.assert_exact()
            assert report["trades"] == len(upstream.sent) and report["left_out"] == []
            assert second.stop() == 0
    asyncio.run(scenario())


def test_what_an_older_version_wrote_is_read_and_followed(made: Installation) -> None:
    """F22: markers without rows and checksums; the next batch has them, and follows."""
    async def scenario() -> None:
        worker = made.worker().wait_ready()
        async with Upstream(made, 33) as upstream:
            await upstream.send(300)
            await made.quiesce()
            assert worker.stop() == 0
            await asyncio.sleep(made.settings.session_timeout_s + 1)
            for p, batches in (await changelogs(made)).items():
                data = json.loads(batches.marker.value)
                old = {k: data[k] for k in ("version", "offsets", "batch_id", "extra")} | {"batch_id": data["batch_id"] + 1}
                await write_committed(made, p, [(MARKER_KEY, json.dumps(old).encode())])
            assert all(b.marker.rows is None and not b.left_out_records for b in (await changelogs(made)).values())
            worker = made.worker().wait_ready()
            await upstream.send(300)
            report = await made.assert_exact()
            assert report["trades"] == len(upstream.sent) and report["left_out"] == []
            assert any(b.marker.rows for b in (await changelogs(made)).values())
            assert worker.stop() == 0
    asyncio.run(scenario())
