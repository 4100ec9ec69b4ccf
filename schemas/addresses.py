"""What processes of an installation tell each other: where they answer, what they hold."""

from __future__ import annotations

import msgspec

from schemas.records import Text, Timestamp


class GateAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where the gate that owns a partition of `orders` answers over HTTP."""

    partition: int
    address: Text
    ts: Timestamp


class GateExposure(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate has let through under a limited node and is in no position yet, and what it has counted there.

    Kept under ``node|partition``, the lowest partition of its owner; other gates add it to what they hold themselves.
    """

    node: Text
    partition: int
    #: which process says so
    gate: Text
    #: by metric, in the firm's base currency; what is not there is 0
    figures: dict[str, float]
    #: by length in ms: messages and their value in the window that ends now
    windows: dict[str, tuple[float, float]]
    ts: Timestamp
    #: by length in ms: orders decided, and refused, in the window that ends now; where refusals are limited
    outcomes: dict[str, tuple[int, int]] = msgspec.field(default_factory=dict)
