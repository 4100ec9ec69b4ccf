"""Rows of positions as bytes: header, row, base, lots, laid out by kernels, for the changelog."""

from __future__ import annotations

import numpy as np

from models.fills import NO_LOT, POSITION_DTYPE, POSITION_DTYPE_1, LotPool, link_lots
from models.jit import hot_kernel, inline_kernel, kernel
from models.position_window import PositionArrays

#: version of a packed row; one that is not known is refused, never guessed
ROW_VERSION = 2
HEADER_DTYPE = np.dtype([("version", "u1"), ("based", "u1"), ("spare", "u2"), ("lots", "u4"), ("base_lots", "u4"),
                         ("slot", "u4")])
#: a sequence number and what belongs to it, behind the fills of a block
PAIR_DTYPE = np.dtype([("seq", "i8"), ("flags", "i8")])
#: what stands for no fill at all: more bytes behind the fills of a block, eight in each pair
OTHER_TAIL = -(1 << 62)
PACKED_LOT_DTYPE = np.dtype([("quantity", "i8"), ("price", "f8")])
ROW_BYTES = POSITION_DTYPE.itemsize
_DTYPES = {1: POSITION_DTYPE_1, ROW_VERSION: POSITION_DTYPE}
HEADER_BYTES = HEADER_DTYPE.itemsize
LOT_BYTES = PACKED_LOT_DTYPE.itemsize


@kernel
def packed_sizes(st: PositionArrays, slots: np.ndarray, sizes: np.ndarray) -> int:
    """Fill the packed size of each row, bytes; return their sum."""
    total = 0
    for k in range(slots.shape[0]):
        s = slots[k]
        size = HEADER_BYTES + ROW_BYTES + LOT_BYTES * st.rows[s].lot_count
        if st.rows[s].based != 0:
            size += ROW_BYTES + LOT_BYTES * st.base[s].lot_count
        sizes[k] = size
        total += size
    return total


@inline_kernel
def _put_lots(pool: LotPool, rows: np.ndarray, s: int, target: np.ndarray, at: int) -> int:
    index = rows[s].lot_head
    while index != NO_LOT:
        target[at].quantity = pool.lots[index].quantity
        target[at].price = pool.lots[index].price
        at += 1
        index = pool.lots[index].next
    return at


@kernel
def collect_lots(st: PositionArrays, slots: np.ndarray, target: np.ndarray) -> None:
    """Lay the lots of rows (and of their bases) out one after the other."""
    at = 0
    for k in range(slots.shape[0]):
        at = _put_lots(st.pool, st.rows, slots[k], target, at)
        if st.rows[slots[k]].based != 0:
            at = _put_lots(st.pool, st.base, slots[k], target, at)


@hot_kernel
def _put_bytes(source: np.ndarray, start: int, count: int, target: np.ndarray, at: int) -> int:
    for i in range(count):
        target[at + i] = source[start + i]
    return at + count


@kernel
def assemble(slots: np.ndarray, sizes: np.ndarray, headers: np.ndarray, rows: np.ndarray, bases: np.ndarray,
             based: np.ndarray, lots: np.ndarray, out: np.ndarray) -> None:
    """Interleave headers, rows, bases and lots (all uint8) into packed values."""
    at = 0
    lot_at = 0
    for k in range(slots.shape[0]):
        end = at + sizes[k]
        at = _put_bytes(headers, k * HEADER_BYTES, HEADER_BYTES, out, at)
        at = _put_bytes(rows, k * ROW_BYTES, ROW_BYTES, out, at)
        if based[k]:
            at = _put_bytes(bases, k * ROW_BYTES, ROW_BYTES, out, at)
        lot_bytes = end - at
        at = _put_bytes(lots, lot_at, lot_bytes, out, at)
        lot_at += lot_bytes


@kernel
def unpack_rows(st: PositionArrays, rows: np.ndarray, bases: np.ndarray, headers: np.ndarray,
                lots: np.ndarray) -> None:
    """Put unpacked rows at their slots and link their lots (``lots`` lies in the order of the rows)."""
    at = 0
    for k in range(headers.shape[0]):
        s = headers[k].slot
        st.rows[s] = rows[k]
        st.base[s] = bases[k]
        own = headers[k].lots
        link_lots(st.pool, st.rows, s, lots[at : at + own])
        at += own
        link_lots(st.pool, st.base, s, lots[at : at + headers[k].base_lots])
        at += headers[k].base_lots


def read_rows(values: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[bytes], list[bytes]]:
    """Return headers, rows, bases, and the lots and the tail of each packed value.

    Raises
    ------
    ValueError
        If a row has a version that is not known: it is never read by guess.
    """
    n = len(values)
    headers = np.frombuffer(b"".join([v[:HEADER_BYTES] for v in values]), HEADER_DTYPE)
    if n and not np.isin(headers["version"], list(_DTYPES)).all():
        found = sorted(set(headers["version"].tolist()))
        raise ValueError(f"packed row: expected version 1 or {ROW_VERSION}, was {found}")
    rows, bases = np.zeros(n, POSITION_DTYPE), np.zeros(n, POSITION_DTYPE)
    lots: list[bytes] = []
    tails: list[bytes] = []
    for k, value in enumerate(values):
        dtype = _DTYPES[int(headers["version"][k])]
        at = HEADER_BYTES + dtype.itemsize
        _copy(np.frombuffer(value, dtype, 1, HEADER_BYTES), rows, k)
        if headers["based"][k]:
            _copy(np.frombuffer(value, dtype, 1, at), bases, k)
            at += dtype.itemsize
            if headers["version"][k] == 1:
                _settle(rows, bases, k)
        end = at + LOT_BYTES * int(headers["lots"][k] + headers["base_lots"][k])
        lots.append(value[at:end])
        tails.append(value[end:])
    return headers, rows, bases, lots, tails


def _copy(source: np.ndarray, target: np.ndarray, k: int) -> None:
    if source.dtype == target.dtype:
        target[k] = source[0]
        return
    for name in source.dtype.names or ():
        target[name][k] = source[name][0]


def _settle(rows: np.ndarray, bases: np.ndarray, k: int) -> None:
    """Say in a base of version 1, which did not, up to where it reaches: it holds the statement that began the day."""
    rolled = rows["rolled"][k] != 0
    bases["stated_ts"][k] = stated = int((bases if rolled else rows)["opening_ts"][k])
    for name in ("horizon_ts", "filled_ts", "last_ts_event"):
        bases[name][k] = max(stated - 1, 0)
    bases["late_trades"][k] = rows["late_trades"][k]
    for name in ("opening_quantity", "opening_price", "opening_realised_pnl"):
        bases[name][k] = rows[name][k]
    bases["opening_fees"][k] = 0.0
    bases["rolled"][k] = rows["opening_ts"][k] != 0
