"""Processes of one machine: started in order, restarted when they fail, stopped together."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tables.exit_codes import ExitCode
from tables.tasks import process, turned
from tables.watchdog import IN_TIME, LATE, SAY_S

log = logging.getLogger(__name__)
HOME = Path(__file__).resolve().parent.parent
STOP_S = 8.0
BACKOFF_S_MIN, BACKOFF_S_MAX = 0.3, 10.0
#: a child that lived this long starts again with the smallest wait
HEALTHY_S = 30.0
#: a child that has begun to say how it gets on, and says nothing for so long, is stuck
SILENT_S = 3 * SAY_S
#: glibc would keep a heap per thread
MALLOC = {"MALLOC_ARENA_MAX": "2"}
#: who reads a backlog gives the megabytes back; glibc of itself keeps the more, the larger what was freed before. It
#: costs a quarter of the rate of a backlog; others would map anew at all times what they free
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "1048576"}


def malloc_settings(arguments: Sequence[str]) -> dict[str, str]:
    """Return what glibc is told about the memory of a command's process."""
    return MALLOC | GIVES_BACK if "positions" in arguments else MALLOC


class Running(Protocol):
    """A process, as `asyncio.subprocess.Process` is one."""

    @property
    def returncode(self) -> int | None:
        """Return how it ended, or None while it runs."""

    @property
    def stdout(self) -> asyncio.StreamReader | None:
        """Return what it writes."""

    async def wait(self) -> int:
        """Wait for its end."""

    def send_signal(self, number: int) -> None:
        """Send a signal."""

    def terminate(self) -> None:
        """SIGTERM."""

    def kill(self) -> None:
        """SIGKILL."""


#: starts ``python -m app ARGUMENTS`` in an environment
Start = Callable[[Sequence[str], Mapping[str, str]], Awaitable[Running]]


