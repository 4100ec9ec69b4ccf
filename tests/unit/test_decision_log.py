"""What a gate that takes over reads off the log."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest

from agents import decision_log
from agents.decision_log import DecisionLog
from schemas.codec import encode
from schemas.records import AsOf, Decision, Order
from tables.records import RecordBatch

NOW = 1_795_000_000_000_000_000


def decision(order_id: str, offset: int, outcome: str, action: str = "new", partition: int = 0, batch: int | None = None,
             **more: Any) -> Decision:
    order = Order(order_id=order_id, account="A", trader="t", instrument="X", side="buy", type="limit", quantity=Decimal(1), price=Decimal(1), ts_event=NOW,
                  action=action, **more)  # type: ignore[arg-type]
    return Decision(order_id=order_id, account="A", instrument="X", outcome=outcome, reasons=[], effect={}, snapshot_id=1,  # type: ignore[arg-type]
                    limits_version=1, ts_event=NOW, ts_decision=NOW, service_ns=1, as_of=AsOf(partition, offset), batch=batch, order=order)


def test_the_first_decision_of_an_order_is_its_verdict() -> None:
    log = DecisionLog({0}, NOW)
    for d in (decision("a", 0, "reject"), decision("a", 0, "accept"), decision("b", 1, "accept"), decision("b", 1, "reject")):
        log.add(d)
    assert list(log.accepted) == ["b"] and [d.outcome for d in log.today] == ["reject", "accept"] and log.next == {0: 2}


def test_cancels_and_replacements_end_what_worked_and_yesterday_counts_no_more() -> None:
    log = DecisionLog({0}, NOW + 1)
    for d in (decision("a", 0, "accept"), decision("b", 1, "accept"), decision("c", 2, "accept", "cancel", ref_order_id="a"),
              decision("d", 3, "accept", "replace", ref_order_id="b")):
        log.add(d)
    assert list(log.accepted) == ["d"] and log.today == []


def test_a_batch_whose_last_order_is_not_decided_goes_on_after_those_that_are() -> None:
    log = DecisionLog({0}, NOW)
    log.add(decision("c", 4, "accept"))  # a whole record: one with its id may lie at 5
    log.add(decision("a", 4, "accept", batch=5))
    log.add(decision("b", 4, "reject", batch=5))  # of a batch at 5, whose last one says 5
    assert log.next == {0: 5} and log.half_done() == {(0, 5, "a"), (0, 5, "b")}


def test_a_cancel_that_shares_offset_and_id_with_its_order_ends_it_and_the_order_may_come_anew() -> None:
    log = DecisionLog({0}, NOW)
    log.add(decision("a", 4, "accept", batch=5))
    log.add(decision("a", 4, "accept", "cancel", batch=5))
    assert not log.accepted
    again = decision("a", 4, "accept", batch=5)
    log.add(again)
    assert log.accepted == {"a": again} and log.half_done() == {(0, 5, "a")}


def test_a_chain_of_replacements_is_one_order_by_any_of_its_ids() -> None:
    log = DecisionLog({0}, NOW)
    log.add(msgspec.structs.replace(decision("a", 0, "accept"), fills_from=7))
    log.add(msgspec.structs.replace(decision("b", 1, "accept", "replace", ref_order_id="a"), fills_from=9))
    log.add(decision("x", 2, "reject", "replace", ref_order_id="b"))
    log.add(msgspec.structs.replace(decision("c", 3, "accept", "replace", ref_order_id="a"), fills_from=11))
    assert list(log.accepted) == ["c"] and log.earlier == {"c": ("a", "b")} and log.fills_from == {"c": 7}
    assert log.replaced == {"b": 1.0, "c": 1.0}
    log.add(decision("d", 4, "accept", "cancel", ref_order_id="b"))
    assert not log.accepted and not log.earlier and not log.fills_from
    log.add(decision("e", 5, "accept", "replace", ref_order_id="a"))  # let through by the library alone: nothing to take over
    assert list(log.accepted) == ["e"] and log.earlier == {}


def test_an_order_that_keeps_its_id_when_it_is_replaced_is_one_order() -> None:
    log = DecisionLog({0}, NOW)
    log.add(msgspec.structs.replace(decision("a", 0, "accept"), fills_from=7))
    again = msgspec.structs.replace(decision("a", 1, "accept", "replace", ref_order_id="a"), fills_from=9)
    log.add(again)
    assert log.accepted == {"a": again} and log.earlier == {"a": ()} and log.fills_from == {"a": 7}


def test_what_is_no_decision_stops_a_gate_that_starts_and_says_where_it_lies() -> None:
    """Its order may work: a gate that does not know it would let too much through."""
    batch = RecordBatch("decisions", 2, np.array([7]), [b'{"order_id":1}'], [b"a"], {}, np.array([0]), 8)
    with pytest.raises(ValueError, match=r"decisions 2@7: expected a decision: Expected `str`, got `int` - at `\$.order_id`, was 1"):
        DecisionLog({2}, NOW).take(batch)


def test_an_operator_lets_gates_start_without_a_record_that_is_no_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    good = encode(decision("a", 0, "accept"))
    batch = RecordBatch("decisions", 0, np.array([7, 8]), [b'{"order_id":1}', good], [b"a", b"a"], {}, np.array([0, 0]), 9)
    monkeypatch.setattr(decision_log, "passed_over_records", {("decisions", 0, 7)})
    log = DecisionLog({0}, NOW)
    log.take(batch)
    assert set(log.accepted) == {"a"}
