"""Silent feeds are noticed by their own rhythm; what is merely slow, or was never expected, is not."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

from agents.risk import RiskStage
from models.reference import Reference
from models.staleness import Feeds
from schemas.records import Instrument
from schemas.topics import TOPICS

S = 1_000_000_000


class Quiet:
    """Counters and a client that take all there is."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


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


def test_prices_of_a_class_that_nothing_is_of_any_more_are_not_missed() -> None:
    known = cast(Any, SimpleNamespace(reference=Reference(lambda account: 0)))
    sent: list[Any] = []
    publisher = cast(Any, SimpleNamespace(send=lambda topic, key, value, *_: sent.append(json.loads(value))))
    now = [0]
    stage = RiskStage(cast(Any, Quiet()), {t.name: t.name for t in TOPICS}, known, publisher, lambda: now[0], cast(Any, Quiet()), "USD", ("book", "firm"), 1)
    for name in ("B1", "B2"):
        stage._on_reference(Instrument(instrument=name, asset_class="bond", currency="USD"))
    for t in range(100):
        stage.feeds.heard("prices bond", t * S)
    now[0] = 300 * S
    stage.watch_feeds()
    assert [a["kind"] for a in sent] == ["stale"]
    stage._on_reference(Instrument(instrument="B1", asset_class="equity", currency="USD"))
    stage.watch_feeds()
    assert len(sent) == 1, "another bond is left"
    stage._on_reference(Instrument(instrument="B2", asset_class="equity", currency="USD"))
    stage.watch_feeds()
    now[0] = 900 * S
    stage.watch_feeds()
    assert [a["kind"] for a in sent] == ["stale", "clear"]
