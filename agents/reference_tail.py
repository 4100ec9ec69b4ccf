"""Reference data and corporate actions as they stand on the compacted topics, followed live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from aiokafka.structs import TopicPartition

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
        #: records whose newest version under their key was refused: compaction would leave that one alone
        self._displaced: dict[tuple[str, str], None] = {}
        #: what was handed out of those, until a good record of the key comes: nobody answers himself for ever
        self._handed_out: set[tuple[str, str]] = set()
        router = Router(names, counters, "reference_refused", self._refused)
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
        #: the record that is being refused is answered by `on_contract_refused`
        self._other_contract = False
        self.on_change: Callable[[Account | Instrument], None] = lambda record: None

    def _on_instrument(self, instrument: Instrument, _: Place) -> None:
        try:
            self.reference.add_instrument(instrument)
        except ContractChangedError as error:
            self._other_contract = True
            self.on_contract_refused(error.standing)
            raise
        self._stands("reference.instruments", instrument.instrument)
        self.on_change(instrument)

    def _on_action(self, record: CorporateAction, place: Place) -> None:
        self.reference.add_action(record)
        self._stands("corporate.actions", action_key(record).decode())
        self.on_action(record, place)

    def _no_action(self, place: Place) -> None:
        instrument, _, action_id = place.key.partition("|")
        self._stands("corporate.actions", place.key)
        self.reference.withdraw_action(instrument, action_id)
        self.on_action(None, place)

    def _on_account(self, account: Account, _: Place) -> None:
        old = self.reference.account_records.get(account.account)
        self.reference.add_account(account)
        self._stands("reference.accounts", account.account)
        if old is not None and old != account:
            self.on_account_moved(account.account, old.fund, account.fund)
        self.on_change(account)

    def _refused(self, batch: RecordBatch, k: int, reason: QuarantineReason, detail: str, raw: bytes) -> None:
        key, contract, self._other_contract = batch.keys[k] if batch.keys else None, self._other_contract, False
        at = self._names[batch.topic], (key or b"").decode(errors="replace")
        if not contract and at not in self._handed_out and self._standing(*at) is not None:
            self._displaced[at] = None
        if self._put_aside is not None:
            self._put_aside(batch, k, reason, detail, raw)

    def displaced(self) -> list[tuple[str, bytes, bytes]]:
        """Return topic, key and value of what stands though the newest record of its key was refused, each once."""
        out = [(topic, key.encode(), value) for topic, key in self._displaced
               if (value := self._standing(topic, key)) is not None]
        self._handed_out.update(self._displaced)
        self._displaced.clear()
        return out

    def _stands(self, topic: str, key: str) -> None:
        self._displaced.pop((topic, key), None)
        self._handed_out.discard((topic, key))

    def _standing(self, topic: str, key: str) -> bytes | None:
        if topic == "reference.instruments":
            instrument = self.reference.instrument_records.get(key)
            return None if instrument is None else encode(instrument)
        if topic == "reference.accounts":
            account = self.reference.account_records.get(key)
            return None if account is None else encode_account(account)
        name, _, action_id = key.partition("|")
        action = self.reference.actions.find(name, action_id)
        return None if action is None else encode(action)

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
