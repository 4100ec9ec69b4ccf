"""What tests on a real broker share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.brokers import Broker
from tests.integration.harness import Installation


@pytest.fixture
def made(broker: Broker, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Installation]:
    """Topics of one test under its own prefix; what still runs at its end is killed."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)[:60]
    installation = Installation(broker, tmp_path, name)
    yield installation
    installation.close()
