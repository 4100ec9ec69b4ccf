"""Access: on no route, and in no frame, does who may read one desk find a name or a figure of another."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Iterator
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.gate_http import GateHttp
from app.gateway import server, writes
from app.gateway.access import parse_tokens
from app.gateway.approvals import new_approval
from app.gateway.server import FOLLOWING, Gateway
from app.gateway.state import GatewayState, encode_json
from app.gateway.stream import Frames
from app.settings import Settings
from schemas.records import Account, Alert, Control, Decision, Limit, Order, Quarantined, Reason
from tests.property.test_rollup import INSTRUMENTS, LEVELS, mark, position
from tests.property.test_stream import Client, node

ALL, ONE, RISK, PAIR = "a" * 20, "d" * 20, "r" * 20, "p" * 20
TOKENS = f"{ALL}:ann:risk+admin,{ONE}:dan:,{RISK}:rita:risk+admin+trader:desk:D0,{PAIR}:pat::book:B0+account:A1"
#: stands in each name of what lies outside, and the figures of those above
SECRET, FIGURE = "SECRET", 987654.25
HERE = Account(account="A0", book="B0", desk="D0", strategy="S0", fund="F0", dealer="X0", pm="P0")
ALSO = Account(account="A1", book="B1", desk="D0", strategy="S0", fund="F0", dealer="X1", pm="P0")
THERE = Account(account="SECRETA", book="SECRETB", desk="SECRETD", strategy="S0", fund="F0", dealer="X1", pm="SECRETP")


def alert(k: int, name: str, **more: Any) -> Alert:
    return Alert(**{"alert_id": f"{more.get('limit_id', 'L')}.{k}", "kind": "breach", "node": name, "metric": "gross", "value": FIGURE if name in ("firm", "fund:F0") else 1.0, "limit": 2.0,
                    "utilisation": 0.5, "cause_ts": k, "raised_ts": k, "snapshot_id": 1} | more)


def decision(order_id: str, account: str) -> Decision:
    order = Order(order_id=order_id, account=account, trader="t", instrument="SAP", side="buy", type="market", quantity=Decimal(1), ts_event=1)
    reasons = [Reason(code="GROSS_EXPOSURE", measured="12", limit="10", node="desk:D0", limit_id="L0"),
               Reason(code="GROSS_EXPOSURE", measured=str(FIGURE), limit=str(FIGURE), node="fund:F0", limit_id="L-SECRET")]
    return Decision(order_id=order_id, account=account, instrument="SAP", outcome="reject", reasons=reasons, effect={"value": 1.0}, snapshot_id=1, limits_version=1, ts_event=1,
                    ts_decision=1, service_ns=1, inputs={"v": 0, "nodes": [FIGURE]}, order=order)


def limit(limit_id: str, name: str) -> Limit:
    return Limit(limit_id=limit_id, node=name, metric="override" if name.startswith("order:") else "gross", limit=Decimal(1), version=1, by="ann", reason="of a test")


def fill(state: GatewayState) -> None:
    """Let a gateway know two desks of one fund."""
    for record in INSTRUMENTS:
        state.add_instrument(msgspec.structs.replace(record, issuer="SECRETI"))
        state.book.add_mark(mark(record.instrument, 60.0))
    for k, account in enumerate((HERE, ALSO, THERE)):
        state.add_account(account)
        state.add_position(position(account.account, "SAP", 10.0 + k, 50.0, 0.0, 1), 0)
    state.add_position(position("SECRETA", "INV", 5.0, 50.0, 0.0, 1), 0)
    for name in ("firm", "fund:F0", "desk:D0", "desk:SECRETD", "book:SECRETB", "dealer:X1", "account:A0", "account:SECRETA"):
        risk = msgspec.structs.replace(node(name, 1), models={"var_hist": {"var_99": FIGURE if name in ("firm", "fund:F0") else 1.0}}, top={"var_hist": []})
        state.take_risk(name, encode_json(risk))
        state.add_models(name, encode_json(risk))
    for k, name in enumerate(("desk:D0", "desk:SECRETD", "fund:F0", "firm", "account:SECRETA", "order:SECRETO", "trader:SECRETT")):
        state.add_alert(alert(k, name, limit_id=f"{'' if name == 'desk:D0' else 'SECRET'}L{k}"))
        state.add_limit(limit(f"{name}~override" if name.startswith("order:") else f"{'' if name == 'desk:D0' else 'SECRET'}L{k}", name))
    state.add_alert(alert(90, "firm", kind="stale", metric="prices fx", limit_id="feed.prices fx", value=3.0))
    state.add_alert(alert(91, "firm", kind="barrier", metric="barrier SECRETOPT"))
    for scope in ("desk:D0", "fund:F0", "all", "desk:SECRETD", "trader:SECRETT"):
        control = Control(scope=scope, state="halted", reason="too much" if scope == "desk:D0" else f"gross {FIGURE} SECRETWHY", by="bob", ts=1, rev=1)
        state.controls[scope] = control
        state.add_fact("breaker", server.breaker_event(control))
    for order_id, account in (("O1", "A0"), ("SECRETO", "SECRETA")):
        state.add_fact("reject", server.reject_event(decision(order_id, account)))
    now = time.time_ns()
    for k, fields in enumerate(({"node": "desk:D0"}, {"node": "desk:SECRETD"}, {"limit_id": "SECRETL1"}, {"limit_id": "L0", "node": "desk:SECRETD"}, {"order_id": "SECRETO"})):
        state.approvals.take_in(f"{'' if k == 0 else 'SECRET'}P{k}", msgspec.structs.replace(new_approval("limit", fields, "ann", now), approval_id=f"{'' if k == 0 else 'SECRET'}P{k}"))
    state.turn()


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    monkeypatch.setattr(server.process, "ages", lambda now: dict.fromkeys(FOLLOWING, 0.1))

    async def on_log(settings: Settings, order_id: str, account: str | None = None) -> list[Decision]:
        return [d for d in (decision("O1", "A0"), decision("O1", "SECRETA"), decision("SECRETO", "SECRETA"), decision("SECRETO", "SECRETA"))
                if d.order_id == order_id and account in (None, d.account)]
    monkeypatch.setattr(writes, "decisions_of", on_log)
    made = Gateway(Settings(brokers="localhost:1", api_tokens=TOKENS))  # type: ignore[arg-type]
    fill(made.state)
    made.quarantine.log.take(Quarantined(topic="trades", partition=0, offset=1, reason="bad_field", detail="SECRETA", raw_base64="", ts=1))
    made.turned_ms, made.ready = int(time.time() * 1000), True
    yield made


def ask(gateway: Gateway, method: str, path: str, token: str | None = RISK, **more: Any) -> httpx.Response:
    async def go() -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway.app()), base_url="http://gateway") as client:
            return await client.request(method, path, headers=headers, **more)
    return asyncio.run(go())


#: by route: what a user of desk D0, who holds every role, asks there, and the answer's status
ROUTES: dict[str, list[tuple[str, str, dict[str, Any], int]]] = {
    "/api/me": [("GET", "/api/me", {}, 200)],
    "/api/snapshot": [("GET", "/api/snapshot", {}, 200), ("GET", "/api/snapshot?scope=account:A0", {}, 200), ("GET", "/api/snapshot?scope=fund:F0", {}, 403), ("GET", "/api/snapshot?scope=desk:SECRETD", {}, 403),
                      ("GET", "/api/snapshot?scope=dealer:X1", {}, 403), ("GET", "/api/snapshot?scope=pm:P0", {}, 200), ("GET", "/api/snapshot?scope=issuer:SECRETI", {}, 403),
                      ("GET", "/api/snapshot?scope=desk:NONE", {}, 403), ("GET", "/api/snapshot?scope=currency:EUR", {}, 403)],
    "/api/positions": [("GET", "/api/positions", {}, 200), ("GET", "/api/positions?scope=firm", {}, 403), ("GET", "/api/positions?account=SECRETA", {}, 403), ("GET", "/api/positions?instrument=INV", {}, 200)],
    "/api/risk/{node:path}/contributors": [("GET", f"/api/risk/{n}/contributors", {}, s) for n, s in (("desk:D0", 200), ("firm", 403), ("desk:SECRETD", 403))],
    "/api/risk/{node:path}": [("GET", f"/api/risk/{n}", {}, s) for n, s in (("desk:D0", 200), ("account:A0", 200), ("book:B9", 403), ("fund:F0", 403), ("account:SECRETA", 403))],
    "/api/facts": [("GET", "/api/facts", {}, 200), ("GET", "/api/facts?before=9&limit=3", {}, 200)],
    "/api/limits": [("GET", "/api/limits", {}, 200), ("GET", "/api/limits?scope=desk:D0", {}, 200), ("GET", "/api/limits?scope=fund:F0", {}, 403), ("GET", "/api/limits?scope=trader:SECRETT", {}, 403)],
    "/api/limits/{id}": [("PUT", "/api/limits/SECRETL1", {"limit": 5, "reason": "I want to see it"}, 403), ("PUT", "/api/limits/NEW", {"node": "fund:F0", "metric": "gross", "limit": 1, "reason": "I want it so"}, 403),
                         ("PUT", "/api/limits/L0", {"node": "desk:SECRETD", "limit": 1, "reason": "I want it so"}, 403), ("DELETE", "/api/limits/SECRETL1", {"reason": "away with it"}, 403)],
    "/api/alerts": [("GET", "/api/alerts", {}, 200)],
    "/api/alerts/{id}/ack": [("POST", "/api/alerts/SECRETL1.1/ack", {}, 404), ("POST", "/api/alerts/L.91/ack", {}, 404)],
    "/api/breakers": [("GET", "/api/breakers", {}, 200)],
    "/api/breakers/{scope}": [("POST", f"/api/breakers/{s}", {"action": "halt", "reason": "I want it so"}, 403) for s in ("all", "fund:F0", "desk:SECRETD", "trader:t")],
    "/api/overrides": [("POST", "/api/overrides", body | {"limit": 5, "minutes": 5, "reason": "I want it so"}, 403) for body in ({"limit_id": "SECRETL1"}, {"order_id": "SECRETO"})],
    "/api/approvals": [("GET", "/api/approvals", {}, 200)],
    "/api/approvals/{id}": [("POST", f"/api/approvals/SECRETP{k}", {"refuse": True}, 404) for k in (1, 2, 3, 4)],
    "/api/orders/check": [("POST", "/api/orders/check", {"order_id": "O", "account": a}, 403) for a in ("SECRETA", "NONE")],
    "/api/decisions/{order_id}": [("GET", "/api/decisions/O1", {}, 200), ("GET", "/api/decisions/SECRETO", {}, 404), ("GET", "/api/decisions/O1?account=SECRETA", {}, 403), ("GET", "/api/decisions/NONE", {}, 404)],
    "/api/quarantine": [("GET", "/api/quarantine", {}, 403)],
    "/api/whatif": [("POST", "/api/whatif", {"trades": [{"instrument": "SAP", "quantity": 1.0}]}, 200), ("POST", "/api/whatif", {"node": "firm", "trades": []}, 403),
                    ("POST", "/api/whatif", {"node": "desk:SECRETD", "trades": []}, 403), ("POST", "/api/whatif", {"node": "desk:NONE"}, 403)],
    "/metrics": [("GET", "/metrics", {}, 403)],
    "/health/live": [("GET", "/health/live", {}, 200)], "/health/ready": [("GET", "/health/ready", {}, 200)],
    "/": [("GET", "/", {}, 200)], "/login": [("GET", "/login", {}, 200)],
}
#: the stream is tried frame by frame below; offsets of topics are no figure
ELSEWHERE = {"/api/stream", "/health/read", "/vendor", "/static"}


def test_every_route_shows_a_desk_to_who_may_read_it_and_nothing_else(gateway: Gateway) -> None:
    assert {r.path for r in gateway.app().routes} == ROUTES.keys() | ELSEWHERE, "a new route says here what it shows"  # type: ignore[attr-defined]
    for route, tries in ROUTES.items():
        for method, path, body, status in tries:
            reply = ask(gateway, method, path, json=body if method != "GET" else None)
            assert reply.status_code == status, (route, path, body, reply.text)
            asked = path + json.dumps(body)
            shown = reply.text
            for word in re.findall(rf"{SECRET}\w*", asked):  # what was asked for may be said again
                shown = shown.replace(word, "")
            assert SECRET not in shown and str(FIGURE) not in shown, (path, reply.text)
            if route.startswith("/api/") or route == "/metrics":
                assert ask(gateway, method, path, None, json=body if method != "GET" else None).status_code == 401


def test_who_may_read_the_firm_and_who_reads_one_desk_each_get_theirs(gateway: Gateway) -> None:
    def got(path: str, token: str) -> Any:
        return ask(gateway, "GET", path, token).json()
    assert len(got("/api/positions", ALL)) == len(got("/api/positions?scope=firm", ONE)) == 4, "without nodes a token reads the firm"
    assert [p["account"] for p in got("/api/positions", RISK)] == ["A0", "A1"] and got("/api/me", RISK)["home"] == "desk:D0"
    assert got("/api/me", PAIR)["nodes"] == ["book:B0", "account:A1"] and got("/api/risk/desk:D0", PAIR)["node"] == "desk:D0", "all of its accounts are granted"
    assert [a["kind"] for a in got("/api/alerts", RISK)] == ["stale", "breach"] and len(got("/api/alerts", ALL)) == 9
    assert {c["scope"]: c["reason"] for c in got("/api/breakers", RISK)} == {"desk:D0": "too much", "fund:F0": "(outside of what you may read)", "all": "(outside of what you may read)"}
    assert [x["limit_id"] for x in got("/api/limits", RISK)["limits"]] == ["L0"] and [p["approval_id"] for p in got("/api/approvals", RISK)] == ["P0"]
    seen, whole = (got("/api/decisions/O1", token)["decision"] for token in (RISK, ALL))
    assert seen["inputs"] == {} and [r["measured"] for r in seen["reasons"]] == ["12", "(outside of what you may read)"] and whole["inputs"]["nodes"] == [FIGURE]


MOVES = st.lists(st.one_of(st.tuples(st.sampled_from(["A0", "A1", "SECRETA"]), st.sampled_from([HERE, ALSO, THERE])), st.just("turn"), st.just("again"), st.just("late"),
                           st.sampled_from(["A0", "SECRETA"])), max_size=14)


@settings(max_examples=40, deadline=None)
@given(MOVES, st.sampled_from([("desk:D0",), ("book:B0", "account:A1"), ("dealer:X1",)]))
def test_frames_of_a_stream_are_of_what_may_be_read_then_and_late_clients_end_with_the_same(moves: list[Any], nodes: tuple[str, ...]) -> None:
    """Accounts move in and out of what is granted: none is shown while it lies outside, all of it once it lies within."""
    house = GatewayState("USD", LEVELS)
    fill(house)
    frames = Frames(house, lambda: 1)
    clients = [Client(frames, nodes[0], rate, None, nodes) for rate in (20, 2)]
    for k, move in enumerate(moves):
        now = 0.05 * k
        if move == "turn":
            house.turn()
        elif move == "late":
            clients.append(Client(frames, nodes[0], 10, None, nodes))
        elif move == "again":
            clients[k % len(clients)].again(frames, 10)
        elif isinstance(move, tuple):
            house.add_account(msgspec.structs.replace(move[1], account=move[0]))
        else:
            house.add_fact("reject", server.reject_event(decision(f"R{k}", move)))
        for client in clients:
            client.step(now)
    house.turn()
    clients.append(Client(frames, nodes[0], 5, None, nodes))
    sight = house.sights.of(nodes)
    for client in clients:
        client.step(1_000.0)
    for client in clients:
        assert client.tables == clients[-1].tables
        assert set(client.tables["node"]) == {n for n in house.nodes if sight.sees(n) and (not n.startswith("account:") or n == nodes[0])}
        kept = {f.seq for f in house.facts_seen(list(house.facts), sight)}
        assert kept <= set(client.facts)
        client.view.close()


def test_a_scope_that_moves_out_of_what_may_be_read_ends_its_stream() -> None:
    house = GatewayState("USD", LEVELS)
    fill(house)
    client = Client(Frames(house, lambda: 1), "pm:P0", 20, None, ("desk:D0",))
    client.step(0.0)
    assert client.tables["position"]
    house.add_account(msgspec.structs.replace(ALSO, desk="SECRETD"))
    assert client.view.step(1.0) == [] and client.view.ended


def test_a_token_is_in_no_address_no_log_and_no_message(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for path in (f"/api/limits?token={ALL}", f"/api/limits?access_token={ALL}", f"/api/stream?authorization=Bearer%20{ALL}"):
            assert ask(gateway, "GET", path, None).status_code == 401, "an address is in histories and logs"
        for token in (ALL, RISK, "x" * 20):
            replies = [ask(gateway, m, p, token) for m, p in (("GET", "/api/me"), ("GET", "/api/limits?scope=fund:F0"), ("POST", "/login"), ("GET", "/api/risk/no"))]
            assert not any(token in r.text for r in replies)
    assert not any(t in caplog.text.replace("?token=" + ALL, "").replace("access_token=" + ALL, "").replace("Bearer%20" + ALL, "") for t in (ALL, RISK, ONE))
    assert ALL not in repr(gateway.settings)
    for wrong in ("short:bob:risk", f"{ALL}:", f"{ALL}:bob:risk:", f"{ALL}:bob:risk:desk", f"{ALL}:bob:risk:desk:A+", f"{ALL}:bob:,{ALL}:eve:risk"):
        with pytest.raises(ValueError, match="api_tokens: entry") as found:
            parse_tokens(wrong)
        assert ALL not in str(found.value)
    assert parse_tokens(f"{ALL}:bob:risk+admin:desk:A B".replace(" ", "_"))[ALL].nodes == ("desk:A_B",)


def test_the_gates_door_answers_on_granted_accounts_alone() -> None:
    stage = SimpleNamespace(gate=SimpleNamespace(book=SimpleNamespace(reference=SimpleNamespace(account_records={a.account: a for a in (HERE, THERE)}), levels=LEVELS)),
                            owns=lambda p: True, check=lambda order: decision(order.order_id, order.account))
    door = GateHttp(stage, None, 4, "127.0.0.1", 0, parse_tokens(TOKENS))  # type: ignore[arg-type]

    async def post(account: str, token: str, path: str = "/orders/check") -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(door._server.config.app), base_url="http://gate") as client:
            body = msgspec.json.encode(msgspec.structs.replace(decision("O", account).order, account=account))  # type: ignore[type-var]
            return await client.post(path, content=body, headers={"Authorization": f"Bearer {token}"})
    ok, outside, unknown, whole = (asyncio.run(post(a, t)) for a, t in (("A0", RISK), ("SECRETA", RISK), ("NONE", RISK), ("SECRETA", ALL)))
    assert [r.status_code for r in (ok, outside, unknown, whole)] == [200, 403, 403, 200] and str(FIGURE) not in ok.text and str(FIGURE) in whole.text
    assert asyncio.run(post("SECRETA", RISK, "/orders")).status_code == 403
    door._socket.close()
