"""Messages of the `trades` topic to columns: the scanner for what it knows, msgspec for the rest, poison by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import Any

import msgspec
import numpy as np

from models.record_scan import ByteRows
from models.trade_columns import (
    BUST,
    CORRECT,
    NEW,
    NO_CONTENT,
    POISON,
    READ,
    TRADE_DTYPE,
    UNREAD,
    hash_id_pair,
    scan_trades,
)
from schemas.codec import split_array, trade_decoder
from schemas.reasons import QuarantineReason
from schemas.records import Fee, Trade
from schemas.refusal import reason_of
from schemas.units import TS_END, decimal_parts, format_ts_ns, outside, parse_ts_ns

VALUE_BYTES_MAX = 8 << 20
#: sums of amounts of 18 digits are exact in it
EXACT = Context(prec=60)
_OBJECT = ord("{")
_ACTIONS = {"new": NEW, "correct": CORRECT, "bust": BUST, "funding": NEW, "receipt": NEW}


@dataclass
class Poison:
    """A record that cannot be applied."""

    message: int
    index: int
    reason: QuarantineReason
    detail: str
    raw: bytes


@dataclass
class DecodedTrades:
    """A batch as columns.

    ``rows`` (TRADE_DTYPE) is in log order; ``buffer`` is what its text offsets point into; ``fees`` holds the fees of
    the rows that have any; ``raw_of`` gives a row's bytes back.
    """

    rows: np.ndarray
    buffer: np.ndarray
    raws: Sequence[Any]
    messages: np.ndarray
    indices: np.ndarray
    poison: list[Poison] = field(default_factory=list)
    fees: dict[int, list[Fee]] = field(default_factory=dict)

    def text(self, row: int, name: str) -> str:
        """Return the ``id``, ``account`` or ``instrument`` of a row."""
        start = int(self.rows[f"{name}_start"][row])
        return bytes(self.buffer[start : start + int(self.rows[f"{name}_length"][row])]).decode()

    def refuse(self, row: int, reason: QuarantineReason, detail: str) -> None:
        """Make a row poison."""
        self.rows["status"][row] = POISON
        self.poison.append(Poison(int(self.messages[row]), int(self.indices[row]), reason, detail, self.raws[row]))


def decode_trades(values: Sequence[bytes | None], latest_ns: np.ndarray | None = None) -> DecodedTrades:
    """Return the columns of a batch of messages (single records or JSON arrays).

    Parameters
    ----------
    latest_ns : the latest time that each message may carry (see `schemas.units.latest_of`); None: unbounded
    """
    out = _decode(values)
    if latest_ns is not None:
        latest, found = latest_ns[out.messages], out.rows["ts_event"]
        for i in np.flatnonzero((out.rows["status"] == READ) & (found > latest)).tolist():
            when = int(found[i])
            out.fees.pop(i, None)
            out.refuse(i, QuarantineReason.BAD_FIELD, outside(when, "ts_event", format_ts_ns(when), int(latest[i])))
    return out


def _decode(values: Sequence[bytes | None]) -> DecodedTrades:
    poison: list[Poison] = []
    if isinstance(values, ByteRows) and values.all_begin_with(_OBJECT, VALUE_BYTES_MAX):
        n = len(values)
        rows = np.zeros(n, TRADE_DTYPE)
        out = DecodedTrades(rows, values.buffer, values, np.arange(n, dtype=np.int32), np.zeros(n, np.int32), poison)
        if scan_trades(values.buffer, values.starts, values.ends, rows):
            _read_slowly(out, len(values.buffer))
        return out
    raws, messages, indices = _expand(values, poison)
    lengths = np.fromiter(map(len, raws), np.int64, len(raws))
    joined = b"".join(raws)
    buffer = np.frombuffer(joined, np.uint8)
    ends = np.cumsum(lengths)
    rows = np.zeros(len(raws), TRADE_DTYPE)
    out = DecodedTrades(rows, buffer, raws, messages, indices, poison)
    if scan_trades(buffer, ends - lengths, ends, rows):
        _read_slowly(out, len(joined))
    rows["message"] = messages
    return out


def _expand(values: Sequence[bytes | None], poison: list[Poison]) -> tuple[list[bytes], np.ndarray, np.ndarray]:
    """Split arrays, take out what has no value or is too long; plain batches pass untouched."""
    n = len(values)
    plain = [v for v in values if v is not None and len(v) <= VALUE_BYTES_MAX and v[:1] == b"{"]
    if len(plain) == n:
        return plain, np.arange(n, dtype=np.int32), np.zeros(n, np.int32)
    raws: list[bytes] = []
    messages: list[int] = []
    indices: list[int] = []
    for m, value in enumerate(values):
        if value is None:
            poison.append(Poison(m, 0, QuarantineReason.NULL_VALUE, "expected a JSON record, was null", b""))
        elif len(value) > VALUE_BYTES_MAX:
            detail = f"expected at most {VALUE_BYTES_MAX} bytes, was {len(value)}"
            poison.append(Poison(m, 0, QuarantineReason.TOO_LARGE, detail, value[:1024]))
        else:
            try:
                parts = split_array(value) if value.lstrip()[:1] == b"[" else [value]
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                poison.append(Poison(m, 0, QuarantineReason.NOT_JSON, str(error), value))
                continue
            raws += parts
            messages += [m] * len(parts)
            indices += range(len(parts))
    return raws, np.array(messages, np.int32), np.array(indices, np.int32)


def _read_slowly(out: DecodedTrades, base: int) -> None:
    """Give what the scanner refused to msgspec; its texts are appended to the buffer."""
    extra = bytearray()
    for i in np.flatnonzero(out.rows["status"] == UNREAD).tolist():
        try:
            trade = trade_decoder.decode(out.raws[i])
            _fill_row(out, i, trade, base, extra)
        except (msgspec.DecodeError, ValueError, ArithmeticError) as error:
            out.refuse(i, *reason_of(error, out.raws[i], Trade))
    if extra:
        out.buffer = np.concatenate([out.buffer, np.frombuffer(bytes(extra), np.uint8)])


def _content(trade: Trade) -> int:
    """Return a hash of what a trade says beside identity, instrument, side, quantity, price and time.

    Whatever says the same has the same: zeros at the end of an amount, fees in another order, a field that is null.
    """
    fees: dict[str, Decimal] = {}
    for fee in trade.fees or ():
        fees[fee.currency] = EXACT.add(fees.get(fee.currency, Decimal(0)), fee.amount)
    said = {name: getattr(trade, name) for name in ("order_id", "trader", "counterparty", "venue")}
    said["action"] = None if trade.action == "new" else trade.action
    said["ref_trade_id"] = trade.ref_trade_id if trade.action in (None, "new", "funding") else (
        trade.ref_trade_id or trade.trade_id)
    said |= {f"fees.{currency}": f"{amount.normalize(EXACT):f}" for currency, amount in fees.items() if amount}
    total = int(NO_CONTENT)
    for name, text in said.items():
        if text:
            raw = np.frombuffer(name.encode() + text.encode(), np.uint8)
            total += int(hash_id_pair(raw, len(name.encode()))[0])
    return total & 0xFFFFFFFFFFFFFFFF


def check_trade(trade: Trade, latest_ns: int = TS_END - 1) -> tuple[tuple[int, int], tuple[int, int], int]:
    """Return quantity and price of a trade, as mantissa and scale, and its time, if it can be counted with.

    Raises
    ------
    ValueError
        With the field, the value and what was expected. Every reader of the topic refuses what this refuses.
    """
    parts = decimal_parts(trade.quantity, "quantity"), decimal_parts(trade.price, "price")
    ts = parse_ts_ns(trade.ts_event, latest_ns=latest_ns)
    if trade.action == "funding" and (trade.quantity != 0 or not trade.fees):
        raise ValueError(f"quantity, fees: expected 0 and at least one amount of funding, was {trade.quantity} and "
                         f"{len(trade.fees or ())} amounts")
    if trade.action == "receipt" and (trade.price != 0 or trade.side.lower() != "buy"):
        raise ValueError(f"price, side: expected 0 and buy with action receipt, was {trade.price} and {trade.side}")
    for fee in trade.fees or ():
        decimal_parts(fee.amount, "fees.amount")
    return *parts, ts


def _fill_row(out: DecodedTrades, i: int, trade: Trade, base: int, extra: bytearray) -> None:
    row = out.rows[i]
    quantity, price, row["ts_event"] = check_trade(trade)
    row["quantity"], row["quantity_scale"] = quantity
    row["price"], row["price_scale"] = price
    # funding, and a correction of it, is cash, no fill: a side of 0 says so to the fold
    cash = trade.action == "funding" or (trade.action == "correct" and trade.quantity == 0 and bool(trade.fees))
    row["side"] = 0 if cash else 1 if trade.side.lower() == "buy" else -1
    row["action"] = _ACTIONS[trade.action or "new"]
    row["free"] = trade.action == "receipt"
    row["fee"] = row["ref_hash"] = row["ref_hash2"] = 0
    row["content"] = _content(trade)
    for name, text in (("id", trade.trade_id), ("account", trade.account), ("instrument", trade.instrument)):
        raw = text.encode()
        row[f"{name}_start"], row[f"{name}_length"] = base + len(extra), len(raw)
        extra += raw
    if row["action"] != NEW:
        ref = (trade.ref_trade_id or trade.trade_id).encode()
        pair = np.frombuffer(ref + trade.account.encode(), np.uint8)
        row["ref_hash"], row["ref_hash2"] = hash_id_pair(pair, len(ref))
    if trade.fees:
        out.fees[i] = trade.fees
    row["status"] = READ
