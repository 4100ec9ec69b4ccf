"""Reference data and corporate actions as they stand on the compacted topics, followed live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from aiokafka.structs import TopicPartition

from agents.displaced import Displaced
from agents.ports import Counters
from agents.router import Place, PutAside, Router
from models.reference import ContractChangedError, Reference
from schemas.codec import encode, encode_account
from schemas.corporate import CorporateAction
from schemas.keys import action_key
from schemas.reasons import QuarantineReason
from schemas.records import Account, Instrument
from tables.kafka import KafkaClient
from tables.records import RecordBatch
from tables.tail import Tail


class ReferenceTail:
    """Tails `reference.instruments`, `reference.accounts` and `corporate.actions` into a `Reference`."""

    def __init__(self, client: KafkaClient, topics: Mapping[str, str], reference: Reference, counters: Counters,
                 put_aside: PutAside | None = None) -> None:
        self.reference = reference
        names = {topics[name]: name for name in ("reference.instruments", "reference.accounts", "corporate.actions")}
        self._put_aside = put_aside
        self._names = names
        self.displaced = Displaced({"reference.instruments": self._instrument, "reference.accounts": self._account,
                                    "corporate.actions": self._action})
        router = Router(names, counters, "reference_refused", self._refused)
        router.subscribe("reference.instruments", Instrument, self._on_instrument, self._withdrawn)
        router.subscribe("reference.accounts", Account, self._on_account, self._withdrawn)
        router.subscribe("corporate.actions", CorporateAction, self._on_action, self._no_action)
        self._router = router
        self._tail = Tail(client, list(names), self._take, wait_ms=500)
        self._task: asyncio.Task[None] | None = None
        self.on_account_moved: Callable[[str, str | None, str], None] = lambda account, old, new: None
        #: told the record that goes on to hold when one makes another contract of what is held
        self.on_contract_refused: Callable[[Instrument], None] = lambda standing: None
        #: told that a batch was taken in whole: what costs a look at every position is done once for all of its records
        self.on_read: Callable[[], None] = lambda: None
        #: told that a corporate action came, or was withdrawn
        self.on_action: Callable[[], None] = lambda: None
        #: the record that is being refused is answered by `on_contract_refused`
        self._other_contract = False
        self.on_change: Callable[[Account | Instrument], None] = lambda record: None

    def _take(self, batch: RecordBatch) -> None:
        self._router(batch)
        self.on_read()

    def _withdrawn(self, place: Place) -> None:
        """Note it, no more: what is positioned in a withdrawn instrument, or account, keeps its terms."""
        self.displaced.gone(place.topic, place.key)

    def _on_instrument(self, instrument: Instrument, place: Place) -> None:
        try:
            self.reference.add_instrument(instrument)
        except ContractChangedError as error:
            self._other_contract = True
            self.on_contract_refused(error.standing)
            raise
        self.displaced.came(place.topic, place.key, instrument.instrument)
        self.on_change(instrument)

    def _on_action(self, record: CorporateAction, place: Place) -> None:
        self.reference.add_action(record)
        self.displaced.came(place.topic, place.key, action_key(record).decode())
        self.on_action()

    def _no_action(self, place: Place) -> None:
        instrument, _, action_id = place.key.partition("|")
        self.displaced.gone(place.topic, place.key)
        self.reference.withdraw_action(instrument, action_id)
        self.on_action()

    def _on_account(self, account: Account, place: Place) -> None:
        old = self.reference.account_records.get(account.account)
        self.reference.add_account(account)
        self.displaced.came(place.topic, place.key, account.account)
        if old is not None and old != account:
            self.on_account_moved(account.account, old.fund, account.fund)
        self.on_change(account)

    def _refused(self, batch: RecordBatch, k: int, reason: QuarantineReason, detail: str, raw: bytes) -> None:
        key, contract, self._other_contract = batch.keys[k] if batch.keys else None, self._other_contract, False
        if not contract:
            self.displaced.refused(self._names[batch.topic], (key or b"").decode(errors="replace"), detail)
        if self._put_aside is not None:
            self._put_aside(batch, k, reason, detail, raw)

    def _instrument(self, key: str) -> bytes | None:
        record = self.reference.instrument_records.get(key)
        return None if record is None else encode(record)

    def _account(self, key: str) -> bytes | None:
        record = self.reference.account_records.get(key)
        return None if record is None else encode_account(record)

    def _action(self, key: str) -> bytes | None:
        name, _, action_id = key.partition("|")
        record = self.reference.actions.find(name, action_id)
        return None if record is None else encode(record)

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
