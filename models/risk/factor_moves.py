"""Moves of factors on the market as it stands: currencies from all pairs, and prices that are at or below zero."""

from __future__ import annotations

import math

import numpy as np

from models.market import Market
from models.risk.factor_history import History
from models.valued_book import ValuedBook


def currency_moves(market: Market, history: History, moves: np.ndarray) -> np.ndarray:
    """Return relative moves of base currency per unit of each currency, float64[currencies, scenarios]; NaN: unknown.

    ``moves`` are fractions of the prices of now (`relative_to_now`); a pair that falls to nothing or below has none.

    A pair that is fewer pairs away from the base currency comes first; of several ways it is their geometric mean,
    whatever the order of the pairs.
    """
    out = np.full((len(market.rate), moves.shape[1]), np.nan)
    out[market.currencies[market.base_currency]] = 0.0
    pairs = [(market.currencies[left], market.currencies[right], moves[f])
             for name, (left, right) in market.pairs.items()
             if (f := history.index.get(name, -1)) >= 0 and bool((moves[f] > -1.0).all())]
    while moves.shape[1]:
        known, found = ~np.isnan(out[:, 0]), dict[int, list[np.ndarray]]()
        for a, b, r in pairs:
            if known[b] and not known[a]:
                found.setdefault(a, []).append(np.log1p(r) + np.log1p(out[b]))
            elif known[a] and not known[b]:
                found.setdefault(b, []).append(np.log1p(out[a]) - np.log1p(r))
        if not found:
            break
        for currency, ways in found.items():
            out[currency] = np.expm1(np.sort(np.array(ways), axis=0).mean(axis=0))
    return out


def absolute_steps(market: Market, history: History, moves: np.ndarray, steps: np.ndarray | None,
                   shocks: bool = False) -> dict[str, np.ndarray]:
    """Return the differences, by scenario, of the prices that move by them: were at or below zero, are, or say so.

    Parameters
    ----------
    moves : float64[factors, scenarios], of the history
    steps : the same as differences of prices; None: not known
    shocks : moves are shocks: fractions of a price's size, so that -20 % of a price below zero is a fall; differences
        come on top
    """
    out: dict[str, np.ndarray] = {}
    for name, k in history.index.items():
        price = market.price[market.instruments[name]] if name in market.instruments else np.nan
        if shocks:
            if name in history.absolute or price <= 0.0:
                out[name] = moves[k] * abs(price) + (0.0 if steps is None else steps[k])
        elif name in history.absolute:
            out[name] = moves[k]
        elif price <= 0.0 and name in history.relative:
            out[name] = np.full(moves.shape[1], np.nan)
        elif price <= 0.0 and steps is not None:
            out[name] = steps[k]
    return out


def relative_to_now(market: Market, history: History, moves: np.ndarray, steps: dict[str, np.ndarray]) -> np.ndarray:
    """Return the moves with differences stated as fractions of the price of now; NaN where there is none, or zero."""
    if not steps:
        return moves
    out = moves.copy()
    for name, step in steps.items():
        price = market.price[market.instruments[name]] if name in market.instruments else np.nan
        out[history.index[name]] = step / price if price != 0.0 else np.nan
    return out


def move_absolutely(book: ValuedBook, columns: dict[str, np.ndarray], steps: dict[str, np.ndarray], fx: np.ndarray,
                    unit: np.ndarray) -> None:
    """Fill the unit vectors that no fraction of a price can say: of prices at zero, and of options beyond it.

    An option on what is at or below zero is worth what it pays there.

    Parameters
    ----------
    columns : of `ScenarioBook`
    fx : see `currency_moves`
    unit : float64[instruments, scenarios], in the firm's base currency
    """
    market, options, row_of = book.market, book.contracts.options, book.contracts.option_row
    for name, k in market.instruments.items():
        record, c = book.reference.instrument_records.get(name), columns["currency"][k]
        size = columns["unit"][k] * market.rate[c] * market.discount[k] * (1.0 + fx[c])
        if record is None:
            continue
        if name in steps and market.price[k] == 0.0 and name not in row_of and not record.inverse:
            unit[k] = size * steps[name]
        elif name in row_of and record.underlying in steps:
            o = options[row_of[name]]
            spot = market.price[o["underlying"]] + steps[record.underlying]
            paid = np.maximum(o["sign"] * (spot - o["strike"]), 0.0) * math.exp(-o["rate"] * o["t_years"])
            unit[k] = np.where((spot <= 0.0) & (o["exotic"] < 0), size * (paid - o["model_price"]), unit[k])
