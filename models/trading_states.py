"""Which of two states of a scope stands: the newer one, and of two that were written at once the stricter."""

from __future__ import annotations

from models.gate.state import STATES
from schemas.records import Control


def severity(control: Control) -> int:
    """Return how strict a state is: active is 0."""
    return STATES.index(control.state)


def replaces(control: Control, held: Control | None) -> bool:
    """Whether a record takes the place of what stands.

    A breaker and a person who write at once number their records alike: whichever comes last, the stricter stands.
    """
    return held is None or (control.rev, severity(control)) >= (held.rev, severity(held))
