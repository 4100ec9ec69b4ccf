"""F22: two versions of the code side by side: a rolling upgrade and a downgrade, exact; a newer major is refused."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.brokers import Broker
from tests.integration.harness import ROOT, Installation, Process, Upstream, prefix_of

pytestmark = pytest.mark.kafka
Changes = dict[str, list[tuple[str, str]]]
#: what the next minor version writes more than this one: in the marker, in a packed row, in a published record
MINOR = {
    "tables/partition.py": [('"follows": self.follows,', '"follows": self.follows, "minor": 1,')],
    "tables/side_data.py": [("*exact, dividends, splits]", '*exact, dividends, splits, {"note": "new"}]')],
    "schemas/records.py": [("    account: str\n    instrument: str\n    quantity: Amount\n",
                            '    memo: str = "next"\n    account: str\n    instrument: str\n    quantity: Amount\n')],
}
#: the version before markers said what their batch consists of: it writes none of that, and takes all that it finds
BEFORE = {
    "tables/partition.py": [('''            "rows": self.rows, "checksum": self.checksum, "tombstones": self.tombstones,
            "tombstones_checksum": self.tombstones_checksum, "follows": self.follows,
''', "")],
    "tables/changelog.py": [("if follows and whole and marker.rows is not None:", "if False:"),
                            ("elif (marker.rows is None or", "elif (True or")],
}
MAJOR = {"tables/partition.py": [("MARKER_VERSION = 1", "MARKER_VERSION = 2")]}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this version."""
    home = tmp_path_factory.mktemp("next")
    for package in ("app", "agents", "tables", "models", "schemas"):
        shutil.copytree(ROOT / package, home / package, ignore=shutil.ignore_patterns("__pycache__"))
    return home


def version(home: Path, changes: Changes) -> Path:
    """Change some lines of the copy."""
    for package in ("tables", "schemas"):
        shutil.copytree(ROOT / package, home / package, dirs_exist_ok=True,
                        ignore=shutil.ignore_patterns("__pycache__"))
    for file, pairs in changes.items():
        text = (home / file).read_text()
        for old, new in pairs:
            assert text.count(old) == 1, (file, old)
            text = text.replace(old, new)
        (home / file).write_text(text)
    return home


@pytest.fixture
def made(broker: Broker, tmp_path: Any, request: pytest.FixtureRequest) -> Iterator[Installation]:
    installation = Installation(broker, tmp_path, prefix_of(request.node.nodeid))
    yield installation
    installation.close()


@pytest.mark.parametrize("changes", [MINOR, BEFORE], ids=["next", "before"])
def test_a_rolling_change_of_the_version_and_back(made: Installation, elsewhere: Path, changes: Changes) -> None:
    following = version(elsewhere, changes)

    async def scenario() -> None:
        await made.create()
        async with Upstream(made, 12) as upstream:
            upstream.more = {"fees": [{"currency": "EUR", "amount": "0.25"}]}  # rows with a tail
            running: dict[str, Process] = {n: made.worker(folder=n).wait_ready() for n in "ab"}
            await upstream.send(800)
            for order in ("ab", "ba"):
                for name in order:  # one after the other: both versions run meanwhile, and read each other's rows
                    running[name].stop()
                    running[name] = made.worker(folder=name, home=following if order == "ab" else ROOT)
                    running[name].wait_ready()
                    await upstream.send(700, duplicates=0.05, pause_s=0.02)
                    await made.quiesce()
            report = await made.assert_exact()
            assert report["trades"] == len(upstream.sent)
            for process in running.values():
                assert process.stop() == 0
    asyncio.run(scenario())


def test_a_newer_major(made: Installation, elsewhere: Path) -> None:
    following = version(elsewhere, MAJOR)

    async def scenario() -> None:
        await made.create()
        async with Upstream(made, 13) as upstream:
            worker = made.worker(home=following).wait_ready()
            await upstream.send(300)
            await asyncio.sleep(1.5)
            assert worker.stop() == 0
            refused = made.worker(folder="b")
            assert await asyncio.to_thread(refused.wait_exit) > 0
            assert any("marker: expected version 1, was 2" in line for line in refused.lines), refused.lines[-5:]
    asyncio.run(scenario())
