"""Stock Faust on the same topic: a Record agent and a Table on rocksdict, all defaults. Prints events a second."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

import faust

app = faust.App(os.environ["RUN"], broker=f"kafka://{os.environ['BROKER']}", store="rocksdb://?driver=rocksdict",
                datadir=os.environ["DATA"], web_enabled=False, topic_partitions=int(os.environ["PARTITIONS"]),
                topic_disable_leader=True)
SECONDS = float(os.environ["SECONDS"])


class Trade(faust.Record, serializer="json"):
    """A trade."""

    trade_id: str
    account: str
    instrument: str
    side: str
    quantity: int
    price: float
    ts_event: int


class Position(faust.Record, serializer="json"):
    """A position."""

    quantity: float = 0.0
    average: float = 0.0
    realised: float = 0.0


source = app.topic(os.environ["TOPIC"], key_type=str, key_serializer="raw", value_type=Trade)
positions = app.Table("pos", default=Position, key_type=str, value_type=Position,
                      partitions=int(os.environ["PARTITIONS"]))
count = 0


def fold(p: Position, quantity: float, price: float) -> Position:
    """Average cost."""
    q, average, realised = p.quantity, p.average, p.realised
    if q == 0 or (q > 0) == (quantity > 0):
        average = (average * abs(q) + price * abs(quantity)) / (abs(q) + abs(quantity))
    else:
        closed = min(abs(q), abs(quantity))
        realised += closed * (price - average) * (1 if q > 0 else -1)
        if abs(quantity) > abs(q):
            average = price
    return Position(quantity=q + quantity, average=average, realised=realised)


@app.agent(source)
async def work(stream: faust.StreamT) -> None:
    """Fold."""
    global count
    async for trade in stream:
        if not count:
            asyncio.get_running_loop().call_later(SECONDS, report, time.perf_counter())
        count += 1
        key = f"{trade.account}|{trade.instrument}"
        positions[key] = fold(positions[key], trade.quantity if trade.side == "BUY" else -trade.quantity, trade.price)


def report(started: float) -> None:
    """Print and leave."""
    rate = count / (time.perf_counter() - started)
    print("RESULT " + json.dumps({"events": count, "events_per_s": round(rate)}), file=sys.__stdout__, flush=True)
    os._exit(0)


if __name__ == "__main__":
    app.main()
