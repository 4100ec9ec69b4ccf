"""Silent feeds: each is judged by its own rhythm, so that a slow one is not stale and a fast one is missed at once."""

from __future__ import annotations

from dataclasses import dataclass, field

#: a feed is silent after this many of its usual gaps, within these bounds
GAPS, SILENCE_NS_MIN, SILENCE_NS_MAX = 25.0, 5_000_000_000, 600_000_000_000
#: weight of the newest gap in a feed's rhythm
WEIGHT = 0.05
#: a feed is expected once so many of its records have come
EXPECTED_AFTER = 20


@dataclass
class Feed:
    """One source: when it last spoke, how often it does."""

    last_ns: int
    gap_ns: float = 0.0
    count: int = 1
    silent: bool = False

    @property
    def bound_ns(self) -> float:
        """After how long without a record it is silent."""
        return min(max(GAPS * self.gap_ns, SILENCE_NS_MIN), SILENCE_NS_MAX)


@dataclass
class Feeds:
    """All feeds by name; time is an argument."""

    feeds: dict[str, Feed] = field(default_factory=dict)

    def heard(self, name: str, now_ns: int, records: int = 1) -> None:
        """Note that a feed spoke."""
        feed = self.feeds.get(name)
        if feed is None:
            self.feeds[name] = Feed(now_ns, count=records)
            return
        gap = max(now_ns - feed.last_ns, 0) / max(records, 1)
        # a silence is not the rhythm: it does not teach the feed that silence is usual
        if not feed.silent:
            feed.gap_ns = gap if feed.gap_ns == 0.0 else feed.gap_ns + WEIGHT * (gap - feed.gap_ns)
        feed.last_ns, feed.count = now_ns, feed.count + records

    def forget(self, name: str) -> None:
        """Expect a feed no more, until it has spoken as often as a new one: nothing is left that it would say."""
        feed = self.feeds.get(name)
        if feed is not None:
            feed.count = 0

    def changes(self, now_ns: int) -> list[tuple[str, bool, float]]:
        """Return (feed, silent, seconds since it spoke) of every feed that fell silent or came back."""
        out = []
        for name, feed in self.feeds.items():
            silent = feed.count >= EXPECTED_AFTER and now_ns - feed.last_ns > feed.bound_ns
            if silent != feed.silent:
                feed.silent = silent
                out.append((name, silent, (now_ns - feed.last_ns) / 1e9))
        return out
