"""The gateway over HTTP, without a broker: what it answers of nodes, its health, and a stream's first frames."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

from app.control import acknowledged
from app.gateway import server
from app.gateway.events import alert_event
from app.gateway.server import FOLLOWING, Gateway
from app.settings import Settings
from models.limits import LimitMonitor, key_of
from schemas.records import Limit
from tests.property.test_rollup import INSTRUMENTS, account, mark, position


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """A gateway with two accounts of two books, whose tails and turns are said to go on."""
    monkeypatch.setattr(server.process, "ages", lambda now: dict.fromkeys(FOLLOWING, 0.1))
    made = Gateway(Settings(brokers="localhost:1"))
    for record in INSTRUMENTS:
        made.state.book.add_instrument(record)
    for k, book in enumerate((0, 3)):
        made.state.add_account(account(f"A{k}", book))
        made.state.add_position(position(f"A{k}", "SAP", 10.0 * (k + 1), 50.0, 0.0, k + 1), 0)
    made.state.book.add_mark(mark("SAP", 60.0))
    made.state.turn()
    made.turned_ms, made.ready = int(time.time() * 1000), True
    yield made


def get(gateway: Gateway, path: str) -> tuple[int, Any]:
    """Return status and body of an answer."""
    async def ask() -> tuple[int, Any]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway.app()), base_url="http://gateway") as client:
            reply = await client.get(path)
            return reply.status_code, reply.json()
    return asyncio.run(ask())


def books(gateway: Gateway, scope: str) -> dict[str, list[str]]:
    """Return the books of a scope's ladder and of its positions."""
    table = get(gateway, f"/api/snapshot?scope={scope}")[1]["tables"][0]
    held = get(gateway, f"/api/positions?scope={scope}")[1]
    names = gateway.state.book.reference.account_records
    return {"ladder": sorted(row[table["cols"].index("book")] for row in table["rows"]),
            "positions": sorted(names[p["account"]].book for p in held)}


def test_rows_follow_an_account_that_moves(gateway: Gateway) -> None:
    assert books(gateway, "desk:D0") == {"ladder": ["B0"], "positions": ["B0"]}
    gateway.state.add_account(account("A1", 1))
    gateway.state.turn()
    assert books(gateway, "desk:D0") == {"ladder": ["B0", "B1"], "positions": ["B0", "B1"]}
    assert books(gateway, "desk:D1") == {"ladder": [], "positions": []}
    assert get(gateway, "/api/snapshot?scope=strategy:S0")[1]["tables"][1]["children"] == ["desk:D0"]


@pytest.mark.parametrize("path", ["/api/snapshot?scope=zz:1", "/api/positions?scope=book:no", "/api/stream?scope=desk:no",
                                  "/api/risk/desk:no", "/api/risk/zz:1/contributors"])
def test_a_node_that_does_not_exist_is_404_and_leaves_nothing(gateway: Gateway, path: str) -> None:
    before = len(gateway.state.lines._scopes)
    status, body = get(gateway, path)
    assert status == 404 and "is not known" in body["error"]
    assert len(gateway.state.lines._scopes) == before


