"""What a gate remembers of prices: the latch of the short-sale price test, and how far references have moved."""

from __future__ import annotations

import math

import numpy as np

from models.gate.price_drift import PriceDrift
from models.gate.state import GateState
from models.trading_day import TradingDay

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

    def follow(self, k: int, mid: float | None, last: float | None, ts_ns: int, usable: bool) -> None:
        """Take a price of an instrument in."""
        row, price = self._state.instruments[k], mid if mid is not None else last
        if usable and price is not None:
            if row["drift_bps"] > 0.0:
                row["drift_low"], row["drift_high"] = self.drift.follow(k, price, ts_ns)
            if row["soft_drift"] > 0.0:
                row["soft_low"], row["soft_high"] = self.soft_drift.follow(k, price, ts_ns)
        close = row["prior_close"]
        if row["equity"] and mid is not None and not math.isnan(close) and mid <= FALL * close:
            self.begin_test(k, self._day.end_ns(self._day.end_ns(ts_ns)))  # the rest of the day and the next

    def begin_test(self, k: int, end_ns: int) -> None:
        """Put an instrument under the price test until a time."""
        self._state.instruments["price_test"][k] = 1
        self.tests[k] = max(self.tests.get(k, 0), end_ns)

    def end_tests(self, now_ns: int) -> None:
        """End the tests whose time is over."""
        for k in [k for k, end in self.tests.items() if end <= now_ns]:
            del self.tests[k]
            self._state.instruments["price_test"][k] = 0

    def reset(self, which: np.ndarray, window_ns: np.ndarray, soft_window_ns: np.ndarray) -> None:
        """Set how long the windows of instruments are."""
        self.drift.window_ns[which], self.soft_drift.window_ns[which] = window_ns, soft_window_ns
