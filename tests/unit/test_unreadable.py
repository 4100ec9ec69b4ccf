"""A batch that cannot be read: what lies before it is handed out, then it is named; an operator may pass over it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition

from tables.exit_codes import ExitCode
from tables.records import KeptRecords, UnreadableBatch, drain, passed_over

TP = TopicPartition("trades", 2)
CODEC_AT, BASE_AT, CRC_AT, BODY_AT = 22, 0, 17, 61


def batch(base: int, count: int, compression: int = 0) -> bytearray:
    builder = DefaultRecordBatchBuilder(magic=2, compression_type=compression, is_transactional=False, producer_id=-1,
                                        producer_epoch=-1, base_sequence=-1, batch_size=1 << 20)
    for k in range(count):
        builder.append(k, timestamp=1_700_000_000_000, key=b"k", value=b"v" * 500, headers=[])
    made = bytearray(builder.build())
    made[:8] = struct.pack(">q", base)
    return made


def corrupt_body(made: bytearray) -> bytearray:
    made[BODY_AT:] = bytes(len(made) - BODY_AT)
    return made


def wrong_checksum(made: bytearray) -> bytearray:
    made[CRC_AT] ^= 0xFF
    return made


def unknown_codec(made: bytearray) -> bytearray:
    made[CODEC_AT] = made[CODEC_AT] & ~7 | 7
    return made


class Position:
    """What aiokafka keeps of an assigned partition."""

    def __init__(self, position: int) -> None:
        self.position, self.has_valid_position, self.highwater, self.paused = position, True, 100, False

    def consumed_to(self, position: int) -> None:
        self.position = position


def fetched(position: int, crcs: bool, *batches: bytes) -> tuple[FetchResult, Position]:
    state = Position(position)
    assignment: Any = SimpleNamespace(active=True, state_value=lambda tp: state)
    records = PartitionRecords(TP, KeptRecords(bytes(b"".join(batches))), [], position, None, None, crcs, 0)
    return FetchResult(TP, assignment=assignment, partition_records=records, backoff=0.0), state


@pytest.fixture(autouse=True)
def nothing_passed_over() -> Iterator[None]:
    yield
    passed_over.clear()


@pytest.mark.parametrize("keys", [True, False])
@pytest.mark.parametrize(("spoil", "compression", "crcs"), [
    (corrupt_body, 1, False), (corrupt_body, 4, False), (wrong_checksum, 0, True), (unknown_codec, 0, False)])
def test_a_batch_that_cannot_be_read_is_named_after_what_lies_before_it(spoil: Any, compression: int, crcs: bool,
                                                                        keys: bool) -> None:
    good, bad, after = batch(10, 3), spoil(batch(13, 2, compression)), batch(15, 4)
    result, state = fetched(10, crcs, good, bad, after)
    before = drain(result, TP, keys)
    assert before is not None and len(before) == 3 and before.next_offset == state.position == 13
    result, _ = fetched(13, crcs, bad, after)
    with pytest.raises(UnreadableBatch, match=r"trades 2@13: .* cannot be read") as raised:
        drain(result, TP, keys)
    assert raised.value.exit_code == ExitCode.UNREADABLE == 81
    passed_over.add(("trades", 2, 13))
    result, state = fetched(13, crcs, bad, after)
    found = drain(result, TP, keys)
    assert found is not None and found.offsets.tolist() == [15, 16, 17, 18] and state.position == 19
    assert [bytes(v) for v in found.values] == [b"v" * 500] * 4


@pytest.mark.parametrize("compression", range(5))
def test_every_codec_is_there(compression: int) -> None:
    found = drain(fetched(0, True, batch(0, 5, compression))[0], TP, True)
    assert found is not None and len(found) == 5
