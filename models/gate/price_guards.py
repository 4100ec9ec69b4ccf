"""What a gate remembers of prices: the latch of the short-sale price test, and how far references have moved."""

from __future__ import annotations

import math

import numpy as np

from models.corporate_actions import CorporateActions, effective_ns
from models.gate.price_drift import PriceDrift
from models.gate.state import GateState
from models.trading_day import TradingDay
from schemas.gate_state import GatePrice, GateWindow
from schemas.records import Instrument

#: a fall by so much of the prior close begins the price test (Reg SHO 201)
FALL = 0.9


class PriceGuards:
    """Follows the prices of all instruments into the columns of a gate."""

    def __init__(self, state: GateState, day: TradingDay) -> None:
        self._state, self._day = state, day
        instruments = len(state.instruments)
        self.drift, self.soft_drift = PriceDrift(instruments), PriceDrift(instruments)
        #: of instruments under the price test: when it ends
        self.tests: dict[int, int] = {}
        #: those whose test began since that was written down last
        self.begun: set[int] = set()
        #: of instruments, for whoever knows: prices of before a split are in other units
        self.actions = CorporateActions()
        #: names that something was written down of
        self.written: set[str] = set()

    def follow(self, k: int, mid: float | None, last: float | None, ts_ns: int, usable: bool,
               record: Instrument | None = None) -> None:
        """Take a price of an instrument in; what is in units of before a split is not compared with it."""
        row, price = self._state.instruments[k], mid if mid is not None else last
        splits = (self.actions.in_force(record.instrument, "split", ts_ns)
                  if record is not None and self.actions.known(record.instrument) else [])
        for drift in (self.drift, self.soft_drift) if splits else ():
            drift.forget(k, effective_ns(splits[-1]))
        if usable and price is not None:
            if row["drift_bps"] > 0.0:
                row["drift_low"], row["drift_high"] = self.drift.follow(k, price, ts_ns)
            if row["soft_drift"] > 0.0:
                row["soft_low"], row["soft_high"] = self.soft_drift.follow(k, price, ts_ns)
        close = row["prior_close"]
        if row["equity"] and mid is not None and not math.isnan(close) and mid <= FALL * close and not (
                splits and record is not None and self.actions.close_is_of_before(record, ts_ns)):
            self.begin_test(k, self._day.end_ns(self._day.end_ns(ts_ns)))  # the rest of the day and the next

    def begin_test(self, k: int, end_ns: int) -> None:
        """Put an instrument under the price test until a time."""
        self._state.instruments["price_test"][k] = 1
        if end_ns > self.tests.get(k, 0):
            self.tests[k] = end_ns
            self.begun.add(k)

    def end_tests(self, now_ns: int) -> None:
        """End the tests whose time is over."""
        for k in [k for k, end in self.tests.items() if end <= now_ns]:
            del self.tests[k]
            self._state.instruments["price_test"][k] = 0

    def cares(self, name: str) -> bool:
        """Whether every price of an instrument counts, not the newest alone."""
        k = self._state.instrument_index.get(name)
        if k is None:
            return False
        row = self._state.instruments[k]
        return bool(row["drift_bps"] > 0.0 or row["soft_drift"] > 0.0 or (
            row["equity"] and not math.isnan(row["prior_close"])))

    # ---- what a gate that starts later has to know ----------------------------------------------------------------
    def cut(self, begun_alone: bool = False) -> list[tuple[str, GatePrice | None]]:
        """Return what is remembered of instruments, by name; None: nothing any more.

        ``begun_alone``: of those whose price test began since the last cut.
        """
        names = list(self._state.instrument_index)
        rows = self._state.instruments[: len(names)]
        limited = np.flatnonzero((rows["drift_bps"] > 0.0) | (rows["soft_drift"] > 0.0)).tolist()
        which = sorted(self.begun) if begun_alone else sorted({*limited, *self.tests})
        self.begun.clear()
        found: dict[str, GatePrice | None] = {}
        for k in which:
            windows = [GateWindow(soft=soft, window_ns=int(drift.window_ns[k]), buckets=kept)
                       for soft, drift in ((False, self.drift), (True, self.soft_drift)) if (kept := drift.kept(k))]
            if windows or k in self.tests:
                found[names[k]] = GatePrice(instrument=names[k], test_ends=self.tests.get(k, 0), windows=windows)
        if not begun_alone:
            found |= dict.fromkeys(self.written - found.keys())
            self.written = {name for name, entry in found.items() if entry is not None}
        else:
            self.written |= found.keys()
        return list(found.items())

    def put(self, entry: GatePrice, now_ns: int) -> None:
        """Take in what another gate, or one before, remembered of an instrument."""
        self.written.add(entry.instrument)
        k = self._state.instrument_index.get(entry.instrument)
        if k is None:
            return
        if entry.test_ends > now_ns:
            self.begin_test(k, entry.test_ends)
            self.begun.discard(k)
        row = self._state.instruments[k]
        for window in entry.windows:
            drift, low, high = ((self.soft_drift, "soft_low", "soft_high") if window.soft
                                else (self.drift, "drift_low", "drift_high"))
            if row["soft_drift" if window.soft else "drift_bps"] > 0.0 and (
                    found := drift.put(k, window.window_ns, window.buckets)) is not None:
                row[low], row[high] = found

    def reset(self, which: np.ndarray, window_ns: np.ndarray, soft_window_ns: np.ndarray) -> None:
        """Set how long the windows of instruments are."""
        self.drift.window_ns[which], self.soft_drift.window_ns[which] = window_ns, soft_window_ns
