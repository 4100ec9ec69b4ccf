"""Names to small integers, looked up by kernels straight from message bytes.

A name is found by a 64-bit hash and confirmed byte by byte, so that two names never share an index.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.jit import inline_kernel, kernel

FNV_OFFSET = np.uint64(0xCBF29CE484222325)
FNV_PRIME = np.uint64(0x100000001B3)
MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
SECOND_SEED = np.uint64(0x9E3779B97F4A7C15)
SECOND_PRIME = np.uint64(0xD6E8FEB86659FD93)
SHIFT = np.uint64(33)
ABSENT = -1


@inline_kernel
def mix64(h: np.uint64) -> np.uint64:
    """Return ``h`` with every input bit spread over all output bits."""
    h = (h ^ (h >> SHIFT)) * MIX_1
    h = (h ^ (h >> SHIFT)) * MIX_2
    return h ^ (h >> SHIFT)


@inline_kernel
def hash_bytes(buf: np.ndarray, start: int, length: int) -> np.uint64:
    """Return a 64-bit hash of ``buf[start:start + length]``."""
    h = FNV_OFFSET
    for i in range(start, start + length):
        h = (h ^ np.uint64(buf[i])) * FNV_PRIME
    return mix64(h)


@inline_kernel
def hash_bytes_second(buf: np.ndarray, start: int, length: int) -> np.uint64:
    """Return a second hash, independent of `hash_bytes`: together they identify a trade id by 128 bits."""
    h = SECOND_SEED + np.uint64(length)
    for i in range(start, start + length):
        h = (h + np.uint64(buf[i]) + np.uint64(1)) * SECOND_PRIME
        h = h ^ (h >> np.uint64(29))
    return mix64(h)


class NameArrays(NamedTuple):
    """The columns of an `InternTable` that kernels read."""

    table: np.ndarray  # int32[power of two], index or ABSENT
    hashes: np.ndarray  # uint64[n]
    starts: np.ndarray  # int64[n] into arena
    lengths: np.ndarray  # int32[n]
    arena: np.ndarray  # uint8[]


@inline_kernel
def find_name(names: NameArrays, buf: np.ndarray, start: int, length: int, h: np.uint64) -> int:
    """Return the index of the name at ``buf[start:start + length]``, or ABSENT."""
    mask = np.uint64(names.table.shape[0] - 1)
    at = h & mask
    while True:
        index = names.table[at]
        if index == ABSENT:
            return ABSENT
        if names.hashes[index] == h and names.lengths[index] == length:
            first = names.starts[index]
            same = True
            for k in range(length):
                if names.arena[first + k] != buf[start + k]:
                    same = False
                    break
            if same:
                return index
        at = (at + np.uint64(1)) & mask


@kernel
def _insert(table: np.ndarray, h: np.uint64, index: int) -> None:
    mask = np.uint64(table.shape[0] - 1)
    at = h & mask
    while table[at] != ABSENT:
        at = (at + np.uint64(1)) & mask
    table[at] = index


@kernel
def hash_name(buf: np.ndarray) -> np.uint64:
    """Return the hash of a whole buffer (the Python side of `hash_bytes`)."""
    return hash_bytes(buf, 0, buf.shape[0])


@kernel
def hash_name_pair(buf: np.ndarray) -> tuple[np.uint64, np.uint64]:
    """Return both hashes of a whole buffer."""
    return hash_bytes(buf, 0, buf.shape[0]), hash_bytes_second(buf, 0, buf.shape[0])


class InternTable:
    """Names in order of first sight; an index never changes and never goes away."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.index: dict[str, int] = {}
        self._table = np.full(1024, ABSENT, np.int32)
        self._hashes = np.zeros(512, np.uint64)
        self._starts = np.zeros(512, np.int64)
        self._lengths = np.zeros(512, np.int32)
        self._arena = np.zeros(8192, np.uint8)
        self._used = 0

    def __len__(self) -> int:
        return len(self.names)

    def intern(self, name: str) -> int:
        """Return the index of a name, adding it if it is new."""
        found = self.index.get(name)
        if found is not None:
            return found
        raw = np.frombuffer(name.encode(), np.uint8)
        n = len(self.names)
        if n >= len(self._hashes):
            self._hashes = np.resize(self._hashes, 2 * n)
            self._starts = np.resize(self._starts, 2 * n)
            self._lengths = np.resize(self._lengths, 2 * n)
        while self._used + len(raw) > len(self._arena):
            self._arena = np.concatenate([self._arena, np.zeros_like(self._arena)])
        self._arena[self._used : self._used + len(raw)] = raw
        self._hashes[n] = hash_name(raw)
        self._starts[n] = self._used
        self._lengths[n] = len(raw)
        self._used += len(raw)
        self.names.append(name)
        self.index[name] = n
        if 2 * (n + 1) > len(self._table):
            self._table = np.full(4 * len(self._table), ABSENT, np.int32)
            for i in range(n):
                _insert(self._table, self._hashes[i], i)
        _insert(self._table, self._hashes[n], n)
        return n

    def arrays(self) -> NameArrays:
        """Return the columns for kernels; valid until the next `intern` of a new name."""
        return NameArrays(self._table, self._hashes, self._starts, self._lengths, self._arena)
