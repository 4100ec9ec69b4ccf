"""Processes of one machine: started in order, restarted when they fail, stopped together."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tables.tasks import process

log = logging.getLogger(__name__)
HOME = Path(__file__).resolve().parent.parent
STOP_S = 8.0
BACKOFF_S_MIN, BACKOFF_S_MAX = 0.3, 10.0
#: a child that lived this long starts again with the smallest wait
HEALTHY_S = 30.0
#: glibc would keep a heap per thread
MALLOC = {"MALLOC_ARENA_MAX": "2"}
#: who reads a backlog gives the megabytes back; glibc of itself keeps the more, the larger what was freed before. It
#: costs a quarter of the rate of a backlog; others would map anew at all times what they free
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "1048576"}


def malloc_settings(arguments: Sequence[str]) -> dict[str, str]:
    """Return what glibc is told about the memory of a command's process."""
    return MALLOC | GIVES_BACK if "positions" in arguments else MALLOC


@dataclass
class Child:
    """One process to keep running."""

    name: str
    arguments: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    ready_text: str = ""
    restarts: int = 0
    last_line: str = ""


class Supervisor:
    """Keeps children running until told to stop."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.children: list[Child] = []
        self._keepers: list[asyncio.Task[None]] = []
        self.stopping = asyncio.Event()

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
            started = time.monotonic()
            code = await self._run(child)
            child.ready.clear()
            if self.stopping.is_set():
                return
            child.restarts += 1
            wait = BACKOFF_S_MIN if time.monotonic() - started > HEALTHY_S else min(2 * wait, BACKOFF_S_MAX)
            log.error("%s ended with exit code %s; started again in %.1f s", child.name, code, wait)
            await asyncio.sleep(wait)

    async def _run(self, child: Child) -> int:
        environment = os.environ | child.environment
        for name, value in malloc_settings(child.arguments).items():
            environment.setdefault(name, value)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HOME), os.environ.get("PYTHONPATH")]))
        child.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app", *child.arguments, "--supervised", stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, env=environment, process_group=0)
        assert child.process.stdout is not None
        async for raw in child.process.stdout:
            line = raw.decode(errors="replace").strip()
            if line.startswith("READY "):
                child.ready_text = line.removeprefix("READY ")
                child.ready.set()
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
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)


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
