"""What was not applied: read from the topic `quarantine`, and brought back to the topic it came from."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from aiokafka.structs import TopicPartition

from agents.quarantine import RETRY_HEADER
from app.control import Refused, check_person, check_reason
from app.settings import Settings
from models.quarantined import BY_NAME, QuarantineLog, id_of, key_field, meaning_of, retry_of
from schemas.codec import decoder_of, encode, records_in
from schemas.reasons import QUARANTINE_REMEDY, QuarantineReason
from schemas.records import Quarantined
from schemas.units import parse_ts_ns
from tables.records import RecordBatch
from tables.restore import ends_of, read_range

#: so many records are looked at; of more the newest
KEPT = 50_000
#: what is longer is read again where it came from
RAW_KEPT = 8_192
_record = decoder_of(Quarantined)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def since_ns(text: str | None, now_ns: int) -> int:
    """Return the time that a text names: RFC 3339, or so long ago (90s, 15m, 2h, 3d).

    Raises
    ------
    Refused
        It is neither.
    """
    if text is None:
        return 0
    if text[:-1].isdigit() and text[-1] in _UNITS and len(text) < 8:
        return now_ns - int(timedelta(**{_UNITS[text[-1]]: int(text[:-1])}).total_seconds() * 1e9)
    try:
        return parse_ts_ns(text, "since")
    except (ValueError, OverflowError) as error:
        raise Refused(f"since: expected a time (2026-11-20T14:30:00Z) or 90s, 15m, 2h, 3d, was {text!r}") from error


def when(ts_ns: int) -> str:
    """Return a time as people read it."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ts_ns // 1_000)).strftime("%Y-%m-%dT%H:%M:%SZ")


async def read_quarantine(settings: Settings, kept: int = KEPT) -> QuarantineLog:
    """Return what is in quarantine, the newest state of each record."""
    log, tps = QuarantineLog(kept), [TopicPartition(settings.topics()["quarantine"], p)
                                     for p in range(settings.partitions)]

    def on_batch(batch: RecordBatch) -> None:
        for value in batch.values:
            if value is not None:
                try:
                    log.take(shortened(_record.decode(value), RAW_KEPT))
                except msgspec.DecodeError:
                    continue  # nothing that this version wrote

    ends = await ends_of(settings.client(), tps)
    await read_range(settings.client(), {tp: 0 for tp, end in ends.items() if end}, on_batch)
    return log


def shortened(record: Quarantined, most: int) -> Quarantined:
    """Return a record, without its bytes where they are long."""
    return record if len(record.raw_base64) <= most else msgspec.structs.replace(record, raw_base64="")


class Origin:
    """Records of a topic as they came, read again from where they stand."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def read(self, record: Quarantined) -> tuple[bytes | None, bytes | None, bool]:
        """Return key and value of a record where it still is on its log, and whether a newer one has its key."""
        tp = TopicPartition(record.topic, record.partition)
        found: list[tuple[bytes | None, bytes | None]] = []
        newer: set[bytes | None] = set()
        name = self.name_of(record)
        compact = name in BY_NAME and BY_NAME[name].compact

        def on_batch(batch: RecordBatch) -> None:
            for k, offset in enumerate(batch.offsets.tolist()):
                if offset == record.offset:
                    found.append((batch.keys[k] if batch.keys else None, batch.values[k]))
                elif offset > record.offset and compact:
                    newer.add(batch.keys[k] if batch.keys else None)

        client = self._settings.client()
        end = (await ends_of(client, [tp]))[tp]
        if end > record.offset:
            before = {tp: end if compact else record.offset + 1}
            await read_range(client, {tp: record.offset}, on_batch, before=before)
        key, value = found[0] if found else (None, None)
        return key, value, (key or self.key_in(record)) in newer

    def name_of(self, record: Quarantined) -> str:
        """Return the name of a record's topic in the contract."""
        return record.topic.removeprefix(self._settings.prefix)

    def key_in(self, record: Quarantined) -> bytes | None:
        """Return the key that a record's own field gives it."""
        field = key_field(BY_NAME[self.name_of(record)])
        try:
            name = msgspec.json.decode(base64.b64decode(record.raw_base64)).get(field)
        except (msgspec.DecodeError, UnicodeDecodeError, AttributeError):
            return None
        return name.encode() if isinstance(name, str) else None


