"""Backup, restore, and a change of the number of partitions: the topics are the truth, the rest is folded from them.

A backup is a Parquet file a topic, with a manifest. A restore writes it to an empty installation, of any number of
partitions, each record to the partition that owns it there; then it folds the trades with the kernels of production
and compares every position with what the backup's own workers had published. A repartition is the one after the other.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from aiokafka.structs import TopicPartition

from app.recovery import Refused, differences, left_out, load, records_of
from app.settings import Settings
from schemas.codec import decoder_of, encode, records_in
from schemas.records import Decision, Position
from schemas.topics import TOPICS
from tables.changelog import Batches, read_sure
from tables.kafka import create_topics, owner_partition
from tables.position_partition import PositionPartition
from tables.records import RecordBatch
from tables.refold import fold
from tables.restore import read_range
from tables.source_log import SourceLog
from tables.whole_file import Damaged, document_of, make_folder, read_document, sync, write_whole

#: what is written back: facts and decisions of people, not what workers make of them
TRUTH = ("reference.instruments", "reference.accounts", "corporate.actions", "reference.counterparties", "limits",
         "controls", "touches", "market.surfaces", "positions.external", "trades", "decisions", "alerts")
#: kept for the proof only
PROOF = "positions"
MANIFEST, FORMAT = "manifest.json", 1
SHOWN = 50


class _Owner(msgspec.Struct):
    account: str


_owner, _decision, _position = msgspec.json.Decoder(_Owner), decoder_of(Decision), decoder_of(Position)
_SPREAD = {t.name for t in TOPICS if t.partitions == "data"}


async def backup(settings: Settings, folder: Path) -> dict[str, Any]:
    """Write every topic that is the truth to a folder; return the manifest.

    Raises
    ------
    Refused
        The folder is not empty, trades are missing from the log, or some are not folded yet.
    """
    if folder.exists() and any(folder.iterdir()):
        raise Refused(f"{folder}: expected a folder that is empty or not there")
    await _need_whole_log(settings)
    make_folder(folder)
    files = {name: keep_table(folder, name, await _read_topic(settings, name)) for name in (*TRUTH, PROOF)}
    return keep_manifest(folder, files, {"prefix": settings.prefix, "partitions": settings.partitions})


def keep_table(folder: Path, name: str, table: Any) -> dict[str, Any]:
    """Write a topic of a backup; return what its manifest says of the file."""
    from pyarrow import parquet

    path = folder / f"{name}.parquet"
    parquet.write_table(table, path, compression="zstd")
    sync(path)
    return {"records": table.num_rows, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def keep_manifest(folder: Path, files: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """Write what a backup consists of, and return it; it comes last: without it there is no backup."""
    manifest = {"format": FORMAT, "created_ns": time.time_ns(), **about, "files": files}
    write_whole(folder / MANIFEST, document_of(manifest))
    return manifest


async def _need_whole_log(settings: Settings) -> None:
    client, topic, changelog = settings.client(), settings.topics()["trades"], settings.topics()["positions-changelog"]
    tps = [TopicPartition(topic, p) for p in range(settings.partitions)]
    async with SourceLog(client) as log:
        ranges = await log.ranges(tps)
    # what the group has committed may be of a transaction that is torn: it is the markers that say what is folded
    found = await read_sure(client, {TopicPartition(changelog, tp.partition): Batches() for tp in tps})
    for tp, (first, end) in ranges.items():
        batches = found[TopicPartition(changelog, tp.partition)]
        if torn := left_out(batches, tp.partition):
            raise Refused(f"{torn[0]}: let the position workers start and finish, they fold those trades again")
        if first > 0:
            raise Refused(f"partition {tp.partition}: trades before offset {first} are no longer on the log; what "
                          "they left would be lost (publish it as start-of-day statements first)")
        folded = batches.marker.offsets.get(topic, 0)
        if folded < end:
            raise Refused(f"partition {tp.partition}: {end - folded} trades are not folded yet: stop what sends "
                          "them and let the position workers finish")


async def _read_topic(settings: Settings, name: str) -> Any:
    import pyarrow as pa

    columns: dict[str, list[Any]] = {c: [] for c in ("partition", "offset", "ts_ms", "key", "value")}

    def on_batch(batch: RecordBatch) -> None:
        columns["partition"] += [batch.partition] * len(batch)
        columns["offset"] += batch.offsets.tolist()
        columns["ts_ms"] += batch.timestamps_ms.tolist()
        columns["key"] += batch.keys
        columns["value"] += batch.values

    count = settings.partitions if name in _SPREAD else 1
    await read_range(settings.client(), {TopicPartition(settings.topics()[name], p): 0 for p in range(count)}, on_batch)
    return pa.table(columns, schema=pa.schema([("partition", pa.int32()), ("offset", pa.int64()), ("ts_ms", pa.int64()),
                                               ("key", pa.binary()), ("value", pa.binary())]))


async def restore(settings: Settings, folder: Path) -> dict[str, Any]:
    """Write a backup to an empty installation, prove the positions; return the report.

    Raises
    ------
    Refused
        The backup is not whole, or the topics hold something already.
    """
    manifest = manifest_of(folder)
    client, topics = settings.client(), settings.topics()
    await create_topics(client, settings.prefix, settings.partitions, settings.horizon_ms, settings.replication)
    await _need_empty(settings)
    report: dict[str, Any] = {"partitions": [manifest["partitions"], settings.partitions], "records": 0, "left_out": 0}
    began = time.monotonic()
    producer = client.producer(linger_ms=20, enable_idempotence=True, max_batch_size=900_000)
    await producer.start()
    try:
        for name in TRUTH:
            waiting = []
            for key, value, ts_ms, partition in _records(folder, name, manifest["partitions"], settings.partitions):
                if partition < 0:
                    report["left_out"] += 1
                    continue
                waiting.append(await producer.send(topics[name], value, key, partition, timestamp_ms=ts_ms))
                report["records"] += 1
            for future in waiting:
                await future
    finally:
        await producer.stop()
    report["seconds"] = round(time.monotonic() - began, 2)
    return report | await _prove(settings, folder)


async def repartition(settings: Settings, partitions: int, prefix: str) -> dict[str, Any]:
    """Copy an installation to topics of another prefix with another number of partitions, proved; return the report."""
    if prefix == settings.prefix:
        raise Refused(f"--prefix: expected another one than {prefix!r}: the old topics stay as they are until the new "
                      "ones are proved")
    with tempfile.TemporaryDirectory(prefix="deskrisk-repartition-") as name:
        await backup(settings, Path(name) / "backup")
        target = settings.model_copy(update={"partitions": partitions, "prefix": prefix})
        return await restore(target, Path(name) / "backup")


def manifest_of(folder: Path) -> dict[str, Any]:
    """Return what a backup consists of.

    Raises
    ------
    Refused
        It is not whole.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise Refused(f"{folder}: expected a backup, found no {MANIFEST}")
    try:
        manifest = read_document(path, "take another backup")
    except Damaged as error:
        raise Refused(str(error)) from error
    if manifest.get("format") != FORMAT:
        raise Refused(f"{path}: expected format {FORMAT}, was {manifest.get('format')!r}")
    for name, about in manifest["files"].items():
        file = folder / f"{name}.parquet"
        if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != about["sha256"]:
            raise Refused(f"{file}: expected the file that was backed up (SHA-256 {about['sha256'][:12]}...)")
    return manifest


