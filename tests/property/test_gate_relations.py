"""Relations between two runs of the gate: less knowledge and more rules never let more through; what works is reserved."""

from __future__ import annotations

import contextlib
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.gate_room import GateRoom
from models.gate import state as gs
from models.gate.book import GateBook
from models.gate.changes import cut, put
from models.gate.explain import explain
from models.gate.state import METRICS
from models.gate.state_hash import state_hash
from models.limits import Change
from schemas.codec import encode
from schemas.gate_state import GateDay
from schemas.records import Account, Alert, AsOf, Control, Decision, Fifo, Instrument, Limit, Mark, Order, Position
from tests.unit.test_order_fills import Counters

T0 = 1_795_000_000_000_000_000
MS = 1_000_000
PRICES = {"X": 100.0, "Y": 50.0, "E": 20.0}
NODES = ("firm", "fund:F", "desk:D", "desk:E", "account:A", "account:B", "trader:t", "instrument:X", "issuer:I", "venue:V", "asset_class:future", "currency:USD", "pm:P")
BOUNDED = ("gross", "net", "long", "short", "delta", "leverage", "order_quantity", "order_value", "daily_value", "message_count", "concentration")


def limit(limit_id: str, node: str, metric: str, value: float, mode: str = "hard", **more: Any) -> Limit:
    return Limit(limit_id=limit_id, node=node, metric=metric, limit=Decimal(str(value)), version=1, by="r", reason="a relation", mode=mode, **more)  # type: ignore[arg-type]


def account(name: str, desk: str, nav: str | None = "100000") -> Account:
    return Account(account=name, book=f"B{name}", desk=desk, strategy="S", fund="F", pm="P", nav=None if nav is None else Decimal(nav))


def mark(gate: GateBook, name: str, price: float, ts_ns: int = T0) -> None:
    gate.book.add_mark(Mark(instrument=name, window_end=ts_ns, ts_event=ts_ns, bid=price - 0.1, ask=price + 0.1, mid=price, last=None, quality="good"))
    gate.set_price(name, price - 0.1, price + 0.1, price, None, ts_ns, True)


def firm(without: str = "", extra: tuple[Limit, ...] = (), controls: tuple[Control, ...] = ()) -> GateBook:
    """Return a gate that holds positions; ``without``: what it does not know."""
    g = GateBook("USD", ("book", "desk", "strategy", "fund", "firm"), accounts=8, instruments=8, positions=64, nodes=128, rates=16)
    g.positions_hold(9 * 10**18)
    for name in PRICES:
        g.add_instrument(Instrument(instrument=name, asset_class="equity" if name == "E" else "future", currency="USD", issuer="I"))
        if without != f"mark of {name}":
            mark(g, name, PRICES[name])
    for name, desk in (("A", "D"), ("B", "E")):
        g.add_account(account(name, desk, {"nav": None, "nav above 0": "-5"}.get(without, "100000")))
        for instrument in PRICES:
            average = None if without == "costs" else 10.0
            g.add_position(Position(account=name, instrument=instrument, quantity="40" if name == "A" else "-40", average_price=average, realised_pnl=0.0, fees={}, currency="USD",
                                    trades=1, last_ts_event=1, fifo=Fifo(0.0, None, 0), break_even_price=None, as_of=AsOf(0, 1)))
    for metric, value in (("order_quantity", 10_000), ("order_value", 10**9)):
        g.add_limit(limit(metric, "firm", metric, value))
    for x in extra:
        g.add_limit(x)
    for c in controls:
        g.add_control(c)
    g.refresh(T0)
    return g


ORDER = st.fixed_dictionaries({
    "account": st.sampled_from("AB"), "instrument": st.sampled_from(sorted(PRICES)), "side": st.sampled_from(["buy", "sell"]), "type": st.sampled_from(["limit", "limit", "limit", "market", "stop", "stop_limit"]), "reduce_only": st.sampled_from([False, False, True]),
    "quantity": st.sampled_from(["1", "10", "40", "55", "90"]), "off": st.sampled_from([-0.3, -0.1, 0.0, 0.1, 0.2]), "action": st.sampled_from(["new", "new", "new", "replace", "cancel"]),
    "ref": st.integers(0, 12), "venue": st.sampled_from([None, "V"]), "locate_id": st.sampled_from([None, "L"]), "gap": st.sampled_from([0, 100, 600])})
