"""Statements on a broker that compacts: each fact survives, whatever key its client chose, and a reload finds it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.structs import TopicPartition

from app.brokers import Broker
from app.statement_keys import find_shared_keys
from schemas.codec import encode
from schemas.keys import external_key
from schemas.records import External
from tables.kafka import owner_partition
from tables.records import RecordBatch
from tables.restore import read_range
from tests.integration.harness import ROOT, Installation, Upstream, prefix_of

pytestmark = pytest.mark.kafka
COMPACTING = {"cleanup.policy": "compact", "min.compaction.lag.ms": "0", "max.compaction.lag.ms": "500",
              "segment.ms": "500", "min.cleanable.dirty.ratio": "0.0", "delete.retention.ms": "0"}


@pytest.fixture
def made(broker: Broker, tmp_path: Any, request: pytest.FixtureRequest) -> Iterator[Installation]:
    installation = Installation(broker, tmp_path, prefix_of(request.node.nodeid))
    asyncio.run(installation.create())
    yield installation
    installation.close()


def test_statements_keyed_by_account_are_migrated_and_survive_compaction_and_reloads(made: Installation) -> None:
    topic, client = made.settings.topics()["positions.external"], made.settings.client()

    async def keys_there() -> list[bytes | None]:
        out: list[bytes | None] = []

        def on_batch(batch: RecordBatch) -> None:
            out.extend(batch.keys)

        await read_range(client, {TopicPartition(topic, p): 0 for p in range(made.settings.partitions)}, on_batch)
        return out

    async def run() -> None:
        async with Upstream(made, 5) as upstream:
            await upstream.send(4)
            account = upstream.sent[0]["account"]
            p = owner_partition(account, made.settings.partitions)
            producer = client.producer()
            await producer.start()

            async def state(instrument: str, quantity: int, kind: Any = "start_of_day", source: str = "PB",
                            own: bool = False) -> None:
                record = External(source=source, account=account, instrument=instrument, quantity=Decimal(quantity),
                                  average_price=None if kind == "reload" else Decimal(1), ts_event=time.time_ns(), kind=kind)
                await producer.send_and_wait(topic, encode(record), external_key(record) if own else account.encode(), p)

            # from before the migration: no worker of this version has seen them
            await state("I01", 100)
            await state("I02", 200)
            assert len((await find_shared_keys(made.settings)).shared[p]) == 1
            done = await asyncio.to_thread(subprocess.run, [sys.executable, "-m", "app", "topics", "create"], cwd=ROOT,
                                           capture_output=True, text=True, env=os.environ | made.environment())
            assert done.returncode == 0 and "2 statements have keys of their own" in done.stdout + done.stderr
            admin = client.admin()
            await admin.start()
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, COMPACTING)])
            await admin.close()
            made.worker().wait_ready()
            await state("I03", 300)  # a client that goes on as before: the owner gives it its key
            for k in range(30):  # new records close the segment; what is in closed ones is cleaned
                await asyncio.sleep(1.0)
                await state("I04", k, own=True)
                if (await keys_there()).count(account.encode()) == 0 and k > 3:
                    break
            for instrument in ("I01", "I02", "I03"):
                await state(instrument, 0, "reload", "ops", own=True)
                await asyncio.sleep(1.5)
            await made.quiesce()
            rows = await made.newest("positions")
            traded = {f"{account}|{i}": sum(Decimal(t["quantity"]) * (1 if t["side"] == "buy" else -1)
                                            for t in upstream.sent if (t["account"], t["instrument"]) == (account, i)
                                            and t["ts_event"] > rows[f"{account}|{i}"]["opening_ts"])
                      for i in ("I01", "I02", "I03")}
            assert {i: Decimal(rows[f"{account}|{i}"]["quantity"]) - traded[f"{account}|{i}"]
                    for i in ("I01", "I02", "I03")} == {"I01": 100, "I02": 200, "I03": 300}
            await producer.stop()

    asyncio.run(run())
