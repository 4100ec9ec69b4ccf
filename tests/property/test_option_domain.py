"""Options over their whole domain, through the calculators, against QuantLib and scipy: rates below zero, no time, no volatility."""

from __future__ import annotations

import math
from typing import Any

import pytest
import QuantLib as ql
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from app.calc import calculate

TODAY = ql.Date(20, 11, 2026)
DAY_COUNT = ql.Actual365Fixed()
TYPE = st.sampled_from(["call", "put"])
RATE = st.floats(-0.05, 0.12)
DAYS = st.integers(1, 1500)
KINDS = {"down_and_out": ql.Barrier.DownOut, "down_and_in": ql.Barrier.DownIn, "up_and_out": ql.Barrier.UpOut, "up_and_in": ql.Barrier.UpIn}
GREEKS = ("price", "delta", "gamma", "vega", "theta", "rho")


def answer(name: str, **line: Any) -> dict[str, Any]:
    """Return what a calculator answers; a refusal fails the test."""
    got = calculate(name, line)
    assert "error" not in got, (line, got["error"])
    return got


def refused(name: str, **line: Any) -> dict[str, Any]:
    """Return why a line is refused."""
    got = calculate(name, line)
    assert "error" in got, (line, got)
    return got["error"]


def process(s: float, v: float, r: float, q: float) -> ql.BlackScholesMertonProcess:
    """Return QuantLib's lognormal process with flat curves."""
    ql.Settings.instance().evaluationDate = TODAY

    def flat(x: float) -> ql.YieldTermStructureHandle:
        return ql.YieldTermStructureHandle(ql.FlatForward(TODAY, x, DAY_COUNT))

    vol = ql.BlackVolTermStructureHandle(ql.BlackConstantVol(TODAY, ql.NullCalendar(), v, DAY_COUNT))
    return ql.BlackScholesMertonProcess(ql.QuoteHandle(ql.SimpleQuote(s)), flat(q), flat(r), vol)


def payoff(right: str, k: float) -> ql.PlainVanillaPayoff:
    """Return QuantLib's plain payoff."""
    return ql.PlainVanillaPayoff(ql.Option.Call if right == "call" else ql.Option.Put, k)


@settings(max_examples=80)
@given(TYPE, st.floats(20, 300), st.floats(20, 300), DAYS, st.floats(0.01, 1.5), RATE, st.floats(-0.05, 0.1))
def test_a_european_option_has_quantlibs_greeks_and_what_follows_from_them(right: str, s: float, k: float, days: int, v: float, r: float, q: float) -> None:
    got = answer("option", type=right, S=s, K=k, t_days=days, vol=v, r=r, q=q)
    option = ql.VanillaOption(payoff(right, k), ql.EuropeanExercise(TODAY + days))
    option.setPricingEngine(ql.AnalyticEuropeanEngine(process(s, v, r, q)))
    t = days / 365
    for name in (*GREEKS, "dividend_rho"):
        want = {"price": option.NPV, "dividend_rho": option.dividendRho}.get(name) or getattr(option, name)
        assert got[name] == pytest.approx(want(), rel=1e-8, abs=1e-8 * max(s, k)), name
    if got["price"] > 1e-9:
        assert got["elasticity"] == pytest.approx(option.elasticity(), rel=1e-5)
    assert got["undiscounted_price"] == pytest.approx(got["price"] * math.exp(r * t), rel=1e-12)
    if got["vega"] * v > 1e-5 * max(s, k):
        again = answer("implied_vol", type=right, S=s, K=k, t_days=days, r=r, q=q, market_price=got["price"])
        assert again["implied_vol"] == pytest.approx(v, rel=1e-6)
    # in coin: one spot a coin, whatever the quote currency
    coin = answer("option", type=right, S=s, K=k, t_days=days, vol=v, r=r, q=q, premium_in_underlying=True)
    assert coin["price"] * s == pytest.approx(got["price"]) and coin["value"] == got["price"] and coin["delta"] == got["delta"]
    assert coin["delta_less_premium"] == pytest.approx(got["delta"] - coin["price"])


@settings(max_examples=60)
@given(st.sampled_from(sorted(KINDS)), TYPE, st.floats(60, 160), st.floats(60, 160), st.floats(0.6, 0.99), st.floats(0, 5), DAYS,
       st.floats(0.03, 0.6), RATE, RATE)
