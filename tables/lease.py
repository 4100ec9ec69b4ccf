"""How long a member of a consumer group may act as the owner of its partitions without asking the broker again.

The broker gives partitions away when it has not heard from a member for the session timeout. A process that was
stopped for longer goes on where it was and does not know; what it writes then would stand beside what its heir wrote.
Writers in transactions are fenced by the broker. Who writes without them asks here before it acts.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from tables.exit_codes import ExitCode
from tables.tasks import process

log = logging.getLogger(__name__)
ASK_AGAIN_S = 0.1


class Lease:
    """Held from a heartbeat that the broker answered until the session timeout after it was sent.

    Parameters
    ----------
    seconds : the session timeout of the group
    monotonic : the clock, s
    leave : ends the process; None: as the supervision of this process does
    """

    def __init__(self, seconds: float, monotonic: Callable[[], float] = time.monotonic,
                 leave: Callable[[int], object] | None = None) -> None:
        self._seconds, self._monotonic, self._leave = seconds, monotonic, leave
        self._until: float | None = None
        self._member: str | None = None
        #: sends a heartbeat now; says whether the group still knows this member
        self.ask: Callable[[], Awaitable[bool]] | None = None

    def renew(self, sent_at: float, member: str) -> None:
        """Note that the broker answered a member's heartbeat, sent at a time of ``monotonic``.

        A member the broker had forgotten joins again under another name: what it holds is of the time before.
        """
        if self._member not in (None, member):
            self._fenced()
        self._member, self._until = member, max(self._until or 0.0, sent_at + self._seconds)

    def held(self) -> bool:
        """Say whether nobody else can own what this process owns; before it joins it owns nothing."""
        return self._until is None or self._monotonic() < self._until

    async def begin(self) -> None:
        """Return when it is held, by a heartbeat of now at the latest: before a process owns anything."""
        self._until = self._until or 0.0
        await self.sure()

    async def sure(self) -> None:
        """Return as soon as it is held; end the process where the group no longer knows this member."""
        while not self.held():
            if self.ask is None or not await self.ask():
                self._fenced()
                return
            if not self.held():  # the broker does not answer: what others own it would have to say, too
                await asyncio.sleep(ASK_AGAIN_S)

    def _fenced(self) -> None:
        log.critical("leaving: the group gave the partitions of this process away while it did not run")
        (self._leave or process.leave)(int(ExitCode.FENCED))
