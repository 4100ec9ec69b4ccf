"""F6, F8, F13: a broker that pauses, refuses a record, loses a topic or gets more partitions under the workers."""

from __future__ import annotations

import asyncio
import signal
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import pytest
from aiokafka.admin import NewPartitions, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.structs import TopicPartition

from app.adopt import adopt
from app.brokers import KafkaBroker, java_and_maven
from app.recovery import members_of
from app.verify import run_verify
from tables.exit_codes import ExitCode
from tests.integration.harness import Installation, Upstream

pytestmark = pytest.mark.kafka
#: longer than the session timeout of the installation (3 s) and than one request's patience in a rebalance
PAUSE_S = 12


@pytest.mark.skipif(java_and_maven() is not None, reason="pauses a real Kafka")
def test_a_paused_broker_costs_time_alone(tmp_path: Path) -> None:
    """F6, F13: one worker under load, another in its restore, while the broker answers nobody."""
    broker = KafkaBroker(tmp_path / "kafka", heap="512m")
    broker.start()
    made = Installation(broker, tmp_path / "data", "f6")

    async def keep(stop: asyncio.Event) -> None:  # a worker may leave rather than wait; then it is started again
        while not stop.is_set():
            for folder, worker in list(running.items()):
                if worker.process.poll() is not None:
                    running[folder] = made.worker(folder=folder)
            await asyncio.sleep(0.3)

    async def scenario() -> None:
        await made.create()
        async with Upstream(made, 3) as upstream:
            await upstream.send(3_000)
            running["a"] = made.worker(folder="a").wait_ready()
            await made.quiesce()
            assert broker.process is not None
            loading = asyncio.create_task(upstream.send(3_000, duplicates=0.05, pause_s=0.05))
            running["b"] = made.worker(folder="b", DESKRISK_FAULT="restore:1:4")  # four seconds within the restore
            await asyncio.sleep(4.0)
            stop = asyncio.Event()
            keeping = asyncio.create_task(keep(stop))
            broker.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(PAUSE_S)
            broker.process.send_signal(signal.SIGCONT)
            await loading
            await made.quiesce(120)
            stop.set()
            await keeping
            assert (await made.assert_exact())["trades"] == len(upstream.sent)
    running: dict[str, object] = {}
    try:
        asyncio.run(scenario())
    finally:
        made.close()
        broker.stop()


def test_a_record_too_large_ends_the_worker_with_nothing_half_written(made: Installation) -> None:
    """F8: the changelog's limit is lowered below a flush; nothing of the flush is seen, and the error says why."""
    async def limit(size: str) -> None:
        admin = made.settings.client().admin()
        await admin.start()
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, made.settings.topics()["positions-changelog"],
                                                  {"max.message.bytes": size, "cleanup.policy": "compact"})])
        await admin.close()

    async def scenario() -> None:
        await made.create()
        async with Upstream(made, 4) as upstream:
            worker = made.worker().wait_ready()
            await upstream.send(800)
            before = await made.quiesce()
            await limit("300")
            await upstream.send(400)
            assert await asyncio.to_thread(worker.wait_exit) > 0
            assert any("MessageSizeTooLarge" in line for line in worker.lines), worker.lines[-10:]
            assert await made.stored() == before
            await limit("1048576")
            made.worker().wait_ready()
            assert (await made.assert_exact())["trades"] == len(upstream.sent)
    asyncio.run(scenario())


def test_more_partitions_are_refused(made: Installation) -> None:
    """F8: keys would move to other owners: neither a running nor a new worker goes on as if nothing were."""
    async def scenario() -> None:
        await made.create()
        async with Upstream(made, 8) as upstream:
            worker = made.worker().wait_ready()
            await upstream.send(800)
            await made.quiesce()
            rows = (await run_verify(made.settings))["positions"]
            admin = made.settings.client().admin()
            await admin.start()
            await admin.create_partitions({made.settings.topics()["trades"]: NewPartitions(6)})
            late = made.worker(folder="late")
            assert await asyncio.to_thread(late.wait_exit) > 0
            assert any("expected 4 partitions, found 6" in line for line in late.lines), late.lines[-5:]
            assert await asyncio.to_thread(worker.wait_exit, 90) > 0
            assert any("expected 4 partitions, found 6" in line for line in worker.lines), worker.lines[-5:]
            assert rows > 100
            await admin.close()
    asyncio.run(scenario())


