"""Executions of working orders: seen on the log, they settle when the position row that has them arrives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from agents.ports import Counters
from models.gate.book import GateBook
from models.position_progress import PositionsInStep
from models.trade_columns import NEW, READ
from models.trade_decode import decode_trades
from schemas.codec import JsonDecoder
from tables.records import RecordBatch

#: once a trade is folded its row is here within so long, or never: it was refused
ROW_WAIT_NS = 10_000_000_000
FORGET_MIN = 1_024


class _Named(msgspec.Struct, frozen=True):
    """Which order a trade says it executes."""

    order_id: str | None = None


_order_id = JsonDecoder(_Named)


@dataclass
class _Execution:
    partition: int
    offset: int
    order_id: str
    trade_id: str
    quantity: float
    #: since when its partition is known to be folded beyond it
    folded_ns: int | None = None


class OrderFills:
    """What was executed of a gate's working orders and is not in its positions yet.

    Until then the order counts in full: an execution is never in neither of the two. One that positions refused leaves
    its order as it was: whoever puts it right sends it again. One that is on the log twice counts once.
    """

    def __init__(self, gate: GateBook, counters: Counters, owner: Callable[[str], int], progress: PositionsInStep,
                 ) -> None:
        self._gate, self._counters, self._owner, self._progress = gate, counters, owner, progress
        #: by account and instrument
        self._waiting: dict[str, list[_Execution]] = {}
        #: of working orders: the trades that were seen
        self._seen: dict[str, set[str]] = {}
        #: it is looked through when it has twice as many orders as it had then, not ten times a second
        self._forget_at = FORGET_MIN

    def follow(self, batch: RecordBatch, since: Mapping[str, int] | None = None) -> None:
        """Note executions; ``since``: from which offset on those of an order count."""
        first = since or {}
        named = [m for m, value in enumerate(batch.values) if value is not None and b'"order_id"' in value]
        if not named:
            return
        # what the position stage applies, and nothing else
        trades = decode_trades([batch.values[m] for m in named])
        rows = trades.rows
        for k in np.flatnonzero((rows["status"] == READ) & (rows["action"] == NEW) & (rows["side"] != 0)).tolist():
            order_id = _order_id.decode(trades.raws[k]).order_id
            account, instrument = trades.text(k, "account"), trades.text(k, "instrument")
            offset = int(batch.offsets[named[int(trades.messages[k])]])
            w = self._gate.find(order_id or "")
            if order_id is None or w is None or first.get(w.order.order_id, 0) > offset:
                continue
            if self._owner(account) != batch.partition:
                continue  # its copy in the owner's partition counts
            if (w.order.account, w.order.instrument, w.side) != (account, instrument, float(rows["side"][k])):
                self._counters.add("fills_of_other_orders")
                continue  # it takes nothing out of an order that is not its own
            seen, trade_id = self._seen.setdefault(order_id, set()), trades.text(k, "id")
            if trade_id in seen:
                self._counters.add("fills_repeated")
                continue
            seen.add(trade_id)
            key = f"{account}|{instrument}"
            self._waiting.setdefault(key, []).append(_Execution(
                batch.partition, offset, order_id, trade_id,
                float(int(rows["quantity"][k]) / 10 ** int(rows["quantity_scale"][k]))))
            self._settle(key)

    def arrived(self, rows: np.ndarray) -> None:
        """Apply the executions that these rows of positions include."""
        if self._waiting:
            names = self._gate.book.names
            for key in self._waiting.keys() & {names[row] for row in rows.tolist()}:
                self._settle(key)

    def tidy(self, now_ns: int) -> None:
        """Forget the executions that positions refused, and the trades of orders that work no more."""
        for key, waiting in list(self._waiting.items()):
            for x in [x for x in waiting if self._refused(x, now_ns)]:
                waiting.remove(x)
                self._seen.get(x.order_id, set()).discard(x.trade_id)
                self._counters.add("fills_refused")
            if not waiting:
                del self._waiting[key]
        if len(self._seen) > self._forget_at:
            self._forget_trades()

    def _refused(self, x: _Execution, now_ns: int) -> bool:
        if self._progress.next_offset[x.partition] <= x.offset:
            x.folded_ns = None
        elif x.folded_ns is None:
            x.folded_ns = now_ns
        return x.folded_ns is not None and now_ns - x.folded_ns > ROW_WAIT_NS

    def forget_others(self) -> None:
        """Forget those of orders that work no more: whoever holds them now reads them, too."""
        for key, waiting in list(self._waiting.items()):
            self._waiting[key] = [x for x in waiting if self._gate.current_id(x.order_id) is not None]
            if not self._waiting[key]:
                del self._waiting[key]
        self._forget_trades()

    def settled(self, order_ids: Sequence[str]) -> dict[str, list[str]]:
        """Return by id the trades that are taken out of orders."""
        traded = [k for k in order_ids if k in self._seen]
        if not traded:  # most orders are not: what waits is not looked through for each of them
            return {}
        waiting = {(x.order_id, x.trade_id) for found in self._waiting.values() for x in found}
        seen = {k: [t for t in self._seen[k] if (k, t) not in waiting] for k in traded}
        return {k: trades for k, trades in seen.items() if trades}

    def put_settled(self, trades: Mapping[str, Sequence[str]]) -> None:
        """Take in what the gate before took out of orders."""
        for order_id, found in trades.items():
            self._seen.setdefault(order_id, set()).update(found)

    def first_waiting(self, partition: int, followed: int) -> int:
        """Return from where on somebody else has to follow a partition; ``followed``: up to where it is followed."""
        return min((x.offset for found in self._waiting.values() for x in found if x.partition == partition),
                   default=followed)

    def _forget_trades(self) -> None:
        for order_id in [k for k in self._seen if self._gate.current_id(k) is None]:
            del self._seen[order_id]
        self._forget_at = 2 * len(self._seen) + FORGET_MIN

    def _settle(self, key: str) -> None:
        row = self._gate.book.keys.get(key)
        if row is None:
            return
        offset, waiting = self._gate.book.offset_of(row), self._waiting[key]
        for x in [x for x in waiting if x.offset <= offset]:
            waiting.remove(x)
            self._gate.fill(x.order_id, x.quantity)
        if not waiting:
            del self._waiting[key]
