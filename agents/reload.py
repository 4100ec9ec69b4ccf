"""One position folded again from the log while the desk goes on: what reconciliation asks for at a break."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from aiokafka.structs import TopicPartition

from agents.ports import Clock, Counters, Publisher
from schemas.codec import decoder_of, encode, records_in
from schemas.records import Alert, External
from tables.kafka import KafkaClient
from tables.position_partition import PositionPartition
from tables.records import RecordBatch
from tables.refold import fold, near, open_from, put_in_place, quantity_text
from tables.restore import read_range
from tables.tasks import process

log = logging.getLogger(__name__)
#: trades folded between two turns of the loop: a reload must not hold up the desk
STEP = 2_000
#: between two looks at whether a slice is still being taken in
TURN_S = 0.01
_external = decoder_of(External)
#: broker time ms, topic (trades before statements of the same moment), offset, value
Event = tuple[int, int, int, bytes]


@dataclass
class _Reload:
    part: PositionPartition
    account: str
    instrument: str
    events: list[Event] = field(default_factory=list)
    first_offset: int = -1


class KeyReloads:
    """Folds single keys of owned partitions again, beside the work that goes on."""

    def __init__(self, client: KafkaClient, topics: dict[str, str], publisher: Publisher, clock: Clock,
                 counters: Counters, fills_max: int, lateness_ns: int,
                 replaced: Callable[[PositionPartition], None]) -> None:
        self._client, self._publisher = client, publisher
        self._names = (topics["trades"], topics["positions.external"])
        self._alerts = topics["alerts"]
        self._clock, self._counters = clock, counters
        self._fills_max, self._lateness_ns = fills_max, lateness_ns
        self._replaced = replaced
        self._open: list[_Reload] = []
        #: slices that are being taken in, by topic and partition: a fold is put in place before or after one
        self._taken_in: dict[tuple[str, int], RecordBatch] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def request(self, part: PositionPartition, account: str, instrument: str, offsets: dict[str, int]) -> None:
        """Start to fold a key again; ``offsets`` is what the live state includes: later records are seen here.

        One that is being folded again sees them, too.
        """
        if any((r.part, r.account, r.instrument) == (part, account, instrument) for r in self._open):
            return
        reload = _Reload(part, account, instrument)
        for (topic, partition), batch in self._taken_in.items():
            if partition == part.partition and offsets.get(topic, 0) < batch.next_offset:
                self._keep(reload, batch, 1 << 62)
        self._open.append(reload)
        task = process.errand("reload", lambda: self._run(reload, dict(offsets)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def busy(self) -> bool:
        """Whether a key is being folded again."""
        return bool(self._open)

    @contextlib.contextmanager
    def taking_in(self, batch: RecordBatch) -> Iterator[None]:
        """Remember what the live state takes in while a reload reads; what is in parts taken in is not put right."""
        self._taken_in[batch.topic, batch.partition] = batch
        try:
            self._saw(batch)
            yield
        finally:
            del self._taken_in[batch.topic, batch.partition]

    def _saw(self, batch: RecordBatch) -> None:
        for reload in self._open:
            if reload.part.partition == batch.partition:
                self._keep(reload, batch, 1 << 62)

    def _keep(self, reload: _Reload, batch: RecordBatch, until: int) -> None:
        account, kind = reload.account.encode(), self._names.index(batch.topic)
        for k, value in enumerate(batch.values):
            if value is not None and account in value and int(batch.offsets[k]) < until:
                reload.events.append((int(batch.timestamps_ms[k]), kind, int(batch.offsets[k]), value))

    async def _run(self, reload: _Reload, offsets: dict[str, int]) -> None:
        history = _Reload(reload.part, reload.account, reload.instrument)
        p = reload.part.partition

        def on_batch(batch: RecordBatch) -> None:
            if batch.topic == self._names[0] and history.first_offset < 0:
                history.first_offset = int(batch.offsets[0])
            self._keep(history, batch, offsets.get(batch.topic, 0))

        try:
            await read_range(self._client, {TopicPartition(name, p): 0 for name in self._names}, on_batch)
            if history.first_offset > 0:
                self._say(reload, f"not reloaded: trades before offset {history.first_offset} are no longer on the log",
                          None, None)
                return
            shadow = PositionPartition(p, reload.part.reference, self._fills_max, self._lateness_ns,
                                       reload.part.future_ns)
            waiting = sorted(history.events)
            trades = 0
            while waiting or any(partition == p for _, partition in self._taken_in):
                for start in range(0, len(waiting), STEP):
                    trades += self._fold(shadow, waiting[start : start + STEP])
                    await asyncio.sleep(0)
                if not waiting:
                    await asyncio.sleep(TURN_S)
                waiting, reload.events = reload.events, []
            self._finish(reload, shadow, trades)  # no turn of the loop between the last fold and this
        finally:
            self._open.remove(reload)

    def _fold(self, shadow: PositionPartition, events: list[Event]) -> int:
        trades: list[tuple[int, int, bytes]] = []
        count = 0
        for ms, kind, offset, value in events:
            if kind == 0:
                trades.append((offset, ms, value))
                continue
            fold(shadow, trades)
            count, trades = count + len(trades), []
            for raw in _records(value):
                try:
                    statement = _external.decode(raw)
                    if statement.kind == "start_of_day" and statement.instrument in shadow.reference.instrument_records:
                        open_from(shadow, statement, shadow.reference.decimals_of(statement.instrument), ms)
                except ValueError:
                    continue  # as it was then: it is on the quarantine topic
        fold(shadow, trades)
        return count + len(trades)

    def _finish(self, reload: _Reload, shadow: PositionPartition, trades: int) -> None:
        part = reload.part
        key = part.reference.intern_key(reload.account, reload.instrument)
        slot, other = part.find_slot(*key), shadow.find_slot(*key)
        if slot < 0 or other < 0:
            text = f"not reloaded: {'the log has no trade of it' if other < 0 else 'no such position here'}"
            self._say(reload, text, None, None)
            return
        was, before = quantity_text(part, slot), part.records(np.array([slot]))[0]
        if not put_in_place(part, slot, shadow, other):
            self._say(reload, f"reloaded from {trades} trades: unchanged", float(was), float(was))
            return
        now, after = quantity_text(part, slot), part.records(np.array([slot]))[0]
        self._replaced(part)
        text = f"quantity {now} was {was}, realised {_text(after.realised_pnl)} was {_text(before.realised_pnl)}"
        for currency in sorted(before.funding.keys() | after.funding.keys()):
            sums = [record.funding.get(currency, 0.0) for record in (after, before)]
            if not near(*sums):
                text += f", funding {_text(sums[0])} {currency} was {_text(sums[1])}"
        self._say(reload, f"reloaded from {trades} trades: {text}", float(now), float(was))

    def _say(self, reload: _Reload, text: str, now: float | None, was: float | None) -> None:
        self._counters.add("reloads")
        log.warning("%s %s: %s", reload.account, reload.instrument, text)
        moment = self._clock()
        record = Alert(alert_id=f"reload.{reload.account}.{reload.instrument}.{moment}", kind="reconciliation",
                       node=f"account:{reload.account}", metric=f"{reload.instrument} reload", value=now, limit=was,
                       utilisation=None, cause_ts=moment, raised_ts=moment, snapshot_id=0,
                       limit_id=f"recon.reload.{reload.account}.{reload.instrument}", note=text)
        self._publisher.send(self._alerts, record.node.encode(), encode(record))

    async def stop(self) -> None:
        """Drop what is under way: the next break asks again."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _records(value: bytes) -> list[bytes]:
    try:
        return records_in(value)
    except ValueError:  # as it was then: it is on the quarantine topic
        return []


def _text(figure: float | None) -> str:
    return "unknown" if figure is None else f"{figure:.10g}"
