"""Records of the `positions` topic to columns: read by a kernel, field by field in the order our encoder writes them.

The template (which bytes stand between the values, and what each value is) is taken from the record type itself, so it
cannot get out of step with it. A record that is not written exactly so (another version's, another writer's, text that
is escaped or not ASCII) is left unread: `msgspec` reads it then, and says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec import inspect

from models.float_scan import read_double
from models.interning import hash_bytes, hash_name
from models.jit import hot_kernel, kernel
from models.json_scan import (
    CLOSE,
    COLON,
    COMMA,
    MINUS,
    NINE,
    OPEN,
    QUOTE,
    REFUSED,
    ZERO,
    is_null,
    skip_scalar,
    string_end,
)
from models.record_scan import ByteRows
from schemas.records import Position

TEXT, TEXT_OR_NULL, CHOICE, DECIMAL, FLOAT, FLOAT_OR_NULL, INTEGER, BOOLEAN, AMOUNTS, END = range(10)
UNREAD, READ, NO_VALUE = 0, 1, 2
#: amounts by currency that one record may have, fees and funding together, and bytes of a currency's name
AMOUNTS_MAX, CODE_BYTES = 12, 8
_DECIMALS = frozenset({"quantity", "opening_quantity"})
_OR_NULL: dict[frozenset[type], int] = {frozenset({inspect.FloatType, inspect.NoneType}): FLOAT_OR_NULL,
                                        frozenset({inspect.StrType, inspect.NoneType}): TEXT_OR_NULL}
_INT64_MAX = np.uint64(2**63 - 1)
_TEN, _EIGHT = np.uint64(10), np.uint64(8)
_T, _F = ord("t"), ord("f")


class Step(NamedTuple):
    """One value of the template, and the bytes before it."""

    literal: bytes
    kind: int
    name: str


def _kind_of(kind: inspect.Type, name: str) -> int:
    plain = {inspect.StrType: DECIMAL if name in _DECIMALS else TEXT, inspect.FloatType: FLOAT,
             inspect.IntType: INTEGER, inspect.BoolType: BOOLEAN, inspect.DictType: AMOUNTS,
             inspect.LiteralType: CHOICE}
    if isinstance(kind, inspect.UnionType):
        found = _OR_NULL.get(frozenset(type(t) for t in kind.types))
        if found is not None:
            return found
    if type(kind) not in plain:
        raise TypeError(f"{name}: expected a type that the scanner of positions knows, was {kind}")
    return plain[type(kind)]


def _template(cls: type[msgspec.Struct]) -> tuple[list[Step], frozenset[str]]:
    """Return what a record looks like, and all words that its choices may be."""
    steps: list[Step] = []
    words: set[str] = set()

    def add(struct: inspect.StructType, before: bytes, prefix: str) -> bytes:
        before += b"{"
        for k, field in enumerate(struct.fields):
            before += b"," * (k > 0) + f'"{field.encode_name}":'.encode()
            if isinstance(field.type, inspect.StructType):
                before = add(field.type, before, f"{prefix}{field.name}.")
                continue
            if isinstance(field.type, inspect.LiteralType):
                words.update(str(v) for v in field.type.values)
            steps.append(Step(before, _kind_of(field.type, field.name), prefix + field.name))
            before = b""
        return before + b"}"

    found = inspect.type_info(cls)
    assert isinstance(found, inspect.StructType)
    steps.append(Step(add(found, b"", ""), END, ""))
    return steps, frozenset(words)


_STEPS, _WORDS = _template(Position)
_KINDS = np.array([s.kind for s in _STEPS], np.int64)
_LITERALS = np.frombuffer(b"".join(s.literal for s in _STEPS), np.uint8)
_LITERAL_AT = np.cumsum([0, *(len(s.literal) for s in _STEPS)])
_CHOICES = np.array([hash_name(np.frombuffer(w.encode(), np.uint8)) for w in sorted(_WORDS)], np.uint64)
_FLOATS, _INTEGERS, _TEXTS = (DECIMAL, FLOAT, FLOAT_OR_NULL), (INTEGER, BOOLEAN), (TEXT, TEXT_OR_NULL, CHOICE)


def _places(kinds: Sequence[int]) -> dict[str, int]:
    return {name: k for k, name in enumerate(s.name for s in _STEPS if s.kind in kinds)}


#: where a field's value is: in `Scanned.floats`, `integers`, `texts`; amounts are told apart by their field's number
FLOAT_AT, INTEGER_AT, TEXT_AT, AMOUNTS_AT = (
    _places(kinds) for kinds in (_FLOATS, _INTEGERS, _TEXTS, (AMOUNTS,)))


class Scanned(NamedTuple):
    """Records as columns, n rows; `status` says which were read."""

    status: np.ndarray  # int8[n]: UNREAD, READ or NO_VALUE
    floats: np.ndarray  # float64[n, fields]; null is NaN
    integers: np.ndarray  # int64[n, fields]
    texts: np.ndarray  # int64[n, fields, 2]: begin and end in the buffer; null is empty
    amount_count: np.ndarray  # int64[n]
    amount_field: np.ndarray  # int8[n, AMOUNTS_MAX]
    amount_code: np.ndarray  # uint64[n, AMOUNTS_MAX], `currency_code`
    amount: np.ndarray  # float64[n, AMOUNTS_MAX]


def currency_code(name: str) -> int:
    """Return a currency's name as a number, or 0 for one that has none: it is too long."""
    raw = name.encode()
    return int.from_bytes(raw, "big") if len(raw) <= CODE_BYTES else 0


