"""The topics of rules (limits, trading states, approvals): read to their end, written by one writer at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec
from aiokafka.errors import InvalidProducerEpoch, InvalidTxnState, KafkaError, ProducerFenced, UnknownError
from aiokafka.structs import TopicPartition

from app.settings import Settings
from models.limit_door import judged
from models.trading_states import states_after
from schemas.codec import decoder_of, encode
from schemas.records import Control, Limit
from schemas.units import NS_PER_MS
from tables.restore import read_range
from tables.transactions import TransactionalProducer, Unanswered

log = logging.getLogger(__name__)
T = TypeVar("T")
#: what a broker says to who was fenced
FENCED = (ProducerFenced, InvalidProducerEpoch, InvalidTxnState)
#: how often a write that lost a race begins anew, and after how long, s
RACES_MAX, RACE_S = 8, (0.05, 1.0)


class Refused(ValueError):
    """A write that is not allowed as it was asked for: the field, the value, what was expected."""


class Raced(Refused):
    """A write that somebody else was quicker than; nothing of it was written."""


async def current(settings: Settings, topic: str, cls: Any) -> dict[str, Any]:
    """Return the newest record of every key of a one-partition topic.

    A record that cannot be read is left out, as every reader leaves it out: what its key had before still stands.
    """
    found: dict[str, Any] = {}
    decoder = decoder_of(cls)

    def on_batch(batch: Any) -> None:
        for key, value in zip(batch.keys, batch.values, strict=True):
            name = (key or b"").decode(errors="replace")
            try:
                record = None if value is None else decoder.decode(value)
            except (msgspec.DecodeError, ValueError) as error:
                log.warning("%s %s: left out: %s", topic, name, error)
                continue
            found.pop(name, None)  # in the order of their newest records
            if record is not None:
                found[name] = record

    await read_range(settings.client(), {TopicPartition(settings.topics()[topic], 0): 0}, on_batch)
    return found


async def current_limits(settings: Settings) -> dict[str, Limit]:
    """Return the limits that stand, judged as every reader of the topic judges them."""
    decoder, found = decoder_of(Limit), list[tuple[str, Limit | None, int]]()

    def on_batch(batch: Any) -> None:
        for key, value, ms in zip(batch.keys, batch.values, batch.timestamps_ms.tolist(), strict=True):
            name = (key or b"").decode(errors="replace")
            try:
                found.append((name, None if value is None else decoder.decode(value), ms * NS_PER_MS))
            except (msgspec.DecodeError, ValueError) as error:
                log.warning("limits %s: left out: %s", name, error)

    await read_range(settings.client(), {TopicPartition(settings.topics()["limits"], 0): 0}, on_batch)
    return judged(found, settings.levels)


async def current_controls(settings: Settings) -> dict[str, Control]:
    """Return the trading states that stand, judged as every reader of the topic judges them."""
    decoder, found = decoder_of(Control), list[tuple[str, Control | None]]()

    def on_batch(batch: Any) -> None:
        for key, value in zip(batch.keys, batch.values, strict=True):
            scope = (key or b"").decode(errors="replace")
            try:
                found.append((scope, None if value is None else decoder.decode(value)))
            except (msgspec.DecodeError, ValueError) as error:
                log.warning("controls %s: left out: %s", scope, error)

    await read_range(settings.client(), {TopicPartition(settings.topics()["controls"], 0): 0}, on_batch)
    return states_after(found, settings.levels)


#: writes one after the other, each with what is said about it
Write = Callable[..., Awaitable[None]]


def writer_id(settings: Settings, topic: str) -> str:
    """Return the transactional id of whoever writes a topic of rules."""
    return f"{settings.prefix}deskrisk-writes-{topic}"


@contextlib.asynccontextmanager
async def one_writer(settings: Settings, topic: str) -> AsyncIterator[Write]:
    """Read and write a topic of rules as the only one: whoever began before can write no more.

    Of a write that got no answer it is found out whether it stands: once the next transaction is fenced off from it.

    Raises
    ------
    Raced
        Somebody else began after this one, and before it had written, or what was to be written was lost on its way;
        nothing of it is on the topic.
    """
    def fenced() -> TransactionalProducer:
        return settings.client().producer(transactional_id=writer_id(settings, topic))

    producer = fenced()
    await producer.start()

    async def write(records: Sequence[tuple[str, Any]], **said: str) -> None:
        nonlocal producer
        try:
            await commit(records, [(name, text.encode()) for name, text in said.items()])
        except Unanswered:
            await producer.stop()
            producer = fenced()
            await producer.start()
            if not await _stands(settings, topic, records):
                raise Raced(f"rev: what was written to {topic} was lost on its way") from None

    async def commit(records: Sequence[tuple[str, Any]], headers: list[tuple[str, bytes]]) -> None:
        sent = []
        try:
            async with producer.transaction():
                for key, record in records:
                    value = None if record is None else encode(record)
                    sent.append(await producer.send(settings.topics()[topic], value, key.encode(), 0, headers=headers))
        finally:  # of those that were cut off, too, somebody has to look at what became of them
            await asyncio.gather(*sent, return_exceptions=True)

    try:
        yield write
    except KafkaError as error:
        # the embedded broker has no name for it
        if isinstance(error, FENCED) or isinstance(error.__cause__, UnknownError):
            raise Raced(f"rev: somebody else wrote to {topic} at the same time") from error
        raise
    finally:
        with contextlib.suppress(*FENCED):
            await producer.stop()


async def _stands(settings: Settings, topic: str, records: Sequence[tuple[str, Any]]) -> bool:
    """Return whether records are the newest of their keys, byte for byte."""
    newest: dict[bytes | None, bytes | None] = {}

    def on_batch(batch: Any) -> None:
        newest.update(zip(batch.keys, batch.values, strict=True))

    await read_range(settings.client(), {TopicPartition(settings.topics()[topic], 0): 0}, on_batch)
    written = {key.encode(): None if record is None else encode(record) for key, record in records}
    return all(newest.get(key) == value for key, value in written.items())


async def unraced(write: Callable[[], Awaitable[T]]) -> T:
    """Do a write that reads first; one that lost a race reads again, and is judged by what it finds then."""
    for left in range(RACES_MAX, -1, -1):
        try:
            return await write()
        except Raced:
            if not left:
                raise
            await asyncio.sleep(random.uniform(*RACE_S))
    raise AssertionError


async def publish(settings: Settings, topic: str, key: str, record: Any, **said: str) -> None:
    """Write one record (None: take it away; ``said`` about it) and wait until the broker has it."""
    await publish_all(settings, topic, [(key, record)], **said)


async def publish_all(settings: Settings, topic: str, records: Sequence[tuple[str, Any]], **said: str) -> None:
    """Write records by key, as `publish` does each, and wait until the broker has all."""
    producer = settings.client().producer(enable_idempotence=True)
    await producer.start()
    try:
        headers = [(name, text.encode()) for name, text in said.items()]
        partition = None if topic == "alerts" else 0
        sent = [await producer.send(settings.topics()[topic], None if record is None else encode(record), key.encode(),
                                    partition, headers=headers) for key, record in records]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()
