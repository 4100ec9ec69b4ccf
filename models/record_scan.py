"""Kafka record batches (format 2, not compressed) as columns: where each value lies, without an object a record.

Layout: KIP-98 (length, attributes, timestamp delta, offset delta, key, value, headers; all lengths are zigzag varints).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np

from models.jit import inline_kernel, kernel

#: what precedes the records of a batch; where its length, format, attributes and timestamps stand
HEADER_BYTES, LENGTH_AT, MAGIC_AT, ATTRIBUTES_AT, FIRST_TS_AT, LAST_TS_AT = 61, 8, 16, 21, 27, 35
COMPRESSION_MASK, APPEND_TIME = 0x07, 0x08


class ByteRows(Sequence["bytes | None"]):
    """Values within one buffer: what ``list[bytes | None]`` holds, without the objects.

    Parameters
    ----------
    buffer : uint8[bytes]
    starts, ends : int64[n]; an end before its start: no value
    """

    __slots__ = ("buffer", "ends", "starts")

    def __init__(self, buffer: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
        self.buffer, self.starts, self.ends = buffer, starts, ends

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, k: int) -> bytes | None: ...
    @overload
    def __getitem__(self, k: slice) -> ByteRows: ...
    def __getitem__(self, k: int | slice) -> bytes | ByteRows | None:
        if isinstance(k, slice):
            return ByteRows(self.buffer, self.starts[k], self.ends[k])
        start, end = self.starts[k], self.ends[k]
        return None if end < start else self.buffer[start:end].tobytes()

    def __iter__(self) -> Iterator[bytes | None]:
        return (self[k] for k in range(len(self)))

    @classmethod
    def of(cls, values: Sequence[bytes | None]) -> ByteRows:
        """Return values in one buffer: those that lie in one already as they are, others joined."""
        if isinstance(values, ByteRows):
            return values
        lengths = np.fromiter((-1 if v is None else len(v) for v in values), np.int64, len(values))
        ends = np.cumsum(np.maximum(lengths, 0))
        buffer = np.frombuffer(b"".join(v for v in values if v is not None), np.uint8)
        return cls(buffer, ends - lengths, ends)

    def pick(self, which: np.ndarray) -> list[bytes]:
        """Return some of the values, which are there."""
        raw = self.buffer.tobytes()  # one copy: slices of bytes cost a tenth of those of an array
        return [raw[a:b] for a, b in zip(self.starts[which].tolist(), self.ends[which].tolist(), strict=True)]

    def all_begin_with(self, byte: int, length_max: int) -> bool:
        """Whether every value is there, begins with a byte and is no longer than a bound."""
        lengths = self.ends - self.starts
        return bool(len(lengths)) and bool((lengths > 0).all() and (lengths <= length_max).all()
                                           and (self.buffer[self.starts] == byte).all())


@inline_kernel
def read_varint(buf: np.ndarray, at: int, end: int) -> tuple[int, int]:
    """Return (value, next position) of a zigzag varint; a position of -1 where it does not end."""
    shift, raw = 0, 0
    while at < end and shift < 64:
        b = int(buf[at])
        at += 1
        raw |= (b & 0x7F) << shift
        if b < 0x80:
            return (raw >> 1) ^ -(raw & 1), at
        shift += 7
    return 0, -1


@kernel
def scan_records(buf: np.ndarray, begin: int, end: int, starts: np.ndarray, ends: np.ndarray, offsets: np.ndarray,
                 stamps: np.ndarray) -> bool:
    """Fill where the values of one batch's records lie; False where a record has headers or is not whole.

    Parameters
    ----------
    begin, end : where the records lie in ``buf``
    starts, ends : int64[records]; a record without a value ends before it starts
    offsets, stamps : int64[records], relative to the batch's first offset and first time
    """
    at = begin
    for r in range(starts.shape[0]):
        length, at = read_varint(buf, at, end)
        if at < 0 or length < 0 or at + length > end:
            return False
        stop = at + length
        stamps[r], at = read_varint(buf, at + 1, stop)
        if at < 0:
            return False
        offsets[r], at = read_varint(buf, at, stop)
        if at < 0:
            return False
        size, at = read_varint(buf, at, stop)
        if at < 0:
            return False
        size, at = read_varint(buf, at + max(size, 0), stop)
        if at < 0 or at + max(size, 0) > stop:
            return False
        starts[r], ends[r] = at, at + size
        headers, at = read_varint(buf, at + max(size, 0), stop)
        if at != stop or headers != 0:
            return False
    return at == end
