"""Relations of the risk stage: a late one (R3), another base currency (R15), less knowledge (R10), absolute factors, old surfaces."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.risk import RiskStage
from app.gateway.state import GatewayState
from app.history import from_columns
from models import rollup as ru
from models.reference import Reference
from models.risk.factor_set import build_factors
from models.risk.limit_values import limit_values
from models.risk.live import RiskModels
from models.trading_day import TradingDay
from models.valued_book import INSTRUMENT_GROUPINGS, ValuedBook
from schemas.market import Surface, VolSlice
from schemas.records import Account, Instrument, Position
from schemas.topics import TOPICS
from tests.property.test_rollup import INSTRUMENTS, LEVELS, account, mark, position

S = 1_000_000_000
NOW = 1_764_000_000 * S
DAY = 86_400 * S
OPTION = Instrument(instrument="OPT", asset_class="option", currency="EUR", underlying="SAP", right="call", strike=Decimal(50), expiry="2026-06-30", style="european")
FORWARD = Instrument(instrument="FWD", asset_class="fx_forward", currency="USD", underlying="EURUSD", expiry="2026-06-30")
ALL = [*INSTRUMENTS, OPTION, FORWARD]


def days(count: int) -> list[str]:
    return [(date(2024, 1, 1) + timedelta(days=k)).isoformat() for k in range(count)]


def held(name: str, instrument: str, quantity: float, rev: int) -> Position:
    record = next(i for i in ALL if i.instrument == instrument)
    found = position(name, instrument if record in INSTRUMENTS else "SAP", quantity, 50.0, quantity / 4, rev)
    return found if record in INSTRUMENTS else msgspec.structs.replace(found, instrument=instrument, currency=record.currency)


def surface(underlying: str, k: int, ts: int = NOW) -> Surface:
    """Return a surface of an equity, or a curve of a currency."""
    if underlying == "SAP":
        return Surface(underlying="SAP", ts_event=ts, dividends=[], vols=[VolSlice(expiry="2026-06-30", strikes=[50.0], vols=[0.2 + 0.05 * k])])
    return Surface(underlying=underlying, ts_event=ts, rates=[(1, 0.01 * k), (3650, 0.01 * k)])


# ---- R3 ----------------------------------------------------------------------------------------------------------------
NAMES = st.sampled_from([i.instrument for i in ALL])
STEP = st.one_of(st.tuples(st.just("position"), st.integers(0, 4), NAMES, st.integers(-400, 400)), st.tuples(st.just("mark"), NAMES, st.sampled_from([None, 0.5, 40.0, 64.0]), st.sampled_from(["good", "stale"])),
                 st.tuples(st.just("surface"), st.sampled_from(["SAP", "EUR", "USD", "JPY"]), st.integers(0, 3)), st.tuples(st.just("account"), st.integers(0, 4), st.integers(0, 5)),
                 st.tuples(st.just("instrument"), st.sampled_from(ALL), st.sampled_from([None, Decimal(90), Decimal(60)])), st.just("value"))


def take(book: ValuedBook, step: Any, rev: int) -> None:
    match step:
        case "position", a, name, quantity:
            book.add_position(held(f"A{a}", name, float(quantity), rev))
        case "mark", name, mid, quality:
            book.add_mark(msgspec.structs.replace(mark(name, mid, quality), window_end=NOW))
        case "surface", name, k:
            book.add_surface(surface(name, k))
        case "account", a, under:
            book.add_account(account(f"A{a}", under))
        case "instrument", record, close:
            book.add_instrument(msgspec.structs.replace(record, prior_close=close))
        case "value":
            book.revalue(NOW)


def key_of(step: Any) -> Any:
    return step if step == "value" else (step[0], *(step[1:3] if step[0] == "position" else step[1:2])) if step[0] != "instrument" else ("instrument", step[1].instrument)


@settings(max_examples=30, deadline=None)
@given(st.lists(STEP, max_size=30))
def test_a_risk_stage_that_starts_late_on_what_compaction_left_has_the_nodes_of_an_early_one(steps: list[Any]) -> None:
    assert {"marks", "positions", "market.surfaces", "reference.accounts", "reference.instruments"} <= {t.name for t in TOPICS if t.compact}
    begin: list[Any] = [("instrument", i, i.prior_close) for i in ALL] + [("account", k, k) for k in range(5)]
    log = list(enumerate(begin + steps, 1))
    newest = {key_of(step): rev for rev, step in log}
    kept = [(rev, step) for rev, step in log if step != "value" and newest[key_of(step)] == rev]
    order = ("instrument", "account", "surface", "mark", "position")  # as `RiskStage.take` reads them
    early, late = (ValuedBook("USD", LEVELS, None, DAY) for _ in range(2))
    for rev, step in log:
        take(early, step, rev)
    for rev, step in sorted(kept, key=lambda x: order.index(x[1][0])):
        take(late, step, rev)
    for book in (early, late):
        book.revalue(NOW)
        book.revalue(NOW + 60 * S)
        book.rollup.recount()
    assert early.rollup.state_hash(early.names) == late.rollup.state_hash(late.names)
    found = [{n: book.figures(k) for n, k in book.rollup.node_index.items() if book.rollup.nodes[k, ru.POSITIONS]} for book in (early, late)]
    assert found[0].keys() == found[1].keys()
    for name, figures in found[0].items():
        np.testing.assert_allclose(found[1][name], figures, rtol=1e-9, atol=1e-6, err_msg=name)


# ---- R15 ---------------------------------------------------------------------------------------------------------------
MONEY = ("gross", "net", "long", "short", "delta", "gamma", "vega", "theta", "rho", "loss_total", "loss_day", "credit", "var_hist", "es_hist", "var_mc", "margin", "margin_maintenance")


HISTORY = from_columns({"date": days(60), "SAP": (50 * np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.02, 60)))).tolist(),
                        "FUT": (50 * np.exp(np.cumsum(np.random.default_rng(2).normal(0, 0.03, 60)))).tolist(), **{p: [1.0] * 60 for p in ("EURUSD", "USDJPY", "BTCUSD")}}, 500)
LEGS = st.lists(st.tuples(st.integers(0, 4), st.sampled_from([i.instrument for i in [*INSTRUMENTS, OPTION]]), st.integers(-400, 400).filter(bool)), min_size=1, max_size=8, unique_by=lambda x: x[:2])


def in_base(base: str, rate: float, legs: list[tuple[int, str, int]]) -> tuple[ValuedBook, dict[str, int]]:
    """Return a book of a base currency at a rate of the euro, and its nodes; currencies move neither now nor in the past."""
    book = ValuedBook(base, LEVELS)
    for record in (*INSTRUMENTS, OPTION):
        # a close of the rate that is the rate: the day has no part of its own from currencies
        book.add_instrument(msgspec.structs.replace(record, prior_close=Decimal(str(rate))) if record.instrument == "EURUSD" else record)
    for k in range(5):
        book.add_account(msgspec.structs.replace(account(f"A{k}", k), base_currency=base, nav=None))
    for name, mid in (("EURUSD", rate), ("USDJPY", 150.0), ("BTCUSD", 40_000.0), ("SAP", 60.0), ("FUT", 55.0), ("INV", 41_000.0)):
        book.add_mark(msgspec.structs.replace(mark(name, mid), window_end=NOW))
    for x in (surface("SAP", 1), surface("EUR", 1)):
        book.add_surface(x)
    for rev, (a, name, quantity) in enumerate(legs, 1):
        book.add_position(held(f"A{a}", name, float(quantity), rev))
    book.revalue(NOW)
    return book, {n: k for n, k in book.rollup.node_index.items() if book.rollup.nodes[k, ru.POSITIONS] and not n.startswith("pair:")}


@settings(max_examples=40, deadline=None)
@given(LEGS, st.sampled_from([0.5, 1.1, 2.0]))
def test_another_base_currency_at_fixed_rates_scales_every_figure(legs: list[tuple[int, str, int]], rate: float) -> None:
    """The same positions in USD and in EUR: money is divided by the rate, counts and quantities are what they were."""
    (usd, nodes), (eur, others) = (in_base(base, rate, legs) for base in ("USD", "EUR"))
    assert nodes.keys() == others.keys()
    for name, k in nodes.items():
        one, other = usd.figures(k), eur.figures(others[name])
        np.testing.assert_allclose(other[: ru.MONEY], one[: ru.MONEY] / rate, rtol=1e-9, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(other[ru.MONEY:], one[ru.MONEY:], err_msg=name)


def test_another_base_currency_scales_what_the_models_say() -> None:
    found = []
    for base in ("USD", "EUR"):
        book, nodes = in_base(base, 1.1, [(0, "SAP", 100), (1, "OPT", -50), (2, "FUT", 7), (3, "INV", 5), (0, "OPT", 20)])
        models = RiskModels(book, book.contracts, HISTORY, INSTRUMENT_GROUPINGS)
        models.run(NOW)
        found.append(limit_values(models, nodes.keys() | set(), {"margin", "margin_maintenance"}))
    usd, eur = found
    assert usd.keys() == eur.keys() and {m for _, m in usd} >= {"var_hist", "es_hist", "var_mc", "gross"}
    for (name, metric), value in usd.items():
        precise = 1e-5 if metric == "var_mc" else 1e-9  # paths are kept in single precision
        assert eur[name, metric] == pytest.approx(value / 1.1 if metric in MONEY else value, rel=precise, abs=1e-6, nan_ok=True), (name, metric)


# ---- R10 ---------------------------------------------------------------------------------------------------------------
class Anything(SimpleNamespace):
    """Whatever a stage asks of its surroundings."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def stage_of(legs: list[tuple[int, str, int]], gone: str) -> dict[str, Any]:
    """Return the records of all nodes, with one input taken away."""
    anything, reference = Anything(), SimpleNamespace(reference=Reference(lambda a: 0), on_change=None)
    stage = RiskStage(anything, {t.name: t.name for t in TOPICS}, reference, anything, lambda: NOW, anything, "USD", LEVELS, 8,  # type: ignore[arg-type]
                      day=TradingDay(), surface_age_ns=DAY)
    book = stage.book
    for record in ALL:
        if record.instrument != gone.removesuffix(" terms"):
            book.add_instrument(record)
        elif gone != record.instrument:
            book.add_instrument(msgspec.structs.replace(record, underlying=None))
    for k in range(5):
        book.add_account(msgspec.structs.replace(account(f"A{k}", k), base_currency=("EUR", "JPY", "USD", "USD", "USD")[k]))
    for name, mid in (("EURUSD", 1.1), ("USDJPY", 150.0), ("BTCUSD", 40_000.0), ("SAP", 60.0), ("FUT", 55.0), ("INV", 41_000.0)):
        if gone != f"mark {name}":
            book.add_mark(msgspec.structs.replace(mark(name, mid, "stale" if gone == f"stale {name}" else "good"), window_end=NOW))
    for name in ("SAP", "EUR", "USD"):
        if gone != f"surface {name}":
            book.add_surface(surface(name, 1, NOW - 2 * DAY if gone == f"old {name}" else NOW))
    for rev, (a, name, quantity) in enumerate(legs, 1):
        found = held(f"A{a}", name, float(quantity), rev)
        change: dict[str, Any] = {"cost": {"average_price": None}, "realised": {"realised_pnl": None}, "fees": {"fees": {"XYZ": 1.0}}}.get(gone, {})
        book.add_position(msgspec.structs.replace(found, **change))
    book.revalue(NOW)
    nodes = [k for k in range(len(book.rollup.node_names)) if book.rollup.nodes[k, ru.POSITIONS]]
    return {r.node: r for r in stage.records(nodes, [], NOW)}