async def start_anew(arguments: Sequence[str], environment: Mapping[str, str]) -> Running:
    """Start a process from nothing."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env=environment, process_group=0)


@dataclass
class Child:
    """One process to keep running."""

    name: str
    arguments: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    process: Running | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    ready_text: str = ""
    restarts: int = 0
    #: why it makes no progress, where it makes none
    late: str = ""
    #: when (monotonic) it last said how it gets on; None: it has not yet
    heard: float | None = None
    #: how often it ended, by what its exit code means
    ends: Counter[str] = field(default_factory=Counter)
    last_line: str = ""
    #: cleared while it is not wanted to run
    wanted: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.wanted.set()

    async def halt(self, timeout: float = STOP_S) -> None:
        """Stop it, and keep it stopped until `wanted` is set again."""
        self.wanted.clear()
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), timeout)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        self.ready.clear()


class Told(Protocol):
    """Who is told that a child is down, or makes no progress, and that it is back."""

    def down(self, name: str, why: str, restarts: int) -> None:
        """Take in that a child is down."""

    def up(self, name: str, restarts: int) -> None:
        """Take in that a child is ready or gets on."""


class Supervisor:
    """Keeps children running until told to stop."""

    def __init__(self, say: Callable[[str], None], start: Start = start_anew) -> None:
        self._say, self._start = say, start
        self._told: Told | None = None
        self._listener: asyncio.Task[None] | None = None
        self.children: list[Child] = []
        self._keepers: list[asyncio.Task[None]] = []
        self.stopping = asyncio.Event()

    def tell(self, told: Told) -> None:
        """Have somebody told from now on when a child is down, and when it is back."""
        self._told = told
        if self._listener is None:
            self._listener = process.start("listener", self._listen, bound_s=30.0)

    def add(self, name: str, *arguments: str, **environment: str) -> Child:
        """Start a child (``python -m app ARGUMENTS --supervised``) and keep it running."""
        child = Child(name, arguments, environment)
        self.children.append(child)
        self._keepers.append(process.start(f"keeper of {name}", lambda: self._keep(child),
                                           may_return=self.stopping.is_set))
        return child

    async def _keep(self, child: Child) -> None:
        wait = BACKOFF_S_MIN
        while not self.stopping.is_set():
            await child.wanted.wait()
            started = time.monotonic()
            code = await self._run(child)
            child.ready.clear()
            child.heard, child.late = None, ""
            if self.stopping.is_set():
                return
            if not child.wanted.is_set():
                continue
            child.restarts += 1
            why = meaning(code)
            child.ends[why] += 1
            if self._told is not None:
                self._told.down(child.name, f"{why}; restart {child.restarts}", child.restarts)
            wait = BACKOFF_S_MIN if time.monotonic() - started > HEALTHY_S else min(2 * wait, BACKOFF_S_MAX)
            log.error("%s ended: %s; restart %d in %.1f s; ends so far: %s", child.name, why, child.restarts, wait,
                      ", ".join(f"{n} x {text}" for text, n in child.ends.items()))
            await asyncio.sleep(wait)

    def _late(self, child: Child, why: str) -> None:
        if not child.late:
            log.error("%s: %s", child.name, why)
            if self._told is not None:
                self._told.down(child.name, why, child.restarts)
        child.late = why

    def _in_time(self, child: Child) -> None:
        if child.late:
            log.warning("%s gets on again", child.name)
            if self._told is not None:
                self._told.up(child.name, child.restarts)
        child.late = ""

    async def _listen(self) -> None:
        """Notice children that say nothing any more: a process that is stopped cannot say that it is."""
        while True:
            await asyncio.sleep(1.0)
            now = time.monotonic()
            for child in self.children:
                if child.heard is not None and now - child.heard > SILENT_S:
                    self._late(child, f"it has said nothing for {now - child.heard:.0f} s")
            turned()

    async def _run(self, child: Child) -> int:
        environment = os.environ | child.environment
        for name, value in malloc_settings(child.arguments).items():
            environment.setdefault(name, value)
        environment |= {"DESKRISK_RESTARTS": str(child.restarts)}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HOME), os.environ.get("PYTHONPATH")]))
        child.process = await self._start([*child.arguments, "--supervised"], environment)
        assert child.process.stdout is not None
        async for raw in child.process.stdout:
            line = raw.decode(errors="replace").strip()
            if line.startswith("READY "):
                child.ready_text = line.removeprefix("READY ")
                child.ready.set()
                if self._told is not None:
                    self._told.up(child.name, child.restarts)
            elif line.startswith(LATE):
                child.heard = time.monotonic()
                self._late(child, line.removeprefix(LATE))
            elif line == IN_TIME:
                child.heard = time.monotonic()
                self._in_time(child)
            elif line and "\x1b[?25h" not in line:
                child.last_line = line
        return await child.process.wait()

    async def wait_ready(self, timeout: float) -> None:
        """Wait until every child has said that it is ready.

        Raises
        ------
        TimeoutError
            Naming the children that are not.
        """
        try:
            await asyncio.wait_for(asyncio.gather(*(c.ready.wait() for c in self.children)), timeout)
        except TimeoutError as error:
            late = [c.name for c in self.children if not c.ready.is_set()]
            raise TimeoutError(f"not ready after {timeout:.0f} s: {', '.join(late)}") from error

    async def stop(self) -> None:
        """Stop everything: asked first, forced after a while."""
        self.stopping.set()
        running = [c for c in self.children if c.process is not None and c.process.returncode is None]
        for child in running:
            assert child.process is not None
            child.process.terminate()
        if running:
            waits = [asyncio.create_task(c.process.wait()) for c in running if c.process is not None]
            await asyncio.wait(waits, timeout=STOP_S)
        for child in running:
            if child.process is not None and child.process.returncode is None:
                self._say(f"{child.name} did not stop within {STOP_S:.0f} s: killed")
                child.process.kill()
        tasks = [*self._keepers, *([self._listener] if self._listener is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def meaning(code: int) -> str:
    """Return what an exit code of a child says."""
    if code < 0:
        return f"killed by signal {-code}"
    known = next((each for each in ExitCode if each == code), None)
    return f"exit code {code}" + (f" ({known.meaning})" if known is not None else "")


def stop_with_parent() -> None:
    """End this process when its supervisor is gone (standard input closes)."""
    def watch() -> None:
        while os.read(0, 4096):  # not sys.stdin: its lock would be held at exit
            pass
        os.kill(os.getpid(), signal.SIGTERM)
    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def on_signals(stop: asyncio.Event) -> None:
    """Set an event on Ctrl-C and on SIGTERM."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
