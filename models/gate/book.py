"""The gate of some accounts: reference data, marks, limits and states in, verdicts on orders out.

What an accepted order may still trade is reserved until it is filled, cancelled or expired.

Figures above the account come from the valued book of all positions plus what this gate let through and has not seen
filled. The same events in the same order give the same verdicts: time comes with the orders.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models import rollup as ru
from models.gate import state as gs
from models.gate.explain import INPUTS_VERSION, reasons_of
from models.gate.kernel import check_order, copy_inputs, count_message
from models.gate.positions import GatePositions
from models.gate.reservations import Asked, Working
from models.gate.state import POSITION_METRICS, GateState
from models.reference import FIRM, settlement_currency
from models.risk.attributes import Navs
from models.trading_day import TradingDay
from models.valued_book import ValuedBook
from schemas.controls import Check
from schemas.records import Account, Control, Counterparty, Decision, Instrument, Limit, Order, Reason
from schemas.units import parse_ts_ns

#: what a node's figures are taken from
_FROM_ROLLUP = ((gs.GROSS, ru.GROSS), (gs.NET, ru.NET), (gs.LONG, ru.LONG), (gs.SHORT, ru.SHORT), (gs.DELTA, ru.DELTA),
                (gs.VEGA, ru.VEGA))
#: what two people may let one order pass: limits, not states, lists, permissions or data that are missing
OVERRIDABLE = sum(1 << c for c in (
    Check.MAX_QUANTITY, Check.MAX_VALUE, Check.PRICE_COLLAR, Check.PRICE_DRIFT, Check.MESSAGE_RATE, Check.VALUE_RATE,
    Check.REPEATED_EXECUTION, Check.POSITION_LONG, Check.POSITION_SHORT, Check.GROSS_EXPOSURE, Check.NET_EXPOSURE,
    Check.LONG_EXPOSURE, Check.SHORT_EXPOSURE, Check.CONCENTRATION, Check.MARGIN, Check.CREDIT, Check.LEVERAGE,
    Check.DELTA, Check.VEGA, Check.VAR, Check.DAILY_QUANTITY, Check.DAILY_VALUE))
#: default collars, by asset class: (basis points, ticks)
COLLARS = {"equity": (300.0, 10.0), "fx": (50.0, 20.0), "future": (150.0, 20.0), "option": (2_000.0, 20.0),
           "fx_option": (2_000.0, 20.0), "bond": (100.0, 20.0), "perpetual": (300.0, 20.0), "cash": (10.0, 1.0),
           "fx_forward": (50.0, 20.0), "money_market": (50.0, 20.0)}
#: NAVs move with exchange rates and accounts: looked up this often
NAVS_NS = 1_000_000_000
#: so many ids of executed orders are remembered
EXECUTED_IDS = 1 << 18
PRICE_AGE_MAX_NS = 10_000_000_000


@dataclass
class Verdict:
    """What the gate says of one order."""

    outcome: str
    reasons: list[Reason]
    warnings: list[Reason]
    value: float
    inputs: dict[str, Any]


class GateBook(GatePositions):
    """One gate: a valued book for exposures, the kernel's columns, working orders."""

    def __init__(self, base_currency: str, levels: tuple[str, ...], day: TradingDay | None = None,
                 **capacities: int) -> None:
        self.levels = levels
        super().__init__(ValuedBook(base_currency, levels, day), GateState(**capacities), day or TradingDay())
        self.limits: dict[str, Limit] = {}
        self.limits_version = 0
        self.controls: dict[str, Control] = {}
        #: ids that were executed, wholly or in part: an order that comes again with one would be done twice
        self.executed: dict[str, None] = {}
        self._node_map: list[tuple[int, int]] = []
        self._mapped = 0
        self._holder_nodes: list[int] = []
        self._multiplier = np.full(len(self.state.instruments), np.nan)
        self._currency = np.zeros(len(self.state.instruments), np.int64)
        self._market_index = np.full(len(self.state.instruments), -1, np.int64)
        self._limit_ids: dict[tuple[int, int], str] = {}
        self._temporary: dict[str, int] = {}
        self._day = -1
        self._states_old = False
        self._price_tests: dict[int, int] = {}
        self._navs, self._navs_ns = Navs(), -NAVS_NS
        self._address = self.state.table.ctypes.data
        self._rows_read: Any = np.zeros(gs.READ_BYTES, np.uint8)
        self._nodes_read = np.zeros((gs.ACCOUNT_NODES + gs.ORDER_NODES, 2), np.int64)

    # ---- reference data, marks, positions -------------------------------------------------------------------------
    def add_account(self, record: Account) -> None:
        """Take an account in: where it lies, and the states above it."""
        self.book.add_account(record)
        k = self.state.account(record.account)
        row = self.state.accounts[k]
        names = [f"{level}:{getattr(record, level, '')}" for level in self.levels if level != FIRM]
        names = names[: gs.ACCOUNT_NODES - 2]
        nodes = [self.state.node(n) for n in names] + [self.state.node(FIRM)]
        nodes += [-1] * (gs.ACCOUNT_NODES - 1 - len(nodes)) + [self.state.node(f"account:{record.account}")]
        row["known"], row["nodes"] = 1, nodes
        if record.traders is None:
            self.traders.pop(record.account, None)
        else:
            self.traders[record.account] = frozenset(record.traders)
        if record.counterparty:
            self.holders[record.account] = record.counterparty
        else:
            self.holders.pop(record.account, None)
        self._states_old = True
        self._nodes_above.clear()

    def add_instrument(self, record: Instrument) -> None:
        """Take an instrument in: its terms, its collar, its lists."""
        self.book.add_instrument(record)
        k = self.state.instrument(record.instrument)
        row = self.state.instruments[k]
        row["known"], row["restricted"], row["shortable"] = 1, record.restricted, record.shortable
        row["equity"], row["inverse"] = record.asset_class == "equity", record.inverse
        row["tick"] = float(record.price_increment or 0)
        row["collar_bps"], row["collar_ticks"] = COLLARS[record.asset_class]
        row["age_max_ns"] = PRICE_AGE_MAX_NS
        row["prior_close"] = math.nan if record.prior_close is None else float(record.prior_close)
        row["margin_rate"] = math.nan if record.margin_initial is None else float(record.margin_initial)
        row["node"] = self.state.node(f"instrument:{record.instrument}")
        row["issuer"] = self.state.node(f"issuer:{record.issuer}") if record.issuer else -1
        row["sector"] = self.state.node(f"sector:{record.sector}") if record.sector else -1
        market = self.book.market
        self._multiplier[k] = float(record.multiplier * (record.quanto_rate or 1))
        self._currency[k] = market.currency(settlement_currency(record))
        self._market_index[k] = market.instrument(record.instrument)
        self._states_old = True
        self._nodes_above.clear()

    def add_counterparty(self, record: Counterparty) -> None:
        """Take a counterparty's rating in."""
        node = self.state.node(f"counterparty:{record.counterparty}")
        self._base[node, gs.RATING] = record.rating
        self._sum_node(node)

    def set_price(self, instrument: str, bid: float | None, ask: float | None, mid: float | None, last: float | None,
                  ts_ns: int, usable: bool) -> None:
        """Take a mark's prices in."""
        row = self.state.instruments[self.state.instrument(instrument)]
        row["bid"], row["ask"], row["mid"], row["last"] = (math.nan if x is None else x for x in (bid, ask, mid, last))
        row["price_ns"], row["stale"] = ts_ns, not usable
        close = row["prior_close"]
        if row["equity"] and mid is not None and close == close and mid <= 0.9 * close:
            row["price_test"] = 1  # for the rest of the day and the next
            self._price_tests[self.state.instrument_index[instrument]] = self.day.end_ns(self.day.end_ns(ts_ns))

    def refresh(self, now_ns: int) -> None:
        """Bring exposures, rates and sensitivities up to the market as it stands; call it for every mark window."""
        self.book.revalue(now_ns)
        rollup, market, state = self.book.rollup, self.book.market, self.state
        for k in range(self._mapped, len(rollup.node_names)):
            self._node_map.append((k, state.node(rollup.node_names[k])))
            if rollup.node_names[k].startswith("counterparty:"):
                self._holder_nodes.append(self._node_map[-1][1])
        self._mapped = len(rollup.node_names)
        if self._node_map:
            source, target = np.array(self._node_map).T
            for metric, column in _FROM_ROLLUP:
                self._base[target, metric] = rollup.nodes[source, column]
            self._base[self._holder_nodes, gs.CREDIT] = self._base[self._holder_nodes, gs.GROSS]
        known = np.flatnonzero(self._market_index >= 0)
        index = self._market_index[known]
        unit = self._multiplier[known] * market.rate[self._currency[known]]
        state.instruments["unit"][known] = unit
        greeks = market.unit_greeks[index]
        linear = market.greek_kind[index] == 0
        state.instruments["unit_delta"][known] = np.where(linear, unit * market.price[index], unit * greeks[:, 0])
        state.instruments["unit_vega"][known] = np.where(linear, 0.0, unit * greeks[:, 2])
        self._expire(now_ns)
        if now_ns - self._navs_ns >= NAVS_NS:
            self._navs_ns = now_ns
            state.nodes["nav"] = np.nan
            for name, nav in self._navs.of(self.book).items():
                state.nodes["nav"][state.node(name)] = nav
        for limit_id in [k for k, until in self._temporary.items() if until <= now_ns]:
            del self._temporary[limit_id]
            ended = self.limits[limit_id]
            if ended.metric in gs.METRICS:
                self._effective(ended.node, ended.metric)
            else:
                self._restore_position_limit(ended)
        n = len(state.node_names)
        # exposures are as old as the newest mark they rest on; a node without positions is known to be flat
        state.nodes["exposure_ns"][:n] = min(self.book.snapshot_id, now_ns)
        state.nodes["value"][:n] = self._base[:n] + self.reserved[:n]

    def set_var(self, node: str, var: float, gross: float) -> None:
        """Take a node's historical VaR in; an order adds at most its share of the node's worst VaR per gross."""
        k = self.state.node(node)
        self._base[k, gs.VAR_HIST] = var
        self.state.nodes["var_per_value"][k] = var / gross if gross > 0 else 0.0

    # ---- limits and states ----------------------------------------------------------------------------------------
    def add_limit(self, limit: Limit) -> None:
        """Take a limit in; a newer version replaces an older one. A limit that is no number is a ValueError."""
        held = self.limits.get(limit.limit_id)
        if held is not None and held.version > limit.version:
            return
        value = float(limit.limit)
        if value != value:
            raise ValueError(f"limit: expected a number, was {limit.limit!r}")
        if limit.metric in POSITION_METRICS:
            self._position_limit(limit, value)
        self.limits[limit.limit_id] = limit
        self.limits_version = max(self.limits_version, limit.version)
        if limit.until is not None and limit.metric != "override":
            self._temporary[limit.limit_id] = parse_ts_ns(limit.until)
        if limit.metric in gs.METRICS:
            if limit.metric in ("message_count", "message_value"):
                self.state.count_in(self.state.node(limit.node), (limit.window_ms or 1000) * 1_000_000)
            self._effective(limit.node, limit.metric)

    def _effective(self, node: str, metric: str) -> None:
        """Set what holds for a node's metric: a temporary limit while it lasts, else the tightest one."""
        found = [x for x in self.limits.values() if x.node == node and x.metric == metric]
        temporary = [x for x in found if x.limit_id in self._temporary]
        chosen = temporary[-1] if temporary else min((x for x in found if x.until is None), key=lambda x: x.limit,
                                                     default=None)
        key = (self.state.node(node), gs.METRICS.index(metric))
        if chosen is None:
            self.state.set_limit(node, metric, math.nan)
            self._limit_ids.pop(key, None)
        else:
            self.state.set_limit(node, metric, float(chosen.limit), chosen.mode == "soft")
            self._limit_ids[key] = chosen.limit_id

    def _position_limit(self, limit: Limit, value: float) -> None:
        level, _, name = limit.node.partition(":")
        if level != "account" or limit.instrument is None:
            raise ValueError(f"node: expected account:NAME and an instrument for {limit.metric}, was {limit.node!r}")
        row = self.state.position(self.state.account(name), self.state.instrument(limit.instrument))
        row["long_limit" if limit.metric == "position_long" else "short_limit"] = value

    def _restore_position_limit(self, ended: Limit) -> None:
        """Set a position's limit back to what held before a temporary one."""
        lasting = [x for x in self.limits.values() if x.until is None and x.metric == ended.metric
                   and x.node == ended.node and x.instrument == ended.instrument]
        self._position_limit(ended, min((float(x.limit) for x in lasting), default=math.nan))

    def remove_limit(self, limit_id: str) -> None:
        """Take a limit away."""
        limit = self.limits.pop(limit_id, None)
        self._temporary.pop(limit_id, None)
        if limit is not None and limit.metric in gs.METRICS:
            self._effective(limit.node, limit.metric)

    def add_control(self, control: Control) -> list[Working]:
        """Take a state in; return the working orders that a kill cancels."""
        held = self.controls.get(control.scope)
        if held is not None and held.rev > control.rev:
            return []
        self.controls[control.scope] = control
        if control.state == "active" and control.scope.startswith("trader:"):
            node = self.state.node(control.scope)
            self._base[node, gs.REPEATED] = 0.0  # a person has looked
            self._sum_node(node)
        self._apply_states()
        return [w for w in self.working.values() if control.state == "killed" and self._under(w, control.scope)]

    def _apply_states(self) -> None:
        accounts, state = self.state.accounts, self.state
        self._states_old = False
        accounts["state"], accounts["state_node"] = gs.ACTIVE, -1
        state.instruments["state"], state.nodes["state"] = gs.ACTIVE, gs.ACTIVE
        state.settings["state"] = gs.ACTIVE
        for scope, control in self.controls.items():
            level = gs.STATES.index(control.state)
            if scope == "all":
                state.settings["state"] = max(int(state.settings["state"][0]), level)
            elif scope.startswith("instrument:"):
                k = state.instrument(scope.partition(":")[2])
                state.instruments["state"][k] = level
            elif scope.startswith("trader:"):
                state.nodes["state"][state.node(scope)] = level
            else:
                node = state.node(scope)
                under = (accounts["nodes"] == node).any(axis=1)
                stricter = under & (accounts["state"] < level)
                accounts["state"][stricter], accounts["state_node"][stricter] = level, node

    def _under(self, w: Working, scope: str) -> bool:
        if scope == "all":
            return True
        level, _, name = scope.partition(":")
        if level == "instrument":
            return w.order.instrument == name
        if level == "trader":
            return w.order.trader == name
        node = self.state.node_index.get(scope)
        return node is not None and node in self.state.accounts["nodes"][w.account].tolist()

    # ---- orders ---------------------------------------------------------------------------------------------------
    def decide(self, order: Order, now_ns: int) -> Verdict:
        """Return the verdict on an order and reserve what it may trade."""
        if self._states_old:  # an account that came under a halted desk a moment ago is halted
            self._apply_states()
        if order.action == "cancel":
            self._count(order, now_ns)
            self.release(order.ref_order_id or order.order_id)
            return Verdict("accept", [], [], 0.0, {})
        replaced = self.working.get(order.ref_order_id or "") if order.action == "replace" else None
        if order.action == "replace" and replaced is None:
            reason = Reason(code=Check.UNKNOWN_ORDER.name, measured=order.ref_order_id or "", limit="a working order")
            return Verdict("reject", [reason], [], 0.0, {})
        if replaced is not None:
            self._reserve(replaced, -1.0)
        asked = self._fill(order, now_ns)
        inputs = self._inputs(asked)
        hard = int(check_order(self._address, 0))
        result = self.state.results[0]
        used_id = order.action == "new" and (order.order_id in self.working or order.order_id in self.executed)
        if used_id:
            hard |= 1 << Check.DUPLICATE_ORDER
            inputs["used_id"] = True
        names = (self.state.node_names, self._limit_ids)
        warned = int(result["soft"]) & ~hard
        if hard and not hard & ~OVERRIDABLE and (by := self._override_of(order, float(result["value"]), now_ns)):
            inputs["override"], warned, hard = by, warned | hard, 0
        reasons = reasons_of(hard, result, *names, order.order_id if used_id else None)
        warnings = reasons_of(warned, result, *names)
        if hard:
            if replaced is not None:
                self._reserve(replaced, 1.0)
            return Verdict("reject", reasons, warnings, float(result["value"]), inputs)
        if replaced is not None:
            self._drop(replaced)
        self.count_day(self._place(order, asked, now_ns))
        return Verdict("accept", [], warnings, float(result["value"]), inputs)

    def fill(self, order_id: str, quantity: float) -> None:
        """Take an execution of a working order in, and remember that its id was executed."""
        if order_id in self.working:
            self.executed[order_id] = None
            if len(self.executed) > EXECUTED_IDS:
                del self.executed[next(iter(self.executed))]
        super().fill(order_id, quantity)

    def _override_of(self, order: Order, value: float, now_ns: int) -> str | None:
        """Return which override lets one order pass its limits: by two people, up to a value, until it ends."""
        found = self.limits.get(f"order:{order.order_id}~override")
        if found is None or found.until is None or parse_ts_ns(found.until) <= now_ns or not value <= found.limit:
            return None
        return found.limit_id

    def names_above(self, order: Order) -> list[str]:
        """Return the names of all nodes an order lies under."""
        names = [FIRM, f"account:{order.account}", f"trader:{order.trader}", f"instrument:{order.instrument}",
                 f"venue:{order.venue}", f"counterparty:{order.counterparty or self.holders.get(order.account)}"]
        account = self.book.reference.account_records.get(order.account)
        return names + [f"{level}:{getattr(account, level, '')}" for level in self.levels if level != FIRM]

    def check(self, order: Order, now_ns: int) -> Verdict:
        """Return what `decide` would say, and leave everything as it was."""
        asked, s = self._fill(order, now_ns), self.state
        if order.action == "replace":
            raise ValueError("action: expected new or cancel for a check without effect, was 'replace'")
        if order.action == "cancel":
            return Verdict("accept", [], [], 0.0, {})
        if asked.account < 0 or asked.instrument < 0:
            return self.decide(order, now_ns)  # refused before anything is touched
        position = s.position(asked.account, asked.instrument)
        before, rates = position.copy(), s.rates.copy()
        held = self.working.get(order.order_id)
        verdict = self.decide(order, now_ns)
        if verdict.outcome == "accept" and held is None:
            self._undo(order.order_id)
        s.rates[:] = rates
        for name in gs.POSITION.names or ():
            if name.startswith("last_"):
                position[name] = before[name]
        return verdict

    def _count(self, order: Order, now_ns: int) -> None:
        """Count a cancel in the message windows: it is never refused, but it is a message."""
        self._count_asked(self._fill(order, now_ns), now_ns, 0.0)

    def _count_asked(self, asked: Asked, ts_ns: int, value: float) -> None:
        s = self.state
        if asked.account < 0 or asked.instrument < 0 or not s.rate_count:
            return
        nodes = self._position_nodes(asked.account, asked.instrument) + asked.own_nodes()
        for rate in s.nodes["rate"][nodes].tolist():
            if rate >= 0:
                count_message(s.rates[rate], ts_ns, value)

    def recount(self, past: Sequence[Decision], now_ns: int) -> None:
        """Count what a log says was decided: message windows, and the day's sums, as if there had been no restart."""
        looked_ns = {k: parse_ts_ns(c.ts) for k, c in self.controls.items() if c.state == "active"}
        for d in sorted(past, key=lambda d: d.ts_decision):
            if d.order is None:
                continue
            asked = self._fill(d.order, d.ts_decision)
            if asked.account < 0 or asked.instrument < 0:
                continue
            if d.outcome != "cancel":
                self._count_asked(asked, d.ts_decision, d.effect.get("value", 0.0))
            if d.outcome == "accept" and d.order.action != "cancel" and d.ts_decision >= self.day.begin_ns(now_ns):
                w = self._working(d.order, asked, d.ts_decision)
                self.count_day(w)
                if d.order.algo_id and d.ts_decision < looked_ns.get(f"trader:{d.order.trader}", 0):
                    self._base[w.trader, gs.REPEATED] -= 1.0  # a person has looked since

    def _expire(self, now_ns: int) -> None:
        """End the day: what still works has expired, and daily sums begin anew."""
        day = self.day.index(now_ns)
        if day == self._day:
            return
        self._day = day
        for k in [k for k, end in self._price_tests.items() if end <= now_ns]:
            del self._price_tests[k]
            self.state.instruments["price_test"][k] = 0
        for order_id in [k for k, w in self.working.items() if w.expires_ns <= now_ns]:
            self.release(order_id)
        self._base[:, [gs.DAILY_QUANTITY, gs.DAILY_VALUE, gs.REPEATED]] = 0.0

    def _inputs(self, asked: Asked) -> dict[str, Any]:
        """Return the rows the kernel is about to read, as bytes, so that the verdict can be reproduced bit for bit."""
        s: Any = self.state
        if asked.account < 0 or asked.instrument < 0:
            known: dict[str, Any] = {"account": s.accounts, "instrument": s.instruments}
            given = {f: rows[getattr(asked, f)].tobytes() for f, rows in known.items() if getattr(asked, f) >= 0}
            return {"v": INPUTS_VERSION, "order": s.orders[0].tobytes()} | given
        count = int(copy_inputs(self._address, 0, self._rows_read, self._nodes_read))
        if count < 0:
            raise ValueError(f"gate: more positions than the {len(s.positions)} there is room for")
        raw, at = memoryview(self._rows_read), 0
        out: dict[str, Any] = {"v": INPUTS_VERSION}
        for name, size in gs.READ_ROWS:
            out[name], at = bytes(raw[at : at + size]), at + size
        nodes = out["nodes"] = []
        for n, rate in self._nodes_read[:count].tolist():
            node, at = bytes(raw[at : at + gs.NODE.itemsize]), at + gs.NODE.itemsize
            window = None
            if rate >= 0:
                window, at = bytes(raw[at : at + gs.RATE.itemsize]), at + gs.RATE.itemsize
            nodes.append([s.node_names[n], n, node, window])
        return out
