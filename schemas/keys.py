"""Keys of compacted topics that more than one program writes to: one function each."""

from __future__ import annotations

from schemas.corporate import CorporateAction
from schemas.records import External


def external_key(record: External) -> bytes:
    """Return the key of a statement: what a source says of a position is one fact for each kind."""
    return f"{record.source}|{record.account}|{record.instrument}|{record.kind}".encode()


def action_key(record: CorporateAction) -> bytes:
    """Return the key of a corporate action: each one is a fact of its own."""
    return f"{record.instrument}|{record.action_id}".encode()
