"""Reference data and corporate actions as they stand on the compacted topics, followed live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from aiokafka.structs import TopicPartition

from agents.ports import Counters
from agents.router import Place, PutAside, Router
from models.reference import ContractChangedError, Reference
from schemas.corporate import CorporateAction
from schemas.records import Account, Instrument
from tables.kafka import KafkaClient
from tables.tail import Tail


class ReferenceTail:
    """Tails `reference.instruments`, `reference.accounts` and `corporate.actions` into a `Reference`."""

    def __init__(self, client: KafkaClient, topics: Mapping[str, str], reference: Reference, counters: Counters,
                 put_aside: PutAside | None = None) -> None:
        self.reference = reference
        names = {topics[name]: name for name in ("reference.instruments", "reference.accounts", "corporate.actions")}
        router = Router(names, counters, "reference_refused", put_aside)
        # what is positioned in a withdrawn instrument keeps its terms: withdrawals have no handler
        router.subscribe("reference.instruments", Instrument, self._on_instrument)
        router.subscribe("reference.accounts", Account, self._on_account)
        router.subscribe("corporate.actions", CorporateAction, self._on_action, self._no_action)
        self._tail = Tail(client, list(names), router, wait_ms=500)
        self._task: asyncio.Task[None] | None = None
        self.on_account_moved: Callable[[str, str | None, str], None] = lambda account, old, new: None
        #: told the record that goes on to hold when one makes another contract of what is held
        self.on_contract_refused: Callable[[Instrument], None] = lambda standing: None
        #: told each corporate action, or None for one that was withdrawn
        self.on_action: Callable[[CorporateAction | None, Place], None] = lambda record, place: None
        self.on_change: Callable[[Account | Instrument], None] = lambda record: None

    def _on_instrument(self, instrument: Instrument, _: Place) -> None:
        try:
            self.reference.add_instrument(instrument)
        except ContractChangedError as error:
            self.on_contract_refused(error.standing)
            raise
        self.on_change(instrument)

    def _on_action(self, record: CorporateAction, place: Place) -> None:
        self.reference.add_action(record)
        self.on_action(record, place)

    def _no_action(self, place: Place) -> None:
        instrument, _, action_id = place.key.partition("|")
        self.reference.withdraw_action(instrument, action_id)
        self.on_action(None, place)

    def _on_account(self, account: Account, _: Place) -> None:
        old = self.reference.account_records.get(account.account)
        self.reference.add_account(account)
        if old is not None and old != account:
            self.on_account_moved(account.account, old.fund, account.fund)
        self.on_change(account)

    async def start(self) -> None:
        """Read everything there is, then follow."""
        await self._tail.start()
        await self._tail.read_to_end()
        self._task = self._tail.follow("reference tail")

    def positions(self) -> dict[TopicPartition, int]:
        """Return the next offset of each partition that is followed."""
        return dict(self._tail.positions)

    async def catch_up(self) -> None:
        """Wait until everything published by now has been read."""
        await self._tail.wait_until(await self._tail.ends())

    async def stop(self) -> None:
        """Disconnect."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._tail.stop()
