"""`deskrisk up` and `deskrisk demo`: all roles on one machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shutil
import tempfile
import time
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
from aiokafka.errors import KafkaError
from rich.markup import escape

from app.brokers import EmbeddedBroker
from app.collector import settle_collector
from app.measure import StreamMeter, follow, quantiles
from app.quarantine import Notices
from app.settings import ROLES, Settings
from app.simulate import write_history
from app.supervisor import Child, Supervisor, on_signals
from app.warm import PAGE_PARTS, compile_kernels, missing_parts
from app.worker_alerts import WorkerAlerts
from tables.kafka import create_topics
from tables.restore import RestoreStalled
from tables.tasks import process

READY_TIMEOUT_S = 90.0
#: what was not applied meanwhile is said this often
NOTICES_S = 10.0
RECONCILE_S = 900
#: how long the embedded broker, all in memory, keeps quotes and superseded rows
EMBEDDED_RETENTION_MS = 120_000


class Installation:
    """Broker, workers, gateway and sink as processes of this machine.

    Parameters
    ----------
    tokens : with each of which a person may write; reads are open then. None: what the settings say
    page_first : roles that no page needs may start later, where their kernels are not compiled yet
    """

    def __init__(self, settings: Settings, embedded: bool, say: Any, tokens: Sequence[str] = (),
                 page_first: bool = False) -> None:
        self._embedded, self._tokens, self._page_first = embedded, tokens, page_first
        self._say = say
        self._broker: EmbeddedBroker | None = None
        self.settings = settings
        self.supervisor = Supervisor(say)
        self._alerts: WorkerAlerts | None = None
        self.addresses: dict[str, Any] = {}

    async def start(self) -> None:
        """Start everything and wait until every role is ready."""
        loop = asyncio.get_running_loop()
        missing = await loop.run_in_executor(None, missing_parts)
        later = [part for part in missing if part not in PAGE_PARTS] if self._page_first else []
        await self._compile([part for part in missing if part not in later])
        if self._embedded:
            # the embedded broker starts empty: what an earlier run stored belongs to a log that is gone
            home = self.settings.data_dir / "embedded"
            await loop.run_in_executor(None, lambda: shutil.rmtree(home, ignore_errors=True))
            self.settings = self.settings.model_copy(update={"data_dir": home})
            self._broker = EmbeddedBroker(self._say)
            brokers = await loop.run_in_executor(None, self._broker.start)
            self.settings = self.settings.model_copy(update={"brokers": brokers})
            self._say(f"embedded broker on {brokers}")
        s = self.settings
        await create_topics(s.client(), s.prefix, s.partitions, s.horizon_ms, s.replication,
                            EMBEDDED_RETENTION_MS if self._embedded else None)
        self._alerts = WorkerAlerts(s)
        self._alerts.start()
        self.supervisor.tell(self._alerts)
        environment = {"DESKRISK_BROKERS": str(s.brokers), "DESKRISK_DATA_DIR": str(s.data_dir),
                       "DESKRISK_PREFIX": s.prefix, "DESKRISK_PARTITIONS": str(s.partitions),
                       "DESKRISK_GATEWAY_PORT": str(s.gateway_port)}
        if s.history:
            environment["DESKRISK_HISTORY"] = s.history
        if self._tokens:
            users = ",".join(f"{token}:person-{k}:risk+trader" for k, token in enumerate(self._tokens, 1))
            environment |= {"DESKRISK_API_TOKENS": users, "DESKRISK_API_OPEN_READS": "1"}
        for role in ROLES:
            if role not in later:
                self._add_role(role, environment)
        gateway = self.supervisor.add("gateway", "gateway", **environment)
        self.supervisor.add("sink", "sink", **environment)
        self._say("starting " + ", ".join([*(role for role in ROLES if role not in later), "gateway and sink ..."]))
        await self.supervisor.wait_ready(READY_TIMEOUT_S)
        if later:
            process.start("roles that follow", lambda: self._add_later(later, environment), may_return=lambda: True)
        self.supervisor.add("reconcile", "reconcile", "--every", str(RECONCILE_S), **environment)
        self.supervisor.add("roll", "roll", "--daily", **environment)
        url = gateway.ready_text.removeprefix("gateway ")
        self.environment = environment
        self.addresses = {"brokers": s.brokers, "gateway": url, "clickhouse":
                          "external" if s.clickhouse_url else f"chdb:{s.data_dir / 'clickhouse'}",
                          "prefix": s.prefix, "data_dir": str(s.data_dir)}

    def _add_role(self, role: str, environment: dict[str, str]) -> Child:
        return self.supervisor.add(role, "worker", "--roles", role, **environment | {
            "DESKRISK_INSTANCE": self.settings.instance or f"local-{role}"})

    async def _compile(self, parts: list[str]) -> None:
        if not parts:
            return
        started = time.monotonic()
        self._say(f"compiling the kernels of {', '.join(parts)} (once, about a minute) ...")
        work = asyncio.get_running_loop().run_in_executor(None, compile_kernels, *parts)
        while not work.done():
            await asyncio.wait([work], timeout=15.0)
            if not work.done():
                self._say(f"  still compiling after {time.monotonic() - started:.0f} s")
        await work

    async def _add_later(self, parts: list[str], environment: dict[str, str]) -> None:
        """Start the roles that no page needs when their kernels are compiled; what comes for them waits on a topic."""
        await self._compile(parts)
        for role in parts:
            child = self._add_role(role, environment)
            await child.ready.wait()
            self._say(f"{role} is ready")

    async def start_unless(self, stop: asyncio.Event) -> bool:
        """Start everything; False where it was told to stop before all was ready."""
        start, stopped = asyncio.create_task(self.start()), asyncio.create_task(stop.wait())
        await asyncio.wait({start, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not start.done():
            start.cancel()
            await asyncio.gather(start, return_exceptions=True)
            return False
        await start
        return True

    async def stop(self) -> None:
        """Stop everything, the broker last."""
        await self.supervisor.stop()
        if self._alerts is not None:
            await self._alerts.stop()
        if self._broker is not None:
            self._broker.stop()


async def run_up(settings: Settings, embedded: bool, ready_file: Path | None, say: Any) -> int:
    """Run all roles until a signal; return the exit code."""
    stop = asyncio.Event()
    on_signals(stop)
    installation = Installation(settings, embedded, say)
    try:
        if not await installation.start_unless(stop):
            return 0
        if ready_file is not None:
            scratch = ready_file.with_suffix(".part")
            scratch.write_text(json.dumps(installation.addresses) + "\n")
            scratch.replace(ready_file)  # whoever waits for the file never sees half of it
        say(f"ready: {installation.addresses['gateway']}")
        await _wait(stop, None, Notices(installation.settings), say)
        return 0
    finally:
        say("stopping ...")
        await installation.stop()


async def _wait(stop: asyncio.Event, seconds: float | None, notices: Notices, say: Any) -> None:
    """Wait for the end; say meanwhile what is missing, and what was not applied."""
    ends, look = time.monotonic() + (seconds if seconds is not None else 1e9), notices.at_start
    while not stop.is_set() and time.monotonic() < ends:
        try:
            for line in await look():
                say(escape(line))
            look = notices.look
        except (KafkaError, OSError, RestoreStalled) as error:  # the broker is away: the stages say so
            say(f"quarantine is not read now: {type(error).__name__}")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), min(NOTICES_S, max(ends - time.monotonic(), 0.0)))


async def _figures(url: str) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/api/snapshot", params={"scope": "firm"}) as reply:
            tables = (await reply.json())["tables"]
        async with session.get(f"{url}/api/positions") as reply:
            positions = await reply.json()
    rows = {t["table"]: t for t in tables}
    firm = next((dict(zip(rows["node"]["cols"], r, strict=True)) for r in rows["node"]["rows"] if r[0] == "firm"), {})
    return {"positions": sum(1 for p in positions if float(p["quantity"])), "ladder_rows": rows["position"]["total"],
            "unpriced": firm.get("unpriced"), "firm_gross": firm.get("gross")}


async def run_demo(settings: Settings, seconds: float | None, as_json: bool, browser: bool, seed: int,
                   tick_rate: float, trade_rate: float, opening: int, feed: bool, say: Any) -> int:
    """Run everything with a simulated market; return the exit code."""
    stop = asyncio.Event()
    on_signals(stop)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="deskrisk-demo-") as scratch:
        past = settings.history or (str(write_history(seed, Path(scratch) / "history.parquet")) if feed else None)
        demo = settings.model_copy(update={"data_dir": Path(scratch), "history": past})
        # what one person asks for the other one approves
        tokens = [] if settings.api_tokens else [secrets.token_urlsafe(12) for _ in range(2)]
        installation = Installation(demo, not settings.brokers, say, tokens, page_first=True)
        meter = StreamMeter()
        follower: asyncio.Task[None] | None = None
        summary: dict[str, Any] = {}
        try:
            if not await installation.start_unless(stop):
                return 0
            url = installation.addresses["gateway"]
            say(f"up after {time.monotonic() - started:.1f} s")
            feeder = None
            if feed:
                feeder = installation.supervisor.add(
                    "feed", "feed", "--seed", str(seed), "--tick-rate", str(tick_rate), "--trade-rate",
                    str(trade_rate), "--opening", str(opening), **installation.environment)
                await asyncio.wait_for(feeder.ready.wait(), READY_TIMEOUT_S)
            say(f"numbers move after {time.monotonic() - started:.1f} s")
            say(f"\n  the page: {url}\n  brokers:  {installation.addresses['brokers']}\n  Ctrl-C ends it\n")
            if tokens:
                say("  to halt, acknowledge, override: sign in there with one of two tokens\n  "
                    + "  ".join(tokens) + "  (one asks, the other approves)\n")
            if browser:
                with contextlib.suppress(webbrowser.Error):
                    webbrowser.open(url)
            await asyncio.sleep(2.0)  # what was there before is no measurement
            settle_collector()
            meter.from_ms = time.time() * 1000
            follower = asyncio.create_task(follow(url, meter))
            await _wait(stop, seconds, Notices(installation.settings), say)
            follower.cancel()
            summary = await _figures(url) | {"up_s": round(time.monotonic() - started, 1)}
            summary["errors"] = sum(c.restarts for c in installation.supervisor.children)
            if feeder is not None and feeder.process is not None:
                feeder.process.terminate()
                installation.supervisor.stopping.set()
                await feeder.process.wait()
                await asyncio.sleep(0.05)
                summary |= json.loads(feeder.last_line or "{}")
        finally:
            if follower is not None:
                follower.cancel()
            await installation.stop()
    summary |= {**quantiles([meter]), "stream_rows": meter.rows,
                "as_of_steps_back": meter.as_of_steps_back, "broker": "external" if settings.brokers else "kfake"}
    if as_json:
        print(json.dumps(summary), flush=True)
    else:
        for key, value in summary.items():
            say(f"  {key}: {value}")
    return 1 if summary.get("errors") else 0
