"""Record batches read as columns: what aiokafka's own reader sees, byte for byte; what is odd goes the slow way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from tables.records import KeptRecords, drain

TP = TopicPartition("t", 0)


def batch(rows: list[tuple[int, int, bytes | None, bytes | None, list[Any]]], base: int, compression: int = 0) -> bytes:
    """Return one record batch: rows of (offset delta, ms, key, value, headers)."""
    builder = DefaultRecordBatchBuilder(2, compression, False, -1, -1, -1, 1 << 24)
    for delta, ms, key, value, headers in rows:
        assert builder.append(delta, ms, key, value, headers) is not None
    raw = bytearray(builder.build())
    raw[0:8] = base.to_bytes(8, "big")
    return bytes(raw)


def read(data: bytes, position: int, with_keys: bool) -> Any:
    """Return what the drained slice of these bytes is."""
    records = SimpleNamespace(_records=KeptRecords(data), next_fetch_offset=position, _check_crcs=False, _isolation_level=0,
                              _records_iterator=None)
    result = SimpleNamespace(_partition_records=records, check_assignment=lambda tp: True, has_more=lambda: True,
                             _update_position=lambda: None)
    return drain(result, TP, with_keys)  # type: ignore[arg-type]


row = st.tuples(st.one_of(st.none(), st.binary(max_size=20)), st.one_of(st.none(), st.binary(max_size=300)), st.integers(0, 10**6))


@given(st.lists(st.lists(row, min_size=1, max_size=30), min_size=1, max_size=4), st.integers(0, 40), st.booleans())
def test_columns_equal_objects(batches: list[list[Any]], skip: int, gaps: bool) -> None:
    """Nulls, gaps of compaction, a position amid a batch: the same values, offsets and times."""
    data, base = b"", 1_000
    for rows in batches:
        step = 2 if gaps else 1
        data += batch([(k * step, 1_700_000_000_000 + ms, key, value, []) for k, (key, value, ms) in enumerate(rows)], base)
        base += (len(rows) - 1) * step + 1
    fast, slow = read(data, 1_000 + skip, False), read(data, 1_000 + skip, True)
    assert skip or len(slow.values) == sum(map(len, batches))
    assert list(fast.values) == slow.values and fast.offsets.tolist() == slow.offsets.tolist()
    assert fast.timestamps_ms.tolist() == slow.timestamps_ms.tolist() and fast.next_offset == slow.next_offset
    assert not isinstance(fast.values, list), "the fast way was taken"


@pytest.mark.parametrize("odd", ["headers", "gzip"])
def test_what_is_odd_goes_the_slow_way(odd: str) -> None:
    headers = [("h", b"1")] if odd == "headers" else []
    data = batch([(0, 5, None, b"a", []), (1, 6, b"k", b"b", headers)], 7, 1 if odd == "gzip" else 0)
    found = read(data, 7, False)
    assert found.values == [b"a", b"b"] and found.offsets.tolist() == [7, 8]
    assert found.headers == ({1: [("h", b"1")]} if odd == "headers" else {})


def test_a_torn_batch_is_never_read_in_part() -> None:
    """A record whose length points beyond the batch: refused as a whole, not cut off."""
    from models import record_scan as rs

    data = np.frombuffer(batch([(0, 5, None, b"abc", [])], 0), np.uint8).copy()
    columns = np.empty((4, 1), np.int64)
    assert rs.scan_records(data, rs.HEADER_BYTES, len(data), *columns)
    data[rs.HEADER_BYTES] = 120
    assert not rs.scan_records(data, rs.HEADER_BYTES, len(data), *columns)
