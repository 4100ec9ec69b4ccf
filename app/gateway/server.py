"""The gateway process: tails the compacted topics, serves the page, the snapshot and the stream."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from importlib.metadata import version
from operator import itemgetter
from pathlib import Path
from typing import Any

import uvicorn
from prometheus_client import generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from agents.limit_alerts import newest_alerts
from agents.market_inputs import MarketInputs
from agents.router import Place, Router
from app.collector import settle_collector
from app.gateway.access import Access, User, ending, login, parse_tokens
from app.gateway.answers import error_answer, json_answer, scope_of, sight_of
from app.gateway.asgi import CountedStream, SecurityHeaders
from app.gateway.events import breaker_event, reject_event
from app.gateway.pace import HALTS, HEAVY, SIGN_INS, SIGN_INS_PER_S, WRITES, Paced, Paces, too_many, who_asks
from app.gateway.quarantine import QuarantineView
from app.gateway.read_so_far import read_route
from app.gateway.reads import Reads
from app.gateway.state import GatewayState
from app.gateway.stream import ClientView, Frames, frame_of
from app.gateway.used_limits import UsedLimits
from app.gateway.whatif import WhatIf
from app.gateway.writes import Writes
from app.metrics import PrometheusCounters
from app.put_aside import quarantine_of
from app.settings import Settings
from app.unreadable import take_passed_over
from models.limit_door import LimitDoor
from schemas.addresses import LimitsUsed
from schemas.nodes import MODELS_SUFFIX
from schemas.reasons import QuarantineReason
from schemas.records import Account, Alert, Approval, Control, Decision, Instrument, Limit, Mark, Quarantined
from schemas.units import format_ts_ns, parse_ts_ns
from tables.records import RecordBatch
from tables.tail import Tail
from tables.tasks import process, turned
from tables.watchdog import watch

log = logging.getLogger(__name__)
BUILD = version("deskrisk")
STATIC = Path(__file__).parent / "static"
#: changes get a number this often; after trades sooner, but where processors are scarce a turn takes long, and then
#: the next one waits this many times as long
TURN_S, TRADE_TURN_S, TURNS_APART = 0.05, 0.02, 10.0
STALE_MS = {"stream": 1500, "prices": 2000, "trades": 60000}
#: a client that takes no bytes for this long is dropped and comes back by itself
SEND_TIMEOUT_S = 3
SEND_BUFFER_BYTES = 65_536
#: who has too many streams open may try again then
STREAM_RETRY_S = 5.0
RATE_MIN, RATE_MAX = 2, 20
#: what keeps a gateway's figures fresh, by the names of its background tasks
FOLLOWING = ("numbers tail", "alerts tail", "decisions tail", "rules tail", "turns")
#: a quiet tail's turn takes a second; from here on it is late, and one that does not run is so for ever
TAIL_LATE_S, LOST_S = 3.0, 86_400.0
#: of each partition so many decisions are read at a start: refused orders among them are known to a new gateway too
DECISIONS_READ = 500
#: a gateway that follows no more for so long is not ready
NOT_READY_MS = 5_000


class Gateway:
    """The state, its tails, and the routes over it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.state = GatewayState(settings.base_currency, settings.levels, settings.trading_day(),
                                  settings.surface_age_ns)
        self.counters = PrometheusCounters()
        secret = settings.api_tokens
        self.tokens = parse_tokens(secret.get_secret_value() if secret else None)
        topics = settings.topics()
        self._names = {v: k for k, v in topics.items()}
        self.used = UsedLimits(settings.partitions, self.state.book.reference, settings.levels)
        self.quarantine = QuarantineView(settings.prefix, self.state)
        self._aside, self._put_aside = quarantine_of(settings, self.counters)
        self._door = LimitDoor(settings.levels)
        self._router = self._routes()
        client = settings.client()
        wanted = ("reference.instruments", "reference.accounts", "market.surfaces", "marks", "positions", "risk")
        self._tail = Tail(client, [topics[t] for t in wanted], self._on_batch, isolation_level="read_uncommitted",
                          without_keys=(topics["positions"],))
        self._alerts = Tail(client, [topics["alerts"]], self._on_batch, pace_s=0.0)
        self._decisions = Tail(client, [topics["decisions"]], self._on_batch)
        rules = ("limits", "controls", "approvals", "touches", "limits-used")
        self._rules = Tail(client, [topics[t] for t in rules], self._on_batch, wait_ms=100)
        self._refused = Tail(client, [topics["quarantine"]], self._on_batch, wait_ms=500)
        self._turned = asyncio.Event()  # a new one each turn; every waiting client holds the present one
        self._tasks: list[asyncio.Task[Any]] = []
        self._traded = asyncio.Event()
        self.frames = Frames(self.state, self._fresh_ms)
        #: ms, when the last turn was completed
        self.turned_ms = 0
        self.ready = False
        #: facts of before this gateway began, with their times
        self._past: list[tuple[int, Callable[[], None]]] = []
        self.clients = 0
        #: streams that are open, by whom they are of
        self._streams: Counter[str] = Counter()
        self.stopping = asyncio.Event()

    # ---- tails ----------------------------------------------------------------------------------------------------
    def _routes(self) -> Router:
        state, router = self.state, Router(self._names, self.counters, "gateway_refused", self._put_aside.send,
                                           self.settings.future_ns)
        router.subscribe("marks", Mark, self._take_mark)
        router.subscribe("risk", None, self._take_risk, lambda place: state.end_node(place.key))
        router.subscribe("alerts", Alert, self._take_alert)
        router.subscribe("decisions", Decision, self._take_decision)
        router.subscribe("limits", Limit, self._take_limit, self._drop_limit)
        router.subscribe("controls", Control, self._take_control, lambda place: state.states.withdraw(place.key))
        router.subscribe("approvals", Approval, lambda asked, place: state.approvals.take_in(place.key, asked),
                         lambda place: state.approvals.take_in(place.key, None))
        router.subscribe("quarantine", Quarantined, lambda record, _: self.quarantine.take(record))
        router.subscribe("limits-used", LimitsUsed, lambda used, _: self.used.take(used))
        MarketInputs(state.book).subscribe(router)
        router.subscribe("reference.instruments", Instrument, lambda record, _: state.add_instrument(record))
        router.subscribe("reference.accounts", Account, self._take_account)
        return router

    def _on_batch(self, batch: RecordBatch) -> None:
        if self._names[batch.topic] != "positions":
            self._router(batch)
            return
        # a withdrawn one has no value: it is published again by its new shard
        for k, error in self.state.add_positions(batch.values, batch.partition):
            self.counters.add("gateway_refused", topic="positions")
            log.error("positions %s@%s refused: %s", batch.partition, int(batch.offsets[k]), error)
            self._put_aside.send(batch, k, QuarantineReason.BAD_FIELD, error, bytes(batch.values[k] or b""))
        self._traded.set()

    def _take_mark(self, mark: Mark, _: Place) -> None:
        self.state.book.add_mark(mark)
        self.state.last_mark_ns = max(self.state.last_mark_ns, mark.window_end)

    def _take_risk(self, value: bytes, place: Place) -> None:
        if place.key.endswith(MODELS_SUFFIX):
            self.state.add_models(place.key.removesuffix(MODELS_SUFFIX), value)
        else:
            self.state.take_risk(place.key, value)

    def _take_account(self, account: Account, _: Place) -> None:
        self.state.add_account(account)
        self.used.accounts_changed()

    def _take_limit(self, limit: Limit, place: Place) -> None:
        self._door.take(limit, place.ts_ns)
        self.state.add_limit(limit)

    def _drop_limit(self, place: Place) -> None:
        self._door.remove(place.key, place.ts_ns)
        self.state.limits.pop(place.key, None)

    def _take_alert(self, alert: Alert, _: Place) -> None:
        self._fact(alert.raised_ts, lambda: self.state.add_alert(alert))

    def _take_decision(self, decision: Decision, _: Place) -> None:
        if decision.outcome != "accept":
            self._fact(decision.ts_decision, lambda: self.state.add_fact("reject", reject_event(decision)))

    def _fact(self, ts_ns: int, add: Callable[[], None]) -> None:
        """Add a fact; one of before this gateway began waits, so that those of all partitions are in order of time."""
        if self.ready:
            add()
        else:
            self._past.append((ts_ns, add))

    def _take_control(self, control: Control, _: Place) -> None:
        if not self.state.states.take(control):
            return
        self._fact(parse_ts_ns(control.ts, "ts"), lambda: self.state.add_fact("breaker", breaker_event(control)))

    async def start(self) -> None:
        """Read what there is, then follow."""
        await take_passed_over(self.settings)
        self._aside.start()
        await self._tail.start()
        await self._tail.read_to_end()
        await self._rules.start()
        await self._rules.read_to_end()
        s = self.settings
        topics = s.topics()
        await self._alerts.start(await newest_alerts(s.client(), topics["alerts"], s.partitions))
        await self._decisions.start(await newest_alerts(s.client(), topics["decisions"], s.partitions, DECISIONS_READ))
        for tail in (self._alerts, self._decisions):
            await tail.read_to_end()
        for _, add in sorted(self._past, key=itemgetter(0)):
            add()
        self._past.clear()
        await self._refused.start()
        self.state.turn()
        self.turned_ms = int(time.time() * 1000)
        self._tasks = [self._tail.follow("numbers tail"), self._alerts.follow("alerts tail"),
                       self._decisions.follow("decisions tail"), self._rules.follow("rules tail"),
                       self._refused.follow("quarantine tail"),
                       process.start("turns", self._turns, bound_s=30.0)]
        settle_collector()
        self.ready = True

    async def _catch_up(self) -> None:
        """Wait until what is on the topics of reference data by now has been read."""
        ends = await self._tail.ends()
        known = {topic for topic, name in self._names.items() if name.startswith("reference.")}
        await self._tail.wait_until({tp: end for tp, end in ends.items() if tp.topic in known})

    async def _turns(self) -> None:
        loop = asyncio.get_running_loop()
        due, took = loop.time(), 0.0
        while True:
            due = max(due + TURN_S, loop.time())
            await asyncio.sleep(min(max(TRADE_TURN_S, TURNS_APART * took), TURN_S))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._traded.wait(), max(due - loop.time(), 0.0))
            self._traded.clear()
            started = time.perf_counter()
            self.state.turn()
            self.turned_ms = int(time.time() * 1000)
            took = time.perf_counter() - started
            self.counters.observe("gateway_turn_seconds", took)
            self._wake_clients()
            turned()

    def _wake_clients(self) -> None:
        turned, self._turned = self._turned, asyncio.Event()
        turned.set()

    def say_goodbye(self) -> None:
        """End every stream with a farewell."""
        self.stopping.set()
        self._wake_clients()

    async def stop(self) -> None:
        """Say goodbye and disconnect."""
        self.say_goodbye()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for tail in (self._tail, self._alerts, self._decisions, self._rules, self._refused):
            await tail.stop()
        await self._aside.stop()

    # ---- the stream -----------------------------------------------------------------------------------------------
    def _fresh_ms(self) -> int:
        """Return until when, in ms, the gateway has followed: a tail that hangs holds it back as a turn does."""
        ages = process.ages(time.monotonic())
        late = [ages.get(name, math.inf) for name in FOLLOWING]
        held = max((age for age in late if age > TAIL_LATE_S), default=0.0)
        return min(self.turned_ms, int((time.time() - min(held, LOST_S)) * 1000))

    def lags(self) -> dict[str, float | None]:
        """Return by tail how many seconds its turn that is under way runs; None: it does not run."""
        ages = process.ages(time.monotonic())
        return {name: round(ages[name], 3) if name in ages else None for name in FOLLOWING}

    def _feeds(self) -> dict[str, Any]:
        now = int(time.time() * 1000)
        ages = {"prices": now - self.state.last_mark_ns // 1_000_000 if self.state.last_mark_ns else None,
                "trades": now - self.state.last_trade_ms if self.state.last_trade_ms else None}
        feeds = [{"name": n, "age_ms": a,
                  "state": "none" if a is None else "live" if a <= STALE_MS[n] else "stale"} for n, a in ages.items()]
        return {"t": self._fresh_ms(), "feeds": feeds, "recon": None}

    async def events(self, scope: str, rate: int, last_id: str | None, user: User | None = None,
                     who: str = "") -> AsyncIterator[bytes]:
        """Yield the frames of one client until it goes, is too slow, its token ends, or the server stops."""
        state = self.state
        sight = state.sights.of(user.nodes) if user else state.sights.of()
        client = ClientView(self.frames, scope, rate, last_id, sight.nodes)
        self.clients += 1
        self._streams[who] += 1
        self.counters.set("sse_clients", self.clients)
        try:
            yield frame_of("hello", {
                "v": 1, "epoch": state.epoch, "seq": state.seq, "server_time": datetime.now(UTC).isoformat(),
                "user": user.name if user else "local",
                "roles": sorted(user.roles) if user else [], "sign_in": bool(self.tokens) and user is None,
                "scope": scope, "nodes": sight.nodes, "home": sight.home, "build": BUILD, "stale_ms": STALE_MS,
                "levels": state.levels, "base_currency": self.settings.base_currency})
            yield b"retry: 1000\n\n"
            while not self.stopping.is_set():
                turned_next = self._turned
                now = time.monotonic()
                for frame in client.step(now):
                    yield frame
                # what it shows has moved out of what its user may read, or its token has ended
                if client.ended or (user is not None and user.has_ended(time.time_ns())):
                    yield frame_of("bye", {"reason": "auth", "retry_ms": 2000})
                    return
                if client.beat_due(now):
                    yield frame_of("feed", self._feeds())
                    yield frame_of("hb", {"t": self._fresh_ms(), "seq": state.seq, "turned": self.turned_ms,
                                          "lag_s": self.lags()})
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(turned_next.wait(), 1.0)
            yield frame_of("bye", {"reason": "shutdown", "retry_ms": 2000})
        finally:
            client.close()
            self.clients -= 1
            self._streams[who] -= 1
            if not self._streams[who]:
                del self._streams[who]
            self.counters.set("sse_clients", self.clients)

    async def stream(self, request: Request) -> Response:
        """`GET /api/stream?scope=&rate=`."""
        scope = scope_of(request, self.state)
        try:
            rate = min(max(int(request.query_params.get("rate", "10")), RATE_MIN), RATE_MAX)
        except ValueError as error:
            raise HTTPException(400, f"rate: expected a number, was {request.query_params['rate']!r}") from error
        who = who_asks(request.scope)
        if self._streams[who] >= self.settings.api_streams_max:
            self.counters.add("requests_limited", kind="streams")
            return too_many(f"streams of {who}, {self._streams[who]} are open", STREAM_RETRY_S)
        events = self.events(scope, rate, request.headers.get("last-event-id"), request.scope.get("deskrisk.user"), who)
        return CountedStream(events, self.counters, ping=3600, send_timeout=SEND_TIMEOUT_S,
                                   headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    # ---- plain answers --------------------------------------------------------------------------------------------
    async def get_snapshot(self, request: Request) -> Response:
        """`GET /api/snapshot?scope=`."""
        scope = scope_of(request, self.state)
        return json_answer({"v": 1, "epoch": self.state.epoch, "seq": self.state.seq, "scope": scope,
                      "tables": self.frames.bodies(scope, sight_of(request, self.state))})

    async def live(self, request: Request) -> Response:
        """`GET /health/live`."""
        return json_answer({"status": "live"})

    async def is_ready(self, request: Request) -> Response:
        """`GET /health/ready`: not where a tail, or the turns, stand still."""
        behind = time.time() * 1000 - self._fresh_ms()
        status = "loading" if not self.ready else "ready" if behind <= NOT_READY_MS else "behind"
        body = {"status": status, "behind_ms": round(behind) if self.ready else None, "lag_s": self.lags()}
        return JSONResponse(body, 200 if status == "ready" else 503)

    async def metrics(self, request: Request) -> Response:
        """`GET /metrics`: of the whole process."""
        sight_of(request, self.state).need_whole("metrics")
        return Response(generate_latest(self.counters.registry), media_type="text/plain; version=0.0.4")

    async def page(self, request: Request) -> Response:
        """`GET /`."""
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    def app(self) -> Starlette:
        """Return the ASGI app."""
        s = self.settings

        @contextlib.asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            await self.start()
            yield
            await self.stop()
        routes = [
            Route("/", self.page), Route("/api/stream", self.stream), Route("/api/snapshot", self.get_snapshot),
            Route("/login", login, methods=["GET", "POST"]),
            *Writes(self.settings, self.state, self.used, self._catch_up).routes(),
            *self.quarantine.routes(),
            Route("/api/whatif", WhatIf(self.settings, self.state).answer, methods=["POST"]),
            *Reads(self.state).routes(),
            Route("/health/live", self.live), Route("/health/ready", self.is_ready),
            read_route((self._tail, self._alerts, self._decisions, self._rules), self._names, lambda: self._turned),
            Route("/metrics", self.metrics),
            Mount("/vendor", StaticFiles(packages=[("youplot", "vendor")])),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        return Starlette(routes=routes, lifespan=lifespan, middleware=[
            Middleware(SecurityHeaders), Middleware(Access, tokens=self.tokens, open_reads=s.api_open_reads),
            Middleware(Paced, paces=Paces({WRITES: s.api_writes_per_s, HALTS: s.api_writes_per_s,
                                           HEAVY: s.api_heavy_reads_per_s, SIGN_INS: SIGN_INS_PER_S}),
                       counters=self.counters)], exception_handlers={HTTPException: error_answer})


class _Server(uvicorn.Server):
    """Says where it listens once it does; ends streams before it waits for connections to close."""

    gateway: Gateway

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then report."""
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            watch("gateway")
            print(f"READY gateway http://{host}:{port}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let the streams say goodbye first."""
        self.gateway.say_goodbye()
        await super().shutdown(sockets)


def run_gateway(settings: Settings) -> None:
    """Serve until told to stop."""
    family = socket.AF_INET6 if ":" in settings.gateway_host else socket.AF_INET
    # the protocol is named: asyncio sends at once (TCP_NODELAY) only where it knows that the socket is TCP
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # a small buffer, so that a client that stopped reading is seen in seconds, not when megabytes are full
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    sock.bind((settings.gateway_host, settings.gateway_port))
    gateway = Gateway(settings)
    process.role, process.counters = "gateway", gateway.counters
    for user, ended in ending(gateway.tokens.values(), time.time_ns()):
        log.warning("api_tokens: the token of %s %s at %s", user.name, "ended" if ended else "ends",
                    format_ts_ns(user.until_ns or 0))
    config = uvicorn.Config(gateway.app(), log_config=None, access_log=False, timeout_graceful_shutdown=3,
                            server_header=False, limit_concurrency=settings.api_connections_max)
    server = _Server(config)
    server.gateway = gateway
    server.run(sockets=[sock])
