"""`deskrisk doctor --broker`: what is wrong with a cluster is said with what mends it; what it cannot give is no error."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from app.cluster_checks import CHECKS, Finding, Judge, State, failed
from app.settings import Settings
from schemas.topics import TOPICS, in_sync
from tables.cluster import Clock, ClusterFacts, TopicFacts, clock_of

ALL = frozenset({"Read", "Write", "Describe", "Create"})
BROKER = {"transaction.partition.verification.enable": "true", "auto.create.topics.enable": "false",
          "offsets.retention.minutes": "10080", "socket.request.max.bytes": "104857600",
          "group.min.session.timeout.ms": "1000", "group.max.session.timeout.ms": "1800000"}


def settings(**given: Any) -> Settings:
    return Settings(brokers="kafka-1:9092", prefix="p-", partitions=4, **given)


def cluster(s: Settings, brokers: int = 3) -> ClusterFacts:
    """Return a cluster with the topics that this system creates on it."""
    copies = min(3, brokers)
    topics = {s.topics()[t.name]: TopicFacts(
        s.partitions if t.partitions == "data" else 1, copies, copies, 0,
        {"delete.retention.ms": "86400000"} | t.broker_config(s.horizon_ms, copies), ALL) for t in TOPICS}
    own = TopicFacts(50, copies, copies, 0, {"min.insync.replicas": str(in_sync(copies)), "unclean.leader.election.enable": "false"}, ALL)
    return ClusterFacts("id", {n: f"kafka-{n}:9092" for n in range(brokers)}, {}, {"metadata.version": 27, "transaction.version": 2},
                        dict.fromkeys(range(brokers), BROKER), topics | {"__transaction_state": own, "__consumer_offsets": own},
                        groups={"p-deskrisk-gate": ALL}, transactional={"p-owner": True}, may=ALL,
                        clock=Clock(ended_ms=1_000_020, written_ms=1_000_000))


def bad(s: Settings, facts: ClusterFacts) -> list[Finding]:
    return [finding for finding in Judge(s, facts).findings() if finding.state is not State.OK]


def with_topic(facts: ClusterFacts, name: str, config: Mapping[str, str] | None = None, **changed: Any) -> ClusterFacts:
    topic = facts.topics[name]
    found = replace(topic, config=dict(topic.config or {}) | (config or {}), **changed)
    return replace(facts, topics={**facts.topics, name: found})


def test_what_this_system_creates_on_three_brokers_is_right() -> None:
    s = settings()
    assert bad(s, cluster(s)) == []


@pytest.mark.parametrize("brokers", [1, 2])
def test_a_cluster_too_small_falls_short_and_is_no_error(brokers: int) -> None:
    s = settings()
    found = bad(s, cluster(s, brokers))
    assert {f.state for f in found} == {State.SHORT}
    assert {f.falls_short_of for f in found} == {"survives the loss of a machine"}
    assert {f.check for f in found} == {"brokers", "replication factor", "min.insync.replicas"}
    assert not failed(found, strict=False) and failed(found, strict=True)


CONFIGS = [("p-trades", "cleanup.policy", "compact", "delete"), ("p-positions-changelog", "cleanup.policy", "compact,delete", "compact"),
           ("p-trades", "retention.ms", "3600000", "86400000"), ("p-trades", "retention.bytes", "1000", "-1"),
           ("p-positions-changelog", "min.compaction.lag.ms", "0", "86400000"),
           ("p-positions", "delete.retention.ms", "0", "86400000"), ("p-gate-changelog", "max.message.bytes", "1048588", "8388608"),
           ("p-decisions", "unclean.leader.election.enable", "true", "false"), ("p-decisions", "min.insync.replicas", "1", "2"),
           ("p-decisions", "min.insync.replicas", "3", "2")]


@pytest.mark.parametrize(("topic", "name", "value", "expected"), CONFIGS)
def test_a_wrong_setting_of_a_topic_is_said_with_the_command_that_mends_it(topic: str, name: str, value: str, expected: str) -> None:
    s = settings()
    (found,) = bad(s, with_topic(cluster(s), topic, {name: value}))
    assert (found.check, found.where, found.state, found.found, found.expected) == (name, topic, State.WRONG, value, expected)
    assert found.mend == (f"kafka-configs.sh --bootstrap-server kafka-1:9092 --alter --entity-type topics --entity-name {topic} "
                          f"--add-config {name}={expected}")


@pytest.mark.parametrize(("name", "value"), [("retention.ms", "-1"), ("retention.ms", "86400000"), ("segment.ms", "1")])
def test_a_setting_that_keeps_more_or_that_nothing_rests_on_is_right(name: str, value: str) -> None:
    s = settings()
    assert bad(s, with_topic(cluster(s), "p-trades", {name: value})) == []


def test_a_horizon_longer_than_the_topics_keep_is_said() -> None:
    """Topics are created for the horizon of that day: a longer one asked for later is not there."""
    facts = cluster(settings())
    later = settings(rewind_horizon_hours=24 * 10)
    found = {(f.check, f.where) for f in bad(later, facts)}
    assert {("retention.ms", "p-trades"), ("min.compaction.lag.ms", "p-positions-changelog")} <= found
    assert ("offsets.retention.minutes", "broker 0") in found
    assert bad(later, replace(cluster(later), settings={})) == []


def test_copies_partitions_leaders_and_topics_that_are_not_as_they_should_be() -> None:
    s, facts = settings(), cluster(settings())
    for changed, check in (({"partitions": 5}, "partitions"), ({"leaderless": 1}, "leaders"), ({"in_sync": 1}, "replicas in sync")):
        (found,) = bad(s, with_topic(facts, "p-trades", **changed))
        assert (found.check, found.state) == (check, State.WRONG), changed
    found = bad(s, with_topic(facts, "p-trades", {"min.insync.replicas": "1"}, replicas=2, in_sync=2))
    assert [(f.check, f.state) for f in found] == [("replication factor", State.WRONG), ("min.insync.replicas", State.SHORT)]
    assert [(f.check, f.mend) for f in bad(s, replace(facts, topics={k: v for k, v in facts.topics.items() if k != "p-trades"}))] == [
        ("exists", "deskrisk topics create")]
    found = bad(s, with_topic(facts, "__transaction_state", {"min.insync.replicas": "1"}))
    assert [(f.check, f.where) for f in found] == [("min.insync.replicas", "__transaction_state")]


def test_topics_of_the_cluster_that_are_not_made_yet_are_judged_by_what_makes_them() -> None:
    s, facts = settings(), cluster(settings())
    facts = replace(facts, topics={k: v for k, v in facts.topics.items() if k != "__transaction_state"})
    (found,) = bad(s, facts)
    assert (found.check, found.where, found.state) == ("replication factor", "__transaction_state", State.UNKNOWN)
    said = BROKER | {"transaction.state.log.replication.factor": "3", "transaction.state.log.min.isr": "2", "unclean.leader.election.enable": "false"}
    assert bad(s, replace(facts, settings={0: said})) == []
    (found,) = bad(s, replace(facts, settings={0: said, 1: said | {"transaction.state.log.replication.factor": "1", "transaction.state.log.min.isr": "1"}}))[:1]
    assert (found.state, found.found) == (State.WRONG, "1 (not made yet)")
    assert found.mend.startswith("transaction.state.log.replication.factor in server.properties")


def test_settings_of_one_broker_among_others_are_seen() -> None:
    s, facts = settings(), cluster(settings())
    for name, value, state in (("offsets.retention.minutes", "60", State.WRONG), ("auto.create.topics.enable", "true", State.SHORT),
                               ("group.min.session.timeout.ms", "10000", State.WRONG), ("socket.request.max.bytes", "1000000", State.WRONG),
                               ("transaction.partition.verification.enable", "false", State.SHORT)):
        (found,) = bad(s, replace(facts, settings={0: BROKER, 1: BROKER | {name: value}, 2: BROKER}))
        assert (found.where, found.state) == ("broker 1", state) and name in found.check
    (found,) = bad(s, replace(facts, features={"metadata.version": 27, "transaction.version": 1}))
    assert (found.check, found.state) == ("transaction.version", State.SHORT)
    assert found.mend.endswith("upgrade --feature transaction.version=2")
    (found,) = bad(s, replace(facts, unreachable={2: "kafka-2:9092: no route"}, settings={0: BROKER, 1: BROKER}))
    assert (found.check, found.where, found.state) == ("brokers reached", "broker 2", State.WRONG)


def test_what_is_denied_is_said_with_the_rule_that_allows_it() -> None:
    s, facts = settings(), cluster(settings())
    (found,) = bad(s, with_topic(facts, "p-decisions", may=frozenset({"Describe", "Read"})))
    assert found.found == "denied: Write" and found.mend.endswith("--operation Write --topic p-decisions")
    assert bad(s, with_topic(facts, "p-ticks", may=frozenset({"Describe", "Read"}))) == []
    (found,) = bad(s, replace(facts, hidden=frozenset({"p-ticks"}), topics={k: v for k, v in facts.topics.items() if k != "p-ticks"}))
    assert found.found == "denied: Describe, Read"
    (found,) = bad(s, replace(facts, groups={"p-deskrisk-gate": frozenset()}))
    assert found.mend.endswith("--operation Read --group p-deskrisk-gate")
    (found,) = bad(s, replace(facts, transactional={"p-owner": False}))
    assert found.mend.endswith("--operation Write --transactional-id p-owner")
    (found,) = bad(settings(security_protocol="SASL_SSL"), replace(facts, transactional={"p-owner": False}))
    assert " --command-config FILE " in found.mend


def test_what_a_cluster_does_not_say_is_unknown_and_never_taken_for_right() -> None:
    s, facts = settings(), cluster(settings())
    silent = replace(facts, features=None, settings={0: None}, groups={"g": None}, transactional={"t": None}, clock=None, topics={
        name: replace(topic, config=None, may=None) for name, topic in facts.topics.items()})
    found = bad(s, silent)
    assert {f.state for f in found} == {State.UNKNOWN}
    assert {f.check for f in found} == {c.what for c in CHECKS} - {
        "kind of broker", "brokers reached", "brokers", "exists", "partitions", "leaders", "replication factor", "replicas in sync"}
    assert not failed(found, strict=False) and failed(found, strict=True)


def test_clocks_that_differ_are_said() -> None:
    s, facts = settings(), cluster(settings())
    for ahead_ms, wrong in ((-1_500, True), (-900, False), (9_000, False), (60_000, True)):
        found = bad(s, replace(facts, clock=Clock(ended_ms=10**12 + ahead_ms, written_ms=10**12)))
        assert [(f.check, f.state) for f in found] == ([("clocks", State.WRONG)] if wrong else [])


def test_the_embedded_broker_falls_short_and_is_no_error() -> None:
    s, facts = settings(), cluster(settings(), 1)
    found = bad(s, with_topic(replace(facts, cluster_id="kfake"), "p-positions-changelog", {"min.compaction.lag.ms": "0"}))
    assert {f.state for f in found} == {State.SHORT} and {"kind of broker", "min.compaction.lag.ms"} <= {f.check for f in found}


def batch(base: int, count: int, newest: int, control: bool = False) -> bytes:
    head = struct.pack(">iBIhiqqqhii", 0, 2, 0, 0x30 if control else 0x10, count - 1, newest, newest, 1, 0, 0, count)
    return struct.pack(">qi", base, len(head)) + head


def test_clocks_are_read_off_the_end_of_a_transaction_and_the_record_right_before_it() -> None:
    whole = batch(10, 3, 5_000) + batch(13, 1, 5_040, control=True)
    assert clock_of(whole) == Clock(ended_ms=5_040, written_ms=5_000)
    assert clock_of(whole + batch(14, 2, 6_000) + batch(16, 1, 6_007, control=True)) == Clock(6_007, 6_000)
    assert clock_of(batch(13, 1, 5_040, control=True)) is None
    assert clock_of(batch(10, 2, 5_000) + batch(13, 1, 5_040, control=True)) is None  # something between them is gone
    assert clock_of(b"") is None
