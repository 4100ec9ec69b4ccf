"""What needs two people: one who is signed in asks, another who is signed in approves, or it lapses."""

from __future__ import annotations

import secrets
from typing import Any, Literal

from schemas.records import Approval

#: nobody approved it by then: it has to be asked for again
LAPSES_S = 900


def new_approval(kind: Literal["override", "limit"], fields: dict[str, Any], by: str, now_ns: int) -> Approval:
    """Return what a person asks for, to be kept on the topic until another one decides."""
    return Approval(approval_id=secrets.token_hex(4), kind=kind, fields=fields, by=by, asked_ts=now_ns,
                    lapses_ts=now_ns + LAPSES_S * 1_000_000_000)


class Approvals:
    """The writes that wait, as the topic `approvals` has them: every gateway shows them, also a new one."""

    def __init__(self) -> None:
        self._waiting: dict[str, Approval] = {}
        #: decided here: their records may still be on their way back
        self._decided: set[str] = set()

    def take_in(self, approval_id: str, asked: Approval | None) -> None:
        """Take in what the topic says; None: it was decided."""
        if asked is None:
            self._waiting.pop(approval_id, None)
            self._decided.discard(approval_id)
        else:
            self._waiting[approval_id] = asked

    def waiting(self, now_ns: int) -> list[Approval]:
        """Return what waits, the oldest first; what has lapsed is forgotten."""
        self._waiting = {k: p for k, p in self._waiting.items() if int(p.lapses_ts) > now_ns}
        return [p for k, p in self._waiting.items() if k not in self._decided]

    def find(self, approval_id: str, now_ns: int) -> Approval | None:
        """Return one that waits, or None."""
        return next((p for p in self.waiting(now_ns) if p.approval_id == approval_id), None)

    def decide(self, asked: Approval) -> None:
        """Let one wait no longer, before it is carried out: two who approve at once write it once."""
        self._decided.add(asked.approval_id)

    def put_back(self, asked: Approval) -> None:
        """Let one wait again that could not be carried out."""
        self._decided.discard(asked.approval_id)
