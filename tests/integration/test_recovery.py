"""Operators on the deciding broker: rewind, rebuild, reconcile; refused where they would lie, exact where they are done."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.structs import TopicPartition

from app.brokers import Broker, java_and_maven
from app.recovery import Refused, fenced, load, rebuild, rewind, state_at, target_ms, write
from schemas.codec import encode
from schemas.records import External, Position
from tables.kafka import owner_partition
from tables.refold import fold
from tables.restore import read_changelogs
from tests.integration.harness import Installation, Upstream, prefix_of
from tests.support.fork_server import run_command

pytestmark = pytest.mark.kafka
REASON = "test of recovery on a real broker"


@pytest.fixture
def made(broker: Broker, tmp_path: Any, request: pytest.FixtureRequest) -> Iterator[Installation]:
    installation = Installation(broker, tmp_path, prefix_of(request.node.nodeid))
    asyncio.run(installation.create())
    yield installation
    installation.close()


def now_text() -> str:
    return datetime.now(UTC).isoformat()


def command(made: Installation, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command(*arguments, **made.environment())


def test_rewind_shows_proves_and_puts_right(made: Installation) -> None:
    worker = made.worker().wait_ready()

    async def run() -> None:
        async with Upstream(made, 21) as upstream:
            await upstream.send(600, duplicates=0.1)
            await made.quiesce()
            await asyncio.sleep(0.2)
            then = now_text()
            await asyncio.sleep(0.2)
            await upstream.send(400, poison=0.05)
            await made.quiesce()
        with pytest.raises(Refused, match="running"):
            await rewind(made.settings, then, True, "p", REASON)
        assert worker.stop() == 0
        await asyncio.sleep(made.settings.session_timeout_s + 1)
        report = await rewind(made.settings, then, True, "p", REASON)
        assert report["wrong"] == 0 and report["changed_since"] > 0 and report["trades_rolled_forward"] >= 400 and report["positions_then"] > 100
        # somebody's hand in the changelog: one partition has a trade twice
        loaded, reference = await load(made.settings)
        p = max(loaded, key=lambda k: len(loaded[k].trades))
        part, head = state_at(loaded[p], p, reference, made.settings, None)
        trade = json.dumps({"trade_id": "HAND-1", "account": next(t["account"] for t in upstream.sent if owner_partition(t["account"], 4) == p),
                            "instrument": "I00", "side": "buy", "quantity": "7", "price": "5", "ts_event": time.time_ns()}).encode()
        fold(part, [(loaded[p].trades[-1][0], 0, trade)])
        async with fenced(made.settings, [p]) as writers:
            await write(made.settings, p, part, head, writers[p])
        report = await rewind(made.settings, then, True, "p", REASON)
        assert report["wrong"] == 1 and "I00" in report["wrong_rows"][0]

    asyncio.run(run())
    done = command(made, "rewind", "--to", now_text(), "--dry-run")  # a target after the fault begins from the wrong rows, and says so
    assert done.returncode == 3, done.stdout + done.stderr


def test_a_rewind_repairs_the_table_and_work_goes_on(made: Installation) -> None:
    worker = made.worker().wait_ready()

    async def run() -> str:
        async with Upstream(made, 22) as upstream:
            await upstream.send(500)
            await made.quiesce()
        await asyncio.sleep(0.2)
        then = now_text()
        worker.stop()
        await asyncio.sleep(made.settings.session_timeout_s + 1)
        loaded, reference = await load(made.settings)
        for p in loaded:
            part, head = state_at(loaded[p], p, reference, made.settings, None)
            part.positions.arrays.rows["quantity"][: len(part.positions)] += 1  # every row is wrong now
            async with fenced(made.settings, [p]) as writers:
                await write(made.settings, p, part, head, writers[p])
        return then

    then = asyncio.run(run())
    done = command(made, "rewind", "--to", then, "--reason", REASON, "--by", "operator-1", "--json")
    assert done.returncode == 3 and json.loads(done.stdout)["wrong"] > 100  # it says what it put right
    made.worker(folder="fresh").wait_ready()

    async def after() -> None:
        async with Upstream(made, 23) as upstream:
            upstream.first = 10_000
            await upstream.send(300)
        report = await made.assert_exact()
        assert report["positions"] > 100

    asyncio.run(after())


def test_rewinds_that_would_lie_are_refused(made: Installation) -> None:
    now, hour = 1_800_000_000_000, 3_600_000
    assert target_ms("2027-01-15T07:59:00Z", now, hour) == now - 60_000
    for text, why in (("2027-01-15T06:59:00Z", "beyond the horizon"), ("2027-01-15T08:01:00Z", "in the past"), ("yesterday", "expected a time")):
        with pytest.raises(Refused, match=why):
            target_ms(text, now, hour)
    done = command(made, "rewind", "--to", "2020-01-01T00:00:00Z", "--dry-run")
    assert done.returncode == 1 and "beyond the horizon" in done.stderr and "24 h" in done.stderr
    assert command(made, "rewind", "--to", "2020-01-01T00:00:00Z").returncode == 2  # no reason given
    assert command(made, "rewind", "--table", "orders", "--to", "2020-01-01T00:00:00Z").returncode == 2


def test_rebuild_in_trade_time_order_mends_what_came_too_late(made: Installation) -> None:
    worker = made.worker().wait_ready()

    async def run() -> None:
        async with Upstream(made, 24) as upstream:
            await upstream.send(300)
            report = await rebuild(made.settings, False, "p", REASON)
            await made.quiesce()
            report = await rebuild(made.settings, False, "p", REASON)
            assert report["differences"] == 0 and report["trades"] == 300
            # an hour late: folded where it came, not where it belongs
            late = [dict(t, trade_id=f"L{k}", ts_event=t["ts_event"] - 3_600_000_000_000, price="1.00", side="buy" if t["side"] == "sell" else "sell")
                    for k, t in enumerate(upstream.sent[200:240])]
            for t in late:
                await upstream._producer.send_and_wait(made.settings.topics()["trades"], json.dumps(t).encode(), t["account"].encode(),
                                                       owner_partition(t["account"], made.settings.partitions))
            await made.quiesce()
        report = await rebuild(made.settings, False, "p", REASON)
        assert report["differences"] > 0
        assert all("quantity" not in row for row in report["rows"])  # quantities commute, averages do not
        with pytest.raises(Refused, match="running"):
            await rebuild(made.settings, True, "p", REASON)
        worker.stop()
        await asyncio.sleep(made.settings.session_timeout_s + 1)
        assert (await rebuild(made.settings, True, "p", REASON))["swapped"]
        assert (await rebuild(made.settings, False, "p", REASON))["differences"] == 0

    asyncio.run(run())


def test_breaks_have_an_age_and_close(made: Installation) -> None:
    made.worker().wait_ready()

    async def statements(offset: int) -> list[Position]:
        from aiokafka.structs import TopicPartition

        from schemas.codec import decoder_of
        from tables.restore import read_range
        rows: dict[str, Position] = {}
        await read_range(made.settings.client(), {TopicPartition(made.settings.topics()["positions"], p): 0 for p in range(4)},
                         lambda b: rows.update({(k or b"").decode(): decoder_of(Position).decode(v) for k, v in zip(b.keys, b.values, strict=True) if v}))
        producer = made.settings.client().producer()
        await producer.start()
        chosen = sorted(rows.values(), key=lambda r: (r.account, r.instrument))[:20]
        for k, r in enumerate(chosen):
            quantity = Decimal(r.quantity) + (offset if k < 3 else 0)
            record = External(source="PB1", account=r.account, instrument=r.instrument, quantity=quantity, ts_event=time.time_ns(), kind="snapshot",
                              average_price=None if r.average_price is None else Decimal(repr(r.average_price)))
            await producer.send_and_wait(made.settings.topics()["positions.external"], encode(record), r.account.encode(), owner_partition(r.account, 4))
        await producer.stop()
        return chosen

    async def fill() -> None:
        async with Upstream(made, 25) as upstream:
            await upstream.send(400)
        await made.quiesce()
        await asyncio.sleep(1.0)
        await statements(5)

    asyncio.run(fill())
    first = command(made, "reconcile", "--json")
    report = json.loads(first.stdout)
    assert first.returncode == 3 and report["breaks"] == 3 and report["statements"] == 20
    assert {r["field"] for r in report["rows"]} == {"quantity"} and all(r["external"] - r["internal"] == 5 for r in report["rows"])
    time.sleep(1.1)
    again = json.loads(command(made, "reconcile", "--json").stdout)
    assert again["breaks"] == 3 and all(r["age_s"] > 1 for r in again["rows"])
    asyncio.run(statements(0))
    closed = command(made, "reconcile", "--json")
    assert closed.returncode == 0 and json.loads(closed.stdout)["ok"]


def test_a_break_reloads_its_own_position_alone(made: Installation) -> None:
    """Somebody's hand is in one row: the prime broker disagrees, the owner folds that key again while trades go on."""
    worker = made.worker().wait_ready()
    keys: list[tuple[str, str]] = []

    async def harm() -> None:
        async with Upstream(made, 33) as upstream:
            await upstream.send(900, duplicates=0.1)
            await made.quiesce()
            worker.stop()
            await asyncio.sleep(made.settings.session_timeout_s + 1)
            loaded, reference = await load(made.settings)
            p = max(loaded, key=lambda k: len(loaded[k].trades))
            part, head = state_at(loaded[p], p, reference, made.settings, None)
            account = next(t["account"] for t in upstream.sent if owner_partition(t["account"], 4) == p)
            trade = {"trade_id": "HAND-1", "account": account, "instrument": "I00", "side": "buy", "quantity": "7",
                     "price": "5", "ts_event": time.time_ns()}
            right = sum(Decimal(t["quantity"]) * (1 if t["side"] == "buy" else -1) for t in upstream.sent
                        if (t["account"], t["instrument"]) == (account, "I00"))
            fold(part, [(loaded[p].trades[-1][0], 0, json.dumps(trade).encode())])
            async with fenced(made.settings, [p]) as writers:
                await write(made.settings, p, part, head, writers[p])
            keys.append((account, "I00"))
            producer = made.settings.client().producer()
            await producer.start()
            statement = External(source="PB1", account=account, instrument="I00", quantity=right, kind="snapshot",
                                 ts_event=time.time_ns())
            await producer.send_and_wait(made.settings.topics()["positions.external"], encode(statement), account.encode(), p)
            await producer.stop()
            made.worker().wait_ready()
            await asyncio.sleep(1.5)
            with pytest.raises(AssertionError):
                await made.assert_exact()
            done = await asyncio.to_thread(command, made, "reconcile", "--json")
            report = json.loads(done.stdout)
            assert (report["breaks"], report["reloads"]) == (1, 1) and report["rows"][0]["internal"] - report["rows"][0]["external"] == 7
            await upstream.send(600, pause_s=0.02)
            await asyncio.sleep(1.5)
            await made.assert_exact()

    asyncio.run(harm())
    again = json.loads(command(made, "reconcile", "--no-reload", "--json").stdout)
    assert again["reloads"] == 0
    assert any(f"{keys[0][0]} I00: reloaded from" in line for line in made.processes[-1].lines)


