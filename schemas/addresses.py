"""What processes of an installation tell each other: where they answer, what they hold."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from schemas.numbers import StampNs, Whole
from schemas.records import Text
from schemas.units import INT64_MAX, NS_PER_MS, TS_END


class GateAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where the gate that owns a partition of `orders` answers: over HTTP, and on which socket of which machine."""

    partition: Whole
    address: Text | None = None
    socket: Text | None = None
    host: Text | None = None
    ts: StampNs


class PositionProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far the trades of a partition are in its positions, and those in `positions`.

    Said twice a second by its owner: where nobody says it, positions are as old as when it was said last.
    """

    partition: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
    #: of `trades`: what lies before is in its positions, or was refused
    next_offset: Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)]
    #: how long ago the oldest trade that is in no position may have arrived, at most; 0: all are
    behind_ms: Annotated[int, msgspec.Meta(ge=0, lt=TS_END // NS_PER_MS)]
    ts: StampNs


class ReadSoFar(msgspec.Struct, frozen=True, kw_only=True):
    """How far a process of a role has read what it rests on; what follows of that is on the log.

    Said where the setting ``say_reads`` asks for it: whoever rehearses waits by it, not by time.
    """

    role: Text
    #: another one reads again from where its log begins
    process: Text
    #: by topic: (partition, next offset)
    read: dict[str, list[tuple[int, int]]]
    ts: StampNs


class UnitVars(msgspec.Struct, frozen=True, kw_only=True):
    """What one unit of instruments alone has as historical VaR, bought or sold, in the firm's base currency.

    Said every few seconds by who values the whole firm, in parts; what is not known is not here.
    """

    instruments: list[str]
    #: positive losses at 99 %, over the horizon of the firm's VaR
    var_99: list[float]
    ts: StampNs


class LimitsUsed(msgspec.Struct, frozen=True, kw_only=True):
    """What limits come to that only its sayer measures, said once a second under the lowest partition that it owns.

    A node is spoken for by the gate that owns its partition of `orders`, and by the risk worker that states it. What is
    not here is not known.
    """

    #: who says so: gates what is ordered, risk workers what models measure
    of: Literal["gate", "risk"] = "gate"
    #: of `orders`, or of `positions`
    partitions: list[Whole]
    #: node, metric, length of the window in ms (0: none), instrument (empty: none), value
    used: list[tuple[str, str, int, str, float]]
    ts: StampNs


class GateExposure(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate has let through under a limited node and is in no position yet, and what it has counted there.

    Kept under ``node|partition``, the lowest partition of its owner; other gates add it to what they hold themselves.
    """

    node: Text
    partition: Whole
    #: which process says so
    gate: Text
    #: by metric, in the firm's base currency; what is not there is 0
    figures: dict[str, float]
    #: by length in ms: messages and their value in the window that ends now
    windows: dict[str, tuple[float, float]]
    ts: StampNs
    #: by length in ms: orders decided, and refused, in the window that ends now; where refusals are limited
    outcomes: dict[str, tuple[int, int]] = msgspec.field(default_factory=dict)
