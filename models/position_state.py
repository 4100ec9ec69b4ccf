"""One partition's positions: growth of the columns, packing of rows for the changelog, the state hash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from models import position_fold as pf
from models import position_opening as po
from models import position_order as order
from models import position_window as pw
from models.columns import grown
from models.fills import FOLD_FIELDS, LOT_DTYPE, NO_LOT, POSITION_DTYPE, LotPool, link_lots
from models.interning import ABSENT
from models.jit import kernel
from models.position_chain import judge_all
from models.position_pack import (
    HEADER_DTYPE,
    OTHER_TAIL,
    PACKED_LOT_DTYPE,
    PAIR_DTYPE,
    ROW_VERSION,
    assemble,
    collect_lots,
    packed_sizes,
    read_rows,
    unpack_rows,
)
from models.position_window import (
    ACTION_DTYPE,
    CHECKED,
    EPOCH,
    FILL_DTYPE,
    FIRST_FILL_SEQ,
    LATENESS,
    META_SIZE,
    N_DIRTY,
    N_FILLS,
    N_FLAGGED,
    N_FLUSHED,
    N_OUT,
    N_ROWS,
    OUT_EPOCH,
    PositionArrays,
)
from models.trade_columns import ReferenceArrays

#: columns that have an entry for every row
_BY_ROW = ("rows", "base", "mid", "dirty", "dirty_epoch", "out", "out_epoch", "due", "due_kind", "due_bound", "stated")
#: of a row, the figures that hold what several sources net to
STATED_IN = ("realised_pnl", "break_even_realised_pnl", "fifo_realised_pnl")


@kernel
def find_slot(st: PositionArrays, account: int, instrument: int) -> int:
    """Return the row of a key, or ABSENT."""
    return pw.find_row(st, account, instrument)


class PartitionPositions:
    """All positions of one source partition.

    Parameters
    ----------
    partition : int
        Source partition; an account belongs to exactly one.
    fills_max : int
        How many trade ids (and fills that can still be corrected or re-ordered) the window holds.
    lateness_ns : int
        How far behind a position's newest trade another may be and still be folded in its place.
    """

    def __init__(self, partition: int, fills_max: int = 131_072, lateness_ns: int = 2_000_000_000) -> None:
        self.partition = partition
        self.fills_max = fills_max
        self.lateness_ns = lateness_ns
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        meta = np.zeros(META_SIZE, np.int64)
        meta[EPOCH] = meta[OUT_EPOCH] = 1
        meta[LATENESS] = self.lateness_ns
        pool = LotPool(np.zeros(2 * pw.LOTS_ROOM_MIN, LOT_DTYPE), np.array([NO_LOT, 0, 0], np.int64))
        spare = np.zeros(2, POSITION_DTYPE)
        spare["lot_head"] = spare["lot_tail"] = NO_LOT
        self.arrays = PositionArrays(
            rows=np.zeros(256, POSITION_DTYPE), base=np.zeros(256, POSITION_DTYPE), mid=np.zeros(256, POSITION_DTYPE),
            spare=spare, pool=pool, fills=np.zeros(1024, FILL_DTYPE), content=np.zeros(1024, np.uint64),
            fill_index=np.full(4096, ABSENT, np.int32), row_index=np.full(1024, ABSENT, np.int32),
            dirty=np.zeros(256, np.int32),
            dirty_epoch=np.zeros(256, np.int64), out=np.zeros(256, np.int32), out_epoch=np.zeros(256, np.int64),
            flagged=np.zeros(1024, np.int64), scratch=np.zeros(2048, np.int32), key=np.zeros(1024, np.int64),
            due=np.zeros(256, np.int32), due_kind=np.zeros(256, np.int8), due_bound=np.zeros(256),
            stated=np.zeros(256), day_start=np.zeros(256, np.int64), actions=np.zeros(0, ACTION_DTYPE),
            action_start=np.zeros(1, np.int64), meta=meta)

    def __len__(self) -> int:
        return int(self.arrays.meta[N_ROWS])

    @property
    def fill_count(self) -> int:
        """How many trade ids the window holds."""
        return int(self.arrays.meta[N_FILLS])

    def reserve(self, records: int) -> None:
        """Make room for the ids of a batch of this many records, and for at least one more row."""
        self._reserve_rows(int(self.arrays.meta[N_ROWS]) + 1)
        a = self.arrays
        need_fills = min(int(a.meta[N_FILLS]) + 2 * records + 2, self.fills_max)
        if need_fills > len(a.fills):
            size = min(max(need_fills, 2 * len(a.fills)), self.fills_max)
            a = a._replace(fills=grown(a.fills, size), content=grown(a.content, size), key=grown(a.key, size),
                           scratch=grown(a.scratch, 2 * size))
        if 2 * need_fills > len(a.fill_index):
            a = a._replace(fill_index=np.full(1 << (2 * need_fills).bit_length(), ABSENT, np.int32))
            pw.reindex_fills(a)
        self.arrays = a
        self._grow_flags(2 * pw.FLAGS_ROOM_MIN)

    def _grow_flags(self, room: int) -> None:
        a = self.arrays
        if len(a.flagged) - int(a.meta[N_FLAGGED]) < room:
            self.arrays = a._replace(flagged=grown(a.flagged, 2 * len(a.flagged) + room))

    def _reserve_rows(self, need: int) -> None:
        a = self.arrays
        if need > len(a.rows):
            size = max(need, len(a.rows) * 3 // 2)
            larger: dict[str, Any] = {name: grown(getattr(a, name), size) for name in _BY_ROW}
            a = a._replace(**larger)
        if 2 * len(a.rows) > len(a.row_index):
            a = a._replace(row_index=np.full(1 << (2 * len(a.rows)).bit_length(), ABSENT, np.int32))
            pw.reindex_rows(a)
        self.arrays = a

    def _grow_lots(self, room: int) -> None:
        pool = self.arrays.pool
        if len(pool.lots) - int(pool.meta[2]) < room:
            larger = LotPool(grown(pool.lots, 2 * len(pool.lots) + room), pool.meta)
            self.arrays = self.arrays._replace(pool=larger)

    def apply(self, rows: np.ndarray, ref: ReferenceArrays) -> None:
        """Fold a batch of resolved trades (TRADE_DTYPE); each record's ``status`` says what became of it."""
        self.reserve(len(rows))
        self._reserve_accounts(len(ref.account_partition))
        at = 0
        while True:
            at = pf.apply_trades(self.arrays, rows, at, ref, self.partition, self.fills_max)
            while pf.refold_due(self.arrays):
                self._grow_lots(pw.LOTS_ROOM_MIN)
            if at == len(rows):
                return
            self._grow_lots(pw.LOTS_ROOM_MIN)
            self._let_go()
            self.reserve(len(rows) - at)

    def _let_go(self) -> None:
        """Let the older half of the window go where it is full."""
        if self.fill_count + 2 > self.fills_max:
            half = self.fill_count // 2
            self._grow_lots(self.fill_count + pw.LOTS_ROOM_MIN)
            self._grow_flags(self.fill_count)
            order.evict_oldest(self.arrays, half)

    def _reserve_accounts(self, count: int) -> None:
        if count > len(self.arrays.day_start):
            self.arrays = self.arrays._replace(day_start=grown(self.arrays.day_start, 2 * count))

    def roll(self, account: int, ts: int) -> list[int] | None:
        """Begin a day of an account at ``ts``: what its positions came to by then is their opening.

        Returns the rows rolled (one that a later statement opened is not); None where that day, or a later one, has
        begun already.
        """
        self._reserve_accounts(account + 1)
        if self.arrays.day_start[account] >= ts:
            return None
        self.arrays.day_start[account] = ts
        mine = np.flatnonzero(self.arrays.rows["account_index"][: len(self)] == account).tolist()
        return [s for s in mine if self._roll_row(s, ts)]

    def _roll_row(self, slot: int, ts: int) -> bool:
        self._grow_lots(pw.LOTS_ROOM_MIN)
        return bool(po.roll_row(self.arrays, slot, ts))

    def restore_day(self, account: int, ts: int) -> None:
        """Know again when an account's day began."""
        self._reserve_accounts(account + 1)
        self.arrays.day_start[account] = ts

    def takes_statement(self, account: int, instrument: int, ts: int) -> bool:
        """Return whether all that a position took in since ``ts`` is still in the window."""
        return bool(po.statement_fits(self.arrays, account, instrument, ts))

    def open_position(self, account: int, instrument: int, quantity: int, price: float, ts: int,
                      ref: ReferenceArrays, ts_source: int = 0, pnl: float = 0.0) -> int:
        """Let a position go on from an outside statement (counted units); returns its row.

        Parameters
        ----------
        pnl : what the sides of several sources net to
        """
        self._let_go()
        self.reserve(1)
        self._reserve_accounts(account + 1)
        self._grow_lots(pw.LOTS_ROOM_MIN)
        return int(po.apply_opening(self.arrays, account, instrument, quantity, price, ts, pnl, ref, ts_source))

    def traded_since(self, slot: int, ts: int) -> int:
        """Return the sum of a row's fills from a time on, counted units; ``slot`` below 0: there is no row."""
        fills = self.arrays.fills[: self.fill_count]
        mine = ((fills["slot"] == slot) & (fills["ts_event"] >= ts)
                & (fills["flags"] & (pw.BUSTED | pw.MARKER | pw.ABSORBED | pw.STATED) == 0))
        return int(fills["quantity"][mine].sum())

    def restore_stated(self, slot: int, amount: float, in_base: bool) -> None:
        """Know again what the sides of several sources net to; version 1 had it in a row's base."""
        self.arrays.stated[slot] = amount
        if in_base and amount:
            for name in STATED_IN:
                self.arrays.base[name][slot] -= amount
            self.arrays.base["opening_realised_pnl"][slot] -= amount

    def make_room(self) -> None:
        """Make sure that a row can be folded."""
        self._grow_lots(pw.LOTS_ROOM_MIN)

    def refold(self, slot: int) -> None:
        """Fold a row and its opening again, and have it written and published."""
        self.make_room()
        order.refold_whole(self.arrays, slot)
        self.touch(slot)

    def touch(self, slot: int) -> None:
        """Have a row written and published."""
        self.arrays.rows["revision"][slot] += 1
        pw.mark_dirty(self.arrays, slot)

    def rewrite_fills(self) -> None:
        """Have every fill of the window written again."""
        self.arrays.meta[N_FLUSHED] = self.arrays.meta[N_FLAGGED] = 0

    def whole_fold(self, slot: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the fold of a row with all its fills (FOLD_DTYPE fields of one row), and its open lots."""
        lots = self.lots_of(slot)
        return self.arrays.rows[slot : slot + 1].copy(), np.array(lots, PACKED_LOT_DTYPE)

    def replace(self, slot: int, fold: np.ndarray, lots: np.ndarray, stated: float = 0.0) -> None:
        """Put another fold in place of a row's; its fills in the window stay known by identity only."""
        self.reserve(1)
        self._grow_lots(pw.LOTS_ROOM_MIN + 2 * len(lots))
        self._grow_flags(self.fill_count)
        a = self.arrays
        order.retire_fills(a, slot)
        for name, _ in FOLD_FIELDS:
            if not name.startswith("lot_"):
                a.base[name][slot] = fold[name][0]
        for name in STATED_IN:  # what several sources net to is no part of a fold
            a.base[name][slot] -= stated
        a.stated[slot] = stated
        link_lots(a.pool, a.base, slot, lots)
        order.refold_whole(a, slot)

    def take_dirty(self) -> np.ndarray:
        """Return the rows changed since the last call, and start a new set."""
        a = self.arrays
        slots = a.dirty[: a.meta[N_DIRTY]].copy()
        a.meta[N_DIRTY] = 0
        a.meta[EPOCH] += 1
        return slots

    def take_out(self) -> np.ndarray:
        """Return the rows to publish since the last call, and start a new set."""
        a = self.arrays
        slots = a.out[: a.meta[N_OUT]].copy()
        a.meta[N_OUT] = 0
        a.meta[OUT_EPOCH] += 1
        return slots

    def mark_all_out(self) -> None:
        """Have every row published again."""
        a, n = self.arrays, len(self)
        a.out[:n] = np.arange(n)
        a.out_epoch[:n] = a.meta[OUT_EPOCH]
        a.meta[N_OUT] = n

    def mark_all_changed(self) -> None:
        """Have every row and every fill of the window written again."""
        a, n = self.arrays, len(self)
        a.dirty[:n] = np.arange(n)
        a.dirty_epoch[:n] = a.meta[EPOCH]
        a.meta[N_DIRTY], a.meta[N_FLUSHED], a.meta[N_FLAGGED] = n, 0, 0

    def take_fills(self) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
        """Return (sequence number of the first, new fills, the content of each, changed flags) since the last call.

        Flags and the content of new fills are pairs of int64: a sequence number with flags and the way to the
        successor, or the complement of a sequence number with a hash. A version that knows of no content takes such a
        number for that of a fill long gone.
        """
        a = self.arrays
        first, end = int(a.meta[N_FLUSHED]), int(a.meta[N_FILLS])
        seq = int(a.meta[FIRST_FILL_SEQ])
        changed = np.unique(a.flagged[: a.meta[N_FLAGGED]])
        flags = np.zeros(len(changed), PAIR_DTYPE)
        flags["seq"] = changed
        flags["flags"] = (a.fills["flags"][changed - seq] & ~CHECKED).astype(np.int64) | (
            a.fills["successor"][changed - seq].astype(np.int64) << 32)
        content = np.zeros(end - first, PAIR_DTYPE)
        content["seq"] = ~np.arange(seq + first, seq + end)
        content["flags"] = a.content[first:end].view(np.int64)
        a.meta[N_FLUSHED] = end
        a.meta[N_FLAGGED] = 0
        fills = a.fills[first:end].copy()
        fills["flags"] &= ~CHECKED
        return seq + first, fills, content, flags

    @property
    def first_fill_seq(self) -> int:
        """Sequence number of the oldest fill in the window; packed blocks before it are obsolete."""
        return int(self.arrays.meta[FIRST_FILL_SEQ])

    def pack(self, slots: np.ndarray) -> tuple[bytes, np.ndarray]:
        """Return (packed values one after the other, int64[n + 1] where each starts)."""
        a = self.arrays
        sizes = np.zeros(len(slots), np.int64)
        total = packed_sizes(a, slots, sizes)
        headers = np.zeros(len(slots), HEADER_DTYPE)
        based = a.rows["based"][slots]
        headers["version"], headers["based"], headers["slot"] = ROW_VERSION, based, slots
        headers["lots"] = a.rows["lot_count"][slots]
        headers["base_lots"] = np.where(based != 0, a.base["lot_count"][slots], 0)
        lots = np.zeros(int(headers["lots"].sum() + headers["base_lots"].sum()), PACKED_LOT_DTYPE)
        collect_lots(a, slots, lots)
        out = np.zeros(total, np.uint8)
        assemble(slots, sizes, headers.view(np.uint8), np.ascontiguousarray(a.rows[slots]).view(np.uint8),
                 np.ascontiguousarray(a.base[slots]).view(np.uint8), based, lots.view(np.uint8), out)
        return out.tobytes(), np.concatenate([[0], np.cumsum(sizes)])

    def load(self, values: list[bytes], keys: list[tuple[int, int]]) -> list[bytes]:
        """Take packed rows in; ``keys`` are their (account, instrument) indices. Returns what followed each row.

        Raises
        ------
        ValueError
            If a row has a version that is not known: it is never read by guess.
        """
        headers, rows, bases, lots, tails = read_rows(values)
        n = len(values)
        fresh = np.flatnonzero(headers["based"] == 0)
        bases[fresh] = rows[fresh]
        for k in fresh.tolist():
            pw.clear_base(bases, k)
        for name, column in zip(("account_index", "instrument_index"), zip(*keys, strict=True), strict=False):
            rows[name] = bases[name] = column
        slots_needed = int(headers["slot"].max()) + 1 if n else 0
        self._reserve_rows(max(slots_needed, 1))
        joined = np.frombuffer(b"".join(lots), PACKED_LOT_DTYPE)
        self._grow_lots(len(joined) + pw.LOTS_ROOM_MIN)
        unpack_rows(self.arrays, rows, bases, headers, joined)
        for s in headers["slot"].tolist():
            pw.clear_row(self.arrays.mid, s)
            self.arrays.mid["chain_length"][s] = 0
        self.arrays.meta[N_ROWS] = max(len(self), slots_needed)
        pw.reindex_rows(self.arrays)
        return tails

    def load_fills(self, first_seq: int, blocks: list[tuple[int, bytes, bytes]]) -> None:
        """Take the window of fills in: blocks of `take_fills` in sequence order; those before ``first_seq`` go."""
        parts = []
        for seq, fills, _ in blocks:
            part = np.frombuffer(fills, FILL_DTYPE)
            parts.append(part[max(first_seq - seq, 0) :])
        window = np.concatenate(parts) if parts else np.zeros(0, FILL_DTYPE)
        self.reserve(len(window))
        a = self.arrays
        a.fills[: len(window)] = window
        a.content[: len(window)] = 0
        a.meta[N_FILLS] = a.meta[N_FLUSHED] = len(window)
        a.meta[FIRST_FILL_SEQ] = first_seq
        for _, _, flags in blocks:
            pairs = np.frombuffer(flags, PAIR_DTYPE)
            said = pairs[(pairs["seq"] < 0) & (~pairs["seq"] >= first_seq) & (pairs["seq"] > OTHER_TAIL)]
            a.content[~said["seq"] - first_seq] = said["flags"].view(np.uint64)
            changed = pairs[pairs["seq"] >= first_seq]
            a.fills["flags"][changed["seq"] - first_seq] = changed["flags"].astype(np.int32)
            a.fills["successor"][changed["seq"] - first_seq] = changed["flags"] >> 32
        pw.reindex_fills(a)
        pw.relink_rows(a, -1)
        judge_all(a)

    def lots_of(self, slot: int) -> list[tuple[int, float]]:
        """Return the open lots of a row, oldest first."""
        out, index = [], int(self.arrays.rows["lot_head"][slot])
        while index != NO_LOT:
            lot = self.arrays.pool.lots[index]
            out.append((int(lot["quantity"]), float(lot["price"])))
            index = int(lot["next"])
        return out

    def state_hash(self, name_of: Callable[[int, int], bytes]) -> str:
        """Return a hash of every position, lot and window fill; equal logs give equal hashes.

        ``name_of`` maps (account index, instrument index) to a key that does not depend on interning order.
        """
        a = self.arrays
        slots = np.arange(len(self), dtype=np.int32)
        rows = a.rows[slots].copy()
        for name in ("lot_head", "lot_tail", "last_fill", "chain_length", "account_index", "instrument_index",
                     "ts_source"):
            rows[name] = 0
        keys = [name_of(int(r["account_index"]), int(r["instrument_index"])) for r in a.rows[slots]]
        digest = hashlib.sha256()
        for s in sorted(range(len(keys)), key=keys.__getitem__):
            digest.update(keys[s])
            for field in rows.dtype.names or ():
                digest.update(rows[field][s].tobytes())
            digest.update(repr(self.lots_of(s)).encode())
        fills = a.fills[: a.meta[N_FILLS]].copy()
        fills["flags"] &= ~CHECKED
        fills["effective_ts"][fills["flags"] & (pw.OUT_OF_CHAIN | pw.REVERSAL) != 0] = 0
        for field in ("id_hash", "id_hash2", "quantity", "price", "fee", "ts_event", "effective_ts", "flags",
                      "successor"):
            digest.update(np.ascontiguousarray(fills[field]).tobytes())
        digest.update(a.content[: a.meta[N_FILLS]].tobytes())
        return digest.hexdigest()
