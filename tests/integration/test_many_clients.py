"""F2, F17: hundreds of dealers on a gateway that is told to stop, a thousand that come and go."""

from __future__ import annotations

import asyncio
import resource
import signal
import time

import aiohttp
import pytest

from tests.integration.harness import Installation, Upstream
from tests.support.patience import PATIENCE_S

pytestmark = pytest.mark.kafka
CLIENTS, COMERS = 200, 1_000


async def listen(session: aiohttp.ClientSession, url: str, seen: list[str]) -> None:
    """Read events until the gateway ends the stream."""
    async with session.get(f"{url}/api/stream", params={"scope": "firm", "rate": "5"}) as reply:
        async for line in reply.content:
            if line.startswith(b"event: "):
                seen.append(line[7:].strip().decode())


async def come_and_go(session: aiohttp.ClientSession, url: str) -> None:
    """Connect, take the first bytes, leave without a word."""
    async with session.get(f"{url}/api/stream") as reply:
        assert reply.status == 200
        await reply.content.readany()


def test_a_thousand_come_and_go_and_two_hundred_are_let_go(made: Installation) -> None:
    """Memory stays flat; told to stop twice under load the gateway ends within its bound, and no stream stays open."""
    async def scenario() -> None:
        await made.create()
        worker = made.worker()
        gateway = made.start("gateway", "--port", "0")
        for process in (worker, gateway):
            process.wait_ready()
        url = next(line for line in gateway.lines if "READY" in line).split()[-1]
        timeout = aiohttp.ClientTimeout(total=None, sock_read=60)
        async with Upstream(made, 41) as upstream, aiohttp.ClientSession(
                timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
            await upstream.send(500)
            await asyncio.gather(*(come_and_go(session, url) for _ in range(50)))
            before = gateway.resident_mb()
            for _ in range(COMERS // 50):
                await asyncio.gather(*(come_and_go(session, url) for _ in range(50)))
            assert gateway.resident_mb() < before + 60
            seen: list[list[str]] = [[] for _ in range(CLIENTS)]
            clients = [asyncio.create_task(listen(session, url, s)) for s in seen]
            loading = asyncio.create_task(upstream.send(2_000, pause_s=0.1))
            deadline = time.monotonic() + PATIENCE_S
            while not all("delta" in s for s in seen) and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
            assert all("delta" in s for s in seen)
            gateway.signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            if gateway.process.poll() is None:
                gateway.signal(signal.SIGTERM)
            assert await asyncio.to_thread(gateway.wait_exit, 15) in (0, -signal.SIGTERM)
            # whoever reads slower than the bound is cut off without a goodbye and comes back by itself
            await asyncio.wait_for(asyncio.gather(*clients, return_exceptions=True), 60)
            await loading
            assert worker.stop() == 0
            made.worker().wait_ready()
            assert (await made.assert_exact())["trades"] == len(upstream.sent)
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4096, most)), most))
    asyncio.run(scenario())
