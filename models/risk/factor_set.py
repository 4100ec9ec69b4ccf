"""Named risk factors from a history: markets, sectors, styles, rates, currencies, crypto, and who loads on them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from models.market import Market
from models.risk import factor, monte_carlo
from models.risk.factor_history import RATE_FACTOR, VOLATILITY_FACTOR, History
from models.valued_book import ValuedBook
from schemas.asset_classes import COINS
from schemas.instrument_terms import OPTION_CLASSES, PAPER_CLASSES

PATHS, SEED = 10_000, 20_260_101
#: in front of an instrument whose price moves by differences, as the name of its factor
ABSOLUTE = "absolute:"


@dataclass
class FactorSet:
    """Named risk factors, how every instrument loads on them, and their covariance."""

    names: list[str]
    covariance: np.ndarray
    loadings: dict[str, np.ndarray]
    specific: dict[str, float]
    draws: np.ndarray
    #: by place of an instrument whose price moves by differences, its own factor: P&L per unit of price moves with it
    absolute_of: dict[int, int] = field(default_factory=dict)


class Loadings:
    """What every instrument loads on: its own fit, or that of its underlying, or of paper's rates."""

    def __init__(self, factors: FactorSet, book: ValuedBook) -> None:
        self._factors, self._book = factors, book
        self._loadings, self._specific = np.zeros((0, 0)), np.zeros(0)
        self._rates_of_paper: dict[int, str] = {}

    def of(self, instruments: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (loadings[instruments, factors], specific variance), to multiply cash deltas with; NaN: unknown."""
        if len(self._loadings) != instruments:
            self._look_up(instruments)
        for k, name in self._rates_of_paper.items():  # what its price loads on moves with its duration
            first, _ = self._book.contracts.paper.sensitivity.get(k, (np.nan, np.nan))
            per_price = first / self._book.market.price[k]
            self._loadings[k] = per_price * self._factors.loadings[name]
            self._specific[k] = per_price ** 2 * self._factors.specific[name]
        return self._loadings, self._specific

    def by_price(self, columns: dict[str, np.ndarray]) -> np.ndarray:
        """Return float64[instruments, factors], to multiply quantities with: of prices that move by differences.

        Parameters
        ----------
        columns : of the scenario book: unit and settlement currency by instrument
        """
        market, out = self._book.market, np.zeros_like(self._loadings)
        for k, j in self._factors.absolute_of.items():
            out[k, j] = columns["unit"][k] * market.rate[columns["currency"][k]] * market.discount[k]
        return out

    def _look_up(self, instruments: int) -> None:
        fs, book = self._factors, self._book
        self._loadings = np.full((instruments, len(fs.names)), np.nan)
        self._specific = np.full(instruments, np.nan)
        for name, k in book.market.instruments.items():
            record = book.reference.instrument_records.get(name)
            source = name if name in fs.loadings and not (record and record.asset_class in OPTION_CLASSES) else (
                record.underlying if record else None)
            if source in fs.loadings:
                self._loadings[k], self._specific[k] = fs.loadings[source], fs.specific[source]
            elif record and record.asset_class in PAPER_CLASSES and RATE_FACTOR + record.currency in fs.loadings:
                self._rates_of_paper[k] = RATE_FACTOR + record.currency


def absolute_names(market: Market, history: History) -> frozenset[str]:
    """Return the instruments whose price moves by differences: it was at or below zero, or is by now."""
    now = {name for name, k in market.instruments.items() if market.price[k] <= 0.0 and name in history.index}
    return frozenset((now if history.steps is not None else set()) | (history.absolute & history.index.keys()))


def _absolute_moves(book: ValuedBook, history: History, absolute: frozenset[str]) -> dict[str, np.ndarray]:
    """Return past differences of the prices that a quantity is multiplied with; options and inverse ones are not."""
    out, records = {}, book.reference.instrument_records
    for name in sorted(absolute & book.market.instruments.keys()):
        record = records.get(name)
        if record is not None and record.asset_class not in OPTION_CLASSES and not record.inverse \
                and name not in book.market.pairs and name not in history.relative:
            # a price that is said to move by fractions has no move where it is at or below zero
            k = history.index[name]
            out[name] = history.moves[:, k] if name in history.absolute else history.steps[:, k]  # type: ignore[index]
    return out


def build_factors(book: ValuedBook, history: History, absolute: frozenset[str] = frozenset()) -> FactorSet:
    """Return factors from the history: markets, sectors (beyond the market), styles, rates, currencies, crypto.

    A pair is a factor of its own, unless its sector says that it is of `COINS`; perpetuals are coins, unless their
    sector says what else. A market is the mean of its instruments' moves; every instrument's loadings are fitted by
    least squares, what is left is its specific risk. A price that moves by differences is a factor of its own, in units
    of price: it loads nothing else, and nothing else loads on it; their covariance says how they move together.

    Parameters
    ----------
    absolute : see `absolute_names`
    """
    records = book.reference.instrument_records
    groups: dict[str, list[int]] = {}
    index = {n: k for n, k in history.index.items() if n not in absolute}  # loadings are of relative moves
    for name, k in index.items():
        record = records.get(name)
        if name.startswith(RATE_FACTOR):
            groups.setdefault(f"rates:{name.removeprefix(RATE_FACTOR)}", []).append(k)
        elif record is None or name.startswith(VOLATILITY_FACTOR):
            continue
        elif record.asset_class == "fx":  # what a pair is of, its record says: no code of three letters does
            groups.setdefault(COINS if record.sector == COINS else f"fx:{record.instrument}", []).append(k)
        elif record.asset_class == "perpetual":
            kind = record.sector or COINS
            groups.setdefault(COINS if kind == COINS else f"perpetual:{kind}", []).append(k)
        elif record.asset_class in ("equity", "future"):
            groups.setdefault("market", []).append(k)
            if record.sector:
                groups.setdefault(f"sector:{record.sector}", []).append(k)
    names = list(groups)
    moves = np.nan_to_num(history.moves)
    series = np.column_stack([moves[:, groups[n]].mean(axis=1) for n in names]) if names else np.zeros((len(moves), 0))
    for j, name in enumerate(names):
        if name.startswith("sector:"):
            series[:, j] -= series[:, names.index("market")]
    equities = [k for n, k in index.items() if n in records and records[n].asset_class == "equity"]
    for style, moved in factor.style_returns(moves[:, equities]).items():
        names.append(f"style:{style}")
        series = np.column_stack([series, moved])
    fitted, specific = factor.factor_model(moves, series)
    steps = _absolute_moves(book, history, absolute)
    absolute_of = {book.market.instruments[name]: len(names) + j for j, name in enumerate(steps)}
    names += [f"{ABSOLUTE}{name}" for name in steps]
    series = np.column_stack([series, *steps.values()])
    covariance = np.cov(series, rowvar=False).reshape(len(names), len(names)) if names else np.zeros((0, 0))
    loadings = {n: np.concatenate([fitted[k], np.zeros(len(steps))]) for n, k in index.items()}
    return FactorSet(names, covariance, loadings, {n: float(specific[k]) for n, k in index.items()},
                     _draws(covariance, len(names) - len(steps)), absolute_of)


def _draws(covariance: np.ndarray, relative: int) -> np.ndarray:
    """Return simulated moves of factors, float64[paths, factors].

    What moves relatively is drawn first: its paths are the same whatever moves by differences beside it, which is what
    the others say of it and a part of its own.
    """
    if not len(covariance):
        return np.zeros((PATHS, 0))
    first, crossed = covariance[:relative, :relative], covariance[:relative, relative:]
    draws = monte_carlo.factor_draws(first, PATHS, SEED) if relative else np.zeros((PATHS, 0))
    if relative == len(covariance):
        return draws
    said = np.linalg.pinv(first, hermitian=True) @ crossed
    own = monte_carlo.factor_draws(covariance[relative:, relative:] - crossed.T @ said, PATHS, SEED + 2)
    return np.column_stack([draws, draws @ said + own])
