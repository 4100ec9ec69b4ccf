"""A transactional producer that sends no request of a transaction twice.

aiokafka speaks the transaction protocol as it was before KIP-890: all transactions of a producer have one epoch, and a
request that got no answer (its connection was lost, its time ran out) is sent again on another connection. The first
one may still be on its way. One that arrives in the middle of the next transaction commits or aborts half of it, adds
to it what it does not have, or puts its offsets back: the broker cannot tell it from a request that belongs there.
Here the producer is done for instead. Whoever goes on does so with a new one, whose InitProducerId raises the epoch:
then the broker refuses whatever of the old one is still on its way.

A request that never left (no connection to the coordinator) and one that was answered, be it with an error, are sent
again as aiokafka does: nothing of them is on its way.
"""

from __future__ import annotations

from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.client import ConnectionGroup
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, NodeNotReadyError
from aiokafka.producer.sender import Sender
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    TxnOffsetCommitRequest,
)

from tables.exit_codes import ExitCode

#: requests that change a transaction; InitProducerId is not among them: one that comes late ends who is fenced by it
ONCE = (AddPartitionsToTxnRequest, AddOffsetsToTxnRequest, TxnOffsetCommitRequest, EndTxnRequest)
#: what says that a request has not left
_NOT_SENT = (NodeNotReadyError, IncompatibleBrokerVersion)


def owner_id(group: str, partition: int) -> str:
    """Return the transactional id of whoever owns a partition of positions: its fence, whoever that is."""
    return f"{group}-positions-{partition}"


class Unanswered(KafkaError):
    """A request of a transaction got no answer: whether the broker has it, or will have it, is not known."""

    exit_code = ExitCode.TRANSACTION


class _NoAnswer(Exception):
    """The same, on its way through aiokafka, which sends again after any error of Kafka's."""


class OnceSender(Sender):
    """aiokafka's sender, ended by a request of a transaction that gets no answer."""

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        self._send_again = client.send
        client.send = self._send_once

    async def _send_once(self, node_id: int, request: Any, *, group: ConnectionGroup = ConnectionGroup.DEFAULT) -> Any:
        try:
            return await self._send_again(node_id, request, group=group)
        except _NOT_SENT:
            raise
        except KafkaError as error:
            if not isinstance(request, ONCE):
                raise
            name = type(request).__name__.removesuffix("Request")
            raise _NoAnswer(f"{name} of {self._txn_manager.transactional_id}: no answer ({error}); it may still "
                            "arrive, which only a new producer is safe from") from error

    async def _sender_routine(self) -> None:
        try:
            await super()._sender_routine()
        except _NoAnswer as error:  # while it was told to end
            raise Unanswered(str(error)) from error.__cause__
        except KafkaError as error:
            if isinstance(error.__cause__, _NoAnswer):
                raise Unanswered(str(error.__cause__)) from error.__cause__.__cause__
            raise


class TransactionalProducer(AIOKafkaProducer):
    """aiokafka's producer with that sender; whatever waits for a transaction gets `Unanswered`."""

    _sender: Any

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self._txn_manager is None or self._txn_manager.transactional_id is None:
            raise ValueError("transactional_id: expected one")
        made = self._sender
        self._sender = OnceSender(
            self.client, acks=made._acks, txn_manager=self._txn_manager, message_accumulator=self._message_accumulator,
            retry_backoff_ms=made._retry_backoff * 1000, request_timeout_ms=made._request_timeout_ms)

    def _ensure_transactional(self) -> None:
        """Refuse what begins, continues or ends a transaction with the error that the producer was ended by."""
        super()._ensure_transactional()
        self._ensure_alive()

    async def send(self, *args: Any, **options: Any) -> Any:
        """Send a record, as aiokafka does."""
        self._ensure_alive()
        return await super().send(*args, **options)

    async def send_batch(self, *args: Any, **options: Any) -> Any:
        """Send a batch, as aiokafka does."""
        self._ensure_alive()
        return await super().send_batch(*args, **options)

    def _ensure_alive(self) -> None:
        # aiokafka would say that no transaction is open, or fail an assertion
        if self._txn_manager.is_fatal_error():
            self._txn_manager.wait_for_transaction_end().result()
