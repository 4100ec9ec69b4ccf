"""Prove the position table from the topics, by the naive fold: nothing lost, nothing twice, sums add up."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
from aiokafka.structs import TopicPartition

from app.offline import Offline
from app.recovery import left_out, state_of
from app.settings import Settings
from models.corporate_actions import effective_ns
from models.naive_fold import NaiveBook
from models.reference import quantity_decimals, unit_value
from models.trade_decode import check_trade
from schemas.codec import records_in, trade_decoder
from schemas.records import Instrument, Position
from schemas.units import latest_of
from tables.changelog import Batches, read_sure
from tables.kafka import owner_partition
from tables.position_partition import PositionPartition
from tables.records import RecordBatch
from tables.tail import Tail

RELATIVE = 1e-9
SHOWN = 20
#: topics of which the newest records count
ROUTED = ("positions", "risk", "reference.instruments", "reference.accounts", "corporate.actions")


class _Topics:
    """Whole topics, read once; records that the stages refuse are left out."""

    def __init__(self, settings: Settings) -> None:
        self._names = {name: topic for topic, name in settings.topics().items()}
        self._future_ns = settings.future_ns
        self.trades: dict[int, list[tuple[int, int, bytes]]] = defaultdict(list)
        self.changelog: dict[int, Batches] = {}
        self.newest = Offline(settings).follow(*ROUTED)

    def take(self, batch: RecordBatch) -> None:
        """Take a slice in."""
        name = self._names[batch.topic]
        if name == "trades":
            latest = latest_of(batch.timestamps_ms, self._future_ns)
            for offset, until, value in zip(batch.offsets.tolist(), latest.tolist(), batch.values, strict=True):
                if value is not None:
                    self.trades[batch.partition].append((offset, until, value))
        else:
            self.newest.router(batch)

    async def read(self, settings: Settings) -> None:
        """Read the changelog, then the others: what it includes is on them."""
        topics, client = settings.topics(), settings.client()
        found = await read_sure(client, {TopicPartition(topics["positions-changelog"], p): Batches()
                                         for p in range(settings.partitions)})
        self.changelog = {tp.partition: batches for tp, batches in found.items()
                          if batches.marker.value or batches.left_out_records}
        tail = Tail(client, [topics[n] for n in ("trades", *ROUTED)], self.take)
        await tail.start()
        try:
            await tail.read_to_end(600)
        finally:
            await tail.stop()


def _close(a: float | None, b: float, scale: float) -> bool:
    return a is not None and abs(a - b) <= RELATIVE * max(abs(a), abs(b), scale, 1.0)


async def run_verify(settings: Settings) -> dict[str, Any]:
    """Return the report: counts, whether all is well, and the differences found, as lines."""
    found = _Topics(settings)
    await found.read(settings)
    return report_of(found, settings)


def report_of(found: _Topics, settings: Settings) -> dict[str, Any]:
    """Return the report on what was read."""
    reference, published = found.newest.reference, found.newest.rows
    instruments = reference.instrument_records
    differences: list[str] = []
    report = {"trades": 0, "positions": 0, "duplicates": 0, "late": 0, "i1": 0, "i2": 0, "i4": 0}
    torn: list[str] = []
    for partition, batches in sorted(found.changelog.items()):
        table, marker = state_of(batches, partition, reference, settings)
        torn += left_out(batches, partition)
        book = _fold(found, partition, marker.offsets.get(settings.topics()["trades"], 0), instruments, settings)
        report["trades"] += sum(len(f) for f in book.fills.values())
        report["duplicates"] += book.duplicates
        report["late"] += book.late
        _compare(table, book, instruments, published, report, differences)
    _sums(found, settings, report, differences)
    return report | {"refused": found.newest.refused.total(), "left_out": torn, "ok": not differences,
                     "difference_count": len(differences), "differences": differences[:SHOWN]}


def _fold(found: _Topics, partition: int, until: int, instruments: dict[str, Instrument],
          settings: Settings) -> NaiveBook:
    reference, actions = found.newest.reference, found.newest.reference.actions
    book = NaiveBook({n: i.inverse for n, i in instruments.items()}, settings.lateness_ms * 1_000_000,
                     {n: reference.decimals_of(n) for n in instruments},
                     {n: [(effective_ns(r), r.ratio, r.amount, r.currency or "") for r in actions.in_force(n)]
                      for n in actions.names()},
                     {n: i.price_any_sign for n, i in instruments.items()})
    accounts = reference.account_records
    for offset, latest_ns, value in found.trades[partition]:
        if offset >= until:
            break
        try:
            raws = records_in(value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        for raw in raws:
            try:
                trade = trade_decoder.decode(raw)
                check_trade(trade, latest_ns)
                owned = owner_partition(trade.account, settings.partitions) == partition
                if owned and trade.account in accounts and trade.instrument in instruments:
                    book.apply(trade)
            except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
                continue  # poison: on the quarantine topic
    return book


def _compare(table: PositionPartition, book: NaiveBook, instruments: dict[str, Instrument],
             published: dict[str, Position], report: dict[str, int], differences: list[str]) -> None:
    records = {f"{r.account}|{r.instrument}": r
               for r in table.records(np.arange(len(table.positions)))} if len(table.positions) else {}
    for (account, name), _ in book.fills.items():
        key = f"{account}|{name}"
        record = records.get(key)
        want = book.position(account, name)
        if record is None:
            differences.append(f"I1 {key}: in the trades, not in the table")
            continue
        if record.stated:
            continue  # started from an outside statement: compared by reconciliation
        scale = float(sum(abs(f.quantity * f.price) for f in book.fills[(account, name)]))
        value = float(unit_value(instruments[name])) * 10 ** quantity_decimals(instruments[name])
        report["i1"] += 1
        if want.quantity != Decimal(record.quantity):
            differences.append(f"I1 {key}: quantity expected {want.quantity}, was {record.quantity}")
        elif not _close(record.realised_pnl, float(want.realised) * value, scale * value):
            differences.append(f"I1 {key}: realised expected {float(want.realised) * value}, "
                               f"was {record.realised_pnl}")
        elif want.quantity and not _close(record.average_price, float(want.average), 0):
            differences.append(f"I1 {key}: average expected {want.average}, was {record.average_price}")
        elif not all(_close(record.funding.get(c, 0.0), float(want.funding.get(c, 0)), 0)
                     for c in record.funding.keys() | want.funding.keys()):
            differences.append(f"I1 {key}: funding expected {want.funding}, was {record.funding}")
    for key, record in records.items():
        report["positions"] += 1
        out = published.get(key)
        report["i4"] += 1
        if out is not None and (out.as_of.offset, out.revision) == (record.as_of.offset, record.revision) \
                and (out.quantity, out.realised_pnl) != (record.quantity, record.realised_pnl):
            differences.append(f"I4 {key}: changelog {record.quantity}, published {out.quantity} at the same offset")


def _sums(found: _Topics, settings: Settings, report: dict[str, int], differences: list[str]) -> None:
    """I2: every level adds up to the next, on the same snapshot and offsets."""
    nodes = found.newest.nodes
    firm = nodes.get("firm")
    if firm is None:
        return
    for level in settings.levels[:-1]:
        parts = [r for n, r in nodes.items() if n.startswith(f"{level}:")]
        if not parts:
            continue
        report["i2"] += 1
        count = sum(p.exposure.positions for p in parts)
        if count != firm.exposure.positions:
            differences.append(f"I2 {level}: {count} positions, firm has {firm.exposure.positions}")


