"""Several gates and one: what they hold together under the nodes above their accounts, through kills and hand-overs."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from agents.other_gates import OtherGates
from models.gate import state as gs
from models.gate.book import GateBook
from models.gate.explain import explain
from schemas.addresses import GateExposure
from schemas.codec import decoder_of, encode
from schemas.controls import Check
from tests.unit.test_gate_figures import DAY_NS, PRICES, T0, S, codes, gate, held, limit, order, priced, value

_ = gate
decoder = decoder_of(GateExposure)


class Topic:
    """The compacted topic between gates: what stands, and everything that was sent since the last delivery."""

    def __init__(self) -> None:
        self.log: list[tuple[bytes, bytes | None]] = []
        self.gates: list[tuple[OtherGates, int]] = []
        self.count = 0

    def send(self, topic: str, key: bytes, value: bytes | None, partition: int) -> None:
        assert (topic, partition) == ("exposure", 0)
        self.log.append((key, value))
        self.count += 1

    def join(self, book: GateBook, name: str) -> OtherGates:
        others = OtherGates(book, self, "exposure", 4, name)  # type: ignore[arg-type]
        self.gates.append((others, 0))
        self.deliver()
        return others

    def deliver(self) -> None:
        for k, (others, at) in enumerate(self.gates):
            for key, raw in self.log[at:]:
                if raw is None:
                    others.gone(key.decode())
                else:
                    others.take(decoder.decode(raw))
            self.gates[k] = (others, len(self.log))

    def leave(self, others: OtherGates) -> None:
        self.gates = [g for g in self.gates if g[0] is not others]

    def stands(self) -> dict[bytes, bytes]:
        return {key: raw for key, raw in dict(self.log).items() if raw is not None}

    def tick(self, *who: OtherGates, now: int = T0) -> None:
        for others in who:
            others.say(now)
        self.deliver()


def book() -> GateBook:
    return gate.__wrapped__()  # type: ignore[attr-defined, no-any-return]


def two(*limits: Any) -> tuple[Topic, GateBook, OtherGates, GateBook, OtherGates]:
    topic, a, b = Topic(), book(), book()
    for x in limits:
        a.add_limit(x)
        b.add_limit(x)
    at_a, at_b = topic.join(a, "a"), topic.join(b, "b")
    at_a.own({0, 1})
    at_b.own({2, 3})
    return topic, a, at_a, b, at_b


def test_what_works_at_one_gate_counts_at_the_other_until_it_ends() -> None:
    topic, a, at_a, b, at_b = two(limit("desk:D", "gross", 2_500), limit("firm", "delta", 1e9))
    first = order(quantity=15)
    assert codes(a, first) == []
    topic.tick(at_a, at_b)
    asked = order(quantity=11, account="B")
    verdict = b.decide(asked, T0)
    assert [(r.code, r.measured, r.limit_id) for r in verdict.reasons] == [("GROSS_EXPOSURE", "2600", "desk:D.gross.")]
    assert explain(msgspec.json.decode(encode(verdict.inputs)), asked)[0] == 1 << Check.GROSS_EXPOSURE, "the decision has what it saw"
    assert codes(b, order(quantity=10, account="B")) == []
    topic.tick(at_a, at_b)
    assert codes(a, order(quantity=1)) == ["GROSS_EXPOSURE"] and value(a, "firm", gs.DELTA) == pytest.approx(2_500)
    a.release(first.order_id)
    topic.tick(at_a, at_b)
    assert codes(b, order(quantity=15, account="B")) == []


def test_the_days_sums_and_windows_of_all_gates_count_and_end() -> None:
    topic, a, at_a, b, at_b = two(limit("trader:t", "message_count", 3, window_ms=1_000), limit("firm", "daily_value", 3_000), limit("venue:V", "credit", 1_700))
    traded = 0.0  # at the orders' own prices, which differ by the number of orders that the process has made
    for quantity in (10, 5):
        o = order(quantity=quantity, venue="V")
        traded += float(o.quantity * o.price)
        assert codes(a, o) == []
        a.add_position(held(quantity))
        a.fill(o.order_id, quantity)
    topic.tick(at_a, at_b)
    assert value(b, "firm", gs.DAILY_VALUE) == pytest.approx(traded) and value(b, "venue:V", gs.CREDIT) == pytest.approx(1_500)
    assert codes(b, order(quantity=3, account="B", venue="V")) == ["CREDIT"]
    assert codes(b, order(quantity=1, account="B")) == ["MESSAGE_RATE"], "two there, two here"
    later = T0 + 2 * S
    for g in (a, b):
        priced(g, PRICES, later)
    topic.tick(at_a, at_b, now=later)
    assert codes(b, order(quantity=20, account="B"), later) == ["DAILY_VALUE"] and codes(b, order(quantity=1, account="B"), later) == []
    a.refresh((T0 // DAY_NS + 1) * DAY_NS + 1)
    topic.tick(at_a, now=(T0 // DAY_NS + 1) * DAY_NS + 1)
    assert value(b, "firm", gs.DAILY_VALUE) == pytest.approx(100.0, abs=0.1)


def test_a_gate_says_only_what_changed_and_nothing_when_it_is_alone() -> None:
    topic, a, at_a, b, at_b = two(limit("desk:D", "gross", 1e9))
    a.decide(order(), T0)
    topic.tick(at_a, at_b)
    assert topic.count == 1
    topic.tick(at_a, at_b)
    assert topic.count == 1
    at_b.own(set())
    at_a.own({0, 1, 2, 3})
    topic.tick(at_a, at_b)
    assert topic.stands() == {} and value(b, "desk:D", gs.GROSS) == 0.0
    a.decide(order(quantity=3), T0)
    topic.tick(at_a)
    assert topic.stands() == {}


def test_a_killed_gates_orders_count_once_before_and_after_another_has_them() -> None:
    topic, a, at_a, b, at_b = two(limit("desk:D", "gross", 1e9), limit("firm", "daily_quantity", 1e9))
    o = order(quantity=15)
    a.decide(o, T0)
    topic.tick(at_a, at_b)
    topic.leave(at_a)  # killed
    assert value(b, "desk:D", gs.GROSS) == pytest.approx(1_500), "what it let through works on"
    c = book()
    for x in (limit("desk:D", "gross", 1e9), limit("firm", "daily_quantity", 1e9)):
        c.add_limit(x)
    at_c = topic.join(c, "c")
    c.place(o, T0, T0)
    at_c.own({0})
    at_b.own({1, 2, 3})
    topic.tick(at_c, at_b)
    for g in (b, c):
        assert value(g, "desk:D", gs.GROSS) == pytest.approx(1_500)
    late = encode(GateExposure(node="desk:D", partition=0, gate="a", figures={"gross": 9_999.0}, windows={}, ts=T0))
    topic.log.append((b"desk:D|0", late))  # of its last moments: its heir puts it right
    topic.deliver()
    topic.tick(at_c, at_b)
    for g in (b, c):
        assert value(g, "desk:D", gs.GROSS) == pytest.approx(1_500)


def test_accounts_that_move_between_gates_take_their_day_with_them() -> None:
    topic, a, at_a, b, at_b = two(limit("firm", "daily_value", 1e9), limit("venue:V", "credit", 1e9), limit("desk:D", "gross", 1e9))
    mine, works = order(quantity=10, venue="V"), order(quantity=5, account="B")
    values = [a.decide(o, T0).effect["value"] for o in (mine, works)]
    a.add_position(held(10))
    b.add_position(held(10))
    a.fill(mine.order_id, 10)
    topic.tick(at_a, at_b)
    a.forget_accounts({a.state.account_index["A"]})  # partition 0 goes from a to b, with its account
    at_a.own({1})
    b.place(mine, T0, T0)
    b.count_day(b.working[mine.order_id], values[0])
    b.fill(mine.order_id, 10)
    at_b.own({0, 2, 3})
    for _ in range(2):
        topic.tick(at_a, at_b)
    for g in (a, b):
        assert value(g, "firm", gs.DAILY_VALUE) == pytest.approx(values[0] + values[1]) and value(g, "venue:V", gs.CREDIT) == pytest.approx(1_000)
        assert value(g, "desk:D", gs.GROSS) == pytest.approx(1_500)
    assert {key for key in topic.stands() if key.startswith(b"firm")} == {b"firm|0", b"firm|1"}
    a.forget_accounts({a.state.account_index["B"]})
    assert not a.working and value(a, "firm", gs.DAILY_VALUE) == pytest.approx(values[0])


def test_what_is_no_record_of_a_gate_changes_nothing() -> None:
    _, _, _, b, at_b = two(limit("desk:D", "gross", 1e9))
    at_b.gone("nonsense")
    at_b.gone("desk:D|x")
    at_b.take(GateExposure(node="desk:D", partition=0, gate="newer", figures={"gross": 5.0, "of another version": 1.0}, windows={"777": (1.0, 1.0)}, ts=T0))
    assert value(b, "desk:D", gs.GROSS) == 5.0


def test_a_limit_that_comes_later_finds_what_others_have_counted() -> None:
    topic, a, at_a, b, at_b = two()
    assert codes(a, order()) == []
    topic.tick(at_a, at_b)
    for g in (a, b):
        g.add_limit(limit("trader:t", "message_count", 1, window_ms=5_000))
    assert codes(a, order()) == []
    topic.tick(at_a, at_b)
    assert codes(b, order(account="B")) == ["MESSAGE_RATE"]
    b.remove_limit("trader:t.message_count.5000")
    b.add_limit(limit("trader:t", "message_count", 2, window_ms=5_000, limit_id="again", instrument=None, mode="hard"))
    assert codes(b, order(account="B")) == ["MESSAGE_RATE"], "one there, two here"
    assert Decimal(b.limits["again"].limit) == 2
