"""One partition of the position table: the columns, and their changelog rows.

Changelog keys: ``P`` + account US instrument (a packed position), ``F`` + sequence number (a block of the window of
recent fills), ``R`` + account (when its day began), ``M`` (the marker, written by the writer).
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections import deque
from collections.abc import Iterator

import numpy as np

from models.position_averages import other_averages
from models.position_pack import OTHER_TAIL, PAIR_DTYPE
from models.position_state import PartitionPositions, find_slot
from models.position_terms import differing, follow_splits, restate
from models.position_window import BUSTED, FILL_DTYPE
from models.reference import Reference, settlement_currency
from models.stated_sources import stated_sum
from models.trade_columns import ReferenceArrays
from schemas.reasons import QuarantineReason
from schemas.records import AsOf, Fifo, Position
from schemas.refusal import Refused
from schemas.units import FUTURE_NS, UNITS_MAX, format_ts_ns
from tables.dividends import pay_all, pay_row
from tables.partition import MARKER_KEY, Rows
from tables.side_data import Amounts, Dividend, SideData, add_amounts, exact_amounts

UNIT = "\x1f"
#: a row of the changelog stays well below the megabyte that brokers take of a record
FILLS_PER_ROW, PAIRS_PER_ROW, ROW_BYTES = 8_000, 32_000, 500_000
#: of an amount, its currency, quotes and commas
PAID_BYTES = 32
_BLOCK = struct.Struct("<qII")
#: columns of a published row, in the order `_record` takes them
_PUBLISHED = ("account_index", "instrument_index", "quantity", "quantity_decimals", "average_price", "realised_pnl",
              "fees", "trades", "last_ts_event", "fifo_realised_pnl", "lot_count", "fifo_merged", "offset", "revision",
              "opening_quantity", "opening_price", "opening_realised_pnl", "late_trades", "ts_source",
              "opening_ts", "rolled")


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
        self._terms = -1  # version of the reference data that rows are counted by
        #: account and instrument of rows that have to be folded again from the log
        self.behind: set[tuple[str, str]] = set()
        #: dividends of rows that the log was asked for already, by row and action
        self.asked: dict[tuple[int, str], Dividend] = {}
        self._old_blocks: set[bytes] = set()  # of the changelog, to be replaced by the next cut
        self._payers: deque[tuple[int, int]] = deque()  # fills of the window that paid fees: sequence number, row
        self._new_payers: list[tuple[int, int]] = []  # those since the last cut

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
        self._new_payers = list(self._payers)
        return self.cut()

    def _cut_fills(self) -> Rows:
        seq, fills, content, flags = self.positions.take_fills()
        rows: Rows = []
        count = len(fills)
        for start in range(0, count, FILLS_PER_ROW):
            part, tail = fills[start : start + FILLS_PER_ROW], content[start : start + FILLS_PER_ROW]
            key = b"F%016x" % (seq + start)
            rows.append((key, _BLOCK.pack(seq + start, len(part), len(tail)) + part.tobytes() + tail.tobytes()))
            self._blocks.append((key, seq + start + len(part)))
        # whatever else is known of fills, in rows that no broker finds too large; they are older than the next fills
        for start in range(0, len(flags), PAIRS_PER_ROW):
            rows.append(self._beside_fills(seq + count, flags[start : start + PAIRS_PER_ROW]))
        rows += [self._beside_fills(seq + count, pairs) for pairs in self._pack_fees()]
        rows += [(key, None) for key in sorted(self._old_blocks - {key for key, _ in rows})]
        self._old_blocks.clear()
        first = self.positions.first_fill_seq
        while self._payers and self._payers[0][0] < first:  # what has left the window is not taken back any more
            gone, slot = self._payers.popleft()
            self.side[slot].paid.pop(gone, None)
        while self._blocks and self._blocks[0][1] <= first and self._blocks[0][0] not in {k for k, _ in rows}:
            rows.append((self._blocks.pop(0)[0], None))
        rows.append((b"W", b"%d" % first))
        return rows

    def _beside_fills(self, seq: int, pairs: np.ndarray) -> tuple[bytes, bytes]:
        """Return a row of what changed of fills before ``seq``; several may follow the same fill."""
        prefix = b"G%016x-" % seq
        key = prefix + b"%08x" % sum(key.startswith(prefix) for key, _ in self._blocks)
        self._blocks.append((key, seq))
        return key, _BLOCK.pack(seq, 0, len(pairs)) + pairs.tobytes()

    def _pack_fees(self) -> Iterator[np.ndarray]:
        """Yield what new fills paid in other currencies, in parts of a row each."""
        paid, size = list[tuple[int, dict[str, str]]](), 0
        for seq, slot in self._new_payers:
            if seq in self.side[slot].paid:
                paid.append((seq, {c: str(a) for c, a in self.side[slot].paid[seq].items()}))
                size += PAID_BYTES + sum(PAID_BYTES + len(a) for a in paid[-1][1].values())
            if size >= ROW_BYTES:
                yield _as_pairs(paid)
                paid, size = [], 0
        self._new_payers.clear()
        if paid:
            yield _as_pairs(paid)

    def _unpack_fees(self, tail: bytes) -> None:
        pairs = np.frombuffer(tail, PAIR_DTYPE)
        text = pairs["flags"][pairs["seq"] == OTHER_TAIL].tobytes()
        for seq, amounts in json.loads(text or b"[]"):
            self._remember(seq, exact_amounts(amounts))

    def _remember(self, seq: int, amounts: Amounts) -> None:
        """Know again what a fill paid, where it can still be taken back."""
        k = seq - self.positions.first_fill_seq
        if 0 <= k < self.positions.fill_count and not self.positions.arrays.fills["flags"][k] & BUSTED:
            slot = int(self.positions.arrays.fills["slot"][k])
            self.side_of(slot).paid[seq] = amounts
            self._payers.append((seq, slot))

    def restore(self, rows: dict[bytes, bytes]) -> None:
        """Take the newest row of every key in."""
        self.positions.reset()
        self.side.clear()
        self._keys.clear()
        self._blocks.clear()
        self._days.clear()
        self._payers.clear()
        self._new_payers.clear()
        self._old_blocks.clear()
        self.behind.clear()
        self.asked.clear()
        self._terms = -1
        by_id: list[tuple[int, dict[str, Amounts]]] = []
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
                slot = struct.unpack_from("<I", value, 12)[0]
                self.side[slot], earlier = SideData.unpack(tail)
                by_id.append((slot, earlier))
                self.positions.restore_stated(slot, self._netted(slot), value[0] == 1)
        # flags that changed before more fills came (G) are older than the flags that came with those fills (F)
        blocks.sort(key=lambda block: (block[1], block[0][:1] == b"F", block[0]))
        self._blocks.sort(key=lambda block: (block[1], block[0]))
        self.positions.load_fills(int(rows.get(b"W", b"0")), [block[1:] for block in blocks])
        for _, _, _, tail in blocks:
            self._unpack_fees(tail)
        self._place_fees(by_id)

    def _place_fees(self, by_id: list[tuple[int, dict[str, Amounts]]]) -> None:
        """Find the fills of fees that an earlier version kept by the hash of their trade's id."""
        fills = self.positions.arrays.fills[: self.positions.fill_count]
        for slot, earlier in by_id:
            for fill, amounts in earlier.items():
                found = np.flatnonzero((fills["id_hash"] == np.uint64(int(fill, 16))) & (fills["slot"] == slot))
                if len(found):
                    self._remember(self.positions.first_fill_seq + int(found[-1]), amounts)
        self._payers = deque(sorted(self._payers))
        self._new_payers = list(self._payers) if any(earlier for _, earlier in by_id) else []

    def side_of(self, slot: int) -> SideData:
        """Return a row's side data, opening it if there is none."""
        return self.side.setdefault(slot, SideData())

    def find_slot(self, account: int, instrument: int) -> int:
        """Return the row of a key, or -1."""
        return int(find_slot(self.positions.arrays, account, instrument))

    def add_fees(self, seq: int, slot: int, amounts: Amounts, ts: int) -> None:
        """Keep what a fill paid in currencies other than the settlement's, or what funding was booked."""
        self.side_of(slot).paid[seq] = amounts
        self._payers.append((seq, slot))
        self._new_payers.append((seq, slot))
        self._book_fees(slot, amounts, ts, 1)

    def _book_fees(self, slot: int, amounts: Amounts, ts: int, sign: int) -> None:
        side = self.side[slot]
        add_amounts(side.fees, amounts, sign)
        if ts < self.positions.arrays.rows["opening_ts"][slot]:  # of the day before, though it came late
            add_amounts(side.opening_fees, amounts, sign)

    def drop_fees(self, seq: int, slot: int, ts: int) -> None:
        """Take back what a busted or corrected fill paid, in the day it was paid in."""
        if slot in self.side and seq in self.side[slot].paid:
            self._book_fees(slot, self.side[slot].paid.pop(seq), ts, -1)

    def _open_fees(self, slot: int) -> None:
        """What was paid before the day began is part of the opening."""
        if slot not in self.side:
            return
        side, first = self.side[slot], self.positions.first_fill_seq
        side.opening_fees = dict(side.fees)
        opening_ts, fills = int(self.positions.arrays.rows["opening_ts"][slot]), self.positions.arrays.fills
        for seq, amounts in side.paid.items():
            if seq >= first and fills["ts_event"][seq - first] >= opening_ts:
                add_amounts(side.opening_fees, amounts, -1)

    def follow_terms(self) -> list[tuple[str, str]]:
        """Restate what is held in corrected terms and by splits; return the account and instrument of what cannot be.

        A row keeps the terms that it was counted in until then. ``behind`` has what the log alone can restate.
        """
        if self._terms == self.reference.version:
            return []
        restored, ref, self._terms = self._terms < 0, self.reference.arrays(), self.reference.version
        finer = differing(self.positions, ref, finer=True).tolist()
        refused = [s for s in finer if not self._restate(s, ref)]  # before a split: it is exact in the finer ones alone
        actions = self.reference.actions.columns(self.reference.instruments.names)
        behind = follow_splits(self.positions, *actions, restored)
        refused += [s for s in differing(self.positions, ref).tolist()
                    if s not in refused and not self._restate(s, ref)]
        self.behind.update(map(self.key_text, behind))
        pay_all(self)
        return [self.key_text(s) for s in refused]

    def key_text(self, slot: int) -> tuple[str, str]:
        """Return the account and the instrument of a row."""
        row = self.positions.arrays.rows[slot]
        return (self.reference.accounts.names[row["account_index"]],
                self.reference.instruments.names[row["instrument_index"]])

    def _restate(self, slot: int, ref: ReferenceArrays) -> bool:
        row = self.positions.arrays.rows[slot]
        instrument, was = int(row["instrument_index"]), int(row["quantity_decimals"])
        decimals = int(ref.quantity_decimals[instrument])
        up, down = 10 ** max(decimals - was, 0), 10 ** max(was - decimals, 0)
        openings = self.side[slot].openings if slot in self.side else {}
        if any(q % down or abs(q) * up > UNITS_MAX for q, _, _ in openings.values()) \
                or not restate(self.positions, slot, float(ref.unit_value[instrument]), decimals):
            return False
        if openings:
            self.side[slot].openings = {s: (q * up // down, p, t) for s, (q, p, t) in openings.items()}
        if was != decimals:
            self._replace_blocks()
        return True

    def _replace_blocks(self) -> None:
        """Have the window written again in place of the blocks that are there."""
        self._old_blocks.update(key for key, _ in self._blocks)
        self._blocks.clear()
        self._new_payers = list(self._payers)
        self.positions.rewrite_fills()

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
        if source in openings and (openings[source][2] > ts or openings[source] == (units, price, ts)):
            return  # of two statements of one moment the one that came later counts
        openings[source] = (units, price, ts)
        sides = self.reference.actions.in_units_of_newest(self.reference.instruments.names[key[1]], openings)
        total = sum(q for q, _ in sides)
        latest = max(t for _, _, t in openings.values())
        traded = self.positions.traded_since(slot, latest)
        if max(abs(total), abs(total + traded)) > UNITS_MAX:
            raise Refused(QuarantineReason.QUANTITY_OVERFLOW,
                          f"quantity: expected a sum over all sources, with the trades since, of at most {UNITS_MAX} "
                          f"units of the increment, was {max(abs(total), abs(total + traded))}")
        if not self.positions.takes_statement(*key, latest):
            raise Refused(QuarantineReason.STATEMENT_TOO_LATE,
                          f"ts_event: expected a time after all that has left the window of this position, was "
                          f"{format_ts_ns(latest)}: what was traded since then could not be told apart")
        ref = self.reference.arrays()
        stated = stated_sum(sides, bool(ref.inverse[key[1]]))
        slot = self.positions.open_position(*key, total, stated.average, latest, ref, ts_source,
                                            stated.pnl and stated.pnl * float(ref.unit_value[key[1]]))
        self.side_of(slot).openings = openings
        self._open_fees(slot)
        pay_row(self, slot, latest)

    def _netted(self, slot: int) -> float:
        """Return what the sides of a row's sources net to, in money."""
        side, row = self.side.get(slot), self.positions.arrays.rows[slot]
        if side is None or not side.openings:
            return 0.0
        name = self.reference.instruments.names[row["instrument_index"]]
        sides = self.reference.actions.in_units_of_newest(name, side.openings)
        pnl = stated_sum(sides, bool(row["inverse"])).pnl
        return pnl * float(row["unit_value"]) if pnl else 0.0

    def roll(self, account: str, ts: int) -> bool:
        """Begin a day of an account; False where it, or a later one, has begun already."""
        index = self.reference.intern_account(account)
        rolled = self.positions.roll(index, ts)
        if rolled is None:
            return False
        self._days[account] = ts
        self._days_changed.add(account)
        for slot in rolled:
            self._open_fees(slot)
        return True

    def take_openings(self, other: PositionPartition) -> None:
        """Take over what was rolled in another state of the same partition: a fold of trades does not know of it."""
        for account, ts in other._days.items():
            self.roll(account, ts)
        rows = other.positions.arrays.rows
        for slot in other.slots():
            mine = self.find_slot(int(rows["account_index"][slot]), int(rows["instrument_index"][slot]))
            if mine >= 0 and rows["rolled"][slot] and slot in other.side:
                self.side_of(mine).opening_fees = dict(other.side[slot].opening_fees)

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
        fees, funding = side.amounts() if side else ({}, {})
        if fees_paid:
            fees[currency] = fees.get(currency, 0.0) + fees_paid
        opening_fees, opening_funding = side.amounts(opening_ts) if side else ({}, {})
        return Position(
            account=account, instrument=name, quantity=decimal_text(quantity, decimals),
            average_price=finite(average) if quantity else None, realised_pnl=finite(realised),
            fees=fees, currency=currency, trades=trades, last_ts_event=last_ts,
            fifo=Fifo(finite(fifo_realised), finite(fifo_average), lots, not merged),
            break_even_price=finite(break_even), as_of=AsOf(self.partition, offset), revision=revision,
            opening_quantity=decimal_text(opening_quantity, decimals), opening_price=finite(opening_price),
            opening_realised_pnl=finite(opening_realised), opening_ts=opening_ts,
            opening_kind="roll" if rolled else "statement" if opening_ts else "none",
            opening_fees=opening_fees, funding=funding, opening_funding=opening_funding,
            stated=bool(side and side.openings), late_trades=late, book=owner.book if owner else "",
            desk=owner.desk if owner else "", strategy=owner.strategy if owner else "",
            fund=owner.fund if owner else "", ts_source=ts_source)

    def state_hash(self) -> str:
        """Return a hash of the whole partition; equal logs give equal hashes."""
        digest = hashlib.sha256(self.positions.state_hash(self.reference.key_name).encode())
        for key, side in sorted((self.key(slot), side) for slot, side in self.side.items()):
            dividends = sorted((k, d._replace(splits=0)) for k, d in side.dividends.items() if d.held)
            if side.fees or side.openings or side.opening_fees or side.paid or dividends:
                kept = [sorted(amounts.items()) for amounts in (side.fees, side.opening_fees, *(
                    side.paid[seq] for seq in sorted(side.paid)))]
                digest.update(repr((key, kept, sorted(side.paid), sorted(side.openings.items()),
                                    dividends)).encode())
        return digest.hexdigest()


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


def _as_pairs(paid: list[tuple[int, dict[str, str]]]) -> np.ndarray:
    """Return fees of fills as the tail of a row."""
    text = json.dumps(paid).encode()
    pairs = np.zeros(-(-len(text) // 8), PAIR_DTYPE)
    pairs["seq"] = OTHER_TAIL
    pairs["flags"] = np.frombuffer(text.ljust(8 * len(pairs)), np.int64)
    return pairs
