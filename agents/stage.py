"""What every role's stage is: the part of a worker that owns partitions and takes their records in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from aiokafka.structs import TopicPartition

from tables.manager import StageOwner
from tables.records import RecordBatch


@dataclass(frozen=True)
class Bound:
    """How long something may take before its process ends: ``since`` says from when (monotonic) it runs, or None."""

    what: str
    seconds: float
    since: Callable[[], float | None]


class Stage(StageOwner, Protocol):
    """Owns partitions: `take` fences, restores and starts; `release` lets go; records come one slice at a time.

    Its background tasks are started by `tables.tasks`, under names, when it first owns something.
    """

    #: its last commit goes through the consumer, so it stops before that does
    stops_before_consumer: ClassVar[bool] = False

    def restored_position(self, topic: str, partition: int) -> int | None:
        """Return None: most stages have no changelog of their own, their state is other topics."""
        return None

    async def process(self, batch: RecordBatch, ack: Callable[[], None]) -> None:
        """Take a slice in; ``ack`` once what follows from it is durable."""

    async def pause(self) -> None:
        """Do nothing that an heir would not know of, until the next `take`: partitions are being given away."""
        return  # most stages write nothing that only its reader would know of

    async def stop(self) -> None:
        """Finish what is under way and disconnect."""

    def reads(self) -> Mapping[TopicPartition, int]:
        """Return the next offset of every partition that it follows."""

    async def acted(self) -> None:
        """Wait until what follows of all that was read when it was called has been sent."""

    def watched(self) -> Sequence[Bound]:
        """Return what of it must not take longer than a bound, beside the turns of its tasks."""
        return ()


class Reading(Protocol):
    """How far a stage has read, kept apart from what it does with it."""

    def reads(self) -> Mapping[TopicPartition, int]:
        """Return the next offset of every partition that the stage follows."""

    async def acted(self) -> None:
        """Wait until what follows of all that was read when it was called has been sent."""


class ReadingStage(Stage):
    """A stage whose `reading` says how far it is."""

    reading: Reading

    def reads(self) -> Mapping[TopicPartition, int]:
        """Return the next offset of every partition that it follows."""
        return self.reading.reads()

    async def acted(self) -> None:
        """Wait until what follows of all that was read when it was called has been sent."""
        await self.reading.acted()
