"""Where processes of an installation answer each other."""

from __future__ import annotations

import msgspec

from schemas.records import Text, Timestamp


class GateAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where the gate that owns a partition of `orders` answers over HTTP."""

    partition: int
    address: Text
    ts: Timestamp
