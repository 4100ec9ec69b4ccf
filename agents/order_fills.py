"""Executions of orders: seen on the log, they settle when the position row that has them arrives."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from agents.ports import Counters
from models.gate.book import GateBook
from models.gate.executions import Execution, TradeChain, TradeChains, TradePlace, content_of
from models.position_progress import PositionsInStep
from models.trade_columns import BUST, CORRECT, NEW, READ
from models.trade_decode import DecodedTrades, decode_trades
from schemas.codec import JsonDecoder
from schemas.gate_state import GateOrder, GateTrade
from schemas.reasons import QuarantineReason
from tables.records import RecordBatch

log = logging.getLogger(__name__)
#: once a trade is folded its row is here within so long, or never; and quarantine has said by then what was refused
ROW_WAIT_NS = 10_000_000_000
FORGET_MIN = 1_024
#: so many refusals of trades are remembered, and so many executions of orders of others
REFUSED_MAX, OTHERS_MAX = 1 << 16, 1 << 12
#: what is in quarantine and in positions all the same
_APPLIED = frozenset((QuarantineReason.NOT_STORED.value,))


class _Named(msgspec.Struct, frozen=True):
    """Which order a trade says it executes, and which trade it corrects or busts."""

    order_id: str | None = None
    ref_trade_id: str | None = None


class _Refused(msgspec.Struct, frozen=True):
    """Which record was refused."""

    topic: str
    partition: int
    offset: int
    reason: str
    index: int = 0


_named, _refused = JsonDecoder(_Named), JsonDecoder(_Refused)


class OrderFills:
    """What was executed of a gate's orders and is not in its positions yet, and what of it was changed since.

    Until then the order counts in full: an execution is never in neither of the two. One that positions refused leaves
    its order as it was: whoever puts it right sends it again. One that is on the log twice counts once. A correction
    is as if it had been sent in the first place; after a bust the order works again, if it still may.
    """

    def __init__(self, gate: GateBook, counters: Counters, owner: Callable[[str], int], progress: PositionsInStep,
                 ) -> None:
        self._gate, self._counters, self._owner, self._progress = gate, counters, owner, progress
        #: by account and instrument
        self._waiting: dict[str, list[Execution]] = {}
        self._chains = TradeChains()
        #: by their place, as long as they may be refused
        self._at: dict[TradePlace, tuple[str, Execution]] = {}
        #: of orders that the gate does not know: accounts and ids
        self._others: dict[TradePlace, tuple[str, str]] = {}
        #: places of trades that positions refused
        self._refusals: dict[TradePlace, None] = {}
        self._now_ns = 0
        #: chains are looked through when there are twice as many as there were then, not ten times a second
        self._forget_at = FORGET_MIN

    # ---- what comes -----------------------------------------------------------------------------------------------
    def follow(self, batch: RecordBatch, since: Mapping[str, int] | None = None) -> None:
        """Note executions, corrections and busts; ``since``: from which offset on those of an order count."""
        first = since or {}
        named = [m for m, value in enumerate(batch.values)
                 if value is not None and (b'"order_id"' in value or b'"action"' in value)]
        if not named:
            return
        # what the position stage applies, and nothing else
        trades = decode_trades([batch.values[m] for m in named])
        with_order = np.array([b'"order_id"' in (batch.values[m] or b"") for m in named])
        rows = trades.rows
        of_orders = (rows["action"] != NEW) | with_order[trades.messages]
        for k in np.flatnonzero((rows["status"] == READ) & of_orders).tolist():
            offset = int(batch.offsets[named[int(trades.messages[k])]])
            place = (batch.partition, offset, int(trades.indices[k]))
            if place in self._refusals:
                continue
            account = trades.text(k, "account")
            x = self._execution(trades, k, place, account, first)
            if x is not None and self._owner(account) == batch.partition:  # its copy in the owner's partition counts
                self._follow_one(x, f"{account}|{trades.text(k, 'instrument')}")

    def _execution(self, trades: DecodedTrades, k: int, place: TradePlace, account: str, first: Mapping[str, int],
                   ) -> Execution | None:
        """Return what a record says of an order, or None where it says nothing of one."""
        row, said = trades.rows[k], _named.decode(trades.raws[k])
        action, trade_id, side = int(row["action"]), trades.text(k, "id"), int(row["side"])
        if action == NEW and (said.order_id is None or side == 0):
            return None
        ref = trade_id if action == NEW else said.ref_trade_id or trade_id
        order_id = None if action == BUST else said.order_id
        chain = self._chains.find(account, ref) if action != NEW else None
        if action != NEW and chain is None and order_id is None:
            return None  # of a trade of no order
        quantity = float(int(row["quantity"]) / 10 ** int(row["quantity_scale"]))
        of = order_id or (last_order_of(chain) if action == CORRECT and chain is not None else None)
        w = None if of is None else self._gate.known(of)
        if of is not None and w is None and action == NEW:
            self._note_other(place, account, of)
            return None
        if w is not None and first.get(w.order.order_id, 0) > place[1]:
            return None
        if w is not None and (w.order.account, w.order.instrument, w.side) != (
                account, trades.text(k, "instrument"), float(side)):
            self._counters.add("fills_of_other_orders")
            if action == NEW:
                return None
            quantity = 0.0  # it takes nothing out of an order that is not its own
        content = content_of(action, ref, trade_id, quantity, side, int(row["price"]) / 10 ** int(row["price_scale"]),
                             int(row["ts_event"]), int(row["content"]), said.order_id)
        return Execution(place, account, trade_id, ref, action, order_id, quantity, content)

    def _follow_one(self, x: Execution, key: str) -> None:
        chain = self._chains.find(x.account, x.ref)
        if chain is not None and x.content in chain.counted:  # one that may still be refused is told from it later
            self._counters.add("fills_repeated")
            return
        self._chains.add(x)
        self._at[x.place] = key, x
        self._waiting.setdefault(key, []).append(x)
        self._settle(key)

    def _note_other(self, place: TradePlace, account: str, order_id: str) -> None:
        """Remember that an order was executed that the gate does not know."""
        self._gate.executed_before(account, order_id)
        self._others[place] = account, order_id
        if len(self._others) > OTHERS_MAX:
            del self._others[next(iter(self._others))]

    def arrived(self, rows: np.ndarray) -> None:
        """Apply the executions that these rows of positions include."""
        if self._waiting:
            names = self._gate.book.names
            for key in self._waiting.keys() & {names[row] for row in rows.tolist()}:
                self._settle(key)

    def _settle(self, key: str) -> None:
        row = self._gate.book.keys.get(key)
        if row is None:
            return
        offset, waiting = self._gate.book.offset_of(row), self._waiting[key]
        for x in [x for x in waiting if x.place[1] <= offset]:
            waiting.remove(x)
            chain = self._chains.find(x.account, x.trade_id)
            if chain is not None:
                before, was_counted, *_ = chain.fold()
                x.settled, x.settled_ns = True, self._now_ns
                now, counted, *_ = chain.fold()
                if len(counted) == len(was_counted):
                    self._counters.add("fills_repeated")
                self._change(before, now)
        if not waiting:
            del self._waiting[key]

    def _change(self, before: tuple[str, float] | None, now: tuple[str, float] | None) -> None:
        """Bring orders from what a trade executed of one before to what it does now."""
        if before == now:
            return
        if before is not None and now is not None and before[0] == now[0]:
            self._gate.fill(now[0], now[1] - before[1])
            return
        if before is not None:
            self._gate.fill(before[0], -before[1])
        if now is not None:
            self._gate.fill(*now)

    # ---- what positions refused -----------------------------------------------------------------------------------
    def refused(self, batch: RecordBatch, topic: str) -> None:
        """Take records of quarantine in; ``topic``: how `trades` is called there."""
        for value in batch.values:
            try:
                said = None if value is None else _refused.decode(value)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                log.error("%s %s: %s", batch.topic, batch.partition, error)
                continue
            if said is not None and said.topic == topic and said.reason not in _APPLIED:
                self.refuse((said.partition, said.offset, said.index))

    def refuse(self, place: TradePlace) -> None:
        """Take back what positions refused, also where it was taken for an execution."""
        if place in self._others:
            self._gate.not_executed_before(*self._others.pop(place))
        elif place in self._at:
            self._drop(*self._at[place])
        self._refusals[place] = None  # whoever gets its partition anew reads it again
        if len(self._refusals) > REFUSED_MAX:
            del self._refusals[next(iter(self._refusals))]

    def _drop(self, key: str, x: Execution) -> None:
        del self._at[x.place]
        waiting = self._waiting.get(key, [])
        if x in waiting:
            waiting.remove(x)
        chain = self._chains.find(x.account, x.trade_id)
        before = None if chain is None else chain.fold()[0]
        chain = self._chains.remove(x)
        if chain is not None:
            self._change(before, chain.fold()[0])
        self._counters.add("fills_refused")

    def tidy(self, now_ns: int) -> None:
        """Forget the executions that positions refused, and the trades of orders that work no more."""
        for key, waiting in list(self._waiting.items()):
            for x in [x for x in waiting if self._never_came(x, now_ns)]:
                self._drop(key, x)
            if not waiting:
                del self._waiting[key]
        self._now_ns, old = now_ns, []
        for _, x in self._at.values():
            if x.settled and now_ns - x.settled_ns <= ROW_WAIT_NS:
                break
            if x.settled:
                old.append(x)
        for x in old:  # nobody refuses it any more
            del self._at[x.place]
            if (chain := self._chains.find(x.account, x.trade_id)) is not None:
                chain.compact(now_ns - ROW_WAIT_NS - 1)
        if len(self._chains) > self._forget_at:
            self._forget_trades()

    def _never_came(self, x: Execution, now_ns: int) -> bool:
        if self._progress.next_offset[x.place[0]] <= x.place[1]:
            x.folded_ns = None
        elif x.folded_ns is None:
            x.folded_ns = now_ns
        return x.folded_ns is not None and now_ns - x.folded_ns > ROW_WAIT_NS

    # ---- what is handed over --------------------------------------------------------------------------------------
    def forget_others(self) -> None:
        """Forget those of orders that work no more: whoever holds them now reads them, too."""
        for key, waiting in list(self._waiting.items()):
            for x in [x for x in waiting if x.order_id is not None and self._gate.known(x.order_id) is None]:
                waiting.remove(x)
                del self._at[x.place]
                self._chains.remove(x)
            if not waiting:
                del self._waiting[key]
        self._forget_trades()

    def settled(self, order_ids: Sequence[str]) -> list[GateTrade]:
        """Return the trades that name an order by one of its ids, as far as positions include them."""
        found = []
        for order_id in order_ids:
            for chain in self._chains.of_order(order_id):
                now, counted, begun, busted = chain.fold()
                if begun:
                    ids = dict.fromkeys((*chain.ids, *(i for x in chain.records if x.settled and x.content in counted
                                                       for i in (x.ref, x.trade_id))))
                    found.append(GateTrade(ids=list(ids), order_id=order_id if now is None else now[0],
                                           quantity=0.0 if now is None else now[1], counted=sorted(counted),
                                           busted=busted))
        return found

    def put_settled(self, kept: GateOrder) -> None:
        """Take in what the gate before took out of an order."""
        for order_id, found in kept.trades.items():
            for trade_id in found:
                self._chains.put(kept.order.account, [trade_id], order_id, 0.0, (), False)
        for trade in kept.chains:
            self._chains.put(kept.order.account, trade.ids, trade.order_id, trade.quantity, trade.counted, trade.busted)

    def first_waiting(self, partition: int, followed: int) -> int:
        """Return from where on somebody else has to follow a partition; ``followed``: up to where it is followed."""
        return min((x.place[1] for found in self._waiting.values() for x in found if x.place[0] == partition),
                   default=followed)

    def _forget_trades(self) -> None:
        gone = {k for k in self._chains.orders() if self._gate.known(k) is None}
        waiting = {x.order_id for found in self._waiting.values() for x in found}
        self._chains.forget(gone - waiting)
        self._at = {place: found for place, found in self._at.items()
                    if self._chains.find(found[1].account, found[1].trade_id) is not None}
        self._forget_at = 2 * len(self._chains) + FORGET_MIN


def last_order_of(chain: TradeChain) -> str | None:
    """Return the order that the newest record of a chain names."""
    named = (x.order_id for x in reversed(chain.records) if x.order_id is not None)
    return next(named, None if chain.before is None else chain.before.order_id)
