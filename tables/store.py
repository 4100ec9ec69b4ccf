"""The local store: rows of one partition in RocksDB (rocksdict), always behind the changelog, never ahead.

It only shortens a restore. Where it is missing, damaged or not whole it is thrown away and built again from the
changelog. Nothing is synced: what a power cut leaves is whatever the system had written by then, in any order. So the
store keeps a sum over its rows, written with each change of them: an iterator of RocksDB ends without a word at a
block that it cannot read, and a manifest or a log that was cut off forgets rows and keeps newer ones.
"""

from __future__ import annotations

import json
import logging
import shutil
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from faust.stores import STORES
from faust.stores.base import Store
from faust.types import TP
from rocksdict import BlockBasedOptions, Cache, Options, Rdict, WriteBatch

log = logging.getLogger(__name__)
ALIAS = "columns"
FORMAT_KEY = b"\x00format"
FORMAT = b"2"
SUM_KEY = b"\x00sum"
#: changelog offset behind the rows there are (-1: none), how far single rows may be ahead of it, sum over the rows
_SUM = struct.Struct("<qqQ")
_MASK = (1 << 64) - 1
#: about a millisecond
SLICE_ROWS, SLICE_BYTES = 250, 1 << 18
READ_ROWS = 2_000
#: in what RocksDB says of a store that another process has open
LOCK_FILE = "/LOCK:"


class NotWhole(ValueError):
    """The rows of a store are not those that its sum was made of."""


@dataclass(frozen=True)
class Stored:
    """What a store has: its rows, the changelog offset behind them, and up to which one single rows may be ahead."""

    rows: dict[bytes, bytes] = field(default_factory=dict)
    position: int = 0
    ahead: int = 0


