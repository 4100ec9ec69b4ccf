"""What tests on a real broker share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.brokers import Broker
from tests.integration.harness import Installation, prefix_of


@pytest.fixture
def made(broker: Broker, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Installation]:
    """Topics of one test under its own prefix; what still runs at its end is killed."""
    installation = Installation(broker, tmp_path, prefix_of(request.node.nodeid))
    yield installation
    installation.close()
