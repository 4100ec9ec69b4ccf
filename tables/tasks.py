"""The background tasks of a process: each has a name and is under watch, and none ends unseen.

A task that raises, or returns although it should run on, is logged with its traceback and counted, and ends the
process with a stated code: a supervisor starts a fresh one. Numbers that stand still under a green light are worse
than a restart. What may be started again in place says so; what does one errand may end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from tables.exit_codes import ExitCode

log = logging.getLogger(__name__)
#: a task that ran this long before it failed is started again with the smallest wait
HEALTHY_S = 30.0
Run = Callable[[], Coroutine[Any, Any, None]]


class Counters(Protocol):
    """What failures are counted with."""

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""


@dataclass(frozen=True)
class Restart:
    """How long a task that failed waits before it is started again: twice as long each time, up to a bound."""

    first_s: float = 0.5
    most_s: float = 15.0


class TaskEnded(RuntimeError):
    """A task that should run on returned, or was cancelled by what it waited for."""


@dataclass
class Watched:
    """One background task, as the watchdog and readiness see it."""

    name: str
    code: ExitCode
    #: within which a turn must be completed; None: it has no turns
    bound_s: float | None
    restart: Restart | None
    may_return: Callable[[], bool]
    #: since when (monotonic) the turn that is under way runs; None: it waits to be started again
    turned: float | None = field(default_factory=time.monotonic)


class Supervision:
    """Starts and watches the background tasks of one process.

    Parameters
    ----------
    role : whose tasks these are, as a label
    leave : ends the process; must not return outside of tests
    """

    def __init__(self, role: str = "process", leave: Callable[[int], object] = os._exit) -> None:
        self.role, self.leave = role, leave
        self.counters: Counters | None = None
        #: whether a supervisor reads what this process says on standard output
        self.supervised = False
        #: failures by task, of this process
        self.failures: dict[str, int] = {}
        #: what failed and ends the process
        self.ended: list[str] = []
        self._tasks: dict[asyncio.Task[None], Watched] = {}

    def start(self, name: str, run: Run, *, code: ExitCode = ExitCode.TASK, bound_s: float | None = None,
              restart: Restart | None = None, may_return: Callable[[], bool] = bool) -> asyncio.Task[None]:
        """Start a task that runs until it is cancelled; return it.

        Parameters
        ----------
        name : of the task, as a label and in the log
        run : returns the coroutine
        code : with which the process ends where the task fails
        bound_s : the process ends where a turn takes longer; the task says `turned` at the end of each
        restart : the task is started again instead
        may_return : says whether the task was told to end
        """
        watched = Watched(name, code, bound_s, restart, may_return)
        task = asyncio.get_running_loop().create_task(self._keep(watched, run), name=name)
        self._tasks[task] = watched
        task.add_done_callback(self._tasks.pop)
        return task

    def errand(self, name: str, run: Run) -> asyncio.Task[None]:
        """Start a task that ends by itself; one that raises is logged and counted, and the process goes on."""
        watched = Watched(name, ExitCode.TASK, None, None, lambda: True)
        task = asyncio.get_running_loop().create_task(self._go(watched, run), name=name)
        self._tasks[task] = watched
        task.add_done_callback(self._tasks.pop)
        return task

    def turned(self) -> None:
        """Say that the task that runs now has completed a turn."""
        watched = self._tasks.get(asyncio.current_task())  # type: ignore[arg-type]
        if watched is not None:
            watched.turned = time.monotonic()

    def failed(self, name: str, error: BaseException | None, code: ExitCode) -> None:
        """End the process: something in its background failed; an error may have an exit code of its own."""
        code = getattr(error, "exit_code", code)
        self._count("background_task_failures", name)
        self.ended.append(name)
        log.critical("%s: %s failed, leaving with exit code %d (%s)", self.role, name, code, code.meaning,
                     exc_info=error)
        self.leave(int(code))

    def ages(self, now: float) -> dict[str, float]:
        """Return how long the turn that is under way has run, of each task that has a bound."""
        found: dict[str, float] = {}
        for watched in list(self._tasks.values()):
            if watched.bound_s is not None and watched.turned is not None:
                found[watched.name] = max(found.get(watched.name, 0.0), now - watched.turned)
        return found

    def overdue(self, now: float, share: float = 1.0) -> str | None:
        """Return what is over its bound, or over a ``share`` of it, or None; safe to ask from another thread."""
        for watched in list(self._tasks.values()):
            if watched.bound_s is None or watched.turned is None:
                continue
            took, bound = now - watched.turned, share * watched.bound_s
            if took > bound:
                return f"{watched.name}: no turn completed for {took:.1f} s (bound {bound:.1f} s)"
        return None

    def unready(self, now: float, share: float) -> str | None:
        """Return why this process is not to be relied on: a task failed, or is late by a ``share`` of its bound."""
        if self.ended:
            return f"failed: {', '.join(self.ended)}"
        return self.overdue(now, share)

    def names(self) -> list[str]:
        """Return the names of the tasks that run."""
        return sorted(watched.name for watched in list(self._tasks.values()))

    async def _keep(self, watched: Watched, run: Run) -> None:
        wait = watched.restart.first_s if watched.restart is not None else 0.0
        while True:
            began = watched.turned = time.monotonic()
            error = await self._end_of(watched, run)
            if error is None:
                return
            if watched.restart is None:
                self.failed(watched.name, error, watched.code)
                return
            self._count("background_task_restarts", watched.name)
            if time.monotonic() - began > HEALTHY_S:
                wait = watched.restart.first_s
            log.error("%s: %s failed, started again in %.1f s", self.role, watched.name, wait, exc_info=error)
            watched.turned = None
            await asyncio.sleep(wait)
            wait = min(2 * wait, watched.restart.most_s)

    async def _end_of(self, watched: Watched, run: Run) -> BaseException | None:
        """Run a task; return what ended it, None where it may end; raise where it was cancelled."""
        try:
            await run()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return error  # nobody asked for it: what it waited for was cancelled
        except Exception as error:  # noqa: BLE001 - whatever ends a task is said, never lost with it
            return error
        return None if watched.may_return() else TaskEnded(f"{watched.name} returned")

    async def _go(self, watched: Watched, run: Run) -> None:
        error = await self._end_of(watched, run)
        if error is not None:
            self._count("background_task_failures", watched.name)
            log.error("%s: %s failed", self.role, watched.name, exc_info=error)

    def _count(self, what: str, name: str) -> None:
        if what == "background_task_failures":
            self.failures[name] = self.failures.get(name, 0) + 1
        if self.counters is not None:
            self.counters.add(what, role=self.role, task=name)


#: the tasks of this process: a process has one role, and what fails in it ends it
process = Supervision()


def turned() -> None:
    """Say that the background task that runs now has completed a turn."""
    process.turned()
