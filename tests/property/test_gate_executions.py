"""Relations of executions: a correction is history rewritten, a refused one never was, and an order works or is done."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.order_fills import ROW_WAIT_NS, OrderFills
from models.gate.book import GateBook
from models.position_progress import PositionsInStep
from schemas.codec import encode
from schemas.records import Order
from tables.records import RecordBatch
from tests.property.test_gate_relations import T0, anew, firm, limit, reserved
from tests.unit.test_order_fills import Counters

ORDERS = ("o0", "o1", "o2")
QUANTITY = 20
#: what, of which order, how much, which trade it names, under an id of its own, names its order, positions come after it
EVENT = st.tuples(st.sampled_from(["new", "new", "correct", "correct", "bust", "refused", "again"]), st.sampled_from([*ORDERS, "elsewhere"]), st.integers(1, 25), st.integers(0, 9),
                  st.booleans(), st.booleans(), st.booleans())


class Followed:
    """A gate with three orders that work, and what it reads of `trades`, one record a message."""

    def __init__(self, gate: GateBook | None = None) -> None:
        self.gate, self.offset, self.next = gate or firm(), -1, 0
        rows = SimpleNamespace(names=["A|X"], keys={"A|X": 0}, offset_of=lambda row: self.offset)
        seen = SimpleNamespace(known=self.gate.known, fill=self.gate.fill, book=rows, executed_before=self.gate.executed_before, not_executed_before=self.gate.not_executed_before)
        self.fills = OrderFills(seen, Counters(), lambda _: 0, PositionsInStep(1))  # type: ignore[arg-type]

    def order(self, order_id: str, quantity: float = QUANTITY, **more: Any) -> list[str]:
        asked = {"account": "A", "trader": "t", "instrument": "X", "side": "buy", "type": "limit", "price": Decimal("99.9"), "ts_event": T0} | more
        return [r.code for r in self.gate.decide(Order(order_id=order_id, quantity=Decimal(str(quantity)), **asked), T0).reasons]

    def trade(self, **said: Any) -> int:
        value = encode({"account": "A", "instrument": "X", "side": "buy", "price": "99.9", "ts_event": T0} | said)
        self.fills.follow(RecordBatch("trades", 0, np.array([self.next]), [value], [], {}, np.zeros(1), self.next + 1))
        self.next += 1
        return self.next - 1

    def settle(self) -> None:
        self.offset = self.next - 1
        self.fills.arrived(np.array([0]))

    def refused(self, offset: int) -> None:
        said = {"topic": "trades", "partition": 0, "offset": offset, "index": 0, "reason": "trade_id_reused", "detail": "", "raw_base64": "", "ts": T0}
        self.fills.refused(RecordBatch("quarantine", 0, np.array([0]), [encode(said)], [], {}, np.zeros(1), 1), "trades")

    def works(self) -> dict[str, tuple[float, float]]:
        return {k: (w.left, w.executed) for k, w in sorted((self.gate.working | self.gate.done).items())}


def started() -> Followed:
    f = Followed()
    for k in ORDERS:
        assert f.order(k, price=Decimal("99.9") - int(k[1])) == []
    return f


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENT, min_size=1, max_size=14), st.booleans())
def test_a_correction_is_history_rewritten_a_bust_and_a_refusal_never_were(events: list[Any], tidies: bool) -> None:
    """R6 and R13: what works after all is what works where the last state of each trade was sent in the first place."""
    f, chains, sent = started(), list[list[str]](), list[dict[str, Any]]()
    now: dict[int, tuple[str, int] | None] = {}
    for k, (what, order_id, quantity, of, own, says, settles) in enumerate(events):
        live = [c for c in range(len(chains)) if now[c] is not None]
        if what == "new" or (what in ("correct", "bust", "again") and not live):
            chains.append([f"T{k}"])
            now[len(chains) - 1] = (order_id, quantity)
            sent.append({"trade_id": f"T{k}", "order_id": order_id, "quantity": str(quantity)})
            f.trade(**sent[-1])
        elif what == "refused":  # of an id that is in use, or of one that is not
            trade_id = chains[of % len(chains)][0] if own and chains else f"R{k}"
            at = f.trade(trade_id=trade_id, order_id=order_id, quantity=str(quantity), price="50")
            if says:
                f.settle()
            f.refused(at)
        elif what == "again":
            f.trade(**sent[of % len(sent)])
        else:
            c = live[of % len(live)]
            named = chains[c][of % len(chains[c])]
            said: dict[str, Any] = {"trade_id": f"T{k}", "ref_trade_id": named} if own else {"trade_id": named}
            if own:
                chains[c].append(f"T{k}")
            if what == "correct" and says:
                said["order_id"] = order_id
            was = now[c]
            assert was is not None
            now[c] = None if what == "bust" else (order_id if says else was[0], quantity)
            sent.append(said | {"action": what, "quantity": str(quantity), "ts_event": T0 + k})
            f.trade(**sent[-1])
        if settles:
            f.settle()
        if tidies:
            f.fills.tidy(T0 + k * ROW_WAIT_NS)
    f.settle()
    rewritten = started()
    for c, last in now.items():
        if last is not None:
            rewritten.trade(trade_id=f"T{c}", order_id=last[0], quantity=str(last[1]))
    rewritten.settle()
    assert f.works() == rewritten.works()
    assert reserved(f.gate) == reserved(rewritten.gate) == anew(f.gate, {"A": "D", "B": "E"})


def test_what_positions_refused_does_not_end_its_order(  # hunt 7
) -> None:
    f = Followed()
    f.gate.add_limit(limit("P", "account:A", "position_long", 50, instrument="X"))  # 40 are held
    assert f.order("o", 10) == []
    bad = f.trade(trade_id="T1", order_id="o", quantity="10.5")
    f.trade(trade_id="T1", order_id="o", quantity="4")  # put right before quarantine is read here
    f.settle()
    f.refused(bad)
    assert f.works() == {"o": (6.0, 4.0)}
    f.refused(f.next)  # quarantine came first
    f.trade(trade_id="T2", order_id="o", quantity="6")
    f.settle()
    assert f.works() == {"o": (6.0, 4.0)}
    f.trade(trade_id="T3", order_id="o", quantity="6")
    f.settle()
    assert f.works() == {"o": (0.0, 10.0)} and not f.gate.working


def test_an_order_whose_execution_is_busted_works_again_where_it_still_may() -> None:
    for ended in (False, True):
        f = started()
        f.trade(trade_id="T1", order_id="o0", quantity=str(QUANTITY))
        f.settle()
        assert "o0" not in f.gate.working
        if ended:  # the owner whose venue does not reinstate cancels it
            assert f.order("c", action="cancel", ref_order_id="o0") == []
        f.trade(trade_id="T1", quantity="1", action="bust")
        f.settle()
        assert ("o0" in f.gate.working) is not ended and f.gate.revived == ([] if ended else ["o0"])


def test_an_order_that_was_executed_before_it_came_is_a_duplicate() -> None:
    f = Followed()
    at = f.trade(trade_id="T1", order_id="x", quantity="10")
    f.trade(trade_id="T2", order_id="y", quantity="10")
    f.refused(at)
    assert f.order("y", 5) == ["DUPLICATE_ORDER"] and f.order("x", 5) == []
    assert f.order("y", 5, account="B") == []  # an id is its account's
