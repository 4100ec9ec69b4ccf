"""The gate of some accounts: reference data, marks, limits and states in, verdicts on orders out.

What an accepted order may still trade is reserved until it is filled, cancelled or expired. Figures above the account
come from the valued book of all positions plus what this gate let through and has not seen filled. The same events in
the same order give the same verdicts: time comes with the orders.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np

from models.gate import state as gs
from models.gate.ended_names import LOOKED_THROUGH_NS, end_names
from models.gate.executed_orders import ExecutedOrders
from models.gate.explain import effect_of
from models.gate.inputs import Inputs
from models.gate.kernel import check_order
from models.gate.limit_nodes import ACCOUNT_GROUPS
from models.gate.node_checks import count_message
from models.gate.old_surfaces import too_old
from models.gate.order_terms import wrong_terms
from models.gate.reasons import reasons_of, with_beside
from models.gate.state import GateState
from models.gate.trading_states import states_of
from models.gate.verdict import Verdict, unknown_order
from models.gate.working import Asked, Working, end_of, last_trading_day
from models.limits_in_force import by_two
from models.reference import FIRM, groups_of
from models.rollup import POSITIONS
from models.trading_day import TradingDay
from models.trading_states import replaces
from models.valued_book import ValuedBook
from schemas.asset_classes import STALE_MS_BY_CLASS
from schemas.controls import Check
from schemas.nodes import Risk
from schemas.records import Account, Control, Counterparty, Decision, Instrument, Order
from schemas.units import FUTURE_NS, SHOWN, parse_ts_ns

#: what two people may let one order pass: limits, not states, lists, permissions or data that are missing
OVERRIDABLE = sum(1 << c for c in (
    Check.MAX_QUANTITY, Check.MAX_VALUE, Check.PRICE_COLLAR, Check.PRICE_DRIFT, Check.MESSAGE_RATE, Check.VALUE_RATE,
    Check.REPEATED_EXECUTION, Check.POSITION_LONG, Check.POSITION_SHORT, Check.GROSS_EXPOSURE, Check.NET_EXPOSURE,
    Check.LONG_EXPOSURE, Check.SHORT_EXPOSURE, Check.CONCENTRATION, Check.MARGIN, Check.CREDIT, Check.LEVERAGE,
    Check.DELTA, Check.VEGA, Check.VAR, Check.DAILY_QUANTITY, Check.DAILY_VALUE))
#: a VaR that nobody has measured anew for so long is not known
VAR_AGE_MAX_NS = 60_000_000_000


class GateBook(ExecutedOrders):
    """One gate: a valued book for exposures, the kernel's columns, working orders."""

    def __init__(self, base_currency: str, levels: tuple[str, ...], day: TradingDay | None = None,
                 surface_age_ns: int | None = None, **capacities: int) -> None:
        if len(levels) > gs.LEVELS_MAX + 1:
            raise ValueError(f"levels: expected at most {gs.LEVELS_MAX} below the firm, was {levels}")
        book = ValuedBook(base_currency, levels, day, surface_age_ns)
        super().__init__(book, GateState(**capacities), day or TradingDay())
        self.controls: dict[str, Control] = {}
        #: how far ahead of the gate's clock an order may be dated
        self.future_ns = FUTURE_NS
        #: number of the trading day that sums are of
        self.sums_of_day = -1
        #: of nodes: when their VaR was measured
        self._var_ns: dict[int, int] = {}
        #: of instruments: when the VaR of one unit was
        self._unit_var_ns = np.zeros(len(self.state.instruments), np.int64)
        self._states_old, self._states_of_nodes = False, 0
        #: when names that nothing refers to end
        self._names_end_ns: list[int] = []
        #: of instruments: whether they are on a list, and the last day they trade
        self._restricted = np.zeros(len(self.state.instruments), bool)
        self._last_days = np.full(len(self.state.instruments), date.max.toordinal())
        self._today = date.min.toordinal()
        self._address = self.state.table.ctypes.data
        self._inputs = Inputs(self.state)

    # ---- reference data, marks, positions -------------------------------------------------------------------------
    def add_account(self, record: Account) -> None:
        """Take an account in: where it lies, and the states above it."""
        self.book.add_account(record)
        names = self._names_of_account(record)
        if not self.state.find_place("accounts", record.account, names):
            return
        row = self.state.accounts[k := self.state.account(record.account)]
        *nodes, itself = (self.state.node(name) for name in names)
        nodes += [*[-1] * (gs.ACCOUNT_NODES - len(names)), itself]
        self.own.add(k, record.owner)

        def lie() -> None:
            row["nodes"] = nodes

        if row["nodes"].tolist() != nodes:
            self._move(lie, account=k)
        row["known"] = 1
        if record.traders is None:
            self.traders.pop(record.account, None)
        else:
            self.traders[record.account] = frozenset(record.traders)
        if record.counterparty:
            self.holders[record.account] = record.counterparty
        else:
            self.holders.pop(record.account, None)
        self._states_old = True
        self._forget_nodes()

    def _names_of_account(self, record: Account) -> list[str]:
        """Return the nodes that an account lies under: of its levels, the firm, its dealer and PM, itself."""
        found = [(level, record.under(level)) for level in (*self.levels[:-1], *ACCOUNT_GROUPS)]
        return [FIRM, *(f"{level}:{name}" for level, name in found if name), f"account:{record.account}"]

    def add_instrument(self, record: Instrument) -> None:
        """Take an instrument in: its terms, its collar, its lists."""
        before = self.book.reference.instrument_records.get(record.instrument)
        self.book.add_instrument(record)
        groups, own = groups_of(record), f"instrument:{record.instrument}"
        above = {group: f"{group}:{name}" for group, name in groups.items() if name}
        if not self.state.find_place("instruments", record.instrument, (own, *above.values())):
            return
        row = self.state.instruments[k := self.state.instrument(record.instrument)]
        self._restricted[k], self._last_days[k] = record.restricted, last_trading_day(record).toordinal()
        row["known"], row["shortable"] = 1, record.shortable
        row["restricted"] = record.restricted or self._last_days[k] < self._today
        row["equity"], row["inverse"] = record.asset_class == "equity", record.inverse
        row["positive"] = not record.price_any_sign
        row["tick"] = float(record.price_increment or 0)
        row["age_max_ns"] = STALE_MS_BY_CLASS[record.asset_class] * 1_000_000
        row["prior_close"] = math.nan if record.prior_close is None else float(record.prior_close)
        row["node"] = self.state.node(own)
        row["base_cash"] = record.asset_class == "cash" and record.currency == self.book.market.base_currency
        places = {group: self.state.node(above[group]) if group in above else -1 for group in groups}

        def lie() -> None:
            for group, node in places.items():
                row[group] = node

        if any(row[group] != node for group, node in places.items()):
            self._move(lie, instrument=k)
        self._measure_of(k, record, before)
        self._limit_prices(k, record)
        self._states_old = True
        self._forget_nodes()

    def add_counterparty(self, record: Counterparty) -> None:
        """Take a counterparty's rating in."""
        node = self.state.node(f"counterparty:{record.counterparty}")
        self._base[node, gs.RATING] = record.rating
        self._sum_node(node)

    def remove_counterparty(self, name: str) -> None:
        """Forget a counterparty's rating: nobody has said anything of it."""
        node = self.state.node_index.get(f"counterparty:{name}")
        if node is not None:
            self._base[node, gs.RATING] = math.nan
            self._sum_node(node)

    def set_price(self, instrument: str, bid: float | None, ask: float | None, mid: float | None, last: float | None,
                  ts_ns: int, usable: bool) -> None:
        """Take a mark's prices in; of what there is no place for they are nobody's."""
        if self.state.is_left_out(None, instrument):
            return
        row = self.state.instruments[self.state.instrument(instrument)]
        row["bid"], row["ask"], row["mid"], row["last"] = (math.nan if x is None else x for x in (bid, ask, mid, last))
        row["price_ns"], row["stale"] = ts_ns, not usable
        self.guards.follow(self.state.instrument_index[instrument], mid, last, ts_ns, usable,
                           self.book.reference.instrument_records.get(instrument))

    def refresh(self, now_ns: int) -> None:
        """Bring exposures, rates and sensitivities up to the market as it stands; call it for every mark window."""
        self.book.revalue(now_ns)
        self._measure_all_units()
        self._expire(now_ns)
        self._measure_navs(now_ns)
        self.end_limits(now_ns)
        n = len(self.state.node_names)
        self.state.exposures_ns = self.state.figures_as_of(self.book.snapshot_id, now_ns)
        self.state.nodes["exposure_ns"][:n] = self.state.exposures_ns
        self._forget_var(now_ns)
        self.measure()
        self._sum(np.arange(n))

    def set_var(self, node: str, var: float, ts_ns: int) -> None:
        """Take a node's historical VaR in, in the firm's base currency; NaN: it is not known, or not of all it has."""
        k = self.state.node(node)
        self._base[k, gs.VAR_HIST], self._var_ns[k] = var, ts_ns
        self._sum_node(k)

    def take_var(self, record: Risk) -> None:
        """Take the historical VaR of a node's record in; what leaves positions out is not the node's."""
        measured = (record.models or {}).get("var_hist")
        if measured is not None:
            market = self.book.market
            rate = float(market.rate[market.currency(record.base_currency)])  # limits are in the firm's currency
            whole = measured.get("quality") == "good" and measured.get("var_99") is not None
            self.set_var(record.node, measured["var_99"] * rate if whole else math.nan, record.ts)

    def set_unit_var(self, instruments: Sequence[str], var: Sequence[float], ts_ns: int) -> None:
        """Take in what one unit of instruments alone has as historical VaR: an order adds at most that."""
        index = self.state.instrument_index
        known = [(index[name], x) for name, x in zip(instruments, var, strict=True) if name in index]
        if known:
            places, values = (list(x) for x in zip(*known, strict=True))
            self.state.unit_var[places], self._unit_var_ns[places] = values, ts_ns

    def _forget_var(self, now_ns: int) -> None:
        """Forget VaR that nobody has measured any more; a node without positions has none."""
        self._base[[k for k, ts in self._var_ns.items() if now_ns - ts > VAR_AGE_MAX_NS], gs.VAR_HIST] = math.nan
        self.state.unit_var[now_ns - self._unit_var_ns > VAR_AGE_MAX_NS] = math.nan
        rollup, names = self.book.rollup, self.state.node_names
        limited = [np.isfinite(self.state.nodes[f][: len(names), gs.VAR_HIST]) for f in ("limit", "soft")]
        for k in np.flatnonzero(limited[0] | limited[1]).tolist():
            place = rollup.node_index.get(names[k])
            if place is None or rollup.nodes[place, POSITIONS] == 0.0:
                self._base[k, gs.VAR_HIST] = 0.0

    def positions_hold(self, up_to_ns: int) -> None:
        """Take in up to when positions hold all trades; without it, and 5 s later, every order is refused."""
        self.state.settings["positions_ns"] = up_to_ns

    # ---- states ---------------------------------------------------------------------------------------------------
    def add_control(self, control: Control) -> list[Working]:
        """Take a state in; return the working orders that a kill cancels."""
        if not replaces(control, self.controls.get(control.scope)):
            return []
        self.controls[control.scope] = control
        if control.state == "active" and control.scope in self.state.node_index and control.scope.startswith("trader:"):
            self.attended(self.state.node(control.scope))
        self._states_old = True
        return [w for w in self.working.values() if control.state == "killed" and self._under(w, control.scope)]

    def killed(self) -> list[Working]:
        """Return the working orders under scopes that are killed, whenever they came there."""
        scopes = [scope for scope, control in self.controls.items() if control.state == "killed"]
        return [w for w in self.working.values() if any(self._under(w, scope) for scope in scopes)]

    def _bring_states(self) -> None:
        """Bring states up to where things lie: what came under a halted scope a moment ago is halted."""
        opened = self.state.opened
        if self._states_old or (self.unplaced and opened != self._states_of_nodes):
            found = states_of(self.state, self.controls)
            found.put(self.state)
            self.unplaced, self._states_of_nodes, self._states_old = found.unplaced, opened, False

    def _under(self, w: Working, scope: str) -> bool:
        node = self.state.node_index.get(scope, -1)
        # where its account and its instrument lie by now, not where they did when it was let through
        return scope == "all" or node in w.own or node in self._above(w.account, w.instrument)

    # ---- orders ---------------------------------------------------------------------------------------------------
    def decide(self, order: Order, now_ns: int) -> Verdict:
        """Return the verdict on an order and reserve what it may trade."""
        self._bring_states()
        if order.action == "cancel":
            self._count(order, now_ns)
            return self._cancelled(order)
        replaced = self._replaced(order)
        if order.action == "replace" and replaced is None:
            self._count(order, now_ns)
            return unknown_order(order)
        verdict, asked = self._judge(order, now_ns, replaced)
        if verdict.outcome == "accept":
            self._let_through(order, asked, now_ns, verdict.effect["value"], replaced)
        return verdict

    def _replaced(self, order: Order) -> Working | None:
        """Return what a replace names: a working order of its own account, or nothing."""
        if order.action != "replace":
            return None
        w = self.find(order.ref_order_id or "")
        return w if w is not None and w.order.account == order.account else None

    def _cancelled(self, order: Order, dry: bool = False) -> Verdict:
        """Let a cancel pass that names any order of its account that was ever let through; release what works of it.

        What has ended here may live at its venue: no state, limit or end of an order refuses the cancel of it.
        """
        named = order.ref_order_id or order.order_id
        w = self.find(named)
        own = w is not None and w.order.account == order.account
        if not own and not self.accepted.knows(self.state.account_index.get(order.account, -1), named):
            return unknown_order(order)
        if not dry and (known := self.known(named)) is not None and known.order.account == order.account:
            self.release(named)
        return Verdict("accept", [], [], {}, {})

    def _judge(self, order: Order, now_ns: int, replaced: Working | None, dry: bool = False) -> tuple[Verdict, Asked]:
        """Hold an order against all rules, on a view in which what it replaces does not work.

        ``dry``: it is not counted as a message; else nothing but that changes.
        """
        asked = self._fill(order, now_ns, replaced, dry)
        with self._view_without(replaced):
            inputs = self._inputs.of(asked)
            hard = int(check_order(self._address, 0))
        result, effect = self.state.results[0], effect_of(self.state.effect_of_result)
        beside = self._beside(order, now_ns, replaced, asked)
        if beside:
            inputs["beside"] = {check.name: texts for check, texts in beside.items()}
            hard = with_beside(hard, beside)
        names = (self.state.node_names, self._limit_ids)
        warned, passed = self.state.soft_of_result.item() & ~hard, 0
        if hard and not hard & ~OVERRIDABLE and (
                by := self._override_of(order, effect.get("value", math.nan), now_ns)):
            inputs["override"], passed, hard = by, hard, 0
        reasons = reasons_of(hard, result, order, *names, beside)
        warnings = reasons_of(warned | passed, result, order, *names, hard=passed)
        return Verdict("reject" if hard else "accept", reasons, warnings, effect, inputs), asked

    def _let_through(self, order: Order, asked: Asked, now_ns: int, value: float, replaced: Working | None) -> None:
        """Let an order work in the place of what it replaces: what could fail comes before the first change."""
        row, asked = self.state.position_of_result.item(), self._open_names(order, asked)
        if replaced is None:
            w = self._working(order, asked, now_ns, row=row)
        else:
            before = replaced.order
            earlier = tuple(k for k in (*replaced.earlier, before.order_id) if k != order.order_id)
            w = self._working(order, asked, now_ns, replaced.executed, earlier, row)
            self._reserve(replaced, -1.0)
            self._drop(replaced)
        self._take_up(w)
        self.recent.add(asked.order_key(), now_ns)
        self.accepted.add(w.account, order.order_id)
        self.count_day(w, value, replaced=0.0 if replaced is None else float(replaced.order.whole))

    def _beside(self, order: Order, now_ns: int, replaced: Working | None,
                asked: Asked) -> dict[Check, tuple[str, str]]:
        """Return what the kernel cannot see: (measured, limit) of an id in use, an end that is past, no room."""
        found: dict[Check, tuple[str, str]] = {}
        if (wrong := wrong_terms(order, self.book.reference.instrument_records.get(order.instrument))) is not None:
            found[Check.INVALID_ORDER] = wrong
        if replaced is not None:
            was, kept = replaced.order, ("instrument", "side")
            if any(getattr(order, f) != getattr(was, f) for f in kept):
                found[Check.INVALID_ORDER] = (" ".join(getattr(order, f) for f in kept),
                                              " ".join(getattr(was, f) for f in kept))
        is_own = replaced is not None and order.order_id in (replaced.order.order_id, *replaced.earlier)
        if not is_own and (self.current_id(order.order_id) is not None or self._was_executed(order)):
            found[Check.DUPLICATE_ORDER] = (order.order_id, "an id that is not in use")
        if order.time_in_force == "gtd":
            try:
                past = end_of(order, now_ns, self.day) <= now_ns
            except (ValueError, ArithmeticError):
                past = True  # no time, or one that no clock of this system reaches
            if past:
                found[Check.INVALID_ORDER] = (str(order.expire_ts), "expire_ts: a time to come")
        if (full := self.no_room(order, asked)) is not None:
            found[Check.NO_ROOM] = full
        if (old := too_old(self, order, asked, replaced, now_ns)) is not None:
            found[Check.STALE_PRICE] = old
        try:
            parse_ts_ns(order.ts_event, latest_ns=now_ns + self.future_ns)
        except ValueError as error:
            found[Check.INVALID_ORDER] = (str(order.ts_event)[:SHOWN], str(error))
        return found

    def _override_of(self, order: Order, value: float, now_ns: int) -> str | None:
        """Return which override lets one order pass its limits: by two people, up to a value, until it ends."""
        found = self.limits.get(f"order:{order.order_id}~override")
        if found is None or found.metric != "override" or not by_two(found) or not value <= found.limit or (
                found.until is None or parse_ts_ns(found.until) <= now_ns):
            return None
        return found.limit_id

    def names_above(self, order: Order) -> list[str]:
        """Return the names of all nodes an order lies under."""
        names = [name for name in self._names_of(order) if name] + [f"instrument:{order.instrument}"]
        instrument = self.book.reference.instrument_records.get(order.instrument)
        if instrument is not None:
            names += [f"{group}:{name}" for group, name in groups_of(instrument).items() if name]
        account = self.book.reference.account_records.get(order.account)
        return names + ([FIRM, f"account:{order.account}"] if account is None else self._names_of_account(account))

    def check(self, order: Order, now_ns: int) -> Verdict:
        """Return what `decide` would say, and leave everything as it was."""
        self._bring_states()
        if order.action == "cancel":
            return self._cancelled(order, dry=True)
        replaced = self._replaced(order)
        if order.action == "replace" and replaced is None:
            return unknown_order(order)
        return self._judge(order, now_ns, replaced, dry=True)[0]

    def _count(self, order: Order, now_ns: int) -> None:
        """Count a cancel, or a replace of nothing, in the message windows: it is a message."""
        if self.state.rate_count:
            self._count_asked(self._fill(order, now_ns), now_ns, 0.0)

    def _count_asked(self, asked: Asked, ts_ns: int, value: float) -> None:
        s = self.state
        if asked.account < 0 or asked.instrument < 0 or not s.rate_count:
            return
        nodes = self._position_nodes(asked.account, asked.instrument) + asked.own_nodes()
        for rate in s.nodes["rates"][nodes].ravel().tolist():
            if rate >= 0:
                count_message(s.rates[rate], ts_ns, value)

    def looked_ns(self) -> dict[str, int]:
        """Return by scope when a person made it active."""
        return {k: parse_ts_ns(c.ts) for k, c in self.controls.items() if c.state == "active"}

    def recount(self, past: Sequence[Decision], now_ns: int, replaced: Mapping[str, float],
                recent: Sequence[Decision] = ()) -> None:
        """Count what a log says was decided: message windows, and the day's sums, as if there had been no restart.

        ``replaced``: by the id of an order that replaced another, the quantity of that one. ``recent``: what counts in
        windows only.
        """
        looked_ns = self.looked_ns()
        counted = {id(d) for d in recent}
        for d in sorted((*recent, *past), key=lambda d: d.ts_decision):
            if d.order is None:
                continue
            asked = self._fill(d.order, d.ts_decision)
            if asked.account < 0 or asked.instrument < 0:
                continue
            if d.outcome != "cancel":
                if d.outcome == "accept" and d.order.action != "cancel":
                    self.recent.add(asked.order_key(), d.ts_decision)
                self._count_asked(asked, d.ts_decision, d.effect.get("value", 0.0))
            if id(d) in counted or d.outcome != "accept" or d.order.action == "cancel":
                continue
            if d.ts_decision >= self.day.begin_ns(now_ns):
                asked = self._open_names(d.order, asked)
                looked = d.ts_decision < looked_ns.get(f"trader:{d.order.trader}", 0)
                w = self._working(d.order, asked, d.ts_decision)
                value = d.effect.get("value", asked.quantity * w.gross)
                self.count_day(w, value, replaced=replaced.get(d.order_id, 0.0), attended=looked)

    def _expire(self, now_ns: int) -> None:
        """Take out what has expired; with the day, what was for the day, and daily sums begin anew."""
        self._end_orders(now_ns)
        while self._names_end_ns and self._names_end_ns[0] <= now_ns:
            del self._names_end_ns[0]
            end_names(self)
        day = self.day.index(now_ns)
        if day == self.sums_of_day:
            return
        self.sums_of_day = day
        self._names_end_ns = [now_ns + after for after in LOOKED_THROUGH_NS]
        self.guards.end_tests(now_ns)
        for order_id in [k for k, w in self.working.items() if w.expires_ns <= now_ns]:
            self.release(order_id)
        for order_id in [k for k, w in self.done.items() if w.expires_ns <= now_ns]:
            self.forget_done(order_id)
        self._begin_day()
        self._today = self.day.date_of(now_ns).toordinal()
        self.state.instruments["restricted"] = self._restricted | (self._last_days < self._today)