GONE = st.sampled_from([*(f"mark {n}" for n in ("EURUSD", "USDJPY", "BTCUSD", "SAP", "FUT", "INV")), *(f"stale {n}" for n in ("EURUSD", "SAP", "USDJPY")), *(f"surface {n}" for n in ("SAP", "EUR", "USD")),
                        *(f"old {n}" for n in ("SAP", "EUR", "USD")), "cost", "realised", "fees", "OPT terms"])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), NAMES, st.integers(-400, 400).filter(bool)), min_size=1, max_size=6, unique_by=lambda x: x[:2]), GONE)
def test_with_less_knowledge_no_figure_is_another_one_in_silence(legs: list[tuple[int, str, int]], gone: str) -> None:
    whole, less = stage_of(legs, ""), stage_of(legs, gone)
    assert whole.keys() >= less.keys()
    for name, seen in less.items():
        q, known, greeks = seen.quality, whole[name], seen.greeks or {}
        assert q.stale >= known.quality.stale or q.unpriced > known.quality.unpriced, "what is unpriced is not called stale besides"
        said = q.unpriced > known.quality.unpriced or q.stale > known.quality.stale
        for part, fields, counted in (("exposure", ("gross", "net", "long", "short"), said), ("pnl", ("realised", "unrealised", "day", "fees", "funding", "total"), said or q.pnl_unknown > known.quality.pnl_unknown
                                                                                             or q.day_unknown > known.quality.day_unknown)):
            for f in fields:
                now, then = getattr(getattr(seen, part), f), getattr(getattr(known, part), f)
                assert now is None or counted or (then is not None and now == pytest.approx(then, rel=1e-9, abs=1e-9)), (name, part, f, now, then)
        # what is null says why
        figures = [*msgspec.structs.asdict(seen.exposure).values(), *msgspec.structs.asdict(seen.pnl).values(), *(greeks[g] for g in ru.GREEKS)]
        assert None not in figures or q.unpriced or q.pnl_unknown or q.day_unknown or q.without_rate, (name, gone)
        assert (q.without_rate is not None) == ((seen.base_currency, gone) in {("EUR", "mark EURUSD"), ("JPY", "mark USDJPY")})
        for g in ru.GREEKS:
            same = greeks[g] == pytest.approx((known.greeks or {})[g], rel=1e-9, abs=1e-9)
            assert same or said or greeks[g] is None or greeks["missing"] > (known.greeks or {})["missing"], (name, g)


