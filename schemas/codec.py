"""Encoders and decoders, built once; JSON arrays split into records; the packed binary tick form."""

from __future__ import annotations

import re
import struct
from types import UnionType
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np

from schemas.corporate import CorporateAction
from schemas.market import Surface, Touch
from schemas.nodes import Risk
from schemas.numbers import FiniteNumbers, check_text, decimal_fields, time_fields
from schemas.records import (
    Account,
    Alert,
    Approval,
    Control,
    Decision,
    External,
    Instrument,
    Limit,
    Mark,
    Order,
    Position,
    Quarantined,
    Tick,
    Trade,
)

#: characters of a name on the wire
TEXT_MAX = 128
R = TypeVar("R")
T = TypeVar("T", bound=msgspec.Struct)

#: what outsiders read and write; their JSON Schemas are exported
RECORDS: dict[str, type[msgspec.Struct]] = {
    cls.__name__: cls for cls in (Trade, Tick, Order, External, Instrument, Account, CorporateAction, Surface, Touch,
                                  Position, Mark, Risk, Limit, Control, Approval, Decision, Alert, Quarantined)}

class JsonDecoder(Generic[R]):
    """A decoder of JSON; what is nested too deep for it cannot be decoded, like all else that is no record.

    Parameters
    ----------
    kind : what is decoded
    strict : whether numbers may not come as strings
    """

    __slots__ = ("_decode", "_kind", "_timed")

    def __init__(self, kind: type[R] | UnionType, strict: bool = True) -> None:
        self._decode = msgspec.json.Decoder(kind, strict=strict).decode
        self._timed = False
        self._kind: type[msgspec.Struct] | None = None
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            self._timed = issubclass(kind, FiniteNumbers) and bool(time_fields(kind))
            self._kind = kind if decimal_fields(kind) else None

    def decode(self, raw: Any) -> R:
        """Return what ``raw`` says.

        Raises
        ------
        msgspec.DecodeError
            If it is not JSON, or not of this kind, or a time in it is none.
        UnicodeDecodeError
            If it is not UTF-8.
        """
        try:
            found = self._decode(raw)
        except RecursionError:  # a kilobyte of brackets must not end whoever reads it
            raise msgspec.DecodeError("JSON is nested too deep") from None
        try:
            if self._timed:
                found.check_times()
            if self._kind is not None and _odd_number(raw.encode() if isinstance(raw, str) else raw):
                check_text(_fields.decode(raw), self._kind)
        except msgspec.DecodeError:
            raise
        except ValueError as error:
            raise msgspec.ValidationError(str(error)) from None
        return found


#: text that may hold a number as JSON does not write it: most records have none
_odd_number = re.compile(rb'[\x80-\xff\\]|\d_|"\s+[-+.\d]|\d\s+"').search
_fields = msgspec.json.Decoder(dict[str, Any])
_encoder = msgspec.json.Encoder(decimal_format="string")
encode = _encoder.encode


class AccountDecoder(JsonDecoder[Account]):
    """Reads accounts: a field that no record has and that is text may be a level of the hierarchy."""

    def decode(self, raw: Any) -> Account:
        """Return what ``raw`` says."""
        found = super().decode(raw)
        more = {name: value for name, value in _fields.decode(raw).items()
                if name not in Account.__struct_fields__ and isinstance(value, str) and 0 < len(value) <= TEXT_MAX}
        return msgspec.structs.replace(found, levels=found.levels | more) if more else found


def encode_account(account: Account) -> bytes:
    """Return an account as the wire has it: each of its levels is a field of its own name."""
    fields = _fields.decode(encode(account))
    return encode({name: value for name, value in fields.items() if name != "levels"} | account.levels)


trade_decoder = JsonDecoder(Trade, strict=False)
tick_decoder = JsonDecoder(Tick, strict=False)
_raw_list = JsonDecoder(list[msgspec.Raw])
_decoders: dict[type[msgspec.Struct], JsonDecoder[Any]] = {}


def decoder_of(cls: type[T]) -> JsonDecoder[T]:
    """Return the one JSON decoder of a record type."""
    if cls not in _decoders:
        kind: type[JsonDecoder[Any]] = AccountDecoder if cls is Account else JsonDecoder
        _decoders[cls] = kind(cls, strict=False)
    return _decoders[cls]


