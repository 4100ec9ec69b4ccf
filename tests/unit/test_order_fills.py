"""Executions of working orders: they count in the order until they count in the position, never in neither, never in both for good."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agents.order_fills import FILL_WAIT_S, OrderFills
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
        self.offset = 10
        self.book = SimpleNamespace(names=["A|X"], keys={"A|X": 0}, offset_of=lambda row: self.offset)

    def fill(self, order_id: str, quantity: float) -> None:
        self.filled.append((order_id, quantity))


@pytest.fixture
def gate() -> Gate:
    return Gate()


def fills_of(gate: Gate, counters: Counters | None = None) -> OrderFills:
    return OrderFills(gate, counters or Counters(), lambda account: {"A": 0}.get(account, 1))  # type: ignore[arg-type]


def batch(*trades: dict[str, Any], first: int = 11, partition: int = 0) -> RecordBatch:
    base = {"trade_id": "T", "account": "A", "instrument": "X", "side": "buy", "quantity": "3", "price": "1", "ts_event": T0}
    values = [encode(base | t) for t in trades]
    offsets = np.arange(first, first + len(values))
    return RecordBatch("trades", partition, offsets, values, [], {}, np.zeros(len(values)), first + len(values))


def test_an_execution_settles_when_the_row_that_has_it_arrives(gate: Gate) -> None:
    fills = fills_of(gate)
    fills.follow(batch({"order_id": "a"}, {}, {"order_id": "b", "quantity": "4"}), T0)
    assert gate.filled == []
    gate.offset = 11
    fills.arrived(np.array([0]))
    assert gate.filled == [("a", 3.0)]
    gate.offset = 13
    fills.arrived(np.array([0]))
    fills.arrived(np.array([0]))
    assert gate.filled == [("a", 3.0), ("b", 4.0)]


def test_the_row_may_have_come_first(gate: Gate) -> None:
    gate.offset = 11
    fills_of(gate).follow(batch({"order_id": "a"}), T0)
    assert gate.filled == [("a", 3.0)]


def test_others_executions_do_not_count(gate: Gate) -> None:
    gate.offset = 99
    fills = fills_of(gate)
    fills.follow(batch({"order_id": "zz"}, {"order_id": "a", "action": "bust"}, {"order_id": "a", "account": "elsewhere"}, {"order_id": "a", "quantity": "x"}), T0)
    fills.follow(batch({"order_id": "a"}, first=20), T0, since={"a": 21})
    assert gate.filled == []
    fills.follow(batch({"order_id": "a"}, first=21), T0, since={"a": 21})
    assert gate.filled == [("a", 3.0)]


def test_what_never_gets_a_row_is_applied_in_the_end_and_counted(gate: Gate) -> None:
    counters = Counters()
    fills = fills_of(gate, counters)
    fills.follow(batch({"order_id": "a"}), T0)
    fills.give_up(T0 + int(FILL_WAIT_S * 1e9))
    assert gate.filled == []
    fills.give_up(T0 + int(FILL_WAIT_S * 1e9) + 1)
    assert gate.filled == [("a", 3.0)] and counters.counts == {"fills_without_position": 1}


def test_who_loses_an_order_and_gets_it_back_reads_its_executions_anew(gate: Gate) -> None:
    fills = fills_of(gate)
    fills.follow(batch({"order_id": "a"}, {"order_id": "b"}), T0)
    del gate.working["a"]
    fills.forget_others()
    gate.working["a"] = None
    fills.follow(batch({"order_id": "a"}), T0)
    gate.offset = 12
    fills.arrived(np.array([0]))
    assert sorted(gate.filled) == [("a", 3.0), ("b", 3.0)]
