"""Outright FX forwards: the forward where nobody quotes it, and what its P&L is worth today.

Of a pair with base currency B and quote currency Q, a forward to a value date T years away is worth
``quantity x (F - K) x D`` in Q, where ``F = S exp((q - b) T)`` unless it is quoted, K is what was agreed, ``q`` and
``b`` the rates of the two currencies and ``D = exp(-q T)``: all of its P&L, also what a closing deal locked in, is
paid on the value date.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from models.market import Market

NS_PER_YEAR = 365 * 86_400 * 1_000_000_000
FORWARD_DTYPE = np.dtype([("instrument", "i4"), ("underlying", "i4"), ("expiry_ns", "i8"), ("t_years", "f8"),
                          ("quote_rate", "f8"), ("base_rate", "f8")])
RateAt = Callable[[str, float], float]


class Forwards:
    """The FX forwards of one market."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.names: dict[str, tuple[str, str, int]] = {}  # underlying pair, quote currency, value date
        self.rows = np.zeros(0, FORWARD_DTYPE)
        self._old = np.zeros(0, bool)

    def add(self, name: str, underlying: str, currency: str, expiry_ns: int) -> None:
        """Take a forward in; one that is known as it is keeps what is known of it."""
        terms = (underlying, currency, expiry_ns)
        if self.names.get(name) == terms:
            return
        if name not in self.names:
            self.rows = np.concatenate([self.rows, np.zeros(1, FORWARD_DTYPE)])
        self.names[name] = terms
        k = list(self.names).index(name)
        row, market = self.rows[k], self.market
        row["instrument"], row["underlying"] = market.instrument(name), market.instrument(underlying)
        row["expiry_ns"], row["quote_rate"], row["base_rate"] = expiry_ns, np.nan, np.nan
        market.greek_kind[row["instrument"]] = 1
        market.discount[row["instrument"]] = np.nan

    def drop(self, name: str) -> None:
        """Forget a forward whose terms are not known any more."""
        if name in self.names:
            self.rows = np.delete(self.rows, list(self.names).index(name))
            del self.names[name]

    def years_of(self, instruments: int) -> np.ndarray:
        """Return the years to the value date by instrument; 0 for what is no forward."""
        out = np.zeros(instruments)
        inside = self.rows["instrument"] < instruments
        out[self.rows["instrument"][inside]] = self.rows["t_years"][inside]
        return out

    def look_up(self, now_ns: int, rate_at: RateAt, is_old: Callable[[str, int], bool]) -> dict[str, str]:
        """Read the curves anew; a rate that is missing makes forwards unpriced, a curve that is too old stale.

        Returns the forwards that rest on one that is too old, and which one that is.
        """
        old: dict[str, str] = {}
        for name, (underlying, currency, _) in self.names.items():
            curves = (currency, *self.market.pairs.get(underlying, ())[:1])
            old.update((name, curve) for curve in curves if is_old(curve, now_ns))
        self._old = np.array([name in old for name in self.names], bool)
        for row, (underlying, currency, _) in zip(self.rows, self.names.values(), strict=True):
            days = max((int(row["expiry_ns"]) - now_ns) / NS_PER_YEAR, 0.0) * 365.0
            pair = self.market.pairs.get(underlying)
            row["quote_rate"] = rate_at(currency, days)
            row["base_rate"] = rate_at(pair[0], days) if pair and pair[1] == currency else np.nan
        return old

    def refresh(self, now_ns: int, everything: bool) -> int:
        """Value again the forwards whose pair or own quote moved; return how many."""
        market, r = self.market, self.rows
        if not len(r):
            return 0
        changed = market.instrument_changed
        which = np.flatnonzero((changed[r["instrument"]] != 0) | (changed[r["underlying"]] != 0) | everything)
        if not len(which):
            return 0
        r["t_years"][which] = np.maximum((r["expiry_ns"][which] - now_ns) / NS_PER_YEAR, 0.0)
        f = r[which]
        k, t = f["instrument"], f["t_years"]
        outright = market.price[f["underlying"]] * np.exp((f["quote_rate"] - f["base_rate"]) * t)
        unquoted = np.isnan(market.mid[k])
        market.price[k[unquoted]] = outright[unquoted]
        market.set_inputs_stale(k, (unquoted & (market.stale[f["underlying"]] != 0)) | self._old[which])
        discount = np.exp(-f["quote_rate"] * t)
        market.discount[k] = discount
        size = market.price[k] * discount
        none = np.zeros_like(size)
        # rho is that of a forward agreed at the present price: what the quote currency's rate adds to it
        market.unit_greeks[k] = np.stack([size, none, none, none, size * t * 1e-4], axis=1)
        changed[k] = 1
        return len(which)
