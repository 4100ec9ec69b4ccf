"""With which code a process ends, and why: one list for whoever reads the code of a process that is gone."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Why a process ended by itself; its supervisor starts a fresh one, which restores from the log."""

    def __new__(cls, value: int, meaning: str) -> ExitCode:
        """Keep with each code what it means, for the reference."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    meaning: str

    DONE = 0, "done"
    FAILED = 1, "something failed; the last line says what"
    USAGE = 2, "wrong usage or settings"
    DIFFERENT = 3, "two things that must be equal are not: verify, diff, reconcile, decisions"
    WRITER = 70, "a transaction of positions could not be committed"
    RESTORE = 71, "partitions could not be taken over: their state was not restored"
    STUCK = 72, "no progress: the event loop, a background task or a rebalance took longer than its bound"
    PUBLISHER = 73, "a batch could not be delivered to the broker"
    STAGE = 74, "the stage raised on a slice of records"
    STANDBY = 75, "a standby copy could not be followed"
    TOPICS = 76, "a topic is gone or has another number of partitions"
    FENCED = 77, "the group gave the partitions of this process away while it did not run"
    FOREIGN_PACKAGE = 78, "a package of one of our names comes from elsewhere"
    JOURNAL = 79, "decisions could not be kept on disk"
    TASK = 80, "a background task raised or ended"
    UNREADABLE = 81, "a batch of the log cannot be read: `deskrisk skip` passes over it"
    TRANSACTION = 82, "a request of a transaction got no answer and may still arrive: a fresh process fences it off"
    DAMAGED = 83, "a file is not what was written there: the last line says which, and what to do"
