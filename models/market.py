"""One snapshot's prices and exchange rates, by index, and what of them has changed."""

from __future__ import annotations

import re

import numpy as np

from models.columns import grown
from models.exchange_rates import Pair, solve_rates

#: a close without a date is of whatever day it is asked for
ANY_TIME = (0, 2**63 - 1)
#: what parts the words of an instrument's name, and the code of a currency
_SEPARATORS, _CODE = re.compile(r"[\W_]+"), re.compile(r"[A-Z0-9]{2,12}", re.ASCII)


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
        #: whether the mark is, whether what a model's price or Greeks rest on is, and either of them
        self.mark_stale = np.zeros(1024, np.uint8)
        self.inputs_stale = np.zeros(1024, np.uint8)
        self.stale = np.zeros(1024, np.uint8)
        #: which openings a prior close is of the day before of: ns, the end is not included
        self.close_begin, self.close_end = np.zeros(1024, np.int64), np.full(1024, ANY_TIME[1], np.int64)
        self.instrument_changed = np.zeros(1024, np.uint8)
        #: prices that are known by definition, and that no quote changes: what the marks say of them all the same
        self._defined: dict[int, tuple[float, bool, float]] = {}
        self._rate, self._prior_rate = np.full(64, np.nan), np.full(64, np.nan)
        self._rate_stale = np.zeros(64, np.uint8)
        self.rate_begin, self.rate_end = np.zeros(64, np.int64), np.full(64, ANY_TIME[1], np.int64)
        self._currency_changed = np.zeros(64, np.uint8)
        self._pairs_moved = self._closes_moved = False
        self.pairs: dict[str, tuple[str, str]] = {}
        base = self.currency(base_currency)
        self._rate[base] = self._prior_rate[base] = 1.0

    def instrument(self, name: str) -> int:
        """Return an instrument's index."""
        index = self.instruments.get(name)
        if index is None:
            index = self.instruments[name] = len(self.instruments)
            if index == len(self.mid):
                for column in ("mid", "price", "half_spread", "unit_greeks", "prior_close"):
                    setattr(self, column, grown(getattr(self, column), 2 * index, np.nan))
                for column in ("greek_kind", "stale", "mark_stale", "inputs_stale", "instrument_changed", "accrued",
                               "close_begin"):
                    setattr(self, column, grown(getattr(self, column), 2 * index))
                self.discount = grown(self.discount, 2 * index, 1.0)
                self.close_end = grown(self.close_end, 2 * index, ANY_TIME[1])
        return index

    def currency(self, name: str) -> int:
        """Return a currency's index."""
        index = self.currencies.get(name)
        if index is None:
            index = self.currencies[name] = len(self.currencies)
            if index == len(self._rate):
                self._rate, self._prior_rate = (grown(x, 2 * index, np.nan) for x in (self._rate, self._prior_rate))
                self._rate_stale, self._currency_changed, self.rate_begin = (
                    grown(x, 2 * index) for x in (self._rate_stale, self._currency_changed, self.rate_begin))
                self.rate_end = grown(self.rate_end, 2 * index, ANY_TIME[1])
        return index

    @property
    def rate(self) -> np.ndarray:
        """Units of the base currency per unit of every currency, from all pairs of the snapshot."""
        self._solve()
        return self._rate

    @property
    def prior_rate(self) -> np.ndarray:
        """Rates of the prior closes; ``rate_begin`` and ``rate_end`` say of which openings they are the day before."""
        self._solve()
        return self._prior_rate

    @property
    def rate_stale(self) -> np.ndarray:
        """Whether the rate of a currency rests on a stale pair."""
        self._solve()
        return self._rate_stale

    @property
    def currency_changed(self) -> np.ndarray:
        """The currencies whose rate, or how good it is, has changed."""
        self._solve()
        return self._currency_changed

    def set_pair(self, instrument: str, base: str, quote: str, prior_close: float | None,
                 openings: tuple[int, int] = ANY_TIME) -> None:
        """Say that an instrument's price is units of ``quote`` per unit of ``base``."""
        self.pairs[instrument] = (base, quote)
        self.currency(base)
        self.currency(quote)
        self._pairs_moved = True
        self.set_prior_close(instrument, prior_close, openings)

    def set_prior_close(self, instrument: str, prior_close: float | None,
                        openings: tuple[int, int] = ANY_TIME) -> None:
        """Fix an instrument's prior close; a pair's also moves the prior exchange rates.

        Parameters
        ----------
        openings : begin and end, in ns, of the openings that it is the close of the day before of
        """
        k = self.instrument(instrument)
        self.prior_close[k] = np.nan if prior_close is None else prior_close
        self.close_begin[k], self.close_end[k] = openings
        self.instrument_changed[k] = 1
        self._closes_moved = self._closes_moved or instrument in self.pairs

    def define_price(self, instrument: str, price: float) -> None:
        """Fix a price that needs no quote: a unit of cash is worth one unit of its currency, today and before."""
        k = self.instrument(instrument)
        self._defined.setdefault(k, (float(self.mid[k]), bool(self.mark_stale[k]), float(self.half_spread[k])))
        self.mid[k] = self.price[k] = self.prior_close[k] = price
        self.half_spread[k] = 0.0
        self.mark_stale[k] = self.stale[k] = 0
        self.close_begin[k], self.close_end[k] = ANY_TIME
        self.instrument_changed[k] = 1

    def forget(self, instrument: str) -> None:
        """Forget what its terms made of an instrument: its mark, and its close, are what is left of it."""
        k = self.instrument(instrument)
        if k in self._defined:
            self.mid[k], self.mark_stale[k], self.half_spread[k] = self._defined.pop(k)
        self.price[k], self.stale[k], self.inputs_stale[k] = self.mid[k], self.mark_stale[k], 0
        self.greek_kind[k], self.unit_greeks[k], self.accrued[k], self.discount[k] = 0, np.nan, 0.0, 1.0
        self.instrument_changed[k] = 1
        self.drop_pair(instrument)

    def drop_pair(self, instrument: str) -> None:
        """Know no more that an instrument's price is an exchange rate."""
        if self.pairs.pop(instrument, None) is not None:
            self._pairs_moved = self._closes_moved = True

    def set_mark(self, instrument: str, mid: float | None, stale: bool, half_spread: float = np.nan) -> None:
        """Take a mark in; what a price is known by definition for has no use for one.

        Parameters
        ----------
        half_spread : NaN: one side, or both, is not quoted
        """
        k = self.instrument(instrument)
        value = np.nan if mid is None else mid
        stale = stale and value == value
        if k in self._defined:
            self._defined[k] = value, stale, half_spread
            return
        self.half_spread[k] = half_spread
        same = self.mid[k] == value or (value != value and self.mid[k] != self.mid[k])
        if same and bool(self.mark_stale[k]) == stale:
            return
        self.mid[k] = self.price[k] = value
        self.mark_stale[k] = stale
        self.stale[k] = stale or self.inputs_stale[k] != 0
        self.instrument_changed[k] = 1
        self._pairs_moved = self._pairs_moved or instrument in self.pairs

    def set_inputs_stale(self, instruments: np.ndarray, stale: np.ndarray) -> None:
        """Say whether what prices or Greeks of some instruments rest on, beside their own marks, is stale."""
        self.inputs_stale[instruments] = stale
        self.stale[instruments] = (self.mark_stale[instruments] != 0) | stale

    def _solve(self) -> None:
        """Bring the exchange rates up to the marks and closes of the pairs, all at once."""
        if self._closes_moved:
            self._closes_moved = False
            self._solve_prior()
        if not self._pairs_moved:
            return
        self._pairs_moved = False
        found = solve_rates([Pair(self.currencies[left], self.currencies[right], float(self.mid[k]),
                                  bool(self.mark_stale[k]))
                             for name, (left, right) in self.pairs.items() if (k := self.instruments[name]) >= 0],
                            self.currencies[self.base_currency], len(self._rate))
        stale = found.stale > 0
        same = (found.rate == self._rate) | (np.isnan(found.rate) & np.isnan(self._rate))
        self._currency_changed[~same | (stale != (self._rate_stale != 0))] = 1
        self._rate[:], self._rate_stale[:] = found.rate, stale

    def _solve_prior(self) -> None:
        """Derive the exchange rates of the prior day from the pairs' closes."""
        found = solve_rates([Pair(self.currencies[left], self.currencies[right], float(self.prior_close[k]), False,
                                  int(self.close_begin[k]), int(self.close_end[k]))
                             for name, (left, right) in self.pairs.items() if (k := self.instruments[name]) >= 0],
                            self.currencies[self.base_currency], len(self._prior_rate))
        before = (self._prior_rate, self.rate_begin, self.rate_end)
        same = [(new == old) | ((new != new) & (old != old))
                for new, old in zip((found.rate, found.begin, found.end), before, strict=True)]
        self._currency_changed[~np.logical_and.reduce(same)] = 1
        for new, old in zip((found.rate, found.begin, found.end), before, strict=True):
            old[:] = new


def pair_currencies(instrument: str, currency: str) -> tuple[str, str] | None:
    """Return (base, quote) of an FX instrument named ``EURUSD``, ``EUR/USD``, ``USDT.USD`` or ``EURUSD.EBS``, or None.

    The base is what stands before the currency in the name, separators aside: capital letters and digits, 2 to 12. What
    follows the currency is set apart by a separator, and says nothing of it.
    """
    parts = _SEPARATORS.split(instrument)
    for k in range(len(parts), 0, -1):
        code = "".join(parts[:k])
        base = code.removesuffix(currency)
        if base != code and base != currency and _CODE.fullmatch(base):
            return base, currency
    return None
