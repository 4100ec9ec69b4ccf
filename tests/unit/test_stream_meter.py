"""What a client of the stream measures: latencies of what was sent while the load ran, and of nothing else."""

from __future__ import annotations

from typing import Any

from app.measure import StreamMeter


def frame(row: str, trade_t: int, px_t: int) -> dict[str, Any]:
    """Return a frame of one row."""
    return {"table": "position", "cols": ["id", "trade_t", "px_t"], "rows": [[row, trade_t, px_t]]}


def test_what_was_sent_before_or_after_the_load_is_not_measured() -> None:
    meter = StreamMeter(from_ms=10_000, until_ms=20_000)
    meter.take("snapshot", frame("a", 9_000, 9_500))
    meter.take("delta", frame("a", 9_900, 10_050))  # a window that began before, and a trade of before
    assert (len(meter.latencies_ms), len(meter.tick_latencies_ms)) == (0, 0)
    meter.take("delta", frame("a", 10_000, 10_100))
    meter.take("delta", frame("b", 19_900, 20_000))
    assert (len(meter.latencies_ms), len(meter.tick_latencies_ms)) == (2, 2)
    meter.take("delta", frame("b", 19_900, 20_100))  # nothing moves any more: the window is as old as the quiet
    assert len(meter.tick_latencies_ms) == 2
    meter.take("delta", frame("b", 19_800, 20_100))
    assert meter.as_of_steps_back == 1 and meter.rows == 6
