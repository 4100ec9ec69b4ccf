"""An open-loop load: records leave when they are due, whatever the system does, stamped with that time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from app.measure import StreamMeter, follow, quantiles
from app.publisher import BatchingPublisher
from app.reference_files import publish_reference
from app.settings import Settings
from schemas.records import Account, Instrument
from schemas.topics import TOPICS
from tables.kafka import owner_partition

STEP_S = 0.005
PRICE_SEED = 1


def load_reference(accounts: int, instruments: int) -> tuple[list[Instrument], list[Account]]:
    """Return the reference data of a load: 5 funds, 4 desks a fund, 2 books a desk."""
    items = [Instrument(instrument=f"LD{i:04d}", asset_class="equity", currency="USD", quantity_increment=Decimal(1),
                        price_increment=Decimal("0.01")) for i in range(instruments)]
    people = [Account(account=f"LA{i:05d}", book=f"LB{i % 40}", desk=f"LDK{i % 20}", strategy=f"LS{i % 10}",
                      fund=f"LF{i % 5}", dealer=f"dealer-{i % 12}", pm=f"pm-{i % 6}") for i in range(accounts)]
    return items, people


async def run_load(settings: Settings, trades_per_s: float, ticks_per_s: float, seconds: float, accounts: int,
                   instruments: int, gateway_url: str | None, seed: int, scopes: Sequence[str] = ("firm",),
                   opening: bool = False) -> dict[str, Any]:
    """Send the load; return rates reached and, with a gateway, latencies from the due times.

    Parameters
    ----------
    scopes : what the clients of the stream look at, one client each
    opening : trade every account and instrument in turn, so that all positions are there afterwards; else at random
    """
    rng = np.random.default_rng(seed)
    topics = settings.topics()
    items, people = load_reference(accounts, instruments)
    await publish_reference(settings.client(), topics, items, people)
    # one record a message, gathered for a few milliseconds: the generator must not be what is measured
    counts = {topics[t.name]: settings.partitions if t.partitions == "data" else 1 for t in TOPICS}
    producer = BatchingPublisher(settings.client(), counts)
    await producer.start()
    owner = [owner_partition(p.account, settings.partitions) for p in people]
    home = [owner_partition(i.instrument, settings.partitions) for i in items]
    # where the load before began: a price that jumps between two loads would be an outlier until it is confirmed
    price = np.random.default_rng(PRICE_SEED).uniform(20, 400, instruments)
    _quotes(producer, topics["ticks"], items, home, price, range(instruments), int(time.time() * 1000))
    meters = [StreamMeter() for _ in scopes] if gateway_url else []
    followers = [asyncio.create_task(follow(str(gateway_url), meter, scope))
                 for meter, scope in zip(meters, scopes, strict=False)]
    if followers:
        await asyncio.sleep(1.0)
    run = f"{seed}-{time.time_ns()}"
    sent = {"trades": 0, "ticks": 0}
    late_ms: list[float] = []
    started = time.time()
    for meter in meters:
        meter.from_ms = started * 1000
    while (elapsed := time.time() - started) < seconds:
        due_trades, due_ticks = int(elapsed * trades_per_s), int(elapsed * ticks_per_s)
        while sent["trades"] < due_trades:
            n = sent["trades"]
            due = started + n / trades_per_s
            a, k = int(rng.integers(accounts)), int(rng.integers(instruments))
            if opening:
                a, k = divmod(n % (accounts * instruments), instruments)
            value = (f'{{"trade_id":"{run}-{n}","account":"{people[a].account}","instrument":"{items[k].instrument}",'
                     f'"side":"{"buy" if rng.random() < .5 else "sell"}","quantity":"{int(rng.integers(1, 500))}",'
                     f'"price":"{price[k]:.2f}","ts_event":{int(due * 1e9)}}}')
            producer.send(topics["trades"], people[a].account.encode(), value.encode(), owner[a],
                          timestamp_ms=int(due * 1000))
            late_ms.append((time.time() - due) * 1000)
            sent["trades"] += 1
        if sent["ticks"] < due_ticks:
            which = rng.integers(0, instruments, due_ticks - sent["ticks"])
            price[which] *= np.exp(rng.normal(0, 1e-5, len(which)))
            due_ms = int((started + due_ticks / ticks_per_s) * 1000)
            _quotes(producer, topics["ticks"], items, home, price, which.tolist(), due_ms)
            sent["ticks"] = due_ticks
        await asyncio.sleep(STEP_S)
    await producer.flush()
    took = time.time() - started
    for meter in meters:
        meter.until_ms = time.time() * 1000
    if followers:
        await asyncio.sleep(2.0)
        for follower in followers:
            follower.cancel()
    await producer.stop()
    return {"trades": sent["trades"], "ticks": sent["ticks"], "seconds": round(took, 2),
            "trades_per_s": round(sent["trades"] / took), "ticks_per_s": round(sent["ticks"] / took),
            "generator_late_ms_p99": round(float(np.percentile(late_ms, 99)), 2) if late_ms else None,
            **quantiles(meters), "samples": sum(len(m.latencies_ms) for m in meters)}


def _quotes(producer: BatchingPublisher, topic: str, items: list[Instrument], home: list[int], price: np.ndarray,
            which: Any, due_ms: int) -> None:
    now = time.time_ns()
    for i, k in enumerate(which):
        p = price[k]
        value = (f'{{"instrument":"{items[k].instrument}","bid":"{p - .01:.2f}","ask":"{p + .01:.2f}",'
                 f'"ts_event":{now + i}}}')
        producer.send(topic, items[k].instrument.encode(), value.encode(), home[k], timestamp_ms=due_ms)