LIMIT = st.builds(lambda n, m, v, mode, k: limit(f"L{k}", n, m, v, mode, window_ms=1000 if m == "message_count" else None), st.sampled_from(NODES), st.sampled_from(BOUNDED),
                  st.sampled_from([0.5, 3.0, 2_000.0, 6_000.0, 20_000.0]), st.sampled_from(["hard", "soft"]), st.integers(0, 10**6)).filter(
                      lambda x: x.metric != "leverage" or x.node.partition(":")[0] in ("firm", "fund", "desk", "account", "pm")).filter(
                      lambda x: x.metric != "concentration" or x.node.partition(":")[0] in ("firm", "fund", "desk", "account", "pm", "issuer"))
POSITION_LIMIT = st.builds(lambda a, i, m, v, mode, k: limit(f"P{k}", f"account:{a}", m, v, mode, instrument=i), st.sampled_from("AB"), st.sampled_from(sorted(PRICES)),
                           st.sampled_from(["position_long", "position_short"]), st.sampled_from([0.0, 30.0, 60.0]), st.sampled_from(["hard", "soft"]), st.integers(0, 10**6))
LIMITS = st.lists(LIMIT | POSITION_LIMIT, max_size=4).map(tuple)
HALT = st.builds(lambda s, x: Control(scope=s, state=x, reason="a relation", by="p", ts=T0, rev=1), st.sampled_from(["all", "desk:D", "trader:t", "venue:V", "account:B", "instrument:X"]),
                 st.sampled_from(["reducing", "halted", "killed"]))


def order_of(k: int, asked: dict[str, Any]) -> Order:
    return Order(order_id=f"o{k}", account=asked["account"], trader="t", instrument=asked["instrument"], side=asked["side"], type=asked["type"], quantity=Decimal(asked["quantity"]),
                 price=None if asked["type"] in ("market", "stop") else Decimal(str(round(PRICES[asked["instrument"]] + asked["off"], 2))), ts_event=T0, reduce_only=asked.get("reduce_only", False),
                 stop_price=Decimal(str(round(PRICES[asked["instrument"]] + 2 * asked["off"], 2))) if asked["type"].startswith("stop") else None, action=asked["action"],  # type: ignore[arg-type]
                 ref_order_id=f"o{asked['ref']}" if asked["action"] != "new" else None, venue=asked["venue"], locate_id=asked["locate_id"])


def reserved(g: GateBook) -> dict[str, list[float]]:
    return {name: np.round(g.reserved[k], 6).tolist() for name, k in g.state.node_index.items() if np.abs(g.reserved[k]).max() > 1e-6}


def anew(g: GateBook, homes: dict[str, str]) -> dict[str, list[float]]:
    """Return what is reserved by a gate that is given the working orders alone."""
    fresh = firm()
    for name, desk in homes.items():
        fresh.add_account(account(name, desk))
    for w in g.working.values():
        fresh.place(w.order, w.decided_ns, T0, w.earlier, w.executed)
    return reserved(fresh)


@settings(max_examples=40, deadline=None)
@given(st.lists(ORDER, max_size=12), st.integers(0, 12), st.sampled_from("AB"), st.lists(st.tuples(st.integers(0, 12), st.sampled_from([1.0, 5.0])), max_size=3))
def test_what_works_is_reserved_and_only_that_wherever_its_account_lies(asked: list[dict[str, Any]], moves_at: int, moves: str, fills: list[tuple[int, float]]) -> None:
    g, homes = firm(), {"A": "D", "B": "E"}
    for k, a in enumerate(asked):
        if k == moves_at:
            homes[moves] = "E" if homes[moves] == "D" else "D"
            g.add_account(account(moves, homes[moves]))
        g.decide(order_of(k, a), T0)
    for k, quantity in fills:
        g.fill(f"o{k}", quantity)
    assert reserved(g) == anew(g, homes)


@settings(max_examples=40, deadline=None)
@given(st.lists(ORDER, max_size=6), ORDER, LIMITS, st.sampled_from(["mark of X", "mark of Y", "nav", "nav above 0", "costs"]))
def test_less_knowledge_never_lets_more_through(asked: list[dict[str, Any]], last: dict[str, Any], limits: tuple[Limit, ...], without: str) -> None:
    """The same orders work in both; of the last one the gate that knows less says no less."""
    knows, less = firm(extra=limits), firm(without, limits)
    for k, a in enumerate(asked):
        o = order_of(k, a)
        if all(g.check(o, T0).outcome == "accept" for g in (knows, less)):
            for g in (knows, less):
                g.decide(o, T0)
    o = order_of(99, last)
    if less.check(o, T0).outcome == "accept":
        assert knows.check(o, T0).outcome == "accept" or without == "costs"
    if without == "costs":  # an unknown cost says nothing of exposure
        assert [r.code for r in less.check(o, T0).reasons] == [r.code for r in knows.check(o, T0).reasons]


