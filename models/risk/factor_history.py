"""Past days of factors, as the moves that historical scenarios are made of."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from models.risk.quantile import volatility_scale

#: prefixes of factors whose moves are absolute: volatilities (0.01 = one point) and rates
VOLATILITY_FACTOR, RATE_FACTOR = "VOL:", "RATE:"


@dataclass(frozen=True)
class History:
    """Factor moves by day, the oldest first.

    Attributes
    ----------
    factors : names; an instrument's own name, or ``VOL:underlying`` or ``RATE:currency``
    moves : float64[days, factors]; relative, absolute for volatilities and rates; NaN where a day has none
    days : labels
    scaled : scenarios are scaled to the volatility of today (`scenario_moves`); what is a past day stays as it was
    """

    factors: tuple[str, ...]
    moves: np.ndarray
    days: tuple[str, ...] = ()
    scaled: bool = False
    index: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.moves.shape[1] != len(self.factors):
            raise ValueError(f"history: expected {len(self.factors)} factors, was {self.moves.shape[1]} columns")
        # a factor that lacks a day would understate risk: what depends on it counts as missing
        usable = np.isfinite(self.moves).all(axis=0)
        self.index.update({name: k for k, name in enumerate(self.factors) if usable[k]})


def scenario_moves(history: History) -> np.ndarray:
    """Return the moves of the scenarios: the days as they were, or scaled to today's volatility.

    Prices are scaled by their log returns: none falls below nothing. What has no usable history stays unusable.
    """
    if not history.scaled:
        return history.moves
    absolute = np.array([n.startswith((VOLATILITY_FACTOR, RATE_FACTOR)) for n in history.factors], bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        returns = np.where(absolute, history.moves, np.log1p(history.moves))
        scaled = volatility_scale(returns)
        return np.where(absolute, scaled, np.expm1(scaled))
