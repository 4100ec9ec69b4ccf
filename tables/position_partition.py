"""One partition of the position table: the columns, and their changelog rows.

Changelog keys: ``P`` + account US instrument (a packed position), ``F`` + sequence number (a block of the window of
recent fills), ``R`` + account (when its day began), ``M`` (the marker, written by the writer).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from models.position_state import PartitionPositions, find_slot, other_averages
from models.position_window import FILL_DTYPE
from models.reference import Reference, settlement_currency
from schemas.reasons import QuarantineReason
from schemas.records import AsOf, Fifo, Position
from schemas.refusal import Refused
from schemas.units import FUTURE_NS, UNITS_MAX
from tables.partition import MARKER_KEY, Rows

UNIT = "\x1f"
FILLS_PER_ROW = 8000
FILL_FEES_KEPT = 256
#: funding is kept beside fees in other currencies, in front of the currency's name
FUNDING = "funding:"
_BLOCK = struct.Struct("<qII")
#: columns of a published row, in the order `_record` takes them
_PUBLISHED = ("account_index", "instrument_index", "quantity", "quantity_decimals", "average_price", "realised_pnl",
              "fees", "trades", "last_ts_event", "fifo_realised_pnl", "lot_count", "fifo_merged", "offset", "revision",
              "opening_quantity", "opening_price", "opening_realised_pnl", "late_trades", "ts_source",
              "opening_ts", "rolled")


@dataclass
class SideData:
    """What a position has beside its columns: fees in other currencies, openings by source."""

    fees: dict[str, float] = field(default_factory=dict)
    fees_by_id: dict[str, dict[str, float]] = field(default_factory=dict)
    openings: dict[str, tuple[int, float | None, int]] = field(default_factory=dict)
    opening_fees: dict[str, float] = field(default_factory=dict)
    #: trade time of the fills in ``fees_by_id``
    fee_ts: dict[str, int] = field(default_factory=dict)

    def pack(self) -> bytes:
        """Return the tail of a packed row."""
        return json.dumps([self.fees, self.fees_by_id, self.openings, self.opening_fees, self.fee_ts]).encode()

    @classmethod
    def unpack(cls, tail: bytes) -> SideData:
        """Read the tail of a packed row; what a newer minor version appended is left out."""
        fees, by_id, openings, *more = json.loads(tail)
        return cls(fees, by_id, {k: (q, p, t) for k, (q, p, t) in openings.items()}, more[0] if more else {},
                   more[1] if len(more) > 1 else {})

    def paid_since(self, ts: int) -> dict[str, float]:
        """Return what the fills that are still known one by one paid from a time on."""
        out: dict[str, float] = {}
        for fill_id, amounts in self.fees_by_id.items():
            if self.fee_ts.get(fill_id, 0) >= ts:
                for currency, amount in amounts.items():
                    out[currency] = out.get(currency, 0.0) + amount
        return out


class PositionPartition:
    """Positions of one source partition, cut into changelog rows and restored from them."""

    def __init__(self, partition: int, reference: Reference, fills_max: int, lateness_ns: int,
                 future_ns: int = FUTURE_NS) -> None:
        self.partition = partition
        #: how far ahead of its time in the log a record may be dated
        self.future_ns = future_ns
        self.reference = reference
        self.positions = PartitionPositions(partition, fills_max, lateness_ns)
        self.side: dict[int, SideData] = {}
        self._keys: list[bytes] = []
        self._blocks: list[tuple[bytes, int]] = []  # key, sequence number after the block's last fill
        self._days: dict[str, int] = {}  # when each account's day began
        self._days_changed: set[str] = set()

    def changed(self) -> int:
        """Return how many position rows the next cut will have."""
        return int(self.positions.arrays.meta[3])

    def key(self, slot: int) -> bytes:
        """Return the changelog key of a row."""
        keys = self._keys
        while len(keys) < len(self.positions):
            row = self.positions.arrays.rows[len(keys)]
            account = self.reference.accounts.names[row["account_index"]]
            instrument = self.reference.instruments.names[row["instrument_index"]]
            keys.append(f"P{account}{UNIT}{instrument}".encode())
        return keys[slot]

    def cut(self) -> Rows:
        """Return the changelog rows of what changed since the last cut."""
        slots = self.positions.take_dirty()
        self.key(len(self.positions) - 1) if len(self.positions) else None
        blob, bounds = self.positions.pack(slots)
        cuts, keys, side = bounds.tolist(), self._keys, self.side
        rows: Rows = [(keys[s], blob[cuts[k] : cuts[k + 1]]) for k, s in enumerate(slots.tolist())]
        if side:
            rows = [(key, value + side[s].pack() if s in side else value)  # type: ignore[operator]
                    for (key, value), s in zip(rows, slots.tolist(), strict=True)]
        rows += [(f"R{account}".encode(), b"%d" % self._days[account]) for account in sorted(self._days_changed)]
        self._days_changed.clear()
        return rows + self._cut_fills()

    def whole(self) -> Rows:
        """Return the changelog rows of everything, as if nothing had been written before."""
        self.positions.mark_all_changed()
        self._blocks.clear()
        self._days_changed = set(self._days)
        return self.cut()

    def _cut_fills(self) -> Rows:
        seq, fills, flags = self.positions.take_fills()
        rows: Rows = []
        size = FILL_DTYPE.itemsize
        count = len(fills) // size
        for start in range(0, max(count, 1), FILLS_PER_ROW):
            part = fills[start * size : (start + FILLS_PER_ROW) * size]
            changed = flags if start == 0 else b""
            if not part and not changed:
                break
            n = len(part) // size
            key = b"F%016x" % (seq + start) if n else self._flags_key(seq)
            rows.append((key, _BLOCK.pack(seq + start, n, len(changed) // 16) + part + changed))
            self._blocks.append((key, seq + start + n))
        first = self.positions.first_fill_seq
        while self._blocks and self._blocks[0][1] <= first and self._blocks[0][0] not in {k for k, _ in rows}:
            rows.append((self._blocks.pop(0)[0], None))
        rows.append((b"W", b"%d" % first))
        return rows

    def _flags_key(self, seq: int) -> bytes:
        """Return the key of a block that holds changed flags only; several may follow the same fill."""
        prefix = b"G%016x-" % seq
        return prefix + b"%08x" % sum(key.startswith(prefix) for key, _ in self._blocks)

    def restore(self, rows: dict[bytes, bytes]) -> None:
        """Take the newest row of every key in."""
        self.positions.reset()
        self.side.clear()
        self._keys.clear()
        self._blocks.clear()
        self._days.clear()
        keys, values = [], []
        blocks: list[tuple[bytes, int, bytes, bytes]] = []
        intern = self.reference.intern_key
        for key, value in rows.items():
            kind = key[:1]
            if kind == b"P":
                account, _, instrument = key[1:].decode().partition(UNIT)
                keys.append(intern(account, instrument))
                values.append(value)
            elif kind in (b"F", b"G"):
                seq, n, _ = _BLOCK.unpack_from(value)
                end = _BLOCK.size + n * FILL_DTYPE.itemsize
                blocks.append((key, seq, value[_BLOCK.size : end], value[end:]))
                self._blocks.append((key, seq + n))
            elif kind == b"R":
                account = key[1:].decode()
                self._days[account] = int(value)
                self.positions.restore_day(self.reference.intern_account(account), int(value))
            elif key not in (MARKER_KEY, b"W"):
                raise ValueError(f"changelog of partition {self.partition}: unknown row {key!r}")
        tails = self.positions.load(values, keys)
        for value, tail in zip(values, tails, strict=True):
            if tail:
                self.side[struct.unpack_from("<I", value, 12)[0]] = SideData.unpack(tail)
        # flags that changed before more fills came (G) are older than the flags that came with those fills (F)
        blocks.sort(key=lambda block: (block[1], block[0][:1] == b"F", block[0]))
        self._blocks.sort(key=lambda block: (block[1], block[0]))
        self.positions.load_fills(int(rows.get(b"W", b"0")), [block[1:] for block in blocks])

    def side_of(self, slot: int) -> SideData:
        """Return a row's side data, opening it if there is none."""
        return self.side.setdefault(slot, SideData())

    def find_slot(self, account: int, instrument: int) -> int:
        """Return the row of a key, or -1."""
        return int(find_slot(self.positions.arrays, account, instrument))

    def add_fees(self, slot: int, fill_id: str, amounts: dict[str, float], ts: int) -> None:
        """Keep fees of a fill in currencies other than the settlement's, or funding."""
        side = self.side_of(slot)
        side.fees_by_id[fill_id], side.fee_ts[fill_id] = amounts, ts
        while len(side.fees_by_id) > FILL_FEES_KEPT:
            oldest = next(iter(side.fees_by_id))
            side.fees_by_id.pop(oldest)
            side.fee_ts.pop(oldest, None)
        self._book_fees(slot, amounts, ts, 1.0)

    def _book_fees(self, slot: int, amounts: dict[str, float], ts: int, sign: float) -> None:
        side, row = self.side[slot], self.positions.arrays.rows[slot]
        before = row["rolled"] and ts < row["opening_ts"]  # of the day before, though it came late
        for kept in (side.fees, side.opening_fees) if before else (side.fees,):
            for currency, amount in amounts.items():
                kept[currency] = kept.get(currency, 0.0) + sign * amount

    def drop_fees(self, fill_id: str) -> None:
        """Take the fees of a busted or corrected fill back, in the day they were paid in."""
        for slot, side in self.side.items():
            if fill_id in side.fees_by_id:
                # a row of an earlier version has no times: what it pays back is today's
                ts = side.fee_ts.pop(fill_id, int(self.positions.arrays.rows["opening_ts"][slot]))
                self._book_fees(slot, side.fees_by_id.pop(fill_id), ts, -1.0)

    def open(self, key: tuple[int, int], source: str, units: int, price: float | None, ts: int,
             ts_source: int) -> None:
        """Let a position start from what a source states; several sources add up, the newest per source counts.

        Raises
        ------
        Refused
            The sum, or what it comes to with the trades since, does not fit the counter. Nothing has changed then.
        """
        slot = self.find_slot(*key)
        openings = dict(self.side[slot].openings) if slot in self.side else {}
        if source in openings and openings[source][2] >= ts:
            return
        openings[source] = (units, price, ts)
        total = sum(q for q, _, _ in openings.values())
        rows, base = self.positions.arrays.rows, self.positions.arrays.base
        traded = int(rows["quantity"][slot]) - int(base["quantity"][slot]) if slot >= 0 else 0
        if max(abs(total), abs(total + traded)) > UNITS_MAX:
            raise Refused(QuarantineReason.QUANTITY_OVERFLOW,
                          f"quantity: expected a sum over all sources, with the trades since, of at most {UNITS_MAX} "
                          f"units of the increment, was {max(abs(total), abs(total + traded))}")
        prices = [(q, p) for q, p, _ in openings.values() if q]
        average = float("nan")
        if total and all(p is not None for _, p in prices):
            average = sum(q * p for q, p in prices if p is not None) / total
        slot = self.positions.open_position(*key, total, average, max(t for _, _, t in openings.values()),
                                            self.reference.arrays(), ts_source)
        self.side_of(slot).openings = openings

    def roll(self, account: str, ts: int) -> bool:
        """Begin a day of an account; False where it, or a later one, has begun already."""
        index = self.reference.intern_account(account)
        rolled = self.positions.roll(index, ts)
        if rolled is None:
            return False
        self._days[account] = ts
        self._days_changed.add(account)
        for slot in rolled:
            if slot in self.side:
                side = self.side[slot]
                later = side.paid_since(ts)
                side.opening_fees = {c: a - later.get(c, 0.0) for c, a in side.fees.items()}
        return True

    def take_openings(self, other: PositionPartition) -> None:
        """Take over what was rolled in another state of the same partition: a fold of trades does not know of it."""
        rows = other.positions.arrays.rows
        for slot in other.slots():
            mine = self.find_slot(int(rows["account_index"][slot]), int(rows["instrument_index"][slot]))
            if mine >= 0 and rows["rolled"][slot]:
                self.positions.copy_opening(mine, rows[slot])
                if slot in other.side:
                    self.side_of(mine).opening_fees = dict(other.side[slot].opening_fees)
        for account, ts in other._days.items():
            self._days[account] = ts
            self.positions.restore_day(self.reference.intern_account(account), ts)

    def slots(self) -> Iterator[int]:
        """Iterate over all rows."""
        return iter(range(len(self.positions)))

    def records(self, slots: np.ndarray) -> list[Position]:
        """Return rows as records for the `positions` topic."""
        rows = self.positions.arrays.rows[slots]
        average, break_even = np.full(len(slots), np.nan), np.full(len(slots), np.nan)
        other_averages(self.positions.arrays, slots, average, break_even)
        columns = [rows[name].tolist() for name in _PUBLISHED]
        return [self._record(slot, a, e, *values) for slot, a, e, *values in
                zip(slots.tolist(), average.tolist(), break_even.tolist(), *columns, strict=True)]

    def _record(self, slot: int, fifo_average: float, break_even: float, account_index: int, instrument_index: int,
                quantity: int, decimals: int, average: float, realised: float, fees_paid: float, trades: int,
                last_ts: int, fifo_realised: float, lots: int, merged: int, offset: int, revision: int,
                opening_quantity: int, opening_price: float, opening_realised: float, late: int,
                ts_source: int, opening_ts: int, rolled: int) -> Position:
        reference = self.reference
        account = reference.accounts.names[account_index]
        name = reference.instruments.names[instrument_index]
        instrument = reference.instrument_records.get(name)
        owner = reference.account_records.get(account)
        side = self.side.get(slot)
        currency = settlement_currency(instrument) if instrument else ""
        fees, funding = _apart(side.fees) if side else ({}, {})
        if fees_paid:
            fees[currency] = fees_paid
        opening_fees, opening_funding = _apart(side.opening_fees) if side else ({}, {})
        return Position(
            account=account, instrument=name, quantity=decimal_text(quantity, decimals),
            average_price=finite(average) if quantity else None, realised_pnl=realised,
            fees=fees, currency=currency, trades=trades, last_ts_event=last_ts,
            fifo=Fifo(fifo_realised, finite(fifo_average), lots, not merged), break_even_price=finite(break_even),
            as_of=AsOf(self.partition, offset), revision=revision,
            opening_quantity=decimal_text(opening_quantity, decimals), opening_price=finite(opening_price),
            opening_realised_pnl=opening_realised, opening_ts=opening_ts,
            opening_kind="roll" if rolled else "statement" if opening_ts else "none",
            opening_fees=opening_fees, funding=funding, opening_funding=opening_funding,
            stated=bool(side and side.openings), late_trades=late, book=owner.book if owner else "",
            desk=owner.desk if owner else "", strategy=owner.strategy if owner else "",
            fund=owner.fund if owner else "", ts_source=ts_source)

    def state_hash(self) -> str:
        """Return a hash of the whole partition; equal logs give equal hashes."""
        return self.positions.state_hash(self.reference.key_name)


def _apart(amounts: dict[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """Return fees and funding by currency."""
    return ({c: a for c, a in amounts.items() if not c.startswith(FUNDING)},
            {c.removeprefix(FUNDING): a for c, a in amounts.items() if c.startswith(FUNDING)})


def decimal_text(units: int, decimals: int) -> str:
    """Return counted units as a plain decimal: ``decimal_text(-1250, 2) == '-12.5'``."""
    if decimals == 0:
        return str(units)
    sign, digits = ("-" if units < 0 else ""), str(abs(units)).rjust(decimals + 1, "0")
    fraction = digits[-decimals:].rstrip("0")
    return f"{sign}{digits[:-decimals]}{'.' + fraction if fraction else ''}"


def finite(value: float) -> float | None:
    """Return the value, or None for NaN."""
    return value if value == value else None
