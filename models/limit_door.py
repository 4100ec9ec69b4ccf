"""The limits that stand, as every reader of their topic judges them: what loosens two people's limit needs two people.

A record is judged where it is read, at the time it has on the log, whoever wrote it and however: a command, the page, a
client of Kafka. All readers come to the same limits; what one refuses, all refuse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from models.gate.limit_nodes import check_limit
from models.limit_changes import alike, needs_second
from models.limits_in_force import by_two
from models.reference import LEVELS
from schemas.reasons import QuarantineReason
from schemas.records import Limit
from schemas.refusal import Refused


class LimitDoor:
    """What stands, in the order of the newest versions; time is an argument.

    Parameters
    ----------
    levels : of the tree
    """

    def __init__(self, levels: Sequence[str] = LEVELS) -> None:
        self._levels = levels
        self.standing: dict[str, Limit] = {}
        #: names whose newest record is not what stands, and why: compaction leaves that record alone
        self.unsettled: dict[str, str] = {}
        self._alike: dict[tuple[str, ...], dict[str, Limit]] = {}

    def take(self, limit: Limit, at_ns: int) -> bool:
        """Take a version of a limit in; return whether it stands now: one that is older than what stands does not.

        Raises
        ------
        Refused
            It lets more pass than two people agreed on, and one asks for it; nothing changed.
        ValueError
            It is on something that such a limit cannot be on; nothing changed.
        """
        held = self.standing.get(limit.limit_id)
        if held is not None and limit.version < held.version:
            self.unsettled[limit.limit_id] = f"version {limit.version} came after version {held.version}"
            return False
        if limit != held:
            try:
                check_limit(limit, self._levels)
            except ValueError as error:
                self.unsettled[limit.limit_id] = str(error)
                raise
            self._judge(limit.limit_id, limit, at_ns)
            self._forget(held)
            self.standing[limit.limit_id] = self._alike.setdefault(alike(limit), {})[limit.limit_id] = limit
        self.unsettled.pop(limit.limit_id, None)
        return True

    def remove(self, limit_id: str, at_ns: int) -> None:
        """Take a limit away.

        Raises
        ------
        Refused
            As `take`.
        """
        held = self.standing.get(limit_id)
        if held is not None:
            self._judge(limit_id, None, at_ns)
            self._forget(held)
        self.unsettled.pop(limit_id, None)

    def _forget(self, held: Limit | None) -> None:
        if held is not None:
            del self.standing[held.limit_id]
            del self._alike[alike(held)][held.limit_id]
            if not self._alike[alike(held)]:
                del self._alike[alike(held)]

    def _judge(self, limit_id: str, after: Limit | None, at_ns: int) -> None:
        if after is not None and by_two(after):
            return
        why = needs_second(self._beside(self.standing.get(limit_id), after), limit_id, after, at_ns)
        if why is not None:
            who = "nobody else" if after is None or after.approved_by is None else repr(after.approved_by)
            text = f"approved_by: expected a second person, was {who}: {why}"
            self.unsettled[limit_id] = text
            raise Refused(QuarantineReason.NOT_APPROVED, text)

    def _beside(self, *limits: Limit | None) -> Mapping[str, Limit]:
        """Return what a write may stand in for: limits on the same figures."""
        found: dict[str, Limit] = {}
        for group in {alike(x) for x in limits if x is not None}:
            found |= self._alike.get(group, {})
        return found


def judged(records: Iterable[tuple[str, Limit | None, int]], levels: Sequence[str] = LEVELS) -> dict[str, Limit]:
    """Return what stands after records of the topic: name, version or None where it is taken away, and time."""
    door = LimitDoor(levels)
    for limit_id, limit, at_ns in records:
        try:
            door.remove(limit_id, at_ns) if limit is None else door.take(limit, at_ns)
        except ValueError:
            continue
    return door.standing
