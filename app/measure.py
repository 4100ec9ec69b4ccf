"""A client of the stream, as a browser is one: what arrived, and how long after the trade."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
import numpy as np

WINDOW_MS = 100


@dataclass
class StreamMeter:
    """Counts what a stream delivers.

    Trade latencies are from the trade's producer time stamp to the row's arrival; tick latencies from the begin of the
    mark window that a frame's P&L rests on, so that of the oldest tick in it, to the frame's arrival. What was sent
    before ``from_ms`` or after ``until_ms`` is not measured: where nothing moves, a frame rests on a window that is as
    old as the quiet.
    """

    rows: int = 0
    frames: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    tick_latencies_ms: list[float] = field(default_factory=list)
    as_of_steps_back: int = 0
    from_ms: float = field(default_factory=lambda: time.time() * 1000)
    until_ms: float = math.inf
    _window_end_ms: int = 0
    _trade_t: dict[str, int] = field(default_factory=dict)

    def take(self, event: str, data: dict[str, Any]) -> None:
        """Take one event in."""
        if event not in ("snapshot", "delta") or data["table"] != "position":
            return
        now = time.time() * 1000
        self.frames += 1
        cols = data["cols"]
        key, stamp = cols.index("id"), cols.index("trade_t")
        window_end = max((row[cols.index("px_t")] for row in data["rows"]), default=0)
        if window_end > self._window_end_ms:
            if event == "delta" and self.from_ms + WINDOW_MS <= window_end <= self.until_ms:
                self.tick_latencies_ms.append(now - window_end + WINDOW_MS)
            self._window_end_ms = window_end
        for row in data["rows"]:
            self.rows += 1
            old = self._trade_t.get(row[key], 0)
            if row[stamp] > old:
                self._trade_t[row[key]] = row[stamp]
                if event == "delta" and row[stamp] >= self.from_ms:
                    self.latencies_ms.append(now - row[stamp])
            elif row[stamp] < old:
                self.as_of_steps_back += 1


def quantiles(meters: Sequence[StreamMeter]) -> dict[str, float | None]:
    """Return p50, p99 and p99.9 of both latencies over all meters, ms; None where nothing was measured."""
    out: dict[str, float | None] = {}
    for name, field_ in (("trade_to_stream", "latencies_ms"), ("tick_to_pnl", "tick_latencies_ms")):
        values = [x for m in meters for x in getattr(m, field_)]
        found = np.percentile(values, [50, 99, 99.9]).tolist() if values else [None] * 3
        for q, value in zip(("p50", "p99", "p999"), found, strict=True):
            out[f"{name}_ms_{q}"] = None if value is None else round(value, 1)
    return out


async def follow(url: str, meter: StreamMeter, scope: str = "firm", rate: int = 20) -> None:
    """Read a gateway's stream into a meter until cancelled; reconnects as EventSource does."""
    headers: dict[str, str] = {}
    timeout = aiohttp.ClientTimeout(total=None, sock_read=10)
    while True:
        try:
            async with aiohttp.ClientSession(timeout=timeout, read_bufsize=1 << 22) as session, \
                    session.get(f"{url}/api/stream", params={"scope": scope, "rate": str(rate)},
                                headers=headers) as reply:
                event, data = "", b""
                async for line in reply.content:
                    if line.startswith(b"event: "):
                        event = line[7:].strip().decode()
                    elif line.startswith(b"data: "):
                        data = line[6:]
                    elif line.startswith(b"id: "):
                        headers["Last-Event-ID"] = line[4:].strip().decode()
                    elif line == b"\n" and data:
                        meter.take(event, msgspec.json.decode(data))
                        event, data = "", b""
        except (aiohttp.ClientError, TimeoutError):
            await asyncio.sleep(1.0)