def states_null(raw: bytes, *names: str) -> bool:
    """Return whether a record gives each of these fields, and gives it as null: absent is not null."""
    record = _fields.decode(raw)
    return all(name in record and record[name] is None for name in names)


def split_array(value: bytes) -> list[bytes]:
    """Return the records of a message that is a JSON array, each as its own bytes.

    Raises
    ------
    msgspec.DecodeError
        If the message is not a JSON array.
    """
    return [bytes(raw) for raw in _raw_list.decode(value)]


def records_in(value: bytes) -> list[bytes]:
    """Return the records of a message, which is one record or a JSON array of them.

    Raises
    ------
    msgspec.DecodeError
        If it begins as an array and is none.
    """
    return split_array(value) if value.lstrip()[:1] == b"[" else [value]


# ---- packed ticks ------------------------------------------------------------------------------------------------
#: magic with the version, record count
TICK_BLOCK_HEADER = struct.Struct("<4sI")
#: one record of version 1: NUL-padded name, UTC ns, prices as float64 (NaN: side absent)
TICK_DTYPE = np.dtype(
    [("instrument", "S24"), ("ts_event", "<i8"), ("bid", "<f8"), ("ask", "<f8"), ("last", "<f8")]
)
#: version 2 says more of a record in flags; bits that have no meaning yet are 0
FLAGGED_TICK_DTYPE = np.dtype([*((name, TICK_DTYPE[name]) for name in TICK_DTYPE.names or ()), ("flags", "<u8")])
#: both sides are withdrawn: as bid and ask of null in JSON
TICK_WITHDRAWN = 1
TICK_BLOCKS = {b"DRT1": TICK_DTYPE, b"DRT2": FLAGGED_TICK_DTYPE}


def pack_ticks(rows: np.ndarray) -> bytes:
    """Return one binary message of ``TICK_DTYPE`` or ``FLAGGED_TICK_DTYPE`` rows: header then rows."""
    magic = next(m for m, layout in TICK_BLOCKS.items() if layout == rows.dtype)
    return TICK_BLOCK_HEADER.pack(magic, len(rows)) + rows.tobytes()


def unpack_ticks(message: bytes) -> np.ndarray:
    """Return the rows of one binary message, without a copy.

    Raises
    ------
    ValueError
        If the header or the length is wrong.
    """
    if len(message) < TICK_BLOCK_HEADER.size:
        raise ValueError(f"binary ticks: expected at least {TICK_BLOCK_HEADER.size} bytes, was {len(message)}")
    magic, count = TICK_BLOCK_HEADER.unpack_from(message)
    layout = TICK_BLOCKS.get(magic)
    if layout is None:
        raise ValueError(f"binary ticks: expected a magic of {sorted(TICK_BLOCKS)}, was {magic!r}")
    expected = TICK_BLOCK_HEADER.size + count * layout.itemsize
    if len(message) != expected:
        raise ValueError(f"binary ticks: expected {expected} bytes for {count} rows, was {len(message)}")
    return np.frombuffer(message, layout, offset=TICK_BLOCK_HEADER.size)


def json_schemas() -> dict[str, Any]:
    """Return the JSON Schema of every record, by name; decimals are strings or numbers on the wire."""
    out: dict[str, Any] = {}
    for name, cls in RECORDS.items():
        schema, defs = _schema(cls)
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        schema["title"] = name
        if defs:
            schema["$defs"] = defs
        out[name] = schema
    return out


def _schema(cls: type[msgspec.Struct]) -> tuple[dict[str, Any], dict[str, Any]]:
    (ref,), defs = msgspec.json.schema_components([cls], ref_template="#/$defs/{name}")
    defs = {key: _loosen(value) for key, value in defs.items()}
    own = defs.pop(ref["$ref"].rsplit("/", 1)[1]) if "$ref" in ref else ref
    return dict(own), defs


def _loosen(node: Any) -> Any:
    """A decimal may come as a JSON number too: msgspec's schema only says string."""
    if isinstance(node, list):
        return [_loosen(x) for x in node]
    if not isinstance(node, dict):
        return node
    if node.get("format") == "decimal":
        return {k: v for k, v in node.items() if k not in ("type", "format")} | {"type": ["string", "number"]}
    return {key: _loosen(value) for key, value in node.items()}
