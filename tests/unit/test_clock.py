"""F18: the wall clock jumps an hour: what stages measure goes on."""

from __future__ import annotations

import time

import pytest

from app.engine import steady_clock

HOUR_NS = 3_600_000_000_000


@pytest.mark.parametrize("jump_ns", [HOUR_NS, -HOUR_NS])
def test_a_jump_of_the_wall_clock_is_not_seen(monkeypatch: pytest.MonkeyPatch, jump_ns: int) -> None:
    clock = steady_clock()
    before = clock()
    wall = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: wall() + jump_ns)
    assert 0 <= clock() - before < HOUR_NS / 10
    assert abs(steady_clock()() - wall() - jump_ns) < HOUR_NS / 10
