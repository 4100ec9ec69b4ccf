"""Statements that another record under their key displaced: found on the log, and written once more.

`positions.external` is compacted by source, account, instrument and kind. A stage keeps the sums that statements come
to, not the statements: what stood under the key of a record that was refused is read from the log when it is needed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator

import msgspec
from aiokafka.structs import TopicPartition

from agents.ports import Publisher
from schemas.codec import decoder_of, encode, records_in
from schemas.keys import external_key
from schemas.records import External
from schemas.units import FUTURE_NS, latest_of, parse_ts_ns
from tables.kafka import KafkaClient
from tables.records import RecordBatch
from tables.restore import read_range
from tables.tasks import process

log = logging.getLogger(__name__)
_external = decoder_of(External)
#: keys whose newest time is known, and whether what was written under them has come back: those that came last
KEPT_MAX = 10_000
#: bars in a key of a statement
_BARS = 3


class DisplacedStatements:
    """Looks for statements in the background, of all keys that wait in one reading of their partition.

    Parameters
    ----------
    topic : `positions.external`
    stands : whether a statement of a partition is one that its owner holds to, and when it is of
    """

    def __init__(self, client: KafkaClient, publisher: Publisher, topic: str,
                 stands: Callable[[int, External, int], bool], future_ns: int = FUTURE_NS) -> None:
        self._client, self._publisher, self._topic = client, publisher, topic
        self._stands, self._future_ns = stands, future_ns
        self._wanted: dict[int, set[bytes]] = {}
        #: by key: the time of the newest statement, and whether it has come, or was written and is on its way
        self._newest: OrderedDict[bytes, tuple[int, bool]] = OrderedDict()
        self._task: asyncio.Task[None] | None = None

    def refused(self, partition: int, key: bytes) -> None:
        """Look for what stands under a key: its newest record is another one."""
        # what is on its way comes after this one, or could not be taken: nobody answers himself for ever
        if key.count(b"|") == _BARS and self._newest.get(key, (0, True))[1]:
            self._wanted.setdefault(partition, set()).add(key)
            if self._task is None or self._task.done():
                self._task = process.errand("displaced statements", self._run)

    def came(self, partition: int, key: bytes, ts_ns: int) -> None:
        """Note that a statement was taken under its own key; one that is older than another displaces that."""
        newest = self._newest.get(key, (0, True))[0]
        self._note(key, max(ts_ns, newest), has_come=True)
        if ts_ns < newest:
            self.refused(partition, key)
        else:
            self._wanted.get(partition, set()).discard(key)

    def _note(self, key: bytes, ts_ns: int, has_come: bool) -> None:
        self._newest[key] = ts_ns, has_come
        self._newest.move_to_end(key)
        if len(self._newest) > KEPT_MAX:
            self._newest.popitem(last=False)

    async def _run(self) -> None:
        while self._wanted:
            partition = next(iter(self._wanted))
            keys = frozenset(self._wanted[partition])
            found = await self._find(partition, keys) if keys else {}
            left = self._wanted.pop(partition)  # what came meanwhile is not wanted any more, what was refused is
            if left - keys:
                self._wanted[partition] = left - keys
            for key in sorted(left & keys):
                self._write(partition, key, found.get(key))

    def _write(self, partition: int, key: bytes, found: tuple[int, External] | None) -> None:
        if found is not None:
            self._note(key, found[0], has_come=False)
            log.error("%s %s: written once more as it stands: another record came under its key", self._topic,
                      key.decode(errors="replace"))
            self._publisher.send(self._topic, key, encode(found[1]), partition)

    async def _find(self, partition: int, keys: frozenset[bytes]) -> dict[bytes, tuple[int, External]]:
        """Return the newest statement under each key that its owner holds to."""
        found: dict[bytes, tuple[int, External]] = {}

        def on_batch(batch: RecordBatch) -> None:
            latest = latest_of(batch.timestamps_ms, self._future_ns)
            for k, value in enumerate(batch.values):
                for statement in _statements(value):
                    key = external_key(statement)
                    if key not in keys:
                        continue
                    ts = parse_ts_ns(statement.ts_event)
                    if ts <= latest[k] and self._stands(partition, statement, ts) and ts >= found.get(key, (0,))[0]:
                        found[key] = ts, statement

        await read_range(self._client, {TopicPartition(self._topic, partition): 0}, on_batch)
        return found

    async def stop(self) -> None:
        """Look for nothing any more: who owns the partition next sees what was refused before its own time as gone."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _statements(value: bytes | None) -> Iterator[External]:
    """Yield the statements of a message that can be read."""
    try:
        raws = [] if value is None else records_in(value)
    except ValueError:
        return
    for raw in raws:
        try:
            yield _external.decode(raw)
        except (msgspec.DecodeError, ValueError):
            continue