# ---- absolute factors --------------------------------------------------------------------------------------------------
def spread_models(price: float, level: float, *legs: tuple[str, float]) -> tuple[RiskModels, dict[str, dict[str, Any]]]:
    """Return the models of a book of a spread, 1,000 a unit and 0.05 a day, and an equity of 2 % a day."""
    rng = np.random.default_rng(3)
    steps, moves = rng.normal(0.0, 0.05, 400), rng.normal(0.0, 0.02, 400)
    levels = level + np.concatenate([[0.02], 0.02 + np.cumsum(steps)])
    history = from_columns({"date": days(401), "EQ": (100 * np.cumprod(np.concatenate([[1.0], 1 + moves]))).tolist(), "SP": levels.tolist()}, 500)
    book = ValuedBook("USD", LEVELS)
    book.add_instrument(Instrument(instrument="SP", asset_class="future", currency="USD", multiplier=Decimal(1000)))
    book.add_instrument(Instrument(instrument="EQ", asset_class="equity", currency="USD"))
    book.add_account(Account(account="A0", book="B", desk="D", strategy="S", fund="F"))
    for name, mid in (("SP", price), ("EQ", 100.0)):
        book.add_mark(msgspec.structs.replace(mark(name, mid), window_end=NOW))
    for rev, (name, quantity) in enumerate(legs, 1):
        book.add_position(msgspec.structs.replace(position("A0", "SAP", quantity, 1.0, 0.0, rev), instrument=name, currency="USD", fees={}))
    book.revalue(NOW)
    models = RiskModels(book, book.contracts, history, INSTRUMENT_GROUPINGS)
    return models, models.run(NOW).models