async def _need_empty(settings: Settings) -> None:
    consumer = settings.client().consumer()
    await consumer.start()
    try:
        tps = [TopicPartition(settings.topics()[t.name], p) for t in TOPICS
               for p in range(settings.partitions if t.partitions == "data" else 1)]
        full = sorted({tp.topic for tp, end in (await consumer.end_offsets(tps)).items() if end > 0})
    finally:
        await consumer.stop()
    if full:
        raise Refused(f"expected empty topics, these hold records: {', '.join(full)}")


def _rows(folder: Path, name: str) -> Any:
    from pyarrow import parquet

    table = parquet.read_table(folder / f"{name}.parquet")
    # in the order of time over all partitions, and of the log within one
    order = np.lexsort((table["offset"].to_numpy(), table["partition"].to_numpy(), table["ts_ms"].to_numpy()))
    return table.take(order)


def _records(folder: Path, name: str, before: int, after: int,
             ) -> Iterator[tuple[bytes | None, bytes | None, int, int]]:
    """Give (key, value, time, new partition) of a topic; -1: it was another partition's, which has its own copy."""
    for batch in _rows(folder, name).to_batches(10_000):
        for row in batch.to_pylist():
            key, value, ts_ms = row["key"], row["value"], row["ts_ms"]
            if name in ("trades", "positions.external") and value is not None:
                for owner, raw in _owned(value, row["partition"], before):
                    yield key, raw, ts_ms, owner_partition(owner, after) if owner else -1
            elif name == "decisions" and value is not None:
                decision = _decision.decode(value)
                # offsets of the old log mean nothing here: executions are counted from the beginning of the new one
                moved = msgspec.structs.replace(decision, as_of=None, fills_from=0)
                yield key, encode(moved), ts_ms, owner_partition(decision.account, after)
            else:
                yield key, value, ts_ms, owner_partition((key or b"").decode(), after) if name in _SPREAD else 0


def _owned(value: bytes, partition: int, before: int) -> list[tuple[str | None, bytes]]:
    """Return (account, record) of what a message holds for its partition; no account: it is left out."""
    try:
        raws = records_in(value)
        named = [(_owner.decode(raw).account, raw) for raw in raws]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return [(None, value)]  # poison: in quarantine
    return [(account if owner_partition(account, before) == partition else None, raw) for account, raw in named]


async def _prove(settings: Settings, folder: Path) -> dict[str, Any]:
    """Fold the restored trades anew and hold them against the positions of the backup."""
    published: dict[str, Position] = {}
    for batch in _rows(folder, PROOF).to_batches():
        for value in batch["value"].to_pylist():
            if value is not None:
                p = _position.decode(value)
                held = published.get(f"{p.account}|{p.instrument}")
                if held is None or (p.as_of.offset, p.revision) >= (held.as_of.offset, held.revision):
                    published[f"{p.account}|{p.instrument}"] = p
    loaded, reference = await load(settings)
    again: dict[str, Position] = {}
    for number, data in sorted(loaded.items()):
        part = PositionPartition(number, reference, settings.trade_ids_per_partition,
                                 settings.lateness_ms * 1_000_000, settings.future_ns)
        fold(part, data.trades)
        again |= records_of(part)
    stated = {k for k, p in published.items() if p.stated}
    found = [line for line in differences(published, again, ("the backup", "the restored trades"))
             if line.partition(":")[0] not in stated]
    return {"positions": sum(p.trades > 0 for p in again.values()), "began_with_a_statement": len(stated),
            "differences": len(found), "rows": found[:SHOWN]}
