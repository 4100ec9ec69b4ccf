"""Real processes on a real broker: start workers, hurt them, and compare the tables with the naive fold."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka.errors import KafkaError

from app.brokers import Broker
from app.reference_files import publish_reference
from app.settings import Settings
from app.verify import run_verify
from schemas.records import Account, Instrument
from schemas.topics import TOPICS
from tables.kafka import create_topics, owner_partition
from tests.support.fork_server import SERVER, ForkedProcess
from tests.support.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parent.parent.parent
FORGET_S = 5.0
INSTRUMENTS = [Instrument(instrument=f"I{i:02d}", asset_class="equity", currency="USD", quantity_increment=Decimal(1))
               for i in range(12)] + [
    Instrument(instrument="INV", asset_class="perpetual", currency="USD", quantity_increment=Decimal(1), inverse=True,
               settlement="BTC", multiplier=Decimal(10))]
ACCOUNTS = [Account(account=f"ACC-{i:03d}", book=f"B{i % 6}", desk=f"D{i % 3}", strategy=f"S{i % 2}", fund=f"F{i % 2}")
            for i in range(40)]


def prefix_of(test: str) -> str:
    """Return what the topics of a test are called: no other test's, whatever long names have in common."""
    plain = "".join(c if c.isalnum() else "-" for c in test.rpartition("::")[2])
    return f"{plain[:48]}-{hashlib.sha256(test.encode()).hexdigest()[:8]}"


