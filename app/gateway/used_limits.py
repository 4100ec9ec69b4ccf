"""What gates and risk workers say limits come to that only they measure."""

from __future__ import annotations

from models.gate.watched import is_of_gate
from models.limits import LimitKey
from models.node_owners import LEAD_PARTITION, NodeOwners
from models.reference import Reference
from schemas.addresses import LimitsUsed
from tables.kafka import owner_partition, speaker_partition

#: what was said longer ago is not known any more
AGE_MAX_NS = 5_000_000_000


class UsedLimits:
    """The newest word of every gate and of every risk worker.

    Parameters
    ----------
    partitions : of `orders`
    reference, levels : which risk worker states a node follows from accounts
    """

    def __init__(self, partitions: int, reference: Reference, levels: tuple[str, ...]) -> None:
        self._partitions = partitions
        self._owners = NodeOwners(reference, levels, lambda fund: owner_partition(fund, partitions))
        #: by role and partition: when its owner spoke last, and what it said of all that it owns
        self._said: dict[tuple[str, int], tuple[int, dict[LimitKey, float]]] = {}

    def accounts_changed(self) -> None:
        """Take in that accounts may lie elsewhere."""
        self._owners.accounts_changed()

    def take(self, record: LimitsUsed) -> None:
        """Take in what a process says."""
        used = {LimitKey(node, metric, window_ms, instrument): value
                for node, metric, window_ms, instrument, value in record.used}
        for p in record.partitions:
            if self._said.get((record.of, p), (0, {}))[0] <= record.ts:
                self._said[record.of, p] = int(record.ts), used

    def value(self, key: LimitKey, now_ns: int) -> float | None:
        """Return what a limit is held against; None: nobody has said it lately."""
        if is_of_gate(key.node, key.metric):
            speaker = "gate", speaker_partition(key.node, self._partitions)
        else:
            owner = self._owners.partition(key.node)
            speaker = "risk", LEAD_PARTITION if owner is None else owner
        ts, used = self._said.get(speaker, (0, {}))
        if now_ns - ts > AGE_MAX_NS:
            return None
        return used.get(key)
