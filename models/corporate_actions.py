"""What firms do to their shares, and what of it is in force: splits, by which what is held is restated, and dividends.

A split is in force from its time on, by the clock of whoever reads it: until then nothing is restated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import numpy as np

from models.position_window import ACTION_DTYPE
from schemas.corporate import CorporateAction
from schemas.records import External, Instrument
from schemas.units import NS_PER_S, decimal_parts, parse_ts_ns


def effective_ns(record: CorporateAction) -> int:
    """Return from when on an action holds, UTC ns."""
    return parse_ts_ns(record.effective_ts, "effective_ts")


class CorporateActions:
    """All actions that were read, and which of them are in force."""

    def __init__(self) -> None:
        self._records: dict[str, dict[str, CorporateAction]] = {}
        self._now_ns = 0
        #: when the next one comes into force; 0: none is to come
        self.next_ns = 0

    def put(self, record: CorporateAction) -> bool:
        """Take an action in; False where it says what is known."""
        known = self._records.setdefault(record.instrument, {})
        before, known[record.action_id] = known.get(record.action_id), record
        self._look_ahead()
        return before is None or msgspec.structs.replace(before, followed_ts=record.followed_ts) != record

    def find(self, instrument: str, action_id: str) -> CorporateAction | None:
        """Return an action, in force or not; None: it is not known."""
        return self._records.get(instrument, {}).get(action_id)

    def withdraw(self, instrument: str, action_id: str) -> bool:
        """Forget an action; False where it is not known."""
        found = self._records.get(instrument, {}).pop(action_id, None)
        self._look_ahead()
        return found is not None

    def turn(self, now_ns: int) -> list[str]:
        """Return the instruments of which something came into force by now."""
        if not self.next_ns or now_ns < self.next_ns:
            self._now_ns = max(self._now_ns, now_ns)
            return []
        before, self._now_ns = self._now_ns, now_ns
        self._look_ahead()
        return sorted({name for name, known in self._records.items() for record in known.values()
                       if before < effective_ns(record) <= now_ns})

    def _look_ahead(self) -> None:
        ahead = [ns for known in self._records.values() for r in known.values()
                 if (ns := effective_ns(r)) > self._now_ns]
        self.next_ns = min(ahead, default=0)

    def known(self, instrument: str) -> bool:
        """Return whether anything is known of an instrument."""
        return instrument in self._records

    def names(self) -> list[str]:
        """Return the instruments that something is in force of."""
        return sorted(name for name in self._records if self.in_force(name))

    def in_force(self, instrument: str, kind: str | None = None, by_ns: int | None = None) -> list[CorporateAction]:
        """Return what is in force of an instrument, by now or by another time; the earliest first."""
        by = self._now_ns if by_ns is None else by_ns
        found = [r for r in self._records.get(instrument, {}).values() if kind in (None, r.kind)]
        found = [r for r in found if effective_ns(r) <= by]
        return sorted(found, key=lambda r: (effective_ns(r), r.action_id))

    def decimals(self, instrument: str) -> int:
        """Return how many decimals more quantities are counted in, so that every split is exact."""
        splits = self.in_force(instrument, "split")
        return sum(decimal_parts(r.ratio, "ratio")[1] for r in splits if r.ratio is not None)

    def decimals_beside(self, record: CorporateAction) -> int:
        """Return the decimals of all other splits of an instrument, in force or to come."""
        others = [r for r in self._records.get(record.instrument, {}).values() if r.action_id != record.action_id]
        return sum(decimal_parts(r.ratio, "ratio")[1] for r in others if r.ratio is not None)

    def columns(self, instruments: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the splits that are in force (ACTION_DTYPE), and where those of each instrument begin."""
        rows: list[tuple[int, int, int, float, int]] = []
        starts = [0]
        for name in instruments:
            for r in self.in_force(name, "split"):
                assert r.ratio is not None
                mantissa, scale = decimal_parts(r.ratio, "ratio")
                rows.append((effective_ns(r), mantissa, 10**scale, float(r.ratio), _mark(_said(r))))
            starts.append(len(rows))
        return np.array(rows, ACTION_DTYPE), np.array(starts, np.int64)

    def splits_mark(self, instrument: str, until_ns: int) -> int:
        """Return a mark of the splits that are in force of an instrument up to a time; 0: there are none."""
        found = [_said(r) for r in self.in_force(instrument, "split") if effective_ns(r) <= until_ns]
        return _mark(", ".join(found)) if found else 0

    def splits(self) -> list[tuple[int, str, float]]:
        """Return all splits that are known, in force or to come: (from when on, instrument, ratio), by time."""
        return sorted((effective_ns(r), name, float(r.ratio)) for name, known in self._records.items()
                      for r in known.values() if r.ratio is not None)

    def in_units_of_newest(self, instrument: str, statements: Mapping[str, tuple[int, float | None, int]],
                           ) -> list[tuple[int, float | None]]:
        """Return (counted units, average price) of what sources stated at different times, in units of the newest."""
        newest = max((ts for _, _, ts in statements.values()), default=0)
        splits = [(effective_ns(r), r.ratio) for r in self.in_force(instrument, "split") if r.ratio is not None]
        out: list[tuple[int, float | None]] = []
        for _, (units, price, ts) in sorted(statements.items()):
            for at, ratio in splits:
                if ts < at <= newest:
                    units = int(units * ratio)
                    price = None if price is None else price / float(ratio)
            out.append((units, price))
        return out

    def ratio_since(self, instrument: str, ts: int) -> Decimal:
        """Return how many units of now one unit of a time is."""
        ratio = Decimal(1)
        for r in self.in_force(instrument, "split"):
            if ts < effective_ns(r) and r.ratio is not None:
                ratio *= r.ratio
        return ratio

    def restated(self, statement: External) -> External:
        """Return what a source stated in units of now."""
        ratio = self.ratio_since(statement.instrument, parse_ts_ns(statement.ts_event))
        if ratio == 1:
            return statement
        average = statement.average_price
        return msgspec.structs.replace(statement, quantity=statement.quantity * ratio,
                                       average_price=None if average is None else average / ratio)

    def close_of(self, record: Instrument) -> Instrument | None:
        """Return a record whose prior close is restated by the splits since; None: it is as it should be.

        A close without a date is of the day before the one that runs.
        """
        since, left = self._since_close(record, self._now_ns)
        close = record.prior_close
        if close is None or not left:
            return None
        for r in left:
            assert r.ratio is not None
            close = (close / r.ratio).quantize(Decimal(1).scaleb(-12)).normalize()
        return msgspec.structs.replace(record, prior_close=Decimal(f"{close:f}"),
                                       prior_close_splits=[r.action_id for r in since])

    def close_is_of_before(self, record: Instrument, by_ns: int) -> bool:
        """Return whether the prior close of a record is in units of before a split that is in force by a time."""
        return bool(self._since_close(record, by_ns)[1])

    def _since_close(self, record: Instrument, by_ns: int) -> tuple[list[CorporateAction], list[CorporateAction]]:
        """Return the splits since a prior close, and those of them that it is not restated by."""
        today, of = _date(by_ns), record.prior_close_date
        since = [r for r in self.in_force(record.instrument, "split", by_ns)
                 if (_date(effective_ns(r)) > of if of else _date(effective_ns(r)) >= today)]
        done = set(record.prior_close_splits or ())
        return since, [r for r in since if r.action_id not in done]


def _said(split: CorporateAction) -> str:
    assert split.ratio is not None
    return f"{split.action_id} {split.ratio.normalize()} {effective_ns(split)}"


def _mark(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def _date(ns: int) -> str:
    return datetime.fromtimestamp(ns // NS_PER_S, UTC).date().isoformat()
