"""`deskrisk doctor --broker` and `deskrisk topics` against brokers whose settings are wrong, right, and not said."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.protocol.admin import CreateAclsRequest
from aiokafka.structs import TopicPartition

from app.brokers import Broker, EmbeddedBroker, KafkaBroker, free_port, java_and_maven
from app.cluster_checks import Finding, State, examine_cluster, examine_topics
from app.settings import Settings
from schemas.topics import BATCH_BYTES_MAX, TOPICS
from tables.cluster import OFFSETS_TOPIC, look_at
from tables.kafka import BATCH_HEAD_BYTES, create_topics
from tables.transactions import owner_id
from tests.integration.harness import ROOT, Installation, prefix_of
from tests.support.patience import PATIENCE_S

pytestmark = pytest.mark.kafka
real = pytest.mark.skipif(java_and_maven() is not None, reason="asks a real Kafka")
PROPERTIES = {"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer", "offsets.retention.minutes": "60",
              "allow.everyone.if.no.acl.found": "true", "auto.create.topics.enable": "true", "group.min.session.timeout.ms": "10000"}
#: kinds of resources and operations of access control, as the protocol numbers them
TOPIC, GROUP, TRANSACTION, READ, CREATE, DESCRIBE, LITERAL, ALLOW = 2, 3, 5, 3, 5, 8, 3, 3


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = KafkaBroker(tmp_path_factory.mktemp("wrong"), heap="400m", properties=PROPERTIES)
    broker.start()
    yield broker
    broker.stop()


def deskrisk(s: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"DESKRISK_BROKERS": str(s.brokers), "DESKRISK_PREFIX": s.prefix, "DESKRISK_PARTITIONS": str(s.partitions),
                   "DESKRISK_SESSION_TIMEOUT_S": str(s.session_timeout_s), "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    return subprocess.run([sys.executable, "-m", "app", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


async def alter(s: Settings, topic: str, **config: str) -> None:
    admin = s.client().admin()
    await admin.start()
    (answer,) = await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, s.topics()[topic], {
        name.replace("_", "."): value for name, value in config.items()})])
    await admin.close()
    assert answer.resources[0][0] == 0, answer


async def allow(s: Settings, kind: int, name: str, *operations: int) -> None:
    """Allow some operations, and with that no others."""
    admin = s.client().admin()
    await admin.start()
    for operation in operations:
        answer = await admin._send_request(CreateAclsRequest(kind, name, LITERAL, "User:ANONYMOUS", "*", operation, ALLOW))
        assert answer.creation_responses[0][0] == 0, answer
    await admin.close()


def settings_at(broker: Broker, request: pytest.FixtureRequest) -> Settings:
    return Settings(brokers=broker.address, prefix=f"{prefix_of(request.node.nodeid)}-", partitions=2, session_timeout_s=3)


async def bad(s: Settings) -> dict[tuple[str, str], Any]:
    return {(f.check, f.where.removeprefix(s.prefix)): f for f in await examine_cluster(s) if f.state is not State.OK}


async def until(s: Settings, part: Callable[[list[Finding]], Any], wanted: Any) -> list[Finding]:
    """Return what is found once a part of it is as it should be: a broker has a little later what the controller took."""
    deadline = time.monotonic() + PATIENCE_S
    while part(found := await examine_cluster(s)) != wanted:
        if time.monotonic() > deadline:
            assert part(found) == wanted
    return found


def test_a_cluster_of_one_broker_falls_short_of_the_loss_of_a_machine_alone(made: Installation) -> None:
    """What we create is right on the broker of the tests, and the command says so with exit code 0."""
    s = made.settings

    async def scenario() -> None:
        await create_topics(s.client(), s.prefix, s.partitions, s.horizon_ms)
        producer = s.client().producer(transactional_id="ends-one")
        await producer.start()
        async with producer.transaction():
            await producer.send_and_wait(s.topics()["positions-changelog"], b"{}", b"k", partition=1)
            # the largest record that a producer takes is one that the topic takes
            await producer.send_and_wait(s.topics()["positions-changelog"], bytes(BATCH_BYTES_MAX - BATCH_HEAD_BYTES - 100), b"k", partition=1)
            await producer.send_offsets_to_transaction({TopicPartition(s.topics()["trades"], 0): 0}, "ends-one")
        await producer.stop()
        found = await bad(s)
        states = {f.state for f in found.values()}
        assert State.WRONG not in states, found
        if java_and_maven() is None:
            assert states == {State.SHORT}, found
            assert {f.falls_short_of for f in found.values()} == {"survives the loss of a machine"}
    asyncio.run(scenario())
    done = deskrisk(s, "doctor", "--broker", "--json")
    assert done.returncode == 0, done.stderr
    assert {"check", "where", "state", "found", "expected", "falls_short_of", "mend"} == set(json.loads(done.stdout)[0])
    assert deskrisk(s, "topics", "check").returncode == 0


@real
def test_topics_that_are_wrong_are_said_with_what_mends_them_and_left_alone(made: Installation) -> None:
    s = made.settings

    async def scenario() -> None:
        await create_topics(s.client(), s.prefix, s.partitions, s.horizon_ms)
        admin = s.client().admin()
        await admin.start()
        await admin.delete_topics([s.topics()[name] for name in ("limits", "alerts")])
        await admin.create_topics([NewTopic(s.topics()["limits"], 3, 1)])
        await admin.close()
        await alter(s, "trades", cleanup_policy="compact")
        await alter(s, "orders", retention_ms="3600000", retention_bytes="100000000")
        await alter(s, "positions-changelog", cleanup_policy="compact,delete", min_compaction_lag_ms="0")
        await alter(s, "decisions", unclean_leader_election_enable="true", min_insync_replicas="2")
        # what is altered as a whole has the broker's own values for all else
        await until(s, lambda found: {(f.check, f.where.removeprefix(s.prefix)): f.found for f in found if f.state is State.WRONG}, {
            ("cleanup.policy", "trades"): "compact", ("retention.ms", "orders"): "3600000", ("retention.bytes", "orders"): "100000000",
            ("cleanup.policy", "positions-changelog"): "compact,delete", ("min.compaction.lag.ms", "positions-changelog"): "0",
            ("max.message.bytes", "positions-changelog"): "1048588", ("max.message.bytes", "decisions"): "1048588",
            ("unclean.leader.election.enable", "decisions"): "true", ("min.insync.replicas", "decisions"): "2",
            ("replicas in sync", "decisions"): "1, so that nothing can be written", ("exists", "alerts"): "missing",
            ("partitions", "limits"): "3", ("cleanup.policy", "limits"): "delete", ("min.compaction.lag.ms", "limits"): "0",
            ("max.message.bytes", "limits"): "1048588"})
    asyncio.run(scenario())
    done = deskrisk(s, "doctor", "--broker")
    assert done.returncode == 1 and "kafka-configs.sh" in done.stdout, done.stdout
    asyncio.run(set_partitions_right(s))
    created = deskrisk(s, "topics", "create")
    assert created.returncode == 0 and f"{s.topics()['trades']}: cleanup.policy: expected delete, was compact" in " ".join(created.stderr.split())
    assert deskrisk(s, "topics", "check").returncode == 1
    assert any(f.check == "cleanup.policy" and f.found == "compact,delete" for f in asyncio.run(examine_topics(s)))


async def set_partitions_right(s: Settings) -> None:
    """Make the topic of three partitions anew: `topics create` refuses to go on beside it."""
    admin = s.client().admin()
    await admin.start()
    await admin.delete_topics([s.topics()["limits"]])
    await admin.close()


@real
def test_looking_at_a_cluster_changes_nothing(wrong: Broker, request: pytest.FixtureRequest) -> None:
    """Not even a topic comes of it where the broker creates what it is asked for, and an open transaction goes on."""
    s = settings_at(wrong, request)

    async def scenario() -> None:
        admin = s.client().admin()
        await admin.start()
        producer = s.client().producer(transactional_id=owner_id(s.group("positions"), 0))
        assert {where for check, where in await bad(s) if check == "exists"} == {t.name for t in TOPICS}
        assert not set(await admin.list_topics()) & {*s.topics().values(), OFFSETS_TOPIC}
        await create_topics(s.client(), s.prefix, s.partitions, s.horizon_ms)
        await producer.start()
        async with producer.transaction():
            await producer.send_and_wait(s.topics()["positions-changelog"], b"{}", b"k", partition=0)
            assert (await look_at(s.client(), [], [], [owner_id(s.group("positions"), 0)])).transactional[owner_id(s.group("positions"), 0)]
            await producer.send_and_wait(s.topics()["positions-changelog"], b"{}", b"l", partition=0)
        await producer.stop()
        await admin.close()
    asyncio.run(scenario())


@real
def test_settings_of_the_broker_and_what_it_denies_are_said(wrong: Broker, request: pytest.FixtureRequest) -> None:
    s = settings_at(wrong, request)
    group, owner = s.group("risk"), owner_id(s.group("positions"), 1)

    async def scenario() -> None:
        await create_topics(s.client(), s.prefix, s.partitions, s.horizon_ms)
        producer = s.client().producer(transactional_id="makes-both")
        await producer.start()
        async with producer.transaction():
            await producer.send_offsets_to_transaction({TopicPartition(s.topics()["trades"], 0): 0}, "makes-both")
        await producer.stop()
        assert [f for f in (await bad(s)).values() if "denied" in f.found] == []
        await allow(s, TOPIC, s.topics()["decisions"], READ, DESCRIBE)
        await allow(s, TOPIC, s.topics()["ticks"], CREATE)
        await allow(s, GROUP, group, DESCRIBE)
        await allow(s, TRANSACTION, owner, DESCRIBE)
        wanted = {f"topic {s.topics()['decisions']}": "denied: Write", f"topic {s.topics()['ticks']}": "denied: Describe, Read",
                  f"group {group}": "denied: Read", f"transactional-id {owner}": "denied: Write"}
        found = await until(s, lambda found: {f.where: f.found for f in found if f.found.startswith("denied")}, wanted)
        of_broker = {f.check: (f.state, f.found) for f in found if f.where == "broker 1" and f.state is not State.OK}
        assert of_broker == {
            "auto.create.topics.enable": (State.SHORT, "true"), "offsets.retention.minutes": (State.WRONG, "60"),
            "group.min.session.timeout.ms, group.max.session.timeout.ms": (State.WRONG, "10000 to 1800000")}
    asyncio.run(scenario())


def test_the_embedded_broker_says_what_it_does_not_know(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    broker = EmbeddedBroker()
    broker.start()
    try:
        s = settings_at(broker, request)

        async def scenario() -> None:
            await create_topics(s.client(), s.prefix, s.partitions, s.horizon_ms, retention_ms=120_000)
            found = await bad(s)
            assert {f.state for f in found.values()} == {State.SHORT, State.UNKNOWN}
            unknown = {check for (check, _), f in found.items() if f.state is State.UNKNOWN}
            assert {"auto.create.topics.enable", "clocks"} <= unknown
            assert found["kind of broker", ""].found == "the embedded broker, in memory"
        asyncio.run(scenario())
        assert deskrisk(s, "doctor", "--broker").returncode == 0
        assert deskrisk(s, "doctor", "--broker", "--strict").returncode == 1
    finally:
        broker.stop()


def test_a_broker_that_is_not_there_is_one_line_and_an_error() -> None:
    s = Settings(brokers=f"127.0.0.1:{free_port()}")
    (found,) = asyncio.run(examine_cluster(s))
    assert (found.check, found.state) == ("brokers reached", State.WRONG) and str(s.brokers) in found.found
    done = deskrisk(s, "doctor", "--broker", "--json")
    assert done.returncode == 1 and len(json.loads(done.stdout)) == 1
