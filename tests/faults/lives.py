"""One process's life against a broker in memory: it takes over, folds, flushes, and ends or crashes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from models import trade_columns as tc
from models.trade_decode import decode_trades
from tables.changelog import READINGS, Batches
from tables.partition import MARKER_KEY
from tables.writer import PartitionWriter
from tests.faults.fake_broker import Broker, Client, Disk, Scheduler
from tests.folding import new_partition

TOPIC = "trades"


def trades(rng: np.random.Generator, n: int) -> list[dict[str, Any]]:
    """Return trades with duplicates and disorder within the lateness."""
    out: list[dict[str, Any]] = []
    for k in range(n):
        if out and rng.random() < 0.15:
            out.append(out[int(rng.integers(len(out)))])
            continue
        out.append({"trade_id": f"T{k}", "account": f"A{int(rng.integers(1, 3))}", "instrument": ("EURUSD", "ACME", "INV")[int(rng.integers(3))],
                    "side": "buy" if rng.random() < 0.5 else "sell", "quantity": str(int(rng.integers(1, 50))), "price": f"{rng.uniform(1, 9):.2f}",
                    "ts_event": 1_800_000_000_000_000_000 + k * 1_000_000 - int(rng.integers(0, 3)) * 900_000})
    return out


class Life:
    """One process's life: restore, fold, flush, until it ends or crashes."""

    source = TOPIC

    def __init__(self, broker: Broker, disk: Disk, scheduler: Scheduler, rng: np.random.Generator) -> None:
        self.broker, self.disk, self.rng = broker, disk, rng
        self.part = new_partition()
        self.writer = PartitionWriter(Client(broker, scheduler, int(rng.integers(1, 6))), "group", "id", self.part, "changelog", disk,  # type: ignore[arg-type]
                                      sequence_max=int(rng.integers(5, 60)))
        self.acked = self.left_out = self.adds_up_to = 0
        self.from_store = False

    async def restore(self) -> int:
        """Fence, then read what adds up, as a stage that takes over does; return where reading goes on."""
        await self.writer.fence()
        stored = self.disk.load()
        found = Batches(stored.rows, stored.position, stored.ahead)
        await self.read(found)
        for _ in range(READINGS):
            if not found.doubtful:
                break
            found = Batches()
            await self.read(found)
        live = found.live()
        self.part.restore(live)
        self.writer.marker, self.writer.changelog_position = found.marker, found.position
        if not found.from_store and not self.disk.empty:
            self.disk.clear()
        if found.rows:  # what the local store did not have, it has now: its offset never runs ahead of its rows
            self.disk.write(found.rows, found.position)
        if found.left_out_records:
            self.writer.write_again({k: live.get(k) for k in found.left_out if k != MARKER_KEY})
        self.left_out, self.adds_up_to, self.from_store = found.left_out_records, found.position, found.from_store
        return self.writer.marker.offsets.get(self.source, 0)

    async def read(self, into: Batches) -> None:
        """Read what is committed, from where the batches begin to the end of the log."""
        into.feed(*self.broker.records(into.begin))
        into.finish(len(self.broker.log))

    async def work(self, log: list[dict[str, Any]]) -> None:
        """Fold the log from where it goes on to its end, in batches of any size, with a flush after some."""
        at = await self.restore()
        while at < len(log):
            n = int(self.rng.integers(1, 9))
            chunk = log[at : at + n]
            decoded = decode_trades([json.dumps(t).encode() for t in chunk])
            decoded.rows["offset"] = at + decoded.messages
            tc.resolve_trades(decoded.buffer, decoded.rows, self.part.reference.arrays())
            self.part.positions.apply(decoded.rows, self.part.reference.arrays())
            at += len(chunk)

            def ack(offset: int = at) -> None:
                self.acked = offset

            self.writer.advance(self.source, at, ack)
            if self.rng.random() < 0.6 or at == len(log):
                self.writer._disk_due = 0.0 if self.rng.random() < 0.3 else 1e18
                await self.writer.flush()
        await self.writer.stop()


async def stored(broker: Broker) -> int:
    """Return how far the log is folded, by the changelog alone."""
    batches = Batches()
    batches.feed(*broker.records())
    return batches.marker.offsets.get(TOPIC, 0)
