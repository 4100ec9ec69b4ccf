"""The limits a gate holds: which of several is in force, and where in the gate's columns it is checked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from models.gate import state as gs
from models.gate.figures import MEASURED_WHERE_LIMITED, GateFigures
from models.gate.limit_nodes import COLLARS, PRICE_METRICS, check_limit
from models.gate.price_drift import DRIFT_WINDOW_NS
from models.gate.price_guards import PriceGuards
from models.gate.state import MESSAGE_METRICS, GateState
from models.limits import POSITION_METRICS, LimitKey, key_of
from models.limits_in_force import end_of, in_force
from models.node_shares import SHARE_METRICS
from models.trading_day import TradingDay
from models.valued_book import ValuedBook
from schemas.records import Instrument, Limit
from schemas.units import parse_ts_ns

CLASSES = tuple(COLLARS)
MODES = ("hard", "soft")


class GateLimits(GateFigures):
    """Every limit in force is held by itself: of a node and a metric the tightest hard and the tightest soft one."""

    def __init__(self, book: ValuedBook, state: GateState, day: TradingDay) -> None:
        super().__init__(book, state, day)
        self.levels = book.levels
        self.limits: dict[str, Limit] = {}
        self.limits_version = 0
        self._by_key: dict[LimitKey, dict[str, Limit]] = {}
        self._limit_ids: dict[tuple[float, ...], str] = {}
        self._temporary: dict[str, int] = {}
        #: up to when temporary limits were ended
        self.ended_ns = 0
        #: rows of positions that have a limit of their own: few of many
        self.limited_positions: set[int] = set()
        instruments = len(state.instruments)
        self._class = np.zeros(instruments, np.int64)
        # of each: collar in basis points and in ticks, drift in basis points, its window, then the same of soft limits;
        # NaN: the next one holds
        self._own_prices = np.full((8, instruments), math.nan)
        self._class_prices = np.full((8, len(CLASSES)), math.nan)
        self._firm_prices = np.full(8, math.nan)
        self.guards = PriceGuards(state, day)

    # ---- which is in force ----------------------------------------------------------------------------------------
    def add_limit(self, limit: Limit) -> None:
        """Take a limit in; a newer version replaces an older one.

        Raises
        ------
        ValueError
            The limit is no number, or it is on a node, an instrument or a window that such a limit cannot be on.
        """
        check_limit(limit, self.levels)
        held = self.limits.get(limit.limit_id)
        if held is not None and held.version > limit.version:
            return
        if limit.metric in MESSAGE_METRICS:
            self.state.window(self.state.node(limit.node), key_of(limit).window_ms * 1_000_000)
        if held is not None:
            self._take_away(held)
        self.limits[limit.limit_id] = limit
        self.limits_version = max(self.limits_version, limit.version)
        if limit.until is not None and limit.metric != "override":
            self._temporary[limit.limit_id] = parse_ts_ns(limit.until)
        self._by_key.setdefault(key_of(limit), {})[limit.limit_id] = limit
        if held is not None and key_of(held) != key_of(limit):
            self._apply(held)
        self._apply(limit)

    def _take_away(self, limit: Limit) -> None:
        self._temporary.pop(limit.limit_id, None)
        self._by_key[key_of(limit)].pop(limit.limit_id, None)

    def remove_limit(self, limit_id: str) -> None:
        """Take a limit away."""
        limit = self.limits.pop(limit_id, None)
        if limit is not None:
            self._take_away(limit)
            self._apply(limit)

    def end_limits(self, now_ns: int) -> None:
        """End the temporary limits whose time is over; the ones they stood for come back."""
        self.ended_ns = now_ns
        for limit_id in [k for k, until in self._temporary.items() if until <= now_ns]:
            del self._temporary[limit_id]
            self._apply(self.limits[limit_id])

    def limited(self) -> list[LimitKey]:
        """Return what there are limits on."""
        return [key for key, held in self._by_key.items() if held]

    def _in_force(self, key: LimitKey, mode: str) -> Limit | None:
        """Return the limit of a mode that is held: the tightest in force."""
        found = [(x, end_of(x)) for x in self._by_key.get(key, {}).values() if x.mode == mode]
        return min(in_force(found, self.ended_ns)[0], key=lambda x: x.limit, default=None)

    # ---- where it is checked --------------------------------------------------------------------------------------
    def _apply(self, limit: Limit) -> None:
        """Set what is in force now where a limit is, or was, checked."""
        key = key_of(limit)
        for mode in MODES:
            self._apply_mode(key, self._in_force(key, mode), soft=mode == "soft")

    def _apply_mode(self, key: LimitKey, chosen: Limit | None, soft: bool) -> None:
        node, metric, _, instrument = key
        value = math.nan if chosen is None else float(chosen.limit)
        if metric in POSITION_METRICS:
            name = node.partition(":")[2]
            if self.state.is_left_out(name, instrument):
                return  # orders for it are refused
            place = self.state.position_row(self.state.account(name), self.state.instrument(instrument))
            row, side = self.state.positions[place], "long" if metric == "position_long" else "short"
            row[f"soft_{side}" if soft else f"{side}_limit"] = value
            free = all(math.isnan(row[f]) for f in ("long_limit", "short_limit", "soft_long", "soft_short"))
            (self.limited_positions.discard if free else self.limited_positions.add)(place)
        elif metric in MESSAGE_METRICS:
            self._apply_window(key, chosen, soft)
        elif metric in PRICE_METRICS:
            self._apply_prices(node, metric, value, chosen, soft)
        elif metric in SHARE_METRICS and not node.startswith(tuple(SHARE_METRICS.values())):
            self._apply_shares(node, SHARE_METRICS[metric], chosen, soft)
        elif metric in gs.METRICS:
            self.state.set_limit(node, metric, value, soft)
            self._name((self.state.node(node), gs.METRICS.index(metric), soft), chosen)
            if metric in MEASURED_WHERE_LIMITED:
                self._measure_where_limited(node, metric)

    def _measure_where_limited(self, node: str, metric: str) -> None:
        row, m = self.state.nodes[self.state.node(node)], gs.METRICS.index(metric)
        known = bool(self._measured)
        limited = not (math.isnan(row["limit"][m]) and math.isnan(row["soft"][m]))
        (self._measured.add if limited else self._measured.discard)((node, metric))
        if not known and limited:  # once there is one, it is measured of all nodes
            self.measure()

    def _name(self, key: tuple[float, ...], chosen: Limit | None) -> None:
        self._limit_ids.pop(key, None)
        if chosen is not None:
            self._limit_ids[key] = chosen.limit_id

    def _apply_window(self, key: LimitKey, chosen: Limit | None, soft: bool) -> None:
        state, at, m = self.state, gs.METRICS.index(key.metric), MESSAGE_METRICS.index(key.metric)
        k, window = state.node(key.node), state.window(state.node(key.node), key.window_ms * 1_000_000)
        self._limit_ids.pop((k, at, soft, float(state.rates["soft" if soft else "limit"][window, m])), None)
        value = math.nan if chosen is None else float(chosen.limit)
        state.set_rate_limit(key.node, key.metric, key.window_ms * 1_000_000, value, soft)
        if chosen is not None:
            self._limit_ids[k, at, soft, value] = chosen.limit_id

    # ---- shares of one issuer or sector ---------------------------------------------------------------------------
    def _apply_shares(self, node: str, group: str, chosen: Limit | None, soft: bool) -> None:
        key = self.state.node(node), group
        held = self.share_limits.get(key, (None, None))
        new = held == (None, None) and chosen is not None
        held = (held[0], chosen) if soft else (chosen, held[1])
        if held == (None, None):
            self.share_limits.pop(key, None)
        else:
            self.share_limits[key] = held
        for (above, within), share in self.shares.items():
            if above == key[0] and self.state.node_names[within].startswith(group):
                self._limit_share(share, held)
        if new:
            self._forget_nodes()
            for account, instrument in {*self.of_position, *self._held}:
                self.hold_position(account, instrument)

    def _limit_share(self, share: int, held: tuple[Limit | None, Limit | None]) -> None:
        for soft, chosen in enumerate(held):
            value = math.nan if chosen is None else float(chosen.limit)
            self.state.set_limit(self.state.node_names[share], "concentration", value, bool(soft))
            self._name((share, gs.CONCENTRATION, soft), chosen)

    def share_nodes(self, account: int, instrument: int) -> list[int]:
        """Return the nodes of what an account's nodes have in an instrument's issuer or sector; open those limited."""
        found = self._shares_above.get((account, instrument))
        if found is None:
            i, nodes = self.state.instruments[instrument], self.state.accounts["nodes"][account].tolist()
            pairs = [(n, int(i[of[:-1]]), held) for n in nodes if n >= 0 for of in SHARE_METRICS.values()
                     if (held := self.share_limits.get((n, of))) is not None and i[of[:-1]] >= 0]
            known = len(self.shares)
            found = [n for above, within, held in pairs if (n := self._open_share(above, within, held)) >= 0]
            if len(found) == len(pairs):
                self._shares_above[account, instrument] = found
            (self.unshared.discard if len(found) == len(pairs) else self.unshared.add)((account, instrument))
            if len(self.shares) > known:
                self.measure()
        return found

    def _open_share(self, above: int, within: int, held: tuple[Limit | None, Limit | None]) -> int:
        share = self.shares.get((above, within))
        if share is None:
            names, nodes = self.state.node_names, self.state.nodes
            share = self.state.standing_node(f"{names[above]}/{names[within]}")
            if share < 0:
                return share
            self.shares[above, within] = share
            nodes["nav"][share] = nodes["nav"][above]
            self._limit_share(share, held)
        return share

    # ---- prices ---------------------------------------------------------------------------------------------------
    def _limit_prices(self, k: int, record: Instrument) -> None:
        """Set the collar and the drift of an instrument that is new, or has another asset class by now."""
        self._class[k] = CLASSES.index(record.asset_class)
        self._set_prices(np.array([k]))

    def _apply_prices(self, node: str, metric: str, value: float, chosen: Limit | None, soft: bool) -> None:
        level, _, name = node.partition(":")
        if level == "instrument" and self.state.is_left_out(None, name):
            return
        held: Any = (self._own_prices[:, self.state.instrument(name)] if level == "instrument"
                     else self._class_prices[:, CLASSES.index(name)] if level == "asset_class" else self._firm_prices)
        at = 4 if soft else 0
        held[at + PRICE_METRICS.index(metric)] = value
        if metric == "price_drift":
            held[at + 3] = math.nan if chosen is None or chosen.window_ms is None else chosen.window_ms * 1_000_000
        self._set_prices(np.arange(len(self._class)))

    def _set_prices(self, which: np.ndarray) -> None:
        """Set collars and drifts: the nearest hard one or what is usual, and beside it the nearest soft one."""
        rows, none = self.state.instruments, [math.nan] * len(CLASSES)
        window = [float(DRIFT_WINDOW_NS)] * len(CLASSES)
        defaults = ([bps for bps, _ in COLLARS.values()], [ticks for _, ticks in COLLARS.values()],
                    [0.0] * len(CLASSES), window, none, none, none, window)
        (rows["collar_bps"][which], rows["collar_ticks"][which], rows["drift_bps"][which], hard_window,
         rows["soft_bps"][which], rows["soft_ticks"][which], rows["soft_drift"][which], soft_window) = (
            self._nearest(which, *levels) for levels in zip(defaults, self._own_prices, self._class_prices,
                                                            self._firm_prices, strict=True))
        self.guards.reset(which, hard_window, soft_window)

    def _nearest(self, which: np.ndarray, default: list[float], own: np.ndarray, by_class: np.ndarray,
                 firm: float) -> np.ndarray:
        """Return what holds for instruments: their own, their class's, the firm's, or what is usual in their class."""
        of_class = np.where(np.isnan(by_class), default if np.isnan(firm) else firm, by_class)[self._class[which]]
        return np.where(np.isnan(own[which]), of_class, own[which])
