"""Prices that go through zero move by differences; crosses move with their legs."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from app.history import from_columns
from models.risk import stress
from models.risk.scenarios import ScenarioBook
from models.risk.unit_var import unit_var
from models.valued_book import INSTRUMENT_GROUPINGS, ValuedBook
from schemas.market import Surface, VolSlice
from schemas.records import Instrument, Mark

S = 1_000_000_000
NOW = 1_764_000_000 * S


def book_of(price: float, *more: Instrument) -> ValuedBook:
    book = ValuedBook("USD", ("book", "desk", "strategy", "fund", "firm"))
    for record in (Instrument(instrument="CL", asset_class="future", currency="USD", multiplier=Decimal(1000)), *more):
        book.add_instrument(record)
    book.add_mark(Mark(instrument="CL", window_end=1, ts_event=1, bid=price, ask=price, mid=price, last=None, quality="good"))
    return book


def test_a_history_through_zero_moves_by_differences() -> None:
    found = from_columns({"date": ["2020-04-17", "2020-04-20", "2020-04-21"], "CL": [18.27, -37.63, 10.01]}, 500)
    assert found.moves[:, 0].tolist() == pytest.approx([-55.9, 47.64]) and found.absolute == {"CL"}
    usual = from_columns({"date": ["2026-01-01", "2026-01-02"], "X": [100.0, 110.0], "RATE:USD": [0.01, 0.02]}, 500)
    assert usual.moves[0].tolist() == pytest.approx([0.1, 0.01]) and not usual.absolute


@pytest.mark.parametrize(("price", "level"), [(0.0, 0.0), (0.01, 0.0), (1.0, 0.0), (-0.5, 0.0), (0.0, 60.0), (-0.5, 60.0)])
def test_the_risk_of_a_spread_does_not_depend_on_where_it_is(price: float, level: float) -> None:
    """100 lots of 1000 with a deviation of 0.05 a day: from a history around zero, or of before it came there."""
    steps = np.random.default_rng(3).normal(0.0, 0.05, 400)
    levels = level + np.concatenate([[0.02], 0.02 + np.cumsum(steps)])
    history = from_columns({"date": [date.fromordinal(737_000 + k) for k in range(401)], "CL": levels.tolist()}, 500)
    book = book_of(price)
    book.revalue(NOW)
    scenarios = ScenarioBook(book, book.contracts, history, INSTRUMENT_GROUPINGS)
    scenarios.fill_units()
    np.testing.assert_allclose(scenarios.unit[book.market.instruments["CL"]], 1000 * steps, rtol=1e-9, atol=1e-9)
    assert scenarios.absolute == ["CL"]
    assert 100 * unit_var(scenarios, 0.99)["CL"] == pytest.approx(100 * 1000 * 0.05 * 2.33, rel=0.25)


def test_a_put_on_a_future_gains_where_the_future_falls_below_zero() -> None:
    right: Any = {"asset_class": "option", "currency": "USD", "underlying": "CL", "strike": Decimal(15), "expiry": "2026-06-30",
                  "multiplier": Decimal(1000)}
    options = [Instrument(instrument="P", right="put", **right), Instrument(instrument="C", right="call", **right)]
    book = book_of(18.27, *options)
    book.add_surface(Surface(underlying="USD", ts_event=NOW, rates=[(1, 0.0), (3650, 0.0)]))
    book.add_surface(Surface(underlying="CL", ts_event=NOW, dividends=[], vols=[VolSlice(expiry="2026-06-30", strikes=[15.0], vols=[0.5])]))
    book.revalue(NOW)
    for quality, stale in (("stale", 1), ("good", 0)):  # a model's price is as good as what it rests on
        book.add_mark(Mark(instrument="CL", window_end=1, ts_event=1, bid=18.27, ask=18.27, mid=18.27, last=None, quality=quality))  # type: ignore[arg-type]
        book.revalue(NOW)
        assert book.market.stale[book.market.instruments["P"]] == stale
    history = from_columns({"date": ["2020-04-17", "2020-04-20", "2020-04-21"], "CL": [18.27, -37.63, 10.01]}, 500)
    scenarios = ScenarioBook(book, book.contracts, history, INSTRUMENT_GROUPINGS)
    scenarios.fill_units()
    k = book.market.instruments
    put, call = scenarios.unit[k["P"]], scenarios.unit[k["C"]]
    assert put[0] == pytest.approx(1000 * (15 + 37.63 - book.market.price[k["P"]]))
    assert call[0] == pytest.approx(-1000 * book.market.price[k["C"]]) and call[1] > 0 > put[1]


def test_a_cross_moves_with_its_legs_unless_it_is_shocked_itself() -> None:
    fx = [Instrument(instrument=n, asset_class="fx", currency=n[3:]) for n in ("EURUSD", "GBPUSD", "USDJPY", "EURGBP", "EURJPY")]
    book = book_of(50.0, *fx)
    book.revalue(NOW)
    named = {"asset_class": "fx", "instrument": "EURUSD"}
    scenarios = [s for s in stress.DEFAULTS if s.name.startswith("dollar")] + [
        stress.Scenario(name="euro", shocks=[stress.Shock(match=named, move=-0.1)]),
        stress.Scenario(name="the cross", shocks=[stress.Shock(match=named, move=-0.1),
                                                  stress.Shock(match={"instrument": "EURGBP"}, move=0.05)])]
    moved = stress.stress_history(book, scenarios, None)
    found = [{n: round(float(row[moved.index[n]]), 9) for n in ("EURUSD", "GBPUSD", "USDJPY", "EURGBP", "EURJPY", "CL")} for row in moved.moves]
    down = round(1 / 1.1 - 1, 9)
    assert found[0] == {"EURUSD": down, "GBPUSD": down, "USDJPY": 0.1, "EURGBP": 0.0, "EURJPY": 0.0, "CL": 0.0}
    assert found[1] == {"EURUSD": -0.1, "GBPUSD": 0.0, "USDJPY": 0.0, "EURGBP": -0.1, "EURJPY": -0.1, "CL": 0.0}
    assert found[2]["EURGBP"] == 0.05 and found[2]["EURJPY"] == -0.1
