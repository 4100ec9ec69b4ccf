"""The trades of orders as chains: what was executed of which order, with corrections, busts and refusals.

A correction is history rewritten: what counts is what the last record of a chain says. What positions refused never
was, also where it was taken for an execution before anybody said so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from models.trade_columns import BUST, NEW

#: partition and offset of a message, and which record of it
TradePlace = tuple[int, int, int]


class Executed(NamedTuple):
    """So much of an order."""

    order_id: str
    quantity: float


@dataclass(slots=True)
class Execution:
    """A record of `trades` that may change what was executed of an order."""

    place: TradePlace
    account: str
    trade_id: str
    #: id that it corrects or busts; its own where it names none
    ref: str
    action: int
    #: of a correction: None where it names no order, so that it stays with that of what it corrects
    order_id: str | None
    #: of its order; 0 where the order is not one that it can execute
    quantity: float
    #: a hash of all it says
    content: str
    #: whether positions include it, or would if they had not refused it; and when it did
    settled: bool = False
    settled_ns: int = 0
    #: since when its partition is known to be folded beyond it
    folded_ns: int | None = None


def content_of(*said: object) -> str:
    """Return a hash of what a record says."""
    return hashlib.blake2b(repr(said).encode(), digest_size=8).hexdigest()


@dataclass(slots=True)
class TradeChain:
    """One trade: its records in the order of the log, and what those before them came to."""

    ids: dict[str, None] = field(default_factory=dict)
    #: records that counted, and are none of ``records`` any more
    counted: set[str] = field(default_factory=set)
    before: Executed | None = None
    begun: bool = False
    busted: bool = False
    records: list[Execution] = field(default_factory=list)

    def fold(self) -> tuple[Executed | None, set[str], bool, bool]:
        """Return what was executed, which records counted, whether there was a trade, whether it was busted."""
        now, counted, begun, busted = self.before, set(self.counted), self.begun, self.busted
        for x in self.records:
            # what comes again, another trade under an id in use, and what names a busted trade change nothing
            if not x.settled or x.content in counted or busted or (x.action == NEW and begun):
                continue
            counted.add(x.content)
            begun, busted = True, x.action == BUST
            order_id = x.order_id or ("" if now is None else now.order_id)
            now = Executed(order_id, x.quantity) if x.action != BUST and order_id and x.quantity else None
        return now, counted, begun, busted

    def compact(self, up_to_ns: int) -> None:
        """Forget the records that nobody refuses any more, the first ones first."""
        rest = next((k for k, x in enumerate(self.records) if not x.settled or x.settled_ns > up_to_ns),
                    len(self.records))
        kept, self.records = self.records[rest:], self.records[:rest]
        self.before, self.counted, self.begun, self.busted = self.fold()
        named = (i for x in self.records if x.content in self.counted for i in (x.ref, x.trade_id))
        self.ids.update(dict.fromkeys(named))
        self.records = kept


class TradeChains:
    """The chains of the trades of a gate's orders, by account and each of their ids."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, str], TradeChain] = {}
        #: by order that a record of them names
        self._of_order: dict[str, dict[int, TradeChain]] = {}

    def __len__(self) -> int:
        return len(self._of)

    def find(self, account: str, trade_id: str) -> TradeChain | None:
        """Return the chain that an id of an account is in."""
        return self._of.get((account, trade_id))

    def add(self, x: Execution) -> TradeChain:
        """Add a record behind those of its chain."""
        chain = self._of.get((x.account, x.ref)) or self._of.get((x.account, x.trade_id)) or TradeChain()
        chain.records.append(x)
        for trade_id in (x.ref, x.trade_id):
            self._of.setdefault((x.account, trade_id), chain)
        if x.order_id is not None:
            self._of_order.setdefault(x.order_id, {})[id(chain)] = chain
        return chain

    def remove(self, x: Execution) -> TradeChain | None:
        """Take a record out that positions refused: its id names no trade."""
        chain = self._of.get((x.account, x.trade_id))
        if chain is None or x not in chain.records:
            return None
        chain.records.remove(x)
        named = {*chain.ids, *(i for other in chain.records for i in (other.trade_id, other.ref))}
        for trade_id in {x.trade_id, x.ref} - named:
            if self._of.get((x.account, trade_id)) is chain:
                del self._of[x.account, trade_id]
        return chain

    def of_order(self, order_id: str) -> list[TradeChain]:
        """Return the chains with a record that names an order."""
        return list(self._of_order.get(order_id, {}).values())

    def orders(self) -> list[str]:
        """Return the orders that chains are kept for."""
        return list(self._of_order)

    def put(self, account: str, ids: Sequence[str], order_id: str, quantity: float, counted: Iterable[str],
            busted: bool) -> None:
        """Put back a chain that was written down."""
        chain = TradeChain(dict.fromkeys(ids), set(counted), Executed(order_id, quantity) if quantity else None, True,
                           busted)
        for trade_id in ids:
            chain = self._of.setdefault((account, trade_id), chain)
        if order_id:
            self._of_order.setdefault(order_id, {})[id(chain)] = chain

    def forget(self, order_ids: set[str]) -> None:
        """Forget the chains that name none but these orders."""
        gone = {key: chain for order_id in order_ids for key, chain in self._of_order.pop(order_id, {}).items()}
        for chains in self._of_order.values() if gone else ():
            for key in chains.keys() & gone.keys():
                del gone[key]
        self._of = {key: chain for key, chain in self._of.items() if id(chain) not in gone}
