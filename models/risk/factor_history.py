"""Past days of factors, as the moves that historical scenarios are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from models.risk.quantile import volatility_scale

#: prefixes of factors whose moves are absolute: volatilities (0.01 = one point) and rates
VOLATILITY_FACTOR, RATE_FACTOR = "VOL:", "RATE:"


@dataclass(frozen=True)
class History:
    """Factor moves by day, the oldest first.

    Attributes
    ----------
    factors : names; an instrument's own name, or ``VOL:underlying`` or ``RATE:currency``
    moves : float64[days, factors]; relative, differences of volatilities and rates; NaN where a day has none
    absolute : prices that were at or below zero, or whose instrument says so: their moves are differences too
    relative : prices whose instrument says that they move by fractions
    steps : float64[days, factors], differences of all prices, for those that are at or below zero by now
    days : labels
    scaled : scenarios are scaled to the volatility of today (`scenario_moves`); what is a past day stays as it was
    horizon_days : a scenario is so many days in a row, overlapping
    """

    factors: tuple[str, ...]
    moves: np.ndarray
    days: tuple[str, ...] = ()
    scaled: bool = False
    horizon_days: int = 1
    absolute: frozenset[str] = frozenset()
    steps: np.ndarray | None = None
    relative: frozenset[str] = frozenset()
    index: dict[str, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.moves.shape[1] != len(self.factors):
            raise ValueError(f"history: expected {len(self.factors)} factors, was {self.moves.shape[1]} columns")
        # a factor that lacks a day would understate risk: what depends on it counts as missing
        usable = np.isfinite(self.moves).all(axis=0)
        if not 1 <= self.horizon_days <= max(len(self.moves), 1):
            raise ValueError(f"horizon_days: expected 1 to {len(self.moves)}, was {self.horizon_days}")
        self.index.update({name: k for k, name in enumerate(self.factors) if usable[k]})


def stated(history: History, kinds: Mapping[str, str]) -> History:
    """Return a history whose factors move as their instruments say.

    By differences (``absolute``), or by fractions (``relative``, ``log``: several days add up as log returns): a price
    that was at or below zero has none, and what rests on it is missing.
    """
    moves, absolute, relative = history.moves, set(history.absolute), set[str]()
    for k, name in enumerate(history.factors):
        kind = kinds.get(name)
        if kind is None or name.startswith((VOLATILITY_FACTOR, RATE_FACTOR)):
            continue
        moves = moves.copy() if moves is history.moves else moves
        if kind == "absolute" and name not in absolute:
            moves[:, k] = np.nan if history.steps is None else history.steps[:, k]
            absolute.add(name)
        elif kind != "absolute":
            relative.add(name)
            if name in absolute:
                moves[:, k] = np.nan
                absolute.remove(name)
    return replace(history, moves=moves, absolute=frozenset(absolute), relative=frozenset(relative))


def scenario_moves(history: History) -> np.ndarray:
    """Return the moves of the scenarios: the days as they were, or scaled to today's volatility; or several in a row.

    Prices are scaled and added by their log returns: none falls below nothing. Volatilities and rates add up. What has
    no usable history stays unusable.
    """
    if not history.scaled and history.horizon_days == 1:
        return history.moves
    absolute = np.array([n.startswith((VOLATILITY_FACTOR, RATE_FACTOR)) or n in history.absolute
                         for n in history.factors], bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        returns = np.where(absolute, history.moves, np.log1p(history.moves))
        if history.scaled:
            returns = volatility_scale(returns)
        if history.horizon_days > 1:
            returns = sliding_window_view(returns, history.horizon_days, axis=0).sum(axis=-1)
        return np.where(absolute, returns, np.expm1(returns))