@pytest.mark.parametrize(("price", "level"), [(0.0, 0.0), (0.01, 0.0), (-0.5, 0.0), (-0.5, 60.0), (0.0, 60.0)])
def test_a_spread_is_in_the_factor_model_and_in_the_simulation_wherever_it_is(price: float, level: float) -> None:
    """It was left out of both, and said to be; where its history lay above zero it was in them with the wrong sign."""
    _, found = spread_models(price, level, ("SP", 100.0))
    size = 100 * 1000 * 0.05
    factor, mc = found["firm"]["factor"], found["firm"]["var_mc"]
    assert factor["volatility"] == pytest.approx(size, rel=0.06) and factor["quality"] == mc["quality"] == "good" and factor["missing"] == 0
    assert factor["contribution"]["absolute:SP"] == pytest.approx(factor["volatility"]) and factor["exposure"]["absolute:SP"] == pytest.approx(100_000)
    assert mc["var_99"] == pytest.approx(2.326 * factor["volatility"], rel=0.05)
    assert mc["var_99"] == pytest.approx(found["firm"]["var_hist"]["var_99"], rel=0.25)


def test_what_moves_by_differences_beside_a_book_changes_nothing_of_it_and_mirrors() -> None:
    alone, beside, mirror = (spread_models(0.0, 0.0, *legs) for legs in ([("EQ", 50.0)], [("EQ", 50.0), ("SP", 100.0)], [("EQ", -50.0), ("SP", -100.0)]))
    one, both, other = (x[1]["firm"]["factor"] for x in (alone, beside, mirror))
    assert both["volatility"] == other["volatility"] and both["volatility"] ** 2 == pytest.approx(one["volatility"] ** 2 + 5_000 ** 2, rel=0.1)
    fs = alone[0]._factors
    assert fs is not None
    market_alone = build_factors(alone[0].book, alone[0].scenarios.history, frozenset({"SP"}))  # type: ignore[union-attr]
    np.testing.assert_array_equal(fs.draws[:, 0], market_alone.draws[:, 0])
    np.testing.assert_allclose(np.cov(fs.draws, rowvar=False), fs.covariance, rtol=0.1, atol=0.02 * np.sqrt(np.outer(np.diag(fs.covariance), np.diag(fs.covariance))).max())


