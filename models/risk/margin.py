"""What margin the positions of nodes need: initial and maintenance, each tier's rate on its slice of the notional.

A position is one instrument of one account, long less short: its legs are netted before rates are applied. Rates are
shares of the notional with leverage included; what a clearing house saves by offsets between instruments is not known.
"""

from __future__ import annotations

import math

import numpy as np

from models.jit import kernel
from models.valued_book import ValuedBook
from schemas.records import MARGIN_TIERS_MAX, Instrument

INITIAL, MAINTENANCE = 0, 1
_TIERS = MARGIN_TIERS_MAX
#: equity that is gone, in the firm's base currency: what is needed is so many times as much
EQUITY_MIN = 1.0


@kernel
def margin_of_rows(rows: np.ndarray, own: np.ndarray, ancestors: np.ndarray, count: int, tiers: np.ndarray,
                   rate: np.ndarray, out: np.ndarray) -> None:
    """Sum up margin by node, in the firm's base currency; NaN where a price or a rate of a position is missing.

    Parameters
    ----------
    own : float64[rows, 3], its second column the market value in settlement currency
    tiers : float64[instruments, tiers, 3]: where a slice ends (NaN: nowhere), its initial and its maintenance rate
    rate : by currency, to the firm's
    out : float64[nodes, 2]
    """
    out[:] = 0.0
    for r in range(count):
        if rows[r].live == 0 or rows[r].quantity == 0.0:
            continue
        notional, low, initial, maintenance = abs(own[r, 1]), 0.0, 0.0, 0.0
        for t in range(_TIERS):
            end = tiers[rows[r].instrument, t, 0]
            part = notional - low
            if end == end:
                part = min(part, end - low)
            if not part > 0.0:
                break
            initial += part * tiers[rows[r].instrument, t, 1]
            maintenance += part * tiers[rows[r].instrument, t, 2]
            low += part
        if not notional <= low * (1.0 + 1e-12):
            initial, maintenance = np.nan, np.nan
        x = rate[rows[r].currency]
        for n in ancestors[r]:
            if n >= 0:
                out[n, 0] += initial * x
                out[n, 1] += maintenance * x


def tiers_of(instrument: Instrument | None) -> list[tuple[float, float, float]]:
    """Return (end of the slice, initial rate, maintenance rate) of an instrument; NaN: no end, no rate."""
    if instrument is None:
        return []
    if instrument.margin_tiers is not None:
        return [(math.nan if t.up_to is None else float(t.up_to), float(t.initial), float(t.maintenance))
                for t in instrument.margin_tiers]
    initial, maintenance = (math.nan if x is None else float(x) for x in (instrument.margin_initial,
                                                                          instrument.margin_maintenance))
    return [(math.nan, initial, maintenance)]


class Margins:
    """The margin of every node of a book; rates are looked up when reference data change."""

    def __init__(self) -> None:
        self._known = (-1, -1)
        self._tiers = np.zeros((0, _TIERS, 3))

    def of(self, book: ValuedBook) -> np.ndarray:
        """Return float64[nodes, 2]: initial and maintenance margin in the firm's base currency, NaN: not known."""
        market, rollup = book.market, book.rollup
        known = (book.reference.version, len(market.instruments))
        if known != self._known:
            self._known, self._tiers = known, np.full((len(market.instruments), _TIERS, 3), math.nan)
            for name, k in market.instruments.items():
                for t, tier in enumerate(tiers_of(book.reference.instrument_records.get(name))):
                    self._tiers[k, t] = tier
        out = np.zeros((len(rollup.nodes), 2))
        margin_of_rows(rollup.rows, rollup.own, rollup.ancestors, rollup.count, self._tiers, market.rate, out)
        return out


def usage(maintenance: float, nav: float, pnl: float) -> float:
    """Return maintenance margin over equity (NAV and P&L since); above 1 there is a shortfall."""
    return maintenance / max(nav + pnl, EQUITY_MIN)