def test_a_restore_ends_whatever_the_changelog_ends_with(made: Installation) -> None:
    """F12: empty, tombstones only, an aborted transaction last, a transaction marker last."""
    topic, client = made.settings.topics()["positions-changelog"], made.settings.client()

    async def run() -> None:
        tp = {p: TopicPartition(topic, p) for p in range(4)}
        producer = client.producer(transactional_id="f12")
        await producer.start()
        async with producer.transaction():
            await producer.send(topic, b"v1", b"P1", 1)
            await producer.send(topic, None, b"P1", 1)
            await producer.send(topic, b"v2", b"P2", 2)
            await producer.send(topic, b"v3", b"P3", 3)
        await producer.begin_transaction()
        await (await producer.send(topic, b"never", b"P3", 3))
        await producer.abort_transaction()
        await producer.stop()
        found = await asyncio.wait_for(read_changelogs(client, dict.fromkeys(tp.values(), 0), stall_s=10), 30)
        assert found[tp[0]].rows == {} and found[tp[0]].position == found[tp[0]].end == 0
        assert found[tp[1]].rows == {b"P1": None} and found[tp[2]].rows == {b"P2": b"v2"} and found[tp[3]].rows == {b"P3": b"v3"}
        assert all(f.position >= f.end for f in found.values())

    asyncio.run(run())


