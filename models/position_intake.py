"""Slices of the `positions` topic into the matrix of positions: by a kernel where a row is known and stays in place.

It is most of what comes. A row that is new, or that moved under other nodes, is left to whoever knows the tree.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, overload

import numpy as np

from models.columns import grown
from models.interning import ABSENT, InternTable, NameArrays, find_name, hash_bytes
from models.jit import hot_kernel, kernel
from models.position_scan import AMOUNTS_AT, FLOAT_AT, INTEGER_AT, READ, TEXT_AT, Scanned, currency_code
from models.rollup import FEE, FEE_SLOTS, FUNDED, RollUp
from schemas.codec import decoder_of
from schemas.records import Position

LEFT, TAKEN, OLDER = 0, 1, 2
#: what is known of a row beside its figures; ``place``: the names of the nodes above its account
HELD_DTYPE = np.dtype([("offset", "i8"), ("revision", "i8"), ("opening_ts", "i8"), ("place", "i4"), ("paper", "i1")],
                      align=True)
_ACCOUNT, _INSTRUMENT, _CURRENCY, _BOOK, _FUND = (
    TEXT_AT[k] for k in ("account", "instrument", "currency", "book", "fund"))
_QUANTITY, _AVERAGE, _REALISED, _OPENING, _OPENING_PRICE, _OPENING_REALISED = (
    FLOAT_AT[k] for k in ("quantity", "average_price", "realised_pnl", "opening_quantity", "opening_price",
                          "opening_realised_pnl"))
_LAST_TS, _OFFSET, _REVISION, _OPENING_TS = (
    INTEGER_AT[k] for k in ("last_ts_event", "as_of.offset", "revision", "opening_ts"))
#: the field of what was paid before comes after the field of what was paid
_FEES, _FUNDING = AMOUNTS_AT["fees"], AMOUNTS_AT["funding"]
_NO_CODE = np.uint64(0)
_position = decoder_of(Position)


class PositionIntake:
    """Rows by the bytes of their names, and what is known of each beside its figures.

    Parameters
    ----------
    rollup : the matrix; a row here is a row there
    """

    def __init__(self, rollup: RollUp) -> None:
        self._rollup = rollup
        self._keys, self._places = InternTable(), InternTable()
        self.held: Any = np.zeros(1024, HELD_DTYPE)
        self._codes = np.zeros(0, np.uint64)

    def hold(self, row: int, position: Position, paper: bool) -> None:
        """Note a row that was filled: the kernel knows it from now on. Rows come in the order they were opened."""
        if row >= len(self.held):
            self.held = grown(self.held, len(self._rollup.rows))
        if row == len(self._keys):
            self._keys.intern(f'{position.account}","instrument":"{position.instrument}')
        place = self._places.intern(f'{position.book}","desk":"{position.desk}","strategy":"{position.strategy}",'
                                    f'"fund":"{position.fund}')
        self.held[row] = (position.as_of.offset, position.revision, position.opening_ts, place, paper)

    def is_newer(self, row: int, position: Position) -> bool:
        """Whether a record is the one that is held, or came after it."""
        held = self.held[row]
        return (position.as_of.offset, position.revision) >= (int(held["offset"]), int(held["revision"]))

    def take(self, scanned: Scanned, buffer: np.ndarray, shard: int, currencies: Collection[str]) -> tuple[Any, Any]:
        """Bring rows up to date; return what became of each record, and its row.

        Parameters
        ----------
        currencies : names, in the order of their indices
        """
        if len(self._codes) != len(currencies):
            self._codes = np.array([currency_code(name) for name in currencies], np.uint64)
        n, rollup = len(scanned.status), self._rollup
        outcome, row_of = np.zeros(n, np.int8), np.full(n, -1, np.int64)
        _take(scanned, buffer, self._keys.arrays(), self._places.arrays(), self.held, self._codes, shard, rollup.rows,
              rollup.paid, outcome, row_of)
        return outcome, row_of


@kernel
def _take(scanned: Scanned, buf: np.ndarray, keys: NameArrays, places: NameArrays, held: np.ndarray,
          currencies: np.ndarray, shard: int, rows: np.ndarray, paid: np.ndarray, outcome: np.ndarray,
          row_of: np.ndarray) -> None:
    status, floats, integers, texts = scanned.status, scanned.floats, scanned.integers, scanned.texts
    counts, fields, codes, amounts = (scanned.amount_count, scanned.amount_field, scanned.amount_code, scanned.amount)
    for k in range(len(status)):
        if status[k] != READ:
            continue
        row = _find(keys, buf, texts[k, _ACCOUNT, 0], texts[k, _INSTRUMENT, 1])
        if row == ABSENT or rows[row].live == 0:
            continue
        if (integers[k, _OFFSET], integers[k, _REVISION]) < (held[row].offset, held[row].revision):
            outcome[k] = OLDER
            continue
        place = _find(places, buf, texts[k, _BOOK, 0], texts[k, _FUND, 1])
        own = _code(buf, texts[k, _CURRENCY, 0], texts[k, _CURRENCY, 1])
        if place != held[row].place or own == _NO_CODE or own != currencies[rows[row].currency] \
                or (held[row].paper != 0 and integers[k, _OPENING_TS] != held[row].opening_ts) \
                or not _pay(k, counts[k], fields, codes, amounts, currencies, row, paid):
            continue
        rows[row].quantity, rows[row].average_price = floats[k, _QUANTITY], floats[k, _AVERAGE]
        rows[row].realised_pnl, rows[row].last_ts_event = floats[k, _REALISED], integers[k, _LAST_TS]
        rows[row].opening_quantity, rows[row].opening_price = floats[k, _OPENING], floats[k, _OPENING_PRICE]
        rows[row].opening_realised_pnl, rows[row].shard = floats[k, _OPENING_REALISED], shard
        rows[row].opening_ts = integers[k, _OPENING_TS]
        held[row].offset, held[row].revision = integers[k, _OFFSET], integers[k, _REVISION]
        held[row].opening_ts = integers[k, _OPENING_TS]
        outcome[k], row_of[k] = TAKEN, row


@hot_kernel
def _find(names: NameArrays, buf: np.ndarray, begin: int, end: int) -> int:
    return find_name(names, buf, begin, end - begin, hash_bytes(buf, begin, end - begin))


@hot_kernel
def _code(buf: np.ndarray, begin: int, end: int) -> Any:
    """Return a name as `currency_code` does."""
    code = _NO_CODE
    if end - begin <= 8:
        for k in range(begin, end):
            code = (code << np.uint64(8)) | np.uint64(buf[k])
    return code


@hot_kernel
def _pay(k: int, count: int, fields: np.ndarray, codes: np.ndarray, amounts: np.ndarray, currencies: np.ndarray,
         row: int, paid: np.ndarray) -> bool:
    """Fill the slots of fees and funding; False, and nothing is changed, where they do not fit or have no rate."""
    used, fits = 0, True
    for a in range(count):
        if fields[k, a] == _FEES or fields[k, a] == _FUNDING:
            used += 1
            fits = fits and _index(currencies, codes[k, a]) >= 0
    if fits and used <= FEE_SLOTS:
        slot = 0
        for a in range(count):
            if fields[k, a] == _FEES or fields[k, a] == _FUNDING:
                paid[row, slot].currency = _index(currencies, codes[k, a])
                paid[row, slot].kind = FEE if fields[k, a] == _FEES else FUNDED
                paid[row, slot].amount, paid[row, slot].before = amounts[k, a], 0.0
                for b in range(count):
                    if fields[k, b] == fields[k, a] + 1 and codes[k, b] == codes[k, a]:
                        paid[row, slot].before = amounts[k, b]
                slot += 1
        for rest in range(slot, FEE_SLOTS):
            paid[row, rest].currency = -1
    return fits and used <= FEE_SLOTS


@hot_kernel
def _index(currencies: np.ndarray, code: Any) -> int:
    found = -1
    for c in range(len(currencies)):
        if currencies[c] == code:
            found = c
    return found


class HeldPositions(Sequence[Position]):
    """The newest record of every row; one that a kernel took in is read when somebody asks for it."""

    def __init__(self) -> None:
        self._records: list[Position | bytes] = []

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, row: int) -> Position: ...
    @overload
    def __getitem__(self, row: slice) -> list[Position]: ...
    def __getitem__(self, row: int | slice) -> Position | list[Position]:
        if isinstance(row, slice):
            return [self[k] for k in range(*row.indices(len(self)))]
        record = self._records[row]
        if isinstance(record, bytes):
            record = self._records[row] = _position.decode(record)
        return record

    def replace(self, rows: Sequence[int], records: Sequence[bytes]) -> None:
        """Hold the newest records of rows that are there."""
        held = self._records
        for row, record in zip(rows, records, strict=True):
            held[row] = record

    def put(self, row: int, record: Position) -> None:
        """Hold a row's newest record; the next row is opened by its first one."""
        if row == len(self._records):
            self._records.append(record)
        else:
            self._records[row] = record
