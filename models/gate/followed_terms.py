"""What works is held by the terms of its instrument as they are now: a correction of them reaches it at once.

An instrument that is put right (its multiplier, quanto rate, asset class, margin, close, ...) changes what every
working order in it holds, and what those in options on it do. Greeks follow with the next market window, and what they
are measured for is held anew then. What a decision said of an order's value stays in the sums of its day.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from models.gate.positions import GatePositions
from models.gate.state import GateState
from models.gate.unit_figures import figures_of_unit
from models.trading_day import TradingDay
from models.valued_book import ValuedBook


class FollowedTerms(GatePositions):
    """Holds anew what works in instruments whose terms have changed."""

    def __init__(self, book: ValuedBook, state: GateState, day: TradingDay) -> None:
        super().__init__(book, state, day)
        #: instruments that orders work in, whose Greeks are measured by new terms in the next market window
        self._restated: set[int] = set()

    def follow_terms(self, instrument: int, name: str, scaled: float) -> bool:
        """Hold anew what works in an instrument; return whether anything does.

        Parameters
        ----------
        scaled : what one unit is worth by its new terms, in terms of what it was worth
        """
        if scaled != 1.0:
            for key, (net, credit) in [(x, held) for x, held in self.at_venue.items() if x[2] == instrument]:
                self.hold_at_venue(key, net, credit * scaled)
        which = self._works_in(instrument, name)
        self.hold_anew(which)
        self._restated |= which
        return bool(which)

    def _works_in(self, instrument: int, name: str) -> set[int]:
        """Return an instrument, and the options on it, where anything works in them."""
        records, which = self.book.reference.instrument_records, {k for _, k in self._held if k == instrument}
        for (_, k), orders in self.of_position.items():
            if orders and k not in which:
                record = records.get(next(iter(orders.values())).order.instrument)
                if k == instrument or (record is not None and record.underlying == name):
                    which.add(k)
        return which

    def hold_anew(self, instruments: AbstractSet[int]) -> None:
        """Give back what works in some instruments as it was taken, and hold it by what one unit is now."""
        if not instruments:
            return
        for key in [k for k in {**self.of_position, **self._held} if k[1] in instruments]:
            for w in self.of_position.get(key, {}).values():
                self._reserve(w, -1.0)
                w.gross, w.net, w.delta, w.vega, w.var = figures_of_unit(self.state, w.instrument, w.side)
                self._reserve(w, 1.0)
            if self.works(*key):
                self.hold_position(*key)

    def hold_restated(self) -> None:
        """Hold anew what works in instruments whose terms have changed since the last market window."""
        restated, self._restated = self._restated, set()
        self.hold_anew(restated)
