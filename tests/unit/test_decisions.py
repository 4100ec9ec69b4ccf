"""Decisions are looked up from the end of their log; the first one on an order is found, however old, and however often it came again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from aiokafka.structs import TopicPartition

from app import decisions
from app.settings import Settings
from schemas.codec import encode
from schemas.records import Decision, Order, Reason
from tables.kafka import owner_partition
from tables.records import RecordBatch

NOW_S = 1_795_000_000
PARTITIONS = 2


class Log:
    """The topic of decisions, in memory; slices are larger than what is asked for, as a broker's are."""

    def __init__(self) -> None:
        self.records: list[list[tuple[int, bytes]]] = [[] for _ in range(PARTITIONS)]
        self.read: list[tuple[int, int]] = []

    def add(self, order_id: str, account: str, age_s: float, outcome: str = "accept", reasons: tuple[Reason, ...] = (), action: str = "new") -> None:
        o = Order(order_id=order_id, account=account, instrument="X", side="buy", quantity=1, type="market", trader="t", ts_event=1, action=action)  # type: ignore[arg-type]
        ns = int((NOW_S - age_s) * 1e9)
        d = Decision(order_id=order_id, account=account, instrument="X", outcome=outcome, reasons=list(reasons), effect={}, snapshot_id=0, limits_version=1, ts_event=ns,  # type: ignore[arg-type]
                     ts_decision=ns, service_ns=1, order=o)
        self.records[owner_partition(account, PARTITIONS)].append((ns, encode(d)))

    async def ends_of(self, _: Any, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: len(self.records[tp.partition]) for tp in tps}

    async def offsets_at(self, _: Any, tps: list[TopicPartition], ts_ms: int) -> dict[TopicPartition, int]:
        found = {tp: next((k for k, (ns, _) in enumerate(self.records[tp.partition]) if ns >= ts_ms * 1_000_000), None) for tp in tps}
        return {tp: k for tp, k in found.items() if k is not None}

    async def read_range(self, _: Any, starts: dict[TopicPartition, int], on_batch: Callable[[RecordBatch], None], before: dict[TopicPartition, int]) -> None:
        for tp, start in starts.items():
            self.read.append((tp.partition, before[tp] - start))
            part = self.records[tp.partition][start : before[tp] + 3]
            on_batch(RecordBatch("decisions", tp.partition, np.arange(start, start + len(part)), [v for _, v in part], [None] * len(part), {}, np.zeros(len(part)), 0))


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    made = Log()
    for name in ("ends_of", "offsets_at", "read_range"):
        monkeypatch.setattr(decisions, name, getattr(made, name))
    monkeypatch.setattr(decisions.time, "time", lambda: float(NOW_S))
    for k in range(5_000):  # two days, one every 35 seconds
        made.add(f"o{k}", f"A{k % 7}", (5_000 - k) * 35.0)
    return made


def look_up(order_id: str | None, **more: Any) -> list[Decision]:
    return asyncio.run(decisions.decisions_of(Settings(partitions=PARTITIONS, prefix="", brokers="nobody:1"), order_id, **more))


def test_what_was_decided_a_moment_ago_is_found_without_the_days_before(log: Log) -> None:
    assert [d.order_id for d in look_up("o4999")] == ["o4999"]
    assert sum(count for _, count in log.read) < 20
    log.read.clear()
    assert [d.order_id for d in look_up("o10")] == ["o10"]
    assert sum(count for _, count in log.read) == 5_000  # each once, however many parts
    log.read.clear()
    assert [d.order_id for d in look_up("o4000", account="A3")] == ["o4000"]
    assert {p for p, _ in log.read} == {owner_partition("A3", PARTITIONS)}
    assert look_up("o4000", account="A1") == []
    assert look_up("never") == []


def test_a_cancel_or_an_id_in_use_is_not_the_verdict(log: Log) -> None:
    log.add("o3", "A3", 9.0, "reject", (Reason(code="DUPLICATE_ORDER", measured="o3", limit="an id that is not in use"),))
    log.add("o3", "A3", 5.0, "cancel")
    log.add("o3", "A3", 4.0, action="cancel")
    first, *later = look_up("o3")
    assert (first.outcome, first.ts_decision) == ("accept", int((NOW_S - 4_997 * 35.0) * 1e9))
    assert len(later) == 3


def test_the_newest_ones_are_the_newest_of_all_partitions(log: Log) -> None:
    assert [d.order_id for d in look_up(None, limit=40)] == [f"o{k}" for k in range(4_960, 5_000)]
    assert [d.order_id for d in look_up(None, limit=3, account="A3")] == ["o4980", "o4987", "o4994"]
    assert len(look_up(None, limit=100_000)) == 5_000
