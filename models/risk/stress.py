"""Stress: named shocks on typed factors, run on the live snapshot by the same full revaluation as historical VaR."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from models.contracts import Contracts
from models.exchange_rates import Pair, solve_rates
from models.risk.factor_history import RATE_FACTOR, VOLATILITY_FACTOR, History, stated
from models.risk.scenarios import ScenarioBook
from models.valued_book import INSTRUMENT_GROUPINGS, ValuedBook
from schemas.instrument_terms import OPTION_CLASSES, PAPER_CLASSES
from schemas.records import Instrument


class Shock(msgspec.Struct, frozen=True, kw_only=True):
    """One move of some factors: of a price or currency relative, of a volatility or rate absolute (0.01 = one point).

    A fraction is of a price's size: -20 % of a price below zero is a fall. Of kind ``difference`` it is in units of the
    price, for what trades around zero.

    ``match`` names fields of instruments and the value they must have; empty: all of them. Of kind ``currency`` it is
    ``{"currency": code}``: that currency moves against all others. A pair that no shock of its own moves follows from
    its two currencies, so a cross moves with its legs.
    """

    kind: str = "price"  # price, difference, volatility, rate, currency
    move: float
    match: dict[str, str] = msgspec.field(default_factory=dict)


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """A named set of shocks, or a day of the history."""

    name: str
    shocks: list[Shock] = msgspec.field(default_factory=list)
    day: str | None = None


#: hypothetical ones that every desk asks for first
DEFAULTS = (
    Scenario(name="equities -20 %, volatility +15 points", shocks=[
        Shock(match={"asset_class": "equity"}, move=-0.20), Shock(kind="volatility", move=0.15)]),
    Scenario(name="equities +10 %, volatility -5 points", shocks=[
        Shock(match={"asset_class": "equity"}, move=0.10), Shock(kind="volatility", move=-0.05)]),
    Scenario(name="rates +100 bp", shocks=[Shock(kind="rate", move=0.01)]),
    Scenario(name="rates -100 bp", shocks=[Shock(kind="rate", move=-0.01)]),
    Scenario(name="dollar +10 % against all", shocks=[
        Shock(kind="currency", match={"currency": "USD"}, move=0.10)]),
    Scenario(name="crypto -50 %", shocks=[Shock(match={"asset_class": "perpetual"}, move=-0.5)]),
)


def _matches(record: Instrument, match: dict[str, str]) -> bool:
    return all(str(getattr(record, field, None)) == value for field, value in match.items())


def check(scenarios: Sequence[Scenario]) -> None:
    """Refuse a shock of an unknown kind or field, or a price that falls below nothing.

    Raises
    ------
    ValueError
        With the scenario, the field and what was expected.
    """
    for s in scenarios:
        for shock in s.shocks:
            if shock.kind not in ("price", "difference", "volatility", "rate", "currency"):
                raise ValueError(f"{s.name}: kind: expected price, difference, volatility, rate or currency, "
                                 f"was {shock.kind!r}")
            if shock.kind == "currency" and set(shock.match) != {"currency"}:
                raise ValueError(f"{s.name}: match: expected the currency that moves, was {shock.match!r}")
            if not np.isfinite(shock.move) or (shock.kind in ("price", "currency") and shock.move <= -1.0):
                raise ValueError(f"{s.name}: move: expected a number above -1 for a price, was {shock.move!r}")
            unknown = set(shock.match) - set(Instrument.__struct_fields__)
            if unknown:
                raise ValueError(f"{s.name}: match: expected fields of an instrument, was {sorted(unknown)}")


def stress_history(book: ValuedBook, scenarios: Sequence[Scenario], past: History | None) -> History:
    """Return scenarios as factor moves: the first shock that matches a factor is the one that moves it.

    An option moves with its underlying and its volatility, a forward with its pair and both rates: their own prices are
    no factors. Paper moves with its price and its currency's rates, of a past day with the rates alone.
    """
    check(scenarios)
    records = book.reference.instrument_records
    names = [n for n, r in records.items() if r.asset_class not in OPTION_CLASSES | {"fx_forward"}]
    underlyings = sorted({r.underlying for r in records.values() if r.asset_class in OPTION_CLASSES and r.underlying})
    currencies = sorted({r.currency for r in records.values()}
                        | {c for pair in book.market.pairs.values() for c in pair})
    factors = [*names, *(VOLATILITY_FACTOR + u for u in underlyings), *(RATE_FACTOR + c for c in currencies)]
    past = None if past is None else stated(past, {n: r.moves for n, r in records.items() if r.moves is not None})
    moves, steps = np.zeros((2, len(scenarios), len(factors)))
    for k, s in enumerate(scenarios):
        if s.day is not None:
            if past is None or s.day not in past.days:
                raise ValueError(f"{s.name}: day: expected a day of the history, was {s.day!r}")
            row = past.moves[past.days.index(s.day)]
            by_rates = {n for n, r in records.items() if r.asset_class in PAPER_CLASSES
                        and RATE_FACTOR + r.currency in past.index}
            for j, f in enumerate(factors):
                if f in past.index and f not in by_rates:
                    (steps if f in past.absolute else moves)[k, j] = row[past.index[f]]
            continue
        for j, factor in enumerate(factors):
            kind = ("volatility" if factor.startswith(VOLATILITY_FACTOR) else "rate" if factor.startswith(RATE_FACTOR)
                    else "price")
            record = records.get(factor.partition(":")[2] if kind == "volatility" else factor)
            for shock in s.shocks:
                of = "price" if shock.kind == "difference" else shock.kind
                if of == kind and (_matches(record, shock.match) if record is not None else
                                           not shock.match or shock.match.get("currency") == factor.partition(":")[2]):
                    (steps if shock.kind == "difference" else moves)[k, j] = shock.move
                    break
        _follow_currencies(book, s, factors, moves[k])
    differ = frozenset(f for k, f in enumerate(factors) if (steps[:, k] != 0.0).any())
    return History(tuple(factors), moves, tuple(s.name for s in scenarios), steps=steps, absolute=differ)


def _follow_currencies(book: ValuedBook, scenario: Scenario, factors: list[str], row: np.ndarray) -> None:
    """Move the pairs that no shock of their own moves as their two currencies move.

    What a currency is worth follows from the shocked pairs between it and the base currency, and from the shocks of
    currencies; one that neither reaches stays as it is.
    """
    market, records = book.market, book.reference.instrument_records
    place = {name: j for j, name in enumerate(factors)}
    pairs = {name: pair for name, pair in market.pairs.items() if name in place}
    shocked = {name for name in pairs if any(x.kind == "price" and _matches(records[name], x.match)
                                             for x in scenario.shocks)}
    found = solve_rates([Pair(market.currencies[pairs[n][0]], market.currencies[pairs[n][1]], 1.0 + row[place[n]])
                         for n in sorted(shocked)], market.currencies[market.base_currency], len(market.rate)).rate
    worth = np.where(np.isnan(found), 1.0, found)
    for shock in scenario.shocks:
        if shock.kind == "currency" and shock.match["currency"] in market.currencies:
            worth[market.currencies[shock.match["currency"]]] *= 1.0 + shock.move
    for name, (left, right) in pairs.items():
        if name not in shocked:
            row[place[name]] = worth[market.currencies[left]] / worth[market.currencies[right]] - 1.0


def stress(book: ValuedBook, contracts: Contracts, scenarios: Sequence[Scenario],
           past: History | None = None) -> ScenarioBook:
    """Return the P&L of every node in every scenario: ``vectors[node, scenario]`` in the firm's base currency."""
    out = ScenarioBook(book, contracts, stress_history(book, scenarios, past), INSTRUMENT_GROUPINGS, True)
    out.fill_units()
    out.rebuild(np.zeros(0, np.int64))
    return out