def whole(record: Quarantined, value: bytes | None) -> bytes | None:
    """Return the bytes of one quarantined record: of an array it alone, its neighbours were applied."""
    kept = base64.b64decode(record.raw_base64)
    if value is None:
        return kept or None
    if value.startswith(kept) and value.lstrip()[:1] != b"[":
        return value  # quarantine keeps the beginning of what is long
    try:
        each = records_in(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return kept or None
    return each[record.index] if record.index < len(each) and each[record.index].startswith(kept) else kept or None


async def retry(settings: Settings, records: Sequence[Quarantined], by: str, why: str, dry_run: bool,
                ) -> list[dict[str, Any]]:
    """Publish records again where they came from; return what was, or would be, done with each.

    The origin's key goes with it, else that of the record's own field. Who and why is written to `quarantine` under the
    record, and where it stands now; if it is refused again, its new entry names the first one.

    Raises
    ------
    Refused
        The person or the reason says nothing.
    """
    if not dry_run:
        check_person(by), check_reason(why)
    origin, out = Origin(settings), []
    producer = settings.client().producer(enable_idempotence=True)
    if not dry_run:
        await producer.start()
    try:
        for record in sorted(records, key=lambda r: (r.topic, r.partition, r.offset, r.index)):
            line = {"id": id_of(record), "reason": record.reason, "done": False}
            out.append(line)
            may = retry_of(origin.name_of(record))
            if record.retried_ts is not None:
                line["why_not"] = f"was retried by {record.retried_by} as {record.retried_as}"
            elif record.reason == QuarantineReason.SKIPPED:
                line["why_not"] = QUARANTINE_REMEDY[QuarantineReason.SKIPPED]
            elif not may.allowed:
                line["why_not"] = may.effect
            else:
                line["effect"] = may.effect
                await _retry_one(settings, origin, record, line, None if dry_run else producer, by, why)
    finally:
        if not dry_run:
            await producer.stop()
    return out


async def _retry_one(settings: Settings, origin: Origin, record: Quarantined, line: dict[str, Any], producer: Any,
                     by: str, why: str) -> None:
    key, value, newer = await origin.read(record)
    raw = whole(record, value)
    if raw is None:
        line["why_not"] = "its bytes are on no log any more"
        return
    if newer:
        line["why_not"] = "a newer record of its key stands"
        return
    line["bytes"], key = len(raw), key or origin.key_in(record)
    if key is None and BY_NAME[origin.name_of(record)].compact:
        line["why_not"] = "its key is on no log any more, and its topic keeps records by key"
        return
    line["key"] = None if key is None else key.decode(errors="replace")
    if producer is None:
        return
    first = record.retry_of or id_of(record)
    sent = await producer.send_and_wait(record.topic, raw, key, None if key is not None else record.partition,
                                        headers=[(RETRY_HEADER, first.encode())])
    line["done"], line["as"] = True, f"{sent.partition}@{sent.offset}"
    seen = msgspec.structs.replace(record, raw_base64="", retried_by=check_person(by), retried_why=why.strip(),
                                   retried_ts=time.time_ns(), retried_as=line["as"])
    await producer.send_and_wait(settings.topics()["quarantine"], encode(seen),
                                 f"{record.topic}-{record.partition}-{record.offset}".encode())


class Notices:
    """What whoever starts an installation is told: that reference data is missing, and what was not applied.

    Parameters
    ----------
    settings : of the installation, with its brokers
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self._log, self._read = settings, QuarantineLog(1_000), dict[TopicPartition, int]()
        self._said: dict[tuple[str, str], int] = {}

    async def at_start(self) -> list[str]:
        """Return a line where there is no reference data, and one for what is in quarantine already."""
        topics, client = self._settings.topics(), self._settings.client()
        wanted = [TopicPartition(topics[t], 0) for t in ("reference.accounts", "reference.instruments")]
        empty = [tp.topic for tp, end in (await ends_of(client, wanted)).items() if not end]
        there = f"--brokers {self._settings.brokers}"
        lines = [f"no reference data: {' and '.join(sorted(empty))} empty. Until `deskrisk reference load FOLDER "
                 f"{there}` trades are not applied: they go to quarantine"] if empty else []
        return lines + await self.look()

    async def look(self) -> list[str]:
        """Return a line for each topic and reason of which more records wait than were said."""
        tps = [TopicPartition(self._settings.topics()["quarantine"], p) for p in range(self._settings.partitions)]
        ends = await ends_of(self._settings.client(), tps)
        starts = {tp: self._read.get(tp, 0) for tp, end in ends.items() if end > self._read.get(tp, 0)}

        def on_batch(batch: RecordBatch) -> None:
            for value in batch.values:
                if value is not None:
                    try:
                        self._log.take(shortened(_record.decode(value), 0))
                    except msgspec.DecodeError:
                        continue  # nothing that this version wrote

        read = await read_range(self._settings.client(), starts, on_batch, before=ends)
        self._read |= {tp: at for tp, (at, _) in read.items()}
        before, self._said = self._said, {(x["topic"], x["reason"]): x["count"] for x in self._log.summary()}
        return [self._line(*key, n) for key, n in self._said.items() if n > before.get(key, 0)]

    def _line(self, topic: str, reason: str, count: int) -> str:
        there, name = f"--brokers {self._settings.brokers}", topic.removeprefix(self._settings.prefix)
        line = (f"{count} records of {name} are in quarantine: {reason}, {meaning_of(reason)}. "
                f"`deskrisk quarantine show --reason {reason} {there}` lists them")
        if reason.startswith("unknown_") and retry_of(name).allowed:
            line += (f"; once it does, `deskrisk quarantine retry --all --topic {name} --reason {reason} "
                     f'--why "reference data is there now" {there}` brings them back')
        return line
