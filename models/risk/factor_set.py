"""Named risk factors taken from a history: markets, sectors, rates, currencies, crypto, and what loads on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.risk import factor, monte_carlo
from models.risk.factor_history import RATE_FACTOR, VOLATILITY_FACTOR, History
from models.valued_book import ValuedBook

PATHS, SEED = 10_000, 20_260_101


@dataclass
class FactorSet:
    """Named risk factors, how every instrument loads on them, and their covariance."""

    names: list[str]
    covariance: np.ndarray
    loadings: dict[str, np.ndarray]
    specific: dict[str, float]
    draws: np.ndarray


def build_factors(book: ValuedBook, history: History) -> FactorSet:
    """Return factors from the history: markets, sectors (beyond the market), rates, currencies, crypto.

    A market is the mean of its instruments' moves; every instrument's loadings are fitted by least squares, what is
    left is its specific risk.
    """
    records = book.reference.instrument_records
    groups: dict[str, list[int]] = {}
    for name, k in history.index.items():
        record = records.get(name)
        if name.startswith(RATE_FACTOR):
            groups.setdefault(f"rates:{name.removeprefix(RATE_FACTOR)}", []).append(k)
        elif record is None or name.startswith(VOLATILITY_FACTOR):
            continue
        elif record.asset_class == "fx":
            coin = record.instrument[:3] in ("BTC", "ETH")
            groups.setdefault("crypto" if coin else f"fx:{record.instrument}", []).append(k)
        elif record.asset_class == "perpetual":
            groups.setdefault("crypto", []).append(k)
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
    covariance = np.cov(series, rowvar=False).reshape(len(names), len(names)) if names else np.zeros((0, 0))
    fitted, specific = factor.factor_model(moves, series)
    loadings = {n: fitted[k] for n, k in history.index.items()}
    draws = monte_carlo.factor_draws(covariance, PATHS, SEED) if names else np.zeros((PATHS, 0))
    return FactorSet(names, covariance, loadings, {n: float(specific[k]) for n, k in history.index.items()}, draws)
