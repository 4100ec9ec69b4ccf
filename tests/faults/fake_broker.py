"""A broker in memory, with the few calls the writer uses: transactions, fencing, committed reads; a crash point at every await."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from tables.store import Stored

#: the transaction of what is never read
NEVER = 0


class Crash(BaseException):
    """The process is gone: nothing after this line of it happens."""


class Fenced(RuntimeError):
    """A newer producer took the transactional id."""


@dataclass
class Scheduler:
    """Counts awaits; crashes at one of them, and lets others run in a seeded order."""

    crash_at: int | None = None
    passed: int = 0
    on_point: Callable[[str], None] = lambda name: None

    async def point(self, name: str) -> None:
        """One await of the writer."""
        self.passed += 1
        self.on_point(name)
        if self.crash_at is not None and self.passed == self.crash_at:
            raise Crash(name)
        await asyncio.sleep(0)


@dataclass
class Broker:
    """Logs and committed offsets; records of open or aborted transactions are never read."""

    log: list[tuple[bytes, bytes | None, int]] = field(default_factory=list)  # key, value, transaction
    committed: set[int] = field(default_factory=set)
    offsets: dict[Any, int] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    transactions: int = 0

    def records(self, start: int = 0) -> tuple[list[bytes], list[bytes | None], list[int]]:
        """Return keys, values and offsets of what is committed from an offset on."""
        found = [(k, v, start + at) for at, (k, v, t) in enumerate(self.log[start:]) if t in self.committed]
        return [k for k, _, _ in found], [v for _, v, _ in found], [at for _, _, at in found]

    def take_away(self, offsets: Iterable[int]) -> None:
        """Have nobody read these any more: of an aborted transaction, or cleaned away."""
        for at in offsets:
            self.log[at] = (b"", None, NEVER)

    def clean(self, until: int, tombstones: bool) -> None:
        """Keep before an offset only the newest of each key, as compaction does; ``tombstones``: take those away too."""
        newest = {k: at for at, (k, _, t) in enumerate(self.log[:until]) if t in self.committed}
        self.take_away(at for at, (k, v, t) in enumerate(self.log[:until])
                       if t in self.committed and (newest[k] > at or (tombstones and v is None)))


class Batch:
    """What `create_batch` returns."""

    def __init__(self, room: int) -> None:
        self.rows: list[tuple[bytes, bytes | None]] = []
        self._room = room

    def record_count(self) -> int:
        """Return how many records it has."""
        return len(self.rows)

    def append(self, *, key: bytes, value: bytes | None, timestamp: Any = None) -> Any:
        """Add a record; None where there is no room."""
        if len(self.rows) >= self._room:
            return None
        self.rows.append((key, value))
        return SimpleNamespace()


class Producer:
    """A transactional producer of the fake broker."""

    def __init__(self, broker: Broker, scheduler: Scheduler, transactional_id: str, room: int) -> None:
        self._broker, self._scheduler, self._id, self._room = broker, scheduler, transactional_id, room
        self._txn_manager = SimpleNamespace(wait_for_pid=self._wait)
        self._epoch = -1
        self._transaction: int | None = None
        self._pending: dict[Any, int] = {}

    async def start(self) -> None:
        """Take the transactional id: an older producer of it is fenced, its open transaction aborted."""
        await self._scheduler.point("init")
        self._epoch = self._broker.epochs[self._id] = self._broker.epochs.get(self._id, 0) + 1

    async def _wait(self) -> None:
        await self._scheduler.point("pid")

    def _check(self) -> None:
        if self._broker.epochs[self._id] != self._epoch:
            raise Fenced(self._id)

    async def begin_transaction(self) -> None:
        """Open a transaction."""
        await self._scheduler.point("begin")
        self._check()
        self._broker.transactions += 1
        self._transaction, self._pending = self._broker.transactions, {}

    def create_batch(self) -> Batch:
        """Return an empty batch."""
        return Batch(self._room)

    async def send_batch(self, batch: Batch, topic: str, partition: int) -> asyncio.Future[Any]:
        """Append a batch to the log, inside the transaction."""
        await self._scheduler.point("send")
        self._check()
        assert self._transaction is not None
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_result(SimpleNamespace(offset=len(self._broker.log)))
        self._broker.log += [(k, v, self._transaction) for k, v in batch.rows]
        await self._scheduler.point("sent")
        return future

    async def send_offsets_to_transaction(self, offsets: dict[Any, int], group: str) -> None:
        """Add source offsets to the transaction."""
        await self._scheduler.point("offsets")
        self._check()
        self._pending = offsets

    async def commit_transaction(self) -> None:
        """Commit: from here on the records are read. The answer may be lost after that."""
        await self._scheduler.point("commit")
        self._check()
        assert self._transaction is not None
        self._broker.committed.add(self._transaction)
        self._broker.log.append((b"", None, NEVER))  # what ends a transaction takes an offset of its own
        self._broker.offsets.update(self._pending)
        self._transaction = None
        await self._scheduler.point("committed")

    async def stop(self) -> None:
        """Disconnect."""
        await self._scheduler.point("stop")


class Client:
    """What the writer asks of a client."""

    def __init__(self, broker: Broker, scheduler: Scheduler, room: int) -> None:
        self._broker, self._scheduler, self._room = broker, scheduler, room

    def producer(self, **options: Any) -> Producer:
        """Return a producer."""
        return Producer(self._broker, self._scheduler, options["transactional_id"], self._room)


class Disk:
    """A local store that survives its process; a slice is there as a whole or not at all."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self.stored: dict[bytes, bytes] = {}
        self.position: int | None = None
        self.ahead = 0
        #: how often its process dies amid a write
        self.crashes = 0.0

    @property
    def empty(self) -> bool:
        """Whether nothing is stored."""
        return self.position is None and not self.ahead

    def load(self) -> Stored:
        """Return what is stored."""
        return Stored(dict(self.stored), self.position or 0, self.ahead)

    def clear(self) -> None:
        """Throw everything away."""
        self.stored, self.position, self.ahead = {}, None, 0

    def write(self, rows: Mapping[bytes, bytes | None], position: int, whole: bool = True) -> None:
        """Write rows, and the offset behind them."""
        for key, value in rows.items():
            if value is None:
                self.stored.pop(key, None)
            else:
                self.stored[key] = value
        self.ahead = max(position, self.ahead)
        if whole:
            self.position = position

    def write_slices(self, rows: Mapping[bytes, bytes | None], position: int, whole: bool = True) -> Iterator[None]:
        """Write in two parts; the process may die between them."""
        cut = int(self._rng.integers(0, len(rows) + 1))
        self.write(dict(list(rows.items())[:cut]), position, False)
        if self._rng.random() < self.crashes:
            raise Crash("store")
        yield
        self.write(dict(list(rows.items())[cut:]), position, whole)

    def close(self) -> None:
        """Release it."""