def scan_positions(values: ByteRows) -> Scanned:
    """Read the records of one slice."""
    n = len(values)
    out = Scanned(np.zeros(n, np.int8), np.empty((n, len(FLOAT_AT))), np.empty((n, len(INTEGER_AT)), np.int64),
                  np.empty((n, len(TEXT_AT), 2), np.int64), np.zeros(n, np.int64), np.empty((n, AMOUNTS_MAX), np.int8),
                  np.empty((n, AMOUNTS_MAX), np.uint64), np.empty((n, AMOUNTS_MAX)))
    _scan(values.buffer, values.starts, values.ends, out.status, out.floats.view(np.uint64), out.integers, out.texts,
          out.amount_count, out.amount_field, out.amount_code, out.amount.view(np.uint64))
    return out


@kernel
def _scan(buf: np.ndarray, starts: np.ndarray, ends: np.ndarray, status: np.ndarray, floats: np.ndarray,
          integers: np.ndarray, texts: np.ndarray, amount_count: np.ndarray, amount_field: np.ndarray,
          amount_code: np.ndarray, amount: np.ndarray) -> None:
    for r in range(len(starts)):
        at, end = starts[r], ends[r]
        if end < at:
            status[r] = NO_VALUE
            continue
        f, i, t, a, count = 0, 0, 0, 0, 0
        for s in range(len(_KINDS)):
            at = _after_literal(buf, at, end, _LITERAL_AT[s], _LITERAL_AT[s + 1])
            kind = _KINDS[s]
            if at == REFUSED or kind == END:
                break
            if TEXT <= kind <= CHOICE:
                at = _read_text(buf, at, end, kind, texts[r, t])
                t += 1
            elif kind == INTEGER:
                at, integers[r, i] = _read_integer(buf, at, end)
                i += 1
            elif kind == BOOLEAN:
                at, integers[r, i] = _read_boolean(buf, at, end)
                i += 1
            elif kind == AMOUNTS:
                at, count = _read_amounts(buf, at, end, a, count, amount_field[r], amount_code[r], amount[r])
                a += 1
            else:
                at, floats[r, f] = _read_float(buf, at, end, kind)
                f += 1
            if at == REFUSED:
                break
        amount_count[r] = count
        status[r] = READ if at == end else UNREAD


