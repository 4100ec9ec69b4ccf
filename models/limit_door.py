"""The limits that stand, as every reader of their topic judges them: what loosens two people's limit needs two people.

A record is judged where it is read, at the time it has on the log, whoever wrote it and however: a command, the page, a
client of Kafka. All readers come to the same limits; what one refuses, all refuse. A version says one thing: what comes
again as it stands is a repeat, another content of it, or an earlier one, changes nothing and is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from models.gate.limit_nodes import check_limit
from models.limit_changes import alike, needs_second
from models.limits_in_force import by_two, end_of
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
        self._alike: dict[tuple[str, ...], dict[str, Limit]] = {}

    def take(self, limit: Limit, at_ns: int) -> None:
        """Take a version of a limit in: it stands now, as the newest one.

        Raises
        ------
        Refused
            This version, or a later one, says something else, or it lets more pass than two people agreed on, and one
            asks for it; nothing changed.
        ValueError
            It is on something that such a limit cannot be on; nothing changed.
        """
        held = self.standing.get(limit.limit_id)
        if held is None or not _say_the_same(limit, held):
            _check_version(limit, held)
            check_limit(limit, self._levels)
            self._judge(limit.limit_id, limit, at_ns)
        self._forget(held)
        self.standing[limit.limit_id] = self._alike.setdefault(alike(limit), {})[limit.limit_id] = limit

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
            raise Refused(QuarantineReason.NOT_APPROVED, f"approved_by: expected a second person, was {who}: {why}")

    def _beside(self, *limits: Limit | None) -> Mapping[str, Limit]:
        """Return what a write may stand in for: limits on the same figures."""
        found: dict[str, Limit] = {}
        for group in {alike(x) for x in limits if x is not None}:
            found |= self._alike.get(group, {})
        return found


def _check_version(limit: Limit, held: Limit | None) -> None:
    if held is not None and limit.version <= held.version:
        other = " with other content" if limit.version == held.version else ""
        raise Refused(QuarantineReason.STALE_VERSION, f"version: expected above {held.version}, which stands{other} "
                                                      f"({held.limit}, by {held.by}), was {limit.version}")


def _say_the_same(one: Limit, other: Limit) -> bool:
    """Whether two records say the same of a limit: their ends may be written in two ways."""
    return msgspec.structs.replace(one, until=None) == msgspec.structs.replace(other, until=None) and (
        end_of(one) == end_of(other))


def judged(records: Iterable[tuple[str, Limit | None, int]], levels: Sequence[str] = LEVELS) -> dict[str, Limit]:
    """Return what stands after records of the topic: name, version or None where it is taken away, and time."""
    door = LimitDoor(levels)
    for limit_id, limit, at_ns in records:
        try:
            door.remove(limit_id, at_ns) if limit is None else door.take(limit, at_ns)
        except ValueError:
            continue
    return door.standing
