"""How this process talks to Kafka: addresses, security, topics."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code
from aiokafka.partitioner import DefaultPartitioner, murmur2

from schemas.topics import BATCH_BYTES_MAX, REPLICAS, TICKS, TOPICS, topic_name
from tables.transactions import TransactionalProducer

#: what a batch has beside the largest record that a producer takes
BATCH_HEAD_BYTES = 1024
#: aiokafka has one request to a node at a time: data of partitions that it does not name wait for it
FETCH_WAIT_MS = 100


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Disconnect a consumer; a fetch that failed and is to be asked again ends with it, and nobody else.

    aiokafka cancels such a fetch and awaits it: whoever stops the consumer gets the cancellation as their own.
    A take-over that fails so would count as cancelled, and nobody would be told.
    """
    try:
        await AIOKafkaConsumer.stop(consumer)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        fetcher = consumer._fetcher
        left = [] if fetcher is None else [fetcher._fetch_task, *fetcher._pending_tasks]
        for fetch in left:
            fetch.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await consumer._client.close()


class Consumer(AIOKafkaConsumer):
    """aiokafka's consumer, stopped so."""

    async def stop(self) -> None:
        """Disconnect."""
        await stop_consumer(self)


@dataclass(frozen=True)
class KafkaClient:
    """Broker addresses and security, and the clients made with them."""

    brokers: str
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "PLAIN"
    sasl_username: str | None = None
    sasl_password: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return the TLS context, or None for plain text."""
        if "SSL" not in self.security_protocol:
            return None
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.cert_file:
            context.load_cert_chain(self.cert_file, self.key_file)
        return context

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments every aiokafka client gets."""
        out: dict[str, Any] = {"bootstrap_servers": self.brokers, "security_protocol": self.security_protocol}
        if "SSL" in self.security_protocol:
            out["ssl_context"] = self.ssl_context()
        if "SASL" in self.security_protocol:
            out |= {"sasl_mechanism": self.sasl_mechanism, "sasl_plain_username": self.sasl_username,
                    "sasl_plain_password": self.sasl_password}
        return out

    def producer(self, **options: Any) -> AIOKafkaProducer:
        """Return a producer, ``acks=all`` unless said otherwise; a transactional one where it has such an id."""
        made = TransactionalProducer if options.get("transactional_id") is not None else AIOKafkaProducer
        return made(**{"acks": "all", "retry_backoff_ms": 5, "max_request_size": BATCH_BYTES_MAX - BATCH_HEAD_BYTES}
                    | self.options() | options)

    def consumer(self, **options: Any) -> Consumer:
        """Return a group-less consumer that reads what is committed."""
        defaults = {"enable_auto_commit": False, "auto_offset_reset": "earliest", "isolation_level": "read_committed",
                    "max_partition_fetch_bytes": 4 << 20, "fetch_max_bytes": 32 << 20, "fetch_max_wait_ms": 200,
                    "metadata_max_age_ms": 30_000}
        return Consumer(**defaults | self.options() | options)

    def admin(self) -> AIOKafkaAdminClient:
        """Return an admin client."""
        return AIOKafkaAdminClient(**self.options())


@lru_cache(maxsize=65_536)
def owner_partition(key: str, partitions: int) -> int:
    """Return the partition that owns a key: Kafka's default (murmur2) over all partitions."""
    return int((murmur2(key.encode()) & 0x7FFFFFFF) % partitions)


def speaker_partition(node: str, partitions: int) -> int:
    """Return the partition whose owner speaks for a node: of an account its own, of others one of all."""
    return owner_partition(node.removeprefix("account:"), partitions)


assert DefaultPartitioner()(b"FX1-001", list(range(8)), list(range(8))) == owner_partition("FX1-001", 8)


async def create_topics(client: KafkaClient, prefix: str, partitions: int, horizon_ms: int,
                        replication: int | None = None, retention_ms: int | None = None) -> list[str]:
    """Create the topics that do not exist yet; return their names. Those that do are never changed.

    Parameters
    ----------
    replication : replicas of each; None: three, or as many as there are brokers
    retention_ms : shortens how long quotes and outputs are kept (an embedded broker holds them in memory)

    Raises
    ------
    ValueError
        If a topic exists with another number of partitions: keys would move to other owners.
    """
    admin = client.admin()
    await admin.start()
    try:
        known = set(await admin.list_topics())
        wanted = {topic_name(prefix, t): (t, partitions if t.partitions == "data" else 1) for t in TOPICS}
        have = [name for name in wanted if name in known]
        for described in await admin.describe_topics(have) if have else []:
            found, expected = len(described["partitions"]), wanted[described["topic"]][1]
            if found != expected:
                raise ValueError(f"topic {described['topic']}: expected {expected} partitions, found {found}; "
                                 "a partition count is changed by a migration, not in place")
        missing = [name for name in wanted if name not in known]
        if missing:
            replicas = replication or min(REPLICAS, len((await admin.describe_cluster())["brokers"]))
            configs = {name: wanted[name][0].broker_config(horizon_ms, replicas) for name in missing}
            if retention_ms is not None:
                for name, config in configs.items():
                    if wanted[name][0] is TICKS:
                        config["retention.ms"] = str(retention_ms)
                    elif wanted[name][0].compact:
                        config |= {"min.compaction.lag.ms": "0", "segment.ms": str(retention_ms)}
            reply = await admin.create_topics([
                NewTopic(name, wanted[name][1], replicas, topic_configs=configs[name]) for name in missing])
            for name, code, *_ in reply.topic_errors:
                error = for_code(code)
                if code and error is not TopicAlreadyExistsError:
                    raise error(f"creating topic {name}")
        return missing
    finally:
        await admin.close()


async def check_topics(client: KafkaClient, prefix: str, partitions: int) -> list[str]:
    """Return what is wrong with the topics, a line each; an empty list is good."""
    admin = client.admin()
    await admin.start()
    try:
        known = set(await admin.list_topics())
        names = {topic_name(prefix, t): partitions if t.partitions == "data" else 1 for t in TOPICS}
        wrong = [f"{name}: missing" for name in names if name not in known]
        for described in await admin.describe_topics([n for n in names if n in known]):
            found, expected = len(described["partitions"]), names[described["topic"]]
            if found != expected:
                wrong.append(f"{described['topic']}: expected {expected} partitions, found {found}")
        return wrong
    finally:
        await admin.close()