@hot_kernel
def _after_literal(buf: np.ndarray, at: int, end: int, first: int, last: int) -> int:
    length = last - first
    if at == REFUSED or at + length > end:
        return REFUSED
    there, wanted, other = buf[at : at + length], _LITERALS[first:last], np.uint8(0)
    for k in range(length):  # all of them: compared many at a time
        other |= there[k] ^ wanted[k]
    return at + length if other == 0 else REFUSED


@hot_kernel
def _read_text(buf: np.ndarray, at: int, end: int, kind: int, out: np.ndarray) -> int:
    if kind == TEXT_OR_NULL and is_null(buf, at, end):
        out[0] = out[1] = at
        return at + 4
    close = string_end(buf, at + 1, end) if at < end and buf[at] == QUOTE else REFUSED
    if close == REFUSED:
        return REFUSED
    out[0], out[1] = at + 1, close
    if kind == CHOICE:
        word, known = hash_bytes(buf, at + 1, close - at - 1), False
        for choice in _CHOICES:
            known = known or choice == word
        if not known:
            return REFUSED
    return close + 1


@hot_kernel
def _read_float(buf: np.ndarray, at: int, end: int, kind: int) -> tuple[int, Any]:
    if kind == DECIMAL:
        if at >= end or buf[at] != QUOTE:
            return REFUSED, np.uint64(0)
        at, bits = read_double(buf, at + 1, end)
        return (at + 1 if at != REFUSED and at < end and buf[at] == QUOTE else REFUSED), bits
    if kind == FLOAT_OR_NULL and is_null(buf, at, end):
        return at + 4, np.uint64(0x7FF8000000000000)
    return read_double(buf, at, end)


@hot_kernel
def _read_integer(buf: np.ndarray, at: int, end: int) -> tuple[int, Any]:
    negative = at < end and buf[at] == MINUS
    if negative:
        at += 1
    first, value = at, np.uint64(0)
    while at < end and ZERO <= buf[at] <= NINE:
        value = value * _TEN + np.uint64(buf[at] - ZERO)
        at += 1
    if at == first or at - first > 19 or (at - first > 1 and buf[first] == ZERO) or value > _INT64_MAX:
        return REFUSED, 0
    return at, -np.int64(value) if negative else np.int64(value)


@hot_kernel
def _read_boolean(buf: np.ndarray, at: int, end: int) -> tuple[int, Any]:
    if at < end and (buf[at] == _T or buf[at] == _F):
        return skip_scalar(buf, at, end), 1 if buf[at] == _T else 0
    return REFUSED, 0


@hot_kernel
def _read_amounts(buf: np.ndarray, at: int, end: int, field: int, count: int, fields: np.ndarray, codes: np.ndarray,
                  amounts: np.ndarray) -> tuple[int, int]:
    """Read an object of amounts by currency; the same name twice is refused."""
    if at >= end or buf[at] != OPEN:
        return REFUSED, count
    at += 1
    if at < end and buf[at] == CLOSE:
        return at + 1, count
    while True:
        close = string_end(buf, at + 1, end) if at < end and buf[at] == QUOTE else REFUSED
        if close == REFUSED or close - at - 1 > CODE_BYTES or close == at + 1 or count == AMOUNTS_MAX \
                or close + 1 >= end or buf[close + 1] != COLON:
            return REFUSED, count
        code = np.uint64(0)
        for k in range(at + 1, close):
            code = (code << _EIGHT) | np.uint64(buf[k])
        for k in range(count):
            if fields[k] == field and codes[k] == code:
                return REFUSED, count
        at, bits = read_double(buf, close + 2, end)
        if at == REFUSED or at >= end:
            return REFUSED, count
        fields[count], codes[count], amounts[count] = field, code, bits
        count += 1
        if buf[at] == CLOSE:
            return at + 1, count
        if buf[at] != COMMA:
            return REFUSED, count
        at += 1
