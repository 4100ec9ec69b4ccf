"""The position stage: trades and outside statements in, position rows out, each event counted once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from aiokafka.structs import TopicPartition

from agents.corporate_actions import ActionFollower
from agents.held_terms import HeldTerms
from agents.ports import Clock, Counters, Publisher
from agents.quarantine import Quarantine
from agents.read_report import PositionReading
from agents.reference_tail import ReferenceTail
from agents.reload import KeyReloads
from agents.stage import Bound, ReadingStage
from agents.statement_keys import give_own_keys
from agents.statements import Statements
from agents.torn_changelog import say_torn
from agents.trade_refusals import REASONS, detail_of
from models import trade_columns as tc
from models.position_progress import FoldProgress
from models.trade_decode import DecodedTrades, decode_trades
from schemas.addresses import PositionProgress
from schemas.codec import encode
from schemas.records import Position
from schemas.units import FUTURE_NS, latest_of
from tables.changelog import Batches, read_sure
from tables.kafka import KafkaClient, owner_partition
from tables.manager import EVERYTHING
from tables.partition import MARKER_KEY
from tables.position_partition import PositionPartition
from tables.records import RecordBatch
from tables.restore import ends_of
from tables.source_log import SourceLog
from tables.standby import Standby
from tables.store import DiskPartition
from tables.tasks import process, turned
from tables.trade_fees import other_fees, settlement_fees
from tables.transactions import owner_id
from tables.writer import PartitionWriter, fault

log = logging.getLogger(__name__)
ORIGIN_HEADER = "deskrisk-origin"
#: publish at once while reading is up to date; under a backlog a row goes out at most this often
OUT_BACKLOG_S = 4.0
#: it says so often how far it is, whatever comes
PROGRESS_S = 0.5
#: records of a partition that wait for the worker; counted, because clocks of two machines may differ
BACKLOG_RECORDS = 5_000
#: partition, offset and place in the message of a record that was forwarded; other text of that header says nothing
_ORIGIN = re.compile(rb"(\d{1,9})/(\d{1,18})/(\d{1,9})")


class PositionStage(ReadingStage):
    """Owns some partitions of `trades` and `positions.external`, and their positions."""

    def __init__(self, client: KafkaClient, group: str, topics: dict[str, str], partitions: int, data_dir: Path,
                 reference: ReferenceTail, publisher: Publisher, clock: Clock, counters: Counters, fills_max: int,
                 lateness_ns: int, standby: Standby | None = None, future_ns: int = FUTURE_NS) -> None:
        self._client, self._group, self._topics = client, group, topics
        self._partition_count = partitions
        self._data_dir = data_dir
        self._reference = reference
        self._publisher, self._clock, self._counters = publisher, clock, counters
        self._quarantine = Quarantine(topics, publisher, counters)
        self._fills_max, self._lateness_ns, self._future_ns = fills_max, lateness_ns, future_ns
        self._standby = standby
        self.parts: dict[int, PositionPartition] = {}
        self.writers: dict[int, PartitionWriter] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._progress = FoldProgress()
        self._said_ns: dict[int, int] = {}
        self._publishing: PositionPartition | None = None  # the partition whose rows are on their way out
        self._out_wake = asyncio.Event()
        self._up_to_date = asyncio.Event()
        self._up_to_date.set()
        self._fund_partitions: dict[str, int] = {}
        reference.on_account_moved = self._account_moved
        self._terms = HeldTerms(reference, self.parts, publisher, topics["reference.instruments"], counters,
                                self._replaced, self._fold_again)
        self._actions = ActionFollower(reference, self.parts, client, topics, publisher, clock, self._terms.follow_all)
        self._terms.on_instrument = self._actions.closes
        reference.on_read = self._on_reference
        self._sources = SourceLog(client)
        self._reloads = KeyReloads(client, topics, publisher, clock, counters, fills_max, lateness_ns, self._replaced)
        self.statements = Statements(client, topics["positions.external"], partitions, self.parts, reference,
                                     self._terms, publisher, self._quarantine, clock, counters, future_ns,
                                     self._fold_again)
        self.reading: PositionReading = PositionReading(self.writers, topics, self._out_wake, self._reloads)

    def _on_reference(self) -> None:
        self._terms.read()
        self._actions.read()

    # ---- partitions come and go -----------------------------------------------------------------------------------
    async def take(self, partitions: set[int]) -> None:
        """Own these partitions: fence, restore, publish what is there, start."""
        if self._standby is not None:
            await self._standby.leave(partitions)
        changelog = self._topics["positions-changelog"]
        writers = {p: self._writer(p, changelog) for p in sorted(partitions)}
        await asyncio.gather(*(w.fence() for w in writers.values()))
        began = time.monotonic()
        stored = {TopicPartition(changelog, p): w.disk.load() for p, w in writers.items()}
        restored = await read_sure(self._client, {tp: Batches(s.rows, s.position, s.ahead) for tp, s in stored.items()})
        fault("restore")
        for tp, found in restored.items():
            self._restore(found, writers[tp.partition])
        await self._sources.check({TopicPartition(topic, p): offset for p, writer in writers.items()
                                   for topic, offset in writer.marker.offsets.items()})
        self._counters.set("restore_seconds", time.monotonic() - began)
        print(f"RESTORED {sum(r.records for r in restored.values())} {time.monotonic() - began:.3f}", flush=True)
        for p, writer in writers.items():
            self.writers[p] = writer
            writer.start()
        await give_own_keys(self._client, self._publisher, self._topics["positions.external"], self._partition_count,
                            writers)
        trades = self._topics["trades"]
        ends = await ends_of(self._client, [TopicPartition(trades, p) for p in writers])
        for p, writer in writers.items():
            offset = writer.marker.offsets.get(trades, 0)
            self._progress.begin(p, offset, offset >= ends[TopicPartition(trades, p)], self._clock())
        if not self._tasks:
            self._tasks = [process.start("publish loop", self._publish_loop, bound_s=60.0),
                           process.start("progress loop", self._progress_loop, bound_s=30.0)]
        for p in partitions:
            self._terms.follow(self.parts[p])
        self._actions.take_over()
        for p in partitions:  # a crash may have cut off what was folded but not yet published
            self.parts[p].positions.mark_all_out()
        self._out_wake.set()
        if self._standby is not None:
            await self._standby.follow(set(range(self._partition_count)) - set(self.writers))

    def _restore(self, found: Batches, writer: PartitionWriter) -> None:
        """Put what was read of a changelog into a partition and its local store."""
        live, part = found.live(), self.parts[writer.state.partition]
        part.restore(live)
        writer.marker, writer.changelog_position = found.marker, found.position
        self._counters.add("restored_rows", found.records)
        if not found.from_store and not writer.disk.empty:  # it is not of this log, or behind the cleaner
            writer.disk.clear()
        if found.rows:
            writer.disk.write(found.rows, found.position)
        if found.left_out_records:
            writer.write_again({key: live.get(key) for key in found.left_out if key != MARKER_KEY})
            say_torn(found, part.partition, self._topics, self._publisher, self._clock, self._counters)

    def _writer(self, p: int, changelog: str) -> PartitionWriter:
        self.parts[p] = part = PositionPartition(p, self._reference.reference, self._fills_max, self._lateness_ns,
                                                 self._future_ns)
        disk = DiskPartition(self._data_dir / f"positions-{p}", changelog)
        return PartitionWriter(self._client, self._group, owner_id(self._group, p), part, changelog, disk)

    async def release(self, partitions: set[int]) -> None:
        """Flush and let go."""
        for p in partitions:
            self._progress.end(p)
            writer = self.writers.pop(p, None)
            if writer is not None:
                await writer.stop()
            self.parts.pop(p, None)

    def stored_offset(self, topic: str, partition: int) -> int | None:
        """Return where reading a source partition goes on."""
        writer = self.writers.get(partition)
        if writer is None or topic not in (self._topics["trades"], self._topics["positions.external"]):
            return None
        return writer.marker.offsets.get(topic, 0)

    def restored_position(self, topic: str, partition: int) -> int | None:
        """Say that an owned changelog partition is included to its end: it was read after the fence."""
        return EVERYTHING if partition in self.writers and topic == self._topics["positions-changelog"] else None

    def oldest_unflushed(self) -> float | None:
        """Return since when (monotonic) something folded waits for its commit."""
        return min((w.oldest_unflushed for w in self.writers.values() if w.oldest_unflushed is not None), default=None)

    def watched(self) -> Sequence[Bound]:
        """Return that what is folded must be committed in time."""
        return (Bound("folded but not committed", 60.0, self.oldest_unflushed),)

    def lookup(self, key: str) -> Position | None:
        """Return the row of ``account|instrument`` on this worker."""
        account, _, instrument = key.rpartition("|")
        part = self.parts.get(owner_partition(account, self._partition_count))
        if part is None:
            return None
        found = (slot for slot in part.slots() if part.key_text(slot) == (account, instrument))
        return next((part.records(np.array([slot]))[0] for slot in found), None)

    # ---- records --------------------------------------------------------------------------------------------------
    async def process(self, batch: RecordBatch, ack: Callable[[], None]) -> None:
        """Fold one slice of `trades` or `positions.external`."""
        part, writer = self.parts.get(batch.partition), self.writers.get(batch.partition)
        if part is None or writer is None:
            return  # revoked meanwhile; the new owner reads it again
        start = writer.marker.offsets.get(batch.topic, 0)
        if len(batch) and start and batch.offsets[0] != start:  # redelivered, a gap of markers, or another log
            await self._sources.check({TopicPartition(batch.topic, batch.partition): start})
        if len(batch) and batch.offsets[0] < start:  # redelivered: already in the state
            keep = int(np.searchsorted(batch.offsets, start))
            batch.values, batch.offsets = batch.values[keep:], batch.offsets[keep:]
            batch.timestamps_ms = batch.timestamps_ms[keep:]
            batch.headers = {i - keep: h for i, h in batch.headers.items() if i >= keep}
        sends: list[Awaitable[Any]] = []
        if len(batch):
            self._counters.set("behind_records", batch.behind, topic=batch.topic, partition=str(batch.partition))
            if batch.behind > BACKLOG_RECORDS:
                self._up_to_date.clear()
            else:
                self._up_to_date.set()
            with self._reloads.taking_in(batch):
                if batch.topic == self._topics["trades"]:
                    await self._fold_trades(batch, part, sends)
                    self._progress.folded(batch.partition, batch.next_offset, int(batch.timestamps_ms[-1]) * 1_000_000,
                                          batch.behind, self._clock())
                else:
                    await self.statements.take(batch, part, sends)
                self._terms.fold_behind(part)
            self._out_wake.set()
        writer.advance(batch.topic, batch.next_offset, ack, sends)

    async def _fold_trades(self, batch: RecordBatch, part: PositionPartition, sends: list[Awaitable[Any]]) -> None:
        if batch.headers:
            self._drop_repeated_forwards(batch, part)
        decoded = decode_trades(batch.values, latest_of(batch.timestamps_ms, self._future_ns, self._clock()))
        rows = decoded.rows
        rows["offset"] = batch.offsets[decoded.messages]
        rows["ts_source"] = batch.timestamps_ms[decoded.messages]
        reference = self._reference.reference
        if tc.resolve_trades(decoded.buffer, rows, reference.arrays()):
            await self._reference.catch_up()  # a name may have been published just before the trade that uses it
            tc.resolve_trades(decoded.buffer, rows, reference.arrays())
        settlement_fees(decoded, reference)
        self._actions.turn()
        self._terms.follow(part)
        part.positions.apply(rows, reference.arrays())
        counts = np.bincount(rows["status"], minlength=32)
        self._counters.add("trades", float(counts[tc.APPLIED] + counts[tc.LATE]))
        for name, status in (("duplicates", tc.DUPLICATE), ("late", tc.LATE), ("rerouted", tc.FOREIGN)):
            if counts[status]:
                self._counters.add(name, float(counts[status]))
        other_fees(decoded, part)
        odd = np.flatnonzero((rows["status"] == tc.FOREIGN) | (rows["status"] >= tc.UNKNOWN_ACCOUNT))
        for i in odd.tolist():
            if rows["status"][i] == tc.FOREIGN:
                sends.append(self._forward(batch, decoded, i))
            else:
                reason = REASONS[int(rows["status"][i])]
                decoded.refuse(i, reason, detail_of(decoded, i, reason))
        for i in np.flatnonzero(rows["inexact"]).tolist():  # what it took back had left the chain: the log is exact
            self._fold_again(part, *part.key_text(int(rows["taken_slot"][i])), {batch.topic: batch.next_offset})
        for bad in decoded.poison:
            sends.append(self._quarantine.send(batch, bad.message, bad.reason, bad.detail, bad.raw, bad.index))

    def _forward(self, batch: RecordBatch, decoded: DecodedTrades, i: int) -> Awaitable[Any]:
        """Hand a record to the partition that owns its account, marked with where it came from."""
        account = decoded.text(i, "account")
        owner = owner_partition(account, self._partition_count)
        m = int(decoded.messages[i])
        origin = f"{batch.partition}/{int(batch.offsets[m])}/{int(decoded.indices[i])}".encode()
        return self._publisher.send(self._topics["trades"], account.encode(), decoded.raws[i], partition=owner,
                                    headers=[(ORIGIN_HEADER, origin)])

    def _drop_repeated_forwards(self, batch: RecordBatch, part: PositionPartition) -> None:
        """Skip forwarded records that were forwarded before (their first owner crashed before its commit)."""
        seen = self.writers[part.partition].marker.extra.setdefault("forwarded", {})
        assert isinstance(seen, dict)
        batch.values = values = list(batch.values)
        for i, headers in batch.headers.items():
            for name, value in headers:
                found = _origin_of(value) if name == ORIGIN_HEADER else None
                if found is not None:
                    origin, at = found
                    if at <= seen.get(origin, [-1, -1]):
                        values[i] = b"[]"
                        self._counters.add("forward_repeats")
                    else:
                        seen[origin] = at

    def _fold_again(self, part: PositionPartition, account: str, instrument: str,
                    further: dict[str, int] = MappingProxyType({})) -> None:  # type: ignore[assignment]
        """Have one position folded again; ``further``: what its state includes beside the marker."""
        if part.partition in self.writers:
            self._reloads.request(part, account, instrument, self.writers[part.partition].marker.offsets | further)

    def _replaced(self, part: PositionPartition) -> None:
        """Make a row that was put right durable, and publish it."""
        writer = self.writers.get(part.partition)
        if writer is not None and self.parts.get(part.partition) is part:
            topic = self._topics["trades"]
            writer.advance(topic, writer.marker.offsets.get(topic, 0))
            self._out_wake.set()

    # ---- output ---------------------------------------------------------------------------------------------------
    async def _publish_loop(self) -> None:
        loop = asyncio.get_running_loop()
        last, took = 0.0, 0.0
        while True:
            await self._out_wake.wait()
            self._out_wake.clear()
            # the screen waits rather than the trades (a twentieth of the time), but no longer than there is a backlog
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._up_to_date.wait(), last + max(OUT_BACKLOG_S, 19 * took) - loop.time())
            last, spent = loop.time(), 0.0
            for part in list(self.parts.values()):
                reached = self._progress.of(part.partition, self._clock())  # what is folded later may not go out now
                slots, self._publishing = part.positions.take_out(), part
                for start in range(0, len(slots), 500):
                    began = time.perf_counter()
                    sent = self._publish(part, slots[start : start + 500])
                    spent += time.perf_counter() - began
                    if len(slots) > 500 and sent is not None:
                        await sent  # what is not yet sent is memory
                self._publishing = None
                if reached is not None:
                    self._say(reached)
            took = spent
            self.reading.turns += 1
            turned()

    def _say(self, reached: PositionProgress) -> None:
        """Say how far a partition is, at a steady pace: its rows went out before."""
        if reached.ts - self._said_ns.get(reached.partition, 0) >= PROGRESS_S / 2 * 1e9:
            self._said_ns[reached.partition] = reached.ts
            self._publisher.send(self._topics["progress"], str(reached.partition).encode(), encode(reached), 0)

    async def _progress_loop(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_S)
            self._progress.turn(self._clock())
            self._actions.turn()
            self._out_wake.set()
            turned()

    def _publish(self, part: PositionPartition, slots: np.ndarray) -> Awaitable[Any] | None:
        topic, sent = self._topics["positions"], None
        for record in part.records(slots):
            key = f"{record.account}|{record.instrument}".encode()
            sent = self._publisher.send(topic, key, encode(record), self._fund_partition(record.fund))
        return sent

    def _fund_partition(self, fund: str) -> int:
        found = self._fund_partitions.get(fund)
        if found is None:
            found = self._fund_partitions[fund] = owner_partition(fund, self._partition_count)
        return found

    def _account_moved(self, account: str, old_fund: str | None, new_fund: str) -> None:
        """Publish an account's rows under its new place; take them away from its old fund's partition."""
        part = self.parts.get(owner_partition(account, self._partition_count))
        index = self._reference.reference.accounts.index.get(account)
        if part is None or index is None:
            return
        slots = np.flatnonzero(part.positions.arrays.rows["account_index"][: len(part.positions)] == index)
        if old_fund is not None and old_fund != new_fund:
            old = owner_partition(old_fund, self._partition_count)
            if old != owner_partition(new_fund, self._partition_count):
                for record in part.records(slots):
                    key = f"{account}|{record.instrument}".encode()
                    self._publisher.send(self._topics["positions"], key, None, old)
        self._publish(part, slots)

    async def stop(self) -> None:
        """Flush everything and disconnect."""
        for task in self._tasks:
            task.cancel()
        await self._reloads.stop()
        await self.statements.stop()
        await self._sources.stop()
        if self._standby is not None:
            await self._standby.stop()
        for part in self.parts.values():
            if part is self._publishing:  # it was told to stop amid a long list: what is left of it is not known
                part.positions.mark_all_out()
            self._publish(part, part.positions.take_out())
        await self.release(set(self.writers))


def _origin_of(header: Any) -> tuple[str, list[int]] | None:
    """Return the partition, and the place in it, that a forwarded record came from; None where it says none."""
    found = _ORIGIN.fullmatch(header or b"")
    return None if found is None else (found.group(1).decode(), [int(found.group(2)), int(found.group(3))])