def test_all_eight_barriers_at_any_rate(kind: str, right: str, s: float, k: float, share: float, rebate: float, days: int, v: float, r: float, q: float) -> None:
    barrier, t = s * share if kind.startswith("down") else s / share, days / 365
    line = {"type": right, "barrier_type": kind, "S": s, "K": k, "barrier": barrier, "t_days": days, "vol": v, "r": r, "q": q}
    plain = answer("barrier", **line)["price"]
    option = ql.BarrierOption(KINDS[kind], barrier, 0.0, payoff(right, k), ql.EuropeanExercise(TODAY + days))
    option.setPricingEngine(ql.AnalyticBarrierEngine(process(s, v, r, q)))
    want = option.NPV()
    assume(math.isfinite(want))
    assert plain == pytest.approx(want, abs=1e-8 * (s + k))
    # the rebate: what 1 at the first touch, or at expiry, is worth by the density of the first passage
    x, nu = math.log(barrier / s), r - q - 0.5 * v * v

    def density(u: float) -> float:
        return abs(x) / (v * math.sqrt(2 * math.pi * u ** 3)) * math.exp(-(x - nu * u) ** 2 / (2 * v * v * u))

    peak = [p for p in (x * x / (3 * v * v), abs(x / nu) if nu else 0.0) if 0.0 < p < t]
    touched = quad(density, 0, t, points=peak or None, limit=400)[0]
    if kind.endswith("out"):
        at_hit = quad(lambda u: math.exp(-r * u) * density(u), 0, t, points=peak or None, limit=400)[0]
        assert answer("barrier", **line, rebate=rebate)["price"] == pytest.approx(plain + rebate * at_hit, abs=1e-6)
        assert answer("barrier", **line, rebate=rebate, rebate_at="expiry")["price"] == pytest.approx(
            plain + rebate * math.exp(-r * t) * touched, abs=1e-6)
    else:
        assert answer("barrier", **line, rebate=rebate)["price"] == pytest.approx(
            plain + rebate * math.exp(-r * t) * (1 - touched), abs=1e-6)
        assert refused("barrier", **line, rebate=rebate, rebate_at="hit")["field"] == "rebate_at"
    other = kind.replace("out", "in") if kind.endswith("out") else kind.replace("in", "out")
    european = answer("option", **{f: line[f] for f in ("type", "S", "K", "t_days", "vol", "r", "q")})["price"]
    assert plain + answer("barrier", **line | {"barrier_type": other})["price"] == pytest.approx(european, abs=1e-8 * (s + k))


@settings(max_examples=40)
@given(st.sampled_from(sorted(KINDS)), TYPE, st.floats(80, 120), st.floats(0.8, 0.98), st.floats(0.1, 3.0), st.floats(0.0, 0.004), RATE, RATE)
def test_barriers_with_next_to_no_volatility_are_those_of_a_certain_path(kind: str, right: str, k: float, share: float, t: float, v: float,
                                                                         r: float, q: float) -> None:
    s, down = 100.0, kind.startswith("down")
    barrier, end = (s * share if down else s / share), s * math.exp((r - q) * t)
    # not where the certain path ends next to the barrier or the strike: there a little volatility decides
    assume(abs(math.log(end / barrier)) > 8 * v * math.sqrt(t) + 1e-6)
    got = answer("barrier", type=right, barrier_type=kind, S=s, K=k, barrier=barrier, rebate=2, t=t, vol=v, r=r, q=q)["price"]
    hit = end <= barrier if down else end >= barrier
    worth = max((end - k) * (1 if right == "call" else -1), 0.0)
    if kind.endswith("out"):
        want = 2 * math.exp(-r * math.log(barrier / s) / (r - q)) if hit else math.exp(-r * t) * worth
    else:
        want = math.exp(-r * t) * (worth if hit else 2.0)
    assert got == pytest.approx(want, abs=60 * v * math.sqrt(t) + 1e-7)


@settings(max_examples=60)
@given(st.sampled_from(["cash_or_nothing", "asset_or_nothing", "gap"]), TYPE, st.floats(60, 160), st.floats(60, 160), DAYS,
       st.floats(0.05, 0.8), RATE, RATE)
