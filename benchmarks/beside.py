"""Quotes and trades beside a measurement, in a process of their own: the generator must not be what is measured.

Every instrument is quoted ten times a second, in ten groups; trades are spread over accounts and instruments.
``python -m benchmarks.beside INSTRUMENTS ACCOUNTS TRADES_PER_S`` (names with commas between) runs until its input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from app.publisher import BatchingPublisher
from app.settings import Settings
from app.supervisor import on_signals, stop_with_parent

STEP_S, GROUPS = 0.01, 10


async def run(instruments: list[str], accounts: list[str], trades_per_s: int) -> None:
    """Quote and trade until told to end."""
    s, stop = Settings(), asyncio.Event()
    on_signals(stop)
    stop_with_parent()
    topics = s.topics()
    publisher = BatchingPublisher(s.client(), dict.fromkeys(topics.values(), s.partitions))
    await publisher.start()
    step, sent, started = 0, 0, time.monotonic()
    while not stop.is_set():
        now = time.time_ns()
        for name in instruments[step % GROUPS :: GROUPS]:
            value = {"instrument": name, "bid": "99.99", "ask": "100.01", "ts_event": now}
            publisher.send(topics["ticks"], name.encode(), json.dumps(value).encode())
        while sent < (time.monotonic() - started) * trades_per_s:
            account = accounts[sent % len(accounts)]
            value = {"trade_id": f"BS{started}-{sent}", "account": account, "instrument": instruments[sent * 7 % len(instruments)],
                     "side": "buy" if sent // len(accounts) % 2 else "sell", "quantity": "3", "price": "100", "ts_event": now}
            publisher.send(topics["trades"], account.encode(), json.dumps(value).encode())
            sent += 1
        step += 1
        await asyncio.sleep(STEP_S)
    await publisher.stop()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1].split(","), sys.argv[2].split(","), int(sys.argv[3])))