# ---- old surfaces ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("old", ["SAP", "EUR", "USD", ""])
def test_what_rests_on_an_old_surface_or_curve_is_stale_on_the_node_its_greeks_and_the_page(old: str) -> None:
    state = GatewayState("USD", LEVELS, None, DAY)
    book = state.book
    for record in ALL:
        state.add_instrument(record)
    state.add_account(account("A0", 0))
    for name, mid in (("EURUSD", 1.1), ("SAP", 60.0)):
        book.add_mark(msgspec.structs.replace(mark(name, mid), window_end=NOW))
    for name in ("SAP", "EUR", "USD"):
        book.add_surface(surface(name, 1, NOW - DAY - S if name == old else NOW))
    for rev, name in enumerate(("OPT", "FWD", "SAP"), 1):
        state.add_position(held("A0", name, 10.0, rev), 0)
    state.last_mark_ns = NOW

    def stale() -> set[str]:
        state.turn()
        return {row[1] for row in state.ladder("firm", -1)[0] if row[12] == 1}
    wanted = {"SAP": {"OPT"}, "EUR": {"OPT", "FWD"}, "USD": {"FWD"}, "": set()}[old]
    assert stale() == wanted and book.rollup.nodes[book.rollup.node_index["firm"], ru.STALE] == len(wanted)
    models = RiskModels(book, book.contracts, None, INSTRUMENT_GROUPINGS)
    greeks = models.run(NOW).models["firm"]["greeks"]
    assert (greeks["quality"], greeks["stale"]) == ("stale" if wanted else "good", len(wanted))
    state.last_mark_ns = NOW + 2 * DAY  # time alone
    assert stale() == {"OPT", "FWD"}
    for name in ("SAP", "EUR", "USD"):
        book.add_surface(surface(name, 1, NOW + 2 * DAY))
    assert stale() == set()
