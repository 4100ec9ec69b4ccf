"""Rewind and rebuild of the position table: its state at a point from the changelog, its state anew from the trades."""

from __future__ import annotations

import contextlib
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np
from aiokafka.structs import TopicPartition

from app.offline import Offline
from app.settings import Settings
from models import trade_columns as tc
from models.reference import Reference
from models.trade_decode import decode_trades
from schemas.codec import encode
from schemas.records import Alert, Position
from schemas.units import FUTURE_NS, latest_of, parse_ts_ns
from tables.changelog import READINGS, Batches, read_sure
from tables.kafka import KafkaClient
from tables.partition import MARKER_KEY, Marker, Rows
from tables.position_partition import PositionPartition
from tables.records import RecordBatch
from tables.refold import CHUNK, fold
from tables.restore import read_range
from tables.source_log import SourceLog
from tables.transactions import TransactionalProducer, owner_id

SHOWN = 50
RELATIVE = 1e-9


class Refused(ValueError):
    """The rewind cannot be done as asked for: why."""


@dataclass
class Loaded:
    """One partition's changelog and trades, in order."""

    changelog: list[tuple[int, int, bytes, bytes | None]] = field(default_factory=list)  # offset, ms, key, value
    changelog_end: int = 0
    trades: list[tuple[int, int, bytes]] = field(default_factory=list)  # offset, ms, value
    trades_begin: int = 0


def target_ms(text: str, now_ms: int, horizon_ms: int) -> int:
    """Return the point to rewind to, ms since the epoch.

    Raises
    ------
    Refused
        It is no time, in the future, or before the changelog still has every row.
    """
    try:
        at = parse_ts_ns(text if not text.isdigit() else int(text), "to") // 1_000_000
    except ValueError as error:
        raise Refused(f"--to: expected a time (2026-11-20T14:30:00Z) or an offset (offset:123): {error}") from error
    if at > now_ms:
        raise Refused(f"--to: expected a time in the past, was {text}")
    if at < now_ms - horizon_ms:
        oldest = datetime.fromtimestamp((now_ms - horizon_ms) / 1e3).astimezone().isoformat(timespec="seconds")
        raise Refused(f"--to: {text} is beyond the horizon: the changelog keeps every row since {oldest} only "
                      f"({horizon_ms / 3_600_000:g} h, DESKRISK_REWIND_HORIZON_HOURS)")
    return at


async def members_of(client: KafkaClient, group: str) -> int:
    """Return how many workers are in a consumer group."""
    admin = client.admin()
    await admin.start()
    try:
        (answer,) = await admin.describe_consumer_groups([group])
        return len(answer.groups[0][5])  # error, group, state, protocol type, protocol, members
    finally:
        await admin.close()


async def load(settings: Settings) -> tuple[dict[int, Loaded], Reference]:
    """Return every partition's changelog and trades, and the reference data."""
    topics = settings.topics()
    out: dict[int, Loaded] = defaultdict(Loaded)
    found = Offline(settings).follow("reference.instruments", "reference.accounts", "corporate.actions")

    def on_batch(batch: RecordBatch) -> None:
        loaded = out[batch.partition]
        for k, value in enumerate(batch.values):
            offset, ms = int(batch.offsets[k]), int(batch.timestamps_ms[k])
            if batch.topic == topics["positions-changelog"]:
                loaded.changelog.append((offset, ms, batch.keys[k] or b"", value))
            elif value is not None:
                loaded.trades.append((offset, ms, value))

    await read_range(settings.client(), {TopicPartition(topics[t], 0): 0 for t in (
        "reference.instruments", "reference.accounts", "corporate.actions")}, found.router)
    tps = {TopicPartition(topics[t], p): 0 for t in ("positions-changelog", "trades")
           for p in range(settings.partitions)}
    await _read(settings, tps, on_batch, out)
    for _ in range(READINGS):  # what does not add up is read again: the cleaner may have been at work meanwhile
        again = {tp: 0 for tp in tps if tp.topic == topics["positions-changelog"]
                 and batches_at(out[tp.partition], None).left_out_records}
        for tp in again:
            out[tp.partition].changelog.clear()
        await _read(settings, again, on_batch, out)
    async with SourceLog(settings.client()) as log:
        trades = [TopicPartition(topics["trades"], p) for p in range(settings.partitions)]
        for tp, (first, _) in (await log.ranges(trades)).items():
            out[tp.partition].trades_begin = first
    return out, found.reference