@settings(max_examples=60, deadline=None)
@given(st.lists(ORDER, max_size=6), ORDER, LIMITS, st.lists(LIMIT | POSITION_LIMIT, min_size=1, max_size=2).map(tuple), st.lists(HALT, max_size=1).map(tuple), st.booleans())
def test_more_rules_never_let_more_through(asked: list[dict[str, Any]], last: dict[str, Any], limits: tuple[Limit, ...], more: tuple[Limit, ...], halts: tuple[Control, ...], ends: bool) -> None:
    more = tuple(limit(f"more{k}", x.node, x.metric, float(x.limit), x.mode, window_ms=x.window_ms, instrument=x.instrument, until=T0 + 10**12 if ends else None)
                 for k, x in enumerate(more))
    fewer, all_of_them = firm(extra=limits), firm(extra=limits + more)
    for k, a in enumerate(asked):
        o = order_of(k, a)
        if all(g.check(o, T0).outcome == "accept" for g in (fewer, all_of_them)):
            for g in (fewer, all_of_them):
                g.decide(o, T0)
    for halt in halts:
        all_of_them.add_control(halt)
    o = order_of(99, last)
    if all_of_them.check(o, T0).outcome == "accept":
        assert fewer.check(o, T0).outcome == "accept"


@settings(max_examples=40, deadline=None)
@given(st.lists(ORDER, min_size=1, max_size=10), LIMITS)
def test_a_check_changes_nothing_and_says_what_the_order_gets(asked: list[dict[str, Any]], limits: tuple[Limit, ...]) -> None:
    g = firm(extra=limits)
    for k, a in enumerate(asked):
        o, s = order_of(k, a), g.state
        g.check(o, T0)  # what an account has in an issuer, where that is limited, is opened when it is first asked for
        before = [x.tobytes() for x in (s.nodes, s.rates, s.positions, g.reserved, g._base, s.accounts)]
        counts = len(s.node_names), int(s.position_count[0]), sorted(g.working), sorted(g.day_of), len(g.recent._last)
        said = g.check(o, T0)
        assert [x.tobytes() for x in (s.nodes, s.rates, s.positions, g.reserved, g._base, s.accounts)] == before
        assert counts == (len(s.node_names), int(s.position_count[0]), sorted(g.working), sorted(g.day_of), len(g.recent._last))
        got = g.decide(o, T0)
        assert (said.outcome, said.reasons, said.warnings) == (got.outcome, got.reasons, got.warnings)


def test_names_of_refused_orders_open_nothing_and_halts_hold_in_a_full_table() -> None:
    g = firm()
    before = len(g.state.node_names), int(g.state.position_count[0])
    asked = {"account": "A", "instrument": "X", "side": "buy", "type": "limit", "quantity": "99999", "off": 0.0, "action": "new", "ref": 0, "venue": None, "locate_id": None}
    for k in range(500):
        o = Order(order_id=f"o{k}", account="A", trader=f"t{k}", instrument="X", side="buy", type="limit", quantity=Decimal(20_000), price=Decimal(100), ts_event=T0, venue=f"v{k}", counterparty=f"c{k}")
        assert g.decide(o, T0).outcome == "reject" and g.check(o, T0).outcome == "reject"
        g.add_control(Control(scope=f"trader:n{k}", state="halted", reason="nobody", by="p", ts=T0, rev=1))
    assert (len(g.state.node_names), int(g.state.position_count[0])) == before
    assert "HALTED" in [r.code for r in g.decide(Order(order_id="h", account="A", trader="n3", instrument="X", side="buy", type="limit", quantity=Decimal(1), price=Decimal(100), ts_event=T0), T0).reasons]
    said = [g.decide(Order(order_id=f"p{k}", account="A", trader=f"t{k}", instrument="Y", side="buy", type="limit", quantity=Decimal(k + 1), price=Decimal(50), ts_event=T0), T0)
            for k in range(130)]  # accepted ones fill what there is for names
    let_through = sum(v.outcome == "accept" for v in said)
    assert 0 < let_through < 96 == len(g.state.node_names)
    assert {tuple(r.code for r in v.reasons) for v in said[let_through:]} == {("NO_ROOM",)}
    g.add_control(Control(scope="desk:D", state="halted", reason="all of it", by="p", ts=T0, rev=1))
    assert "HALTED" in [r.code for r in g.decide(order_of(900, asked | {"quantity": "1"}), T0).reasons]
    g.add_control(Control(scope="all", state="killed", reason="all of it", by="p", ts=T0, rev=1))
    assert "HALTED" in [r.code for r in g.decide(order_of(901, asked | {"quantity": "2", "account": "B"}), T0).reasons]


