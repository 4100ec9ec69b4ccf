"""Working orders: what an accepted order may still trade is reserved in every node above it until it ends."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from decimal import Decimal

import numpy as np

from models.gate import state as gs
from models.gate.accepted_orders import AcceptedOrders
from models.gate.day_sums import NOWHERE, DaySums, add_to_day
from models.gate.own_orders import OwnOrders
from models.gate.recent_orders import RecentOrders
from models.gate.reserve_kernels import hold, reserve
from models.gate.state import GateState
from models.gate.unit_figures import figures_of_unit
from models.gate.working import ENDS_IN_THE_DAY, Asked, DayKey, Working, end_of
from models.trading_day import TradingDay
from schemas.records import Limit, Order

#: so many orders that are executed whole are held, in case a correction or a bust takes something back
DONE_ORDERS = 1 << 14
#: of an order's quantity: what sums of executions lack is the rest of sums
ROUNDED = 1e-12
#: of so many of them the nodes are remembered
KINDS_OF_ORDERS = 1 << 16
_NO_SHARES = [-1] * gs.SHARES
#: nodes of an instrument that positions in it lie under
INSTRUMENT_NODES = ("issuer", "sector", "node", "asset_class", "currency", "pair")
_ACTIONS = {"new": gs.NEW, "replace": gs.REPLACE, "cancel": gs.CANCEL}


def _figure(value: Decimal) -> float:
    """Return a quantity or a price as the kernel reads it; a NaN that signals is one like any other: no order's."""
    return math.nan if value.is_nan() else float(value)


def _stated(value: Decimal | None) -> float | None:
    return None if value is None else _figure(value)


