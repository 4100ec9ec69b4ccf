"""One snapshot's prices and exchange rates, by index, and what of them has changed."""

from __future__ import annotations

import numpy as np

from models.columns import grown


class Market:
    """One snapshot's prices and exchange rates, by index."""

    def __init__(self, base_currency: str) -> None:
        self.base_currency = base_currency
        self.instruments: dict[str, int] = {}
        self.currencies: dict[str, int] = {}
        self.mid = np.full(1024, np.nan)
        #: the mark, or where there is none the model's price of an option
        self.price = np.full(1024, np.nan)
        self.half_spread = np.full(1024, np.nan)
        self.greek_kind = np.zeros(1024, np.uint8)
        self.unit_greeks = np.full((1024, 5), np.nan)
        self.prior_close = np.full(1024, np.nan)
        #: interest that paper has accrued, in units of its price; what a forward's P&L is worth today
        self.accrued = np.zeros(1024)
        self.discount = np.ones(1024)
        self.stale = np.zeros(1024, np.uint8)
        self.instrument_changed = np.zeros(1024, np.uint8)
        self.rate = np.full(64, np.nan)
        self.prior_rate = np.full(64, np.nan)
        self.currency_changed = np.zeros(64, np.uint8)
        self.pairs: dict[str, tuple[str, str]] = {}
        base = self.currency(base_currency)
        self.rate[base] = self.prior_rate[base] = 1.0

    def instrument(self, name: str) -> int:
        """Return an instrument's index."""
        index = self.instruments.get(name)
        if index is None:
            index = self.instruments[name] = len(self.instruments)
            if index == len(self.mid):
                for column in ("mid", "price", "half_spread", "unit_greeks", "prior_close"):
                    setattr(self, column, grown(getattr(self, column), 2 * index, np.nan))
                for column in ("greek_kind", "stale", "instrument_changed", "accrued"):
                    setattr(self, column, grown(getattr(self, column), 2 * index))
                self.discount = grown(self.discount, 2 * index, 1.0)
        return index

    def currency(self, name: str) -> int:
        """Return a currency's index."""
        index = self.currencies.get(name)
        if index is None:
            index = self.currencies[name] = len(self.currencies)
            if index == len(self.rate):
                self.rate, self.prior_rate = (grown(x, 2 * index, np.nan) for x in (self.rate, self.prior_rate))
                self.currency_changed = grown(self.currency_changed, 2 * index)
        return index

    def set_pair(self, instrument: str, base: str, quote: str, prior_close: float | None) -> None:
        """Say that an instrument's price is units of ``quote`` per unit of ``base``."""
        self.pairs[instrument] = (base, quote)
        self.currency(base)
        self.currency(quote)
        self.set_prior_close(instrument, prior_close)

    def set_prior_close(self, instrument: str, prior_close: float | None) -> None:
        """Fix an instrument's prior close; a pair's also moves the prior exchange rates."""
        k = self.instrument(instrument)
        self.prior_close[k] = np.nan if prior_close is None else prior_close
        self.instrument_changed[k] = 1
        if instrument in self.pairs:
            self._cross(self.prior_rate, self.prior_close)

    def set_mark(self, instrument: str, mid: float | None, stale: bool) -> None:
        """Take a mark in."""
        k = self.instrument(instrument)
        value = np.nan if mid is None else mid
        same = self.mid[k] == value or (value != value and self.mid[k] != self.mid[k])
        if same and bool(self.stale[k]) == stale:
            return
        self.mid[k] = self.price[k] = value
        self.stale[k] = stale
        self.instrument_changed[k] = 1
        if instrument in self.pairs:
            self._cross(self.rate, self.mid)

    def _cross(self, rate: np.ndarray, price: np.ndarray) -> None:
        """Derive base-currency rates from the pairs: direct ones first, then over one more pair."""
        base = self.base_currency
        fresh = np.full(len(rate), np.nan)
        fresh[self.currencies[base]] = 1.0
        for _ in range(2):
            for name, (left, right) in self.pairs.items():
                p = price[self.instruments[name]]
                a, b = self.currencies[left], self.currencies[right]
                if p != p or p <= 0:
                    continue
                if fresh[b] == fresh[b] and fresh[a] != fresh[a]:
                    fresh[a] = p * fresh[b]
                elif fresh[a] == fresh[a] and fresh[b] != fresh[b]:
                    fresh[b] = fresh[a] / p
        moved = ~((fresh == rate) | (np.isnan(fresh) & np.isnan(rate)))
        rate[:] = fresh
        self.currency_changed[moved] = 1


def pair_currencies(instrument: str, currency: str) -> tuple[str, str] | None:
    """Return (base, quote) of an FX instrument named ``EURUSD``, ``EUR/USD`` or ``EUR.USD``, or None."""
    letters = "".join(c for c in instrument if c.isalpha())
    if len(letters) == 6 and letters[3:] == currency:
        return letters[:3], letters[3:]
    return None
