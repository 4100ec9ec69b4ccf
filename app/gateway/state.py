"""What the gateway knows, by sequence number: ladder rows and nodes, facts, feeds.

State is conflated: every row keeps the sequence number of its last change, and a client's frame is what changed since
the number it has. Facts are never dropped: they are kept in a ring and sent to each client in order.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import msgspec
import numpy as np

from app.gateway.approvals import Approvals
from app.gateway.events import alert_event, standing
from app.gateway.lines import Lines, ScopeLines
from app.gateway.sight import Sight, Sights
from models import rollup as ru
from models.gate.limit_nodes import check_limit
from models.known_nodes import KnownNodes
from models.ladder import AVERAGE, DELTA, NO_GREEKS, PRICE, ROWS
from models.reference import FIRM
from models.trading_day import TradingDay
from models.trading_states import StandingStates
from models.valued_book import ValuedBook
from schemas.codec import decoder_of
from schemas.nodes import MODELS_SUFFIX, Risk
from schemas.records import Account, Alert, Control, Instrument, Limit, Position

FACTS_KEPT = 10_000
#: alerts of a state that lasts, until it clears
STANDING = ("approach", "breach", "stale", "reconciliation", "worker_down")
LADDER_COLUMNS = ("id", "inst", "book", "desk", "qty", "avg", "mid", "mv", "upnl", "rpnl", "fees", "ccy", "q", "px_t",
                  "trade_t", *ru.GREEKS)
NODE_COLUMNS = ("id", "level", "ccy", "realised", "unrealised", "day", "fees", "total", "gross", "net", "long", "short",
                "positions", "unpriced", "stale", "q", "qty", "snapshot_id", "t", "delta", "gamma", "vega", "theta",
                "rho", "var_99", "es_97_5", "pnl_unknown", "without_rate")
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


class GatewayState:
    """Everything a client can ask for."""

    def __init__(self, base_currency: str, levels: tuple[str, ...], trading_day: TradingDay | None = None,
                 surface_age_ns: int | None = None) -> None:
        self.epoch = uuid.uuid4().hex[:8]
        self.seq = 1
        self.levels = levels
        self.book = ValuedBook(base_currency, levels, trading_day, surface_age_ns)
        self.lines = Lines(levels, self.book)
        self.sights = Sights(self.book.reference.account_records, levels, lambda: self.seq)
        self.nodes: dict[str, tuple[int, list[Any]]] = {}
        self._node_risks: dict[str, Risk] = {}
        #: nodes whose records were withdrawn, and the number of it
        self._ended: dict[str, int] = {}
        self._ending: set[str] = set()
        #: accounts nobody has asked for: there are many, and they all move with every window
        self._unread: dict[str, bytes] = {}
        self._asked: set[str] = set()
        self.limits: dict[str, Limit] = {}
        self.states = StandingStates(levels)
        self.controls: dict[str, Control] = self.states.standing
        self.known_nodes = KnownNodes(self.book.reference, levels)
        self.approvals = Approvals()
        self.alerts: dict[str, Alert] = {}
        self._open: dict[tuple[str, str, str, str], Alert] = {}
        self._models: dict[str, tuple[int, bytes]] = {}
        self._models_seen = 0
        self._group_places = np.zeros(0, np.int64)
        self._changed_nodes: set[str] = set()
        self.facts: deque[Fact] = deque()
        #: of the newest fact that is not kept any more
        self.facts_floor = 0
        #: of the last turn that changed a row, and how many turns there were
        self.rows_seq = self.turns = 0
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
            self.lines.traded_at(taken.rows, taken.ts_source)
            self.last_trade_ms = max(self.last_trade_ms, int(taken.ts_source.max()))
        for _, row in taken.filled:
            self._place(row)
        return taken.refused

    def _place(self, row: int) -> None:
        """Put a row into its line of the ladder."""
        self.lines.place(row)
        self.last_trade_ms = max(self.last_trade_ms, self.book.positions[row].ts_source)

    def add_instrument(self, instrument: Instrument) -> None:
        """Take an instrument in; its rows may lie under another issuer or sector."""
        if self.book.reference.instrument_records.get(instrument.instrument) == instrument:
            return
        self.book.add_instrument(instrument)
        for row in self.book.rows_in(instrument.instrument):
            self._place(row)

    def add_account(self, account: Account) -> None:
        """Take an account in; one that moves takes its rows with it."""
        if self.book.reference.account_records.get(account.account) == account:
            return
        self.book.add_account(account)
        self.sights.changes += 1
        for row in self.book.rows_of(account.account):
            self._place(row)

    def add_models(self, node: str, raw: bytes) -> None:
        """Take a node's models in, as they are: nobody looks at most of them."""
        self._models_seen += 1
        self._models[node] = (self._models_seen, raw)

    def models_since(self, node: str, number: int) -> tuple[int, Risk] | None:
        """Return a node's models if they came after those of a number, with their own number."""
        held = self._models.get(node)
        if held is None or held[0] <= number:
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

    def follow(self, node: str) -> None:
        """Read every record of a node that exists from now on, also where there is none yet."""
        if node.startswith("account:"):
            self._ask(node)
            self._asked.add(node)

    def _ask(self, node: str) -> None:
        """Read a node's record, and every later one."""
        value = self._unread.pop(node, None)
        if value is not None:
            self._asked.add(node)
            try:
                self.add_risk(_risk.decode(value))
            except ValueError as error:
                log.error("risk of %s refused: %s", node, error)
            else:
                self.nodes[node] = (self.seq, node_row(self._node_risks[node]))

    def add_risk(self, risk: Risk) -> None:
        """Take a node in; what is older than what is known says nothing."""
        old = self._node_risks.get(risk.node)
        if old is not None and old.ts > risk.ts:
            return
        self._node_risks[risk.node] = risk
        self._ended.pop(risk.node, None)
        self._ending.discard(risk.node)
        self._changed_nodes.add(risk.node)

    def end_node(self, key: str) -> None:
        """Take in that a node's record, or its models, were withdrawn."""
        self._models.pop(key.removesuffix(MODELS_SUFFIX), None)
        self._unread.pop(key, None)
        if self._node_risks.pop(key, None) is not None:
            self.nodes.pop(key, None)
            self._changed_nodes.discard(key)
            self._ending.add(key)

    def add_fact(self, event: str, data: dict[str, Any]) -> None:
        """Keep a fact for every client."""
        self.seq += 1
        self.facts.append(Fact(self.seq, event, data | {"seq": self.seq}))
        while len(self.facts) > FACTS_KEPT:
            self.facts_floor = self.facts.popleft().seq

    def facts_since(self, seq: int) -> list[Fact]:
        """Return the facts after a sequence number, the oldest first."""
        out = list(takewhile(lambda fact: fact.seq > seq, reversed(self.facts)))
        out.reverse()
        return out

    def facts_before(self, seq: int, most: int, sight: Sight | None = None) -> tuple[list[Fact], int]:
        """Return the newest facts before a sequence number, the oldest first, and how many earlier ones are kept.

        Parameters
        ----------
        sight : of who asks: facts as they may be read
        """
        earlier = self.facts_seen([fact for fact in self.facts if fact.seq < seq], sight)
        return earlier[-most:], max(0, len(earlier) - most)

    @staticmethod
    def facts_seen(facts: list[Fact], sight: Sight | None) -> list[Fact]:
        """Return facts as who asks may read them."""
        if sight is None or sight.whole:
            return facts
        bodies = [(fact, sight.fact(fact.event, fact.data)) for fact in facts]
        return [Fact(fact.seq, fact.event, body) for fact, body in bodies if body is not None]

    def add_alert(self, alert: Alert) -> None:
        """Take an alert in: what stands is open until it clears, what only happened until a person has seen it."""
        stands = standing(alert)
        lasts = stands.kind in STANDING
        key = ("" if lasts or stands.kind == "clear" else stands.kind, alert.limit_id or alert.alert_id, alert.node,
               alert.metric)
        self.alerts[alert.alert_id] = alert
        if stands.kind == "clear" or (alert.ack_by is not None and not lasts):
            self._open.pop(key, None)
        else:
            self._open[key] = stands
        while len(self.alerts) > FACTS_KEPT:
            del self.alerts[next(iter(self.alerts))]
        self.add_fact("alert", alert_event(alert))

    def add_limit(self, limit: Limit) -> None:
        """Take a limit in: the newest version comes last, as gates and monitors have them."""
        check_limit(limit, self.levels)  # as the gate does: what one reader refuses, every one refuses
        self.limits.pop(limit.limit_id, None)
        self.limits[limit.limit_id] = limit

    def open_alerts(self) -> list[Alert]:
        """Return what stands, and what nobody has seen, the oldest first."""
        return list(self._open.values())

    # ---- one turn -------------------------------------------------------------------------------------------------
    def turn(self) -> int:
        """Value what changed, give changed rows the next sequence number; return how many there are."""
        valued = self.book.revalue(self.last_mark_ns or None)
        seq = self.seq + 1
        self.turns += 1
        changed = self.lines.turn(valued, self.book, seq)
        for name in self._changed_nodes:
            self.nodes[name] = (seq, node_row(self._node_risks[name]))
        self._ended.update(dict.fromkeys(self._ending, seq))
        changed += len(self._changed_nodes) + len(self._ending)
        self._changed_nodes.clear()
        self._ending.clear()
        if changed:
            self.seq = self.rows_seq = seq
        return changed

    # ---- what goes out --------------------------------------------------------------------------------------------
    def view(self, scope: str) -> ScopeLines:
        """Return what a scope shows; one that is new, and has sums of its own, begins with a turn."""
        if self.lines.is_part(scope) and not self.lines.follows(scope):
            self.turn()
        return self.lines.scope(scope, self.seq)

    def ladder(self, scope: str, since: int, traded: bool = False) -> tuple[list[list[Any]], int]:
        """Return (rows of a scope changed since a sequence number, or by trades alone, how many rows it has)."""
        view = self.view(scope)
        return self.rows_of(view, view.since(since, traded)), view.total

    def _places(self) -> np.ndarray:
        """Return by line the instrument's place in the market."""
        of = self.lines.groups.instrument
        if len(self._group_places) < len(of):
            self._group_places = np.array([self.book.market.instruments[name] for name in of], np.int64)
        return self._group_places

    def rows_of(self, view: ScopeLines, which: np.ndarray) -> list[Any]:
        """Return lines of a scope as rows of the stream; what is unknown is null."""
        values, k = view.table.sums.values[which].T, view.named(which)
        qty, mv, upnl, rpnl, bad, stale, fees, trade_t = values[:DELTA]
        average, mid, known = values[AVERAGE], values[PRICE], bad == 0
        g = self.lines.groups
        quality = np.where(known, np.where(stale != 0, STALE, GOOD), BAD).tolist()
        as_of = int(self.book.snapshot_id // 1_000_000)
        return list(zip([g.id[i] for i in k], [g.instrument[i] for i in k], [g.book[i] for i in k],
                        [g.desk[i] for i in k], qty.tolist(), _or_none(average, np.isfinite(average)),
                        _or_none(mid, np.isfinite(mid)), _or_none(mv, known),
                        _or_none(upnl, known & ~np.isnan(upnl)), _or_none(rpnl, ~np.isnan(rpnl)),
                        _or_none(fees, ~np.isnan(fees)), [g.currency[i] for i in k], quality, [as_of] * len(k),
                        trade_t.astype(np.int64).tolist(), *self._greeks(values, k, known), strict=True))

    def _greeks(self, values: np.ndarray, which: list[int], known: np.ndarray) -> list[list[float | None]]:
        """Return the columns of cash Greeks: what has no optionality has a delta, its value, and no others."""
        known = known & (values[NO_GREEKS] == 0)
        optional = known & (self.book.market.greek_kind[self._places()[which]] != 0)
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

    def node_rows(self, since: int, scope: str | None = None, sight: Sight | None = None) -> list[list[Any]]:
        """Return the nodes changed since a sequence number that may be read (accounts only where one is the scope)."""
        if scope is not None:
            self._ask(scope)
        return [row for name, (seq, row) in self.nodes.items() if seq > since and (sight is None or sight.sees(name))
                and (not name.startswith("account:") or name == scope)]

    def nodes_ended(self, since: int, sight: Sight | None = None) -> list[str]:
        """Return the nodes whose records were withdrawn since a sequence number, of those that may be read."""
        return [name for name, seq in self._ended.items() if seq > since and (sight is None or sight.sees(name))]

    def knows(self, node: str) -> bool:
        """Return whether there is such a node: positions or records of risk, or an account's record, say so."""
        if node == FIRM or node in self.book.rollup.node_index or node in self._node_risks or node in self._unread:
            return True
        level, _, name = node.partition(":")
        if level not in self.levels and level not in ("account", "dealer", "pm", "counterparty"):
            return False
        return any(a.under(level) == name for a in self.book.reference.account_records.values())

    def risk(self, node: str) -> Risk | None:
        """Return a node's latest record."""
        self._ask(node)
        return self._node_risks.get(node)

    def rows_under(self, scope: str) -> np.ndarray:
        """Return the rows of positions under a node, as the sums of the roll-up have them."""
        rollup = self.book.rollup
        node = rollup.node_index.get(scope)
        if node is None:
            return np.zeros(0, np.int64)
        return np.flatnonzero((rollup.ancestors[: rollup.count] == node).any(axis=1))

    def state_hash(self) -> str:
        """Return a digest of what is known of the firm: another gateway that read the same logs has the same one.

        Numbers of this process (of changes, of facts) are no part of it.
        """
        rollup, live = self.book.rollup, self.book.rollup.rows["live"]
        lines = sorted((name, self.lines.groups.id[self.lines.sums.line_of(row)])
                       for row, name in enumerate(self.book.names) if live[row])
        nodes = {name: encode_json(risk) for name, risk in self._node_risks.items()}
        nodes |= {name: encode_json(_risk.decode(raw)) for name, raw in self._unread.items()}
        parts = (rollup.state_hash(self.book.names), lines, sorted(nodes.items()),
                 sorted((name, raw) for name, (_, raw) in self._models.items()),
                 [encode_json(limit) for limit in self.limits.values()],  # the newest one last
                 sorted((scope, encode_json(control)) for scope, control in self.controls.items()),
                 sorted((*map(str, key), encode_json(alert)) for key, alert in self._open.items()))
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()

    def children(self, node: str) -> list[str]:
        """Return the nodes one level below a node."""
        chain = list(self.levels)
        level = FIRM if node == FIRM else node.partition(":")[0]
        if level not in chain or chain.index(level) == 0:
            return []
        below = chain[chain.index(level) - 1]
        lines = self.lines
        there = np.flatnonzero(lines.sums.values[: len(lines.changed), ROWS] > 0.0).tolist()
        return sorted({n for k in there if node in lines.groups.nodes[k] for n in lines.groups.nodes[k]
                       if n.startswith(f"{below}:")})


def _or_none(values: np.ndarray, known: np.ndarray) -> list[float | None]:
    out: list[float | None] = values.tolist()
    for k in np.flatnonzero(~known).tolist():
        out[k] = None
    return out


def node_row(risk: Risk) -> list[Any]:
    """Return a node as a row of the stream."""
    q = risk.quality
    quality = BAD if q.without_rate else PARTIAL if q.unpriced or q.pnl_unknown else STALE if q.stale else GOOD
    return [risk.node, risk.node.partition(":")[0], risk.base_currency, risk.pnl.realised, risk.pnl.unrealised,
            risk.pnl.day, risk.pnl.fees, risk.pnl.total, risk.exposure.gross, risk.exposure.net, risk.exposure.long,
            risk.exposure.short, risk.exposure.positions, risk.quality.unpriced, risk.quality.stale, quality,
            risk.quantity, risk.snapshot_id, risk.ts // 1_000_000,
            *((risk.greeks or {}).get(g) for g in ru.GREEKS),
            *((risk.models or {}).get("var_hist", {}).get(v) for v in ("var_99", "es_97_5")),
            risk.quality.pnl_unknown, risk.quality.without_rate]