class Reservations(DaySums):
    """The working orders of a gate and what they hold in its columns."""

    def __init__(self, state: GateState, day: TradingDay) -> None:
        super().__init__(state, day)
        self.working: dict[str, Working] = {}
        #: what was let through, works or has ended
        self.accepted = AcceptedOrders()
        self.own = OwnOrders(self)
        #: those that may only reduce, the oldest first
        self.reduce_only: dict[str, Working] = {}
        #: ids of orders that were replaced -> the id of the order that works now
        self._now: dict[str, str] = {}
        #: (end, id) of orders that end within the day, the first one first
        self._ends: list[tuple[int, str]] = []
        #: those that are executed whole and have not ended by their terms, the oldest first; and by each of their ids
        self.done: dict[str, Working] = {}
        self._done_ids: dict[str, str] = {}
        #: ids of orders that work again, until somebody has looked whether they may
        self.revived: list[str] = []
        self.of_position: dict[tuple[int, int], dict[str, Working]] = {}
        #: gross, long, short, margin, VaR and delta equivalents held in nodes for the worse sides of a position, and
        #: which nodes: given back as they were taken
        self._held: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
        #: a node of the tree and ``issuer:`` or ``sector:`` -> the hard and the soft limit on each share
        self.share_limits: dict[tuple[int, str], tuple[Limit | None, Limit | None]] = {}
        #: a node of the tree and an issuer or a sector -> the node of what the one has in the other, where limited
        self.shares: dict[tuple[int, int], int] = {}
        #: the nodes above positions that orders were for, until an account or an instrument changes
        self._nodes_above: dict[tuple[int, int], np.ndarray] = {}
        #: the same with the nodes of orders for them, and the latter alone
        self._nodes_of: dict[DayKey, tuple[np.ndarray, np.ndarray]] = {}
        self._shares_above: dict[tuple[int, int], list[int]] = {}
        #: positions of which a limited share has no node: every node is taken
        self.unshared: set[tuple[int, int]] = set()
        #: who may trade an account; an account that is not here may be traded by whoever an order names
        self.traders: dict[str, frozenset[str]] = {}
        #: states of names that have no node: orders may come with them
        self.unplaced: dict[str, int] = {}
        self.recent = RecentOrders()
        #: with whom an account's positions are held: the counterparty of an order that names none
        self.holders: dict[str, str] = {}

    def current_id(self, order_id: str) -> str | None:
        """Return under which id an order works by now; None: it does not."""
        return order_id if order_id in self.working else self._now.get(order_id)

    def find(self, order_id: str) -> Working | None:
        """Return a working order by its id, or by one that it had before it was replaced."""
        return self.working.get(self._now.get(order_id, order_id))

    def known(self, order_id: str) -> Working | None:
        """Return an order that works, or would if its executions were taken back, by any of its ids."""
        return self.find(order_id) or self.done.get(self._done_ids.get(order_id, ""))

    def _fill(self, order: Order, now_ns: int, replaced: Working | None = None, dry: bool = False) -> Asked:
        """Put an order at the first place of the ring; a name that has no node gets none."""
        state = self.state
        allowed = self.traders.get(order.account)
        names = self._names_of(order)
        trader, counterparty, venue = (-1 if name is None else state.node_index.get(name, -1) for name in names)
        asked = Asked(
            state.account_index.get(order.account, -1), state.instrument_index.get(order.instrument, -1),
            1.0 if order.side == "buy" else -1.0, _figure(order.whole),
            _stated(order.price) if order.type == "limit" else None,
            trader, counterparty, venue, None if order.type in ("limit", "market") else (
                _stated(order.price), _stated(order.stop_price)))
        unplaced = max(self.unplaced.get(name or "", gs.ACTIVE) for name in names) if self.unplaced else gs.ACTIVE
        gs.ORDER_LAYOUT.pack_into(
            state.order_bytes, 0, asked.account, asked.instrument, asked.side, asked.quantity,
            replaced.executed if replaced else 0.0, float(replaced.order.whole) if replaced else 0.0,
            math.nan if replaced is None or replaced.price is None else replaced.price,
            math.nan if order.price is None or order.type in ("market", "stop") else _figure(order.price),
            math.nan if order.stop_price is None else _figure(order.stop_price), self.own.nearest(asked),
            now_ns, self.recent.last_ns(asked.order_key()),
            asked.trader, asked.counterparty, asked.venue, 0 if order.algo_id else -1,
            order.type in ("market", "stop"),
            bool(order.locate_id), order.short_exempt, allowed is None or order.trader in allowed,
            _ACTIONS[order.action], unplaced, dry, order.type in ("stop", "stop_limit"), order.reduce_only,
            replaced is not None and names == self._names_of(replaced.order),
            *self._shares_of(asked))
        return asked

    def _names_of(self, order: Order) -> tuple[str, str | None, str | None]:
        """Return the nodes that an order names: its trader, its counterparty, its venue."""
        holder = order.counterparty or self.holders.get(order.account)
        return (f"trader:{order.trader}", f"counterparty:{holder}" if holder else None,
                f"venue:{order.venue}" if order.venue else None)

    def _open_names(self, order: Order, asked: Asked) -> Asked:
        """Open the nodes of an order that is, or was, let through: what it comes to is counted there.

        A new one comes here only where there is room; one that stands is counted in whatever nodes there are.
        """
        if asked.trader >= 0 and asked.counterparty >= 0 and asked.venue >= 0:
            return asked
        places = [self.state.standing_node(name) for name in self._names_of(order)]
        return asked._replace(trader=places[0], counterparty=places[1], venue=places[2])

    def no_room(self, order: Order, asked: Asked) -> tuple[str, str] | None:
        """Return (what there is, what there may be) where a new order would open more than orders may; or None."""
        if (left_out := self._left_out(order, asked)) is not None:
            return left_out
        if (asked.account, asked.instrument) in self.unshared:
            return "no node left for a share that is limited", "a node for every share"
        for what, (used, most) in self.state.room_for_orders().items():
            if what == "positions":
                known = asked.account >= 0 and asked.instrument >= 0
                more = int(known and self.state.position_of_result.item() < 0)
            elif used + 3 <= most:
                continue
            else:
                more = len({name for name in self._names_of(order) if name} - self.state.node_index.keys())
            if more and used + more > most:
                return f"{used} {what} and {more} more", f"{most} {what}"
        return None

    def _left_out(self, order: Order, asked: Asked) -> tuple[str, str] | None:
        """Return what of an order is in the reference data and has no place; None also where the rest is not there."""
        s, found = self.state, list[tuple[str, str]]()
        if not s.left_out["accounts"] and not s.left_out["instruments"]:
            return None
        for what, name, k, rows in (("accounts", order.account, asked.account, s.accounts),
                                    ("instruments", order.instrument, asked.instrument, s.instruments)):
            if name in s.left_out[what]:
                found.append((f"{name}, one more than there is room for", f"{len(rows)} {what}"))
            elif k < 0 or not rows["known"][k]:
                return None
        return found[0] if found else None

    def _shares_of(self, asked: Asked) -> list[int]:
        if not self.share_limits or asked.account < 0 or asked.instrument < 0:
            return _NO_SHARES
        found = self.share_nodes(asked.account, asked.instrument)
        return found + _NO_SHARES[len(found) :]

    def share_nodes(self, account: int, instrument: int) -> list[int]:
        """Return the nodes of what an account's nodes have in an instrument's issuer or sector, where it is limited."""
        return []

    def place(self, order: Order, decided_ns: int, now_ns: int, earlier: Sequence[str] = (),
              executed: float = 0.0) -> None:
        """Reserve an order that a decision on the log accepted before a restart, unless it has expired since.

        ``earlier``: ids that it replaced; their executions count from now on. ``executed``: of it, or of those, before.
        """
        asked = self._fill(order, decided_ns)
        if asked.account >= 0 and not self.accepted.knows(asked.account, order.order_id):
            self.accepted.add(asked.account, order.order_id)
        if asked.account >= 0 and asked.instrument >= 0 and end_of(order, decided_ns, self.day) > now_ns:
            asked = self._open_names(order, asked)
            self._take_up(self._working(order, asked, decided_ns, executed, tuple(earlier)))

    def _take_up(self, w: Working) -> None:
        """Let an order work; nothing of this can fail."""
        if w.left > ROUNDED * float(w.order.whole):
            self._keep(w)
            self._reserve(w, 1.0)
        else:  # a replace may ask for no more than what is done
            self._keep_done(w)

    @contextmanager
    def _view_without(self, w: Working | None) -> Iterator[None]:
        """Show the columns as if an order did not work; afterwards they are as they were, bit for bit."""
        if w is None:
            yield
            return
        s, key = self.state, (w.account, w.instrument)
        held = self._held.get(key)
        nodes = np.unique(np.concatenate([w.nodes, self._above(*key), NOWHERE if held is None else held[1]]))
        position = s.positions[w.row]
        working = float(position["working_buy"]), float(position["working_sell"])
        shown, reserved = s.nodes[nodes].copy(), self.reserved[nodes].copy()
        before = None if held is None else (held[0].copy(), held[1])
        try:
            self._reserve(w, -1.0)
            yield
        finally:
            position["working_buy"], position["working_sell"] = working
            s.nodes[nodes], self.reserved[nodes] = shown, reserved
            self._held.pop(key, None)
            if before is not None:
                self._held[key] = before

    def _working(self, order: Order, asked: Asked, now_ns: int, executed: float = 0.0, earlier: tuple[str, ...] = (),
                 row: int = -1) -> Working:
        """Return an order with the nodes it lies under; ``row``: of its position, where that is known."""
        s, side, k = self.state, asked.side, asked.instrument
        key = asked.day_key()
        nodes, own = self.nodes_of(key)
        return Working(order, asked.account, k, row if row >= 0 else s.position_row(asked.account, k), side,
                       asked.price, max(asked.quantity - executed, 0.0), *figures_of_unit(s, k, side),
                       key[2], key[3], key[4], end_of(order, now_ns, self.day), executed, earlier, nodes, own, now_ns)

    def nodes_of(self, key: DayKey) -> tuple[np.ndarray, np.ndarray]:
        """Return all nodes that an order lies under, each once, and of them those that its position is not under."""
        found = self._nodes_of.get(key)
        if found is None:
            own = list(dict.fromkeys(n for n in key[2:] if n >= 0))
            nodes = dict.fromkeys(self._above(key[0], key[1]).tolist() + own)
            if len(self._nodes_of) >= KINDS_OF_ORDERS:
                self._nodes_of.clear()
            found = self._nodes_of[key] = np.array(list(nodes), np.int64), np.array(own, np.int64)
        return found

    def count_day(self, w: Working, value: float, sign: float = 1.0, replaced: float = 0.0,
                  attended: bool = False) -> None:
        """Add an accepted order to the day's sums of its nodes, and to its trader's unattended executions.

        ``value``: of the order at its own price, as it was measured against limits. ``replaced``: the quantity of the
        order that it replaces, which is counted. ``attended``: a person has looked at its trader's executions since.
        """
        whole = float(w.order.whole)
        size = max(whole - replaced, 0.0)
        self.count_ordered((w.account, w.instrument, w.trader, w.counterparty, w.venue), w.nodes, sign * size,
                           sign * value * (size / whole), sign if w.order.algo_id and not attended else 0.0)

    def _position_nodes(self, account: int, instrument: int) -> list[int]:
        i = self.state.instruments[instrument]
        found = [*self.state.accounts["nodes"][account].tolist(), *(int(i[f]) for f in INSTRUMENT_NODES)]
        return [n for n in found if n >= 0] + (self.share_nodes(account, instrument) if self.share_limits else [])

    def _above(self, account: int, instrument: int) -> np.ndarray:
        """Return the nodes above a position, each once."""
        found = self._nodes_above.get((account, instrument))
        if found is None:
            nodes = list(dict.fromkeys(self._position_nodes(account, instrument)))
            found = self._nodes_above[account, instrument] = np.array(nodes, np.int64)
        return found

    def works(self, account: int, instrument: int) -> bool:
        """Whether an order works on a position, or something is still held for one."""
        return bool(self.of_position.get((account, instrument))) or (account, instrument) in self._held

    def hold_position(self, account: int, instrument: int) -> None:
        """Reserve what the worse side of a position exceeds it by; call it whenever either has changed."""
        self._hold(account, instrument, self.state.position_row(account, instrument))

    def _hold(self, account: int, instrument: int, row: int) -> None:
        above = self._above(account, instrument)
        held, old = self._held.pop((account, instrument), None) or (np.zeros(6), NOWHERE)
        if hold(self.state.positions, row, self.state.instruments, held, old, above, self.state.nodes, self._base,
                self.reserved, self.others):
            self._held[account, instrument] = (held, above)

    def _reserve(self, w: Working, sign: float) -> None:
        s = self.state
        reserve(s.positions, w.row, w.side, sign * w.left, w.gross, w.net, w.delta, w.vega, w.var, w.nodes, w.own,
                s.nodes, self._base, self.reserved, self.others)
        self._hold(w.account, w.instrument, w.row)

    def _best_without(self, w: Working) -> None:
        """Note the best price that works on the position of an order that is gone, where the best was its own."""
        best = self.state.positions["best_buy" if w.side > 0 else "best_sell"]
        if w.price is None or best[w.row] != w.price:
            return
        prices = [x.price for x in self.of_position[w.account, w.instrument].values()
                  if x.price is not None and x.side == w.side]
        best[w.row] = max(prices, default=-math.inf) if w.side > 0 else min(prices, default=math.inf)

    def fill(self, order_id: str, quantity: float) -> None:
        """Take an execution of an order in: what is done no longer works; what is taken back (below 0) works again."""
        works = self.find(order_id)
        w = works or self._reopened(order_id)
        if w is None:
            return
        if w.venue >= 0:
            self._execute_at_venue(w, quantity)
        if works is not None:
            self._reserve(w, -1.0)
        whole = float(w.order.whole)
        w.executed = max(w.executed + quantity, 0.0)
        w.left = max(whole - w.executed, 0.0)
        if w.left <= ROUNDED * whole:
            if works is not None:
                self._drop(w)
            self._keep_done(w)
        elif works is not None:
            self._reserve(w, 1.0)
            self.changes.orders[w.order.order_id] = w.account
        else:
            self._take_up(w)
            self.revived.append(w.order.order_id)

    def _keep_done(self, w: Working) -> None:
        """Hold an order that is executed whole until it ends by its terms."""
        order_id, w.left = w.order.order_id, 0.0
        self.done[order_id] = w
        self._done_ids.update(dict.fromkeys((*w.earlier, order_id), order_id))
        self.changes.orders[order_id] = w.account
        if w.order.time_in_force in ENDS_IN_THE_DAY:
            heapq.heappush(self._ends, (w.expires_ns, order_id))
        if len(self.done) > DONE_ORDERS:
            self.forget_done(next(iter(self.done)))

    def forget_done(self, order_id: str) -> Working | None:
        """Let an order that is executed whole be over, by any of its ids: nothing makes it work again."""
        w = self.done.pop(self._done_ids.get(order_id, ""), None)
        if w is not None:
            for known_as in (*w.earlier, w.order.order_id):
                self._done_ids.pop(known_as, None)
            self.changes.ended(w.order.order_id, w.account)
        return w

    def _reopened(self, order_id: str) -> Working | None:
        """Return an order that is executed whole as it would work now: names and places may have changed since."""
        w = self.forget_done(order_id)
        if w is None:
            return None
        asked = self._open_names(w.order, self._fill(w.order, w.decided_ns))
        again = self._working(w.order, asked, w.decided_ns, w.executed, w.earlier)
        again.session = w.session
        return again

    def _execute_at_venue(self, w: Working, quantity: float) -> None:
        """Count what was executed at a venue today as credit there: net by position, at the value of the order."""
        key = (w.venue, w.account, w.instrument)
        net = self.at_venue.get(key, (0.0, 0.0))[0] + w.side * quantity
        self.hold_at_venue(key, net, abs(net) * w.gross)

    def forget_accounts(self, accounts: AbstractSet[int]) -> None:
        """Take back what accounts hold and have added to the day that another gate has now: that one counts it."""
        for order_id in [k for k, w in self.working.items() if w.account in accounts]:
            self.release(order_id)
        for order_id in [k for k, w in self.done.items() if w.account in accounts]:
            self.forget_done(order_id)
        self.accepted.forget(accounts)
        self._forget_day(accounts)

    def _forget_nodes(self) -> None:
        """Look up anew what lies above positions: an account, an instrument or a limit has changed."""
        self._nodes_above.clear()
        self._nodes_of.clear()
        self._shares_above.clear()

    def _move(self, change: Callable[[], None], account: int = -1, instrument: int = -1) -> None:
        """Change where an account or an instrument lies: what works and the day's sums of it go with it."""
        s = self.state
        orders = [w for w in self.working.values() if w.account == account or w.instrument == instrument]
        days = {k: day for k, day in self.day_of.items() if k[0] == account or k[1] == instrument}
        for w in orders:
            self._reserve(w, -1.0)
        for nodes, quantity, value, _ in days.values():
            add_to_day(nodes, -quantity, -value, s.nodes, self._base, self.reserved, self.others)
        change()
        self._forget_nodes()
        for w in orders:
            w.nodes, w.own = self.nodes_of((w.account, w.instrument, w.trader, w.counterparty, w.venue))
            self._reserve(w, 1.0)
        for key, (_, quantity, value, times) in days.items():
            nodes = self.nodes_of(key)[0]
            self.day_of[key] = (nodes, quantity, value, times)
            add_to_day(nodes, quantity, value, s.nodes, self._base, self.reserved, self.others)

    def release(self, order_id: str) -> Working | None:
        """Take a working order out (cancelled, expired, killed); what is executed whole then works no more either."""
        w = self.find(order_id)
        if w is None:
            self.forget_done(order_id)
            return None
        self._reserve(w, -1.0)
        self._drop(w)
        return w

    def _keep(self, w: Working) -> None:
        order_id = w.order.order_id
        self.working[order_id] = w
        self.changes.orders[order_id] = w.account
        self._now.update(dict.fromkeys(w.earlier, order_id))
        if w.order.time_in_force in ENDS_IN_THE_DAY:
            heapq.heappush(self._ends, (w.expires_ns, order_id))
        if w.order.reduce_only:
            self.reduce_only[order_id] = w
        self.of_position.setdefault((w.account, w.instrument), {})[w.order.order_id] = w
        if w.price is not None:
            best = self.state.positions["best_buy" if w.side > 0 else "best_sell"]
            best[w.row] = max(best[w.row], w.price) if w.side > 0 else min(best[w.row], w.price)

    def _end_orders(self, now_ns: int) -> None:
        """Take out what was to trade at once, or until a time that is past."""
        while self._ends and self._ends[0][0] <= now_ns:
            order_id = heapq.heappop(self._ends)[1]
            w = self.working.get(order_id)
            if w is not None and w.expires_ns <= now_ns:
                self.release(w.order.order_id)
            elif w is None and (done := self.done.get(order_id)) is not None and done.expires_ns <= now_ns:
                self.forget_done(order_id)

    def _drop(self, w: Working) -> None:
        del self.working[w.order.order_id]
        if not self.accepted.knows(w.account, w.order.order_id):  # it worked longer than ids are remembered
            self.accepted.add(w.account, w.order.order_id)
        self.reduce_only.pop(w.order.order_id, None)
        self.changes.ended(w.order.order_id, w.account)
        for order_id in w.earlier:
            self._now.pop(order_id, None)
        del self.of_position[w.account, w.instrument][w.order.order_id]
        self._best_without(w)
