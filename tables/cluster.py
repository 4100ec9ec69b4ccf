"""What a cluster says of itself: brokers, features, settings, topics, what a client may do, its clock. Reads only."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import DescribeGroupsRequest_v3, DescribeGroupsResponse_v3
from aiokafka.protocol.api import Request, RequestStruct, Response, ResponseHeader_v0
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.transaction import EndTxnRequest
from aiokafka.protocol.types import (
    Array,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    String,
    TaggedFields,
)
from aiokafka.structs import TopicPartition

from schemas.topics import BATCH_BYTES_MAX
from tables.kafka import KafkaClient

#: operations of access control, by the bit that stands for each
OPERATIONS = {3: "Read", 4: "Write", 5: "Create", 6: "Delete", 7: "Alter", 8: "Describe", 9: "ClusterAction",
              10: "DescribeConfigs", 11: "AlterConfigs", 12: "IdempotentWrite"}
#: so many bits say nothing: the broker was not asked, or does not know
_NOT_SAID = -2_147_483_648
#: a request of nobody's transaction: no producer has this id, so that whatever the answer, nothing is done
NOBODY = 2**63 - 1
GROUP, TRANSACTION = 0, 1
#: the cluster's own topics; who asks for a coordinator has them made, with the settings of that moment
OFFSETS_TOPIC, TRANSACTIONS_TOPIC = "__consumer_offsets", "__transaction_state"
#: a coordinator that is being found or loads is asked again
COMING, COMING_S = (14, 15, 16), 0.1
UNKNOWN_TOPIC, TOPIC_DENIED, GROUP_DENIED, TRANSACTION_DENIED = 3, 29, 30, 53
#: where a batch has its last offset (as a difference), its attributes, and its newest time; and how long its head is
_BATCH = struct.Struct(">qiibIhiqq")
_CONTROL = 0x20
#: the largest batch, and the end of a transaction behind it
FETCH_BYTES = BATCH_BYTES_MAX + 4096


@dataclass(frozen=True)
class TopicFacts:
    """One topic as it is.

    Parameters
    ----------
    partitions : how many it has
    replicas : how many copies the partition with the fewest has
    in_sync : how many of them are in sync, of the partition with the fewest
    leaderless : partitions without a leader
    config : its effective settings; None: not said
    may : operations this client may do; None: not said
    """

    partitions: int
    replicas: int
    in_sync: int
    leaderless: int
    config: Mapping[str, str] | None = None
    may: frozenset[str] | None = None


@dataclass(frozen=True)
class Clock:
    """What the log says of clocks: the newest end of a transaction, dated by the broker, and the record before it."""

    #: ms, by the broker's clock
    ended_ms: int
    #: ms, by the clock of the worker that wrote it
    written_ms: int


@dataclass(frozen=True)
class ClusterFacts:
    """A cluster as it is; None stands for what it does not say."""

    cluster_id: str | None
    #: address by broker
    brokers: Mapping[int, str]
    #: why a broker cannot be reached under the address that the cluster gives
    unreachable: Mapping[int, str]
    #: finalized features and their levels
    features: Mapping[str, int] | None
    #: settings by broker
    settings: Mapping[int, Mapping[str, str] | None]
    topics: Mapping[str, TopicFacts]
    #: topics of which nothing is said to this client
    hidden: frozenset[str] = frozenset()
    #: what this client may do, by group
    groups: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    #: whether this client may write, by transactional id
    transactional: Mapping[str, bool | None] = field(default_factory=dict)
    may: frozenset[str] | None = None
    clock: Clock | None = None

    def setting(self, name: str) -> dict[int, str]:
        """Return a setting by broker, of those that say it."""
        return {node: found[name] for node, found in self.settings.items() if found is not None and name in found}


class _FeaturesResponse(Response):
    API_KEY, API_VERSION = 18, 3
    SCHEMA = Schema(
        ("error_code", Int16),
        ("api_keys", CompactArray(("api_key", Int16), ("min", Int16), ("max", Int16), ("tags", TaggedFields))),
        ("throttle_time_ms", Int32), ("tags", TaggedFields))


class _FeaturesRequest(RequestStruct):
    API_KEY, API_VERSION, FLEXIBLE_VERSION, RESPONSE_TYPE = 18, 3, True, _FeaturesResponse
    SCHEMA = Schema(("name", CompactString("utf-8")), ("version", CompactString("utf-8")), ("tags", TaggedFields))

    def parse_response_header(self, read_buffer: BytesIO | bytes) -> ResponseHeader_v0:
        """Return the header; of this answer alone it is the old one (KIP-511)."""
        return ResponseHeader_v0.decode(read_buffer)


class Features(Request[_FeaturesRequest]):
    """ApiVersions as of version 3: with the features of the cluster."""

    API_KEY = 18

    def build(self, request_struct_class: type[_FeaturesRequest]) -> _FeaturesRequest:
        """Return the request."""
        return request_struct_class("deskrisk", "1", {})


class _WhatResponse(Response):
    API_KEY, API_VERSION = 3, 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", Array(("node_id", Int32), ("host", String("utf-8")), ("port", Int32), ("rack", String("utf-8")))),
        ("cluster_id", String("utf-8")), ("controller_id", Int32),
        ("topics", Array(
            ("error_code", Int16), ("topic", String("utf-8")), ("is_internal", Boolean),
            ("partitions", Array(
                ("error_code", Int16), ("partition", Int32), ("leader", Int32), ("leader_epoch", Int32),
                ("replicas", Array(Int32)), ("isr", Array(Int32)), ("offline_replicas", Array(Int32)))),
            ("operations", Int32))),
        ("operations", Int32))


class _WhatRequest(RequestStruct):
    API_KEY, API_VERSION, RESPONSE_TYPE = 3, 8, _WhatResponse
    SCHEMA = Schema(("topics", Array(String("utf-8"))), ("create", Boolean), ("cluster_operations", Boolean),
                    ("topic_operations", Boolean))


class What(Request[_WhatRequest]):
    """Metadata as of version 8: with what this client may do. Never creates what it asks for."""

    API_KEY = 3

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = list(topics)

    def build(self, request_struct_class: type[_WhatRequest]) -> _WhatRequest:
        """Return the request."""
        return request_struct_class(self._topics, False, True, True)


class _GroupRequest(DescribeGroupsRequest_v3):
    RESPONSE_TYPE = DescribeGroupsResponse_v3  # aiokafka reads this answer by the version before: without operations


class Group(Request[_GroupRequest]):
    """DescribeGroups with what this client may do."""

    API_KEY = 15

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: type[_GroupRequest]) -> _GroupRequest:
        """Return the request."""
        return request_struct_class([self._group], True)


def _operations(bits: int) -> frozenset[str] | None:
    return None if bits == _NOT_SAID else frozenset(name for bit, name in OPERATIONS.items() if bits & (1 << bit))


def finalized(tags: Mapping[int, bytes]) -> dict[str, int]:
    """Return the levels of the features that a cluster has finalized, of the tagged fields of its answer."""
    found = CompactArray(("name", CompactString("utf-8")), ("max", Int16), ("min", Int16), ("tags", TaggedFields)
                         ).decode(BytesIO(tags[2])) if 2 in tags else []
    return {name: level for name, level, _, _ in found or ()}


def clock_of(raw: bytes) -> Clock | None:
    """Return what the newest end of a transaction in some batches says, where the batch before it is there, too."""
    at, found, before = 0, None, None
    while at + 61 <= len(raw):
        base, length, _, _, _, attributes, last, _, newest = _BATCH.unpack_from(raw, at)
        if attributes & _CONTROL and before is not None and before[0] + 1 == base:
            found = Clock(ended_ms=newest, written_ms=before[1])
        before = None if attributes & _CONTROL else (base + last, newest)
        at += 12 + length
    return found


class _Asked:
    """One look at a cluster."""

    def __init__(self, client: KafkaClient, wait_s: float) -> None:
        self._settings, self._wait_s = client, wait_s
        self._admin: AIOKafkaAdminClient = client.admin()
        self._client = self._admin._client

    async def _ask(self, node: int, request: Any) -> Any:
        async with asyncio.timeout(self._wait_s):
            return await self._client.send(node, request)

    async def _perhaps(self, node: int, request: Any) -> Any:
        """Return an answer, or None where the broker does not know the request, or says nothing."""
        try:
            return await self._ask(node, request)
        except (KafkaError, NotImplementedError, TimeoutError):
            return None

    async def _reach(self, node: int, address: str) -> str | None:
        try:
            async with asyncio.timeout(self._wait_s):
                return None if await self._client.ready(node) else f"nobody answers at {address}"
        except (KafkaError, OSError, TimeoutError) as error:
            return f"{address}: {error or type(error).__name__}"

    async def _configs(self, kind: ConfigResourceType, names: Sequence[str]) -> dict[str, dict[str, str]]:
        try:
            async with asyncio.timeout(self._wait_s):
                answers = await self._admin.describe_configs([ConfigResource(kind, name) for name in names])
        except (KafkaError, NotImplementedError, TimeoutError):
            return {}
        return {name: {entry[0]: entry[1] for entry in entries if entry[1] is not None}
                for answer in answers for code, _, _, name, entries in answer.resources if code == 0}

    async def _coordinator(self, node: int, kind: int, key: str) -> tuple[int, int]:
        deadline = time.monotonic() + self._wait_s
        while (answer := await self._perhaps(node, FindCoordinatorRequest(key, kind))) is not None:
            if answer.error_code not in COMING or time.monotonic() > deadline:
                return answer.error_code, answer.coordinator_id
            await asyncio.sleep(COMING_S)
        return -1, -1

    async def _group(self, node: int, group: str) -> frozenset[str] | None:
        code, at = await self._coordinator(node, GROUP, group)
        if code == GROUP_DENIED:
            return frozenset()
        answer = await self._perhaps(at, Group(group)) if code == 0 else None
        if answer is None:
            return None
        (found,) = answer.to_object()["groups"]
        if found["error_code"] == GROUP_DENIED:
            return frozenset()
        return _operations(found["authorized_operations"]) if found["error_code"] == 0 else None

    async def _may_write(self, node: int, transactional_id: str) -> bool | None:
        """Return whether transactions may be written under an id, asked with the end of one that cannot be."""
        code, at = await self._coordinator(node, TRANSACTION, transactional_id)
        answer = await self._perhaps(at, EndTxnRequest(transactional_id, NOBODY, 0, False)) if code == 0 else None
        code = answer.error_code if answer is not None else code
        return code != TRANSACTION_DENIED if code > 0 else None

    async def _clock(self, changelog: str, partitions: int) -> Clock | None:
        consumer = self._settings.consumer(isolation_level="read_uncommitted")
        found: list[Clock] = []
        try:
            async with asyncio.timeout(self._wait_s):
                await consumer.start()
                tps = [TopicPartition(changelog, p) for p in range(partitions)]
                ends = await consumer.end_offsets(tps)
            for tp in tps:
                leader = consumer._client.cluster.leader_for_partition(tp)
                if ends[tp] < 2 or leader is None or leader < 0:
                    continue
                answer = await self._perhaps(leader, FetchRequest(
                    500, 1, FETCH_BYTES, 0, [(tp.topic, [(tp.partition, ends[tp] - 2, FETCH_BYTES)])]))
                for _, parts in answer.topics if answer is not None else ():  # of each partition the batches come last
                    found += [clock for part in parts if (clock := clock_of(part[-1] or b"")) is not None]
        except (KafkaError, TimeoutError):
            return None
        finally:
            await consumer.stop()
        return max(found, key=lambda clock: clock.ended_ms, default=None)

    async def look(self, topics: Sequence[str], groups: Sequence[str], transactional_ids: Sequence[str],
                   changelog: str) -> ClusterFacts:
        try:
            async with asyncio.timeout(self._wait_s):
                await self._admin.start()
            any_node = self._client.get_random_node()
            found = (await self._ask(any_node, What([*topics, OFFSETS_TOPIC, TRANSACTIONS_TOPIC]))).to_object()
            brokers = {b["node_id"]: f"{b['host']}:{b['port']}" for b in found["brokers"]}
            await self._client.force_metadata_update()
            unreachable = {node: why for node, address in brokers.items()
                           if (why := await self._reach(node, address)) is not None}
            reached = [node for node in brokers if node not in unreachable]
            node = reached[0] if reached else any_node
            said = await self._perhaps(node, Features())
            there = {t["topic"]: t for t in found["topics"] if t["error_code"] not in (UNKNOWN_TOPIC, TOPIC_DENIED)
                     and t["partitions"]}
            made = {t["topic"] for t in found["topics"] if t["error_code"] != UNKNOWN_TOPIC}
            configs = await self._configs(ConfigResourceType.TOPIC, list(there)) if there else {}
            settings = {n: (await self._configs(ConfigResourceType.BROKER, [str(n)])).get(str(n)) for n in reached}
            return ClusterFacts(
                cluster_id=found["cluster_id"], brokers=brokers, unreachable=unreachable, settings=settings,
                features=finalized(said.tags) if said is not None and said.error_code == 0 else None,
                topics={name: _topic_facts(t, configs.get(name)) for name, t in there.items()},
                hidden=frozenset(t["topic"] for t in found["topics"] if t["error_code"] == TOPIC_DENIED),
                groups={group: await self._group(node, group) if OFFSETS_TOPIC in made else None for group in groups},
                transactional={x: await self._may_write(node, x) if TRANSACTIONS_TOPIC in made else None
                               for x in transactional_ids},
                may=_operations(found["operations"]),
                clock=await self._clock(changelog, len(there[changelog]["partitions"])) if changelog in there else None)
        finally:
            await self._admin.close()


def _topic_facts(topic: Mapping[str, Any], config: Mapping[str, str] | None) -> TopicFacts:
    parts = topic["partitions"]
    return TopicFacts(
        partitions=len(parts), replicas=min(len(p["replicas"]) for p in parts),
        in_sync=min(len(p["isr"]) for p in parts), leaderless=sum(p["leader"] < 0 for p in parts), config=config,
        may=_operations(topic["operations"]))


async def look_at(client: KafkaClient, topics: Sequence[str], groups: Sequence[str] = (),
                  transactional_ids: Sequence[str] = (), changelog: str = "", wait_s: float = 10.0) -> ClusterFacts:
    """Return what a cluster says of itself and of some topics, groups and transactional ids; nothing is changed.

    Of groups and ids nothing is asked before the cluster has its own topics for them: the question would make those.

    Parameters
    ----------
    changelog : the topic whose transactions say what time it is where
    wait_s : for each answer

    Raises
    ------
    KafkaError, OSError, TimeoutError
        If no broker answers.
    """
    return await _Asked(client, wait_s).look(topics, groups, transactional_ids, changelog)
