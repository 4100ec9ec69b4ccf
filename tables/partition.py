"""What the engine asks of one partition of a table: cut the changes out, take the rows in."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Protocol

Rows = list[tuple[bytes, bytes | None]]
MARKER_KEY = b"M"
MARKER_VERSION = 1


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
    """Written with every transaction: how far each source topic is included in the state.

    Raises
    ------
    ValueError
        When read with another version: it is never read by guess.
    """

    offsets: dict[str, int] = field(default_factory=dict)
    batch_id: int = 0
    extra: dict[str, object] = field(default_factory=dict)

    def pack(self) -> bytes:
        """Return the changelog value."""
        return json.dumps({"version": MARKER_VERSION, "offsets": self.offsets, "batch_id": self.batch_id,
                           "extra": self.extra}).encode()

    @classmethod
    def unpack(cls, value: bytes) -> Marker:
        """Read a changelog value."""
        data = json.loads(value)
        if data["version"] != MARKER_VERSION:
            raise ValueError(f"marker: expected version {MARKER_VERSION}, was {data['version']}")
        return cls(data["offsets"], data["batch_id"], data["extra"])
