"""Rows for analysts and aggregates give way where processors are scarce; trades and orders do not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="scheduling policies are Linux's")
SAY = "import os; from app.rank import give_way; give_way({role!r}); print(os.nice(0), os.sched_getscheduler(0))"


@pytest.mark.parametrize(("role", "nice", "policy"), [("sink", 19, "SCHED_IDLE"), ("risk", 10, "SCHED_BATCH"),
                                                      ("positions", 0, "SCHED_OTHER"), ("gate", 0, "SCHED_OTHER")])
def test_each_role_has_its_rank(role: str, nice: int, policy: str) -> None:
    before = os.nice(0)
    done = subprocess.run([sys.executable, "-c", SAY.format(role=role)], check=True, text=True, capture_output=True)
    assert done.stdout.split() == [str(min(before + nice, 19)), str(getattr(os, policy))]
