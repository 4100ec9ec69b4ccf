"""Reference data as it stands on the compacted topics, followed live."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from agents.ports import Counters
from models.reference import Reference
from schemas.codec import decoder_of
from schemas.records import Account, Instrument
from tables.kafka import KafkaClient
from tables.records import RecordBatch
from tables.tail import Tail

log = logging.getLogger(__name__)


class ReferenceTail:
    """Tails `reference.instruments` and `reference.accounts` into a `Reference`."""

    def __init__(self, client: KafkaClient, instruments_topic: str, accounts_topic: str, reference: Reference,
                 counters: Counters) -> None:
        self.reference = reference
        self._counters = counters
        self._instruments_topic = instruments_topic
        self._instrument_decoder = decoder_of(Instrument)
        self._account_decoder = decoder_of(Account)
        self._tail = Tail(client, [instruments_topic, accounts_topic], self._on_batch, wait_ms=500)
        self._task: asyncio.Task[None] | None = None
        self.on_account_moved: Callable[[str, str | None, str], None] = lambda account, old, new: None
        self.on_change: Callable[[Account | Instrument], None] = lambda record: None

    def _on_batch(self, batch: RecordBatch) -> None:
        for value in batch.values:
            if value is None:
                continue  # what is positioned in a withdrawn instrument keeps its terms
            try:
                if batch.topic == self._instruments_topic:
                    instrument = self._instrument_decoder.decode(value)
                    self.reference.add_instrument(instrument)
                    self.on_change(instrument)
                else:
                    account = self._account_decoder.decode(value)
                    old = self.reference.account_records.get(account.account)
                    self.reference.add_account(account)
                    if old is not None and old != account:
                        self.on_account_moved(account.account, old.fund, account.fund)
                    self.on_change(account)
            except (msgspec.DecodeError, ValueError) as error:
                self._counters.add("reference_refused")
                log.error("%s: record refused: %s", batch.topic, error)

    async def start(self) -> None:
        """Read everything there is, then follow."""
        await self._tail.start()
        await self._tail.read_to_end()
        self._task = self._tail.follow("reference tail")

    async def catch_up(self) -> None:
        """Wait until everything published by now has been read."""
        await self._tail.wait_until(await self._tail.ends())

    async def stop(self) -> None:
        """Disconnect."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._tail.stop()
