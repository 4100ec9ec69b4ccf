"""Ids of orders that were let through, whatever has become of them: a cancel may name any of them.

An order that has ended by the gate's clock, or by what the gate was told, may still live at its venue.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet

#: so many ids are remembered in all
IDS_MAX = 1 << 18


class AcceptedOrders:
    """The newest ids of every account, and which of them are not written down yet.

    Parameters
    ----------
    most : ids in all. Where there are so many, an account that has more than an equal share gives up its own oldest
        one; else who has most gives up one.
    """

    def __init__(self, most: int = IDS_MAX) -> None:
        self._most, self._count = most, 0
        self._of: dict[int, OrderedDict[str, None]] = {}
        #: by account, the oldest first
        self._unwritten: dict[int, deque[str]] = {}

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return ((account, order_id) for account, ids in self._of.items() for order_id in ids)

    def knows(self, account: int, order_id: str) -> bool:
        """Whether an order of this id was let through for an account."""
        return order_id in self._of.get(account, ())

    def add(self, account: int, order_id: str, written: bool = False) -> None:
        """Remember an id as the newest one of its account; ``written``: it is written down."""
        ids = self._of.setdefault(account, OrderedDict())
        if order_id in ids:
            ids.move_to_end(order_id)
        else:
            ids[order_id] = None
            self._count += 1
            if self._count > self._most:
                self._give_up_one(ids)
        if not written:
            self._unwritten.setdefault(account, deque(maxlen=self._most)).append(order_id)

    def _give_up_one(self, ids: OrderedDict[str, None]) -> None:
        if len(ids) * len(self._of) <= self._most:
            ids = max(self._of.values(), key=len)
        ids.popitem(last=False)
        self._count -= 1

    def forget(self, accounts: AbstractSet[int]) -> None:
        """Forget accounts that another gate has now."""
        for account in accounts:
            self._count -= len(self._of.pop(account, ()))
            self._unwritten.pop(account, None)

    def cut(self, accounts: Iterable[int]) -> dict[int, deque[str]]:
        """Return what of accounts is not written down yet; it counts as written from now on."""
        return {k: ids for k in accounts if (ids := self._unwritten.pop(k, None)) is not None}

    def put_back(self, cut: dict[int, deque[str]]) -> None:
        """Take back what `cut` returned: it could not be written down."""
        for account, ids in cut.items():
            ids.extend(self._unwritten.get(account, ()))
            self._unwritten[account] = ids

    def unwritten(self) -> list[int]:
        """Return the accounts of which something is not written down."""
        return list(self._unwritten)
