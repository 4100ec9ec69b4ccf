"""A changelog read batch by batch: rows count with a marker that adds up, what lies behind the last such is left out.

Brokers whose transactions can be torn (the protocol before KIP-890: a delayed end of one transaction in the middle of
the next) leave rows without their marker, a marker without its rows, or lose a transaction whole. A marker therefore
says how many rows are its own, their checksum, and which marker it follows. Where one does not add up, the state stays
that of the last one that does, whose offsets say from where trades are folded again.

Compaction removes rows that newer ones replace, and all markers but the last of what it reaches. What lies before the
first marker of a log cannot be checked, and is taken as it is; it is behind the cleaner's reach that batches add up.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

from aiokafka.structs import TopicPartition

from tables.kafka import KafkaClient
from tables.partition import MARKER_KEY, Marker, checksums_of
from tables.records import RecordBatch
from tables.restore import STALL_S, read_range

#: readings from the beginning after a doubt: the cleaner may have been at work between two requests of one of them
READINGS = 2


class Batches:
    """Rows of one changelog partition, applied batch by batch.

    Parameters
    ----------
    stored : what a local store has, its marker among them; its last batch has to stand on the log where the store says
    position : changelog offset that the store includes: the one behind its marker
    ahead : single rows of the store may be of batches up to this offset
    """

    def __init__(self, stored: Mapping[bytes, bytes] | None = None, position: int = 0, ahead: int = 0) -> None:
        self._stored, self._ahead = dict(stored or {}), ahead
        #: newest row of every key that was read, up to the marker
        self.rows: dict[bytes, bytes | None] = {}
        self.marker = Marker.unpack(self._stored[MARKER_KEY]) if MARKER_KEY in self._stored else Marker()
        #: behind the marker
        self.position = position
        #: newest row of every key that was left out since, and how many records that were
        self.left_out: dict[bytes, bytes | None] = {}
        self.left_out_records = 0
        #: how many were read of what the store has not
        self.records = 0
        self._met = not self._stored
        self._keys: list[bytes | None] = []
        self._values: list[bytes | None] = []
        self._begun_at = 0
        #: whether the log has no beginning any more, and whether the marker is the first one that it still has
        self._cut_off = self._seen_alone = False
        #: checksums of the markers that were applied
        self._seen: set[int] = set()

    @property
    def begin(self) -> int:
        """Return where reading begins: with the last batch of the store, which is looked at once more."""
        return max(0, self.position - 1 - (self.marker.rows or 0))

    @property
    def from_store(self) -> bool:
        """Whether the rows of the store are among those there are."""
        return bool(self._stored)

    @property
    def strayed(self) -> bool:
        """Whether the last batch of the store is not on the log as it was: another log, torn, or cleaned away."""
        return not self._met

    @property
    def doubtful(self) -> bool:
        """Whether what was read to the end does not add up, alone or with what the store has."""
        return self.strayed or self.left_out_records > 0 or self.position < self._ahead

    def live(self) -> dict[bytes, bytes]:
        """Return the rows there are, without the marker."""
        rows = {k: v for k, v in (self._stored | self.rows).items() if v is not None}
        rows.pop(MARKER_KEY, None)
        return rows

    def take_rows(self) -> dict[bytes, bytes | None]:
        """Return the rows read since this was last asked for, the marker among them."""
        rows, self.rows = self.rows, {}
        return rows

    def take(self, batch: RecordBatch) -> None:
        """Read a slice."""
        self.feed(batch.keys, batch.values, batch.offsets.tolist())

    def feed(self, keys: Sequence[bytes | None], values: Sequence[bytes | None], offsets: Sequence[int]) -> None:
        """Read records in the order of the log."""
        start = 0
        for k in [k for k, key in enumerate(keys) if key == MARKER_KEY]:
            self.records += self._met
            self._hold(keys[start:k], values[start:k], offsets[start])
            self._close(values[k], offsets[k])
            start = k + 1
        if start < len(keys):
            self._hold(keys[start:], values[start:], offsets[start])

    def _hold(self, keys: Sequence[bytes | None], values: Sequence[bytes | None], first: int) -> None:
        if not self._keys:
            self._begun_at = first
        self._keys += keys
        self._values += values
        self.records += len(keys) * self._met

    def _close(self, value: bytes | None, offset: int) -> None:
        """Apply what the marker says are its rows, or leave all of them out."""
        keys, values = self._keys, self._values
        self._keys, self._values = [], []
        if value is None:
            self._leave_out(keys, values, 1)
            return
        marker, first = Marker.unpack(value), not self.marker.value and not self.left_out_records
        if not self._met:
            self._met = (value, offset) == (self.marker.value, self.position - 1) and (
                marker.rows is None or _is_of(marker, keys, values))
            return
        follows, whole = marker.follows == zlib.crc32(self.marker.value), _is_of(marker, keys, values)
        if follows and whole and marker.rows is not None:
            own = len(keys) - marker.rows
            keys, values = keys[own:], values[own:]
        elif (marker.rows is None or (first and marker.batch_id > 1)
              or ((whole or (self._seen_alone and _lacks_tombstones(marker, keys, values)))
                  and (follows or self._replaces(marker)))):
            self.rows |= self.left_out  # it was written from a state with all that is on the log
        else:
            self._leave_out(keys, values, 1)
            return
        self._cut_off |= first and not (follows and whole)
        self._seen_alone = first and self._cut_off
        self._seen.add(zlib.crc32(value))
        self.rows.update(zip(keys, values, strict=True))  # type: ignore[arg-type]
        self.rows[MARKER_KEY] = value
        self.marker, self.position = marker, offset + 1
        self.left_out, self.left_out_records = {}, 0

    def _replaces(self, marker: Marker) -> bool:
        """Whether whoever wrote a marker took those before it for torn, from what the log had before it was cleaned.

        A marker of a torn transaction, the last one that the cleaner reached, is taken for the first of a log.
        """
        return (self._cut_off and marker.batch_id <= self.marker.batch_id and marker.follows not in self._seen
                and (marker.value == self.marker.value or zlib.crc32(marker.value) not in self._seen))

    def _leave_out(self, keys: Sequence[bytes | None], values: Sequence[bytes | None], more: int = 0) -> None:
        self.left_out.update(zip(keys, values, strict=True))  # type: ignore[arg-type]
        self.left_out_records += len(keys) + more

    def finish(self, end: int) -> None:
        """Leave out what came without a marker, if all before ``end`` was read: transactions end before it."""
        if self._keys and self._begun_at < end:
            keys, values, self._keys, self._values = self._keys, self._values, [], []
            self._leave_out(keys, values)

    def text(self) -> str:
        """Say what was left out."""
        return (f"{self.left_out_records} records behind offset {self.position} (batch {self.marker.batch_id}) are no "
                "whole transactions")


def _is_of(marker: Marker, keys: list[bytes | None], values: list[bytes | None]) -> bool:
    """Whether the last of these are the rows that a marker is of."""
    own = len(keys) - (marker.rows or 0)
    return own >= 0 and checksums_of(keys[own:], values[own:]) == (
        marker.checksum, marker.tombstones, marker.tombstones_checksum)


def _lacks_tombstones(marker: Marker, keys: list[bytes | None], values: list[bytes | None]) -> bool:
    """Whether these may be the rows of a marker without some tombstones; no key comes twice in a batch."""
    kept = [k for k, value in enumerate(values) if value is not None]
    kept = kept[max(0, len(kept) - (marker.rows or 0) + marker.tombstones) :]
    return checksums_of([keys[k] for k in kept], [values[k] for k in kept])[0] == marker.checksum


async def read_batches(client: KafkaClient, into: Mapping[TopicPartition, Batches], stall_s: float = STALL_S) -> None:
    """Read each partition from where its batches begin to its present end.

    Raises
    ------
    RestoreStalled
        If nothing arrives for ``stall_s`` seconds.
    """
    read = await read_range(client, {tp: batches.begin for tp, batches in into.items()},
                            lambda batch: into[TopicPartition(batch.topic, batch.partition)].take(batch), stall_s)
    for tp, (_, end) in read.items():
        into[tp].finish(end)


async def read_sure(client: KafkaClient, into: Mapping[TopicPartition, Batches]) -> dict[TopicPartition, Batches]:
    """Read each partition, and what raises a doubt again from the beginning of its log; return the batches."""
    found = dict(into)
    await read_batches(client, found)
    for _ in range(READINGS):
        again = {tp: Batches() for tp, batches in found.items() if batches.doubtful}
        if not again:
            break
        await read_batches(client, again)
        found |= again
    return found
