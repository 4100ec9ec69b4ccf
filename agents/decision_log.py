"""What the log of decisions says to a gate that takes partitions over: an order's first decision is its verdict."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from agents.gate_changelog import Kept
from schemas.codec import decoder_of
from schemas.gate_state import GateMark, GateOrder
from schemas.records import Decision
from schemas.refusal import refusal
from tables.records import RecordBatch, passed_over_records

log = logging.getLogger(__name__)
_decision = decoder_of(Decision)


class DecisionLog:
    """Gathers, decision by decision, where deciding goes on, which orders work, and what counts today.

    Parameters
    ----------
    partitions : those taken over
    today_ns : when the trading day began, UTC ns
    kept : what was written down of partitions: what lies on the log before is in there
    """

    def __init__(self, partitions: set[int], today_ns: int, kept: Mapping[int, Kept] = MappingProxyType({})) -> None:
        #: the offset of `orders` after the last order that was decided
        self.next: dict[int, int] = dict.fromkeys(partitions, 0)
        #: decisions that only count in windows of messages: all else of them was written down
        self.recent: list[Decision] = []
        #: of accepted orders that were written down: what was executed of them then
        self.executed: dict[str, float] = {}
        self._marks = {p: k.mark for p, k in kept.items() if k.mark is not None}
        #: orders that were let through and not cancelled or replaced since
        self.accepted: dict[str, Decision] = {}
        self.today: list[Decision] = []
        #: (account, id) of all that was let through, the oldest first
        self.let_through: list[tuple[str, str]] = []
        #: of accepted orders that replaced others: the ids of those, the first one first
        self.earlier: dict[str, tuple[str, ...]] = {}
        #: of the same, the quantity of the one before
        self.replaced: dict[str, float] = {}
        #: of accepted orders: from where on `trades` executions are theirs, under any of their ids
        self.fills_from: dict[str, int] = {}
        self._now: dict[str, str] = {}
        self._today_ns = today_ns
        #: orders of batches that are not the last of theirs
        self._begun: set[tuple[int, int, str]] = set()
        #: new and replacing orders that have their verdict; an order and the cancel of it can share an offset and an id
        self._judged: set[tuple[int, int, str]] = set()
        for p, mark in self._marks.items():
            self.next[p] = mark.orders
            self._begun.update((p, offset, order_id) for offset, order_id in mark.half_done)
            for order in kept[p].orders():
                self._go_on(order, mark)
        self._judged |= self._begun

    def _go_on(self, kept: GateOrder, mark: GateMark) -> None:
        order, order_id = kept.order, kept.order.order_id
        self.accepted[order_id] = Decision(
            order_id=order_id, account=order.account, instrument=order.instrument, outcome="accept", reasons=[],
            effect={}, snapshot_id=0, limits_version=0, ts_event=kept.decided_ns, ts_decision=kept.decided_ns,
            service_ns=0, order=order, session=kept.session)
        self.fills_from[order_id], self.executed[order_id] = mark.trades, kept.executed
        if kept.earlier:
            self.earlier[order_id] = kept.earlier
            self._now.update(dict.fromkeys(kept.earlier, order_id))

    def take(self, batch: RecordBatch) -> None:
        """Read a slice.

        Raises
        ------
        ValueError
            If a record is no decision, and no operator has passed over it: the order it is about may work, a gate
            that does not know it would let too much through.
        """
        mark = self._marks.get(batch.partition)
        first = 0 if mark is None else mark.decisions
        for offset, value in zip(batch.offsets.tolist(), batch.values, strict=True):
            if value is None:
                continue
            if (batch.topic, batch.partition, offset) in passed_over_records:
                log.error("%s %s@%s: passed over, an operator said so: the order it was about may work", batch.topic,
                          batch.partition, offset)
                continue
            try:
                decision = _decision.decode(value)
            except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
                raise ValueError(f"{batch.topic} {batch.partition}@{offset}: expected a decision: "
                                 f"{refusal(error, value, Decision)}; once its order is looked after, `deskrisk skip "
                                 f"decisions {batch.partition} {offset} --record` lets gates start") from error
            if offset < first:
                self.recent.append(msgspec.structs.replace(decision, inputs={}))
            else:
                self.add(decision)

    def add(self, decision: Decision) -> None:
        """Take one decision in; a second one of the same new order says nothing."""
        as_of, order = decision.as_of, decision.order
        ends = decision.outcome == "cancel" or (order is not None and order.action == "cancel")
        if as_of is not None and as_of.partition in self.next:
            at = as_of.offset + 1
            record = as_of.offset if decision.batch is None else decision.batch
            key = (as_of.partition, record, decision.order_id)
            mark = self._marks.get(as_of.partition)
            if not ends and (key in self._judged or (mark is not None and record < mark.orders)):
                return
            if decision.batch is not None:
                self._begun.add(key)
            self.next[as_of.partition] = max(self.next[as_of.partition], at)
            if not ends:
                self._judged.add(key)
            elif order is not None:  # what is cancelled may come anew in the same batch
                self._judged.discard((as_of.partition, record, order.ref_order_id or order.order_id))
        if decision.ts_decision >= self._today_ns:
            self.today.append(msgspec.structs.replace(decision, inputs={}))
        if order is None or decision.outcome == "reject":
            return
        if ends:
            self._end(order.ref_order_id or order.order_id, decision.account)
            return
        self.let_through.append((decision.account, order.order_id))
        before = self._end(order.ref_order_id or "", decision.account) if order.action == "replace" else None
        if order.order_id in self.accepted:
            return
        new = order.order_id
        self.accepted[new], self.fills_from[new] = decision, decision.fills_from
        if before is not None and before[0].order is not None:
            replaced, ids, fills_from, executed = before
            self.executed[new] = executed
            self.replaced[new] = float(before[0].order.whole)
            self.earlier[new] = tuple(k for k in (*ids, replaced.order_id) if k != new)
            self.fills_from[new] = fills_from
            self._now.update(dict.fromkeys(self.earlier[new], new))

    def _end(self, order_id: str, account: str) -> tuple[Decision, tuple[str, ...], int, float] | None:
        """Take an order of an account out, by any of its ids; another account's stays.

        Returns
        -------
        tuple
            Its decision, its earlier ids, where its executions begin, what was executed before. None: it is not there.
        """
        order_id = self._now.get(order_id, order_id)
        decision = self.accepted.get(order_id)
        if decision is None or decision.account != account:
            return None
        del self.accepted[order_id]
        earlier = self.earlier.pop(order_id, ())
        for k in earlier:
            self._now.pop(k, None)
        return decision, earlier, self.fills_from.pop(order_id), self.executed.pop(order_id, 0.0)

    def half_done(self) -> set[tuple[int, int, str]]:
        """Return (partition, offset, order) of batches of orders whose last one is not decided."""
        return {x for x in self._begun if x[1] == self.next.get(x[0])}
