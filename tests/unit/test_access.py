"""Tokens that end, cookies that are none, and how much one user may ask for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app import request_bodies
from app.doctor import _tokens
from app.gateway.access import COOKIE, SESSION_S, Access, login, parse_tokens
from app.gateway.answers import error_answer
from app.gateway.pace import BURST_S, HALTS, HEAVY, KEPT_MAX, SIGN_INS, WRITES, Paced, Paces, kind_of
from app.gateway.server import Gateway
from app.request_bodies import body_of
from app.settings import Settings

ONE, TWO = "first-token-of-a-test", "other-token-of-a-test"
NOW = int(datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp())
DAY = 86_400


class Clock:
    def __init__(self) -> None:
        self.s = float(NOW)

    def ns(self) -> int:
        return int(self.s * 1e9)


class Counts(list[str]):
    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        self.append(labels["kind"])


async def who(request: Request) -> Response:
    user = request.scope["deskrisk.user"]
    return JSONResponse({"user": user.name if user else None})


async def written(request: Request) -> Response:
    return JSONResponse({"bytes": len(await body_of(request))})


def app(tokens: str, clock: Clock, open_reads: bool = False, per_s: float = 1.0, counts: Any = None) -> Starlette:
    paces = Paces(dict.fromkeys((WRITES, HALTS, HEAVY, SIGN_INS), per_s), lambda: clock.s)
    return Starlette(routes=[Route("/", who), Route("/api/me", who), Route("/api/whatif", who, methods=["POST"]), Route("/api/limits/{id}", written, methods=["PUT"]),
                             Route("/api/breakers/{scope}", who, methods=["POST"]), Route("/api/orders/check", who, methods=["POST"]), Route("/login", login, methods=["GET", "POST"])],
                     middleware=[Middleware(Access, tokens=parse_tokens(tokens), open_reads=open_reads, clock=clock.ns), Middleware(Paced, paces=paces, counters=counts if counts is not None else Counts())],
                     exception_handlers={HTTPException: error_answer})


def talk(app: Starlette, go: Callable[[httpx.AsyncClient], Any]) -> Any:
    async def run() -> Any:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://g") as client:
            return await go(client)
    return asyncio.run(run())


def get(app: Starlette, path: str = "/api/me", token: str | None = ONE, method: str = "GET", **headers: str) -> httpx.Response:
    given_ = ({"Authorization": f"Bearer {token}"} if token else {}) | headers
    return talk(app, lambda c: c.request(method, path, headers=given_))  # type: ignore[no-any-return]


# ---- tokens that end ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("until", "at"), [("2026-11-30", NOW + 1.5 * DAY), ("2026-11-29T13:00:00Z", NOW + 3600), ("2026-11-29T13:00:00.5Z", NOW + 3600.5), ("2027-02-28", NOW + 91.5 * DAY)])
def test_a_token_is_good_until_its_end_and_says_so_then(until: str, at: float) -> None:
    clock = Clock()
    made = app(f"{ONE}:rita:risk+admin:desk:FX1+fund:A;until={until},{TWO}:bob:risk", clock)
    assert get(made).json() == {"user": "rita"} and parse_tokens(f"{ONE}:rita:risk:desk:FX1;until={until}")[ONE].nodes == ("desk:FX1",)
    clock.s = at - 0.001
    assert get(made).status_code == 200
    clock.s = at
    refused = get(made)
    assert refused.status_code == 401 and refused.json()["error"].startswith("this token ended at 20") and "a new one is needed" in refused.json()["error"]
    assert get(made, token=TWO).json() == {"user": "bob"} and get(made, token="x" * 20).json() == {"error": "a token is needed"}
    assert get(app(f"{ONE}:rita:risk;until={until}", clock, open_reads=True)).status_code == 401, "whoever gives it is told, also where reads need none"


@pytest.mark.parametrize("entry", [";until=", ";until=tomorrow", ";until=2027-02-30", ";until=1999-01-01", ";until=2027-01-01T00:00:00", ";untill=2027-01-01", ";nodes=firm", ";until=2027-01-01;x"])
@pytest.mark.parametrize("before", ["{0}:rita:risk", "{0}:rita", "{0}:rita:risk:desk:FX1"])
def test_what_follows_an_entry_is_an_end_or_refused(entry: str, before: str) -> None:
    with pytest.raises(ValueError, match="api_tokens: entry 1: ") as found:
        parse_tokens(before.format(ONE) + entry)
    assert ONE not in str(found.value)


def test_doctor_says_which_tokens_have_ended_or_end_soon() -> None:
    def said(tokens: str | None) -> dict[str, tuple[str, str]]:
        return {x["what"]: (x["state"], x["found"]) for x in _tokens(Settings(api_tokens=tokens), NOW * 10**9)}  # type: ignore[arg-type]

    assert said(None) == {"API tokens": ("missing", "none: no writes over HTTP")} and said("short:bob")["API tokens"][0] == "wrong"
    found = said(f"{ONE}:rita:risk;until=2026-12-03,{TWO}:bob:risk;until=2026-11-01,{ONE}x:eve:risk,{TWO}x:zoe:risk;until=2027-12-01")
    assert found == {"API tokens": ("ok", "4, of which 1 do not end"), "API token of rita": ("soon", "ends at 2026-12-04T00:00:00.000Z, in 4.5 days"),
                     "API token of bob": ("wrong", "ended at 2026-11-02T00:00:00.000Z")}


def test_a_stream_ends_with_its_token() -> None:
    gateway = Gateway(Settings(brokers="localhost:1", api_tokens=f"{ONE}:rita:risk;until={datetime.fromtimestamp(time.time() + 0.6, UTC).isoformat()}"))  # type: ignore[arg-type]

    async def run() -> list[bytes]:
        seen = []
        async for frame in gateway.events("firm", 10, None, gateway.tokens[ONE], "user rita"):
            seen.append(frame)
        return seen

    seen = asyncio.run(asyncio.wait_for(run(), 10))
    assert b'"reason":"auth"' in seen[-1] and b"bye" in seen[-1] and not gateway._streams


# ---- cookies ------------------------------------------------------------------------------------------------------------
def sign_in(made: Starlette, token: str, url: str = "http://g") -> httpx.Response:
    async def run() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(made), base_url=url) as client:
            return await client.post("/login", data={"token": token})
    return asyncio.run(run())


def with_cookie(made: Starlette, cookie: str) -> httpx.Response:
    return get(made, token=None, Cookie=f"{COOKIE}={cookie}")


def test_the_cookie_is_not_the_token_and_ends_with_its_session_its_token_and_a_change_of_either() -> None:
    clock = Clock()
    tokens = f"{ONE}:rita:risk;until=2026-12-01,{TWO}:bob:risk"
    made = app(tokens, clock)
    reply = sign_in(made, ONE)
    cookie, raw = reply.cookies[COOKIE], reply.headers["set-cookie"]
    assert reply.status_code == 303 and ONE not in raw and "HttpOnly" in raw and "SameSite=strict" in raw and f"Max-Age={SESSION_S}" in raw and "Secure" not in raw
    assert "Secure" in sign_in(made, ONE, "https://g").headers["set-cookie"]
    assert with_cookie(made, cookie).json() == {"user": "rita"} and with_cookie(app(tokens, clock), cookie).json() == {"user": "rita"}, "of another gateway, too"
    assert with_cookie(made, ONE).status_code == 401, "a token is no cookie"
    assert get(made, token=cookie).status_code == 401, "and a cookie is no token"
    ends, signed = cookie.split(".")
    for forged in (f"{int(ends) + 9}.{signed}", f"{ends}.{signed[:-1]}{'0' if signed[-1] != '0' else '1'}", signed, f"{ends}.", "", "9" * 500 + "." + signed):
        assert with_cookie(made, forged).status_code == 401
    assert with_cookie(app(f"{ONE}y:rita:risk,{TWO}:bob:risk", clock), cookie).status_code == 401, "the token was changed"
    clock.s += SESSION_S - 1
    assert with_cookie(made, cookie).status_code == 200
    clock.s += 1
    assert with_cookie(made, cookie).status_code == 401 and get(made, "/", None, Cookie=f"{COOKIE}={cookie}").headers["location"] == "/login"
    clock.s = NOW + 2.25 * DAY
    late = sign_in(made, ONE)
    assert "Max-Age=21600" in late.headers["set-cookie"], "no longer than the token"
    clock.s = NOW + 2.5 * DAY
    assert with_cookie(made, late.cookies[COOKIE]).status_code == 401
    refused = sign_in(made, ONE)
    assert refused.status_code == 401 and "This token ended at 2026-12-02" in refused.text and COOKIE not in refused.cookies
    assert "not known" in sign_in(made, "w" * 20).text


def test_another_scheme_of_a_proxy_leaves_the_session_and_a_bare_token_is_none() -> None:
    made = app(f"{ONE}:rita:risk", Clock())
    cookie = sign_in(made, ONE).cookies[COOKIE]
    assert get(made, token=None, Authorization="Basic dXNlcjpwYXNz", Cookie=f"{COOKIE}={cookie}").json() == {"user": "rita"}
    assert get(made, token=None, Authorization=ONE).status_code == 401 and get(made, token=None, Authorization=f"bearer {ONE}").json() == {"user": "rita"}


# ---- how much ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("method", "path", "kind"), [
    ("PUT", "/api/limits/L", WRITES), ("DELETE", "/api/limits/L", WRITES), ("POST", "/api/overrides", WRITES), ("POST", "/api/alerts/x/ack", WRITES), ("POST", "/api/approvals/x", WRITES),
    ("POST", "/api/breakers/all", HALTS), ("POST", "/api/whatif", HEAVY), ("GET", "/api/decisions/O", HEAVY), ("GET", "/api/positions", HEAVY), ("GET", "/api/snapshot", HEAVY), ("GET", "/api/facts", HEAVY),
    ("POST", "/login", SIGN_INS), ("GET", "/login", None), ("GET", "/api/limits", None), ("GET", "/api/stream", None), ("POST", "/api/orders/check", None), ("GET", "/health/live", None), ("GET", "/", None)])
def test_what_a_request_counts_as(method: str, path: str, kind: str | None) -> None:
    assert kind_of(method, path) == kind


def test_one_user_who_asks_for_too_much_is_told_when_to_come_again_and_nobody_else_is_held_up() -> None:
    clock, counts = Clock(), Counts()
    made = app(f"{ONE}:rita:risk,{TWO}:bob:risk", clock, per_s=2.0, counts=counts)
    burst = int(2 * BURST_S)
    assert [get(made, "/api/limits/L", method="PUT").status_code for _ in range(burst)] == [200] * burst
    refused = get(made, "/api/limits/L", method="PUT")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1") and refused.json() == {"error": "too many writes of user rita: try again in 1 s"} and counts == [WRITES]
    assert get(made, "/api/breakers/all", method="POST").status_code == get(made, "/api/whatif", method="POST").status_code == 200, "a halt is held up by nothing else"
    assert get(made, "/api/limits/L", TWO, "PUT").status_code == get(made).status_code == 200
    clock.s += 0.5
    assert [get(made, "/api/limits/L", method="PUT").status_code for _ in range(2)] == [200, 429]
    clock.s += 3600
    assert [get(made, "/api/limits/L", method="PUT").status_code for _ in range(burst + 1)] == [200] * burst + [429], "no more than ten seconds of it is saved up"
    assert all(get(made, "/api/orders/check", method="POST").status_code == 200 for _ in range(3 * burst)), "orders have windows of their own"
    signs = [sign_in(made, "w" * 20).status_code for _ in range(burst + 1)]
    assert signs == [401] * burst + [429], "who tries tokens is nobody, at an address"


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 60)), max_size=12), st.sampled_from([0.05, 1.0, 20.0]))
def test_no_more_than_the_rate_and_one_burst_passes_in_any_span(steps: list[tuple[float, int]], rate: float) -> None:
    at, passed, times = [0.0], 0, list[float]()
    paces = Paces({WRITES: rate}, lambda: at[0])
    for wait, asks in steps:
        at[0] += wait
        for _ in range(asks):
            left = paces.wait_s("rita", WRITES)
            assert left >= 0.0
            passed += not left
            if not left:
                times.append(at[0])
    most = max(rate * BURST_S, 1.0)
    for k, begin in enumerate(times):
        for n, end in enumerate(times[k:], 1):
            assert n <= most + (end - begin) * rate + 1e-6
    if times:
        at[0] += 1.0 / rate
        assert paces.wait_s("rita", WRITES) == 0.0, "after the time that is told it passes"


def test_who_asks_once_is_forgotten_before_memory_grows() -> None:
    paces = Paces({WRITES: 1.0}, lambda: 0.0)
    for k in range(KEPT_MAX + 100):
        paces.wait_s(f"address {k}", WRITES)
    assert len(paces._held) == KEPT_MAX


def test_a_body_that_is_too_long_or_does_not_come_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_bodies, "BODY_S", 0.05)
    made = app(f"{ONE}:rita:risk", Clock())

    async def slow() -> Any:
        yield b"{"
        await asyncio.sleep(2)
        yield b"}"

    headers = {"Authorization": f"Bearer {ONE}"}
    late = talk(made, lambda c: c.put("/api/limits/L", content=slow(), headers=headers))
    assert late.status_code == 408 and "within 0.05 s" in late.json()["error"]
    long = talk(made, lambda c: c.put("/api/limits/L", content=b"x" * (request_bodies.BODY_BYTES_MAX + 1), headers=headers))
    assert long.status_code == 413


def test_one_user_has_so_many_streams_and_no_more() -> None:
    gateway = Gateway(Settings(brokers="localhost:1", api_tokens=f"{ONE}:rita:risk,{TWO}:bob:risk", api_streams_max=2))  # type: ignore[arg-type]

    async def run() -> None:
        def request(user: str) -> Request:
            return Request({"type": "http", "method": "GET", "path": "/api/stream", "headers": [], "query_string": b"scope=firm", "deskrisk.user": gateway.tokens[user]})

        open_ = [gateway.events("firm", 10, None, gateway.tokens[ONE], "user rita") for _ in range(2)]
        for events in open_:
            await anext(events)
        refused = await gateway.stream(request(ONE))
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5") and b"2 are open" in refused.body
        assert (await gateway.stream(request(TWO))).status_code == 200
        await open_[0].aclose()  # type: ignore[attr-defined]
        assert (await gateway.stream(request(ONE))).status_code == 200
        await open_[1].aclose()  # type: ignore[attr-defined]

    asyncio.run(run())