def test_digitals_have_quantlibs_greeks(kind: str, right: str, s: float, k: float, days: int, v: float, r: float, q: float) -> None:
    side = ql.Option.Call if right == "call" else ql.Option.Put
    extra, made = {"cash_or_nothing": ({"cash": 7.0}, ql.CashOrNothingPayoff(side, k, 7.0)),
                   "asset_or_nothing": ({}, ql.AssetOrNothingPayoff(side, k)),
                   "gap": ({"payoff_strike": 95.0}, ql.GapPayoff(side, k, 95.0))}[kind]
    got = answer("digital", type=right, payoff=kind, S=s, K=k, t_days=days, vol=v, r=r, q=q, **extra)
    option = ql.VanillaOption(made, ql.EuropeanExercise(TODAY + days))
    option.setPricingEngine(ql.AnalyticEuropeanEngine(process(s, v, r, q)))
    for name, want in (("price", option.NPV()), ("delta", option.delta()), ("gamma", option.gamma()), ("vega", option.vega()),
                       ("rho", option.rho()), ("theta", option.theta())):
        assert got[name] == pytest.approx(want, rel=1e-7, abs=1e-7 * max(s, k)), name


@settings(max_examples=80)
@given(TYPE, st.floats(-50, 100), st.floats(-50, 100), st.floats(0.005, 5), st.floats(0.5, 60), RATE)
def test_the_normal_model_takes_forwards_and_strikes_of_either_sign(right: str, f: float, k: float, t: float, v: float, r: float) -> None:
    line = {"type": right, "F": f, "K": k, "t": t, "r": r, "model": "bachelier"}
    got = answer("option", **line, vol=v)
    side, sd, df = (ql.Option.Call if right == "call" else ql.Option.Put), v * math.sqrt(t), math.exp(-r * t)
    assert got["price"] == pytest.approx(ql.bachelierBlackFormula(side, k, f, sd, df), abs=1e-12 * (1 + sd))
    w, d = (1 if right == "call" else -1), (f - k) / sd
    assert got["delta"] == pytest.approx(w * df * norm.cdf(w * d), abs=1e-13)
    assert got["gamma"] == pytest.approx(df * norm.pdf(d) / sd, rel=1e-9, abs=1e-15)
    assert got["vega"] == pytest.approx(df * norm.pdf(d) * math.sqrt(t), rel=1e-9, abs=1e-15)
    assert got["rho"] == pytest.approx(-t * got["price"], rel=1e-12)
    h = 1e-4 * t
    bumped = [answer("option", **line | {"t": t + e}, vol=v)["price"] for e in (-h, h)]
    assert got["theta"] == pytest.approx((bumped[0] - bumped[1]) / (2 * h), rel=1e-4, abs=1e-4 * sd / t)
    if abs(d) < 6:
        assert answer("implied_vol", **line, market_price=got["price"])["implied_vol"] == pytest.approx(v, rel=1e-5)
    assert refused("option", **{**{n: x for n, x in line.items() if n != "F"}, "S": abs(f) + 1}, vol=v)["field"] == "S"


@settings(max_examples=25)
@given(TYPE, st.floats(70, 140), st.integers(5, 1000), st.floats(0.08, 0.7), RATE, st.floats(-0.03, 0.08))
def test_american_options_at_any_rate_and_their_volatility(right: str, s: float, days: int, v: float, r: float, q: float) -> None:
    line = {"type": right, "S": s, "K": 100.0, "t_days": days, "r": r, "q": q, "exercise": "american"}
    got = answer("option", **line, vol=v)
    option = ql.VanillaOption(payoff(right, 100.0), ql.AmericanExercise(TODAY, TODAY + days))
    # QuantLib's integral method is exact to 1e-8, for positive rates alone; its finite differences need ever more points
    exact = r > 1e-3 and q > 1e-3
    option.setPricingEngine(ql.QdFpAmericanEngine(process(s, v, r, q), ql.QdFpAmericanEngine.highPrecisionScheme()) if exact
                            else ql.FdBlackScholesVanillaEngine(process(s, v, r, q), 500, 500))
    assert got["price"] == pytest.approx(option.NPV(), abs=0.003 if exact else 0.012)
    intrinsic = max((s - 100) * (1 if right == "call" else -1), 0.0)
    european = answer("option", **line | {"exercise": "european"}, vol=v)["price"]
    assert got["price"] >= max(intrinsic, european) - 1e-12
    if got["price"] > intrinsic + 0.05 and got["vega"] > 1.0:
        assert answer("implied_vol", **line, market_price=got["price"])["implied_vol"] == pytest.approx(v, abs=1e-4)
    if intrinsic:
        assert refused("implied_vol", **line, market_price=0.99 * intrinsic)["field"] == "market_price"


