"""A thread that ends the process when the engine stops making progress: a supervisor starts a fresh one."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

EXIT_STUCK = 72


class Watchdog:
    """Checks bounds from outside the event loop, so that a blocked loop is seen too.

    Parameters
    ----------
    name : who is watched, for the last line
    loop_block_s : how long the event loop may not answer
    """

    def __init__(self, name: str, loop_block_s: float = 30.0) -> None:
        self.name = name
        self._loop_block_s = loop_block_s
        self._beat = time.monotonic()
        self._bounds: list[tuple[str, float, Callable[[], float | None]]] = []
        self._stop = threading.Event()

    def beat(self) -> None:
        """Say that the event loop is alive."""
        self._beat = time.monotonic()

    def bound(self, what: str, seconds: float, since: Callable[[], float | None]) -> None:
        """End the process when ``since()`` (a monotonic time, None: not now) lies further back than ``seconds``."""
        self._bounds.append((what, seconds, since))

    def start(self) -> None:
        """Watch from now on."""
        self.beat()
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Stop watching."""
        self._stop.set()

    def overdue(self, now: float) -> str | None:
        """Return what is over its bound, or None."""
        if now - self._beat > self._loop_block_s:
            return f"event loop blocked for {now - self._beat:.1f} s (bound {self._loop_block_s} s)"
        for what, seconds, since in self._bounds:
            start = since()
            if start is not None and now - start > seconds:
                return f"{what} for {now - start:.1f} s (bound {seconds} s)"
        return None

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            late = self.overdue(time.monotonic())
            if late:
                print(f"deskrisk {self.name}: {late}; leaving, the supervisor starts a fresh process",
                      file=sys.stderr, flush=True)
                os._exit(EXIT_STUCK)
