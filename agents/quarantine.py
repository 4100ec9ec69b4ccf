"""What was not applied goes to quarantine with where it was, why, and its bytes, and is said on `alerts`."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agents.ports import Counters, Publisher
from models.reference import FIRM
from schemas.codec import encode
from schemas.reasons import QuarantineReason
from schemas.records import Alert, Quarantined
from tables.records import RecordBatch

RAW_BYTES = 65_536
#: of one topic and reason there is one alert in so long, with how many there were since the one before
ALERTS_APART_S = 60.0
#: on a record that was brought back from quarantine: which one it was there
RETRY_HEADER = "deskrisk-retry-of"


def first_of(headers: Sequence[tuple[str, bytes]] | None) -> str | None:
    """Return which quarantined record one that was brought back was first; None: it was not brought back."""
    return next((value.decode(errors="replace") for name, value in headers or () if name == RETRY_HEADER), None)


class RefusalAlerts:
    """Says on `alerts` what was not applied, by topic and reason: at once, then at most once a minute with the count.

    Parameters
    ----------
    topic : `alerts`
    clock : UTC ns, and seconds that only go on
    """

    def __init__(self, topic: str, publisher: Publisher, clock: Callable[[], int] = time.time_ns,
                 seconds: Callable[[], float] = time.monotonic) -> None:
        self._topic, self._publisher, self._clock, self._seconds = topic, publisher, clock, seconds
        #: when each topic and reason was told last, and how many came since
        self._told: dict[tuple[str, str], tuple[float, int]] = {}

    def refused(self, record: Quarantined) -> None:
        """Count a record, and say it where nothing was said for a minute."""
        key, now = (record.topic, record.reason), self._seconds()
        last, waiting = self._told.get(key, (now - ALERTS_APART_S, 0))
        if now - last >= ALERTS_APART_S:
            self._say(record, waiting + 1)
            self._told[key] = now, 0
            return
        self._told[key] = last, waiting + 1
        if not waiting:
            asyncio.get_running_loop().call_later(last + ALERTS_APART_S - now, self._say_rest, key, record)

    def _say_rest(self, key: tuple[str, str], record: Quarantined) -> None:
        waiting = self._told[key][1]
        if waiting:
            self._say(record, waiting)
            self._told[key] = self._seconds(), 0

    def _say(self, record: Quarantined, count: int) -> None:
        now, name = self._clock(), f"quarantine.{record.topic}.{record.reason}"
        place = f"{record.partition}@{record.offset}"
        alert = Alert(alert_id=f"{name}.{place}.{record.index}", kind="quarantine", node=FIRM,
                      metric=f"{record.topic} {record.reason}", value=float(count), limit=None, utilisation=None,
                      cause_ts=max(record.ts, 0), raised_ts=now, snapshot_id=0, limit_id=name,
                      note=f"{count} not applied, the first at {place}: {record.detail[:200]}")
        self._publisher.send(self._topic, FIRM.encode(), encode(alert))


class Quarantine:
    """Sends what a stage refuses.

    Parameters
    ----------
    topics : names on the broker by name in the contract
    """

    def __init__(self, topics: Mapping[str, str], publisher: Publisher, counters: Counters,
                 raw_bytes: int = RAW_BYTES) -> None:
        self._topic, self._publisher, self._counters = topics["quarantine"], publisher, counters
        self._raw_bytes = raw_bytes
        self._alerts = RefusalAlerts(topics["alerts"], publisher)

    def send(self, batch: RecordBatch, message: int, reason: QuarantineReason, detail: str, raw: bytes,
             index: int = 0) -> asyncio.Future[Any]:
        """Send a record of a slice; ``index``: which one of its message it is."""
        return self.put(batch.topic, batch.partition, int(batch.offsets[message]), reason, detail, raw,
                        int(batch.timestamps_ms[message]), index, first_of(batch.headers.get(message)))

    def put(self, topic: str, partition: int, offset: int, reason: QuarantineReason, detail: str, raw: bytes,
            ms: int, index: int = 0, retry_of: str | None = None) -> asyncio.Future[Any]:
        """Send a record by where it stands; ``ms``: when it came to its log."""
        self._counters.add("poison", reason=str(reason))
        record = Quarantined(topic=topic, partition=partition, offset=offset, reason=str(reason), detail=detail,
                             raw_base64=base64.b64encode(raw[: self._raw_bytes]).decode(), ts=ms * 1_000_000,
                             index=index, retry_of=retry_of)
        sent = self._publisher.send(self._topic, f"{topic}-{partition}-{offset}".encode(), encode(record))
        self._alerts.refused(record)
        return sent