def test_duplicates_are_seen_whatever_lies_between() -> None:
    g = firm()
    base = {"account": "A", "instrument": "X", "side": "buy", "type": "limit", "quantity": "10", "off": -0.1, "action": "new", "ref": 0, "venue": None, "locate_id": None}
    asked = [base, base | {"quantity": "1"}, base, base | {"quantity": "1"}, base | {"type": "market", "quantity": "2"}]
    said = [[r.code for r in g.decide(order_of(k, a), T0 + k * MS).reasons] for k, a in enumerate(asked)]
    assert said == [[], [], ["DUPLICATE_ORDER"], ["DUPLICATE_ORDER"], []]
    mark(g, "X", 100.01, T0 + 5 * MS)
    assert [r.code for r in g.decide(order_of(8, base | {"type": "market", "quantity": "2"}), T0 + 9 * MS).reasons] == ["DUPLICATE_ORDER"]
    assert g.decide(order_of(9, base), T0 + 503 * MS).outcome == "accept"
    assert set(METRICS) >= {"gross"}


def test_what_stands_is_placed_however_full_a_gate_is_and_only_the_new_is_refused() -> None:
    """A gate takes over from others: their orders and decisions name more than it would open for new ones."""
    g, share = firm(), limit("share", "account:A", "concentration", 0.5)
    names = [(f"t{k}", f"v{k}", f"c{k}") for k in range(60)]
    standing = [Order(order_id=f"s{k}", account="AB"[k % 2], trader=t, instrument="XY"[k % 3 % 2], side="buy", type="limit", quantity=Decimal(1), price=Decimal(50), ts_event=T0, venue=v, counterparty=c)
                for k, (t, v, c) in enumerate(names)]
    past = [Decision(order_id=o.order_id, account=o.account, instrument=o.instrument, outcome="accept", reasons=[], effect={"value": 10.0}, snapshot_id=0, limits_version=1, ts_event=T0, ts_decision=T0,
                     service_ns=1, order=o) for o in standing]
    g.recount(past, T0, {})
    for o in standing:
        g.place(o, T0, T0)
    assert len(g.working) == 60 and len(g.state.node_names) == len(g.state.nodes) == 128 and g.state.without_node
    assert g._base[g.state.node("firm"), METRICS.index("daily_value")] == 600.0
    assert g.reserved[g.state.node("firm"), METRICS.index("net")] == sum(PRICES[o.instrument] for o in standing)
    written, _ = cut(g, lambda _: True, lambda _: {})
    heir = firm()
    for _, entry in written:
        if isinstance(entry, GateDay):
            put(heir, entry)
    assert heir._base[heir.state.node("firm"), METRICS.index("daily_value")] == 600.0
    new = Order(order_id="n", account="A", trader="new", instrument="X", side="buy", type="limit", quantity=Decimal(1), price=Decimal(100), ts_event=T0)
    known = Order(order_id="k", account="A", trader="t0", instrument="Y", side="buy", type="limit", quantity=Decimal(2), price=Decimal(50), ts_event=T0)
    assert [r.code for r in g.decide(new, T0).reasons] == ["NO_ROOM"] and g.decide(known, T0).outcome == "accept"
    g.add_limit(share)  # it has no node to be held in: what it would bound is refused, what works is executed and ends
    assert "NO_ROOM" in [r.code for r in g.decide(msgspec.structs.replace(known, order_id="k2", quantity=Decimal(3)), T0).reasons]
    g.place(msgspec.structs.replace(known, order_id="k3"), T0, T0)
    for o in standing:
        g.fill(o.order_id, 0.5)
        g.release(o.order_id)
    g.add_control(Control(scope="all", state="killed", reason="all of it", by="p", ts=T0, rev=1))
    assert {w.order.order_id for w in g.killed()} == {"k", "k3"}


