"""What gates say limits come to that only they measure."""

from __future__ import annotations

from models.limits import LimitKey
from schemas.addresses import LimitsUsed
from tables.kafka import speaker_partition

#: what was said longer ago is not known any more
AGE_MAX_NS = 5_000_000_000


class UsedLimits:
    """The newest word of every gate.

    Parameters
    ----------
    partitions : of `orders`
    """

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        #: by partition: when its owner spoke last, and what it said of all that it owns
        self._said: dict[int, tuple[int, dict[LimitKey, float]]] = {}

    def take(self, record: LimitsUsed) -> None:
        """Take in what a gate says."""
        used = {LimitKey(node, metric, window_ms, instrument): value
                for node, metric, window_ms, instrument, value in record.used}
        for p in record.partitions:
            if self._said.get(p, (0, {}))[0] <= record.ts:
                self._said[p] = int(record.ts), used

    def value(self, key: LimitKey, now_ns: int) -> float | None:
        """Return what a limit is held against; None: nobody has said it lately."""
        ts, used = self._said.get(speaker_partition(key.node, self._partitions), (0, {}))
        if now_ns - ts > AGE_MAX_NS:
            return None
        return used.get(key)
