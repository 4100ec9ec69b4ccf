"""What the engine asks of one partition of a table: cut the changes out, take the rows in."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

Rows = list[tuple[bytes, bytes | None]]
MARKER_KEY = b"M"
MARKER_VERSION = 1
#: rows whose bytes are joined at a time: a checksum of a few large buffers costs a fifth of one row by row
CHUNK_ROWS = 16_384


class TablePartition(Protocol):
    """One partition's state, in memory."""

    partition: int

    def cut(self) -> Rows:
        """Return the changelog rows of everything that changed since the last cut (None: tombstone)."""

    def restore(self, rows: dict[bytes, bytes]) -> None:
        """Take the newest row of every key in; the state was empty before."""

    def changed(self) -> int:
        """Return how many rows the next cut will have, about."""


@dataclass
class Marker:
    """The last row of every batch: how far each source topic is included in the state, and what the batch consists of.

    A minor version adds fields: one that does not know them reads what it knows, and writes markers without them, of
    which ``rows`` is None here.

    Raises
    ------
    ValueError
        When read with another version: it is never read by guess.
    """

    offsets: dict[str, int] = field(default_factory=dict)
    batch_id: int = 0
    extra: dict[str, object] = field(default_factory=dict)
    #: rows of the batch, and the checksum of those with a value
    rows: int | None = None
    checksum: int = 0
    #: rows without a value, and the checksum of their keys: the cleaner takes them away some day, and no others
    tombstones: int = 0
    tombstones_checksum: int = 0
    #: checksum of the marker before
    follows: int = 0
    #: as it stands on the log
    value: bytes = b""

    def open_log(self) -> Rows:
        """Return the first batch of a log that has none: a marker alone, of nothing, so that what follows is missed."""
        if self.value:
            return []
        first = Marker()
        rows = first.close([])
        self.batch_id, self.value = first.batch_id, first.value
        return rows

    def close(self, rows: Rows) -> Rows:
        """Return the next batch as it is written, its marker behind the rows; this is that marker then."""
        self.follows, self.batch_id, self.rows = zlib.crc32(self.value), self.batch_id + 1, len(rows)
        self.checksum, self.tombstones, self.tombstones_checksum = checksums_of(
            [key for key, _ in rows], [value for _, value in rows])
        self.value = json.dumps({
            "version": MARKER_VERSION, "offsets": self.offsets, "batch_id": self.batch_id, "extra": self.extra,
            "rows": self.rows, "checksum": self.checksum, "tombstones": self.tombstones,
            "tombstones_checksum": self.tombstones_checksum, "follows": self.follows,
        }).encode()
        return [*rows, (MARKER_KEY, self.value)]

    @classmethod
    def unpack(cls, value: bytes) -> Marker:
        """Read a changelog value."""
        data = json.loads(value)
        if data["version"] != MARKER_VERSION:
            raise ValueError(f"marker: expected version {MARKER_VERSION}, was {data['version']}")
        return cls(data["offsets"], data["batch_id"], data["extra"], data.get("rows"), data.get("checksum", 0),
                   data.get("tombstones", 0), data.get("tombstones_checksum", 0), data.get("follows", 0), value)


def checksums_of(keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> tuple[int, int, int]:
    """Return the checksum of the rows with a value, how many have none, and the checksum of the keys of these.

    The first one has 64 bits: CRC-32 of the keys, in their order, above that of the values.
    """
    of_keys = of_values = of_tombstones = count = 0
    for start in range(0, len(keys), CHUNK_ROWS):
        some_keys, some = keys[start : start + CHUNK_ROWS], values[start : start + CHUNK_ROWS]
        try:
            joined = b"".join(some)  # type: ignore[arg-type]
        except TypeError:  # tombstones are among them
            gone = [k or b"" for k, v in zip(some_keys, some, strict=True) if v is None]
            of_tombstones, count = zlib.crc32(b"".join(gone), of_tombstones), count + len(gone)
            some_keys = [k for k, v in zip(some_keys, some, strict=True) if v is not None]
            joined = b"".join([v for v in some if v is not None])
        of_keys, of_values = zlib.crc32(b"".join(some_keys), of_keys), zlib.crc32(joined, of_values)  # type: ignore[arg-type]
    return of_keys << 32 | of_values, count, of_tombstones
