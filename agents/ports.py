"""What agents need from outside, as protocols; `app` gives the real ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol


class Publisher(Protocol):
    """Sends records; the awaitable is done when the broker has them."""

    def send(self, topic: str, key: bytes | None, value: bytes | None, partition: int | None = None,
             headers: list[tuple[str, bytes]] | None = None, *, linger_s: float = 0.0) -> asyncio.Future[Any]:
        """Send one record; ``linger_s``: how long it may be gathered with others."""

    def cut(self, topic: str, partition: int) -> asyncio.Future[int | None]:
        """Return, once the broker has it, the offset behind all that was sent to a partition so far.

        None: nothing was sent to it. Below 0: the broker has it, and has not said where.
        """

    async def flush(self) -> None:
        """Wait until the broker has everything sent so far."""


class Clock(Protocol):
    """The wall clock, read only at the edge."""

    def __call__(self) -> int:
        """Return UTC nanoseconds."""


class Counters(Protocol):
    """Metrics by name."""

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add a value to a distribution."""


async def until(holds: Callable[[], bool], step_s: float = 0.01) -> None:
    """Wait until something holds that tells nobody when it does."""
    while True:
        if holds():
            return
        await asyncio.sleep(step_s)
