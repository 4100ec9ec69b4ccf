"""How far trades are in positions: never said to be further than they are, and said to be there when nothing is left."""

from __future__ import annotations

from models.position_progress import QUIET_TURNS, FoldProgress, PositionsInStep
from schemas.addresses import PositionProgress

S = 1_000_000_000
T0 = 1_795_000_000 * S


def behind(progress: FoldProgress, now_ns: int) -> int:
    said = progress.of(0, now_ns)
    assert said is not None
    return said.behind_ms


def test_who_has_read_all_is_in_step_from_the_start_who_has_not_when_it_has() -> None:
    p = FoldProgress()
    p.begin(0, 7, True, T0)
    assert p.of(0, T0) == PositionProgress(partition=0, next_offset=7, behind_ms=0, ts=T0)
    p.begin(0, 7, False, T0)
    assert behind(p, T0) > 10**9
    p.folded(0, 9, T0 - 60 * S, 5, T0 + S)
    assert behind(p, T0 + S) == 61_000
    p.folded(0, 14, T0 - 50 * S, 0, T0 + 2 * S)
    assert p.of(0, T0 + 3 * S) == PositionProgress(partition=0, next_offset=14, behind_ms=1_000, ts=T0 + 3 * S)


def test_a_steady_stream_that_is_never_read_to_its_end_is_as_old_as_what_was_read_last() -> None:
    p = FoldProgress()
    p.begin(0, 0, True, T0)
    for k in range(1, 20):  # open transactions behind: the end of the log is never reached
        p.folded(0, k, T0 + k * S - S // 10, 1, T0 + k * S)
        assert behind(p, T0 + k * S) == 100
    p.folded(0, 20, T0 + 10**6 * S, 1, T0 + 20 * S)  # a producer whose clock is ahead
    assert behind(p, T0 + 20 * S) == 0


def test_a_source_that_sends_nothing_for_some_turns_has_nothing() -> None:
    p = FoldProgress()
    p.begin(0, 0, False, T0)
    p.folded(0, 5, T0 - 60 * S, 1, T0)
    for k in range(QUIET_TURNS - 1):
        p.turn(T0 + k)
        assert behind(p, T0 + k) >= 60_000
    p.turn(T0 + S)
    assert behind(p, T0 + S) == 0
    # a process that was stopped and goes on has had no turns: what waits for it is not taken for nothing
    p.folded(0, 6, T0 - 60 * S, 1, T0 + 2 * S)
    p.turn(T0 + 100 * S)
    assert behind(p, T0 + 100 * S) >= 98_000
    p.end(0)
    assert p.of(0, T0) is None


def test_positions_are_as_old_as_the_partition_that_is_furthest_behind() -> None:
    step = PositionsInStep(2)
    assert step.up_to_ns() == 0
    step.heard(PositionProgress(partition=0, next_offset=3, behind_ms=0, ts=1), T0)
    assert step.up_to_ns() == 0
    step.heard(PositionProgress(partition=1, next_offset=4, behind_ms=2_000, ts=1), T0)
    step.heard(PositionProgress(partition=2, next_offset=4, behind_ms=0, ts=1), T0)  # of another number of partitions
    assert step.up_to_ns() == T0 - 2 * S and step.next_offset == [3, 4]
