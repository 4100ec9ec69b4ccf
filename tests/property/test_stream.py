"""A client of the stream that comes late, or again, ends with the rows and facts of one that was there from the start."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.gateway import lines, state, stream
from app.gateway.state import GatewayState
from app.gateway.stream import ClientView, Frames
from models.rollup import NET
from schemas.nodes import Exposure, Pnl, Quality, Risk
from schemas.records import Account, Control
from tests.property.test_rollup import INSTRUMENTS, LEVELS, account, mark, position

NAMES = [i.instrument for i in INSTRUMENTS]
SCOPES = ["firm", "book:B1", "desk:D0", "desk:D1", "fund:F0", "account:A1", "account:A4", "dealer:X1", "pm:P0", "issuer:I1",
          "asset_class:fx", "currency:JPY"]
STEP_S = 0.05


class Client:
    """A page: what it holds of what it was sent, and the id of the last whole frame."""

    def __init__(self, frames: Frames, scope: str, rate: float, keeps: str | None = None, nodes: tuple[str, ...] = ("firm",)) -> None:
        self.scope, self.last_id, self.nodes = scope, keeps, nodes
        self.tables: dict[str, dict[str, list[Any]]] = {"position": {}, "node": {}}
        self.facts: dict[int, str] = {}
        self.breakers: dict[str, int] = {}
        self.total = 0
        self.resets = 0
        #: what is said of facts that were not sent
        self.said: dict[str, Any] = {}
        self.view = ClientView(frames, scope, rate, keeps, nodes)

    def again(self, frames: Frames, rate: float) -> None:
        """Come back with the last id, as EventSource does."""
        self.view.close()
        self.view = ClientView(frames, self.scope, rate, self.last_id, self.nodes)

    def step(self, now: float, lose_after: int | None = None) -> None:
        """Take what is due; or only the first frames of it, after which the connection breaks."""
        for frame in self.view.step(now)[:lose_after]:
            fields = dict(line.split(": ", 1) for line in frame.decode().strip().split("\n"))
            event, body = fields["event"], json.loads(fields["data"])
            if event in ("snapshot", "delta"):
                table = self.tables[body["table"]]
                if event == "snapshot":
                    table.clear()
                    self.resets += 1
                for name in body.get("del", []):
                    table.pop(name, None)
                for row in body["rows"]:
                    table[row[0]] = row
                self.total = body.get("total", self.total)
            elif event == "facts":
                self.said = body
            elif event in ("reject", "breaker", "alert"):
                if "seq" in body:
                    self.facts[body["seq"]] = event
                if event == "breaker":
                    self.breakers[body["scope"]] = max(body["rev"], self.breakers.get(body["scope"], 0))
            self.last_id = fields.get("id", self.last_id)


def node(name: str, k: int) -> Risk:
    """Return a node's record."""
    pnl = Pnl(realised=float(k), unrealised=0.0, day=0.0, price=0.0, fx=0.0, fees=0.0, total=0.0)
    return Risk(node=name, snapshot_id=k, ts=k, as_of=[], quality=Quality(0, 0, []), base_currency="USD", pnl=pnl,
                exposure=Exposure(gross=float(k), net=0.0, long=0.0, short=0.0, positions=1))


#: every account holds something from the start
BEFORE = [("position", a, NAMES[(a + k) % len(NAMES)], 100 + a) for a in range(6) for k in range(3)]
ROWS = st.one_of(
    st.tuples(st.just("position"), st.integers(0, 5), st.sampled_from(NAMES), st.integers(-500, 500)),
    st.tuples(st.just("mark"), st.sampled_from(NAMES), st.one_of(st.none(), st.floats(0.5, 5e4))),
    st.tuples(st.just("move"), st.integers(0, 5), st.integers(0, 5)),
    st.tuples(st.just("issued"), st.sampled_from(NAMES), st.integers(0, 2)),
    st.sampled_from([("remove", a, name) for _, a, name, _ in BEFORE]),
    st.tuples(st.just("risk"), st.sampled_from(["firm", "desk:D0", "account:A1"])),
    st.tuples(st.just("end"), st.sampled_from(["desk:D0", "account:A1"])))
CLIENTS = st.one_of(st.just(("late",)), st.tuples(st.just("again"), st.integers(0, 3), st.integers(1, 20)),
                    st.tuples(st.just("broken"), st.integers(0, 3), st.integers(0, 2)))
FACTS = st.one_of(st.just(("reject",)), st.tuples(st.just("control"), st.sampled_from(["all", "desk:D0"])))
#: some things come, mostly a turn follows, sometimes a client does something
ROUNDS = st.lists(st.tuples(st.lists(st.one_of(ROWS, ROWS, FACTS), min_size=1, max_size=5),
                            st.sampled_from([("turn",), ("turn",), ("reject",)]), st.one_of(st.none(), CLIENTS)), min_size=1, max_size=12)


def account_of(k: int, book: int) -> Account:
    """Return an account of a PM who has accounts in several books."""
    return msgspec.structs.replace(account(f"A{k}", book), pm=f"P{k % 2}")


def lines_of(house: GatewayState, scope: str) -> dict[str, tuple[float, float]]:
    """Return quantity and value of each line of a scope, from the positions that lie under it, one by one."""
    out: dict[str, tuple[float, float]] = {}
    for row in house.rows_under(scope).tolist():
        if house.book.rollup.rows["live"][row]:
            held, names = house.book.positions[row], house.book.reference.account_records
            line = f"{names[held.account].desk}|{names[held.account].book}|{held.instrument}"
            quantity, value = out.get(line, (0.0, 0.0))
            out[line] = quantity + float(held.quantity), value + float(house.book.rollup.contribution[row, NET])
    return out


