"""Style factors, and what paper without prices of its own loads on, against naive counts and statsmodels."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm

from models.risk.factor import STYLE_EQUITIES_MIN, factor_model, style_returns
from models.risk.factor_history import History
from models.risk.factor_set import Loadings, build_factors
from models.valued_book import ValuedBook
from schemas.records import Instrument, Mark

NOW = 1_795_000_000_000_000_000
RNG = np.random.default_rng(11)
N, DAYS = 24, 500
MARKET = 0.01 * RNG.standard_normal(DAYS)
SIZES = np.linspace(0.004, 0.03, N)
TREND = np.linspace(-0.002, 0.002, N)
RETURNS = MARKET[:, None] * np.linspace(0.5, 1.5, N) + RNG.standard_normal((DAYS, N)) * SIZES + RNG.permutation(TREND)


def test_styles_are_todays_scores_on_past_days() -> None:
    got = style_returns(RETURNS)
    for style, scores in (("momentum", [sum(np.log(1 + x) for x in RETURNS[-252:-21, k]) for k in range(N)]),
                          ("volatility", [float(np.std(RETURNS[:, k], ddof=1)) for k in range(N)])):
        mean, spread = float(np.mean(scores)), float(np.std(scores))
        z = [max(min((s - mean) / spread, 3.0), -3.0) for s in scores]
        long, short = sum(x for x in z if x > 0), -sum(x for x in z if x < 0)
        for day in (0, 250, DAYS - 1):
            want = sum(x / (long if x > 0 else short) * RETURNS[day, k] for k, x in enumerate(z))
            assert got[style][day] == pytest.approx(want, rel=1e-9)
    assert np.corrcoef(got["volatility"], RETURNS[:, -4:].mean(axis=1) - RETURNS[:, :4].mean(axis=1))[0, 1] > 0.6


def test_too_little_says_nothing() -> None:
    assert style_returns(RETURNS[:59]) == {} and style_returns(RETURNS[:, : STYLE_EQUITIES_MIN - 1]) == {}
    assert "volatility" not in style_returns(np.tile(RETURNS[:, :1], (1, N)))


def test_factors_have_styles_and_the_fit_is_least_squares() -> None:
    book = ValuedBook("USD", ("book", "firm"))
    names = [f"E{k:02d}" for k in range(N)]
    for k, name in enumerate(names):
        book.add_instrument(Instrument(instrument=name, asset_class="equity", currency="USD", sector="tech" if k % 2 else "energy"))
    book.add_instrument(Instrument(instrument="NOTE", asset_class="bond", currency="USD", coupon=Decimal(4), maturity="2034-05-15"))
    book.add_mark(Mark(instrument="NOTE", window_end=NOW, ts_event=NOW, bid=99.0, ask=99.0, mid=99.0, last=99.0, quality="good"))
    book.revalue(NOW)
    rates = 0.0005 * RNG.standard_normal(DAYS)
    history = History((*names, "RATE:USD"), np.column_stack([RETURNS, rates]))
    fs = build_factors(book, history)
    assert {"market", "style:momentum", "style:volatility", "rates:USD"} <= set(fs.names)
    series = np.column_stack([style_returns(RETURNS)[s] for s in ("momentum", "volatility")] + [MARKET, rates])
    loadings, specific = factor_model(RETURNS, series)
    for k in (0, 7, N - 1):
        fit = sm.OLS(RETURNS[:, k], sm.add_constant(series)).fit()
        assert loadings[k] == pytest.approx(fit.params[1:], rel=1e-8, abs=1e-10)
        assert specific[k] == pytest.approx(fit.ssr / (DAYS - 5), rel=1e-8)
    # paper without a history loads on its rates with its duration
    note = book.market.instruments["NOTE"]
    found, own = Loadings(fs, book).of(len(book.market.instruments))
    duration = book.contracts.paper.sensitivity[note][0] / 99.0
    assert found[note] == pytest.approx(duration * fs.loadings["RATE:USD"]) and own[note] == pytest.approx(duration ** 2 * fs.specific["RATE:USD"])
    assert found[note][fs.names.index("rates:USD")] == pytest.approx(duration, rel=1e-6) and -9 < duration < -5


@pytest.mark.parametrize(("name", "asset_class", "sector", "factor"), [
    ("BTCUSD", "fx", "crypto", "crypto"), ("SOLUSDT", "fx", "crypto", "crypto"), ("XBT/USD", "fx", "crypto", "crypto"),
    # a code of three letters says nothing: without a sector a pair is a factor of its own
    ("BTCUSD", "fx", None, "fx:BTCUSD"), ("ETHUSD", "fx", "majors", "fx:ETHUSD"), ("ETBUSD", "fx", None, "fx:ETBUSD"), ("EURUSD", "fx", None, "fx:EURUSD"),
    ("BTC-PERP", "perpetual", None, "crypto"), ("SOL-PERP", "perpetual", "crypto", "crypto"), ("ES-PERP", "perpetual", "indices", "perpetual:indices")])
def test_what_is_a_coin_is_said_by_the_reference_data(name: str, asset_class: Any, sector: str | None, factor: str) -> None:
    book = ValuedBook("USD", ("book", "firm"))
    book.add_instrument(Instrument(instrument=name, asset_class=asset_class, currency="USDT" if name.endswith("USDT") else "USD", sector=sector))
    assert build_factors(book, History((name,), RETURNS[:, :1])).names == [factor]