@pytest.mark.parametrize("task", FOLLOWING)
def test_what_stands_still_is_not_ready_and_its_figures_age(gateway: Gateway, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert get(gateway, "/health/ready")[0] == 200
    for ages in ({name: 0.1 for name in FOLLOWING if name != task}, dict.fromkeys(FOLLOWING, 0.1) | {task: 12.0}):
        monkeypatch.setattr(server.process, "ages", lambda now, ages=ages: ages)
        status, body = get(gateway, "/health/ready")
        assert (status, body["status"]) == (503, "behind") and body["lag_s"][task] == ages.get(task)
        beat = next(b for e, b in first_events(gateway, 6) if e == "hb")
        assert time.time() * 1000 - beat["t"] > 5_000, "the page's age follows"


def test_turns_that_stop_are_seen(gateway: Gateway) -> None:
    gateway.turned_ms -= 7_000
    assert get(gateway, "/health/ready")[0] == 503
    beat = next(b for e, b in first_events(gateway, 6) if e == "hb")
    assert beat["t"] == beat["turned"] == gateway.turned_ms


def first_events(gateway: Gateway, count: int) -> list[tuple[str, Any]]:
    """Return the first events of a stream of the firm."""
    async def read() -> list[tuple[str, Any]]:
        out: list[tuple[str, Any]] = []
        events = gateway.events("firm", 10, None)
        async for frame in events:
            fields = dict(line.split(": ", 1) for line in frame.decode().strip().split("\n"))
            if "event" in fields:
                out.append((fields["event"], json.loads(fields["data"])))
            if len(out) == count or out[-1][0] == "hb":
                break
        await events.aclose()
        return out
    return asyncio.run(read())


def test_a_stream_begins_with_everything(gateway: Gateway) -> None:
    assert [e for e, _ in first_events(gateway, 6)] == ["hello", "snapshot", "snapshot", "facts", "feed", "hb"]
    assert gateway.clients == 0


def test_a_breach_that_has_become_an_approach_is_shown_as_one(gateway: Gateway) -> None:
    """It was shown as ok: the record is a clear, whose note says what stands."""
    monitor, state = LimitMonitor(), gateway.state
    limit = Limit(limit_id="L", node="desk:D0", metric="gross", limit=Decimal(100), version=1, by="ann", reason="of a test")
    monitor.add(limit)
    state.add_limit(limit)

    def shown(value: float, second: int) -> tuple[str, list[tuple[str, str]]]:
        for change in monitor.measure({key_of(limit): value}, second * 10**9, second):
            state.add_alert(change.alert)
        (found,) = get(gateway, "/api/limits?scope=desk:D0")[1]["limits"]
        return found["state"], [(a["kind"], a["state"]) for a in map(alert_event, state.open_alerts())]

    assert shown(120.0, 1) == ("breach", [("breach", "raised")])
    assert shown(90.0, 2) == ("approach", [("approach", "raised")])
    newest = [f.data for f in state.facts if f.event == "alert"][-1]
    assert (newest["kind"], newest["state"]) == ("approach", "raised"), "an early client has what a late one has"
    state.add_alert(acknowledged(list(state.alerts.values())[-1], "bob", "seen it"))
    assert shown(90.0, 3) == ("approach", [("approach", "acked")])
    assert shown(10.0, 4) == ("ok", [])


def test_facts_are_paged_and_a_page_that_cannot_be_is_refused(gateway: Gateway) -> None:
    for k in range(5):
        gateway.state.add_fact("reject", {"rid": k})
    status, first = get(gateway, "/api/facts?limit=2")
    assert status == 200 and [f["data"]["rid"] for f in first["facts"]] == [3, 4] and first["more"]
    before = first["facts"][0]["data"]["seq"]
    rest = get(gateway, f"/api/facts?before={before}")[1]
    assert [f["data"]["rid"] for f in rest["facts"]] == [0, 1, 2] and not rest["more"] and not rest["forgotten"]
    for wrong in ("before=0", "before=x", "limit=1001", "limit=-1", "before=" + "9" * 40):
        assert get(gateway, f"/api/facts?{wrong}")[0] == 400


@pytest.mark.parametrize("path", ["/api/whatif", "/login"])
def test_a_body_that_does_not_end_is_413(gateway: Gateway, path: str) -> None:
    taken: list[int] = []

    async def parts() -> AsyncIterator[bytes]:
        for k in range(100):
            taken.append(k)
            yield b"x" * 65_536

    async def ask() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway.app()), base_url="http://gateway") as client:
            return (await client.post(path, content=parts())).status_code
    assert asyncio.run(ask()) == 413 and len(taken) < 10
