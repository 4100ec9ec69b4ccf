"""Fixtures shared by all tests: which broker decides, where the data are, seeds."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT / ".cache" / "numba"))

from app.brokers import Broker, EmbeddedBroker, KafkaBroker, java_and_maven  # noqa: E402
from tables.tasks import process  # noqa: E402
from tests.support import shared_broker  # noqa: E402
from tests.support.last_words import LastWords  # noqa: E402
from tests.support.longest import SHARE_AN_INSTALLATION, order_of  # noqa: E402

#: exit codes with which background tasks of this process would have ended it
_left: list[int] = []
process.leave = _left.append

settings.register_profile("deskrisk", deadline=None, max_examples=120, print_blob=True,
                          suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
settings.register_profile("nightly", parent=settings.get_profile("deskrisk"), max_examples=2_400)
settings.load_profile(os.environ.get("DESKRISK_PROFILE", "deskrisk"))


def shared_data() -> Path | None:
    """Return the folder of real data and reference results, or None where this checkout has none."""
    for base in (ROOT.parent / "shared", ROOT / "shared"):
        if (base / "data").is_dir():
            return base / "data"
    return None


@pytest.fixture(scope="session")
def data() -> Path:
    """Real data and reference results; the test is skipped with a reason where they are absent."""
    found = shared_data()
    if found is None:
        pytest.skip("no shared/data beside this checkout")
    return found


def deciding_broker(folder: Path) -> Broker:
    """Return the broker that decides: a real Kafka where Java and Maven are, else the embedded one."""
    return EmbeddedBroker() if java_and_maven() else KafkaBroker(folder)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Broker]:
    """The broker of the run; workers of one run share it."""
    told = getattr(request.config, "workerinput", {}).get(shared_broker.TOLD)
    if told is not None:
        yield shared_broker.lent(Path(told))
        return
    made = deciding_broker(tmp_path_factory.mktemp("kafka"))
    made.start()
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def left() -> Iterator[list[int]]:
    """The exit codes with which this process would have ended in a test; one that expects some clears them."""
    _left.clear()
    yield _left
    assert not _left, f"a background task failed in this process: it would have left with {_left}"


@pytest.fixture(scope="session")
def random_seed() -> int:
    """A seed of this run; printed, and taken from DESKRISK_SEED to repeat a run."""
    seed = int(os.environ.get("DESKRISK_SEED") or random.SystemRandom().randrange(1 << 31))
    print(f"\nDESKRISK_SEED={seed}")
    return seed


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take rehearsals from elsewhere too."""
    parser.addoption("--rehearsals", default=None, type=Path, help="a folder of scenario files to run with those of the repository")


def pytest_configure(config: pytest.Config) -> None:
    """Whoever spreads tests over workers owns the broker they share; at the end the names of what failed stand last."""
    if hasattr(config, "workerinput"):
        return
    config.pluginmanager.register(LastWords(), "last words")
    if config.getoption("numprocesses", None):
        folder = Path(tempfile.mkdtemp(prefix="deskrisk-broker-"))
        config.pluginmanager.register(shared_broker.Owner(folder, deciding_broker, lambda ids: any(map(waits, ids))), "broker")


def waits(nodeid: str) -> bool:
    """Return whether a test waits for processes and a broker most of its time."""
    return nodeid.startswith(("tests/integration/", "tests/test_rehearsals.py"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what waits for processes first, the longest of it first; kernels and properties fill the gaps at the end."""
    items.sort(key=lambda item: (not waits(item.nodeid), order_of(item.nodeid)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep on one worker the tests of a file that share an installation; every other test goes to whoever is free.

    Groups of xdist's own are marked in the names of tests, which pytest 9 does not let it change.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByInstallation(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if Path(file).stem in SHARE_AN_INSTALLATION else nodeid

    return ByInstallation(config, log)


def pytest_report_header() -> str:
    """Say which broker decides and whether the shared data are there."""
    missing = java_and_maven()
    kafka = f"embedded broker ({missing})" if missing else "real Apache Kafka"
    return f"deskrisk: deciding tests run on {kafka}; shared data {'found' if shared_data() else 'absent'}"
