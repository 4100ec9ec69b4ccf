"""Ticks as columns: the JSON scanner and the resolution of names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from models.interning import ABSENT, NameArrays, find_name, hash_bytes
from models.jit import inline_kernel, kernel
from models.json_scan import (
    CLOSE,
    COLON,
    COMMA,
    OPEN,
    QUOTE,
    REFUSED,
    is_null,
    read_number_value,
    read_timestamp,
    skip_scalar,
    skip_space,
    string_end,
)
from models.record_scan import ByteRows
from schemas.codec import (
    TICK_BLOCK_HEADER,
    TICK_BLOCKS,
    TICK_WITHDRAWN,
    split_array,
    states_null,
    tick_decoder,
    unpack_ticks,
)
from schemas.reasons import QuarantineReason
from schemas.records import Tick
from schemas.refusal import reason_of
from schemas.units import TS_END, TS_MIN, decimal_parts, outside, parse_ts_ns

UNREAD, READ, POISON, UNKNOWN = 0, 1, 2, 3
QUOTE_DTYPE = np.dtype([
    ("status", "i4"), ("instrument_index", "i4"), ("name_start", "i8"), ("name_length", "i8"), ("bid", "f8"),
    ("ask", "f8"), ("last", "f8"), ("ts_event", "i8"), ("source", "u8"),
    # bid and ask are given, as null
    ("withdrawn", "i4"),
], align=True)
_POW10_F = 10.0 ** np.arange(19)
K_NONE, K_INSTRUMENT, K_BID, K_ASK, K_LAST, K_TS, K_SOURCE, K_SIZE = range(8)


@inline_kernel
def _kind(buf: np.ndarray, s: int, n: int) -> int:
    """Tell the key by its length and letters: bid ask last source ts_event instrument bid_size ask_size."""
    if n == 3 and buf[s] == 98 and buf[s + 1] == 105 and buf[s + 2] == 100:
        return K_BID
    if n == 3 and buf[s] == 97 and buf[s + 1] == 115 and buf[s + 2] == 107:
        return K_ASK
    if n == 4 and buf[s] == 108 and buf[s + 1] == 97 and buf[s + 2] == 115 and buf[s + 3] == 116:
        return K_LAST
    if n == 6 and buf[s] == 115 and buf[s + 1] == 111 and buf[s + 2] == 117 and buf[s + 3] == 114 \
            and buf[s + 4] == 99 and buf[s + 5] == 101:
        return K_SOURCE
    if n == 8 and buf[s] == 116 and buf[s + 1] == 115 and buf[s + 2] == 95 and buf[s + 3] == 101 \
            and buf[s + 4] == 118 and buf[s + 5] == 101 and buf[s + 6] == 110 and buf[s + 7] == 116:
        return K_TS
    if n == 8 and buf[s + 3] == 95 and buf[s + 4] == 115 and buf[s + 5] == 105:
        return K_SIZE  # bid_size, ask_size
    if n == 10 and buf[s] == 105 and buf[s + 1] == 110 and buf[s + 2] == 115 and buf[s + 3] == 116 \
            and buf[s + 4] == 114 and buf[s + 5] == 117 and buf[s + 6] == 109 and buf[s + 7] == 101 \
            and buf[s + 8] == 110 and buf[s + 9] == 116:
        return K_INSTRUMENT
    return K_NONE


@inline_kernel
def _scan_quote(buf: np.ndarray, at: int, end: int, out: np.ndarray, i: int) -> bool:
    out[i].bid = np.nan
    out[i].ask = np.nan
    out[i].last = np.nan
    out[i].source = 0
    out[i].name_length = 0
    out[i].ts_event = 0
    no_bid, no_ask = False, False
    at = skip_space(buf, at, end)
    if at >= end or buf[at] != OPEN:
        return False
    at += 1
    while True:
        at = skip_space(buf, at, end)
        if at >= end or buf[at] != QUOTE:
            return False
        key_start = at + 1
        key_end = string_end(buf, key_start, end)
        if key_end == REFUSED:
            return False
        kind = _kind(buf, key_start, key_end - key_start)
        at = skip_space(buf, key_end + 1, end)
        if at >= end or buf[at] != COLON:
            return False
        at = skip_space(buf, at + 1, end)
        if kind == K_TS:
            at, ts = read_timestamp(buf, at, end)
            out[i].ts_event = ts
        elif kind == K_INSTRUMENT:
            if at >= end or buf[at] != QUOTE:
                return False
            close = string_end(buf, at + 1, end)
            if close == REFUSED or close == at + 1 or close - at > 128:
                return False
            out[i].name_start, out[i].name_length = at + 1, close - at - 1
            at = close + 1
        elif kind == K_NONE:
            at = skip_scalar(buf, at, end)
        elif is_null(buf, at, end):
            at += 4
            if kind == K_BID:
                out[i].bid, no_bid = np.nan, True
            elif kind == K_ASK:
                out[i].ask, no_ask = np.nan, True
            elif kind == K_LAST:
                out[i].last = np.nan
        elif kind == K_SOURCE:
            if at >= end or buf[at] != QUOTE:
                return False
            close = string_end(buf, at + 1, end)
            if close == REFUSED:
                return False
            out[i].source = hash_bytes(buf, at + 1, close - at - 1)
            at = close + 1
        else:
            at, mantissa, scale = read_number_value(buf, at, end)
            value = mantissa / _POW10_F[scale]
            if kind == K_BID:
                out[i].bid, no_bid = value, False
            elif kind == K_ASK:
                out[i].ask, no_ask = value, False
            elif kind == K_LAST:
                out[i].last = value
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
    out[i].withdrawn = 1 if no_bid and no_ask else 0
    return skip_space(buf, at + 1, end) == end and out[i].ts_event > 0 and out[i].name_length > 0


@kernel
def scan_quotes(buf: np.ndarray, starts: np.ndarray, ends: np.ndarray, out: np.ndarray) -> int:
    """Read ``buf[starts[i]:ends[i]]`` into ``out[i]`` (QUOTE_DTYPE); return how many are left UNREAD."""
    unread = 0
    for i in range(starts.shape[0]):
        if _scan_quote(buf, starts[i], ends[i], out, i):
            out[i].status = READ
        else:
            out[i].status = UNREAD
            unread += 1
    return unread


@kernel
def resolve_quotes(buf: np.ndarray, rows: np.ndarray, names: NameArrays, known: np.ndarray) -> int:
    """Fill the instrument indices of READ rows; unknown names become UNKNOWN. Returns how many."""
    unknown = 0
    for i in range(rows.shape[0]):
        if rows[i].status != READ and rows[i].status != UNKNOWN:
            continue
        start, length = rows[i].name_start, rows[i].name_length
        index = find_name(names, buf, start, length, hash_bytes(buf, start, length))
        if index == ABSENT or known[index] == 0:
            rows[i].status = UNKNOWN
            unknown += 1
        else:
            rows[i].status = READ
            rows[i].instrument_index = index
    return unknown


@kernel
def resolve_packed(raw: np.ndarray, row_bytes: int, name_bytes: int, names: NameArrays, known: np.ndarray,
                   index: np.ndarray) -> int:
    """Find the instruments of packed ticks (``raw`` = rows as uint8); ABSENT where unknown. Returns how many."""
    unknown = 0
    for i in range(index.shape[0]):
        start = i * row_bytes
        length = 0
        while length < name_bytes and raw[start + length] != 0:
            length += 1
        found = find_name(names, raw, start, length, hash_bytes(raw, start, length))
        if found != ABSENT and known[found] == 0:
            found = ABSENT
        index[i] = found
        unknown += found == ABSENT
    return unknown


@dataclass
class DecodedQuotes:
    """A batch of ticks as columns, in log order, and what was refused: (message, reason, detail, raw)."""

    rows: np.ndarray
    unknown: int = 0
    latest_ns: int = TS_END - 1
    poison: list[tuple[int, QuarantineReason, str, bytes]] = field(default_factory=list)


def decode_quotes(values: Sequence[bytes | None], names: NameArrays, known: np.ndarray,
                  latest_ns: int = TS_END - 1) -> DecodedQuotes:
    """Return the columns of tick messages: JSON records, JSON arrays, packed blocks, in any mix.

    Parameters
    ----------
    latest_ns : the latest time that a tick may carry: a bound ahead of the clock that receives it
    """
    out = DecodedQuotes(np.zeros(0, QUOTE_DTYPE), latest_ns=latest_ns)
    if isinstance(values, ByteRows) and values.all_begin_with(ord("{"), len(values.buffer)):
        out.rows = _scanned_rows(values.buffer, values.starts, values.ends, values, range(len(values)), names, known,
                                 out)
        return out
    parts: list[np.ndarray] = []
    run: list[bytes] = []
    packed: list[bytes] = []
    places: list[int] = []  # messages of what is gathered in one of the two
    for m, value in enumerate(values):
        if value is None:
            out.poison.append((m, QuarantineReason.NULL_VALUE, "expected a tick, was null", b""))
        elif value[:4] in TICK_BLOCKS:
            if packed and packed[0][:4] != value[:4]:
                parts.append(_packed_rows(packed, places, names, known, out))
                packed, places = [], []
            if run:
                parts.append(_json_rows(run, places, names, known, out))
                run, places = [], []
            packed.append(value)
            places.append(m)
        else:
            try:
                found = [value] if value[:1] == b"{" else split_array(value)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                out.poison.append((m, QuarantineReason.NOT_JSON, str(error), value[:4096]))
                continue
            if packed:
                parts.append(_packed_rows(packed, places, names, known, out))
                packed, places = [], []
            run += found
            places += [m] * len(found)
    if run:
        parts.append(_json_rows(run, places, names, known, out))
    if packed:
        parts.append(_packed_rows(packed, places, names, known, out))
    if parts:
        out.rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return out


def _packed_rows(blocks: list[bytes], places: Sequence[int], names: NameArrays, known: np.ndarray,
                 out: DecodedQuotes) -> np.ndarray:
    ticks = _equal_blocks(blocks)
    if ticks is not None:
        messages = np.repeat(places, len(ticks) // len(blocks))
    else:
        good, counts = [], []
        for m, block in zip(places, blocks, strict=True):
            try:
                good.append(unpack_ticks(block))
                counts.append((m, len(good[-1])))
            except ValueError as error:
                out.poison.append((m, QuarantineReason.BAD_BINARY, str(error), block[:4096]))
        if not good:
            return np.zeros(0, QUOTE_DTYPE)
        ticks = np.concatenate(good)
        messages = np.repeat([m for m, _ in counts], [n for _, n in counts])
    rows = np.zeros(len(ticks), QUOTE_DTYPE)
    index = np.zeros(len(ticks), np.int32)
    raw = np.ascontiguousarray(ticks).view(np.uint8)
    rows["ts_event"] = ticks["ts_event"]
    resolve_packed(raw, ticks.dtype.itemsize, 24, names, known, index)
    rows["instrument_index"] = index
    rows["status"] = READ
    _refuse_times(rows, ticks, messages, out)
    unknown = (index == ABSENT) & (rows["status"] == READ)
    rows["status"][unknown] = UNKNOWN
    out.unknown += int(unknown.sum())
    for name in ("bid", "ask", "last"):
        rows[name] = ticks[name]
    if "flags" in (ticks.dtype.names or ()):
        rows["withdrawn"] = (ticks["flags"] & TICK_WITHDRAWN) != 0
        rows["bid"][rows["withdrawn"] != 0] = rows["ask"][rows["withdrawn"] != 0] = np.nan
    return rows


def _refuse_times(rows: np.ndarray, raws: Any, places: Sequence[int] | np.ndarray, out: DecodedQuotes) -> None:
    """Refuse the ticks whose time lies outside its bounds."""
    when = rows["ts_event"]
    for i in np.flatnonzero((rows["status"] == READ) & ((when < TS_MIN) | (when > out.latest_ns))).tolist():
        rows["status"][i] = POISON
        detail = outside(int(when[i]), "ts_event", int(when[i]), out.latest_ns)
        raw = raws[i]
        out.poison.append((int(places[i]), QuarantineReason.BAD_FIELD, detail,
                           raw if isinstance(raw, bytes) else raw.tobytes()))


def _equal_blocks(blocks: list[bytes]) -> np.ndarray | None:
    """Return the rows of well-formed blocks of one size at once, or None where they have to be read one by one."""
    size = len(blocks[0])
    joined = b"".join(blocks)
    if len(joined) != size * len(blocks) or set(map(len, blocks)) != {size} or size <= TICK_BLOCK_HEADER.size:
        return None
    magic = blocks[0][:4]
    count, rest = divmod(size - TICK_BLOCK_HEADER.size, TICK_BLOCKS[magic].itemsize)
    layout = np.dtype([("magic", "S4"), ("count", "<u4"), ("rows", TICK_BLOCKS[magic], (count,))])
    if rest or not count:
        return None
    found = np.frombuffer(joined, layout)
    if (found["magic"] != magic).any() or (found["count"] != count).any():
        return None
    return np.ascontiguousarray(found["rows"]).reshape(-1)


def _json_rows(raws: list[bytes], places: Sequence[int], names: NameArrays, known: np.ndarray,
               out: DecodedQuotes) -> np.ndarray:
    lengths = np.fromiter(map(len, raws), np.int64, len(raws))
    joined = b"".join(raws)
    ends = np.cumsum(lengths)
    return _scanned_rows(np.frombuffer(joined, np.uint8), ends - lengths, ends, raws, places, names, known, out)


def _scanned_rows(buffer: np.ndarray, starts: np.ndarray, ends: np.ndarray, raws: Sequence[Any], places: Sequence[int],
                  names: NameArrays, known: np.ndarray, out: DecodedQuotes) -> np.ndarray:
    rows = np.zeros(len(starts), QUOTE_DTYPE)
    if scan_quotes(buffer, starts, ends, rows):
        buffer = _read_slowly(raws, places, rows, buffer, out)
    _refuse_times(rows, raws, places, out)
    out.unknown += resolve_quotes(buffer, rows, names, known)
    return rows


def _read_slowly(raws: Sequence[Any], places: Sequence[int], rows: np.ndarray, buffer: np.ndarray,
                 out: DecodedQuotes) -> np.ndarray:
    extra = bytearray()
    base = len(buffer)
    for i in np.flatnonzero(rows["status"] == UNREAD).tolist():
        try:
            tick = tick_decoder.decode(raws[i])
            for name in ("bid", "ask", "last"):
                value = getattr(tick, name)
                if value is not None:
                    decimal_parts(value, name)
                rows[name][i] = np.nan if value is None else float(value)
            rows["ts_event"][i] = parse_ts_ns(tick.ts_event)
            rows["withdrawn"][i] = tick.bid is None and tick.ask is None and states_null(raws[i], "bid", "ask")
        except (msgspec.DecodeError, ValueError, ArithmeticError) as error:
            out.poison.append((places[i], *reason_of(error, raws[i], Tick), raws[i]))
            rows["status"][i] = POISON
            continue
        raw = tick.instrument.encode()
        rows["name_start"][i], rows["name_length"][i] = base + len(extra), len(raw)
        extra += raw
        rows["status"][i] = READ
    return np.concatenate([buffer, np.frombuffer(bytes(extra), np.uint8)]) if extra else buffer
