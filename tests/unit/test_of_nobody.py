"""Limits and trading states of nodes that nobody has: refused where a person writes them, kept and said on their topics."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from agents.of_nobody import LOOK_NS, WAIT_NS
from agents.risk_watch import RiskWatch
from agents.router import Router
from app import control
from app.gateway.server import Gateway
from app.settings import Settings
from models.known_nodes import KnownNodes
from models.reference import Reference
from models.trading_states import states_after
from schemas.codec import encode
from schemas.records import Account, Control, Instrument, Limit
from tests.property.test_limit_door import REASON, T0, TOPICS, Log

ACCOUNTS = [Account(account="FX1-001", book="B1", desk="FX1", strategy="CARRY", fund="ALPHA", dealer="ann", pm="bob", traders=["t1"]),
            Account(account="EQ1-001", book="B2", desk="EQ1", strategy="CARRY", fund="BETA", traders=["t2", "t3"], levels={"region": "EMEA"})]
INSTRUMENTS = [Instrument(instrument="EURUSD", asset_class="fx", currency="USD"), Instrument(instrument="SAP", asset_class="equity", currency="EUR", issuer="SAP SE", sector="tech")]
LEVELS = ("book", "desk", "strategy", "fund", "region", "firm")


def reference(accounts: list[Account] = ACCOUNTS) -> Reference:
    made = Reference(lambda account: 0)
    for account in accounts:
        made.add_account(account)
    for instrument in INSTRUMENTS:
        made.add_instrument(instrument)
    return made


@pytest.mark.parametrize("node", ["all", "firm", "fund:ALPHA", "strategy:CARRY", "desk:EQ1", "book:B1", "account:FX1-001", "dealer:ann", "pm:bob", "region:EMEA", "trader:t3", "instrument:SAP",
                                  "issuer:SAP SE", "sector:tech", "currency:EUR", "pair:EURUSD", "asset_class:bond", "venue:EBS", "counterparty:BANKX", "order:O1"])
def test_what_somebody_has_or_only_orders_name_is_known(node: str) -> None:
    assert KnownNodes(reference(), LEVELS).nobody(node) is None


@pytest.mark.parametrize(("node", "near"), [
    ("fund:ALHPA", "fund:ALPHA"), ("desk:EQ2", "desk:EQ1"), ("desk:B1", "book:B1"), ("account:FX1-01", "account:FX1-001"), ("region:EMAE", "region:EMEA"), ("trader:t9", "trader:t3"),
    ("instrument:EURUDS", "instrument:EURUSD"), ("issuer:SAP", "instrument:SAP"), ("pair:SAP", "instrument:SAP"), ("asset_class:bnod", "asset_class:bond"), ("pm:nobody", "pm:bob"), ("issuer:XYZ", "issuer:SAP SE"), ("dealer:EQ1", "desk:EQ1")])
def test_what_nobody_has_is_told_with_the_nearest_name(node: str, near: str | None) -> None:
    found = KnownNodes(reference(), LEVELS).nobody(node)
    assert found == f"nobody has {node!r}" + (f", the nearest is {near!r}" if near else "")


def test_who_may_trade_is_known_only_where_every_account_says_so() -> None:
    open_one = [*ACCOUNTS, Account(account="Z", book="B", desk="D", strategy="S", fund="F")]
    assert KnownNodes(reference(open_one), LEVELS).nobody("trader:t9") is None


def limit(node: str, **more: Any) -> Limit:
    return Limit(**({"limit_id": "L1", "node": node, "metric": "gross", "limit": Decimal(5), "version": 1, "by": "ann", "reason": REASON} | more))


class Stage:
    """The lead of the risk stage, as far as rules go."""

    def __init__(self, log: Log, known: Reference) -> None:
        self.log, self.read, self.refused = log, 0, list[tuple[str, str]]()
        self.watch = RiskWatch(TOPICS, log, log, known, LEVELS)  # type: ignore[arg-type]
        self.router = Router({t: t for t in TOPICS}, log, "refused", self.put_aside)  # type: ignore[arg-type]
        self.router.subscribe("limits", Limit, *self.watch.judged(lambda x, _: None, lambda place: None))
        self.router.subscribe("controls", Control, lambda x, place: self.watch.take_control(x, place.key), self.watch.drop_control)

    def put_aside(self, batch: Any, k: int, reason: Any, detail: str, raw: bytes) -> None:
        self.refused.append((str(reason), detail))
        self.watch.refused(batch.topic, batch.keys[k].decode(), reason, detail)

    def come(self, topic: str, key: str, record: Any) -> None:
        self.log.records.append((topic, key, None if record is None else record if isinstance(record, bytes) else encode(record), T0))
        self.follow()

    def follow(self) -> None:
        for topic, key, value, ts in self.log.records[self.read:]:
            self.router(SimpleNamespace(topic=topic, partition=0, keys=[key.encode()], values=[value], offsets=np.array([self.read]),  # type: ignore[arg-type]
                                        timestamps_ms=np.array([ts // 1_000_000])))
            self.read += 1

    def said(self) -> list[tuple[str, str, str]]:
        found = [(a.kind, a.node, a.note or "") for a in self.log.alerts]
        self.log.alerts.clear()
        return found


def halt(scope: str, rev: int = 1, state: Any = "halted") -> Control:
    return Control(scope=scope, state=state, reason=REASON, by="ann", ts=T0, rev=rev)


def test_what_is_of_nobody_is_said_once_and_ends_when_somebody_comes_or_it_does() -> None:
    log, known = Log(), reference()
    stage = Stage(log, known)
    stage.come("controls", "desk:EQ2", halt("desk:EQ2"))
    stage.come("controls", "desk:FX1", halt("desk:FX1"))
    stage.come("limits", "L1", limit("fund:GAMMA"))
    stage.come("limits", "L2", limit("account:FX1-001", limit_id="L2", metric="position_long", instrument="SAQ"))
    stage.come("limits", "L3", limit("desk:FX1", limit_id="L3"))
    stage.watch.settle(T0)
    stage.watch.settle(T0 + WAIT_NS - 1)
    assert stage.said() == [], "an account may be on its way"
    now = T0 + WAIT_NS + LOOK_NS
    stage.watch.settle(now)
    assert sorted(stage.said()) == [("stale", "account:FX1-001", "L2 limits nobody: nobody has 'instrument:SAQ', the nearest is 'instrument:SAP'"),
                                    ("stale", "desk:EQ2", "halted by ann, and nobody is stopped: nobody has 'desk:EQ2', the nearest is 'desk:EQ1'"),
                                    ("stale", "fund:GAMMA", "L1 limits nobody: nobody has 'fund:GAMMA', the nearest is 'fund:ALPHA'")]
    stage.watch.settle(now := now + LOOK_NS)
    assert stage.said() == []
    again = Stage(log, known)  # a restart reads what was said
    again.follow()
    for alert in [*stage.watch._of_nobody._said.values()]:
        again.watch.take_alert(alert)
    again.watch.settle(now)
    again.watch.settle(now := now + 2 * WAIT_NS)
    assert again.said() == []
    known.add_account(Account(account="N", book="B", desk="EQ2", strategy="S", fund="GAMMA"))
    again.come("limits", "L2", None)
    again.watch.settle(now + LOOK_NS)
    assert sorted(again.said()) == [("clear", "account:FX1-001", ""), ("clear", "desk:EQ2", ""), ("clear", "fund:GAMMA", "")]
    assert stage.refused == again.refused == []


def test_a_scope_of_no_kind_is_refused_with_the_nearest_and_a_withdrawal_lifts_no_state() -> None:
    log = Log()
    stage = Stage(log, reference())
    stage.come("controls", "dsk:FX1", halt("dsk:FX1"))
    stage.come("controls", "desk:", halt("desk:"))
    stage.come("controls", "al", halt("al"))
    assert [r for r, _ in stage.refused] == ["bad_field"] * 3 and "(desk:FX1?), was 'dsk:FX1'" in stage.refused[0][1] and "(all?)" in stage.refused[2][1]
    assert stage.watch.states.standing == {}
    stage.come("controls", "desk:FX1", halt("desk:FX1"))
    stage.come("controls", "desk:FX1", None)
    stage.come("controls", "desk:NONE", None)
    assert stage.refused[3:] == [("null_value", "desk:FX1: expected a record that makes it active, with who and why, was a withdrawal")]
    stage.watch.settle(T0)
    stage.follow()
    late = Stage(Log(), reference())
    late.log.records = log.compacted()
    late.follow()
    assert late.watch.states.standing == stage.watch.states.standing == {"desk:FX1": halt("desk:FX1")}
    assert states_after([("desk:FX1", halt("desk:FX1")), ("desk:FX1", None), ("dsk:X", halt("dsk:X"))]) == {"desk:FX1": halt("desk:FX1")}


RISK = "risk-token-of-a-test"


def asked(monkeypatch: pytest.MonkeyPatch, *calls: tuple[str, str, dict[str, Any]], later: Account | None = None, standing: tuple[Control, ...] = ()) -> list[tuple[int, str]]:
    """Return what a gateway answers; what it would write comes back as it was asked for."""
    gateway = Gateway(Settings(brokers="localhost:1", api_tokens=f"{RISK}:rita:risk", levels=LEVELS))
    for account in ACCOUNTS:
        gateway.state.add_account(account)
    for instrument in INSTRUMENTS:
        gateway.state.add_instrument(instrument)
    for one in standing:
        gateway.state.states.take(one)

    async def catch_up() -> None:
        if later is not None:
            gateway.state.add_account(later)

    async def written(settings: Settings, *what: Any) -> Any:
        return {"written": [x for x in what if isinstance(x, str | dict)]}

    monkeypatch.setattr(gateway, "_catch_up", catch_up)
    monkeypatch.setattr(control, "set_state", written)
    monkeypatch.setattr(control, "set_limit", written)

    async def run() -> list[tuple[int, str]]:
        app = gateway.app()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://g", headers={"Authorization": f"Bearer {RISK}"}) as client:
            found = [await client.request(method, path, json=body or None) for method, path, body in calls]
        return [(r.status_code, r.text) for r in found]

    return asyncio.run(run())


def breaker(scope: str, **more: Any) -> tuple[str, str, dict[str, Any]]:
    return ("POST", f"/api/breakers/{scope}", {"action": "halt", "reason": REASON} | more)


def wanted(node: str, **more: Any) -> tuple[str, str, dict[str, Any]]:
    return ("PUT", "/api/limits/L", {"node": node, "metric": "gross", "limit": 5, "reason": REASON} | more)


def test_the_gateway_refuses_what_nobody_has_with_the_nearest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked(monkeypatch, breaker("desk:EQ2"), wanted("fund:ALHPA"), wanted("account:FX1-001", metric="position_long", instrument="SAQ"), breaker("desk:NOWHERE", action="resume"))
    assert [status for status, _ in found] == [404] * 4
    for (_, text), says in zip(found, ("scope: nobody has 'desk:EQ2', the nearest is 'desk:EQ1'", "node: nobody has 'fund:ALHPA', the nearest is 'fund:ALPHA'",
                                       "instrument: nobody has 'instrument:SAQ', the nearest is 'instrument:SAP'", "scope: nobody has 'desk:NOWHERE'"), strict=True):
        assert json.loads(text)["error"].startswith(says)
    taken = asked(monkeypatch, breaker("desk:EQ1"), breaker("all"), breaker("trader:t1"), breaker("venue:NEW"), wanted("fund:ALPHA"), wanted("firm"), breaker("desk:EQ2", unseen=True),
                  wanted("fund:NEW", unseen=True))
    assert [status for status, _ in taken] == [200] * 8 and "unseen" not in str(taken)
    assert asked(monkeypatch, breaker("desk:EQ2", unseen="yes"))[0][0] == 400


def test_what_comes_later_and_what_stands_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    new = Account(account="N", book="B", desk="EQ2", strategy="S", fund="GAMMA")
    assert asked(monkeypatch, breaker("desk:EQ2"), wanted("fund:GAMMA"), later=new)[0][0] == 200, "it was published just before"
    stands = (halt("desk:GONE"),)
    assert asked(monkeypatch, breaker("desk:GONE", action="resume"), standing=stands)[0][0] == 200, "its account has moved since"
    ((_, text),) = asked(monkeypatch, ("GET", "/api/breakers", {}), standing=(*stands, halt("desk:EQ1")))
    assert {c["scope"]: c["of_nobody"] for c in json.loads(text)} == {"desk:GONE": "nobody has 'desk:GONE', the nearest is 'desk:EQ1'", "desk:EQ1": None}


def test_a_command_is_refused_in_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    async def current(settings: Settings, topic: str, cls: Any) -> dict[str, Any]:
        return {a.account: a for a in ACCOUNTS} if topic == "reference.accounts" else {i.instrument: i for i in INSTRUMENTS}

    monkeypatch.setattr(control, "current", current)
    settings = Settings(levels=LEVELS)
    asyncio.run(control.need_somebody(settings, "desk:EQ1", "instrument:SAP", "all"))
    with pytest.raises(control.Refused, match=r"nobody has 'desk:EQ2', the nearest is 'desk:EQ1'; with --unseen"):
        asyncio.run(control.need_somebody(settings, "desk:EQ1", "desk:EQ2"))
