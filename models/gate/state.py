"""Columns the gate works on: accounts, instruments, positions with working orders, nodes with limits, rate windows.

Every array has a fixed capacity, so that the addresses which the kernel is given stay the same.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np

from schemas.records import MARGIN_TIERS_MAX

#: what a limit can be on; each node carries a value and a limit for every one
METRICS = ("gross", "net", "long", "short", "delta", "vega", "var_hist", "leverage", "concentration", "margin",
           "credit", "order_quantity", "order_value", "message_count", "message_value", "daily_quantity", "daily_value",
           "repeated_executions", "rating")
(GROSS, NET, LONG, SHORT, DELTA, VEGA, VAR_HIST, LEVERAGE, CONCENTRATION, MARGIN, CREDIT, ORDER_QUANTITY, ORDER_VALUE,
 MESSAGE_COUNT, MESSAGE_VALUE, DAILY_QUANTITY, DAILY_VALUE, REPEATED, RATING) = range(len(METRICS))
NM = len(METRICS)
#: what works on either side of the figures that have a sign, both above 0: each side may be executed without the other
WORKING = ("net_up", "net_down", "delta_up", "delta_down", "vega_up", "vega_down")
(NET_UP, NET_DOWN, DELTA_UP, DELTA_DOWN, VEGA_UP, VEGA_DOWN) = range(NM, NM + len(WORKING))
#: what a node has of everything, and how many that are
FIGURES = METRICS + WORKING
NF = len(FIGURES)
#: limits on what comes of a node's messages within a window; a node has up to `WINDOWS` windows of different lengths
MESSAGE_METRICS = ("message_count", "message_value")
WINDOWS = 4
ACTIVE, REDUCING, HALTED, KILLED = 0, 1, 2, 3
STATES = ("active", "reducing", "halted", "killed")
#: levels below the firm
LEVELS_MAX = 6
#: nodes above an account (its levels, the firm, its dealer, its PM, itself), then those of the order: trader, issuer,
#: sector, counterparty, venue, instrument, asset class, currency, pair
ACCOUNT_NODES, ORDER_NODES = LEVELS_MAX + 4, 9
#: nodes of what one of an account's nodes has in one issuer or one sector, where that is limited
SHARES = 2 * ACCOUNT_NODES
MARGIN_TIERS = MARGIN_TIERS_MAX
#: quantities and prices beyond are no order's: what they are worth would be no number
ORDER_FIGURE_MAX = 1e18
#: names that are nobody's but the orders' that come with them
NAMED_BY_ORDERS = ("trader:", "counterparty:", "venue:")
#: so much of all nodes, and of all positions, may be opened by orders; the rest is for what is known without them
ROOM_FOR_ORDERS = 0.75
#: that there is room for, where nothing else is said
ACCOUNTS, INSTRUMENTS, POSITIONS, NODES = 4_096, 8_192, 1 << 18, 1 << 15
#: of time in a window of messages
BUCKETS = 32
CHECKS = 42

ACCOUNT = np.dtype([("known", "i1"), ("state", "i1"), ("nodes", "i4", ACCOUNT_NODES),
                    ("state_node", "i4")], align=True)
INSTRUMENT = np.dtype([
    ("known", "i1"), ("restricted", "i1"), ("shortable", "i1"), ("equity", "i1"), ("price_test", "i1"),
    ("inverse", "i1"), ("state", "i1"), ("stale", "i1"), ("positive", "i1"), ("base_cash", "i1"),
    ("mid", "f8"), ("bid", "f8"), ("ask", "f8"), ("last", "f8"),
    ("prior_close", "f8"), ("tick", "f8"), ("collar_bps", "f8"), ("collar_ticks", "f8"),
    ("drift_bps", "f8"), ("drift_low", "f8"), ("drift_high", "f8"),
    ("soft_bps", "f8"), ("soft_ticks", "f8"), ("soft_drift", "f8"), ("soft_low", "f8"), ("soft_high", "f8"),
    ("unit", "f8"), ("accrued", "f8"), ("discount", "f8"),
    ("margin_up_to", "f8", MARGIN_TIERS), ("margin_rate", "f8", MARGIN_TIERS),
    ("unit_delta", "f8"), ("unit_vega", "f8"), ("unit_var", "f8"),
    ("price_ns", "i8"), ("age_max_ns", "i8"), ("issuer", "i4"), ("sector", "i4"), ("node", "i4"),
    ("asset_class", "i4"), ("currency", "i4"), ("pair", "i4")],
    align=True)
POSITION = np.dtype([("account", "i4"), ("instrument", "i4"), ("quantity", "f8"), ("working_buy", "f8"),
                     ("working_sell", "f8"), ("best_buy", "f8"), ("best_sell", "f8"), ("long_limit", "f8"),
                     ("short_limit", "f8"), ("soft_long", "f8"), ("soft_short", "f8")], align=True)
#: ``limit``: the hard ones, ``soft``: the others, each held by itself; ``softer``: whether there are any of the latter
NODE = np.dtype([("value", "f8", NF), ("limit", "f8", NM), ("soft", "f8", NM), ("softer", "i1"), ("state", "i1"),
                 ("nav", "f8"), ("exposure_ns", "i8"), ("rates", "i4", WINDOWS)], align=True)
#: one window of a node: what its messages are held against, those of other gates, and its buckets
RATE = np.dtype([("window_ns", "i8"), ("bucket_ns", "i8"), ("limit", "f8", 2), ("soft", "f8", 2), ("others", "f8", 2),
                 ("count", "i4", BUCKETS), ("value", "f8", BUCKETS), ("stamp", "i8", BUCKETS)], align=True)
#: ``executed``: of its quantity, before it replaced another; ``replaced``: the quantity of that; ``was_price``: its
#: price; ``same_names``: whether it named the same trader, counterparty and venue; ``same_ns``: when
#: one like it was let through last; ``state``: the strictest of names without a node; ``dry``: it is no message, only
#: asked about; ``opposite``: the nearest own order on the other side that is not among the best ones of its position
ORDER = np.dtype([("account", "i4"), ("instrument", "i4"), ("side", "f8"), ("quantity", "f8"), ("executed", "f8"),
                  ("replaced", "f8"), ("was_price", "f8"), ("price", "f8"), ("stop_price", "f8"), ("opposite", "f8"),
                  ("ts_ns", "i8"), ("same_ns", "i8"),
                  ("trader", "i4"), ("counterparty", "i4"), ("venue", "i4"), ("algo", "i4"),
                  ("market", "i1"), ("locate", "i1"), ("exempt", "i1"), ("permitted", "i1"), ("action", "i1"),
                  ("state", "i1"), ("dry", "i1"), ("stop", "i1"), ("reduce_only", "i1"),
                  ("same_names", "i1"),
                  ("shares", "i4", SHARES)], align=True)
#: what an order is worth, and what it adds to its account and all above, in the firm's base currency
EFFECTS = ("value", "gross", "net", "delta", "vega", "var_hist")
RESULT = np.dtype([("hard", "u8"), ("soft", "u8"), ("measured", "f8", CHECKS), ("limit", "f8", CHECKS),
                   ("node", "i4", CHECKS), ("position", "i4"), ("effect", "f8", len(EFFECTS))], align=True)
NEW, REPLACE, CANCEL = 0, 1, 2
#: what holds for all orders: ns of the duplicate window, how old exposures and positions may be, up to when positions
#: hold all trades, and whether per-order limits must be set
SETTINGS = np.dtype([("duplicate_ns", "i8"), ("exposure_age_ns", "i8"), ("position_age_ns", "i8"),
                     ("positions_ns", "i8"), ("limits_required", "i1"), ("state", "i1")], align=True)


def _layout(dtype: np.dtype) -> struct.Struct:
    text, at = "=", 0
    for kind, offset, *_ in (dtype.fields or {}).values():
        count = kind.itemsize // kind.base.itemsize
        text += f"{offset - at}x{count}" + {"i1": "b", "i4": "i", "i8": "q", "f8": "d"}[kind.base.str[1:]]
        at = offset + kind.itemsize
    return struct.Struct(f"{text}{dtype.itemsize - at}x")


#: what a verdict is reproduced from: these rows, then of each node that decides anything its own and its rate windows
READ_ROWS = (("order", ORDER.itemsize), ("account", ACCOUNT.itemsize), ("instrument", INSTRUMENT.itemsize),
             ("position", POSITION.itemsize), ("settings", SETTINGS.itemsize))
READ_BYTES = sum(size for _, size in READ_ROWS) + (
    ACCOUNT_NODES + ORDER_NODES + SHARES) * (NODE.itemsize + WINDOWS * RATE.itemsize)
#: a row of `ORDER` in one go: to set its columns one by one takes a third of the time of a verdict
ORDER_LAYOUT = _layout(ORDER)


def bucket_ns(window_ns: int) -> int:
    """Return how long a bucket of a window is: so many less one are no shorter than the window, wherever it begins."""
    return -(-window_ns // (BUCKETS - 1))


def capacities_of(accounts: int, instruments: int) -> dict[str, int]:
    """Return how much room there is in a gate of so many accounts and instruments: what lies under them grows along."""
    more = max(0, accounts - ACCOUNTS), max(0, instruments - INSTRUMENTS)
    return {"accounts": accounts, "instruments": instruments, "positions": POSITIONS + 16 * sum(more),
            "nodes": NODES + 4 * more[0] + 2 * more[1]}


class GateState:
    """All columns of one gate, with names to indices.

    Parameters
    ----------
    accounts, instruments, positions, nodes, rates : capacities
    """

    def __init__(self, accounts: int = ACCOUNTS, instruments: int = INSTRUMENTS, positions: int = POSITIONS,
                 nodes: int = NODES, rates: int = 1 << 14, ring: int = 4096) -> None:
        self.accounts: Any = np.zeros(accounts, ACCOUNT)
        self.accounts["nodes"] = -1
        self.accounts["state_node"] = -1
        self.instruments: Any = np.zeros(instruments, INSTRUMENT)
        for f in ("mid", "bid", "ask", "last", "prior_close", "unit", "drift_low", "drift_high", "soft_bps",
                  "soft_ticks", "soft_drift", "soft_low", "soft_high", "unit_delta", "unit_vega", "unit_var",
                  "margin_rate", "margin_up_to"):
            self.instruments[f] = np.nan
        self.instruments["discount"] = 1.0
        for f in ("issuer", "sector", "node", "asset_class", "currency", "pair"):
            self.instruments[f] = -1
        #: columns of it: one figure of a row is read in a tenth of the time so
        self.unit_delta: Any = self.instruments["unit_delta"]
        self.unit_vega: Any = self.instruments["unit_vega"]
        self.unit_var: Any = self.instruments["unit_var"]
        #: the last one is of none: an order for a position that there is not yet is held against it
        self.positions: Any = np.zeros(positions + 1, POSITION)
        for f in ("long_limit", "short_limit", "soft_long", "soft_short"):
            self.positions[f] = np.nan
        self.positions["best_buy"], self.positions["best_sell"] = -np.inf, np.inf
        self.position_slots = np.full(2 * positions, -1, np.int32)
        self.nodes: Any = np.zeros(nodes, NODE)
        self.nodes["limit"], self.nodes["soft"], self.nodes["nav"] = np.nan, np.nan, np.nan
        self.nodes["rates"] = -1
        self.nodes["value"][:, RATING] = np.nan  # a counterparty that nobody rated is within no limit on ratings
        self.rates: Any = np.zeros(rates, RATE)
        self.rates["stamp"], self.rates["limit"], self.rates["soft"] = -1, np.nan, np.nan
        self.orders: Any = np.zeros(ring, ORDER)
        self.orders["permitted"], self.orders["shares"] = 1, -1
        self.orders["stop_price"], self.orders["opposite"] = np.nan, np.nan
        self.order_bytes: Any = self.orders.view(np.uint8)
        self.results: Any = np.zeros(ring, RESULT)
        #: of the result at the first place of the ring
        self.soft_of_result: Any = self.results["soft"][:1]
        self.effect_of_result: Any = self.results["effect"][0]
        self.position_of_result: Any = self.results["position"][:1]
        self.settings: Any = np.zeros(1, SETTINGS)
        self.settings["duplicate_ns"], self.settings["exposure_age_ns"] = 500_000_000, 5_000_000_000
        self.settings["position_age_ns"] = 5_000_000_000
        self.settings["limits_required"] = 1
        self.account_index: dict[str, int] = {}
        self.instrument_index: dict[str, int] = {}
        self.node_index: dict[str, int] = {}
        self.node_names: list[str] = []
        #: places of nodes that were closed; places of those that orders opened; how many nodes were ever opened
        self.closed: list[int] = []
        self.by_orders: set[int] = set()
        self.opened = 0
        #: names of records that there is no place for: what is ordered in them is refused
        self.left_out: dict[str, dict[str, None]] = {"accounts": {}, "instruments": {}}
        #: names of standing orders that are counted nowhere: every node is taken
        self.without_node: dict[str, None] = {}
        self.position_count = np.zeros(1, np.int64)
        self.rate_count = 0
        #: how new the figures of nodes are: one that is opened now has no positions, and is as well known as the others
        self.exposures_ns = 0
        self.table = np.array([a.ctypes.data for a in (
            self.accounts, self.instruments, self.positions, self.position_slots, self.nodes, self.rates, self.orders,
            self.results, self.settings, self.position_count)] + [
            len(self.accounts), len(self.instruments), len(self.positions), len(self.position_slots), len(self.nodes),
            len(self.rates), ring], np.int64)

    def _rows_of(self, what: str) -> tuple[dict[str, int], Any]:
        return ((self.account_index, self.accounts) if what == "accounts"
                else (self.instrument_index, self.instruments))

    def _has_place(self, what: str, name: str) -> bool:
        index, rows = self._rows_of(what)
        return name in index or len(index) < len(rows)

    def find_place(self, what: str, name: str, nodes: Iterable[str]) -> bool:
        """Return whether a record has a place, and every node that it lies under; one that has not is left out.

        Parameters
        ----------
        what : accounts or instruments
        """
        more = len(set(nodes) - self.node_index.keys())
        if not self._has_place(what, name) or len(self.node_index) + more > len(self.nodes):
            self.left_out[what][name] = None
            index, rows = self._rows_of(what)
            if name in index:  # it cannot be held where it lies now
                rows["known"][index[name]] = 0
            return False
        self.left_out[what].pop(name, None)
        return True

    def is_left_out(self, account: str | None, instrument: str) -> bool:
        """Return whether there is no place for an account (None: none is asked for), or an instrument."""
        asked = [("instruments", instrument), *([] if account is None else [("accounts", account)])]
        return any(name in self.left_out[what] or not self._has_place(what, name) for what, name in asked)

    def _index(self, index: dict[str, int], name: str, capacity: int, what: str) -> int:
        k = index.get(name)
        if k is None:
            k = len(index)
            if k >= capacity:
                raise ValueError(f"gate: {what} {name!r} is one more than the {capacity} there is room for")
            index[name] = k
        return k

    def account(self, name: str) -> int:
        """Return an account's index, opening it."""
        return self._index(self.account_index, name, len(self.accounts), "account")

    def instrument(self, name: str) -> int:
        """Return an instrument's index, opening it."""
        return self._index(self.instrument_index, name, len(self.instruments), "instrument")

    def figures_as_of(self, newest_ns: int, now_ns: int) -> int:
        """Return the time that exposures are of: now, while some price is within the bound of its class.

        A desk of bonds hears a quote a minute, and its prices are good for five. Where no price is within its bound the
        market is silent, and exposures are as old as the newest mark.
        """
        rows = self.instruments
        fresh = (rows["stale"] == 0) & (rows["price_ns"] > 0) & (now_ns - rows["price_ns"] <= rows["age_max_ns"])
        return now_ns if fresh.any() else min(newest_ns, now_ns)

    def node(self, name: str) -> int:
        """Return a node's index, opening it."""
        k = self.node_index.get(name)
        if k is None:
            if self.closed:
                k = self.closed.pop()
                self.node_names[k] = name
            elif len(self.node_names) < len(self.nodes):
                k = len(self.node_names)
                self.node_names.append(name)
            else:
                raise ValueError(f"gate: node {name!r} is one more than the {len(self.nodes)} there is room for")
            self.node_index[name] = k
            self.nodes["exposure_ns"][k] = self.exposures_ns
            self.opened += 1
        return k

    def close_node(self, k: int) -> None:
        """Close a node that nothing refers to: another name may take its place."""
        del self.node_index[self.node_names[k]]
        self.node_names[k] = ""
        self.by_orders.discard(k)
        self.closed.append(k)
        row = self.nodes[k : k + 1]
        row[:] = np.zeros(1, NODE)
        row["limit"], row["soft"], row["nav"], row["rates"] = np.nan, np.nan, np.nan, -1
        row["value"][:, RATING] = np.nan

    def standing_node(self, name: str | None) -> int:
        """Return the index of a node that what stands lies under, opening it; -1 where every node is taken."""
        if name is None:
            return -1
        if name not in self.node_index and len(self.node_index) >= len(self.nodes):
            self.without_node[name] = None
            return -1
        known = name in self.node_index
        k = self.node(name)
        if not known and name.startswith(NAMED_BY_ORDERS):
            self.by_orders.add(k)
        return k

    def room(self) -> dict[str, tuple[int, int]]:
        """Return how many accounts and instruments there are, and up to how many; then as `room_for_orders`."""
        return {"accounts": (len(self.account_index), len(self.accounts)),
                "instruments": (len(self.instrument_index), len(self.instruments))} | self.room_for_orders()

    def room_for_orders(self) -> dict[str, tuple[int, int]]:
        """Return how many nodes and positions there are, and up to how many of them orders may open more."""
        return {"nodes": (len(self.node_index), int(ROOM_FOR_ORDERS * len(self.nodes))),
                "positions": (self.position_count.item(), int(ROOM_FOR_ORDERS * (len(self.positions) - 1)))}

    def window(self, node: int, window_ns: int) -> int:
        """Return the rate window of this length under a node, opening it: one that limits nothing any more makes room.

        Raises
        ------
        ValueError
            `WINDOWS` windows of other lengths limit the node, or there is no room for one more.
        """
        held = self.nodes["rates"][node].tolist()
        for k in held:
            if k >= 0 and self.rates["window_ns"][k] == window_ns:
                return int(k)
        found = next((k for k in held if k >= 0 and np.isnan(self.rates["limit"][k]).all()
                      and np.isnan(self.rates["soft"][k]).all()), None)
        if found is None:
            if -1 not in held:
                lengths = [int(self.rates["window_ns"][k]) // 1_000_000 for k in held]
                raise ValueError(f"window_ms: expected {WINDOWS} windows of a node at most, {self.node_names[node]} "
                                 f"has {lengths}")
            if self.rate_count >= len(self.rates):
                raise ValueError(f"gate: more rate windows than the {len(self.rates)} there is room for")
            found, self.rate_count = self.rate_count, self.rate_count + 1
            self.nodes["rates"][node, held.index(-1)] = found
        self.rates["window_ns"][found], self.rates["bucket_ns"][found] = window_ns, bucket_ns(window_ns)
        self.rates["stamp"][found] = -1
        self.rates["others"][found] = 0.0
        return found

    def set_rate_limit(self, node: str, metric: str, window_ns: int, limit: float, soft: bool = False) -> None:
        """Set a limit on messages within a window, the hard or the soft one; NaN takes it away, counting goes on."""
        k, m = self.window(self.node(node), window_ns), MESSAGE_METRICS.index(metric)
        self.rates["soft" if soft else "limit"][k, m] = limit

    def position(self, account: int, instrument: int) -> Any:
        """Return the record of a position, opening it."""
        return self.positions[self.position_row(account, instrument)]

    def position_row(self, account: int, instrument: int) -> int:
        """Return the place of a position, opening it; it keeps that place."""
        from models.gate.kernel import find_position

        row = find_position(self.positions, self.position_slots, self.position_count, account, instrument, True)
        if row < 0:
            raise ValueError(f"gate: more positions than the {len(self.positions) - 1} there is room for")
        return int(row)

    def set_limit(self, node: str, metric: str, limit: float, soft: bool = False) -> None:
        """Set a limit of a node, the hard one or the soft one; NaN takes it away.

        Raises
        ------
        ValueError
            The metric is none of `METRICS`, or is of a window (`set_rate_limit`).
        """
        if metric not in METRICS or metric in MESSAGE_METRICS:
            raise ValueError(f"metric: expected one of {', '.join(METRICS)}, was {metric!r}")
        k, m = self.node(node), METRICS.index(metric)
        self.nodes["soft" if soft else "limit"][k, m] = limit
        self.nodes["softer"][k] = not np.isnan(self.nodes["soft"][k]).all()
