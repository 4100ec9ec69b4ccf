"""How far trades are in positions: said by who folds them, followed by who rests decisions on them."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.addresses import PositionProgress

#: a source that sends nothing for so many turns has nothing: behind its last record lie marks of transactions
QUIET_TURNS = 6


@dataclass
class _Folded:
    next_offset: int
    #: all trades that had arrived by then are folded
    up_to_ns: int
    #: turns since the last slice
    quiet: int = 0


class FoldProgress:
    """Of the worker that folds: up to when the trades of each of its partitions are in its positions."""

    def __init__(self) -> None:
        self._of: dict[int, _Folded] = {}

    def begin(self, partition: int, next_offset: int, all_read: bool, now_ns: int) -> None:
        """Own a partition whose first ``next_offset`` trades are folded; ``all_read``: there are no others."""
        self._of[partition] = _Folded(next_offset, now_ns if all_read else 0)

    def end(self, partition: int) -> None:
        """Own it no more."""
        self._of.pop(partition, None)

    def folded(self, partition: int, next_offset: int, newest_ns: int, behind: int, now_ns: int) -> None:
        """Note a slice that was folded.

        Parameters
        ----------
        newest_ns : when its last record arrived at the broker
        behind : how many records had come after it
        """
        held = self._of[partition]
        held.next_offset, held.quiet = next_offset, 0
        held.up_to_ns = max(held.up_to_ns, now_ns if behind == 0 else min(newest_ns, now_ns))

    def turn(self, now_ns: int) -> None:
        """Call it at a steady pace, between slices: where none comes for a while there is none."""
        for held in self._of.values():
            held.quiet += 1
            if held.quiet >= QUIET_TURNS:
                held.up_to_ns = now_ns

    def of(self, partition: int, now_ns: int) -> PositionProgress | None:
        """Return what there is to say of a partition; None: another worker owns it by now."""
        held = self._of.get(partition)
        if held is None:
            return None
        return PositionProgress(partition=partition, next_offset=held.next_offset, ts=now_ns,
                                behind_ms=max(now_ns - held.up_to_ns, 0) // 1_000_000)


class PositionsInStep:
    """Of whoever follows positions: up to when they hold the trades of every partition."""

    def __init__(self, partitions: int) -> None:
        self._up_to = [0] * partitions
        #: by partition: the first offset of `trades` that is not in its positions
        self.next_offset = [0] * partitions

    def heard(self, said: PositionProgress, arrived_ns: int) -> None:
        """Take a statement in; ``arrived_ns``: by the clock of who asks later."""
        if 0 <= said.partition < len(self._up_to):
            self._up_to[said.partition] = arrived_ns - said.behind_ms * 1_000_000
            self.next_offset[said.partition] = said.next_offset

    def up_to_ns(self) -> int:
        """Return up to when positions hold all trades; 0 where a partition was never heard of."""
        return min(self._up_to)
