"""A thread that ends the process when the engine stops making progress: a supervisor starts a fresh one."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from tables.exit_codes import ExitCode
from tables.tasks import process, turned

#: a process that was told to end is ended after this long, whatever it waits for
STOP_S = 20.0
#: a turn that has taken this share of its bound is late
LATE_SHARE = 1 / 6
#: what the supervisor is told this often, on a line of its own; one that hears nothing knows that much, too
SAY_S = 2.0
LATE, IN_TIME = "LATE ", "IN TIME"
#: a process that was stopped (a paused machine) is not at fault, and has time to get on, s
STOPPED_S, GRACE_S = 5.0, 10.0
BEAT_S = 0.5


class Watchdog:
    """Checks bounds from outside the event loop, so that a blocked loop is seen too.

    Parameters
    ----------
    name : who is watched, for the last line
    loop_block_s : how long the event loop may not answer
    describe : says what the process waits for, for the lines before the last
    """

    def __init__(self, name: str, loop_block_s: float = 30.0, describe: Callable[[], str] = str) -> None:
        self.name = name
        self._describe = describe
        self._stopping_since: float | None = None
        self._told = 0.0
        self.beats: asyncio.Task[None] | None = None
        self._loop_block_s = loop_block_s
        self._beat = time.monotonic()
        self._bounds: list[tuple[str, float, Callable[[], float | None]]] = []

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

    def stopping(self) -> None:
        """Watch from now on that the process ends: a broker that is gone may keep it waiting for ever."""
        self._stopping_since = self._stopping_since or time.monotonic()

    def overdue(self, now: float) -> str | None:
        """Return what is over its bound, or None."""
        if self._stopping_since is not None:
            took = now - self._stopping_since
            return f"stopping for {took:.1f} s (bound {STOP_S} s)" if took > STOP_S else None
        if now - self._beat > self._loop_block_s:
            return f"event loop blocked for {now - self._beat:.1f} s (bound {self._loop_block_s} s)"
        for what, seconds, since in self._bounds:
            start = since()
            if start is not None and now - start > seconds:
                return f"{what} for {now - start:.1f} s (bound {seconds} s)"
        return process.overdue(now)

    def _tell(self, now: float) -> None:
        """Tell the supervisor whether turns are late."""
        if process.supervised and now - self._told >= SAY_S and self._stopping_since is None:
            self._told = now
            late = process.overdue(now, LATE_SHARE)
            print(f"{LATE}{late}" if late else IN_TIME, flush=True)

    def _run(self) -> None:
        grace = 0.0
        while True:
            slept = time.monotonic()
            time.sleep(1.0)
            now = time.monotonic()
            if now - slept > STOPPED_S:
                grace = now + GRACE_S
            if now < grace:
                continue
            self._tell(now)
            late = self.overdue(now)
            if late:
                print(self._describe(), file=sys.stderr)
                print(f"deskrisk {self.name}: {late}; leaving, the supervisor starts a fresh process",
                      file=sys.stderr, flush=True)
                process.leave(int(ExitCode.STUCK))
                return


def watch(name: str, describe: Callable[[], str] = str) -> Watchdog:
    """Return a watchdog that has begun to watch this process, with a task that beats for it; for the running loop."""
    made = Watchdog(name, describe=describe)

    async def beats() -> None:
        while True:
            made.beat()
            turned()
            await asyncio.sleep(BEAT_S)

    made.beats = process.start("beats", beats, bound_s=30.0)
    made.start()
    return made


def waiting_tasks(loops: Iterable[asyncio.AbstractEventLoop]) -> str:
    """Return a line per task of some loops: the chain of calls it waits in; safe to ask from another thread."""
    lines: list[str] = []
    for loop in loops:
        try:
            tasks = asyncio.all_tasks(loop)
        except RuntimeError:  # the set changed while it was looked at: this loop is at work
            continue
        for task in tasks:
            chain: list[str] = []
            awaited: Any = task.get_coro()
            while awaited is not None:
                frame: Any = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
                if frame is not None:
                    chain.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
                awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
            lines.append(f"  {task.get_name()}: {' > '.join(chain)}")
    return "\n".join(sorted(lines))
