"""Rows for analysts and aggregates give way where processors are scarce; trades and orders do not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import Settings

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="scheduling policies are Linux's")
SAY = "import os; from app.rank import give_way; give_way({role!r}); print(os.nice(0), os.sched_getscheduler(0))"


@pytest.mark.parametrize(("role", "nice", "policy"), [("sink", 19, "SCHED_IDLE"), ("risk", 10, "SCHED_BATCH"),
                                                      ("positions", 0, "SCHED_OTHER"), ("gate", 0, "SCHED_OTHER")])
def test_each_role_has_its_rank(role: str, nice: int, policy: str) -> None:
    before = os.nice(0)
    done = subprocess.run([sys.executable, "-c", SAY.format(role=role)], check=True, text=True, capture_output=True)
    assert done.stdout.split() == [str(min(before + nice, 19)), str(getattr(os, policy))]


def test_a_gate_that_somebody_waits_for_goes_first_where_it_may(tmp_path: Path) -> None:
    doors = [{}, {"gate_socket": tmp_path / "gate.sock"}, {"gate_http_port": 0}, {"gate_http_port": 0, "gate_realtime": False}]
    assert [Settings(brokers="b:1", **door).goes_first("gate") for door in doors] == [False, True, True, False]
    assert not Settings(brokers="b:1", gate_http_port=0).goes_first("positions")


def test_real_time_priority_is_taken_where_it_is_granted_and_missed_without_an_error() -> None:
    say = "import os; from app.rank import go_first; print(go_first(), os.sched_getscheduler(0) == os.SCHED_RR)"
    refused = "import os; os.sched_setscheduler = lambda *_: (_ for _ in ()).throw(PermissionError('not here'));" + say
    for code in (say, refused):
        done = subprocess.run([sys.executable, "-c", code], check=True, text=True, capture_output=True)
        took, has = done.stdout.split()
        assert took == has and (code == say or took == "False")
