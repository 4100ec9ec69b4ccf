"""What the gateway knows, by sequence number: ladder rows and nodes, facts, feeds.

State is conflated: every row keeps the sequence number of its last change, and a client's frame is what changed since
the number it has. Facts are never dropped: they are kept in a ring and sent to each client in order.
"""

from __future__ import annotations

import logging
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from app.gateway.approvals import Approvals
from app.gateway.events import alert_event
from models import rollup as ru
from models.columns import grown
from models.ladder import DELTA, NO_GREEKS, LadderLines
from models.reference import FIRM
from models.trading_day import TradingDay
from models.valued_book import ValuedBook
from schemas.codec import decoder_of
from schemas.nodes import Risk
from schemas.records import Alert, Control, Limit, Position

LADDER_ROWS_MAX = 5_000
FACTS_KEPT = 10_000
#: alerts of a state that lasts, until it clears
STANDING = ("approach", "breach", "stale", "reconciliation", "worker_down")
LADDER_COLUMNS = ("id", "inst", "book", "desk", "qty", "avg", "mid", "mv", "upnl", "rpnl", "fees", "ccy", "q", "px_t",
                  "trade_t", *ru.GREEKS)
NODE_COLUMNS = ("id", "level", "ccy", "realised", "unrealised", "day", "fees", "total", "gross", "net", "long", "short",
                "positions", "unpriced", "stale", "q", "qty", "snapshot_id", "t", "delta", "gamma", "vega", "theta",
                "rho", "var_99", "es_97_5")
GOOD, STALE, PARTIAL, BAD = 0, 1, 2, 3
encode_json = msgspec.json.encode
log = logging.getLogger(__name__)
_risk = decoder_of(Risk)


@dataclass
class Fact:
    """An event that is never conflated."""

    seq: int
    event: str
    data: dict[str, Any]


@dataclass
class Groups:
    """Ladder lines: the accounts of one book in one instrument, added up."""

    index: dict[tuple[str, str], int] = field(default_factory=dict)
    id: list[str] = field(default_factory=list)
    instrument: list[str] = field(default_factory=list)
    book: list[str] = field(default_factory=list)
    desk: list[str] = field(default_factory=list)
    currency: list[str] = field(default_factory=list)
    nodes: list[frozenset[str]] = field(default_factory=list)


