"""Options of other terms, live: the normal model through zero, premiums in coin, contracts that have expired; factors with a type."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from app.history import from_columns
from models import rollup as ru
from models.gate.book import GateBook
from models.pricing.black_scholes import greeks
from models.risk import stress
from models.risk.live import RiskModels
from models.risk.scenarios import ScenarioBook
from models.valued_book import INSTRUMENT_GROUPINGS, ValuedBook
from schemas.codec import decoder_of
from schemas.market import Surface, VolSlice
from schemas.records import Account, AsOf, Fifo, Instrument, Mark, Position
from schemas.units import expiry_ns

NOW = 1_795_000_000_000_000_000
EXPIRY = "2027-06-18"
YEARS = (expiry_ns(EXPIRY) - NOW) / (365 * 86_400e9)
DAYS = ["2026-01-05", "2026-01-06", "2026-01-07"]
LEVELS = ("book", "desk", "strategy", "fund", "firm")


def mark(name: str, price: float | None, quality: Any = "good") -> Mark:
    return Mark(instrument=name, window_end=NOW, ts_event=NOW, bid=price, ask=price, mid=price, last=None, quality=quality)


def position(name: str, quantity: str = "1", average: float = 0.0) -> Position:
    return Position(account="A", instrument=name, quantity=quantity, average_price=average, realised_pnl=0.0, fees={}, currency="USD", trades=1, last_ts_event=1,
                    fifo=Fifo(0.0, None, 0), break_even_price=None, as_of=AsOf(0, 1))


def book_of(under: float, *options: Instrument, vols: list[VolSlice] | None = None, kind: Any = "future", rate: float = 0.03, **terms: Any) -> ValuedBook:
    book = ValuedBook("USD", LEVELS)
    book.add_account(Account(account="A", book="B", desk="D", strategy="S", fund="F", nav=Decimal(10**7)))
    book.add_instrument(Instrument(instrument="U", asset_class=kind, currency="USD", **terms))
    for option in options:
        book.add_instrument(option)
    book.add_surface(Surface(underlying="USD", ts_event=NOW, rates=[(1, rate), (3650, rate)]))
    book.add_surface(Surface(underlying="U", ts_event=NOW, dividends=[], vols=vols))
    book.add_mark(mark("U", under))
    book.revalue(NOW)
    return book


def option(name: str = "O", strike: float = 18.0, **terms: Any) -> Instrument:
    return Instrument(**{"instrument": name, "asset_class": "option", "currency": "USD", "underlying": "U", "right": "put", "strike": Decimal(str(strike)), "expiry": EXPIRY,
                         "multiplier": Decimal(1000)} | terms)


def normal_price(w: float, f: float, k: float, vol: float, rate: float = 0.03, years: float = YEARS) -> float:
    sd = vol * math.sqrt(years)
    d = (f - k) / sd
    return float(math.exp(-rate * years) * (w * (f - k) * norm.cdf(w * d) + sd * norm.pdf(d)))


@settings(max_examples=25, deadline=None)
@given(st.floats(-80, 80), st.floats(-80, 80), st.floats(5, 60), st.sampled_from(["call", "put"]), st.sampled_from(["future", "equity"]))
def test_the_normal_model_values_options_on_either_side_of_zero(under: float, strike: float, vol: float, right: str, kind: str) -> None:
    """Price, five Greeks by differences, and the volatility back from a quote, in units of the price."""
    w, strike = 1.0 if right == "call" else -1.0, round(strike, 2)
    o = option(strike=strike, right=right, model="bachelier")
    carry = 0.03 if kind == "equity" else 0.0  # it pays nothing

    def price(s: float, v: float, t: float = YEARS, r: float = 0.03) -> float:
        return normal_price(w, s * math.exp((r if carry else 0.0) * t), strike, v, r, t)

    book = book_of(under, o, vols=[VolSlice(expiry=EXPIRY, strikes=[strike], vols=[vol])], kind=kind)
    k = book.market.instruments["O"]
    want = price(under, vol)
    assert book.market.price[k] == pytest.approx(want, rel=1e-9, abs=1e-12)
    h = 1e-3
    up, down = price(under + h, vol), price(under - h, vol)
    vega = (price(under, vol + h) - price(under, vol - h)) / (2 * h)
    theta = (price(under, vol, YEARS - 1e-5) - price(under, vol, YEARS + 1e-5)) / 2e-5
    rho = (price(under, vol, YEARS, 0.03 + 1e-5) - price(under, vol, YEARS, 0.03 - 1e-5)) / 2e-5
    found = book.market.unit_greeks[k]
    assert found[0] == pytest.approx((up - down) / (2 * h) * under, rel=1e-5, abs=1e-6)
    assert found[1] == pytest.approx((up - 2 * want + down) / h**2 * under**2 / 100, rel=1e-3, abs=1e-4)
    assert found[2] == pytest.approx(vega / 100, rel=1e-5, abs=1e-9) and found[4] == pytest.approx(rho * 1e-4, rel=1e-4, abs=1e-9)
    assert found[3] == pytest.approx(theta / 365, rel=1e-4, abs=1e-6)
    if want - max(w * (under * math.exp((carry - 0.03) * YEARS) - strike * math.exp(-0.03 * YEARS)), 0.0) > 0.01 * vol:
        quoted = book_of(under, o, kind=kind)
        quoted.add_mark(mark("O", want))
        quoted.revalue(NOW)
        assert quoted.contracts.vol_by_instrument(2)[k] == pytest.approx(vol, rel=1e-6)
        np.testing.assert_allclose(quoted.market.unit_greeks[k], found, rtol=1e-4, atol=1e-6)


def test_var_of_the_normal_model_revalues_through_zero() -> None:
    vols = [VolSlice(expiry=EXPIRY, strikes=[18.0], vols=[30.0])]
    history = from_columns({"date": DAYS, "U": [18.27, -37.63, 10.01]}, 500)
    for under in (20.0, 0.0, -15.96):
        book = book_of(under, option(model="bachelier"), vols=vols)
        scenarios = ScenarioBook(book, book.contracts, history, INSTRUMENT_GROUPINGS)
        scenarios.fill_units()
        want = [1000 * (normal_price(-1, under + step, 18, 30) - normal_price(-1, under, 18, 30)) for step in (-55.9, 47.64)]
        np.testing.assert_allclose(scenarios.unit[book.market.instruments["O"]], want, rtol=1e-9)
        shocked = stress.stress(book, book.contracts, [stress.Scenario(name="s", shocks=[stress.Shock(move=-0.2), stress.Shock(kind="volatility", move=0.01)]),
                                                       stress.Scenario(name="d", shocks=[stress.Shock(kind="difference", move=-5.0)])])
        moved = under - 0.2 * abs(under)
        want = [1000 * (normal_price(-1, moved, 18, 30 + 0.01 * abs(under)) - normal_price(-1, under, 18, 30)),
                1000 * (normal_price(-1, under - 5, 18, 30) - normal_price(-1, under, 18, 30))]
        np.testing.assert_allclose(shocked.unit[book.market.instruments["O"]], want, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(shocked.unit[book.market.instruments["U"]], [moved - under, -5.0], rtol=1e-9, atol=1e-12)


COIN = option(strike=60_000, right="call", premium_in_underlying=True, multiplier=Decimal(1), style="european")


def coin_book() -> ValuedBook:
    book = book_of(60_000.0, COIN, kind="perpetual", rate=0.0)
    book.add_mark(mark("O", 0.05))
    book.add_position(position("O", "2", 0.04))
    book.revalue(NOW)
    return book


def test_a_premium_in_coin_is_worth_what_the_coin_is() -> None:
    book = coin_book()
    k, node = book.market.instruments["O"], book.rollup.node_index["desk:D"]
    vol = float(book.contracts.vol_by_instrument(2)[k])
    g = greeks(*(np.array([x]) for x in (1.0, 60_000.0, 60_000.0, YEARS, vol, 0.0, 0.0)))
    assert g.price[0] == pytest.approx(0.05 * 60_000)
    figures = book.figures(node)
    assert figures[ru.NET] == pytest.approx(2 * 0.05 * 60_000) and figures[ru.UNREALISED] == pytest.approx(2 * 0.01 * 60_000)
    assert figures[ru.DELTA] == pytest.approx(2 * g.delta[0] * 60_000) and figures[ru.NO_GREEKS] == 0
    history = from_columns({"date": DAYS, "U": [100.0, 90.0, 108.0]}, 500)
    run = RiskModels(book, book.contracts, history, INSTRUMENT_GROUPINGS).run(NOW)
    shown = run.models["desk:D"]["greeks"]
    assert shown["delta"] == pytest.approx(figures[ru.DELTA]) and shown["delta_less_premium"] == pytest.approx(2 * (g.delta[0] - 0.05) * 60_000)
    scenarios = ScenarioBook(book, book.contracts, history, INSTRUMENT_GROUPINGS)
    scenarios.fill_units()
    want = [greeks(*(np.array([x]) for x in (1.0, 60_000 * m, 60_000.0, YEARS, vol, 0.0, 0.0))).price[0] - 3000 for m in (0.9, 1.2)]
    np.testing.assert_allclose(scenarios.unit[k], want, rtol=1e-6)
    # the coin rises, the quote stays
    book.add_mark(mark("U", 66_000.0))
    book.revalue(NOW)
    assert book.figures(node)[ru.NET] == pytest.approx(2 * 0.05 * 66_000) and book.figures(node)[ru.UNREALISED] == pytest.approx(2 * 0.01 * 66_000)
    book.add_mark(mark("U", None, "none"))
    book.revalue(NOW)
    assert book.figures(node)[ru.UNPRICED] == 1, "what a coin is worth is not known"
    # no premium in coin any more: a quote of 0.05 is 0.05
    book.add_mark(mark("U", 60_000.0))
    book.add_instrument(msgspec.structs.replace(COIN, premium_in_underlying=False))
    book.revalue(NOW)
    assert book.figures(node)[ru.NET] == pytest.approx(0.1) and book.figures(node)[ru.NO_GREEKS] == 1


def test_a_gate_counts_orders_of_a_premium_in_coin_in_money() -> None:
    gate = GateBook("USD", LEVELS, accounts=8, instruments=8, positions=64, nodes=128, rates=16)
    gate.book.add_surface(Surface(underlying="USD", ts_event=NOW, rates=[(1, 0.0), (3650, 0.0)]))
    gate.book.add_surface(Surface(underlying="U", ts_event=NOW, dividends=[]))
    gate.add_instrument(Instrument(instrument="U", asset_class="perpetual", currency="USD"))
    gate.add_instrument(COIN)
    for name, price in (("U", 60_000.0), ("O", 0.05)):
        gate.book.add_mark(mark(name, price))
        gate.set_price(name, price, price, price, None, NOW, True)
    gate.refresh(NOW)
    row = gate.state.instruments[gate.state.instrument_index["O"]].copy()
    assert row["unit"] * 0.05 == pytest.approx(3000) and row["discount"] == 1.0
    book = coin_book()
    assert row["unit_delta"] == pytest.approx(book.market.unit_greeks[book.market.instruments["O"], 0])
    gate.book.add_mark(mark("U", None, "none"))
    gate.refresh(NOW)
    assert math.isnan(gate.state.instruments[gate.state.instrument_index["O"]]["unit"]), "nobody knows what an order is worth"


@pytest.mark.parametrize(("terms", "field"), [
    ({"inverse": True}, "inverse"), ({"model": "bachelier", "style": "american"}, "model"), ({"moves": "absolute"}, "moves"), ({"model": "black_schools"}, "model"),
    ({"model": "bachelier", "premium_in_underlying": True}, "model"), ({"premium_in_underlying": True, "settlement": "BTC"}, "settlement"),
    ({"premium_in_underlying": True, "underlying": None}, "underlying"), ({"model": "bachelier", "digital_kind": "asset_or_nothing"}, "model"),
    ({"asset_class": "equity", "model": "bachelier"}, "model"), ({"asset_class": "perpetual", "premium_in_underlying": True}, "premium_in_underlying")])
def test_terms_that_no_option_has_are_refused_with_their_field(terms: dict[str, Any], field: str) -> None:
    record = {"instrument": "O", "asset_class": "option", "currency": "USD", "underlying": "U", "right": "put", "strike": "18", "expiry": EXPIRY} | terms
    with pytest.raises(msgspec.ValidationError, match=field):
        decoder_of(Instrument).decode(json.dumps(record))


@pytest.mark.parametrize("more", [{}, {"model": "bachelier"}, {"premium_in_underlying": True}, {"digital_kind": "asset_or_nothing"}])
def test_what_has_expired_moves_no_more(more: dict[str, Any]) -> None:
    """Without a mark of its own nobody knows what it was settled at; with one it is worth that."""
    vols = [VolSlice(expiry=EXPIRY, strikes=[18.0], vols=[0.4])]
    book = book_of(25.0, option(right="call", **more), vols=vols)
    book.add_position(position("O", "1", 1.0))
    after = expiry_ns(EXPIRY) + 1
    history = from_columns({"date": DAYS, "U": [100.0, 90.0, 108.0]}, 500)
    for under in (25.0, 30.0):
        book.add_mark(mark("U", under))
        book.revalue(after)
        assert book.figures(book.rollup.node_index["desk:D"])[ru.UNPRICED] == 1
    scenarios = ScenarioBook(book, book.contracts, history, INSTRUMENT_GROUPINGS)
    scenarios.fill_units()
    assert np.isnan(scenarios.unit[book.market.instruments["O"]]).all()
    book.add_mark(mark("O", 7.0, "stale"))
    for under in (25.0, 40.0):
        book.add_mark(mark("U", under))
        book.revalue(after)
        figures = book.figures(book.rollup.node_index["desk:D"])
        unit = under if more.get("premium_in_underlying") else 1.0
        assert figures[ru.NET] == pytest.approx(7000 * unit) and figures[ru.STALE] == 1 and figures[ru.UNPRICED] == figures[ru.NO_GREEKS] == 0
        assert not figures[[ru.DELTA, ru.GAMMA, ru.VEGA, ru.THETA, ru.RHO]].any()
    scenarios.fill_units()
    assert (scenarios.unit[book.market.instruments["O"]] == 0).all()


def test_a_shock_of_rates_moves_what_rates_carry() -> None:
    """A futures price is what it is; a pair is carried at the difference of its rates, which move alike."""
    future = book_of(100.0, option(strike=100.0, right="call"), vols=[VolSlice(expiry=EXPIRY, strikes=[100.0], vols=[0.3])])
    pair = ValuedBook("USD", LEVELS)
    pair.add_instrument(Instrument(instrument="EURUSD", asset_class="fx", currency="USD"))
    pair.add_instrument(option(strike=1.1, right="call", underlying="EURUSD", asset_class="fx_option"))
    for record in (*(Surface(underlying=c, ts_event=NOW, rates=[(1, 0.03), (3650, 0.03)]) for c in ("USD", "EUR")),
                   Surface(underlying="EURUSD", ts_event=NOW, vols=[VolSlice(expiry=EXPIRY, strikes=[1.1], vols=[0.1])])):
        pair.add_surface(record)
    pair.add_mark(mark("EURUSD", 1.1))
    pair.revalue(NOW)
    for book in (future, pair):
        k = book.market.instruments["O"]
        shocked = stress.stress(book, book.contracts, [stress.Scenario(name="up", shocks=[stress.Shock(kind="rate", move=0.01)])]).unit[k]
        # the forward stays, its value is discounted at a rate that is higher by a hundredth
        assert shocked[0] == pytest.approx(1000 * book.market.price[k] * math.expm1(-0.01 * YEARS))
    rho = future.market.unit_greeks[future.market.instruments["O"], 4]
    assert rho == pytest.approx(-future.market.price[future.market.instruments["O"]] * YEARS * 1e-4)


def test_a_pair_that_moves_by_differences_carries_its_currency() -> None:
    book = ValuedBook("USD", LEVELS)
    book.add_instrument(Instrument(instrument="EURUSD", asset_class="fx", currency="USD", moves="absolute"))
    book.add_instrument(Instrument(instrument="SAP", asset_class="equity", currency="EUR"))
    for name, price in (("EURUSD", 1.25), ("SAP", 100.0)):
        book.add_mark(mark(name, price))
    history = from_columns({"date": DAYS, "EURUSD": [1.0, 1.05, 0.95], "SAP": [10.0, 10.0, 10.0]}, 500)
    scenarios = ScenarioBook(book, book.contracts, history, INSTRUMENT_GROUPINGS)
    scenarios.fill_units()
    np.testing.assert_allclose(scenarios.unit[book.market.instruments["SAP"]], [100 * 0.05, -100 * 0.10])


def test_a_factor_moves_as_its_instrument_says() -> None:
    usual = from_columns({"date": DAYS, "U": [10.0, 11.0, 9.9]}, 500)
    through = from_columns({"date": DAYS, "U": [10.0, -1.0, 9.9]}, 500)

    def unit(kind: Any, history: Any, price: float, days: int = 1) -> list[float]:
        book = book_of(price, moves=kind)
        scenarios = ScenarioBook(book, book.contracts, over_days(history, days), INSTRUMENT_GROUPINGS)
        scenarios.fill_units()
        assert scenarios.absolute == (["U"] if kind == "absolute" or price <= 0 or (kind is None and history is through) else [])
        return list(scenarios.unit[book.market.instruments["U"]])

    assert unit(None, usual, 20.0) == unit("relative", usual, 20.0) == unit("log", usual, 20.0) == pytest.approx([2.0, -2.0])
    assert unit("absolute", usual, 20.0) == pytest.approx([1.0, -1.1]) and unit("absolute", usual, 20.0, 2) == pytest.approx([-0.1])
    assert unit("log", usual, 20.0, 2) == pytest.approx([-0.2])
    assert unit(None, through, 20.0) == unit("absolute", through, 20.0) == pytest.approx([-11.0, 10.9])
    for history, price in ((through, 20.0), (usual, -5.0), (usual, 0.0)):  # fractions that mean nothing
        assert np.isnan(unit("relative", history, price)).all()
    assert unit("absolute", usual, 0.0) == unit(None, usual, 0.0) == pytest.approx([1.0, -1.1])
    # a type that is stated later is followed
    book = book_of(20.0)
    scenarios = ScenarioBook(book, book.contracts, usual, INSTRUMENT_GROUPINGS)
    scenarios.fill_units()
    book.add_instrument(Instrument(instrument="U", asset_class="future", currency="USD", moves="absolute"))
    scenarios.fill_units()
    assert scenarios.unit[book.market.instruments["U"]] == pytest.approx([1.0, -1.1])


def over_days(history: Any, days: int) -> Any:
    return replace(history, horizon_days=days)
