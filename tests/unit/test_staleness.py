"""Silent feeds are noticed by their own rhythm; what is merely slow, or was never expected, is not."""

from __future__ import annotations

from models.staleness import Feeds

S = 1_000_000_000


def test_a_fast_feed_is_missed_at_once_and_a_slow_one_is_not() -> None:
    feeds = Feeds()
    for t in range(600):
        feeds.heard("fast", t * S // 10)
        if t % 100 == 0:
            feeds.heard("slow", t * S // 10, 10)
    end = 60 * S
    assert feeds.changes(end) == []
    assert [(n, s) for n, s, _ in feeds.changes(end + 6 * S)] == [("fast", True)]
    assert feeds.changes(end + 7 * S) == []  # said once
    feeds.heard("fast", end + 8 * S)
    assert [(n, s) for n, s, _ in feeds.changes(end + 8 * S)] == [("fast", False)]
    # the silence did not become its rhythm
    assert feeds.feeds["fast"].bound_ns == 5 * S


def test_what_spoke_only_now_and_then_is_not_expected() -> None:
    feeds = Feeds()
    for t in range(5):
        feeds.heard("rare", t * S)
    assert feeds.changes(10_000 * S) == []