def reverse_stress(book: ValuedBook, contracts: Contracts, node: str, shock: Shock, loss: float,
                   low: float = -0.95, high: float = 3.0) -> dict[str, Any]:
    """Return the smallest move of one factor, either way, at which a node loses ``loss``, in its own currency.

    Returns
    -------
    dict
        ``down`` and ``up``: the moves, None where no move within the bounds loses as much; ``missing``: how many
        positions have no part in it

    Raises
    ------
    ValueError
        The node's currency has no exchange rate: what it loses is not known.
    """
    index = book.rollup.node_index[node]
    scale = book.scale_of(index)
    if scale != scale:
        raise ValueError(f"node: expected one whose currency has an exchange rate, {node} is stated in "
                         f"{book.currency_of(index)}")

    def lost(move: float) -> float:
        scenario = Scenario(name="reverse", shocks=[Shock(kind=shock.kind, match=shock.match, move=move)])
        return -float(stress(book, contracts, [scenario]).vectors[index, 0]) * scale

    out: dict[str, Any] = {"node": node, "loss": loss, "base_currency": book.currency_of(index),
                           "missing": int(stress(book, contracts, [Scenario(name="reverse")]).missing[index])}
    for side, end in (("down", low), ("up", high)):
        steps = np.linspace(0.0, end, 25)
        inside = next((i for i in range(1, len(steps)) if lost(float(steps[i])) >= loss), None)
        if inside is None:
            out[side] = None
            continue
        a, b = float(steps[inside - 1]), float(steps[inside])
        for _ in range(40):
            middle = 0.5 * (a + b)
            a, b = (a, middle) if lost(middle) >= loss else (middle, b)
        out[side] = b
    return out
