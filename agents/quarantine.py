"""What was not applied goes to quarantine with where it was, why, and its bytes."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

from agents.ports import Counters, Publisher
from schemas.codec import encode
from schemas.reasons import QuarantineReason
from schemas.records import Quarantined
from tables.records import RecordBatch

RAW_BYTES = 65_536
#: on a record that was brought back from quarantine: which one it was there
RETRY_HEADER = "deskrisk-retry-of"


def first_of(headers: Sequence[tuple[str, bytes]] | None) -> str | None:
    """Return which quarantined record one that was brought back was first; None: it was not brought back."""
    return next((value.decode(errors="replace") for name, value in headers or () if name == RETRY_HEADER), None)


class Quarantine:
    """Sends what a stage refuses."""

    def __init__(self, topic: str, publisher: Publisher, counters: Counters, raw_bytes: int = RAW_BYTES) -> None:
        self._topic, self._publisher, self._counters, self._raw_bytes = topic, publisher, counters, raw_bytes

    def send(self, batch: RecordBatch, message: int, reason: QuarantineReason, detail: str, raw: bytes,
             index: int = 0) -> asyncio.Future[Any]:
        """Send a record of a slice; ``index``: which one of its message it is."""
        self._counters.add("poison", reason=str(reason))
        offset = int(batch.offsets[message])
        record = Quarantined(topic=batch.topic, partition=batch.partition, offset=offset, reason=str(reason),
                             detail=detail, raw_base64=base64.b64encode(raw[: self._raw_bytes]).decode(),
                             ts=int(batch.timestamps_ms[message]) * 1_000_000, index=index,
                             retry_of=first_of(batch.headers.get(message)))
        key = f"{batch.topic}-{batch.partition}-{offset}".encode()
        return self._publisher.send(self._topic, key, encode(record))