async def _read(settings: Settings, tps: dict[TopicPartition, int], on_batch: Callable[[RecordBatch], None],
                out: dict[int, Loaded]) -> None:
    for tp, (_, end) in (await read_range(settings.client(), tps, on_batch)).items():
        if tp.topic == settings.topics()["positions-changelog"]:
            out[tp.partition].changelog_end = end


def batches_at(loaded: Loaded, until_ms: int | None, until_offset: int | None = None) -> Batches:
    """Return the batches up to a time or a changelog offset that add up; what came after them may be half of one."""
    end = next((k for k, (offset, ms, _, _) in enumerate(loaded.changelog)
                if (until_ms is not None and ms > until_ms) or (until_offset is not None and offset > until_offset)),
               len(loaded.changelog))
    offsets, _, keys, values = zip(*loaded.changelog[:end], strict=True) if end else ((), (), (), ())
    batches = Batches()
    batches.feed(keys, values, offsets)
    if end == len(loaded.changelog):
        batches.finish(loaded.changelog_end)
    return batches


def state_at(loaded: Loaded, partition: int, reference: Reference, settings: Settings, until_ms: int | None,
             until_offset: int | None = None) -> tuple[PositionPartition, Marker]:
    """Return the partition as it was: all whole transactions up to a time or a changelog offset."""
    return state_of(batches_at(loaded, until_ms, until_offset), partition, reference, settings)


def state_of(batches: Batches, partition: int, reference: Reference, settings: Settings,
             ) -> tuple[PositionPartition, Marker]:
    """Return the partition that batches come to, and their last marker."""
    part = PositionPartition(partition, reference, settings.trade_ids_per_partition,
                             settings.lateness_ms * 1_000_000, settings.future_ns)
    part.restore(batches.live())
    return part, batches.marker


def left_out(batches: Batches, partition: int) -> list[str]:
    """Return a line where a changelog ends with what is no transaction."""
    return [f"positions-changelog {partition}: {batches.text()}"] if batches.left_out_records else []


def by_trade_time(trades: list[tuple[int, int, bytes]], future_ns: int = FUTURE_NS) -> list[tuple[int, int, bytes]]:
    """Return single trades in the order they happened; what came as one message is taken apart.

    What positions refuse is left out: it is on the quarantine topic, its neighbours of the same message are not.
    """
    single: list[tuple[int, int, int, bytes]] = []
    for start in range(0, len(trades), CHUNK):
        chunk = trades[start : start + CHUNK]
        stamps = np.array([ms for _, ms, _ in chunk], np.int64)
        decoded = decode_trades([value for _, _, value in chunk], latest_of(stamps, future_ns))
        for i in np.flatnonzero(decoded.rows["status"] == tc.READ).tolist():
            offset, ms, _ = chunk[int(decoded.messages[i])]
            single.append((int(decoded.rows["ts_event"][i]), offset, ms, decoded.raws[i]))
    single.sort(key=lambda x: (x[0], x[1]))
    return [(offset, ms, raw) for _, offset, ms, raw in single]


def records_of(part: PositionPartition) -> dict[str, Position]:
    """Return a partition's rows by key."""
    n = len(part.positions)
    return {f"{r.account}|{r.instrument}": r for r in part.records(np.arange(n))} if n else {}


def stated(part: PositionPartition) -> set[str]:
    """Return the keys of the positions that began with an outside statement: their trades alone do not add up."""
    return {k for k, r in records_of(part).items() if r.stated}


def differences(before: dict[str, Position], after: dict[str, Position], what: tuple[str, str]) -> list[str]:
    """Return a line for every row that is not the same in quantity, average price or realised P&L."""
    out = []
    for key in sorted(set(before) | set(after)):
        a, b = before.get(key), after.get(key)
        if a is None or b is None:
            there = b if a is None else a
            if there is not None and (there.quantity != "0" or there.trades):
                out.append(f"{key}: only in {what[1] if a is None else what[0]} ({there.quantity})")
            continue
        if a.quantity != b.quantity:
            out.append(f"{key}: quantity {a.quantity} in {what[0]}, {b.quantity} in {what[1]}")
        elif not _near(a.realised_pnl, b.realised_pnl):
            out.append(f"{key}: realised {a.realised_pnl} in {what[0]}, {b.realised_pnl} in {what[1]}")
        elif not _near(a.average_price, b.average_price):
            out.append(f"{key}: average {a.average_price} in {what[0]}, {b.average_price} in {what[1]}")
    return out


