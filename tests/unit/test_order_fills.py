"""Executions of working orders: they count in the order until they count in the position, never in neither, never in both for good."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agents.order_fills import FORGET_MIN, ROW_WAIT_NS, OrderFills
from models.position_progress import PositionsInStep
from schemas.addresses import PositionProgress
from schemas.codec import encode
from tables.records import RecordBatch

T0 = 1_795_000_000_000_000_000


class Counters:
    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def add(self, name: str, value: float = 1, **_: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + int(value)


class Gate:
    """What `OrderFills` asks of a gate."""

    def __init__(self) -> None:
        self.working = {"a": None, "b": None}
        self.filled: list[tuple[str, float]] = []
        self.elsewhere: list[tuple[str, str]] = []
        self.offset = 10
        self.renamed: dict[str, str] = {}
        self.book = SimpleNamespace(names=["A|X"], keys={"A|X": 0}, offset_of=lambda row: self.offset)

    def current_id(self, order_id: str) -> str | None:
        now = self.renamed.get(order_id, order_id)
        return now if now in self.working else None

    def find(self, order_id: str) -> Any:
        now = self.current_id(order_id)
        return None if now is None else SimpleNamespace(order=SimpleNamespace(order_id=now, account="A", instrument="X"), side=1.0)

    known = find

    def executed_before(self, account: str, order_id: str) -> None:
        self.elsewhere.append((account, order_id))

    def not_executed_before(self, account: str, order_id: str) -> None:
        self.elsewhere.remove((account, order_id))

    def fill(self, order_id: str, quantity: float) -> None:
        self.filled.append((order_id, quantity))


@pytest.fixture
def gate() -> Gate:
    return Gate()


def fills_of(gate: Gate, counters: Counters | None = None, progress: PositionsInStep | None = None) -> OrderFills:
    return OrderFills(gate, counters or Counters(), lambda account: {"A": 0}.get(account, 1), progress or PositionsInStep(1))  # type: ignore[arg-type]


def batch(*trades: dict[str, Any], first: int = 11, partition: int = 0) -> RecordBatch:
    base = {"account": "A", "instrument": "X", "side": "buy", "quantity": "3", "price": "1", "ts_event": T0}
    values = [encode({"trade_id": f"T{first + k}"} | base | t) for k, t in enumerate(trades)]
    offsets = np.arange(first, first + len(values))
    return RecordBatch("trades", partition, offsets, values, [], {}, np.zeros(len(values)), first + len(values))


def test_an_execution_settles_when_the_row_that_has_it_arrives(gate: Gate) -> None:
    fills = fills_of(gate)
    fills.follow(batch({"order_id": "a"}, {}, {"order_id": "b", "quantity": "4"}))
    assert gate.filled == []
    gate.offset = 11
    fills.arrived(np.array([0]))
    assert gate.filled == [("a", 3.0)]
    gate.offset = 13
    fills.arrived(np.array([0]))
    fills.arrived(np.array([0]))
    assert gate.filled == [("a", 3.0), ("b", 4.0)]


def test_what_positions_apply_counts_and_nothing_else(gate: Gate) -> None:
    counters = Counters()
    fills = fills_of(gate, counters)
    gate.offset = 99
    fills.follow(batch({"order_id": "a", "action": None}, {"order_id": "a", "side": "BUY", "quantity": "1"}, {"order_id": "a", "quantity": "wrong"}))
    assert gate.filled == [("a", 3.0), ("a", 1.0)]
    whole = batch({"order_id": "a", "trade_id": "U1"}, {"order_id": "a", "quantity": "wrong"}, {"order_id": "b", "trade_id": "U2"}, first=30)
    array = b"[" + b",".join(v for v in whole.values if v is not None) + b"]"
    fills.follow(RecordBatch("trades", 0, np.array([30]), [array], [], {}, np.zeros(1), 31))
    assert gate.filled[2:] == [("a", 3.0), ("b", 3.0)]
    fills.follow(batch({"order_id": "a", "instrument": "Y"}, {"order_id": "a", "side": "sell"}, first=40))  # of no order that works
    assert len(gate.filled) == 4 and counters.counts["fills_of_other_orders"] == 2


def test_the_row_may_have_come_first(gate: Gate) -> None:
    gate.offset = 11
    fills_of(gate).follow(batch({"order_id": "a"}))
    assert gate.filled == [("a", 3.0)]


def test_others_executions_do_not_count(gate: Gate) -> None:
    gate.offset = 99
    fills = fills_of(gate)
    fills.follow(batch({"order_id": "zz"}, {"order_id": "a", "action": "bust"}, {"order_id": "a", "account": "elsewhere"}, {"order_id": "a", "quantity": "x"}))
    fills.follow(batch({"order_id": "a"}, first=20), since={"a": 21})
    assert gate.filled == []
    fills.follow(batch({"order_id": "a"}, first=21), since={"a": 21})
    assert gate.filled == [("a", 3.0)]


def test_an_execution_that_is_on_the_log_twice_counts_once(gate: Gate) -> None:
    counters = Counters()
    fills = fills_of(gate, counters)
    fills.follow(batch({"order_id": "a", "trade_id": "T1"}, {"order_id": "a", "trade_id": "T1"}, {"order_id": "b", "trade_id": "T1"}))
    gate.offset = 13
    fills.arrived(np.array([0]))
    fills.follow(batch({"order_id": "a", "trade_id": "T1"}, first=14))
    gate.offset = 14
    fills.arrived(np.array([0]))
    assert gate.filled == [("a", 3.0)] and counters.counts == {"fills_repeated": 3}  # positions refuse the id that is used again


def test_an_order_counts_in_full_for_as_long_as_positions_are_behind_and_when_they_refuse_its_execution(gate: Gate) -> None:
    counters, progress = Counters(), PositionsInStep(1)
    fills = fills_of(gate, counters, progress)
    fills.follow(batch({"order_id": "a", "trade_id": "T1"}))
    fills.tidy(T0 + 100 * ROW_WAIT_NS)  # positions are down: nobody knows whether it counts there
    assert gate.filled == []
    now = T0 + 101 * ROW_WAIT_NS
    progress.heard(PositionProgress(partition=0, next_offset=12, behind_ms=0, ts=now), now)
    fills.tidy(now)
    fills.tidy(now + ROW_WAIT_NS)  # its row may be on its way
    assert counters.counts == {}
    fills.tidy(now + ROW_WAIT_NS + 1)
    assert gate.filled == [] and counters.counts == {"fills_refused": 1}
    fills.follow(batch({"order_id": "a", "trade_id": "T1", "quantity": "2"}, first=12))  # sent again, put right
    gate.offset = 12
    fills.arrived(np.array([0]))
    assert gate.filled == [("a", 2.0)]


def test_executions_under_an_id_from_before_a_replace_count(gate: Gate) -> None:
    gate.renamed["a0"], gate.offset = "a", 99
    fills_of(gate).follow(batch({"order_id": "a0"}, {"order_id": "a0"}), since={"a": 12})
    assert gate.filled == [("a0", 3.0)]


def test_who_loses_an_order_and_gets_it_back_reads_its_executions_anew(gate: Gate) -> None:
    fills = fills_of(gate)
    fills.follow(batch({"order_id": "a"}, {"order_id": "b"}))
    del gate.working["a"]
    fills.forget_others()
    gate.working["a"] = None
    fills.follow(batch({"order_id": "a"}))
    gate.offset = 12
    fills.arrived(np.array([0]))
    assert sorted(gate.filled) == [("a", 3.0), ("b", 3.0)]


def test_the_trades_of_orders_that_are_gone_are_forgotten(gate: Gate) -> None:
    fills, gate.offset = fills_of(gate), 10**9
    for k in range(3 * FORGET_MIN):
        gate.working = {f"o{k}": None}
        fills.follow(batch({"order_id": f"o{k}"}, first=k))
        fills.tidy(T0)
    assert len(gate.filled) == 3 * FORGET_MIN and len(fills._chains) <= 2 * FORGET_MIN