def test_orders_leave_positions_for_what_is_held() -> None:
    g = GateBook("USD", ("desk", "firm"), accounts=8, instruments=8, positions=4, nodes=64, rates=4)
    g.positions_hold(9 * 10**18)
    for name in PRICES:
        g.add_instrument(Instrument(instrument=name, asset_class="future", currency="USD"))
        mark(g, name, PRICES[name])
    for name in "AB":
        g.add_account(account(name, "D"))
    for metric in ("order_quantity", "order_value"):
        g.add_limit(limit(metric, "firm", metric, 10**6))
    g.refresh(T0)
    asked = [Order(order_id=f"{a}{x}", account=a, trader="t", instrument=x, side="buy", type="limit", quantity=Decimal(1), price=Decimal(str(PRICES[x])), ts_event=T0) for a in "AB" for x in sorted(PRICES)]
    assert [[r.code for r in g.decide(o, T0).reasons] for o in asked] == [[]] * 3 + [["NO_ROOM"]] * 3
    g.place(asked[3], T0, T0)
    assert len(g.working) == 4


def test_what_there_is_no_place_for_is_told_so_and_changes_nothing_else() -> None:
    """Accounts, instruments and nodes beyond what a gate has room for: a record is left out whole, an order in it is NO_ROOM, reproduced."""
    g = GateBook("USD", ("desk", "firm"), accounts=3, instruments=2, positions=16, nodes=24, rates=4)
    g.positions_hold(9 * 10**18)
    alerts: list[Alert] = []
    room = GateRoom(g.state, Gauges(), lambda changes, _: alerts.extend(c.alert for c in changes))
    for name in "XYZ":
        g.add_instrument(Instrument(instrument=name, asset_class="future", currency="USD"))
        mark(g, name, 100.0)
    for name in "ABCD":
        g.add_account(account(name, "D"))
        room.look({0}, T0, 1)
    for metric in ("order_quantity", "order_value"):
        g.add_limit(limit(metric, "firm", metric, 10**6))
    g.refresh(T0)

    def said(name: str, instrument: str, k: int) -> list[str]:
        asked = Order(order_id=f"{name}{instrument}{k}", account=name, trader="t", instrument=instrument, side="buy", type="limit", quantity=Decimal(1), price=Decimal(100), ts_event=T0)
        verdict = g.decide(asked, T0 + k * 10**9)
        inputs = msgspec.json.decode(encode(verdict.inputs))
        assert explain(inputs, asked).reasons == verdict.reasons
        return [r.code for r in verdict.reasons]

    assert [said(a, "X", 1) for a in "ABC"] == [[]] * 3
    assert [said(a, x, 2) for a, x in ("DX", "AZ", "DZ")] == [["NO_ROOM"]] * 3
    assert said("E", "X", 3) == ["UNKNOWN_ACCOUNT"] and said("A", "W", 4) == ["UNKNOWN_INSTRUMENT"]
    assert said("D", "W", 5) == ["UNKNOWN_ACCOUNT", "UNKNOWN_INSTRUMENT"], "one of the two is nowhere"
    assert [(a.metric, a.kind) for a in alerts] == [("gate_instruments", "breach"), ("gate_accounts", "breach")]
    assert "DESKRISK_GATE_ACCOUNTS" in str(alerts[1].note)
    # a position of what has no place is counted in its nodes, and refuses nothing
    assert not g.add_positions([encode(Position(account="D", instrument="X", quantity="5", average_price=100.0, realised_pnl=0.0, fees={}, currency="USD", trades=1, last_ts_event=1,
                                            fifo=Fifo(0.0, None, 0), break_even_price=None, as_of=AsOf(0, 1)))], 0).refused
    for rule in (limit("p", "account:D", "position_long", 5, instrument="X"), limit("c", "instrument:Z", "collar_ticks", 5), limit("g", "account:D", "gross", 5)):
        g.add_limit(rule)
    g.place(Order(order_id="stands", account="D", trader="t", instrument="X", side="buy", type="limit", quantity=Decimal(1), price=Decimal(100), ts_event=T0), T0, T0)
    g.refresh(T0)
    # nodes are full: an account that moves where there is none is not judged where it lay
    for k in range(len(g.state.nodes) - len(g.state.node_index)):
        g.state.node(f"trader:n{k}")
    g.add_account(account("A", "elsewhere"))
    assert said("A", "X", 6) == ["NO_ROOM"]
    g.add_account(account("A", "D"))
    assert said("A", "X", 7) == []