@pytest.mark.skipif(java_and_maven() is not None, reason="compaction is the real Kafka's")
def test_a_forced_compaction_changes_no_row(made: Installation) -> None:
    """F12: most of the changelog is cleaned away under a running worker; a fresh one restores the same state."""
    topic, n = made.settings.topics()["positions-changelog"], made.settings.partitions
    now = {"cleanup.policy": "compact", "min.compaction.lag.ms": "0", "max.compaction.lag.ms": "500", "segment.ms": "500",
           "min.cleanable.dirty.ratio": "0.001", "delete.retention.ms": "0"}

    async def records() -> int:
        found = await read_changelogs(made.settings.client(), {TopicPartition(topic, p): 0 for p in range(n)})
        return sum(r.records for r in found.values())

    async def run() -> None:
        worker = made.worker().wait_ready()
        async with Upstream(made, 27) as upstream:
            for _ in range(6):
                await upstream.send(500, duplicates=0.05)
                await made.quiesce()
            before = await records()
            admin = made.settings.client().admin()
            await admin.start()
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, now)])
            await admin.close()
            for _ in range(40):  # new records close the segment; what is in closed ones is cleaned
                await asyncio.sleep(1.5)
                await upstream.send(20)
                await made.quiesce()
                if await records() < before * 2 // 3:
                    break
            assert await records() < before, "nothing was compacted"
            fresh = made.worker(folder="fresh")  # while the first one still owns a part
            fresh.wait_ready()
            worker.kill()
            await upstream.send(200, duplicates=0.1)
            report = await made.assert_exact()
            assert report["trades"] == len(upstream.sent)
            assert fresh.stop() == 0
    asyncio.run(run())