def happen(house: GatewayState, event: tuple[Any, ...], rev: int) -> None:
    """Let one thing come to the gateway."""
    match event:
        case "position", a, name, quantity:
            house.add_position(position(f"A{a}", name, float(quantity), 50.0 + a, quantity / 3, rev), 0)
        case "mark", name, mid:
            house.book.add_mark(mark(name, mid))
        case "move", a, book:
            house.add_account(account_of(a, book))
        case "issued", name, k:
            record = house.book.reference.instrument_records[name]
            house.add_instrument(msgspec.structs.replace(record, issuer=f"I{k}"))
        case "remove", a, name:
            house.book.remove(f"A{a}|{name}")
        case "risk", name:
            house.take_risk(name, state.encode_json(node(name, rev)))
        case "end", name:
            house.end_node(name)
        case ("reject",):
            house.add_fact("reject", {"rid": rev})
        case "control", scope:
            control = Control(scope=scope, state="halted", reason="a test of streams", by="ann", ts=rev, rev=rev)
            house.controls[scope] = control
            house.add_fact("breaker", {"scope": scope, "rev": rev})
        case ("turn",):
            house.turn()


@pytest.mark.parametrize("most", [5_000, 3])
@settings(max_examples=60, deadline=None)
@given(rounds=ROUNDS, scope=st.sampled_from(SCOPES))
def test_late_and_resuming_clients_end_with_what_an_early_one_has(most: int, rounds: list[Any], scope: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "LADDER_ROWS_MAX", most)
        patch.setattr(lines, "LEFT_KEPT", 2 if most == 3 else 10_000)
        patch.setattr(state, "FACTS_KEPT", 5 if most == 3 else 10_000)
        house = GatewayState("USD", LEVELS)
        for record in INSTRUMENTS:
            house.book.add_instrument(record)
        for k in range(6):
            house.add_account(account_of(k, k))
        frames, now = Frames(house, lambda: 1), 0.0
        clients = [Client(frames, scope, rate) for rate in (20, 2)]
        happens = [*BEFORE, ("turn",), *(e for came, turn, act in rounds for e in (*came, turn, act) if e is not None)]
        for rev, event in enumerate(happens, 1):
            now += STEP_S
            happen(house, event, rev)
            broken = event[1:] if event[0] == "broken" else (-1, 0)
            if event[0] == "late":
                clients.append(Client(frames, scope, 10))
            if event[0] == "again":
                clients[event[1] % len(clients)].again(frames, event[2])
            for k, client in enumerate(clients):
                if k == broken[0] % len(clients) and broken[0] >= 0:
                    client.step(now, broken[1])
                    client.again(frames, 10)
                else:
                    client.step(now)
        house.turn()
        clients.append(Client(frames, scope, 5))
        for client in clients:
            client.step(now + 10.0)
        early, last = clients[0], clients[-1]
        view, wanted = house.view(scope), lines_of(house, scope)
        quantity, value = (stream.LADDER_COLUMNS.index(c) for c in ("qty", "mv"))
        assert len(early.tables["position"]) == min(most, early.total) and early.total == len(wanted)
        for name, row in early.tables["position"].items():
            assert row[quantity] == pytest.approx(wanted[name][0]) and (row[value] or 0.0) == pytest.approx(wanted[name][1])
        kept = {f.seq for f in house.facts}
        for client in clients:
            assert as_values(client) == as_values(last) and client.total == last.total
            assert client.breakers == early.breakers
            assert set(client.facts) >= kept, "no fact is lost: what is not kept any more was sent, or a reset says so"
        for client in clients:
            client.view.close()
        assert view.watchers == 0


def as_values(client: Client) -> dict[str, dict[str, list[Any]]]:
    """Return rows without the times of the snapshot that they were made from."""
    drop = stream.LADDER_COLUMNS.index("px_t")
    return {"position": {k: row[:drop] + row[drop + 1:] for k, row in client.tables["position"].items()},
            "node": client.tables["node"]}


def test_a_fact_gives_no_number_that_is_ahead_of_the_rows() -> None:
    house = GatewayState("USD", LEVELS)
    for record in INSTRUMENTS:
        house.book.add_instrument(record)
    frames = Frames(house, lambda: 1)
    client = Client(frames, "firm", 2)
    client.step(0.0)
    happen(house, ("position", 0, "SAP", 5), 1)
    house.turn()
    happen(house, ("reject",), 2)
    had = client.last_id
    client.step(0.1)  # at two frames a second the row is not due yet, the fact is
    assert client.facts and client.last_id == had
    client.again(frames, 2)
    client.step(0.2)
    assert len(client.tables["position"]) == 1 and client.resets == 2, "one snapshot of two tables"


def test_names_that_nobody_knows_leave_nothing() -> None:
    house = GatewayState("USD", LEVELS)
    house.add_account(account("A0", 1))
    assert not any(house.knows(f"zz:{k}") or house.knows(f"book:no{k}") for k in range(100))
    assert house.knows("book:B1") and house.knows("dealer:X1") and house.knows("firm")
    for k in range(3 * lines.SCOPES_KEPT):
        house.ladder(f"book:{k}", -1)
    assert len(house.lines._scopes) <= lines.SCOPES_KEPT + 1