class Process:
    """One `python -m app` process, forked from one that has all loaded.

    It is started anew where ``inside`` is a command that runs it (a network namespace), ``home`` is another version's
    folder, or ``true_start`` asks for it: some tests hold that the command itself starts.
    """

    def __init__(self, arguments: list[str], environment: dict[str, str], inside: tuple[str, ...] = (),
                 home: Path = ROOT, true_start: bool = False) -> None:
        self.arguments, self.lines = arguments, list[str]()
        self.ready = threading.Event()
        command, environment = [*arguments, "--supervised"], os.environ | {"PYTHONPATH": str(home)} | environment
        self.process: ForkedProcess | subprocess.Popen[str]
        if inside or home != ROOT or true_start:
            self.process = subprocess.Popen([*inside, sys.executable, "-m", "app", *command], cwd=home, text=True,
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                            env=environment)
        else:
            self.process = SERVER.fork(command, environment)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if "READY" in line:
                self.ready.set()

    def wait_ready(self, seconds: float = PATIENCE_S) -> Process:
        """Wait until the process says READY."""
        assert self.ready.wait(seconds), "\n".join(self.lines[-30:])
        return self

    def wait_exit(self, timeout: float = PATIENCE_S) -> int:
        """Wait for the end; return the exit code."""
        return self.process.wait(timeout)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def stop(self, timeout: float = 15.0) -> int:
        """SIGTERM, and wait."""
        self.process.terminate()
        return self.process.wait(timeout)

    def resident_mb(self) -> float:
        """Return its resident memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)


class Installation:
    """Topics of one test under their own prefix, and processes that use them."""

    def __init__(self, broker: Broker, tmp_path: Path, name: str, partitions: int = 4) -> None:
        self.settings = Settings(brokers=broker.address, prefix=f"{name}-", partitions=partitions, data_dir=tmp_path,
                                 session_timeout_s=3)
        self.processes: list[Process] = []
        self._tmp = tmp_path

    async def create(self) -> None:
        """Create the topics and publish the reference data."""
        s = self.settings
        await create_topics(s.client(), s.prefix, s.partitions, s.horizon_ms)
        await publish_reference(s.client(), s.topics(), INSTRUMENTS, ACCOUNTS)

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a process of this installation."""
        s = self.settings
        return {"DESKRISK_BROKERS": str(s.brokers), "DESKRISK_PREFIX": s.prefix, "DESKRISK_PARTITIONS": str(s.partitions),
                "DESKRISK_DATA_DIR": str(s.data_dir), "DESKRISK_GATE_JOURNAL": str(s.data_dir / "journal"), "DESKRISK_SESSION_TIMEOUT_S": str(s.session_timeout_s),
                "DESKRISK_GATE_WRITE_DOWN_S": "0.5"} | more

    def start(self, *arguments: str, inside: tuple[str, ...] = (), home: Path = ROOT, **environment: str) -> Process:
        """Start a process."""
        made = Process(list(arguments), self.environment(**environment), inside, home)
        self.processes.append(made)
        return made

    def worker(self, role: str = "positions", folder: str = "a", inside: tuple[str, ...] = (), home: Path = ROOT,
               **environment: str) -> Process:
        """Start a worker with a data folder of its own."""
        return self.start("worker", "--roles", role, inside=inside, home=home,
                          DESKRISK_DATA_DIR=str(self._tmp / folder), **environment)

    def close(self) -> None:
        """Kill what still runs, and take the topics away: a broker of thousands of partitions is slow for all tests."""
        for process in self.processes:
            if process.process.poll() is None:
                process.kill()
        with contextlib.suppress(KafkaError, OSError, TimeoutError):  # a test may have its broker killed or stopped
            asyncio.run(asyncio.wait_for(self._forget_topics(), FORGET_S))

    async def _forget_topics(self) -> None:
        admin = self.settings.client().admin()
        await admin.start()
        try:
            await admin.delete_topics(list(self.settings.topics().values()))
        finally:
            await admin.close()

    async def ends(self, topic: str = "trades") -> list[int]:
        """Return the end offsets of a data topic."""
        from aiokafka.structs import TopicPartition

        consumer = self.settings.client().consumer()
        await consumer.start()
        try:
            tps = [TopicPartition(self.settings.topics()[topic], p) for p in range(self.settings.partitions)]
            found = await consumer.end_offsets(tps)
            return [found[tp] for tp in tps]
        finally:
            await consumer.stop()

    async def newest(self, topic: str) -> dict[str, dict[str, Any]]:
        """Return the newest record of every key of a topic."""
        from aiokafka.structs import TopicPartition

        from tables.restore import read_changelogs

        (declared,) = [t for t in TOPICS if t.name == topic]
        count = self.settings.partitions if declared.partitions == "data" else 1
        name = self.settings.topics()[topic]
        found = await read_changelogs(self.settings.client(), {TopicPartition(name, p): 0 for p in range(count)})
        return {(k or b"").decode(): json.loads(v) for r in found.values() for k, v in r.rows.items() if v}

    async def newest_rows(self, name: str) -> dict[int, dict[bytes, bytes]]:
        """Return by partition what each key of a changelog stands at, whatever its markers say."""
        from aiokafka.structs import TopicPartition

        from tables.partition import MARKER_KEY
        from tables.restore import read_changelogs

        found = await read_changelogs(self.settings.client(), {TopicPartition(name, p): 0 for p in range(self.settings.partitions)})
        return {tp.partition: {k: v for k, v in r.rows.items() if v is not None and k != MARKER_KEY} for tp, r in found.items()}

    async def alerts(self) -> list[dict[str, Any]]:
        """Return every alert that was raised, in the order they were raised."""
        from aiokafka.structs import TopicPartition

        from tables.restore import read_range

        name, found = self.settings.topics()["alerts"], list[dict[str, Any]]()
        await read_range(self.settings.client(), {TopicPartition(name, p): 0 for p in range(self.settings.partitions)},
                         lambda batch: found.extend(json.loads(v) for v in batch.values if v))
        return sorted(found, key=lambda alert: alert["raised_ts"])

    async def stored(self) -> list[int]:
        """Return how far the changelog's markers include each trades partition."""
        from aiokafka.structs import TopicPartition

        from tables.changelog import Batches, read_sure

        topic, trades = self.settings.topics()["positions-changelog"], self.settings.topics()["trades"]
        found = await read_sure(self.settings.client(), {
            TopicPartition(topic, p): Batches() for p in range(self.settings.partitions)})
        return [found[TopicPartition(topic, p)].marker.offsets.get(trades, 0) for p in range(self.settings.partitions)]

    async def quiesce(self, timeout: float = PATIENCE_S) -> list[int]:
        """Wait until every trade on the log is in the durable table; return the stored offsets."""
        deadline = time.monotonic() + timeout
        while (stored := await self.stored()) != (ends := await self.ends()):  # forwarding makes the log longer
            if time.monotonic() > deadline:
                raise AssertionError(f"stored {stored}, ends {ends}\n" + "\n---\n".join(
                    f"exit {p.process.poll()}\n" + "\n".join(p.lines[-25:]) for p in self.processes))
            await asyncio.sleep(0.3)
        return stored

    async def assert_exact(self) -> dict[str, Any]:
        """Assert I1, I2 and I4 by `deskrisk verify`'s oracle; return its report."""
        await self.quiesce()
        report = await run_verify(self.settings)
        assert report["ok"], report["differences"]
        return report