def _near(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return abs(a - b) <= RELATIVE * max(abs(a), abs(b), 1.0)


async def rewind(settings: Settings, to: str, dry_run: bool, by: str, reason: str) -> dict[str, Any]:
    """Return the report of a rewind: the state then, proved from the trades, rolled forward, and (unless dry) written.

    Raises
    ------
    Refused
        Beyond the horizon, an owner still runs, a trade that is needed is gone, or the target is wrong.
    """
    now_ms = time.time_ns() // 1_000_000
    offset = int(to.removeprefix("offset:")) if to.startswith("offset:") and to[7:].isdigit() else None
    until = None if offset is not None else target_ms(to, now_ms, settings.horizon_ms)
    await need_stopped(settings)
    async with fenced(settings, () if dry_run else range(settings.partitions)) as writers:
        report, forward = await _rolled_forward(settings, to, until, offset)
        report["dry_run"] = dry_run
        for p, producer in writers.items():
            if p in forward:
                await write(settings, p, *forward[p], producer)
    if not dry_run:
        await audit(settings, "rewind", by, f"positions to {to}: {reason}; {report['wrong']} rows put right")
    return report


async def _rolled_forward(settings: Settings, to: str, until: int | None, offset: int | None,
                          ) -> tuple[dict[str, Any], dict[int, tuple[PositionPartition, Marker]]]:
    """Return what a rewind finds, and each partition as it then is."""
    loaded, reference = await load(settings)
    report: dict[str, Any] = {"to": to, "horizon_hours": settings.rewind_horizon_hours, "positions_then": 0,
                              "positions_now": 0, "unproved": 0, "trades_rolled_forward": 0}
    then_now: list[str] = []
    wrong: list[str] = []
    torn: list[str] = []
    forward: dict[int, tuple[PositionPartition, Marker]] = {}
    for p, data in sorted(loaded.items()):
        if offset is not None and data.changelog and not data.changelog[0][0] <= offset <= data.changelog[-1][0]:
            raise Refused(f"--to: offset {offset} is not on partition {p} ({data.changelog[0][0]} to "
                          f"{data.changelog[-1][0]})")
        then, marker = state_at(data, p, reference, settings, until, offset)
        batches = batches_at(data, None)
        now, head = state_of(batches, p, reference, settings)
        torn += left_out(batches, p)
        included = marker.offsets.get(settings.topics()["trades"], 0)
        proof = PositionPartition(p, reference, settings.trade_ids_per_partition,
                                  settings.lateness_ms * 1_000_000, settings.future_ns)
        if data.trades_begin == 0:
            fold(proof, [t for t in data.trades if t[0] < included])
            opened = stated(then)
            wrong += [line for line in differences(records_of(then), records_of(proof), ("the changelog", "the trades"))
                      if line.partition(":")[0] not in opened]
        else:
            report["unproved"] += 1  # older trades are gone: the changelog alone says what they came to
        a, b = records_of(then), records_of(now)
        then_now += differences(a, b, ("then", "now"))
        report["positions_then"] += len(a)
        report["positions_now"] += len(b)
        after = [t for t in data.trades if included <= t[0] < head.offsets.get(settings.topics()["trades"], 0)]
        fold(then, after)
        report["trades_rolled_forward"] += len(after)
        wrong += differences(records_of(then), b, ("rolled forward", "now"))
        then.take_openings(now)
        forward[p] = (then, head)
    report |= {"changed_since": len(then_now), "changes": then_now[:SHOWN], "wrong": len(wrong),
               "wrong_rows": wrong[:SHOWN], "left_out": torn}
    return report, forward


async def rebuild(settings: Settings, swap: bool, by: str, reason: str) -> dict[str, Any]:
    """Return the report of a rebuild: every trade again in trade-time order, row by row against the table.

    Raises
    ------
    Refused
        Trades are missing from the log, or (to swap) an owner still runs.
    """
    if swap:
        await need_stopped(settings)
    async with fenced(settings, range(settings.partitions) if swap else ()) as writers:
        report, shadow = await _in_trade_time(settings, swap)
        for p, producer in writers.items():
            if p in shadow:
                await write(settings, p, *shadow[p], producer)
    if swap:
        await audit(settings, "rebuild", by, f"positions: {reason}; {report['differences']} rows changed")
    return report


async def _in_trade_time(settings: Settings, swap: bool,
                         ) -> tuple[dict[str, Any], dict[int, tuple[PositionPartition, Marker]]]:
    """Return what a rebuild finds, and each partition as it then is."""
    loaded, reference = await load(settings)
    found: list[str] = []
    torn: list[str] = []
    shadow: dict[int, tuple[PositionPartition, Marker]] = {}
    report: dict[str, Any] = {"trades": 0, "positions": 0}
    for p, data in sorted(loaded.items()):
        if data.trades_begin > 0:
            raise Refused(f"partition {p}: trades before offset {data.trades_begin} are no longer on the log; "
                          "a rebuild would lose them (use rewind)")
        batches = batches_at(data, None)
        now, head = state_of(batches, p, reference, settings)
        torn += left_out(batches, p)
        part = PositionPartition(p, reference, settings.trade_ids_per_partition,
                                 settings.lateness_ms * 1_000_000, settings.future_ns)
        included = [t for t in data.trades if t[0] < head.offsets.get(settings.topics()["trades"], 0)]
        fold(part, by_trade_time(included, settings.future_ns))
        opened = stated(now)
        found += [line for line in differences(records_of(now), records_of(part), ("the table", "trade-time order"))
                  if line.partition(":")[0] not in opened]
        report["trades"] += len(included)
        report["positions"] += len(records_of(part))
        if swap and opened:
            raise Refused(f"partition {p}: {len(opened)} positions began with an outside statement; a rebuild from "
                          "trades alone would lose it")
        part.take_openings(now)
        shadow[p] = (part, head)
    report |= {"differences": len(found), "rows": found[:SHOWN], "left_out": torn, "swapped": swap}
    return report, shadow


async def need_stopped(settings: Settings) -> None:
    """Refuse while a position worker runs."""
    running = await members_of(settings.client(), settings.group("positions"))
    if running:
        raise Refused(f"{running} position worker(s) are running: stop them first, or the table would have two writers")


@contextlib.asynccontextmanager
async def fenced(settings: Settings, partitions: Iterable[int]) -> AsyncIterator[dict[int, TransactionalProducer]]:
    """Take partitions of the table before anything of them is read: nothing of an owner before comes in any more.

    A transaction that it left open ends here, one way or the other; what of it is still on its way is refused.
    """
    client, group = settings.client(), settings.group("positions")
    producers = {p: client.producer(transactional_id=owner_id(group, p)) for p in partitions}
    try:
        for producer in producers.values():
            await producer.start()
        yield producers
    finally:
        for producer in producers.values():
            await producer.stop()


async def write(settings: Settings, partition: int, part: PositionPartition, head: Marker,
                producer: TransactionalProducer) -> None:
    """Put a partition's state on its changelog as one transaction of its fenced owner, in place of what is there."""
    topic = settings.topics()["positions-changelog"]
    tp = TopicPartition(topic, partition)
    batches = (await read_sure(settings.client(), {tp: Batches()}))[tp]
    rows: dict[bytes, bytes | None] = dict(part.whole())
    old = batches.live().keys() | batches.left_out.keys()
    gone: Rows = [(k, None) for k in sorted(old - rows.keys() - {MARKER_KEY})]
    marker = replace(batches.marker, offsets=head.offsets, extra=head.extra)
    async with producer.transaction():
        for key, value in marker.close([*gone, *rows.items()]):
            await producer.send(topic, value, key, partition)


async def audit(settings: Settings, kind: str, by: str, text: str) -> None:
    """Write the audit record of a rewind or rebuild: an alert that everyone sees."""
    now = time.time_ns()
    record = Alert(alert_id=f"{kind}-{now}", kind=kind, node="firm", metric="positions",  # type: ignore[arg-type]
                   value=None, limit=None, utilisation=None, cause_ts=now, raised_ts=now, snapshot_id=0, ack_by=by,
                   note=text)
    producer = settings.client().producer(enable_idempotence=True)
    await producer.start()
    try:
        await producer.send_and_wait(settings.topics()["alerts"], encode(record), b"firm")
    finally:
        await producer.stop()


def report_text(report: dict[str, Any]) -> str:
    """Return a report as lines a person reads."""
    lines = [f"{k}: {v}" for k, v in report.items() if not isinstance(v, list)]
    for key, value in report.items():
        if isinstance(value, list) and value:
            lines += [f"{key}:", *(f"  {line}" for line in value)]
    return "\n".join(lines) if lines else json.dumps(report)
