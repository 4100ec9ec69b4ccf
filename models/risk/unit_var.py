"""Historical VaR of one unit of an instrument alone: what an order adds to the VaR of whatever holds it, at most.

At most as long as VaR is subadditive, which it is for what markets mostly do; what was executed is measured exactly.
"""

from __future__ import annotations

import numpy as np

from models.risk.quantile import node_tails
from models.risk.scenarios import ScenarioBook

#: instruments measured in one go
AT_ONCE = 512


def unit_var(scenarios: ScenarioBook, level: float) -> dict[str, float]:
    """Return by instrument the VaR of one unit, bought or sold, whichever is more, in the firm's base currency.

    An instrument without a history or a price is not there.

    Parameters
    ----------
    scenarios : with unit vectors on the market as it stands
    level : one of those that nodes are measured at
    """
    column = scenarios.level_index(level)
    ranks, tails = scenarios.ranks[column : column + 1], scenarios.tails[column : column + 1]
    instruments = scenarios.book.market.instruments
    names, places = list(instruments), np.fromiter(instruments.values(), np.int64, len(instruments))
    found: dict[str, float] = {}
    for first in range(0, len(names), AT_ONCE):
        unit = scenarios.unit[places[first : first + AT_ONCE]]
        known = np.flatnonzero(~np.isnan(unit).any(axis=1))
        worst, es = np.zeros((2, len(unit), 1))
        for side in (unit, -unit):
            var = np.zeros((len(unit), 1))
            node_tails(side, known, ranks, tails, var, es)
            worst = np.maximum(worst, var)
        found |= {names[first + k]: float(worst[k, 0]) for k in known.tolist()}
    return found