class Upstream:
    """A seeded generator of trades with disorder, duplicates and poison, sent by a plain client."""

    def __init__(self, installation: Installation, seed: int) -> None:
        self._i = installation
        self.rng = np.random.default_rng(seed)
        self.sent: list[dict[str, Any]] = []
        self._n = 0
        self.first = 0  # trade ids begin after it
        self._t0 = time.time_ns()
        self.more: dict[str, Any] = {}
        self._producer: Any = None

    async def __aenter__(self) -> Upstream:
        self._producer = self._i.settings.client().producer(linger_ms=2)
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

    def trade(self) -> dict[str, Any]:
        """Return the next trade."""
        rng, self._n = self.rng, self._n + 1
        late = int(rng.integers(0, 3) == 0) * int(rng.integers(0, 1_500_000_000))
        return {"trade_id": f"T{self.first + self._n}", **self.more, "account": ACCOUNTS[int(rng.integers(len(ACCOUNTS)))].account,
                "instrument": INSTRUMENTS[int(rng.integers(len(INSTRUMENTS)))].instrument,
                "side": "buy" if rng.random() < 0.5 else "sell", "quantity": str(int(rng.integers(1, 500))),
                "price": f"{rng.uniform(5, 300):.2f}", "ts_event": self._t0 + self._n * 1_000_000 - late}

    async def send(self, count: int, duplicates: float = 0.0, wrong_partition: float = 0.0, poison: float = 0.0,
                   pause_s: float = 0.0) -> None:
        """Send trades; some twice, some to a partition that is not their account's, some unreadable."""
        rng, topic, n = self.rng, self._i.settings.topics()["trades"], self._i.settings.partitions
        last = None
        for k in range(count):
            again = self.sent and rng.random() < duplicates
            trade = self.sent[int(rng.integers(len(self.sent)))] if again else self.trade()
            if not again:
                self.sent.append(trade)
            partition = owner_partition(trade["account"], n)
            if rng.random() < wrong_partition:
                partition = (partition + 1) % n
            value: bytes | None = json.dumps(trade).encode()
            if rng.random() < poison:
                bad = [b"{", None, b"[1,2]", b'{"trade_id":"x"}', value[:-9] if value else b"",
                       json.dumps(trade | {"trade_id": f"P{k}", "quantity": "NaN"}).encode(),
                       json.dumps(trade | {"trade_id": f"P{k}", "price": "-5"}).encode(),
                       json.dumps(trade | {"trade_id": f"P{k}", "instrument": "nobody"}).encode(),
                       json.dumps(trade | {"trade_id": f"P{k}", "quantity": "1e30"}).encode()]
                await self._producer.send(topic, bad[int(rng.integers(len(bad)))], trade["account"].encode(), partition)
            last = await self._producer.send(topic, value, trade["account"].encode(), partition)
            if pause_s and k % 50 == 0:
                await asyncio.sleep(pause_s)
        await self._producer.flush()
        if last is not None:
            await last
