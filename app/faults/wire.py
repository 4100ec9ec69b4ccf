"""As much of Kafka's protocol as faults need: heads of requests, the codes of an answer, an answer that refuses."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from io import BytesIO
from typing import Any

from aiokafka.protocol.api import RequestStruct
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
    TxnOffsetCommitRequest,
)
from aiokafka.protocol.types import Array, Bytes, Schema, String

_HEAD = struct.Struct(">hhih")


class Api(IntEnum):
    """Requests by their key."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    API_VERSIONS = 18
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28


_NAMES = {int(api): api.name for api in Api}
#: what aiokafka speaks of the requests whose answers are read or made up here
_SPOKEN: dict[tuple[int, int], type[RequestStruct]] = {
    (spoken.API_KEY, spoken.API_VERSION): spoken
    for request in (ProduceRequest, FetchRequest, OffsetRequest, OffsetCommitRequest, OffsetFetchRequest,
                    FindCoordinatorRequest, JoinGroupRequest, HeartbeatRequest, LeaveGroupRequest, SyncGroupRequest,
                    InitProducerIdRequest, AddPartitionsToTxnRequest, AddOffsetsToTxnRequest, EndTxnRequest,
                    TxnOffsetCommitRequest)
    for spoken in request._CLASSES}


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request, and its bytes."""

    api: int
    version: int
    correlation: int
    client: str
    frame: bytes

    @classmethod
    def of(cls, frame: bytes) -> Head:
        """Read the head of a request."""
        api, version, correlation, length = _HEAD.unpack_from(frame)
        client = frame[_HEAD.size : _HEAD.size + max(length, 0)].decode(errors="replace")
        return cls(api, version, correlation, client, frame)

    @property
    def name(self) -> str:
        """Return the name of the request."""
        return _NAMES.get(self.api, f"API_{self.api}")

    @property
    def body(self) -> bytes:
        """Return what follows the head."""
        length = _HEAD.unpack_from(self.frame)[3]
        return self.frame[_HEAD.size + max(length, 0) :]


#: requests that begin with a transactional id, from this version on
_OF_TRANSACTIONS: dict[int, int] = {Api.PRODUCE: 3, Api.INIT_PRODUCER_ID: 0, Api.ADD_PARTITIONS_TO_TXN: 0,
                                    Api.ADD_OFFSETS_TO_TXN: 0, Api.END_TXN: 0, Api.TXN_OFFSET_COMMIT: 0}


def transactional_id(head: Head) -> str:
    """Return the transactional id that a request names, or nothing; of the forms that aiokafka speaks."""
    since = _OF_TRANSACTIONS.get(head.api)
    if since is None or head.version < since or (head.api, head.version) not in _SPOKEN:
        return ""
    (length,) = struct.unpack_from(">h", head.body)
    return head.body[2 : 2 + max(length, 0)].decode()


def spoken(head: Head) -> type[RequestStruct]:
    """Return the form of a request.

    Raises
    ------
    ValueError
        It is none whose answer is known here.
    """
    found = _SPOKEN.get((head.api, head.version))
    if found is None or found.FLEXIBLE_VERSION:
        raise ValueError(f"{head.name} version {head.version}: no answer is made up for it")
    return found


def codes_of(head: Head, answer: bytes) -> list[int]:
    """Return the error codes in an answer, 0 for what went well; nothing where its form is not known here."""
    form = _SPOKEN.get((head.api, head.version))
    if form is None or form.FLEXIBLE_VERSION:
        return []
    return list(_codes(form.RESPONSE_TYPE.decode(BytesIO(answer[4:])).to_object()))


def refusal(head: Head, code: int) -> bytes:
    """Return the answer that refuses all of a request with an error code."""
    form = spoken(head)
    asked = form.decode(BytesIO(head.body)).to_object().get("topics", [])
    topics = [(next(v for k, v in t.items() if k.startswith("topic")),
               [p["partition"] if isinstance(p, dict) else p for p in t["partitions"]]) for t in asked]
    answer = form.RESPONSE_TYPE(*_refused(form.RESPONSE_TYPE.SCHEMA, code, topics))
    return struct.pack(">i", head.correlation) + answer.encode()


def _codes(found: Any) -> Iterator[int]:
    for name, value in found.items():
        if name == "error_code":
            yield value
        elif isinstance(value, list):
            for inner in value:
                if isinstance(inner, dict):
                    yield from _codes(inner)


def _refused(schema: Schema, code: int, topics: list[tuple[str, list[int]]]) -> list[Any]:
    """Return the fields of an answer; a code of single partitions stands with them alone."""
    by_partition = any(isinstance(f, Array) and isinstance(f.array_of, Schema) and "topic" in f.array_of.names[0]
                       for f in schema.fields)
    out: list[Any] = []
    for name, kind in zip(schema.names, schema.fields, strict=True):
        if name == "error_code":
            out.append(0 if by_partition else code)
        elif isinstance(kind, Array):
            inner = kind.array_of
            lists = isinstance(inner, Schema) and "topic" in inner.names[0]
            out.append([(topic, [tuple(_partition(inner.fields[1].array_of, p, code)) for p in partitions])
                        for topic, partitions in topics] if lists else [])
        else:
            out.append(_nothing(name, kind))
    return out


def _partition(schema: Schema, partition: int, code: int) -> Iterator[Any]:
    for name, kind in zip(schema.names, schema.fields, strict=True):
        if name == "partition":
            yield partition
        elif name == "error_code":
            yield code
        else:
            yield [] if isinstance(kind, Array) else _nothing(name, kind)


def _nothing(name: str, kind: Any) -> Any:
    """Return what stands in a field that says nothing."""
    if name == "throttle_time_ms":
        return 0
    if isinstance(kind, String):
        return ""
    return b"" if kind is Bytes or isinstance(kind, Bytes) else -1