class GatewayState:
    """Everything a client can ask for."""

    def __init__(self, base_currency: str, levels: tuple[str, ...], trading_day: TradingDay | None = None) -> None:
        self.epoch = uuid.uuid4().hex[:8]
        self.seq = 1
        self.levels = levels
        self.book = ValuedBook(base_currency, levels, trading_day)
        self.groups = Groups()
        self.lines = LadderLines()
        self.group_seq = np.zeros(0, np.int64)
        #: when a trade last changed a line
        self.group_traded = np.zeros(0, np.int64)
        self.nodes: dict[str, tuple[int, list[Any]]] = {}
        self._node_risks: dict[str, Risk] = {}
        #: accounts nobody has asked for: there are many, and they all move with every window
        self._unread: dict[str, bytes] = {}
        self._asked: set[str] = set()
        self.limits: dict[str, Limit] = {}
        self.controls: dict[str, Control] = {}
        self.approvals = Approvals()
        self.alerts: dict[str, Alert] = {}
        self._open: dict[tuple[str, str, str, str], Alert] = {}
        self._models: dict[str, tuple[int, bytes]] = {}
        self._terms_key = (-1, -1)
        self._group_terms = (np.zeros(0, np.int64), np.zeros(0), np.zeros(0, bool))
        self._changed_nodes: set[str] = set()
        self.facts: deque[Fact] = deque(maxlen=FACTS_KEPT)
        self._scopes: dict[str, tuple[int, np.ndarray]] = {}
        self.last_trade_ms = 0
        self.last_mark_ns = 0

    # ---- what comes in --------------------------------------------------------------------------------------------
    def add_position(self, position: Position, shard: int) -> None:
        """Take a position row in."""
        row = self.book.add_position(position, shard)
        if row >= 0:
            self._place(row)

    def add_positions(self, values: Sequence[bytes | None], shard: int) -> list[tuple[int, str]]:
        """Take a slice of the `positions` topic in; return what was refused, and why."""
        taken = self.book.add_positions(values, shard)
        if len(taken.rows):
            self.lines.trade_t[taken.rows] = taken.ts_source
            self.last_trade_ms = max(self.last_trade_ms, int(taken.ts_source.max()))
        for _, row in taken.filled:
            self._place(row)
        return taken.refused

    def _place(self, row: int) -> None:
        """Put a row into its line of the ladder."""
        position = self.book.positions[row]
        self.lines.put(row, self._group(position), position.ts_source)
        self.last_trade_ms = max(self.last_trade_ms, position.ts_source)

    def _group(self, position: Position) -> int:
        groups, key = self.groups, (position.book, position.instrument)
        index = groups.index.get(key)
        if index is None:
            index = groups.index[key] = len(groups.instrument)
            groups.id.append(f"{position.desk}|{position.book}|{position.instrument}")
            groups.instrument.append(position.instrument)
            groups.book.append(position.book)
            groups.desk.append(position.desk)
            groups.currency.append(position.currency)
            names = {FIRM}
            for level in self.levels[:-1]:
                value = getattr(position, level, None)
                if value:
                    names.add(f"{level}:{value}")
            groups.nodes.append(frozenset(names))
        return index

    def add_models(self, node: str, raw: bytes) -> None:
        """Take a node's models in, as they are: nobody looks at most of them."""
        self._models[node] = (self.seq + 1, raw)

    def models_since(self, node: str, seq: int) -> tuple[int, Risk] | None:
        """Return a node's models if they came after a sequence number, with their own."""
        held = self._models.get(node)
        if held is None or held[0] <= seq:
            return None
        try:
            return held[0], _risk.decode(held[1])
        except msgspec.DecodeError as error:
            log.error("models of %s refused: %s", node, error)
            del self._models[node]
            return None

    def take_risk(self, key: str, value: bytes) -> None:
        """Take a node's record in; one that nobody looks at stays as it came."""
        if key.startswith("account:") and key not in self._asked:
            self._unread[key] = value
        else:
            self.add_risk(_risk.decode(value))

    def _ask(self, node: str) -> None:
        """Read a node's record, and every later one."""
        value = self._unread.pop(node, None)
        if value is not None:
            self._asked.add(node)
            try:
                self.add_risk(_risk.decode(value))
            except msgspec.DecodeError as error:
                log.error("risk of %s refused: %s", node, error)
            else:
                self.nodes[node] = (self.seq, node_row(self._node_risks[node]))

    def add_risk(self, risk: Risk) -> None:
        """Take a node in; what is older than what is known says nothing."""
        old = self._node_risks.get(risk.node)
        if old is not None and old.ts > risk.ts:
            return
        self._node_risks[risk.node] = risk
        self._changed_nodes.add(risk.node)

    def add_fact(self, event: str, data: dict[str, Any]) -> None:
        """Keep a fact for every client."""
        self.seq += 1
        self.facts.append(Fact(self.seq, event, data | {"seq": self.seq}))

    def add_alert(self, alert: Alert) -> None:
        """Take an alert in: what stands is open until it clears, what only happened until a person has seen it."""
        lasts = alert.kind in STANDING
        key = ("" if lasts or alert.kind == "clear" else alert.kind, alert.limit_id or alert.alert_id, alert.node,
               alert.metric)
        self.alerts[alert.alert_id] = alert
        if alert.kind == "clear" or (alert.ack_by is not None and not lasts):
            self._open.pop(key, None)
        else:
            self._open[key] = alert
        while len(self.alerts) > FACTS_KEPT:
            del self.alerts[next(iter(self.alerts))]
        self.add_fact("alert", alert_event(alert))

    def open_alerts(self) -> list[Alert]:
        """Return what stands, and what nobody has seen, the oldest first."""
        return list(self._open.values())

    # ---- one turn -------------------------------------------------------------------------------------------------
    def turn(self) -> int:
        """Value what changed, give changed rows the next sequence number; return how many there are."""
        valued = self.book.revalue(self.last_mark_ns or None)
        seq = self.seq + 1
        changed = self._turn_ladder(valued, seq)
        for name in self._changed_nodes:
            self.nodes[name] = (seq, node_row(self._node_risks[name]))
        changed += len(self._changed_nodes)
        self._changed_nodes.clear()
        if changed:
            self.seq = seq
        return changed

    def _turn_ladder(self, valued: np.ndarray, seq: int) -> int:
        moved, traded = self.lines.add_up(valued, self.book.rollup)
        if len(self.group_seq) < len(self.groups.instrument):
            n = len(self.groups.instrument)
            self.group_seq, self.group_traded = grown(self.group_seq, n), grown(self.group_traded, n)
        self.group_seq[moved] = seq
        self.group_traded[moved[traded]] = seq
        return len(moved)

    # ---- what goes out --------------------------------------------------------------------------------------------
    def _in_scope(self, scope: str) -> np.ndarray:
        n = len(self.groups.instrument)
        cached = self._scopes.get(scope)
        if cached is None or cached[0] != n:
            mask = np.fromiter((scope in nodes for nodes in self.groups.nodes), bool, n)
            cached = self._scopes[scope] = (n, np.flatnonzero(mask))
        return cached[1]

    def ladder(self, scope: str, since: int, traded: bool = False) -> tuple[list[list[Any]], int]:
        """Return (rows of a scope changed since a sequence number, or by trades alone, how many rows it has)."""
        groups = self._in_scope(scope)
        groups = groups[groups < len(self.group_seq)]
        total = len(groups)
        if total > LADDER_ROWS_MAX:
            size = np.abs(self.lines.values[groups, 1])
            groups = groups[np.argsort(-size)[:LADDER_ROWS_MAX]]
        groups = groups[(self.group_traded if traded else self.group_seq)[groups] > since]
        return self._ladder_rows(groups), total

    def _terms(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return by group: the instrument's place in the market, its multiplier (NaN: not known), whether inverse."""
        key = (len(self.groups.instrument), self.book.reference.version)
        if self._terms_key != key:
            records = [self.book.reference.instrument_records.get(name) for name in self.groups.instrument]
            self._group_terms = (
                np.array([self.book.market.instruments[name] for name in self.groups.instrument], np.int64),
                np.array([np.nan if r is None else float(r.multiplier * (r.quanto_rate or 1)) for r in records]),
                np.array([r is not None and r.inverse for r in records], bool))
            self._terms_key = key
        return self._group_terms

    def _ladder_rows(self, which: np.ndarray) -> list[Any]:
        values = self.lines.values[which].T
        qty, mv, upnl, rpnl, bad, stale, fees, trade_t = values[:DELTA]
        index, multiplier, inverse = (a[which] for a in self._terms())
        mid, known = self.book.market.mid[index], bad == 0
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = upnl / (qty * multiplier)
            average = np.where(inverse, 1.0 / (moved + 1.0 / mid), mid - moved)
        g, k = self.groups, which.tolist()
        quality = np.where(known, np.where(stale != 0, STALE, GOOD), BAD).tolist()
        as_of = int(self.book.snapshot_id // 1_000_000)
        return list(zip([g.id[i] for i in k], [g.instrument[i] for i in k], [g.book[i] for i in k],
                        [g.desk[i] for i in k], qty.tolist(), _or_none(average, known & np.isfinite(average)),
                        _or_none(mid, np.isfinite(mid)), _or_none(mv, known),
                        _or_none(upnl, known & ~np.isnan(upnl)), _or_none(rpnl, ~np.isnan(rpnl)),
                        _or_none(fees, ~np.isnan(fees)), [g.currency[i] for i in k], quality, [as_of] * len(k),
                        trade_t.astype(np.int64).tolist(), *self._greeks(values, index, known), strict=True))

    def _greeks(self, values: np.ndarray, index: np.ndarray, known: np.ndarray) -> list[list[float | None]]:
        """Return the columns of cash Greeks: what has no optionality has a delta, its value, and no others."""
        known = known & (values[NO_GREEKS] == 0)
        optional = known & (self.book.market.greek_kind[index] != 0)
        return [_or_none(values[DELTA + k], optional if k else known) for k in range(5)]

    def valued(self, row: int) -> dict[str, Any]:
        """Return a position with its value and cash Greeks on the present snapshot, in the firm's base currency."""
        position, c = self.book.positions[row], self.book.rollup.contribution[row]
        priced, greeks = c[ru.UNPRICED] == 0, c[ru.UNPRICED] == 0 and c[ru.NO_GREEKS] == 0
        mid, _, unrealised = self.book.rollup.own[row].tolist()
        return msgspec.to_builtins(position) | {
            "mid": mid if mid == mid else None, "unrealised_pnl": unrealised if unrealised == unrealised else None,
            "market_value": float(c[ru.NET]) if priced else None, "base_currency": self.book.market.base_currency,
            "greeks": {g: float(c[ru.DELTA + k]) if greeks else None for k, g in enumerate(ru.GREEKS)},
            "expected_funding_per_day": self.book.expected_funding_per_day(row),
            "quality": "unpriced" if not priced else "stale" if c[ru.STALE] else "good",
            "snapshot_id": self.book.snapshot_id}

    def node_rows(self, since: int, scope: str | None = None) -> list[list[Any]]:
        """Return the nodes changed since a sequence number (accounts only where one is the scope)."""
        if scope is not None:
            self._ask(scope)
        return [row for name, (seq, row) in self.nodes.items()
                if seq > since and (not name.startswith("account:") or name == scope)]

    def risk(self, node: str) -> Risk | None:
        """Return a node's latest record."""
        self._ask(node)
        return self._node_risks.get(node)

    def rows_under(self, scope: str) -> np.ndarray:
        """Return the rows of positions under a node."""
        level, _, name = scope.partition(":")
        if scope == FIRM or level in self.levels:
            return self.lines.rows_in(self._in_scope(scope), self.book.rollup.count)
        return np.array([k for k, p in enumerate(self.book.positions) if getattr(p, level, None) == name], np.int64)

    def children(self, node: str) -> list[str]:
        """Return the nodes one level below a node."""
        chain = list(self.levels)
        level = FIRM if node == FIRM else node.partition(":")[0]
        if level not in chain or chain.index(level) == 0:
            return []
        below = chain[chain.index(level) - 1]
        return sorted({n for nodes in self.groups.nodes if node in nodes for n in nodes if n.startswith(f"{below}:")})


def _or_none(values: np.ndarray, known: np.ndarray) -> list[float | None]:
    out: list[float | None] = values.tolist()
    for k in np.flatnonzero(~known).tolist():
        out[k] = None
    return out


def node_row(risk: Risk) -> list[Any]:
    """Return a node as a row of the stream."""
    quality = PARTIAL if risk.quality.unpriced or risk.quality.pnl_unknown else STALE if risk.quality.stale else GOOD
    return [risk.node, risk.node.partition(":")[0], risk.base_currency, risk.pnl.realised, risk.pnl.unrealised,
            risk.pnl.day, risk.pnl.fees, risk.pnl.total, risk.exposure.gross, risk.exposure.net, risk.exposure.long,
            risk.exposure.short, risk.exposure.positions, risk.quality.unpriced, risk.quality.stale, quality,
            risk.quantity, risk.snapshot_id, risk.ts // 1_000_000,
            *((risk.greeks or {}).get(g) for g in ru.GREEKS),
            *((risk.models or {}).get("var_hist", {}).get(v) for v in ("var_99", "es_97_5"))]