class DiskPartition:
    """One partition's rows on disk, with the changelog offset they include.

    Parameters
    ----------
    path : directory of this partition alone
    identity : topic identity; rows of another installation are never mixed in
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self._identity = json.dumps([FORMAT.decode(), identity]).encode()
        self.rebuilt: str | None = None
        self._position, self._ahead, self._sum = -1, -1, 0
        self._db = self._open()

    def _open(self) -> Rdict:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        db: Rdict | None = None
        try:
            db = Rdict(str(self.path), self._options())
            found, kept = db.get(FORMAT_KEY), db.get(SUM_KEY)
            if found not in (None, self._identity):
                raise ValueError(f"store format: expected {self._identity!r}, was {found!r}")
            self._position, self._ahead, self._sum = _SUM.unpack(kept) if kept is not None else (-1, -1, 0)
        except Exception as error:
            if LOCK_FILE in str(error):
                raise
            if db is not None:
                db.close()
            self._say_unusable(str(error))
            db = self._made_anew()
        db[FORMAT_KEY] = self._identity
        return db

    def _say_unusable(self, why: str) -> None:
        self.rebuilt = why
        log.warning("store %s is unusable (%s): rebuilt from the changelog", self.path.name, why)

    def _made_anew(self) -> Rdict:
        shutil.rmtree(self.path, ignore_errors=True)
        self._position, self._ahead, self._sum = -1, -1, 0
        return Rdict(str(self.path), self._options())

    @staticmethod
    def _options() -> Options:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        # eight partitions and more share a process: small buffers, the columns are the cache
        options.set_write_buffer_size(4 << 20)
        options.set_max_write_buffer_number(2)
        options.set_max_open_files(64)
        options.set_block_based_table_factory(_table_options())
        return options

    def offset(self) -> int | None:
        """Return the changelog offset to restore from, or None where nothing is stored."""
        return self._position if self._position >= 0 else None

    @property
    def empty(self) -> bool:
        """Whether nothing is stored, also no rows that are ahead of an offset."""
        return max(self._position, self._ahead) < 0

    def row(self, key: bytes) -> bytes | None:
        """Return one stored row."""
        value: bytes | None = self._db.get(key)
        return value

    def load(self) -> Stored:
        """Return every stored row; a store that is not whole is thrown away, and has none."""
        rows: dict[bytes, bytes] = {}
        for part in self.check_slices():
            rows.update(part)
        return Stored() if self.offset() is None else Stored(rows, self._position, self._ahead)

    def check_slices(self) -> Iterator[list[tuple[bytes, bytes]]]:
        """Yield the rows in parts; at the end, throw the store away where they are not those that were written."""
        wrong = ""
        try:
            yield from self._parts()
        except Exception as error:  # noqa: BLE001 - RocksDB has no classes of errors; the changelog is the truth
            wrong = str(error) or repr(error)
        if wrong:  # an error holds an iterator, and that the files
            self._say_unusable(wrong)
            self.clear()

    def _parts(self) -> Iterator[list[tuple[bytes, bytes]]]:
        """Yield the rows in parts; raise at the end where they are not those that were written."""
        items, total = iter(self._db.items()), 0
        while part := [(k, v) for k, v in islice(items, READ_ROWS) if k not in (FORMAT_KEY, SUM_KEY)]:
            total += sum(zlib.crc32(v, zlib.crc32(k)) for k, v in part)
            yield part
        if total & _MASK != self._sum:
            raise NotWhole("its rows do not add up")

    def write(self, rows: Mapping[bytes, bytes | None], position: int, whole: bool = True) -> None:
        """Write rows, then the changelog offset they include."""
        for _ in self.write_slices(rows, position, whole):
            pass

    def write_slices(self, rows: Mapping[bytes, bytes | None], position: int, whole: bool = True) -> Iterator[None]:
        """Write rows slice by slice, a millisecond or so each; the changelog offset they include comes with the last.

        RocksDB holds the interpreter's lock while it writes: a thread for it only adds the time that the lock takes to
        change hands, which is long where processors are scarce.

        Parameters
        ----------
        position : changelog offset behind the batches that the rows are of
        whole : whether the store has all rows up to there then; if not, its offset stays where it is. These rows, as
            those of a write that was cut short, will be read from the changelog once more: it has to reach ``position``
        """
        items, left = iter(rows.items()), len(rows)
        while True:
            part: list[tuple[bytes, bytes | None]] = []
            size = 0
            while left and size < SLICE_BYTES and len(part) < SLICE_ROWS:
                part.append(next(items))
                size += len(part[-1][1] or b"")
                left -= 1
            self._write(part, position, whole and not left)
            if not left:
                return
            yield

    def _write(self, part: list[tuple[bytes, bytes | None]], position: int, whole: bool) -> None:
        batch, total = WriteBatch(raw_mode=True), self._sum
        before = self._db.get([key for key, _ in part]) if part else []
        for (key, value), old in zip(part, before, strict=True):
            of_key = zlib.crc32(key)
            if old is not None:
                total -= zlib.crc32(old, of_key)
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
                total += zlib.crc32(value, of_key)
        after = position if whole else self._position, max(position, self._ahead), total & _MASK
        batch.put(SUM_KEY, _SUM.pack(*after))
        self._db.write(batch)
        self._position, self._ahead, self._sum = after

    def clear(self) -> None:
        """Throw everything away and start empty (the changelog is the truth)."""
        self._db.close()
        self._db = self._made_anew()
        self._db[FORMAT_KEY] = self._identity

    def close(self) -> None:
        """Release the files and their lock."""
        self._db.close()


def _table_options() -> BlockBasedOptions:
    options = BlockBasedOptions()
    options.set_block_cache(Cache(1 << 20))
    return options


class ColumnStore(Store):
    """Faust's view of the columns: how far each changelog partition is included."""

    def persisted_offset(self, tp: TP) -> int | None:
        """Return the last changelog offset the restored state includes: recovery finds nothing left."""
        position = self.app.tables.restored_position(tp)
        return None if position is None else position - 1

    def set_persisted_offset(self, tp: TP, offset: int) -> None:
        """Positions are kept by the writer, with the rows."""

    async def need_active_standby_for(self, tp: TP) -> bool:
        """Return False: state is rebuilt by the bulk restore."""
        return False

    def apply_changelog_batch(self, batch: Any, to_key: Any, to_value: Any) -> None:
        """Changelog rows are read in bulk by the table manager; single events have nothing to add."""

    async def backup_partition(self, tp: TP | int, flush: bool = True, purge: bool = False, keep: int = 1) -> None:
        """Refuse: the changelog topic is the backup, a local copy of rows adds nothing to it."""
        raise TypeError(f"{tp}: the changelog topic is this table's backup; back up the broker's topics")

    def restore_backup(self, tp: TP | int, latest: bool = True, backup_id: int = 0) -> None:
        """Refuse: state is restored from the changelog."""
        raise TypeError(f"{tp}: this table is restored from its changelog topic")

    def reset_state(self) -> None:
        """The columns belong to the partitions; revoked ones are dropped by the manager."""


def register() -> None:
    """Make ``columns://`` known to Faust."""
    STORES.aliases[ALIAS] = f"{__name__}:ColumnStore"
