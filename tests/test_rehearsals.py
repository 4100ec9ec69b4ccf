"""Scenario files run against a whole installation, as `deskrisk rehearse` runs them: see docs/reference/rehearsals.md.

`make test ARGS="tests/test_rehearsals.py --rehearsals FOLDER"` runs those of a folder as well.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from app.brokers import Broker
from app.rehearse.reporting import Result
from app.rehearse.runner import rehearse
from app.rehearse.scenario import Scenario, read_path
from app.settings import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(1800)]
OURS = Path(__file__).resolve().parent / "rehearsals"
Key = tuple[str, str]


def key_of(scenario: Scenario) -> Key:
    """Return the file and the name of a scenario."""
    return Path(scenario.file).name, scenario.name


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each scenario."""
    folders = [OURS, *filter(None, [metafunc.config.getoption("--rehearsals")])]
    keys = [key_of(s) for folder in folders for s in read_path(folder)]
    metafunc.parametrize("key", keys, ids=[f"{file}: {name}" for file, name in keys])


@pytest.fixture(scope="module")
def results(broker: Broker, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[Key, Result]:
    """What came of all scenarios: they share installations, so that they run together."""
    folders = [OURS, *filter(None, [request.config.getoption("--rehearsals")])]
    scenarios = [s for folder in folders for s in read_path(folder)]
    settings = Settings(brokers=broker.address, data_dir=tmp_path_factory.mktemp("rehearsals"))
    found = asyncio.run(rehearse(scenarios, settings, broker.name.startswith("embedded"), print, lambda result: None))
    return {key_of(result.scenario): result for result in found}


def test_what_is_seen_is_what_is_expected(key: Key, results: dict[Key, Result]) -> None:
    result = results[key]
    if result.state == "skipped":
        pytest.skip("\n".join(result.lines()))
    assert result.ok, "\n".join(result.lines())
