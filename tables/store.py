"""The local store: rows of one partition in RocksDB (rocksdict), always behind the changelog, never ahead.

It only shortens a restore. Where it is missing or damaged it is thrown away and built again from the changelog.
"""

from __future__ import annotations

import itertools
import json
import logging
import shutil
import time
from collections.abc import Mapping
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
SLICE_ROWS = 250


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

    def rows(self) -> dict[bytes, bytes]:
        """Return every stored row."""
        return {k: v for k, v in self._db.items() if not k.startswith(b"\x00")}

    def write(self, rows: Mapping[bytes, bytes | None], offset: int | None, pause_s: float = 0.0) -> None:
        """Write rows, then the changelog offset they include.

        In slices, with a pause after each: RocksDB holds the interpreter's lock while it writes, and trades are waiting
        for it; who only lets go of it has it back before they wake. The offset comes with the last one. ``None``
        leaves it where it is: these rows, as those of a write that was cut short, will be read from the changelog
        once more, to no effect.
        """
        items = iter(rows.items())
        left = len(rows)
        while True:
            batch = WriteBatch(raw_mode=True)
            for key, value in itertools.islice(items, SLICE_ROWS):
                if value is None:
                    batch.delete(key)
                else:
                    batch.put(key, value)
            left -= SLICE_ROWS
            if left <= 0 and offset is not None:
                batch.put(OFFSET_KEY, b"%d" % offset)
            self._db.write(batch)
            if left <= 0:
                return
            time.sleep(pause_s)

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
