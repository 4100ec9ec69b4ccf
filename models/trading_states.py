"""The trading states that stand, as every reader of their topic judges them.

Of two states of a scope the newer one stands, and of two that were written at once the stricter. A state is lifted by a
named person alone: a record that is withdrawn lifts nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from models.gate.limit_nodes import check_scope
from models.gate.state import STATES
from models.reference import LEVELS
from schemas.reasons import QuarantineReason
from schemas.records import Control
from schemas.refusal import Refused


def severity(control: Control) -> int:
    """Return how strict a state is: active is 0."""
    return STATES.index(control.state)


def replaces(control: Control, held: Control | None) -> bool:
    """Whether a record takes the place of what stands.

    A breaker and a person who write at once number their records alike: whichever comes last, the stricter stands.
    """
    return held is None or (control.rev, severity(control)) >= (held.rev, severity(held))


class StandingStates:
    """What stands, by scope.

    Parameters
    ----------
    levels : of the tree
    """

    def __init__(self, levels: Sequence[str] = LEVELS) -> None:
        self._levels = levels
        self.standing: dict[str, Control] = {}

    def take(self, control: Control) -> bool:
        """Take a state in; return whether it stands now: one that lost against what stands does not.

        Raises
        ------
        ValueError
            Its scope is of no kind that there is; nothing changed.
        """
        check_scope(control.scope, self._levels)
        if not replaces(control, self.standing.get(control.scope)):
            return False
        self.standing[control.scope] = control
        return True

    def withdraw(self, scope: str) -> None:
        """Take in that a record was withdrawn.

        Raises
        ------
        Refused
            The scope has a state: a named person lifts it.
        """
        if scope in self.standing:
            raise Refused(QuarantineReason.NULL_VALUE, f"{scope}: expected a record that makes it active, with who and "
                                                       "why, was a withdrawal")


def states_after(records: Iterable[tuple[str, Control | None]], levels: Sequence[str] = LEVELS) -> dict[str, Control]:
    """Return what stands after records of the topic: scope, and state or None where a record was withdrawn."""
    door = StandingStates(levels)
    for scope, control in records:
        try:
            door.withdraw(scope) if control is None else door.take(control)
        except ValueError:
            continue
    return door.standing
