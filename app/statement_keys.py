"""Statements under keys of their own, on a stopped or a new installation; a stage that starts does so for its own."""

from __future__ import annotations

from agents.statement_keys import Found
from agents.statement_keys import find_shared_keys as find
from app.settings import Settings


async def find_shared_keys(settings: Settings) -> Found:
    """Return what `positions.external` holds."""
    return await find(settings.client(), settings.topics()["positions.external"], range(settings.partitions))


async def rekey_statements(settings: Settings) -> int:
    """Write statements that are under shared keys again, then withdraw those keys; return how many were written.

    It may be run at any time, and again: whoever folds a statement twice folds it once.
    """
    moves = (await find_shared_keys(settings)).moves(settings.partitions)
    if not moves:
        return 0
    topic = settings.topics()["positions.external"]
    producer = settings.client().producer(enable_idempotence=True)
    await producer.start()
    try:
        for key, value, partition in moves:
            await producer.send_and_wait(topic, value, key, partition)
    finally:
        await producer.stop()
    return sum(value is not None for _, value, _ in moves)