def test_room_grows_with_what_is_asked_for() -> None:
    assert gs.capacities_of(gs.ACCOUNTS, gs.INSTRUMENTS) == {"accounts": gs.ACCOUNTS, "instruments": gs.INSTRUMENTS, "positions": gs.POSITIONS, "nodes": gs.NODES}
    assert gs.capacities_of(10, 10) == {"accounts": 10, "instruments": 10, "positions": gs.POSITIONS, "nodes": gs.NODES}
    more = gs.capacities_of(gs.ACCOUNTS + 1_000, gs.INSTRUMENTS + 10)
    assert (more["positions"], more["nodes"]) == (gs.POSITIONS + 16 * 1_010, gs.NODES + 4_020)
    s = gs.GateState(**gs.capacities_of(gs.ACCOUNTS + 200, gs.INSTRUMENTS))
    assert [s.account(f"A{k}") for k in range(gs.ACCOUNTS + 200)][-1] == gs.ACCOUNTS + 199


class Gauges(Counters):
    def set(self, name: str, value: float, **_: str) -> None:
        self.counts[name] = int(100 * value)

    def observe(self, name: str, value: float, **_: str) -> None:
        self.counts[name] = int(value)


def test_how_full_a_gate_is_is_told_long_before_it_refuses_and_once() -> None:
    g, counters, raised = firm(), Gauges(), list[Alert]()

    def raise_all(changes: list[Change], now_ns: int) -> None:
        raised.extend(c.alert for c in changes)

    room = GateRoom(g.state, counters, raise_all)
    for k in range(130):
        g.decide(Order(order_id=f"p{k}", account="A", trader=f"t{k}", instrument="Y", side="buy", type="limit", quantity=Decimal(k + 1), price=Decimal(50), ts_event=T0), T0)
        room.look({2, 5}, T0 + k, 1)
    alerts = [(a.alert_id, a.kind, a.value) for a in raised]
    assert alerts == [("gate.room.2.nodes", "approach", 72.0), ("gate.room.2.nodes", "breach", 96.0)]
    heir = GateRoom(firm().state, counters, raise_all)  # restarted, it has only what stands
    for a in raised:
        heir.follow(a)
    heir.look({2, 5}, T0, 1)
    other = GateRoom(g.state, counters, raise_all)  # one that is full takes the partition over, and owns one before it
    for a in raised[:2]:
        other.follow(a)
    other.look({1, 2}, T0, 1)
    assert [(a.alert_id, a.kind) for a in raised[2:]] == [("gate.room.2.nodes", "clear"), ("gate.room.1.nodes", "breach"), ("gate.room.2.nodes", "clear")]


REFUSED = [lambda g: g.add_limit(limit("bad", "desk:new", "gross", float("nan"))), lambda g: g.add_limit(limit("bad", "desk:D", "position_long", 1, instrument="X")),
           lambda g: g.add_limit(limit("bad", "desk:D", "rating", 1)), lambda g: g.add_limit(limit("bad", "desk:D", "repeated_executions", 1)),
           lambda g: g.decide(order_of(77, {"account": "A", "instrument": "X", "side": "buy", "type": "limit", "quantity": "1", "off": 0.0, "action": "cancel", "ref": 78, "venue": None, "locate_id": None}), T0)]


@settings(max_examples=25, deadline=None)
@given(st.lists(ORDER, max_size=8), LIMITS, st.lists(HALT, max_size=2).map(tuple), st.permutations(range(4)))
def test_the_hash_is_of_what_decides_in_whatever_order_it_came_and_refused_records_leave_it(asked: list[dict[str, Any]], limits: tuple[Limit, ...], halts: tuple[Control, ...], turn: list[int]) -> None:
    limits = tuple({x.limit_id: x for x in limits}.values())
    halts = tuple({c.scope: c for c in halts}.values())
    g, other = firm(extra=limits, controls=halts), firm(extra=tuple(limits[k] for k in turn if k < len(limits)), controls=halts[::-1])
    for k, a in enumerate(asked):
        before, verdict = state_hash(g), g.decide(order_of(k, a), T0)
        assert verdict.outcome == other.decide(order_of(k, a), T0).outcome
        assert state_hash(g) != before or verdict.outcome == "reject" or order_of(k, a).action != "new"
    assert state_hash(g) == state_hash(other)
    before = state_hash(g)
    for refused in REFUSED if not any(x.metric == "message_count" for x in limits) else REFUSED[:-1]:  # a cancel is a message
        with contextlib.suppress(ValueError):
            refused(g)
        assert state_hash(g) == before
