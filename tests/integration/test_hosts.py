"""Two workers on hosts of their own (network namespaces): a cut cable moves the partitions, and counts nothing twice."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.brokers import KafkaBroker, java_and_maven
from tests.integration.harness import Installation, Process, Upstream
from tests.support.patience import PATIENCE_S

pytestmark = pytest.mark.kafka
BROKER_HOST = "10.213.0.1"


def ip(*words: str, check: bool = True) -> bool:
    """Run `ip`; return whether it worked."""
    return subprocess.run(["ip", *words], check=check, capture_output=True).returncode == 0


class Hosts:
    """Namespaces ``drk-a`` and ``drk-b``, each with a cable of its own to the broker's address."""

    def __init__(self) -> None:
        self.names = [f"drk{os.getpid()}{x}" for x in "ab"]

    def build(self) -> str | None:
        """Lay the cables; return why it cannot be done here."""
        if shutil.which("ip") is None or not ip("netns", "add", self.names[0], check=False):
            return "no network namespaces: `ip netns add` needs root"
        ip("netns", "add", self.names[1])
        ip("addr", "add", f"{BROKER_HOST}/32", "dev", "lo", check=False)
        for k, name in enumerate(self.names):
            if not ip("link", "add", f"v{name}", "type", "veth", "peer", "name", "eth0", "netns", name, check=False):
                return "no veth devices in this kernel"
            ip("addr", "add", f"10.213.{k + 1}.1/24", "dev", f"v{name}")
            ip("link", "set", f"v{name}", "up")
            ip("-n", name, "addr", "add", f"10.213.{k + 1}.2/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", name, "link", "set", device, "up")
            ip("-n", name, "route", "add", "default", "via", f"10.213.{k + 1}.1")
        return None

    def cable(self, k: int, plugged: bool) -> None:
        """Cut or plug the cable of a host."""
        ip("link", "set", f"v{self.names[k]}", "up" if plugged else "down")

    def inside(self, k: int) -> tuple[str, ...]:
        """Return the command that runs another one on a host."""
        return ("ip", "netns", "exec", self.names[k])

    def remove(self) -> None:
        """Take everything away."""
        for name in self.names:
            ip("link", "del", f"v{name}", check=False)
            ip("netns", "del", name, check=False)
        ip("addr", "del", f"{BROKER_HOST}/32", "dev", "lo", check=False)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    made = Hosts()
    try:
        reason = java_and_maven() or made.build()
        if reason:
            pytest.skip(reason)
        yield made
    finally:
        made.remove()


async def said(worker: Process, line: str, after: int) -> None:
    """Wait for a line of a worker."""
    deadline = time.monotonic() + PATIENCE_S
    while line not in worker.lines[after:]:
        assert time.monotonic() < deadline, "\n".join(worker.lines[-20:])
        await asyncio.sleep(0.1)


def test_a_cut_cable(hosts: Hosts, tmp_path: Path) -> None:
    broker = KafkaBroker(tmp_path / "kafka", heap="512m", host=BROKER_HOST)
    broker.start()
    made = Installation(broker, tmp_path / "data", "hosts")

    async def scenario() -> None:
        await made.create()
        async with Upstream(made, 9) as upstream:
            first = made.worker(folder="a", inside=hosts.inside(0), DESKRISK_INSTANCE="a").wait_ready()
            second = made.worker(folder="b", inside=hosts.inside(1), DESKRISK_INSTANCE="b").wait_ready()
            await upstream.send(1_500)
            await made.quiesce()
            seen = len(second.lines)
            hosts.cable(0, plugged=False)
            loading = asyncio.create_task(upstream.send(2_000, duplicates=0.05, pause_s=0.1))
            await said(second, "READY positions 0,1,2,3", seen)
            await loading
            await made.quiesce()
            hosts.cable(0, plugged=True)  # it was an owner when it was cut off: it may come back, never write as one
            await upstream.send(1_000, pause_s=0.1)
            await made.quiesce(90)
            if first.process.poll() is not None:
                made.worker(folder="a", inside=hosts.inside(0), DESKRISK_INSTANCE="a").wait_ready()
            await upstream.send(500)
            await made.assert_exact()
    try:
        asyncio.run(scenario())
    finally:
        made.close()
        broker.stop()
