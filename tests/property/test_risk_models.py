"""The live models: incremental equals full, parts sum to wholes, options revalue fully, what is missing is counted."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from models import rollup as ru
from models.pricing.black_scholes import greeks
from models.risk import monte_carlo
from models.risk.factor_history import History, scenario_moves
from models.risk.live import RiskModels
from models.risk.node_cells import all_columns
from models.risk.quantile import RULES, expected_shortfall, node_tails, quantile_loss, tail_count, worst_rank
from models.risk.scenarios import LEVELS as CONFIDENCE
from models.risk.stress import Scenario, Shock, reverse_stress, stress
from models.valued_book import INSTRUMENT_GROUPINGS, ValuedBook
from schemas.market import Surface, VolSlice
from schemas.records import Account, Instrument
from tests.property.test_rollup import LEVELS, mark
from tests.property.test_rollup import position as row_of

NOW = 1_795_000_000_000_000_000
DAYS = 260
NAMES = ["EURUSD", "USDJPY", "SAP", "TOYO", "INV", "OPT", "PUT", "BTCUSD"]


def make_book() -> ValuedBook:
    book = ValuedBook("USD", LEVELS)
    for i in (Instrument(instrument="EURUSD", asset_class="fx", currency="USD"), Instrument(instrument="USDJPY", asset_class="fx", currency="JPY"),
              Instrument(instrument="BTCUSD", asset_class="fx", currency="USD"),
              Instrument(instrument="SAP", asset_class="equity", currency="EUR", issuer="SAP", sector="tech", country="DE", adv=Decimal(1000)),
              Instrument(instrument="TOYO", asset_class="equity", currency="JPY", issuer="TOYO", sector="cars", country="JP"),
              Instrument(instrument="INV", asset_class="perpetual", currency="USD", inverse=True, settlement="BTC", multiplier=Decimal(100)),
              Instrument(instrument="OPT", asset_class="option", currency="EUR", underlying="SAP", right="call", strike=Decimal(105), expiry="2027-06-18", multiplier=Decimal(10)),
              Instrument(instrument="PUT", asset_class="option", currency="EUR", underlying="SAP", right="put", strike=Decimal(95), expiry="2027-06-18", multiplier=Decimal(10), style="american")):
        book.add_instrument(i)
    for c in ("EUR", "USD"):
        book.add_surface(Surface(underlying=c, ts_event=NOW, rates=[(1.0, 0.03)]))
    book.add_surface(Surface(underlying="SAP", ts_event=NOW, dividends=[(1.0, 0.01)], vols=[VolSlice(expiry="2027-06-18", strikes=[90.0, 110.0], vols=[0.32, 0.28])]))
    for name, price in (("EURUSD", 1.1), ("USDJPY", 150.0), ("SAP", 100.0), ("TOYO", 3000.0), ("INV", 60_000.0), ("BTCUSD", 60_000.0)):
        book.add_mark(mark(name, price))
    for k in range(6):
        book.add_account(Account(account=f"A{k}", book=f"B{k // 2}", desk=f"D{k // 4}", strategy="S", fund=f"F{k // 4}", nav=Decimal(1_000_000),
                                 base_currency="USD", dealer=f"X{k % 2}", counterparty=f"PB{k % 3}" if k < 5 else None))
    return book


def position(account: str, instrument: str, quantity: float, rev: int) -> Any:
    made = row_of(account, "SAP", quantity, 100.0, 0.0, rev)
    currency = {"USDJPY": "JPY", "TOYO": "JPY", "INV": "BTC", "EURUSD": "USD", "BTCUSD": "USD"}.get(instrument, "EUR")
    return msgspec.structs.replace(made, instrument=instrument, currency=currency, fees={})


def history(seed: int = 3, without: str = "") -> History:
    rng = np.random.default_rng(seed)
    names = [n for n in ("EURUSD", "USDJPY", "SAP", "TOYO", "INV", "BTCUSD", "VOL:SAP") if n != without]
    scale = np.array([0.002 if n.startswith("VOL") else 0.01 for n in names])
    return History(tuple(names), rng.normal(0, 1, (DAYS, len(names))) * scale)


TRADES = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(NAMES), st.floats(-1000, 1000).map(lambda x: round(x, 1))), min_size=1, max_size=25)


def play(trades: list[Any], incremental: bool) -> tuple[ValuedBook, RiskModels]:
    book = make_book()
    models = RiskModels(book, book.contracts, history(), INSTRUMENT_GROUPINGS)
    book.revalue(NOW)
    models.run(NOW)
    for rev, (a, instrument, q) in enumerate(trades, 1):
        book.add_position(position(f"A{a}", instrument, q, rev))
        if incremental:
            models.update_rows(book.value_pending())
    if not incremental:
        book.revalue(NOW)
        models.run(NOW)
    return book, models


@settings(max_examples=40)
@given(TRADES)
def test_incremental_var_equals_a_full_run(trades: list[Any]) -> None:
    (one, inc), (two, full) = play(trades, True), play(trades, False)
    assert inc.scenarios and full.scenarios
    for name, node in two.rollup.node_index.items():
        mine = one.rollup.node_index[name]
        scale = 1.0 + float(np.abs(full.scenarios.vectors[node]).max())
        np.testing.assert_allclose(inc.scenarios.vectors[mine], full.scenarios.vectors[node], atol=1e-9 * scale, rtol=0)
        np.testing.assert_allclose(inc.scenarios.tail_of(mine)[0], full.scenarios.tail_of(node)[0], atol=1e-9 * scale, rtol=0)
        assert inc.scenarios.missing[mine] == full.scenarios.missing[node]


@settings(max_examples=40)
@given(TRADES)
def test_vectors_add_up_the_tree_and_equal_a_naive_revaluation(trades: list[Any]) -> None:
    book, models = play(trades, False)
    s = models.scenarios
    assert s
    index = book.rollup.node_index
    firm = s.vectors[index["firm"]]
    for level in ("book", "desk", "fund", "account", "currency", "asset_class", "dealer"):
        parts = sum(s.vectors[k] for n, k in index.items() if n.startswith(level + ":"))
        np.testing.assert_allclose(parts, firm, atol=1e-8 * (1 + np.abs(firm).max()))
    np.testing.assert_allclose(naive_firm(book, history()), firm, atol=1e-7 * (1 + np.abs(firm).max()))


def naive_firm(book: ValuedBook, past: History) -> np.ndarray:
    """Revalue every position in every scenario, one by one; American premiums are held as the tables have them."""
    moves = {n: past.moves[:, k] for n, k in past.index.items()}
    eur, jpy, btc = 1.1 * (1 + moves["EURUSD"]), 1 / (150 * (1 + moves["USDJPY"])), 60_000 * (1 + moves["BTCUSD"])
    rate = {"USD": (1.0, np.ones(DAYS)), "EUR": (1.1, eur), "JPY": (1 / 150, jpy), "BTC": (60_000.0, btc)}
    total = np.zeros(DAYS)
    for p in book.positions:
        q, i = float(p.quantity), book.reference.instrument_records[p.instrument]
        x0, x = rate[p.currency]
        if i.asset_class == "equity":
            p0 = {"SAP": 100.0, "TOYO": 3000.0}[i.instrument]
            total += q * (p0 * (1 + moves[i.instrument]) * x - p0 * x0)
        elif i.inverse:
            total += q * 100 * (1 / 60_000.0 - 1 / (60_000.0 * (1 + moves["INV"]))) * x
        elif i.asset_class == "fx":
            p0 = {"EURUSD": 1.1, "USDJPY": 150.0, "BTCUSD": 60_000.0}[i.instrument]
            total += q * p0 * moves[i.instrument] * x
        else:
            o = book.contracts.options[book.contracts.option_row[i.instrument]]
            value = []
            for spot, vol in ((np.array([100.0]), np.array([o["vol"]])), (100 * (1 + moves["SAP"]), o["vol"] + moves["VOL:SAP"])):
                n = len(spot)
                price = greeks(*(np.full(n, float(o[f])) if f else v for f, v in (("sign", None), ("", spot), ("strike", None), ("t_years", None), ("", vol), ("rate", None), ("carry", None)))).price
                if o["american"]:
                    from models.premium_table import MONEYNESS
                    k = book.contracts.option_row[i.instrument]
                    price = price + o["strike"] * np.interp(spot / o["strike"], MONEYNESS, book.contracts.tables[k])
                    if n > 1:
                        price = np.maximum(price, o["sign"] * (spot - o["strike"]))
                value.append(price)
            total += q * 10 * (value[1] - value[0]) * x
    return total


@settings(max_examples=25)
@given(TRADES)
def test_component_var_sums_and_greeks_add_up(trades: list[Any]) -> None:
    book, models = play(trades, False)
    s = models.scenarios
    assert s
    firm = book.rollup.node_index["firm"]
    net = np.zeros(len(book.market.instruments))
    rows = book.rollup.rows[: book.rollup.count]
    np.add.at(net, rows["instrument"], rows["quantity"])
    parts = s.components(np.array([firm]), net, all_columns(net[None, :]), 0.99)
    var = float(s.tail_of(firm)[0][s.level_index(0.99)])
    assert parts.sum() == pytest.approx(var if np.abs(parts).sum() else 0.0, abs=1e-6 * (1 + abs(var)))
    for g in (ru.DELTA, ru.GAMMA, ru.VEGA, ru.THETA, ru.RHO):
        whole = book.rollup.nodes[firm, g]
        size = 1e-9 * (1 + np.abs(book.rollup.contribution[: book.rollup.count, g]).sum())
        assert sum(book.rollup.nodes[k, g] for n, k in book.rollup.node_index.items() if n.startswith("book:")) == pytest.approx(whole, abs=size)


def test_cash_greeks_are_what_a_bump_moves() -> None:
    book = make_book()
    book.add_position(position("A0", "OPT", 7, 1))
    book.revalue(NOW)
    firm = book.rollup.node_index["firm"]
    before = book.rollup.nodes[firm].copy()
    book.add_mark(mark("SAP", 100.5))
    book.revalue(NOW)
    after = book.rollup.nodes[firm]
    assert after[ru.UNREALISED] - before[ru.UNREALISED] == pytest.approx(before[ru.DELTA] * 0.005 + 0.5 * before[ru.GAMMA] * 100 * 0.005**2, rel=2e-3)
    assert before[ru.VEGA] > 0 and before[ru.THETA] < 0 and before[ru.RHO] > 0


@pytest.mark.parametrize("lost", ["surface", "curve"])
def test_an_option_without_its_inputs_is_counted_and_never_zero(lost: str) -> None:
    book = ValuedBook("USD", LEVELS)
    book.add_instrument(Instrument(instrument="X", asset_class="equity", currency="USD"))
    book.add_instrument(Instrument(instrument="O", asset_class="option", currency="USD", underlying="X", right="call", strike=Decimal(100), expiry="2027-06-18"))
    book.add_account(Account(account="A0", book="B", desk="D", strategy="S", fund="F"))
    book.add_mark(mark("X", 100.0))
    if lost == "surface":
        book.add_surface(Surface(underlying="USD", ts_event=NOW, rates=[(1.0, 0.03)]))
    else:
        book.add_surface(Surface(underlying="X", ts_event=NOW, dividends=[], vols=[VolSlice(expiry="2027-06-18", strikes=[100.0], vols=[0.2])]))
    book.add_position(msgspec.structs.replace(position("A0", "EURUSD", 5, 1), instrument="O", currency="USD"))
    book.revalue(NOW)
    firm = book.rollup.nodes[book.rollup.node_index["firm"]]
    assert firm[ru.UNPRICED] == 1
    book.add_mark(mark("O", 4.0))  # quoted, but what it depends on is not known
    book.revalue(NOW)
    firm = book.rollup.nodes[book.rollup.node_index["firm"]]
    assert firm[ru.UNPRICED] == 0 and firm[ru.NO_GREEKS] == 1 and firm[ru.DELTA] == 0.0


def test_a_position_without_history_is_counted_in_every_node_above_it() -> None:
    book = make_book()
    models = RiskModels(book, book.contracts, history(without="TOYO"), INSTRUMENT_GROUPINGS)
    book.add_position(position("A0", "TOYO", 5, 1))
    book.add_position(position("A5", "SAP", 5, 2))
    book.revalue(NOW)
    run = models.run(NOW)
    assert run.models["firm"]["var_hist"]["missing"] == 1 and run.models["firm"]["var_hist"]["quality"] == "partial"
    assert run.models["fund:F0"]["var_hist"]["missing"] == 1 and run.models["fund:F1"]["var_hist"]["quality"] == "good"


def test_stress_is_full_revaluation_of_the_shocked_market() -> None:
    book = make_book()
    for k, (name, q) in enumerate((("SAP", 100.0), ("TOYO", -10.0), ("OPT", -5.0), ("EURUSD", 1000.0)), 1):
        book.add_position(position("A0", name, q, k))
    book.revalue(NOW)
    firm = book.rollup.node_index["firm"]
    scenarios = [Scenario(name="equity", shocks=[Shock(match={"asset_class": "equity"}, move=-0.2), Shock(kind="volatility", move=0.1)]),
                 Scenario(name="german", shocks=[Shock(match={"country": "DE"}, move=0.1)]), Scenario(name="euro", shocks=[Shock(match={"instrument": "EURUSD"}, move=-0.1)])]
    got = stress(book, book.contracts, scenarios).vectors[firm]
    o = book.contracts.options[book.contracts.option_row["OPT"]]
    def worth(spot: float, vol: float) -> float:
        return float(greeks(*(np.array([float(x)]) for x in (o["sign"], spot, o["strike"], o["t_years"], vol, o["rate"], o["carry"]))).price[0])
    option = worth(80.0, float(o["vol"]) + 0.1) - worth(100.0, float(o["vol"]))
    assert got[0] == pytest.approx(100 * -20 * 1.1 - 10 * -600 / 150 - 50 * option * 1.1, rel=1e-9)
    assert got[1] == pytest.approx(100 * 10 * 1.1 - 50 * (worth(110.0, float(o["vol"])) - worth(100.0, float(o["vol"]))) * 1.1, rel=1e-9)
    # the euro: equities are held outright, the future-like pair earns its move, the option is worth less in dollars
    assert got[2] < -100 * 100 * 0.11
    answer = reverse_stress(book, book.contracts, "firm", Shock(match={"asset_class": "equity"}, move=0.0), 3_000.0)
    for side in ("down", "up"):
        if answer[side] is not None:
            shock = Scenario(name="x", shocks=[Shock(match={"asset_class": "equity"}, move=answer[side])])
            assert -stress(book, book.contracts, [shock]).vectors[firm, 0] == pytest.approx(3_000.0, rel=1e-6)
    assert answer["down"] is not None and answer["down"] < 0
    with pytest.raises(ValueError, match="move"):
        stress(book, book.contracts, [Scenario(name="x", shocks=[Shock(move=-1.5)])])


def test_scenarios_scaled_to_todays_volatility() -> None:
    """Filtered historical simulation against a loop of its own; the volatility of these days trebled half-way."""
    past, rng = history(), np.random.default_rng(5)
    raw = past.moves * np.where(np.arange(DAYS) < DAYS // 2, 1.0, 3.0)[:, None] * np.where(rng.random(DAYS) < 0.02, 4.0, 1.0)[:, None]
    scaled = History(past.factors, raw, scaled=True)
    for factor in ("SAP", "VOL:SAP"):
        k = past.factors.index(factor)
        x = raw[:, k] if factor.startswith("VOL") else np.log(1.0 + raw[:, k])
        variance, known = float((x**2).mean()), []
        for value in x.tolist():
            known.append(variance)
            variance = 0.94 * variance + 0.06 * value * value
        want = np.array([value * (variance / v) ** 0.5 for value, v in zip(x.tolist(), known, strict=True)])
        want = want if factor.startswith("VOL") else np.exp(want) - 1.0
        np.testing.assert_allclose(scenario_moves(scaled)[:, k], want, rtol=1e-9)
    found = {}
    for name, h in (("historical", History(past.factors, raw)), ("current", scaled)):
        book = make_book()
        book.add_position(position("A0", "SAP", 100.0, 1))
        models = RiskModels(book, book.contracts, h, INSTRUMENT_GROUPINGS)
        book.revalue(NOW)
        out = models.run(NOW).models["firm"]["var_hist"]
        assert out["scenario_volatility"] == name
        found[name] = out["var_99"]
    assert found["current"] > found["historical"]
    assert (scaled.moves == raw).all(), "a past day that is asked for as a stress stays as it was"


def test_scenarios_of_several_days_are_overlapping_windows_of_the_past() -> None:
    past = history()
    ten = History(past.factors, past.moves, past.days, horizon_days=10)
    moves = scenario_moves(ten)
    assert moves.shape == (DAYS - 9, len(past.factors))
    for factor in ("SAP", "VOL:SAP"):
        k = past.factors.index(factor)
        for day in (0, 100, DAYS - 10):
            window = past.moves[day : day + 10, k]
            assert moves[day, k] == pytest.approx(window.sum() if factor.startswith("VOL") else np.prod(1.0 + window) - 1.0, rel=1e-9)
    with pytest.raises(ValueError, match="horizon_days: expected 1 to"):
        History(past.factors, past.moves, horizon_days=0)
    found = {}
    for h in (past, ten):
        book = make_book()
        book.add_position(position("A0", "SAP", 100.0, 1))
        models = RiskModels(book, book.contracts, h, INSTRUMENT_GROUPINGS)
        book.revalue(NOW)
        out = models.run(NOW).models["firm"]
        worst = np.sort(scenario_moves(h)[:, past.factors.index("SAP")])
        found[h.horizon_days] = out
        assert (out["var_hist"]["n"], out["var_hist"]["horizon_days"]) == (len(worst), h.horizon_days)
        assert len(models.latest["firm"]) and out["var_hist"]["var_99"] > 0
    assert found[10]["var_hist"]["var_99"] > 1.5 * found[1]["var_hist"]["var_99"]


def test_the_ladder_by_expiry_adds_up_to_the_node() -> None:
    book = make_book()
    book.add_position(position("A0", "OPT", 7, 1))
    book.add_position(position("A0", "PUT", -3, 2))
    book.revalue(NOW)
    g = RiskModels(book, book.contracts, history(), INSTRUMENT_GROUPINGS).run(NOW).models["firm"]["greeks"]
    assert list(g["by_expiry"]) == ["2027-06-18"]
    assert sum(x["vega"] for x in g["by_expiry"].values()) == pytest.approx(g["vega"]) and sum(x["gamma"] for x in g["by_expiry"].values()) == pytest.approx(g["gamma"])


@given(TRADES)
def test_shares_by_counterparty_are_those_of_the_positions_held_with_it(trades: list[Any]) -> None:
    book, models = play(trades, False)
    run = models.run(NOW)
    for node in ("firm", "fund:F0", "book:B2"):
        if node not in run.models:
            continue
        held: dict[str | None, float] = {}
        for p, row in zip(book.positions, book.rollup.contribution, strict=False):
            account = book.reference.account_records[p.account]
            if node in ("firm", f"fund:{account.fund}", f"book:{account.book}"):
                held[account.counterparty] = held.get(account.counterparty, 0.0) + row[ru.GROSS]
        total, unknown = sum(held.values()), held.pop(None, 0.0)
        got = run.models[node]["concentration"]["counterparty"]
        assert got["unknown"] == pytest.approx(unknown / total if total else 0.0, abs=1e-12)
        assert got["top"] == pytest.approx({k: v / total for k, v in held.items() if v})
        several = [v / total for v in held.values() if v]
        assert got["hhi"] == (pytest.approx(sum(x * x for x in several)) if len(several) > 1 else None)
        if node == "firm":
            for name, value in held.items():
                assert book.rollup.nodes[book.rollup.node_index[f"counterparty:{name}"], ru.GROSS] == pytest.approx(value, abs=1e-6)


def test_monte_carlo_of_a_linear_book_is_the_normal_quantile_within_its_standard_error() -> None:
    covariance = np.array([[0.0004, 0.0001], [0.0001, 0.0009]])
    draws = monte_carlo.factor_draws(covariance, 100_000, 5)
    exposure = np.array([1e6, -4e5])
    found = monte_carlo.summary(draws @ exposure, 0.99)
    sd = math.sqrt(exposure @ covariance @ exposure)
    assert abs(found["var"] - 2.3263478740408408 * sd) < 4 * found["standard_error"]
    assert found["es"] == pytest.approx(sd * stats.norm.pdf(2.3263478740408408) / 0.01, rel=0.02)
    assert (draws == monte_carlo.factor_draws(covariance, 100_000, 5)).all()


def test_monte_carlo_revalues_options_fully() -> None:
    """A short straddle has no delta to speak of: its loss is all curvature, which a linear model does not see."""
    book = make_book()
    models = RiskModels(book, book.contracts, history(), INSTRUMENT_GROUPINGS)
    book.add_position(position("A0", "OPT", -50, 1))
    book.revalue(NOW)
    delta = book.rollup.nodes[book.rollup.node_index["firm"], ru.DELTA]
    book.add_position(position("A0", "SAP", round(-delta / 110.0, 1), 2))
    book.revalue(NOW)
    mc = models.run(NOW).models["firm"]["var_mc"]
    sap = history().moves[:, 2].std()
    gamma = book.rollup.nodes[book.rollup.node_index["firm"], ru.GAMMA]
    worst = -0.5 * gamma * 100 * (stats.norm.ppf(0.995) * sap) ** 2
    assert mc["var_99"] == pytest.approx(worst, rel=0.15)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=700), st.sampled_from(CONFIDENCE))
def test_fast_tails_equal_the_sorted_definition(pnl: list[float], level: float) -> None:
    v = np.array(pnl)
    var, es = np.zeros((1, 1)), np.zeros((1, 1))
    node_tails(v[None, :], np.array([0]), np.array([worst_rank(len(v), level)]), np.array([float(tail_count(len(v), level))]), var, es)
    assert var[0, 0] == quantile_loss(v, level)
    assert es[0, 0] == pytest.approx(expected_shortfall(v, level), rel=1e-12, abs=1e-9)


@pytest.mark.parametrize(("rule", "method"), [("linear", "linear"), ("sample", "interpolated_inverted_cdf"), ("midpoint", "hazen"), ("exclusive", "weibull")])
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=300), st.sampled_from([0.9, 0.95, 0.975, 0.99]))
def test_quantile_rules_equal_numpys(rule: str, method: Any, pnl: list[float], level: float) -> None:
    assert rule in RULES
    v = np.array(pnl)
    assert quantile_loss(v, level, rule) == pytest.approx(-np.quantile(v, round(1 - level, 12), method=method), rel=1e-9, abs=1e-6)


def test_a_real_portfolio_through_the_whole_pipeline(data: Path) -> None:
    """Historical VaR of 20 real stocks equals an independent computation on the same prices."""
    frame = pandas.read_parquet(data / "market" / "daily_20_us_stocks_adjusted_skfolio.parquet")
    names = [c for c in frame.columns if c not in ("date", "SP500")]
    from app.history import from_columns
    past = from_columns({"date": frame["date"].astype(str).to_list(), **{n: frame[n].to_list() for n in names}}, 500)
    book = ValuedBook("USD", LEVELS)
    last = frame.tail(1)
    rng = np.random.default_rng(11)
    book.add_account(Account(account="A0", book="B", desk="D", strategy="S", fund="F", nav=Decimal(1_000_000)))
    held = {}
    for k, n in enumerate(names):
        book.add_instrument(Instrument(instrument=n, asset_class="equity", currency="USD", sector=f"S{k % 4}"))
        book.add_mark(mark(n, float(last[n].iloc[0])))
        held[n] = float(rng.integers(-500, 900))
        book.add_position(msgspec.structs.replace(position("A0", "SAP", held[n], k + 1), instrument=n, currency="USD"))
    book.revalue(NOW)
    run = RiskModels(book, book.contracts, past, INSTRUMENT_GROUPINGS).run(NOW)
    returns = frame[names].tail(501).pct_change().dropna()
    pnl = (returns * [held[n] * float(last[n].iloc[0]) for n in names]).sum(axis=1).sort_values()
    got = run.models["firm"]["var_hist"]
    assert got["n"] == 500
    assert got["var_99"] == pytest.approx(-pnl.iloc[5], rel=1e-9)
    assert got["es_99"] == pytest.approx(-pnl.iloc[:5].mean(), rel=1e-9)
    assert run.models["firm"]["factor"]["volatility"] == pytest.approx(pnl.std(), rel=0.1)
