"""F29: a background task of any role ends or hangs, and it is said: exit code, counter, readiness, the page."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from tables.exit_codes import ExitCode
from tests.integration.harness import ROOT, Installation
from tests.support.patience import PATIENCE_S

pytestmark = pytest.mark.kafka
#: of each role what must be under watch; a task that is new is hurt as well
TASKS = {
    "positions": {"publisher", "reference tail", "publish loop", "progress loop", "writer of partition 0", "beats",
                  "topics check"},
    "marks": {"publisher", "reference tail", "mark windows", "beats", "topics check"},
    "risk": {"publisher", "reference tail", "publish loop", "marks tail", "surfaces tail", "rules tail", "beats",
             "topics check"},
    "gate": {"publisher", "reference tail", "prices tail", "rules tail", "refresh loop", "marks loop", "write-down loop",
             "limits used", "gate addresses tail", "gate over HTTP", "beats", "topics check"},
    "gateway": {"numbers tail", "rules tail", "alerts tail", "decisions tail", "turns", "beats", "put aside"},
    "sink": {"put aside", "sink of trades", "sink of positions", "sink of risk", "sink of decisions", "sink of alerts", "beats"},
}
CODES = {"publisher": ExitCode.PUBLISHER, "writer of partition 0": ExitCode.WRITER,
         **{f"writer of partition {p}": ExitCode.WRITER for p in range(1, 4)}}

#: what a broker that is gone may end without ending its process: it is begun anew, and counted
BEGUN_ANEW = {"put aside"}


@pytest.mark.parametrize("role", TASKS)
def test_each_task_of_each_role_that_fails_is_seen(made: Installation, role: str) -> None:
    asyncio.run(made.create())
    run = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.injected", role, *TASKS[role]], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)} | made.environment(
            DESKRISK_GATE_HTTP_PORT="0", DESKRISK_GATEWAY_PORT="0"))
    seen: dict[str, dict[str, Any]] = {}
    try:
        assert run.stdout is not None
        for line in run.stdout:
            if line.startswith("{"):
                found = json.loads(line)
                seen[found["task"]] = found
            if line.startswith("DONE"):
                break
    finally:
        run.kill()
    said = run.stderr.read() if run.stderr is not None else ""
    assert TASKS[role] <= seen.keys(), said[-3000:]
    for name, found in seen.items():
        if name in BEGUN_ANEW:
            assert (found["left"], found["begun_anew"]) == ([], 1) and f"{name} failed, started again" in said, found
            continue
        assert found["left"][:1] == [int(CODES.get(name, ExitCode.TASK))], found
        assert found["counted"] == 1 and name in found["unready"], found
        assert f"{name} failed, leaving" in said


def until(get: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := get()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def test_a_worker_that_dies_or_stands_still_is_said_on_alerts(made: Installation) -> None:
    asyncio.run(made.create())
    keeper = made.start("worker", "--roles", "marks,risk", DESKRISK_INSTANCE="here")
    keeper.wait_ready()

    def worker() -> psutil.Process:
        return next(p for p in psutil.Process(keeper.process.pid).children() if "marks" in p.cmdline())

    def alerts() -> list[tuple[str, str]]:
        return [(a["kind"], a["note"]) for a in asyncio.run(made.alerts()) if a["alert_id"] == "worker.here.worker-marks"]

    def said(kind: str, words: str, times: int) -> Callable[[], bool]:
        return lambda: sum(k == kind and words in note for k, note in alerts()) >= times

    worker().send_signal(signal.SIGKILL)
    until(said("worker_down", "killed by signal 9; restart 1", 1))
    until(said("clear", "back", 1))
    stopped = worker()
    time.sleep(3)  # it has begun to say how it gets on
    stopped.send_signal(signal.SIGSTOP)
    try:
        until(said("worker_down", "said nothing", 1))
    finally:
        stopped.send_signal(signal.SIGCONT)
    until(said("clear", "back", 2))
    assert keeper.stop() == 0
