"""Sends what a plan says with a Python client: BROKERS PLAN CLIENT (librdkafka or kafka-python)."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

HEADERS = [("origin", b"\xff\x00\x01"), ("none", None)]


def bytes_of(text: str) -> bytes | None:
    """Return the bytes of a field of the plan."""
    return None if text == "-" else base64.b64decode(text)


def with_librdkafka(brokers: str, codec: str, mode: str, plan: list[list[str]]) -> None:
    """Send with librdkafka."""
    from confluent_kafka import Producer

    in_transaction = mode in ("committed", "aborted")
    producer = Producer({"bootstrap.servers": brokers, "compression.codec": codec, "linger.ms": 20, "acks": "all",
                         "enable.idempotence": mode != "plain",
                         **({"transactional.id": f"librdkafka-{codec}-{mode}"} if in_transaction else {})})
    if in_transaction:
        producer.init_transactions()
        producer.begin_transaction()
    failed: list[Any] = []
    for _, _, topic, key, value, headers, ms in plan:
        producer.produce(topic, key=bytes_of(key), value=bytes_of(value), timestamp=int(ms),
                         headers=HEADERS if headers == "1" else None,
                         on_delivery=lambda error, message: failed.append(error) if error else None)
    producer.flush()
    assert not failed, failed
    if mode == "committed":
        producer.commit_transaction()
    if mode == "aborted":
        producer.abort_transaction()


def with_kafka_python(brokers: str, codec: str, mode: str, plan: list[list[str]]) -> None:
    """Send with kafka-python."""
    from kafka import KafkaProducer

    in_transaction = mode in ("committed", "aborted")
    producer = KafkaProducer(bootstrap_servers=brokers, compression_type=None if codec == "none" else codec,
                             linger_ms=20, acks="all", enable_idempotence=mode != "plain",
                             **({"transactional_id": f"kafka-python-{codec}-{mode}"} if in_transaction else {}))
    if in_transaction:
        producer.init_transactions()
        producer.begin_transaction()
    sent = [producer.send(topic, key=bytes_of(key), value=bytes_of(value), timestamp_ms=int(ms),
                          headers=HEADERS[:1] if headers == "1" else None)  # it sends no header without a value
            for _, _, topic, key, value, headers, ms in plan]
    producer.flush()
    for future in sent:
        future.get(10)
    if mode == "committed":
        producer.commit_transaction()
    if mode == "aborted":
        producer.abort_transaction()
    producer.close()


def main(brokers: str, plan: str, client: str) -> None:
    """Send a plan, group by group."""
    groups: dict[tuple[str, str], list[list[str]]] = {}
    for line in Path(plan).read_text().splitlines():
        parts = line.split("\t")
        groups.setdefault((parts[0], parts[1]), []).append(parts)
    send = {"librdkafka": with_librdkafka, "kafka-python": with_kafka_python}[client]
    for (codec, mode), lines in groups.items():
        send(brokers, codec, mode, lines)


if __name__ == "__main__":
    main(*sys.argv[1:])
