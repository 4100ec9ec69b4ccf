"""Prices and Greeks against QuantLib and scipy over wide ranges; parity identities; bumps for every sensitivity."""

from __future__ import annotations

import math

import numpy as np
import pytest
import QuantLib as ql
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import ndtr

from models.jit import kernel
from models.pricing import black_scholes as bs
from models.pricing import exotic, fx
from models.pricing.american import american_greeks, american_prices
from models.pricing.normal import cdf, exp, log

SIGN = st.sampled_from([1.0, -1.0])
RATE = st.floats(-0.03, 0.12)
OPTION = st.tuples(SIGN, st.floats(1.0, 500.0), st.floats(1.0, 500.0), st.floats(1 / 365, 5.0), st.floats(0.02, 1.5),
                   RATE, st.floats(-0.1, 0.12))


def columns(*rows: tuple[float, ...]) -> list[np.ndarray]:
    return [np.array(c, float) for c in zip(*rows, strict=True)]


@kernel
def _three(x: np.ndarray, out: np.ndarray) -> None:
    for i in range(x.shape[0]):
        out[0, i], out[1, i], out[2, i] = exp(x[i]), log(abs(x[i]) + 1e-3), cdf(x[i])


def test_the_own_exp_log_and_cdf_are_exact_to_the_last_digits() -> None:
    x = np.concatenate([np.linspace(-30, 30, 200_001), np.random.default_rng(1).normal(size=50_000)])
    out = np.empty((3, len(x)))
    _three(x, out)
    assert np.abs(out[0] / np.exp(x) - 1).max() < 5e-16
    assert np.abs(out[1] - np.log(np.abs(x) + 1e-3)).max() < 1e-15
    assert np.abs(out[2] - ndtr(x)).max() < 5e-15


@given(OPTION)
def test_european_greeks_equal_quantlib(option: tuple[float, ...]) -> None:
    w, s, k, t, v, r, b = option
    got = bs.greeks(*columns(option))
    df, sd = math.exp(-r * t), v * math.sqrt(t)
    payoff = ql.PlainVanillaPayoff(ql.Option.Call if w > 0 else ql.Option.Put, k)
    want = ql.BlackCalculator(payoff, s * math.exp(b * t), sd, df)
    scale = max(s, k) * math.exp(max(abs(b), abs(r)) * t)
    assert abs(got.price[0] - want.value()) <= 1e-11 * scale
    assert abs(got.delta[0] - want.delta(s)) <= 1e-11 * scale / s
    assert abs(got.gamma[0] - want.gamma(s)) <= 1e-10 * max(1.0, want.gamma(s))
    assert abs(got.vega[0] - want.vega(t)) <= 1e-11 * scale * max(t, 1)
    assert abs(got.theta[0] - want.theta(s, t)) <= 1e-8 * scale
    assert abs(got.rho[0] - want.rho(t)) <= 1e-10 * scale * max(t, 1)


@given(OPTION)
def test_put_call_parity_and_bumps(option: tuple[float, ...]) -> None:
    _, s, k, t, v, r, b = option
    both = bs.greeks(*columns((1.0, *option[1:]), (-1.0, *option[1:])))
    assert both.price[0] - both.price[1] == pytest.approx(s * math.exp((b - r) * t) - k * math.exp(-r * t), abs=1e-10 * (s + k))
    assume(v * math.sqrt(t) > 0.05)
    h = 1e-4
    up = bs.greeks(*columns((1.0, s * (1 + h), k, t, v, r, b), (1.0, s, k, t, v + h, r, b), (1.0, s, k, t, v, r + h, b + h)))
    down = bs.greeks(*columns((1.0, s * (1 - h), k, t, v, r, b), (1.0, s, k, t, v - h, r, b), (1.0, s, k, t, v, r - h, b - h)))
    scale = s + k
    assert (up.price[0] - down.price[0]) / (2 * h * s) == pytest.approx(both.delta[0], abs=1e-4)
    assert (up.delta[0] - down.delta[0]) / (2 * h * s) == pytest.approx(both.gamma[0], abs=1e-4 * max(1, both.gamma[0]))
    assert (up.price[1] - down.price[1]) / (2 * h) == pytest.approx(both.vega[0], abs=1e-4 * scale)
    assert (up.price[2] - down.price[2]) / (2 * h) == pytest.approx(both.rho[0], abs=1e-3 * scale)


