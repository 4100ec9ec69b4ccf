"""The Faust tables, as declared: names, changelogs, and a read-only mapping over the columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import faust
from faust.tables.table import Table


class ColumnTable(Table):
    """A Faust table whose rows are folded by kernels and written by `tables.writer`.

    Reading by key works as on any table. Writing by key is refused: one changelog row per key and flush is sent by
    the writer, in a transaction, never one per assignment.
    """

    lookup: Callable[[str], Any] | None = None
    keys_of: Callable[[], Iterator[str]] | None = None

    def __getitem__(self, key: str) -> Any:
        """Return the row of a key as a record."""
        found = self.lookup(key) if self.lookup else None
        if found is None:
            raise KeyError(key)
        return found

    def __contains__(self, key: object) -> bool:
        """Return whether a row exists on this worker."""
        return self.lookup is not None and self.lookup(str(key)) is not None

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys on this worker."""
        return self.keys_of() if self.keys_of else iter(())

    def __len__(self) -> int:
        """Return how many rows are on this worker."""
        return sum(1 for _ in self)

    def on_key_set(self, key: Any, value: Any) -> None:
        """Refuse: see the class."""
        raise TypeError(f"table {self.name}: rows are folded from the log; {key!r} cannot be set by hand")

    def on_key_del(self, key: Any) -> None:
        """Refuse: see the class."""
        raise TypeError(f"table {self.name}: rows are folded from the log; {key!r} cannot be deleted by hand")


def declare(app: faust.App, name: str, changelog: str, partitions: int, help: str) -> ColumnTable:
    """Declare a table with an explicit changelog topic (created before the worker starts)."""
    table = ColumnTable(app, name=name, partitions=partitions, key_type=bytes, value_type=bytes,
                        changelog_topic=app.topic(changelog, partitions=partitions, key_type=bytes, value_type=bytes),
                        help=help)
    app.tables.add(table)
    return table
