"""A gate's changelog: what works and what the day has come to, written down while it goes on, read by who takes over.

The log of decisions stays the truth (its first decision on an order is the verdict); this says what it comes to up to
some offset, so that who takes a partition over reads what lies behind. Without it, or where it does not fit the logs,
all of the log is read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import msgspec
from aiokafka.structs import TopicPartition

from agents.order_fills import OrderFills
from agents.ports import Clock, Publisher
from models.gate.book import GateBook
from models.gate.changes import cut, cut_anew
from schemas.codec import JsonDecoder, encode
from schemas.gate_state import (
    GateAccepted,
    GateDay,
    GateEntry,
    GateExecuted,
    GateMark,
    GateOrder,
    GatePrice,
    GateVenueDay,
)
from tables.kafka import KafkaClient
from tables.records import RecordBatch
from tables.restore import ends_of, read_range

log = logging.getLogger(__name__)
#: what one chunk of executed ids has, and how many chunks there are before the first one is written over
CHUNK_IDS, CHUNKS = 4_096, 64
#: written before whoever waits gets a turn
WRITTEN_AT_ONCE = 32
#: what was not finished longer ago may have taken the place of what was before
UNFINISHED_NS_MAX = 600_000_000_000
#: where prices are written down, by who owns it, and read by every gate
PRICES_PARTITION = 0
_entry: JsonDecoder[GateEntry] = JsonDecoder(GateEntry)


@dataclass
class Kept:
    """What was written down of one partition."""

    mark: GateMark | None = None
    entries: dict[bytes, GateEntry] = field(default_factory=dict)
    prices: dict[bytes, GatePrice | None] = field(default_factory=dict)
    #: behind the last mark
    unfinished: list[tuple[bytes, GateEntry | None]] = field(default_factory=list)

    def take(self, key: bytes, value: bytes | None) -> None:
        """Read a record."""
        entry = None if value is None else _entry.decode(value)
        if key.startswith(b"p|"):
            self.prices[key] = entry if isinstance(entry, GatePrice) else None
            return
        if not isinstance(entry, GateMark):
            self.unfinished.append((key, entry))
            return
        if entry.kind == "anew":
            self.mark = None
            self.entries.clear()
        elif entry.kind == "state":
            self.mark = entry
            for k, e in self.unfinished:
                if e is None:
                    self.entries.pop(k, None)
                else:
                    self.entries[k] = e
        self.unfinished.clear()

    def fits(self, end: int, now_ns: int) -> bool:
        """Whether it can be gone on from; ``end``: of the log of decisions."""
        if self.mark is None or self.mark.decisions > end:
            return False
        return not self.unfinished or now_ns - self.mark.ts < UNFINISHED_NS_MAX

    def orders(self) -> list[GateOrder]:
        """Return what works."""
        return [e for e in self.entries.values() if isinstance(e, GateOrder)]

    def day(self) -> list[GateDay | GateVenueDay]:
        """Return what the day has come to."""
        return [e for e in self.entries.values() if isinstance(e, GateDay | GateVenueDay)]

    def executed(self) -> list[str]:
        """Return ids that were executed, the latest last."""
        chunk = 0 if self.mark is None else self.mark.chunk
        found = [self.entries.get(_chunk_key(k)) for k in range(chunk + 1 - CHUNKS, chunk + 1)]
        return [order_id for e in found if isinstance(e, GateExecuted) for order_id in e.ids]

    def accepted(self) -> list[tuple[str, str]]:
        """Return (account, id) of orders that were let through, the latest last."""
        chunk = 0 if self.mark is None else self.mark.accepted
        found = [self.entries.get(_chunk_key(k, b"k")) for k in range(chunk + 1 - CHUNKS, chunk + 1)]
        return [x for e in found if isinstance(e, GateAccepted) for x in e.ids]

    def filling_accepted(self) -> list[tuple[str, str]]:
        """Return (account, id) of the chunk of them that is being filled."""
        found = None if self.mark is None else self.entries.get(_chunk_key(self.mark.accepted, b"k"))
        return list(found.ids) if isinstance(found, GateAccepted) else []

    def filling(self) -> list[str]:
        """Return the ids of the chunk that is being filled."""
        found = None if self.mark is None else self.entries.get(_chunk_key(self.mark.chunk))
        return list(found.ids) if isinstance(found, GateExecuted) else []


def _chunk_key(number: int, kind: bytes = b"x") -> bytes:
    return b"%s|%d" % (kind, number % CHUNKS)


class GateChangelog:
    """Writes the changelog of the partitions that a gate owns.

    Parameters
    ----------
    partition_of : of an account, by name
    """

    def __init__(self, client: KafkaClient, topics: dict[str, str], publisher: Publisher, clock: Clock, gate: GateBook,
                 fills: OrderFills, partition_of: Callable[[str], int]) -> None:
        self._client, self._topics, self._publisher, self._clock = client, topics, publisher, clock
        self._gate, self._fills, self._partition_of = gate, fills, partition_of
        self._partitions: list[int] = []
        #: by partition: the chunk of executed ids that is being filled
        self._chunks: dict[int, tuple[int, list[str]]] = {}
        #: the same of ids of orders that were let through, with their accounts
        self._accepted: dict[int, tuple[int, list[tuple[str, str]]]] = {}
        #: up to where the log of decisions is this gate's, or was read by it
        self._decisions: dict[int, int] = {}
        #: keys of what others wrote down: what is not among what there is by now goes
        self._before: dict[int, set[bytes]] = {}
        self._writing = asyncio.Lock()

    async def read(self, partitions: Iterable[int]) -> dict[int, Kept]:
        """Return what was written down of partitions, where it can be gone on from."""
        topic, decisions = self._topics["gate-changelog"], self._topics["decisions"]
        wanted = set(partitions)
        kept = {p: Kept() for p in wanted | {PRICES_PARTITION}}

        def on_batch(batch: RecordBatch) -> None:
            for key, value in zip(batch.keys, batch.values, strict=True):
                kept[batch.partition].take(key or b"", value)

        await read_range(self._client, {TopicPartition(topic, p): 0 for p in kept}, on_batch)
        for entry in kept[PRICES_PARTITION].prices.values():
            if entry is not None:
                self._gate.guards.put(entry, self._clock())
        kept = {p: k for p, k in kept.items() if p in wanted}
        ends = await ends_of(self._client, [TopicPartition(decisions, p) for p in kept])
        for p, k in kept.items():  # also what was not finished: the marks around it may be gone when it is read again
            found = (*k.entries, *(x for x, _ in k.unfinished))
            self._before[p] = {key for key in found if not key.startswith((b"x|", b"k|"))}
        now = self._clock()
        fit = {p: k for p, k in kept.items() if k.fits(ends[TopicPartition(decisions, p)], now)}
        if len(fit) < len(kept):
            log.info("gate: all of the log of partitions %s is read: there is no mark that fits",
                     sorted(kept.keys() - fit.keys()))
        return fit

    def begin(self, read: Mapping[int, int], kept: Mapping[int, Kept]) -> None:
        """Go on with partitions, from what was kept of them: what others left unfinished is nobody's.

        ``read``: by partition, up to where the log of decisions is read.
        """
        for p, offset in read.items():
            found, self._decisions[p] = kept.get(p), offset
            self._chunks[p] = (0, []) if found is None or found.mark is None else (found.mark.chunk, found.filling())
            self._accepted[p] = (0, []) if found is None or found.mark is None else (
                found.mark.accepted, found.filling_accepted())
            # under a key of its own: a mark that says what there is stays until there is another
            self._send(p, b"b", GateMark(kind="anew" if found is None else "begin", ts=self._clock()))

    async def write(self, p: int, orders: int, trades: int, half_done: Sequence[tuple[int, str]]) -> None:
        """Write down what changed in a partition; who lets go of one waits for it (`idle`).

        Parameters
        ----------
        orders, trades : first offsets that this gate has not decided, not followed
        """
        async with self._writing:
            await self._write(p, orders, trades, half_done)

    async def idle(self) -> None:
        """Wait until nothing is being written."""
        async with self._writing:
            pass

    async def _write(self, p: int, orders: int, trades: int, half_done: Sequence[tuple[int, str]]) -> None:
        names = list(self._gate.state.account_index)
        for name in names[len(self._partitions):]:
            self._partitions.append(self._partition_of(name))

        def mine(account: int) -> bool:
            return self._partitions[account] == p

        entries, executed = cut(self._gate, mine, self._fills.settled)
        accepted = self._gate.accepted.cut(filter(mine, self._gate.accepted.unwritten()))
        begun = p in self._before  # what others did not finish may have taken the place of what there was: all anew
        gone = self._before.pop(p, set()) - {key for key, _ in entries}
        entries += [(key, None) for key in sorted(gone)]
        mark = GateMark(kind="state", ts=self._clock(), orders=orders, trades=self._fills.first_waiting(p, trades),
                        day=self._gate.sums_of_day, half_done=list(half_done))
        # what changed, and where the logs stand, are of one moment: nothing was waited for up to here
        decisions = await self._publisher.cut(self._topics["decisions"], p)
        if decisions is not None and decisions < 0:
            cut_anew(self._gate, mine, executed)
            self._gate.accepted.put_back(accepted)
            self._before[p] = {key for key, _ in entries}
            return
        self._decisions[p] = self._decisions[p] if decisions is None else decisions
        chunk, ids = self._chunks[p]
        ids = [*ids, *executed]
        while executed or begun:
            entries.append((_chunk_key(chunk), GateExecuted(ids=ids[:CHUNK_IDS])))
            if len(ids) < CHUNK_IDS:
                break
            chunk, ids = chunk + 1, ids[CHUNK_IDS:]
        self._chunks[p] = (chunk, ids)
        if p == PRICES_PARTITION:
            entries += [(f"p|{name}".encode(), price) for name, price in self._gate.guards.cut()]
        for k, (key, entry) in enumerate(entries):
            self._send(p, key, entry)
            if k % WRITTEN_AT_ONCE == 0:
                await asyncio.sleep(0)
        newly = ((names[account], order_id) for account, ids in accepted.items() for order_id in ids)
        await self._write_accepted(p, newly, begun)
        self._send(p, b"m", msgspec.structs.replace(mark, decisions=self._decisions[p], chunk=chunk,
                                                    accepted=self._accepted[p][0]))

    def write_tests(self) -> None:
        """Write down at once which instruments came under the price test: it may be over before the next mark."""
        if self._gate.guards.begun:
            for name, price in self._gate.guards.cut(begun_alone=True):
                self._send(PRICES_PARTITION, f"p|{name}".encode(), price)

    async def _write_accepted(self, p: int, newly: Iterator[tuple[str, str]], begun: bool) -> None:
        """Write the chunks of ids of orders that were let through, one at a time: there may be many."""
        chunk, ids = self._accepted[p]
        while (more := list(islice(newly, CHUNK_IDS - len(ids)))) or begun:
            ids, begun = [*ids, *more], False
            self._send(p, _chunk_key(chunk, b"k"), GateAccepted(ids=ids))
            if len(ids) == CHUNK_IDS:  # the next one is there, empty: what it had a round ago is gone
                chunk, ids, begun = chunk + 1, [], True
            await asyncio.sleep(0)
        self._accepted[p] = (chunk, ids)

    def _send(self, p: int, key: bytes, entry: GateEntry | None) -> None:
        self._publisher.send(self._topics["gate-changelog"], key, None if entry is None else encode(entry), p,
                             linger_s=0.01)