@given(SIGN, st.floats(10, 500), st.floats(10, 500), st.floats(1 / 365, 5.0), st.floats(0.02, 2.0), RATE)
def test_black_76_rho_holds_the_future_fixed(w: float, f: float, k: float, t: float, v: float, r: float) -> None:
    got = bs.greeks(*columns((w, f, k, t, v, r, 0.0)), np.zeros(1))
    assert got.rho[0] == pytest.approx(-t * got.price[0], rel=1e-12)


@given(OPTION)
def test_implied_volatility_returns_what_made_the_price(option: tuple[float, ...]) -> None:
    w, s, k, t, v, r, b = option
    made = bs.greeks(*columns(option))
    # a price whose time value is below its own rounding says nothing of the volatility
    assume(made.vega[0] * v > 1e-6 * max(s, k))
    out = np.empty(1)
    bs.implied_volatilities(*columns((w, s, k, t, r, b, float(made.price[0]))), out)
    assert out[0] == pytest.approx(v, rel=1e-7)


def test_wrong_inputs_give_nan_not_a_number() -> None:
    good = (1.0, 100.0, 100.0, 1.0, 0.2, 0.01, 0.0)
    for i, bad in ((1, -1.0), (2, 0.0), (3, -0.1), (4, float("nan")), (5, float("nan"))):
        row = list(good)
        row[i] = bad
        got = bs.greeks(*columns(tuple(row), good))
        assert np.isnan(got.price[0]) and np.isnan(got.delta[0]) and got.price[1] > 0
    at_expiry = bs.greeks(*columns((1.0, 110.0, 100.0, 0.0, 0.2, 0.01, 0.0), (-1.0, 110.0, 100.0, 0.0, 0.2, 0.01, 0.0)))
    assert at_expiry.price.tolist() == [10.0, 0.0] and at_expiry.gamma[0] == 0.0 and at_expiry.vega[0] == 0.0


def _process(s: float, v: float, r: float, q: float, today: ql.Date) -> ql.BlackScholesMertonProcess:
    dc = ql.Actual365Fixed()
    def flat(x: float) -> ql.YieldTermStructureHandle:
        return ql.YieldTermStructureHandle(ql.FlatForward(today, x, dc))
    vol = ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, ql.NullCalendar(), v, dc))
    return ql.BlackScholesMertonProcess(ql.QuoteHandle(ql.SimpleQuote(s)), flat(q), flat(r), vol)


def test_american_prices_and_greeks_are_close_to_an_integral_method() -> None:
    rng = np.random.default_rng(7)
    today = ql.Date(20, 11, 2026)
    ql.Settings.instance().evaluationDate = today
    worst = worst_delta = 0.0
    for _ in range(40):
        w, s, days = float(rng.choice([-1.0, 1.0])), float(rng.uniform(70, 140)), int(rng.integers(5, 1000))
        v, r, q = float(rng.uniform(0.08, 0.7)), float(rng.uniform(0.0, 0.1)), float(rng.uniform(0.0, 0.08))
        option = ql.VanillaOption(ql.PlainVanillaPayoff(ql.Option.Call if w > 0 else ql.Option.Put, 100.0),
                                  ql.AmericanExercise(today, today + days))
        option.setPricingEngine(ql.QdFpAmericanEngine(_process(s, v, r, q, today), ql.QdFpAmericanEngine.highPrecisionScheme()))
        got = np.empty(1)
        row = columns((w, s, 100.0, days / 365, v, r, r - q))
        american_prices(*row, got)
        worst = max(worst, abs(got[0] - option.NPV()))
        greeks = np.empty((1, 6))
        american_greeks(*row, greeks)
        h = 0.05
        ends = []
        for x in (s + h, s - h):
            option.setPricingEngine(ql.QdFpAmericanEngine(_process(x, v, r, q, today), ql.QdFpAmericanEngine.highPrecisionScheme()))
            ends.append(option.NPV())
        worst_delta = max(worst_delta, abs(greeks[0, 1] - (ends[0] - ends[1]) / (2 * h)))
    print(f"\nAmerican options: largest gap {worst:.2g} on a strike of 100, delta {worst_delta:.2g}")
    assert worst < 0.003 and worst_delta < 0.02