@pytest.mark.parametrize("right", ["call", "put"])
def test_american_options_without_volatility_are_exercised_at_the_best_time(right: str) -> None:
    """A call with r above q above 0, deep in the money: held while the dividend is below the interest, then exercised."""
    w = 1 if right == "call" else -1
    for s, r, q in ((150.0, 0.08, 0.03), (120.0, 0.01, 0.06), (60.0, 0.02, 0.07), (100.0, -0.02, 0.01), (90.0, 0.0, 0.0)):
        best = max(math.exp(-r * x) * max(w * (s * math.exp((r - q) * x) - 100.0), 0.0) for x in (i / 5000 * 2 for i in range(5001)))
        line = {"type": right, "S": s, "K": 100, "t": 2, "r": r, "q": q, "exercise": "american"}
        assert answer("option", **line, vol=0.0)["price"] == pytest.approx(best, abs=2e-6)
        assert answer("option", **line, vol=0.002)["price"] == pytest.approx(best, abs=0.1)


@settings(max_examples=40)
@given(TYPE, st.floats(60, 160), st.floats(60, 160), st.integers(30, 900), st.floats(0.08, 0.6), RATE, st.floats(0.0, 0.06),
       st.lists(st.tuples(st.integers(1, 1000), st.floats(0.1, 4.0)), min_size=1, max_size=4))
def test_cash_dividends_of_european_options_are_escrowed(right: str, s: float, k: float, days: int, v: float, r: float, q: float,
                                                         paid: list[tuple[int, float]]) -> None:
    line = {"type": right, "S": s, "K": k, "t_days": days, "r": r, "q": q}
    got = answer("option", **line, vol=v, dividends=[[d / 365, a] for d, a in paid])
    option = ql.VanillaOption(payoff(right, k), ql.EuropeanExercise(TODAY + days))
    option.setPricingEngine(ql.AnalyticDividendEuropeanEngine(process(s, v, r, q), [ql.FixedDividend(a, TODAY + d) for d, a in paid]))
    for name, want in (("price", option.NPV()), ("delta", option.delta()), ("gamma", option.gamma()), ("vega", option.vega())):
        assert got[name] == pytest.approx(want, rel=1e-8, abs=1e-8 * max(s, k)), name
    assert "escrowed" in got["conventions"]["dividends"]
    h, dividends = 1e-5, [[d / 365, a] for d, a in paid]

    def price(**change: float) -> float:
        return float(answer("option", **line | change, vol=v, dividends=dividends)["price"])

    assert got["rho"] == pytest.approx((price(r=r + h) - price(r=r - h)) / (2 * h), abs=1e-3)
    assert got["dividend_rho"] == pytest.approx((price(q=q + h) - price(q=q - h)) / (2 * h), abs=1e-3)


@settings(max_examples=12)
@given(TYPE, st.floats(70, 140), st.integers(60, 1200), st.floats(0.1, 0.6), st.floats(-0.02, 0.08), st.floats(0.0, 0.04),
       st.lists(st.tuples(st.floats(0.1, 0.95), st.floats(0.2, 4.0)), min_size=1, max_size=3))
def test_cash_dividends_of_american_options(right: str, s: float, days: int, v: float, r: float, q: float, paid: list[tuple[float, float]]) -> None:
    when = sorted({round(share * days): a for share, a in paid}.items())
    line = {"type": right, "S": s, "K": 100.0, "t_days": days, "r": r, "q": q, "exercise": "american", "dividends": [[d / 365, a] for d, a in when]}
    got = answer("option", **line, vol=v)
    option = ql.VanillaOption(payoff(right, 100.0), ql.AmericanExercise(TODAY, TODAY + days))
    option.setPricingEngine(ql.FdBlackScholesVanillaEngine(process(s, v, r, q), [ql.FixedDividend(a, TODAY + d) for d, a in when], 600, 600))
    assert got["price"] == pytest.approx(option.NPV(), abs=0.005)
    if got["price"] > max((s - 100) * (1 if right == "call" else -1), 0.0) + 0.2:  # beside the exercise boundary gamma jumps
        assert got["delta"] == pytest.approx(option.delta(), abs=0.002)
        assert got["gamma"] == pytest.approx(option.gamma(), abs=0.002)
    # what is worth most: long and volatile, where points that are far apart would grow too slowly
    long = {"type": "call", "S": 146.7, "K": 100, "t": 10, "vol": 2.0, "r": 0.04}
    european = answer("option", **long)["price"]
    assert answer("option", **long, exercise="american", dividends=[[5, 1e-9]])["price"] == pytest.approx(european, rel=5e-4)
    assert "finite differences" in got["conventions"]["dividends"]
    none = answer("option", **{n: x for n, x in line.items() if n != "dividends"}, vol=v)["price"]
    far = answer("option", **line | {"dividends": [[9.0, 3.0]]}, vol=v)
    assert far["price"] == pytest.approx(none) and "0 of 1" in far["conventions"]["dividends"]
    if got["vega"] > 5.0 and got["price"] > abs(s - 100) + 0.1:
        assert answer("implied_vol", **line, market_price=got["price"])["implied_vol"] == pytest.approx(v, abs=1e-4)


