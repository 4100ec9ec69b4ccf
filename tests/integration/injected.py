"""Runs one role in this process, hurts each of its background tasks in turn, and prints what was said of it.

``python -m tests.integration.injected ROLE TASK...``: a line of JSON a task, once those named run. The exit is replaced by a list, so that one process
shows them all.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from typing import Any

from app.settings import Role, Settings
from tables.tasks import process

#: without a new name for so long, all tasks of the role run
SETTLED_S, START_S = 1.0, 60.0
left: list[int] = []


class Injected(ArithmeticError):
    """What no task expects."""


def hurt(task: asyncio.Task[None]) -> None:
    """Raise in what a task waits for; in the next turn of the loop where it waits for nothing now."""
    waits_for: Any = task._fut_waiter  # type: ignore[attr-defined]
    while isinstance(waits_for, asyncio.Task):
        waits_for = waits_for._fut_waiter  # type: ignore[attr-defined]
    if waits_for is None or waits_for.done():
        task.get_loop().call_later(0.001, hurt, task)
    else:
        waits_for.set_exception(Injected(task.get_name()))


def settled(wanted: set[str]) -> dict[str, asyncio.Task[None]]:
    """Wait until the tasks of the role are all there; return them by name."""
    names, begun = process.names(), time.monotonic()
    since = begun
    while (not wanted <= set(names) and time.monotonic() - begun < START_S) or time.monotonic() - since < SETTLED_S:
        time.sleep(0.1)
        if process.names() != names:
            names, since = process.names(), time.monotonic()
    return {watched.name: task for task, watched in list(process._tasks.items())}


def inject(wanted: set[str], counters: Any) -> None:
    """Hurt one task after the other and print what followed."""
    for name, task in settled(wanted).items():
        before, asked = len(left), time.monotonic()
        task.get_loop().call_soon_threadsafe(hurt, task)
        def count(what: str, task: str = name) -> float | None:
            said: float | None = counters().registry.get_sample_value(
                f"deskrisk_background_task_{what}_total", {"role": process.role, "task": task})
            return said
        while len(left) == before and not count("restarts") and time.monotonic() - asked < 10:
            time.sleep(0.02)
        print(json.dumps({"task": name, "left": left[before:], "counted": count("failures"), "begun_anew": count("restarts"),
                          "unready": process.unready(time.monotonic(), 1.0)}), flush=True)
    print("DONE", flush=True)


def main(role: str, *wanted: str) -> None:
    """Run the role."""
    settings = Settings()
    process.leave = left.append
    threading.Thread(target=inject, args=(set(wanted), lambda: process.counters), daemon=True).start()
    if role == "gateway":
        from app.gateway.server import run_gateway

        run_gateway(settings)
    elif role == "sink":
        from app.sink.runner import run_sink

        async def run() -> None:  # its other tasks run on when the sinks themselves have ended
            await asyncio.gather(run_sink(settings), asyncio.sleep(START_S))
        asyncio.run(run())
    else:
        from app.engine import run_worker

        given: Role = role  # type: ignore[assignment]
        run_worker(settings, given)


if __name__ == "__main__":
    main(*sys.argv[1:])