@given(st.sampled_from(sorted(exotic.BARRIER_KINDS)), SIGN, st.floats(60, 160), st.floats(60, 160), st.floats(0.5, 0.95),
       st.floats(0.0, 5.0), st.floats(0.05, 2.0), st.floats(0.08, 0.6), st.floats(0.0, 0.1), st.floats(-0.05, 0.1))
def test_barriers_equal_quantlib(kind: str, w: float, s: float, k: float, share: float, rebate: float, t: float, v: float,
                                 r: float, b: float) -> None:
    barrier = s * share if kind.startswith("down") else s / share
    got = np.empty(1)
    code = np.array([exotic.BARRIER_KINDS[kind]])
    exotic.barrier_prices(code, *columns((w, s, k, barrier, rebate, t, v, r, b)), np.zeros(1, np.int8), got)
    today = ql.Date(20, 11, 2026)
    ql.Settings.instance().evaluationDate = today
    days = max(1, round(t * 365))
    exotic.barrier_prices(code, *columns((w, s, k, barrier, rebate, days / 365, v, r, b)), np.zeros(1, np.int8), got)
    names = {"down_and_out": ql.Barrier.DownOut, "down_and_in": ql.Barrier.DownIn, "up_and_out": ql.Barrier.UpOut, "up_and_in": ql.Barrier.UpIn}
    option = ql.BarrierOption(names[kind], barrier, rebate, ql.PlainVanillaPayoff(ql.Option.Call if w > 0 else ql.Option.Put, k),
                              ql.EuropeanExercise(today + days))
    option.setPricingEngine(ql.AnalyticBarrierEngine(_process(s, v, r, r - b, today)))
    assert got[0] == pytest.approx(option.NPV(), abs=1e-8 * (s + k))


@given(SIGN, st.floats(60, 160), st.floats(60, 160), st.floats(0.02, 2.0), st.floats(0.05, 0.8), RATE, RATE)
def test_digitals_make_up_the_plain_option(w: float, s: float, k: float, t: float, v: float, r: float, b: float) -> None:
    """A gap option that settles against its own strike is the plain option."""
    rows = columns((w, s, k, k, t, v, r, b))
    gap, plain = np.empty(1), np.empty(1)
    exotic.digital_prices(np.array([exotic.GAP]), *rows, gap)
    bs.option_prices(*columns((w, s, k, t, v, r, b)), plain)
    assert gap[0] == pytest.approx(plain[0], abs=1e-11 * (s + k))


@given(SIGN, st.sampled_from(fx.DELTA_CONVENTIONS), st.floats(0.05, 0.45), st.floats(0.5, 150.0), st.floats(0.02, 0.4), RATE, RATE)
def test_fx_strikes_from_deltas_return_the_deltas(w: float, convention: str, delta: float, s: float, sd: float, rd: float, rf: float) -> None:
    dfs = math.exp(-rd), math.exp(-rf)
    k = fx.strike_from_delta(w, w * delta, s, sd, *dfs, convention)
    assert fx.option_delta(w, s, k, sd, *dfs, convention) == pytest.approx(w * delta, abs=1e-10)
