"""Faust's table manager, made safe: fence first, restore in bulk, then let Faust resume.

On assignment the partitions are taken in a task (heartbeats go on meanwhile): each gets its transactional producer,
which fences an older owner; then its changelog is read to the end; then Faust's recovery finds nothing left and
resumes the streams at the offsets stored with the state.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiokafka.errors import IllegalStateError, KafkaError
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery, ServiceStopped
from faust.types import TP

from tables.exit_codes import ExitCode
from tables.tasks import process

log = logging.getLogger(__name__)
#: the restored position of a changelog partition that is owned: nothing is left for Faust's recovery to read
EVERYTHING = 2**62


class StageOwner(Protocol):
    """What a stage does when partitions come and go."""

    async def take(self, partitions: set[int]) -> None:
        """Own these partitions: fence, restore, start."""

    async def release(self, partitions: set[int]) -> None:
        """Flush and let go of these partitions."""

    def stored_offset(self, topic: str, partition: int) -> int | None:
        """Return where reading a source partition goes on, or None for the committed offset."""

    def restored_position(self, topic: str, partition: int) -> int | None:
        """Return the changelog position the state includes, or None where that is not a changelog of ours."""


class EngineRecovery(Recovery):
    """Faust's recovery, which finds nothing left to read and resumes the streams.

    Faust takes a request that is not answered in time for the end of the service: its recovery ends for good, without
    a word, and nothing is read any more.
    """

    async def _wait(self, coro: Any, timeout: float | None = None) -> None:
        try:
            await super()._wait(coro, timeout)
        except IllegalStateError:
            raise  # a partition went meanwhile: another rebalance has begun
        except KafkaError as error:
            process.failed("resuming the streams", error, ExitCode.RESTORE)
            raise
        except ServiceStopped:
            if not self.should_stop:
                process.failed("resuming the streams", TimeoutError(f"no answer within {timeout} s"), ExitCode.RESTORE)
            raise


class EngineTableManager(TableManager):
    """Registered as the ``TableManager`` setting; ``stage`` is set by the worker."""

    stage: StageOwner | None = None
    source_topic: str = ""
    _owned: frozenset[int] = frozenset()
    _recovery: EngineRecovery | None = None
    _turn: asyncio.Lock | None = None
    #: since when (monotonic) partitions are taken over and nothing is read; None: the streams go on
    rebalancing_since: float | None = None
    on_ready: Callable[[set[int]], Awaitable[None]] | None = None

    @property
    def recovery(self) -> EngineRecovery:
        """Return what resumes the streams after a take-over."""
        if self._recovery is None:
            self._recovery = EngineRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery

    def on_actives_ready(self) -> None:
        """Note that the streams go on."""
        super().on_actives_ready()
        self.rebalancing_since = None

    async def on_start(self) -> None:
        """Begin at once: tables are declared before the app starts, and Faust would wait a second for late ones."""
        await self._update_channels()
        await self.recovery.start()

    def stored_offset(self, tp: TP) -> int | None:
        """Return where a source partition goes on."""
        return self.stage.stored_offset(tp.topic, tp.partition) if self.stage else None

    def restored_position(self, tp: TP) -> int | None:
        """Return the restored position of a changelog partition."""
        return self.stage.restored_position(tp.topic, tp.partition) if self.stage else None

    def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Note that a rebalance has begun."""
        self.rebalancing_since = time.monotonic()
        super().on_partitions_revoked(revoked)

    async def on_rebalance(self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP],
                           generation_id: int = 0) -> None:
        """Take over in a task; this callback must return quickly, heartbeats wait for it."""
        self.rebalancing_since = time.monotonic()
        self._recovery_started.set()
        for table in self.values():
            await table.on_rebalance(assigned, revoked, newly_assigned, generation_id)
        await self._update_channels()
        self.add_future(self._take_over(assigned, revoked, newly_assigned, generation_id))

    async def _take_over(self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP],
                         generation_id: int) -> None:
        self._turn = self._turn or asyncio.Lock()
        try:
            async with self._turn:
                if generation_id != self.app.consumer_generation_id:
                    return  # another rebalance has begun; its own take-over follows
                wanted = {tp.partition for tp in assigned if tp.topic == self.source_topic}
                if self.stage is not None:
                    await self.stage.release(set(self._owned) - wanted)
                    await self.stage.take(wanted - self._owned)
                self._owned = frozenset(wanted)
                await self.recovery.on_rebalance(assigned, revoked, newly_assigned, generation_id)
                if generation_id != self.app.consumer_generation_id:
                    return  # what is owned now is another's to say
                if self.on_ready is not None:
                    await self.on_ready(wanted)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - a worker that cannot restore must not stay in the group
            process.failed(f"taking over {sorted(assigned)}", error, ExitCode.RESTORE)