@pytest.mark.parametrize("t", [0.0, 1e-12, 1e-6])
@pytest.mark.parametrize("vol", [0.0, 1e-9, 0.2])
@pytest.mark.parametrize("strike", [1e-3, 50.0, 100.0, 1e6])
def test_no_time_no_volatility_and_deep_strikes_have_a_value(t: float, vol: float, strike: float) -> None:
    for right, w in (("call", 1), ("put", -1)):
        worth = max(w * (100.0 - strike), 0.0)
        common = {"type": right, "S": 100.0, "K": strike, "t": t, "vol": vol}
        near = pytest.approx(worth, abs=1e-4 + 1e-7 * strike if strike != 100.0 else 0.02)
        for exercise in ("european", "american"):
            got = answer("option", **common, r=0.03, exercise=exercise)
            assert got["price"] == near and all(math.isfinite(got[g]) for g in GREEKS)
        fx = answer("fx_option", **common, r_domestic=0.03, r_foreign=0.01)
        assert fx["price"] == near and 0.0 <= w * fx["delta_forward"] <= 1.0
        assert answer("option", type=right, F=100.0, K=strike, t=t, vol=vol, r=0.03, model="bachelier")["price"] == near
        assert answer("barrier", **common, r=0.03, barrier_type="down_and_out", barrier=50.0)["price"] == near
        got = answer("digital", **common, r=0.03, payoff="asset_or_nothing")["price"]
        if strike != 100.0:
            assert got == pytest.approx(100.0 if worth else 0.0, abs=1e-4)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_spot_at_the_barrier_has_touched_it_and_one_beside_it_has_not(kind: str) -> None:
    line = {"type": "call", "barrier_type": kind, "K": 95, "barrier": 100.0, "rebate": 3, "t": 0.5, "vol": 0.2, "r": 0.03, "q": 0.01}
    got, out = answer("barrier", S=100.0, **line), kind.endswith("out")
    plain = answer("option", type="call", S=100, K=95, t=0.5, vol=0.2, r=0.03, q=0.01)
    for name in GREEKS:
        want = plain[name] if not out else 3.0 if name == "price" else 0.0
        assert got[name] == pytest.approx(want, rel=1e-4, abs=1e-4), name
    side = 1 if kind.startswith("down") else -1
    near, far = (answer("barrier", S=100.0 + side * d, **line) for d in (1e-6, 1e-3))
    assert near["delta"] == pytest.approx(far["delta"], abs=0.01)
    assert near["price"] == pytest.approx(got["price"], abs=1e-4)


def test_names_of_calculators_say_their_model_and_style() -> None:
    line = {"type": "put", "K": 110, "t": 1, "vol": 0.2, "r": 0.05}
    assert answer("american_option", S=100, **line)["price"] == answer("option", S=100, exercise="american", **line)["price"]
    assert answer("black76", F=100, **line)["price"] == answer("option", F=100, model="black76", **line)["price"]
    assert refused("option", F=100, **line)["field"] in ("F", "spot")
    assert refused("option", S=100, model="garman_kohlhagen", **line)["field"] == "dividend_yield"
    assert refused("option", S=100, market_price=12, **line)["field"] == "market_price"
    assert refused("option", S=100, dividends=[[0.5, 200]], **line)["field"] == "dividends"
    assert refused("option", S=100, dividends=[[0.5]], **line)["field"] == "dividends[0]"
    assert refused("option", S=100, exercise="american", F=101, **line)["field"] == "F"
    assert refused("option", F=100, model="bachelier", exercise="american", **line)["field"] == "exercise"
    assert refused("implied_vol", type="call", S=100, K=100, t=0, r=0.05, market_price=5)["field"] == "t"
