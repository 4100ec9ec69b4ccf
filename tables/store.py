"""The local store: rows of one partition in RocksDB (rocksdict), always behind the changelog, never ahead.

It only shortens a restore. Where it is missing or damaged it is thrown away and built again from the changelog.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from faust.stores import STORES
from faust.stores.base import Store
from faust.types import TP
from rocksdict import BlockBasedOptions, Cache, Options, Rdict, WriteBatch

log = logging.getLogger(__name__)
ALIAS = "columns"
OFFSET_KEY = b"\x00changelog_offset"
FORMAT_KEY = b"\x00format"
FORMAT = b"1"
#: about a millisecond
SLICE_ROWS, SLICE_BYTES = 250, 1 << 18


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
        self._db = self._open()

    def _open(self) -> Rdict:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            db = Rdict(str(self.path), self._options())
            found = db.get(FORMAT_KEY)
            if found not in (None, self._identity):
                db.close()
                raise ValueError(f"store format: expected {self._identity!r}, was {found!r}")
        except Exception as error:
            if "lock" in str(error).lower():
                raise
            self.rebuilt = str(error)
            log.warning("store %s is unusable (%s): rebuilt from the changelog", self.path.name, error)
            shutil.rmtree(self.path, ignore_errors=True)
            db = Rdict(str(self.path), self._options())
        db[FORMAT_KEY] = self._identity
        return db

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
        raw = self._db.get(OFFSET_KEY)
        return int(raw) if raw is not None else None

    def row(self, key: bytes) -> bytes | None:
        """Return one stored row."""
        value: bytes | None = self._db.get(key)
        return value

    def rows(self) -> dict[bytes, bytes]:
        """Return every stored row."""
        return {k: v for k, v in self._db.items() if not k.startswith(b"\x00")}

    def write(self, rows: Mapping[bytes, bytes | None], offset: int | None) -> None:
        """Write rows, then the changelog offset they include."""
        for _ in self.write_slices(rows, offset):
            pass

    def write_slices(self, rows: Mapping[bytes, bytes | None], offset: int | None) -> Iterator[None]:
        """Write rows slice by slice, a millisecond or so each; the changelog offset they include comes with the last.

        RocksDB holds the interpreter's lock while it writes: a thread for it only adds the time that the lock takes to
        change hands, which is long where processors are scarce. ``None`` leaves the offset where it is: these rows, as
        those of a write that was cut short, will be read from the changelog once more, to no effect.
        """
        items, left = iter(rows.items()), len(rows)
        while True:
            batch, size, count = WriteBatch(raw_mode=True), 0, 0
            while left and size < SLICE_BYTES and count < SLICE_ROWS:
                key, value = next(items)
                if value is None:
                    batch.delete(key)
                else:
                    batch.put(key, value)
                    size += len(value)
                left, count = left - 1, count + 1
            if not left and offset is not None:
                batch.put(OFFSET_KEY, b"%d" % offset)
            self._db.write(batch)
            if not left:
                return
            yield

    def clear(self) -> None:
        """Throw everything away and start empty (the changelog is the truth)."""
        self._db.close()
        shutil.rmtree(self.path, ignore_errors=True)
        self._db = self._open()

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
