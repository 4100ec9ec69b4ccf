"""Executions of working orders: seen on the log, they settle when the position row that has them arrives."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import numpy as np

from agents.ports import Counters
from models.gate.book import GateBook
from schemas.codec import decoder_of, records_in
from schemas.records import Trade
from tables.records import RecordBatch

#: an execution whose position row does not come (it was refused) stops being waited for
FILL_WAIT_S = 10.0
_trade = decoder_of(Trade)


class OrderFills:
    """What was executed of a gate's working orders and is not in its positions yet.

    Until then the order counts in full: an execution is never in neither of the two.
    """

    def __init__(self, gate: GateBook, counters: Counters, owner: Callable[[str], int]) -> None:
        self._gate, self._counters, self._owner = gate, counters, owner
        #: of an account and an instrument: (offset, order id, quantity, since)
        self._waiting: dict[str, list[tuple[int, str, float, int]]] = {}

    def follow(self, batch: RecordBatch, now_ns: int, since: Mapping[str, int] | None = None) -> None:
        """Note executions; ``since``: from which offset on those of an order count."""
        working, first = self._gate.working, since or {}
        for m, value in enumerate(batch.values):
            if value is None or b'"order_id"' not in value:
                continue
            try:
                trades = [_trade.decode(raw) for raw in records_in(value)]
            except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
                continue  # the position stage puts it into quarantine
            offset = int(batch.offsets[m])
            for t in trades:
                if t.order_id not in working or t.action != "new" or first.get(t.order_id or "", 0) > offset:
                    continue
                if self._owner(t.account) != batch.partition:
                    continue  # its copy in the owner's partition counts
                key = f"{t.account}|{t.instrument}"
                self._waiting.setdefault(key, []).append((offset, str(t.order_id), float(t.quantity), now_ns))
                self._settle(key)

    def arrived(self, rows: np.ndarray) -> None:
        """Apply the executions that these rows of positions include."""
        if self._waiting:
            names = self._gate.book.names
            for key in self._waiting.keys() & {names[row] for row in rows.tolist()}:
                self._settle(key)

    def give_up(self, now_ns: int) -> None:
        """Apply those whose position row did not come in time."""
        for key in [k for k, w in self._waiting.items() if now_ns - w[0][3] > FILL_WAIT_S * 1e9]:
            for item in self._waiting.pop(key):
                self._gate.fill(item[1], item[2])
                self._counters.add("fills_without_position")

    def forget_others(self) -> None:
        """Forget those of orders that work no more: whoever holds them now reads them, too."""
        for key, waiting in list(self._waiting.items()):
            self._waiting[key] = [w for w in waiting if w[1] in self._gate.working]
            if not self._waiting[key]:
                del self._waiting[key]

    def _settle(self, key: str) -> None:
        row = self._gate.book.keys.get(key)
        if row is None:
            return
        offset, waiting = self._gate.book.offset_of(row), self._waiting[key]
        for item in [w for w in waiting if w[0] <= offset]:
            waiting.remove(item)
            self._gate.fill(item[1], item[2])
        if not waiting:
            del self._waiting[key]