def test_a_topic_deleted_and_made_anew_under_a_worker(made: Installation) -> None:
    """F8: what comes on the new log is neither dropped as known nor folded unasked; `deskrisk adopt` goes on with it."""
    async def scenario() -> None:
        await made.create()
        async with Upstream(made, 8) as upstream:
            worker = made.worker().wait_ready()
            await upstream.send(1_500)
            before = await made.quiesce()
            admin = made.settings.client().admin()
            await admin.start()
            await admin.delete_topics([made.settings.topics()["trades"]])
            await admin.close()
            await asyncio.sleep(1)
        await made.create()
        async with Upstream(made, 9) as again:
            again.first = 10_000
            await again.send(500)
            assert await asyncio.to_thread(worker.wait_exit, 90) > 0
            said = [line for line in worker.lines if "made anew" in line or "topics gone" in line]
            assert said, worker.lines[-5:]
            assert await made.stored() == before
            refused = made.worker()
            assert await asyncio.to_thread(refused.wait_exit) > 0
            assert any("the log ends at" in line and "made anew" in line for line in refused.lines), refused.lines[-5:]
            while await members_of(made.settings.client(), made.settings.group("positions")):  # noqa: ASYNC110
                await asyncio.sleep(0.5)  # who leaves so is a member until its session ends
            report = await adopt(made.settings, True, "ops", "the topic was deleted by mistake")
            assert report["differences"] == sum(b > 0 for b in before), report
            going = made.worker().wait_ready()
            await again.send(200)
            await made.quiesce()
            assert going.stop() == 0
        expected: dict[str, Decimal] = defaultdict(Decimal)
        for t in [*upstream.sent, *again.sent]:
            expected[f"{t['account']}|{t['instrument']}"] += Decimal(t["quantity"]) * (1 if t["side"] == "buy" else -1)
        rows = await made.newest("positions")
        assert {key: Decimal(row["quantity"]) for key, row in rows.items()} == expected
    asyncio.run(scenario())


def test_trades_that_expired_unread_are_not_passed_over(made: Installation) -> None:
    """Retention overtook a worker that was down: it says how many records are missing and does not go on."""
    async def scenario() -> None:
        await made.create()
        async with Upstream(made, 8) as upstream:
            worker = made.worker().wait_ready()
            await upstream.send(800)
            before = await made.quiesce()
            assert worker.stop() == 0
            await upstream.send(800)
            admin = made.settings.client().admin()
            await admin.start()
            await admin.delete_records({TopicPartition(made.settings.topics()["trades"], p): RecordsToDelete(b + 5)
                                        for p, b in enumerate(before)})
            await admin.close()
            refused = made.worker()
            assert await asyncio.to_thread(refused.wait_exit) > 0
            assert any("5 records expired before they were folded" in x for x in refused.lines), refused.lines[-5:]
    asyncio.run(scenario())


@pytest.mark.skipif(java_and_maven() is not None, reason="kills a real Kafka")
def test_every_role_serves_again_after_the_broker_was_gone(tmp_path: Path) -> None:
    """F5: a rebalance that brings a role nothing new ends too.

    No worker has to be started again but a gate the group forgot, and one of positions in the middle of a transaction.
    """
    broker = KafkaBroker(tmp_path / "kafka", heap="512m")
    broker.start()
    made = Installation(broker, tmp_path / "data", "f5roles")

    async def scenario() -> None:
        await made.create()
        workers = {role: made.worker(role, folder=role) for role in ("positions", "marks", "risk", "gate")}
        for worker in workers.values():
            worker.wait_ready()
        async with Upstream(made, 3) as upstream:
            await upstream.send(500)
            broker.kill()
            await asyncio.sleep(5)
            broker.start()
            await asyncio.sleep(1)
            if workers["positions"].process.poll() == ExitCode.TRANSACTION:
                workers["positions"] = made.worker("positions", folder="positions").wait_ready()
            await upstream.send(500)
            await made.quiesce(60)
        await asyncio.sleep(5)
        if workers["gate"].process.poll() == ExitCode.FENCED:  # another gate might have decided meanwhile
            workers["gate"] = made.worker("gate", folder="gate")
            workers["gate"].wait_ready()
        for role, worker in workers.items():
            assert worker.process.poll() is None, (role, worker.lines[-10:])
            revoked = sum("READY" in line for line in worker.lines)
            assert revoked in (1, 2), (role, worker.lines[-10:])
            assert worker.stop(20) == 0, (role, worker.lines[-10:])
    try:
        asyncio.run(scenario())
    finally:
        made.close()
        broker.stop()
