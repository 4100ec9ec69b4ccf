"""Trades as columns: the scanner over joined messages, and the resolution of names to indices."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.interning import ABSENT, NameArrays, find_name, hash_bytes, hash_bytes_second, mix64
from models.jit import inline_kernel, kernel
from models.json_scan import (
    CLOSE,
    CLOSE_LIST,
    COLON,
    COMMA,
    OPEN,
    OPEN_LIST,
    QUOTE,
    REFUSED,
    is_null,
    read_number_value,
    read_timestamp,
    skip_scalar,
    skip_space,
    string_end,
)

# status of a record, in the order it moves through the stages
UNREAD, READ, APPLIED, LATE, DUPLICATE, FOREIGN, POISON = 0, 1, 2, 3, 4, 5, 6
UNKNOWN_ACCOUNT, UNKNOWN_INSTRUMENT, NOT_REPRESENTABLE, OVERFLOW, BAD_PRICE, ID_REUSED, REF_UNKNOWN = (
    10, 11, 12, 13, 14, 15, 16)
BAD_QUANTITY = 17

NEW, CORRECT, BUST = 0, 1, 2

TRADE_DTYPE = np.dtype([
    ("status", "i1"), ("side", "i1"), ("action", "i1"), ("quantity_scale", "i1"), ("price_scale", "i1"),
    ("message", "i4"), ("account_index", "i4"), ("instrument_index", "i4"),
    ("id_length", "i4"), ("account_length", "i4"), ("instrument_length", "i4"),
    ("id_start", "i8"), ("account_start", "i8"), ("instrument_start", "i8"),
    ("quantity", "i8"), ("price", "i8"), ("ts_event", "i8"), ("offset", "i8"), ("ts_source", "i8"), ("fee", "f8"),
    ("id_hash", "u8"), ("id_hash2", "u8"), ("ref_hash", "u8"), ("ref_hash2", "u8"),
    # what it says beside identity, quantity, price and time; what it did: the sequence numbers, plus 1, of the fill
    # that it put into the window, and of the one that it took out
    ("content", "u8"), ("fill", "i8"), ("taken", "i8"), ("taken_ts", "i8"), ("taken_slot", "i4"),
    # received at no cost: a price of 0 is meant; what it took back had left the window: the log knows it exactly
    ("free", "i1"), ("inexact", "i1"),
], align=True)
#: the content of a record that says nothing beside the columns of its fill; 0: not known
NO_CONTENT = np.uint64(1)

K_NONE, K_ID, K_ACCOUNT, K_INSTRUMENT, K_SIDE, K_QUANTITY, K_PRICE, K_TS, K_ACTION, K_TEXT, K_FEES, K_REF = range(12)
KEYS = {
    "trade_id": K_ID, "account": K_ACCOUNT, "instrument": K_INSTRUMENT, "side": K_SIDE, "quantity": K_QUANTITY,
    "price": K_PRICE, "ts_event": K_TS, "action": K_ACTION, "ref_trade_id": K_REF, "order_id": K_TEXT,
    "trader": K_TEXT, "counterparty": K_TEXT, "venue": K_TEXT, "fees": K_FEES,
}
_KEY_WIDTH = 16
_KEY_BYTES = np.zeros((len(KEYS), _KEY_WIDTH), np.uint8)
_KEY_LENGTHS = np.array([len(k) for k in KEYS], np.int64)
_KEY_KINDS = np.array(list(KEYS.values()), np.int64)
for _i, _k in enumerate(KEYS):
    _KEY_BYTES[_i, : len(_k)] = np.frombuffer(_k.encode(), np.uint8)
NAME_LENGTH_MAX = 128


@inline_kernel
def _combine(a: np.uint64, b: np.uint64) -> np.uint64:
    return mix64(a ^ ((b << np.uint64(23)) | (b >> np.uint64(41))))


@inline_kernel
def _kind_of_key(buf: np.ndarray, start: int, length: int) -> int:
    for k in range(_KEY_LENGTHS.shape[0]):
        if _KEY_LENGTHS[k] == length:
            same = True
            for i in range(length):
                if buf[start + i] != _KEY_BYTES[k, i]:
                    same = False
                    break
            if same:
                return _KEY_KINDS[k]
    return K_NONE


@inline_kernel
def _is_text(buf: np.ndarray, start: int, length: int, a: int, b: int, c: int) -> bool:
    """Compare case-sensitively with a three-letter word, or with its upper-case form."""
    if length != 3:
        return False
    if buf[start] == a and buf[start + 1] == b and buf[start + 2] == c:
        return True
    return buf[start] == a - 32 and buf[start + 1] == b - 32 and buf[start + 2] == c - 32


@inline_kernel
def _side_of(buf: np.ndarray, start: int, length: int) -> int:
    if _is_text(buf, start, length, 98, 117, 121):  # buy, BUY
        return 1
    if length == 4:
        lower = buf[start] == 115 and buf[start + 1] == 101 and buf[start + 2] == 108 and buf[start + 3] == 108
        upper = buf[start] == 83 and buf[start + 1] == 69 and buf[start + 2] == 76 and buf[start + 3] == 76
        if lower or upper:
            return -1
    return 0


@inline_kernel
def _empty_list(buf: np.ndarray, at: int, end: int) -> int:
    """Return the position after ``[]``, or REFUSED."""
    if at < end and buf[at] == OPEN_LIST:
        at = skip_space(buf, at + 1, end)
        if at < end and buf[at] == CLOSE_LIST:
            return at + 1
    return REFUSED


@inline_kernel
def _read_text(buf: np.ndarray, at: int, end: int, kind: int, row: np.ndarray, i: int) -> tuple[int, int]:
    """Read a text field; return (next position or REFUSED, the bit of a required field)."""
    if buf[at] != QUOTE:
        return REFUSED, 0
    start = at + 1
    close = string_end(buf, start, end)
    if close == REFUSED:
        return REFUSED, 0
    length = close - start
    if kind == K_TEXT:
        return close + 1, 0
    if kind == K_SIDE:
        side = _side_of(buf, start, length)
        row[i].side = side
        return (close + 1 if side != 0 else REFUSED), 1 << K_SIDE
    if kind == K_ACTION:
        # new; corrections and busts are rare and read the slow way
        is_new = length == 3 and buf[start] == 110 and buf[start + 1] == 101 and buf[start + 2] == 119
        return (close + 1 if is_new else REFUSED), 0
    if length == 0 or length > NAME_LENGTH_MAX:
        return REFUSED, 0
    if kind == K_ID:
        row[i].id_start, row[i].id_length = start, length
    elif kind == K_ACCOUNT:
        row[i].account_start, row[i].account_length = start, length
    else:
        row[i].instrument_start, row[i].instrument_length = start, length
    return close + 1, 1 << kind


@inline_kernel
def _read_field(buf: np.ndarray, at: int, end: int, kind: int, row: np.ndarray, i: int) -> tuple[int, int]:
    """Read the value of a key; return (next position or REFUSED, the bit of a required field)."""
    if kind == K_NONE:
        return skip_scalar(buf, at, end), 0
    if kind == K_QUANTITY:
        at, mantissa, scale = read_number_value(buf, at, end)
        row[i].quantity, row[i].quantity_scale = mantissa, scale
        return at, 1 << K_QUANTITY
    if kind == K_PRICE:
        at, mantissa, scale = read_number_value(buf, at, end)
        row[i].price, row[i].price_scale = mantissa, scale
        return at, 1 << K_PRICE
    if kind == K_TS:
        at, ts = read_timestamp(buf, at, end)
        row[i].ts_event = ts
        return at, 1 << K_TS
    if (kind == K_FEES or kind == K_REF or kind == K_TEXT) and is_null(buf, at, end):
        return at + 4, 0
    if kind == K_FEES:
        return _empty_list(buf, at, end), 0
    if kind == K_REF:
        return REFUSED, 0
    return _read_text(buf, at, end, kind, row, i)


@inline_kernel
def _scan_one(buf: np.ndarray, at: int, end: int, row: np.ndarray, i: int) -> bool:
    """Read one trade into ``row[i]``; False where msgspec has to read it."""
    at = skip_space(buf, at, end)
    if at >= end or buf[at] != OPEN:
        return False
    at += 1
    seen = 0
    row[i].action = NEW
    row[i].free = 0
    row[i].fee = 0.0
    row[i].ref_hash = 0
    row[i].ref_hash2 = 0
    row[i].content = NO_CONTENT
    while True:
        at = skip_space(buf, at, end)
        if at >= end or buf[at] != QUOTE:
            return False
        key_start = at + 1
        key_end = string_end(buf, key_start, end)
        if key_end == REFUSED:
            return False
        kind = _kind_of_key(buf, key_start, key_end - key_start)
        at = skip_space(buf, key_end + 1, end)
        if at >= end or buf[at] != COLON:
            return False
        at = skip_space(buf, at + 1, end)
        if at >= end:
            return False
        value = at + 1
        at, bit = _read_field(buf, at, end, kind, row, i)
        seen |= bit
        if kind == K_TEXT and at > value + 1 and buf[value - 1] == QUOTE:
            row[i].content += _combine(hash_bytes(buf, key_start, key_end - key_start),
                                       hash_bytes(buf, value, at - 1 - value))
        if at == REFUSED:
            return False
        at = skip_space(buf, at, end)
        if at >= end:
            return False
        if buf[at] == COMMA:
            at += 1
            continue
        if buf[at] == CLOSE:
            break
        return False
    required = ((1 << K_ID) | (1 << K_ACCOUNT) | (1 << K_INSTRUMENT) | (1 << K_SIDE) | (1 << K_QUANTITY)
                | (1 << K_PRICE) | (1 << K_TS))
    return skip_space(buf, at + 1, end) == end and (seen & required) == required


@kernel
def scan_trades(buf: np.ndarray, starts: np.ndarray, ends: np.ndarray, out: np.ndarray) -> int:
    """Read ``buf[starts[i]:ends[i]]`` into ``out[i]`` (TRADE_DTYPE); return how many are left UNREAD."""
    unread = 0
    for i in range(starts.shape[0]):
        out[i].message = i
        if _scan_one(buf, starts[i], ends[i], out, i):
            out[i].status = READ
        else:
            out[i].status = UNREAD
            unread += 1
    return unread


class ReferenceArrays(NamedTuple):
    """What kernels know of accounts and instruments, by index."""

    accounts: NameArrays
    instruments: NameArrays
    account_known: np.ndarray  # uint8
    account_partition: np.ndarray  # int32: owner partition by key
    instrument_known: np.ndarray  # uint8
    quantity_decimals: np.ndarray  # int8
    unit_value: np.ndarray  # float64: settlement currency per counted unit and 1.0 of price
    inverse: np.ndarray  # uint8
    price_any_sign: np.ndarray  # uint8


@kernel
def hash_id_pair(buf: np.ndarray, id_length: int) -> tuple[np.uint64, np.uint64]:
    """Return the 128-bit identity of a trade id (first ``id_length`` bytes) within an account (the rest)."""
    rest = buf.shape[0] - id_length
    h = _combine(hash_bytes(buf, 0, id_length), hash_bytes(buf, id_length, rest))
    return h, _combine(hash_bytes_second(buf, 0, id_length), hash_bytes_second(buf, id_length, rest))


@kernel
def resolve_trades(buf: np.ndarray, rows: np.ndarray, ref: ReferenceArrays) -> int:
    """Fill indices and identities of READ rows; unknown names get their status. Returns how many are unknown."""
    unknown = 0
    for i in range(rows.shape[0]):
        if rows[i].status != READ and rows[i].status != UNKNOWN_ACCOUNT and rows[i].status != UNKNOWN_INSTRUMENT:
            continue
        a_start, a_length = rows[i].account_start, rows[i].account_length
        h = hash_bytes(buf, a_start, a_length)
        account = find_name(ref.accounts, buf, a_start, a_length, h)
        n_start, n_length = rows[i].instrument_start, rows[i].instrument_length
        instrument = find_name(ref.instruments, buf, n_start, n_length, hash_bytes(buf, n_start, n_length))
        if account == ABSENT or ref.account_known[account] == 0:
            rows[i].status = UNKNOWN_ACCOUNT
            unknown += 1
            continue
        if instrument == ABSENT or ref.instrument_known[instrument] == 0:
            rows[i].status = UNKNOWN_INSTRUMENT
            unknown += 1
            continue
        rows[i].status = READ
        rows[i].account_index, rows[i].instrument_index = account, instrument
        i_start, i_length = rows[i].id_start, rows[i].id_length
        rows[i].id_hash = _combine(hash_bytes(buf, i_start, i_length), h)
        rows[i].id_hash2 = _combine(hash_bytes_second(buf, i_start, i_length),
                                    hash_bytes_second(buf, a_start, a_length))
    return unknown
