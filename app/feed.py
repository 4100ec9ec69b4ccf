"""The demo's upstream: publishes the simulated market's reference data, quotes and trades, in real time."""

from __future__ import annotations

import asyncio
import json
import time

import numpy as np

from app.publisher import BatchingPublisher
from app.reference_files import publish_reference
from app.settings import Settings
from app.simulate import Market, limits, surfaces
from app.supervisor import on_signals
from schemas.codec import encode
from schemas.topics import TOPICS

STEP_S = 0.05


class Feed:
    """Publishes until told to stop; the last line it prints counts what it sent."""

    def __init__(self, settings: Settings, seed: int, tick_rate: float, trade_rate: float, opening: int) -> None:
        self._settings = settings
        self._topics = settings.topics()
        self._seed = seed
        self.market = Market(seed)
        self._tick_rate, self._trade_rate, self._opening = tick_rate, trade_rate, opening
        self.ticks = self.trades = self.orders = 0
        self._order_rate = trade_rate / 3
        counts = {settings.topics()[t.name]: settings.partitions if t.partitions == "data" else 1 for t in TOPICS}
        self._publisher = BatchingPublisher(settings.client(), counts)
        self._names = [x.instrument.instrument for x in self.market.listings]
        self._digits = [max(2, len(f"{x.tick:.10f}".rstrip("0").partition(".")[2])) for x in self.market.listings]

    async def run(self, stop: asyncio.Event) -> None:
        """Publish everything, then keep quoting and trading."""
        await self._publisher.start()
        await publish_reference(self._settings.client(), self._topics,
                                [x.instrument for x in self.market.listings], self.market.accounts)
        for surface in surfaces(self._seed, time.time_ns()):
            self._publisher.send(self._topics["market.surfaces"], surface.underlying.encode(), encode(surface))
        for limit in limits():
            self._publisher.send(self._topics["limits"], limit.limit_id.encode(), encode(limit), 0)
        self._send_quotes(*self.market.all_quotes())
        for trade in self.market.opening_trades(time.time_ns(), self._opening):
            self._send_trade(trade)
        await self._publisher.flush()
        print("READY feed", flush=True)
        rng = np.random.default_rng(7)
        due = time.monotonic()
        while not stop.is_set():
            due += STEP_S
            self._send_quotes(*self.market.quotes(STEP_S, self._tick_rate))
            for _ in range(int(rng.poisson(self._trade_rate * STEP_S))):
                self._send_trade(self.market.trade(time.time_ns()))
            for _ in range(int(rng.poisson(self._order_rate * STEP_S))):
                order = self.market.order(time.time_ns())
                self._publisher.send(self._topics["orders"], str(order["account"]).encode(), json.dumps(order).encode())
                self.orders += 1
            if due < time.monotonic() - 1:
                due = time.monotonic()  # a stopped machine does not make up for lost time
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await self._publisher.stop()
        print(json.dumps({"ticks": self.ticks, "trades": self.trades, "orders": self.orders}), flush=True)

    def _send_quotes(self, which: np.ndarray, bid: np.ndarray, ask: np.ndarray) -> None:
        now = time.time_ns()
        topic = self._topics["ticks"]
        for i, (k, b, a) in enumerate(zip(which.tolist(), bid.tolist(), ask.tolist(), strict=True)):
            name, digits = self._names[k], self._digits[k]
            value = (f'{{"instrument":"{name}","bid":"{b:.{digits}f}","ask":"{a:.{digits}f}",'
                     f'"ts_event":{now + i},"source":"LP{i % 2 + 1}"}}')
            self._publisher.send(topic, name.encode(), value.encode())
        self.ticks += len(which)

    def _send_trade(self, trade: dict[str, object]) -> None:
        self._publisher.send(self._topics["trades"], str(trade["account"]).encode(), encode(trade))
        self.trades += 1


async def run_feed(settings: Settings, seed: int, tick_rate: float, trade_rate: float, opening: int) -> None:
    """Run the feed until a signal."""
    stop = asyncio.Event()
    on_signals(stop)
    await Feed(settings, seed, tick_rate, trade_rate, opening).run(stop)
