"""What needs two people: one who is signed in asks, another who is signed in approves, or it lapses."""

from __future__ import annotations

import secrets
from typing import Any, Literal

import msgspec

#: nobody approved it by then: it has to be asked for again
LAPSES_S = 900


class Pending(msgspec.Struct, frozen=True):
    """A write that waits for a second person."""

    approval_id: str
    kind: Literal["override", "limit"]
    fields: dict[str, Any]
    by: str
    asked_ns: int
    lapses_ns: int


class Approvals:
    """The writes that wait; they live as long as the gateway does and not longer than `LAPSES_S`."""

    def __init__(self) -> None:
        self._pending: dict[str, Pending] = {}

    def ask(self, kind: Literal["override", "limit"], fields: dict[str, Any], by: str, now_ns: int) -> Pending:
        """Keep a write until somebody else approves it."""
        asked = Pending(secrets.token_hex(4), kind, fields, by, now_ns, now_ns + LAPSES_S * 1_000_000_000)
        self._pending[asked.approval_id] = asked
        return asked

    def waiting(self, now_ns: int) -> list[Pending]:
        """Return what waits, the oldest first; what has lapsed is forgotten."""
        self._pending = {k: p for k, p in self._pending.items() if p.lapses_ns > now_ns}
        return list(self._pending.values())

    def find(self, approval_id: str, now_ns: int) -> Pending | None:
        """Return one that waits, or None."""
        return next((p for p in self.waiting(now_ns) if p.approval_id == approval_id), None)

    def take(self, pending: Pending) -> None:
        """Let one wait no longer, before it is carried out: two who approve at once write it once."""
        del self._pending[pending.approval_id]

    def put_back(self, pending: Pending) -> None:
        """Let one wait again that could not be carried out."""
        self._pending[pending.approval_id] = pending
