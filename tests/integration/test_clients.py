"""Any real client may write: four clients, five codecs, idempotence, transactions; what they commit is read, once.

Every input topic gets records with and without keys, keys that are no text, headers, empty values and tombstones. The
roles that read them stay up, and good trades among them are positions.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from app.brokers import Broker, cache_dir, fetch_kafka
from schemas.topics import TOPICS
from tables.records import RecordBatch
from tables.tail import Tail
from tests.integration.harness import ROOT, Installation
from tests.support.patience import PATIENCE_S

pytestmark = pytest.mark.kafka
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
MODES = ("plain", "idempotent", "committed", "aborted")
CLIENTS = ROOT / "tests" / "integration" / "clients"
INPUTS = [t for t in TOPICS if t.direction in ("in", "both")]
OLD_MS = 1_600_000_000_000
SENT_S = 120


def java() -> list[str]:
    """Return the command of the Java client, compiled once."""
    if shutil.which("javac") is None:
        pytest.skip("no javac on this machine")
    lib, source = fetch_kafka(), CLIENTS / "Send.java"
    home = cache_dir() / "clients" / hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    if not (home / "Send.class").exists():
        subprocess.run(["javac", "-cp", f"{lib}/*", "-d", str(home), str(source)], check=True)
    return ["java", "-Xmx256m", "-cp", f"{home}:{lib}/*", "Send"]


def franz() -> list[str]:
    """Return the command of franz-go, compiled once."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("no Go tool chain on this machine")
    home = CLIENTS / "franz"
    name = hashlib.sha256(b"".join((home / n).read_bytes() for n in ("main.go", "go.mod", "go.sum"))).hexdigest()[:16]
    made = cache_dir() / "clients" / name / "franz"
    if not made.exists():
        done = subprocess.run([go, "build", "-mod=mod", "-o", str(made), "."], cwd=home, capture_output=True, text=True,
                              env=os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local"})
        if done.returncode:
            pytest.skip(f"franz-go cannot be compiled here: {done.stderr[-300:]}")
    return [str(made)]


def python(module: str) -> list[str]:
    """Return the command of a Python client."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    return [sys.executable, "-m", "tests.integration.clients.send"]


COMMANDS: dict[str, Callable[[], list[str]]] = {
    "java": java, "franz-go": franz, "librdkafka": functools.partial(python, "confluent_kafka"),
    "kafka-python": functools.partial(python, "kafka")}


def trade(client: str, codec: str, mode: str) -> bytes:
    return json.dumps({"trade_id": f"{client}-{codec}-{mode}", "account": "ACC-000", "instrument": "I00", "side": "buy",
                       "quantity": "1", "price": "100", "ts_event": time.time_ns()}).encode()


def plan_of(made: Installation, client: str) -> list[tuple[str, str, str, bytes | None, bytes | None, str, int]]:
    """Return what a client sends: codec, mode, topic, key, value, headers, milliseconds."""
    now, names = int(time.time() * 1000), made.settings.topics()
    plan: list[tuple[str, str, str, bytes | None, bytes | None, str, int]] = []
    for codec in CODECS:
        for mode in MODES:
            for topic in INPUTS:
                tag = f"{client} {codec} {mode} {topic.name} ".encode()
                plan += [(codec, mode, names[topic.name], key, value, headers, now) for key, value, headers in (
                    (b"K", b'{"of":"' + tag + b'x' * 2000 + b'"}', "1"), (b"\xff\xfe" + tag, tag + b"\xff", "0"),
                    (b"gone " + tag, None, "1"), (b"empty " + tag, b"", "0"))]
                if not topic.compact:
                    plan.append((codec, mode, names[topic.name], None, tag + b"no key", "0", now))
            plan.append((codec, mode, names["trades"], b"ACC-000", trade(client, codec, mode), "1", now))
            plan.append((codec, mode, names["gates"], b"appended", b"%s %s %s" % (client.encode(), codec.encode(), mode.encode()),
                         "0", OLD_MS))
    return plan


async def append_time(made: Installation, topic: str) -> None:
    """Have the broker stamp what is appended to a topic."""
    admin = made.settings.client().admin()
    await admin.start()
    try:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, made.settings.topics()[topic],
                                                  {"message.timestamp.type": "LogAppendTime", "cleanup.policy": "compact"})])
    finally:
        await admin.close()


async def read(made: Installation, keys: bool) -> tuple[Counter[tuple[str, bytes | None, bytes | None]], list[int]]:
    """Read everything as the roles do, with keys and headers or without; and the stamps of what the broker stamps."""
    names = {made.settings.topics()[t.name]: t.name for t in INPUTS} | {made.settings.topics()["gates"]: "gates"}
    found: Counter[tuple[str, bytes | None, bytes | None]] = Counter()
    stamps: list[int] = []

    def on_batch(batch: RecordBatch) -> None:
        values = [None if v is None else bytes(v) for v in batch.values]
        found.update((names[batch.topic], k, v) for k, v in zip(batch.keys if keys else [None] * len(values), values, strict=True))
        if names[batch.topic] == "gates":
            stamps.extend(batch.timestamps_ms.tolist())

    tail = Tail(made.settings.client(), names, on_batch, without_keys=() if keys else names)
    await tail.start()
    try:
        await tail.read_to_end()
    finally:
        await tail.stop()
    return found, stamps


@pytest.fixture(scope="module")
def desk(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Topics that all clients write to, and the roles that read them."""
    made = Installation(broker, tmp_path_factory.mktemp("clients"), "clients")
    asyncio.run(made.create())
    asyncio.run(append_time(made, "gates"))
    for role in ("positions", "marks", "gate"):
        made.worker(role, role)
    yield made
    made.close()


@pytest.mark.parametrize("client", COMMANDS)
def test_what_a_client_commits_is_read_once_whatever_its_codec(desk: Installation, client: str, tmp_path: Path) -> None:
    made, command = desk, COMMANDS[client]()
    before, _ = asyncio.run(read(made, True))
    plan = plan_of(made, client)
    file = tmp_path / "plan"
    file.write_text("".join("\t".join((codec, mode, topic, *("-" if b is None else base64.b64encode(b).decode() for b in (key, value)),
                                       headers, str(ms))) + "\n" for codec, mode, topic, key, value, headers, ms in plan))
    begun = time.time() * 1000
    extra = [client] if client in ("librdkafka", "kafka-python") else []
    done = subprocess.run([*command, str(made.settings.brokers), str(file), *extra], cwd=ROOT, capture_output=True, text=True,
                          timeout=SENT_S, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr[-3000:]
    names = {name: topic for topic, name in made.settings.topics().items()}
    expected = Counter((names[topic], key, value) for _, mode, topic, key, value, _, _ in plan if mode != "aborted")
    found, stamps = asyncio.run(read(made, True))
    stamps = stamps[-len(CODECS) * 3:]
    found -= before
    # a client that hashes keys in another way puts trades on foreign partitions: they are sent on to their owner
    sent_on = Counter({x: n for x, n in (found - expected).items() if x[0] == "trades" and b"trade_id" in (x[2] or b"")})
    assert found - sent_on == expected
    plain, _ = asyncio.run(read(made, False))
    assert without_trades(plain) == without_trades(found) + without_trades(before)
    assert len(stamps) == len(CODECS) * 3 and min(stamps) >= begun - 1000
    for worker in made.processes:
        worker.wait_ready()
    asyncio.run(made.quiesce())
    stays_up(made, len({v for (topic, _, v), _ in (found + before).items() if topic == "trades" and v and b"trade_id" in v}))


def without_trades(found: Counter[tuple[str, bytes | None, bytes | None]]) -> int:
    """Return how many records there are beside good trades, of which more may have been sent on meanwhile."""
    return sum(n for (_, _, value), n in found.items() if b"trade_id" not in (value or b""))


def stays_up(made: Installation, quantity: float) -> None:
    """Assert that the good trades are a position in a while, and that nobody ended."""
    deadline = time.monotonic() + PATIENCE_S
    while float(asyncio.run(made.newest("positions")).get("ACC-000|I00", {"quantity": 0})["quantity"]) != quantity:
        assert time.monotonic() < deadline
        time.sleep(0.3)
    assert all(worker.process.poll() is None for worker in made.processes)
