"""One broker for all workers of a test run: whoever spreads the tests owns it, and stops it when all are done."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from app.brokers import Broker

START_S = 180.0
#: in what a worker is told, where the address will stand
TOLD = "deskrisk_broker"


class Lent(Broker):
    """A broker that somebody else started and stops."""

    def __init__(self, address: str, name: str) -> None:
        super().__init__()
        self.address, self.name = address, name

    def start(self) -> str:
        """Return the address."""
        return self.address


def lent(place: Path) -> Lent:
    """Wait until the broker of the run stands; return it."""
    deadline = time.monotonic() + START_S
    while not place.exists():
        assert time.monotonic() < deadline, "the broker of this run does not start"
        time.sleep(0.1)
    found = json.loads(place.read_text())
    assert "failed" not in found, found["failed"]
    return Lent(found["address"], found["name"])


class Owner:
    """Starts the broker once a worker has found tests that need it."""

    def __init__(self, folder: Path, make: Callable[[Path], Broker], needed: Callable[[Iterable[str]], bool]) -> None:
        self._folder, self._make, self._needed = folder, make, needed
        self._place = folder / "address.json"
        self._thread: threading.Thread | None = None
        self._broker: Broker | None = None

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where the address will stand."""
        node.workerinput[TOLD] = str(self._place)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """Start, without keeping whoever spreads the tests waiting."""
        if self._thread is None and self._needed(ids):
            self._thread = threading.Thread(target=self._start, name="broker of the run")
            self._thread.start()

    def _start(self) -> None:
        try:
            self._broker = self._make(self._folder)
            self._broker.start()
            said = {"address": self._broker.address, "name": self._broker.name}
        except (OSError, RuntimeError, TimeoutError) as error:
            said = {"failed": f"{type(error).__name__}: {error}"}
        self._folder.mkdir(parents=True, exist_ok=True)
        half = self._place.with_suffix(".half")
        half.write_text(json.dumps(said))
        half.rename(self._place)

    def pytest_unconfigure(self) -> None:
        """Stop."""
        if self._thread is not None:
            self._thread.join(START_S)
        if self._broker is not None:
            self._broker.stop()
